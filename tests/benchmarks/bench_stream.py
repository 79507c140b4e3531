"""Frames of a 4 Mpx Jungfrau per second of one process on one core, from psana's shared memory.

A loss-free server on another core serves a fabricated run. psana's client takes every event and
calls ``det.raw.calib``; ours calibrates, and computes an ROI and I(q) besides, through the same
``Plan`` that a producer uses. Rounds run the two by turns; a ratio is the median of the rounds.
``python -m tests.benchmarks.bench_stream``.
"""

import time
from pathlib import Path

from ffb.testing.fabricate import RunSpec, save_constants, write_run
from tests.benchmarks.served import main

SPEC = RunSpec(steps=1, shots_per_step=110, segments=8, area_missing=0, groups=("timing", "area"))
WARM, LAST = 10, 100

TOML = """
[source]
kind = "psana"
exp = "mfxx49820"
shmem = "TAG"

[inputs]
image = { detector = "jungfrau", field = "raw" }

[reducers.spot]
use = "roi"
inputs = "image"
params = { segment = 3, rows = [128, 384], cols = [256, 768] }

[reducers.rings]
use = "azimuthal"
inputs = "image"
params = { distance = 100.0, energy = 9.5, bins = 500 }

[calibration.jungfrau]
pedestals = "pedestals.npy"
gain = "gain.npy"
offset = "offset.npy"
status = "status.npy"
geometry = "geometry.data"
"""


def read_ours(tag: str, folder: Path) -> tuple[int, float, float]:
    from ffb import config
    from ffb.plan import Plan
    from ffb.shot import BeginStep, Idle
    from ffb.sources.psana import Meaning
    from ffb.sources.shmem import ShmemSource

    file = folder / f"{tag}.toml"
    file.write_text(TOML.replace("TAG", tag))
    run = next(ShmemSource(tag, 60.0, Meaning).runs())
    plan = Plan.make(config.load(file), run)
    n, wall, cpu = 0, 0.0, 0.0
    for item in run:
        if isinstance(item, Idle | BeginStep):
            continue
        if plan.take(item, time.time_ns()):
            plan.close()
        if n == WARM:
            wall, cpu = time.perf_counter(), time.process_time()
        n += 1
        if n == LAST:
            break
    return n - WARM - 1, time.perf_counter() - wall, time.process_time() - cpu


def read_psana(tag: str, folder: Path) -> tuple[int, float, float]:
    import numpy as np

    from ffb.sources.standins import import_psana

    source = import_psana("psana").DataSource(shmem=tag, skip_calib_load="all", log_level="ERROR")
    run = next(source.runs())
    meta = {"experiment": SPEC.exp, "run": SPEC.run}
    names = {"pedestals": "pedestals", "gain": "pixel_gain", "offset": "pixel_offset"}
    run._calib_const["jungfrau"] = {
        **{psana: (np.load(folder / f"{ours}.npy"), meta) for ours, psana in names.items()},
        "pixel_status": (np.load(folder / "status.npy").astype(np.uint64), meta),
    }
    run.dsparms.calibconst = run._calib_const
    calib = run.Detector("jungfrau").raw.calib
    n, wall, cpu = 0, 0.0, 0.0
    for event in run.events():
        calib(event)
        if n == WARM:
            wall, cpu = time.perf_counter(), time.process_time()
        n += 1
        if n == LAST:
            break
    return n - WARM - 1, time.perf_counter() - wall, time.process_time() - cpu


CLIENTS = {
    "psana: events, det.raw.calib": read_psana,
    "ours: calibration, ROI, azimuthal": read_ours,
}


def write_to(folder: Path) -> Path:
    save_constants(folder, SPEC)
    return write_run(folder / "run.xtc2", SPEC)


if __name__ == "__main__":
    title = f"4 Mpx Jungfrau from shared memory, {LAST} shots"
    main(__spec__.name, title, CLIENTS, write_to, buffers=4)
