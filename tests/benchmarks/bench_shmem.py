"""Shots per second of one process on one core, from psana's shared memory: psana's loop and ours.

A loss-free server on another core serves datagrams of five detectors with 70 fields, 855 bytes.
Both clients take every shot and read the same ten fields: psana's event loop through its detector
objects, ours into a block of frames. Rounds run the two by turns; a ratio is the median of the
rounds. ``python -m tests.benchmarks.bench_shmem``.
"""

import struct
import time
from pathlib import Path

from ffb.shot import BeginStep, Field, FrameBlock, Idle
from ffb.sources.xtc2_specs import SPECS, Service, timing_record
from tests.benchmarks.served import main

FIELDS = {
    "pulse": Field("timing", "raw", "pulseId"),
    "intensity": Field("w8", "fex", "intensity"),
    "posx": Field("w8", "fex", "posX"),
    "integral": Field("w8", "fex", "integral_3"),
    "photon": Field("ebeam", "raw", "ebeamPhotonEnergy"),
    "charge": Field("ebeam", "raw", "ebeamCharge"),
    "f11": Field("gasdet", "raw", "f11ENRC"),
    "f64": Field("gasdet", "raw", "f64ENRC"),
    "edge": Field("tt", "ttfex", "fltpos"),
    "ampl": Field("tt", "ttfex", "ampl"),
}
T0 = 1_730_000_000_000_000_000


def write(path: Path, shots: int) -> int:
    """Write a run of equal shots; returns the bytes of one."""
    from ffb.sources.xtc2_writer import Xtc2Writer

    w = Xtc2Writer(path, "mfxx49820", 7)
    named = {"w8": "wave8_fex", "ebeam": "ebeam", "gasdet": "gasdet", "tt": "opal_ttfex"}
    slots = [(w.declare(SPECS[spec], name), SPECS[spec]) for name, spec in named.items()]
    timing = w.declare(SPECS["timing"], "timing")
    for k, service in enumerate(("CONFIGURE", "BEGIN_RUN", "BEGIN_STEP", "ENABLE")):
        w.put(Service[service], T0 + k)
    records = [(slot, dict.fromkeys(spec.fields, 1)) for slot, spec in slots]
    size = w.put(Service.L1_ACCEPT, T0 + 9, [*records, (timing, timing_record(5, [40, 140]))])
    w.flush()
    one = bytearray(path.read_bytes()[-size:])
    first = struct.unpack_from("<Q", one)[0]
    with path.open("ab") as f:  # psana's writer would take seconds for what is all the same
        for i in range(1, shots):
            struct.pack_into("<Q", one, 0, first + 1000 * i)
            f.write(one)
        f.flush()
    w.close()
    return size


def read_ours(tag: str, folder: Path) -> tuple[int, float, float]:
    from ffb.sources.psana import Meaning
    from ffb.sources.shmem import ShmemSource

    run = next(ShmemSource(tag, 30.0, Meaning).runs())
    inputs, problems = run.bind(FIELDS, {})
    assert not problems
    block, n, wall, cpu = FrameBlock(inputs, 128), 0, 0.0, 0.0
    for item in run:
        if isinstance(item, Idle | BeginStep):
            continue
        item.fill(block, n % 128)
        if n == WARM:
            wall, cpu = time.perf_counter(), time.process_time()
        n += 1
        if n == LAST:
            break
    return n - WARM - 1, time.perf_counter() - wall, time.process_time() - cpu


def read_psana(tag: str, folder: Path) -> tuple[int, float, float]:
    from ffb.sources.standins import import_psana

    source = import_psana("psana").DataSource(shmem=tag, skip_calib_load="all", log_level="ERROR")
    run = next(source.runs())
    made = {d: run.Detector(d) for d in {f.detector for f in FIELDS.values()}}
    read = [getattr(getattr(made[f.detector], f.alg), f.name) for f in FIELDS.values()]
    n, wall, cpu = 0, 0.0, 0.0
    for event in run.events():
        for field in read:
            field(event)
        if n == WARM:
            wall, cpu = time.perf_counter(), time.process_time()
        n += 1
        if n == LAST:
            break
    return n - WARM - 1, time.perf_counter() - wall, time.process_time() - cpu


CLIENTS = {"psana: events, fields through detectors": read_psana, "ours: gathered": read_ours}
WARM, LAST = 200, 4000


def write_to(folder: Path) -> Path:
    write(folder / "run.xtc2", LAST + 500)
    return folder / "run.xtc2"


if __name__ == "__main__":
    title = f"70 fields in 855 bytes, {len(FIELDS)} read, {LAST} shots"
    main(__spec__.name, title, CLIENTS, write_to, buffers=10)
