"""Frames of a 4 Mpx Jungfrau per second of one process on one core, from psana's shared memory.

A loss-free server on another core serves a fabricated run. psana's client takes every event and
calls ``det.raw.calib``; ours calibrates, and computes an ROI and I(q) besides, through the same
``Plan`` that a producer uses. Rounds run the two by turns; a ratio is the median of the rounds.
``python -m tests.benchmarks.bench_stream``.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

from ffb.testing.fabricate import RunSpec, save_constants, write_run
from ffb.testing.shmem_server import clean
from tests.benchmarks.harness import machine

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


CLIENTS = {"psana": read_psana, "ours": read_ours}


def pin(core: int) -> None:
    os.sched_setaffinity(0, {core})


def measure(which: str, path: Path, cores: list[int]) -> dict[str, float]:
    """Serve ``path`` to one client in a process of its own."""
    tag = f"bench{uuid.uuid4().hex[:8]}"
    command = [sys.executable, "-m", "ffb.testing.shmem_server"]
    client = [sys.executable, "-m", __spec__.name, "--client", which]
    server = subprocess.Popen(
        [*command, str(path), "--tag", tag, "--buffers", "4", "--linger", "0"],
        stdout=subprocess.PIPE,
        preexec_fn=lambda: pin(cores[0]),
    )
    try:
        assert server.stdout is not None
        server.stdout.readline()
        out = subprocess.run(
            [*client, "--tag", tag, "--folder", str(path.parent)],
            stdout=subprocess.PIPE,
            check=True,
            preexec_fn=lambda: pin(cores[-1]),
            timeout=300,
        )
    finally:
        server.kill()
        server.communicate()
        clean(tag)
    found: dict[str, float] = json.loads(out.stdout.splitlines()[-1])
    return found


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--client", choices=CLIENTS)
    p.add_argument("--tag")
    p.add_argument("--folder", type=Path)
    a = p.parse_args()
    if a.client:
        n, wall, cpu = CLIENTS[a.client](a.tag, a.folder)
        print(json.dumps({"rate": n / wall, "cpu": 1e3 * cpu / n}), flush=True)
        os._exit(0)  # psana's reader thread would wait for the next server
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_constants(folder, SPEC)
        path = write_run(folder / "run.xtc2", SPEC)
        rounds = [{w: measure(w, path, cores) for w in CLIENTS} for _ in range(a.rounds)]
    print(f"4 Mpx Jungfrau from shared memory, {LAST} shots, {a.rounds} rounds")
    print(machine("psana"))
    print(f"{'':44}{'frames/s':>10}{'cpu ms':>10}")
    words = {"psana": "psana: events, det.raw.calib", "ours": "ours: calibration, ROI, azimuthal"}
    for w in CLIENTS:
        rate, cpu = (statistics.median(r[w][k] for r in rounds) for k in ("rate", "cpu"))
        print(f"{words[w]:44}{rate:10.0f}{cpu:10.2f}")
    rate = statistics.median(r["ours"]["rate"] / r["psana"]["rate"] for r in rounds)
    cpu = statistics.median(r["psana"]["cpu"] / r["ours"]["cpu"] for r in rounds)
    print(f"ours is {rate:.1f} times as fast, with {cpu:.1f} times less cpu")


if __name__ == "__main__":
    main()
