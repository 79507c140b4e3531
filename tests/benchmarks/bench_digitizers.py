"""High-speed digitizers read in place, against psana's own decoder and against copying the bytes.

Four segments of 11 880 samples with 20 peaks of 40 samples each; shots lie in memory, and psana's
events are made before. In time of one thread. ``python -m tests.benchmarks.bench_digitizers``.
"""

import tempfile
from pathlib import Path
from time import thread_time

import numpy as np

from ffb.shot import BeginStep, Field, FrameBlock, Idle
from ffb.sources.dgram_run import DgramRun
from ffb.sources.dgram_shot import Moment
from ffb.sources.standins import import_psana
from ffb.sources.xtc2 import service, timestamp
from ffb.testing.playback import load
from tests.benchmarks.harness import compare, machine
from tests.psana import digitized

SEGMENTS, SHOTS, GATE_NS = range(4), 32, 2000
SIZE = int(GATE_NS * 0.160 * 13 / 14) * 40
PARTS = ("start", "length", "samples")


def record(rng):
    """A whole trace and what the digitizer extracts of it."""
    words = [*digitized.skip(0), 7, 7, 7, 7]
    for _ in range(20):
        words += [*digitized.skip(400), *rng.integers(2000, 4000, 40)]
    wave = digitized.stream(0, rng.integers(2000, 2100, SIZE))
    return digitized.record(3, wave, digitized.stream(1, words))


def reader(dgrams, names, rooms):
    """Fills the inputs ``names`` of all shots into a block."""
    shots = [Moment(12, timestamp(d), (np.frombuffer(d, np.uint8),)) for d in dgrams[1:]]

    def stream():
        while True:
            yield from shots
        return "never"  # pragma: no cover

    run = DgramRun([bytes(dgrams[0])], [None], stream())
    inputs, problems = run.bind({n: Field("hsd", "raw", n) for n in names}, {}, rooms)
    assert problems == []
    block = FrameBlock(inputs, SHOTS)
    items = (i for i in run if not isinstance(i, Idle | BeginStep))

    def fill():
        for row in range(SHOTS):
            next(items).fill(block, row)

    return fill


def main() -> None:
    rng = np.random.default_rng(1)
    digitized.GATE_NS = GATE_NS
    with tempfile.TemporaryDirectory() as folder:
        made = [[record(rng) for _ in SEGMENTS] for _ in range(SHOTS)]
        path = digitized.write(Path(folder) / "run.xtc2", made, segments=tuple(SEGMENTS))
        dgrams = [d for d in load(path) if service(d) in (2, 12)]
        source = import_psana("psana").DataSource(
            files=str(path), skip_calib_load="all", log_level="ERROR"
        )
        run = next(source.runs())
        raw, events = run.Detector("hsd").raw, list(run.events())
    traces = [f"waveforms.{s}" for s in SEGMENTS]
    lists = [f"peaks.{s}.{part}" for s in SEGMENTS for part in PARTS]
    rooms = {n: 1024 if n.endswith("samples") else 64 for n in lists}
    whole = np.zeros((SHOTS, len(SEGMENTS) * SIZE), np.uint16)
    bytes_ = [np.frombuffer(d, np.uint8)[-whole[0].nbytes :] for d in dgrams[1:]]

    def copied():
        for row, b in zip(whole, bytes_, strict=True):
            row.view(np.uint8)[:] = b

    def asked(*names):
        for event in events:
            for name in names:
                getattr(raw, name)(event)

    print(machine())
    competitors = {
        "psana: waveforms and peaks": lambda: asked("waveforms", "peaks"),
        "psana: padded": lambda: asked("padded"),
        "ours: 4 traces": reader(dgrams, traces, {}),
        "ours: 12 lists of peaks": reader(dgrams, lists, rooms),
        "ours: 4 padded": reader(dgrams, [f"padded.{s}" for s in SEGMENTS], {}),
        "numpy: the bytes of 4 traces": copied,
    }
    title = f"{SHOTS} shots of {len(SEGMENTS)} digitizers"
    print(compare(competitors, "psana: waveforms and peaks", 25, title, clock=thread_time))


if __name__ == "__main__":
    main()
