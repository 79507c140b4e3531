"""What a producer takes for a set of 61 scalar fields of default detectors, and what psana does.

Shots of a fabricated beam line, 19 detectors, lie in memory. One producer reads their timing and
tells the light; another records six detectors besides, with damage. Both read, fill in, close
batches of six shots, as at 120 Hz, or of 128, and make messages of them. psana's loop over the same
shots reads the same fields through its detectors. By turns, in CPU time of the thread.
``python -m tests.benchmarks.bench_detectors``.
"""

import statistics
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np

from ffb.config import parse
from ffb.plan import Plan
from ffb.shot import BeginStep, Idle
from ffb.sources.dgram_run import DgramRun
from ffb.sources.dgram_shot import Moment
from ffb.sources.standins import import_psana
from ffb.sources.xtc2 import service, timestamp
from ffb.testing.fabricate import RunSpec, write_run
from ffb.testing.playback import load
from ffb.wire import Header, encode
from tests.benchmarks.harness import machine

DETECTORS = {
    "ebeam": "ebeam", "ebeamh": "ebeam", "gasdet": "gasdet", "pcav": "pcav", "gmd": "gmd",
    "xgmd": "gmd",
}  # fmt: skip
SPEC = RunSpec(groups=("timing", "time_tool", "waveforms", "beam", "epics", "hutch"), steps=1,
               shots_per_step=384, slow=400)  # fmt: skip
ROUNDS = 25


def producer(dgrams, batch, detectors):
    """Takes shots, for ever; a call takes them once more, and gives seconds a shot."""
    config = {
        "source": {"kind": "synthetic"},
        "batch": {"shots": batch},
        "light": {"xray": {"off": [162]}, "laser": {"on": [90], "off": [91]}},
        "detectors": {d: {"kind": k} for d, k in detectors.items()},
        "damage": bool(detectors),
    }
    shots = [d for d in dgrams if service(d) == 12]

    def stream():
        while True:
            for d in shots:
                yield Moment(12, timestamp(d), (np.frombuffer(d, np.uint8),))
        return "never"  # pragma: no cover

    run = DgramRun([bytes(dgrams[0])], [bytes(dgrams[1])], stream())
    plan = Plan.make(parse(config), run)
    items = (i for i in run if not isinstance(i, Idle | BeginStep))
    head = Header("shots", "mfxx49820", 7)

    def call():
        began = time.thread_time()
        for item in islice(items, len(shots)):
            if plan.take(item, 0):
                encode(head, plan.schema, plan.close())
        return (time.thread_time() - began) / len(shots)

    return call, plan


def psana(path, fields):
    """psana's loop over the shots of ``path``, which reads ``fields``; seconds a shot."""
    source = import_psana("psana").DataSource
    run = next(source(files=str(path), skip_calib_load="all", log_level="ERROR").runs())
    read = [getattr(run.Detector(d).raw, f) for d, f in fields]
    began, n = time.thread_time(), 0
    for event in run.events():
        for field in read:
            field(event)
        n += 1
        if n == SPEC.shots:  # at the end of a file psana sleeps
            break
    return (time.thread_time() - began) / n


def main():
    print(machine("psana"))
    with tempfile.TemporaryDirectory() as folder:
        path = write_run(Path(folder) / "run.xtc2", SPEC)
        dgrams = load(path)
        bare, made = {}, {}
        for batch in (6, 128):
            bare[batch], _ = producer(dgrams, batch, {})
            made[batch], plan = producer(dgrams, batch, DETECTORS)
        fields = [(i.detector, i.field.split(".")[1]) for i in plan.config.inputs.values()]
        scalars = [r for r in plan.recorded if not r.input.shape]
        assert len(scalars) == len(fields) == len(plan.recorded)
        print(f"\n{len(scalars)} scalar fields, {len(plan.schema.columns)} columns\n")
        times = {}
        for _ in range(ROUNDS):
            for batch in bare:
                times.setdefault(f"producer, batches of {batch}", []).append(bare[batch]())
                times.setdefault(f"with the fields, batches of {batch}", []).append(made[batch]())
        for _ in range(3):
            times.setdefault("psana's events alone", []).append(psana(path, []))
            times.setdefault("psana, fields read", []).append(psana(path, fields))
    print("| us a shot | best | median |\n|---|---|---|")
    for name, taken in times.items():
        print(f"| {name} | {min(taken) * 1e6:.2f} | {statistics.median(taken) * 1e6:.2f} |")
    for batch in bare:
        pairs = zip(
            times[f"producer, batches of {batch}"],
            times[f"with the fields, batches of {batch}"],
            strict=True,
        )
        added = [(b - a) * 1e6 for a, b in pairs]
        print(f"| added by the fields, batches of {batch} | {min(added):.2f} |"
              f" {statistics.median(added):.2f} |")  # fmt: skip


if __name__ == "__main__":
    main()
