"""Shots per second of one process on one core, from psana's shared memory: psana's loop and ours.

A loss-free server on another core serves datagrams of five detectors with 70 fields, 855 bytes.
Both clients take every shot and read the same ten fields: psana's event loop through its detector
objects, ours into a block of frames. Rounds run the two by turns; a ratio is the median of the
rounds. ``python -m tests.benchmarks.bench_shmem``.
"""

import argparse
import json
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

from ffb.shot import BeginStep, Field, FrameBlock, Idle
from ffb.sources.xtc2_specs import SPECS, Service, timing_record
from ffb.testing.shmem_server import clean

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


def read_ours(tag: str) -> tuple[int, float, float]:
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


def read_psana(tag: str) -> tuple[int, float, float]:
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


CLIENTS = {"psana": read_psana, "ours": read_ours}
WARM, LAST = 200, 4000


def measure(which: str, path: Path, cores: list[int]) -> dict[str, float]:
    """Serve ``path`` to one client in a process of its own."""
    tag = f"bench{uuid.uuid4().hex[:8]}"
    command = [sys.executable, "-m", "ffb.testing.shmem_server", "--tag", tag, str(path)]
    options = ["--buffers", "10", "--linger", "0"]
    server = subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, preexec_fn=lambda: pin(cores[0])
    )
    try:
        assert server.stdout is not None
        server.stdout.readline()
        client = [sys.executable, "-m", __spec__.name, "--client", which, "--tag", tag]
        out = subprocess.run(
            client, stdout=subprocess.PIPE, check=True, preexec_fn=lambda: pin(cores[-1]),
            timeout=120,
        )  # fmt: skip
    finally:
        server.kill()
        server.communicate()
        clean(tag)
    found: dict[str, float] = json.loads(out.stdout.splitlines()[-1])
    return found


def pin(core: int) -> None:
    os.sched_setaffinity(0, {core})


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--client", choices=CLIENTS)
    p.add_argument("--tag")
    a = p.parse_args()
    if a.client:
        n, wall, cpu = CLIENTS[a.client](a.tag)
        print(json.dumps({"rate": n / wall, "cpu": 1e6 * cpu / n}), flush=True)
        os._exit(0)  # psana's reader thread would wait for the next server
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.xtc2"
        size = write(path, LAST + 500)
        rounds = [{w: measure(w, path, cores) for w in CLIENTS} for _ in range(a.rounds)]
    print(f"{size} bytes, 70 fields, {len(FIELDS)} read, {LAST} shots, {a.rounds} rounds")
    print(f"{'':8}{'shots/s':>12}{'cpu us/shot':>14}")
    for w in CLIENTS:
        rate, cpu = (statistics.median(r[w][k] for r in rounds) for k in ("rate", "cpu"))
        print(f"{w:8}{rate:12.0f}{cpu:14.1f}")
    rate = statistics.median(r["ours"]["rate"] / r["psana"]["rate"] for r in rounds)
    cpu = statistics.median(r["psana"]["cpu"] / r["ours"]["cpu"] for r in rounds)
    print(
        f"ours is {rate:.1f} times as fast (limited by the server), with {cpu:.1f} times less cpu"
    )


if __name__ == "__main__":
    main()
