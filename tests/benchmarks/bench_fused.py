"""What fusing tile reducers saves, and several shots together, against the bytes that must move.

A Jungfrau of 4 Mpx, one thread, in time of that thread; whole-frame competitors get calibrated
frames. ``python -m tests.benchmarks.bench_fused``.
"""

import argparse
from collections.abc import Callable
from time import thread_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffb import Area
from ffb.batch import Batch
from ffb.loops.fuse import RUN, Member
from ffb.loops.stages import AreaPass
from ffb.loops.uncalibrated import Uncalibrated
from ffb.reducers.azimuthal import azimuthal
from ffb.reducers.calibration import Calibration, calibration_of
from ffb.reducers.histogram import Params as Bins
from ffb.reducers.histogram import histogram
from ffb.reducers.roi import Params as Roi
from ffb.reducers.roi import roi
from ffb.reducers.threshold import Params as Levels
from ffb.reducers.threshold import threshold
from ffb.schema import Schema
from ffb.sums.held import Summed, Summing
from ffb.sums.words import what_of
from tests.benchmarks.bench_kernels import SETTINGS, SHAPE, constants, flat, raw_frames
from tests.benchmarks.harness import Table, compare, guard, machine, over, read
from tests.unit.passes import member

FRAMES, TOGETHER, LEVEL = 8, 4, 3.0
BOX = Roi((100, 228), (400, 656), 2)
SPECTRUM = Bins((-5.0, 20.0), 250)

Segments = tuple[NDArray[Any], ...]
Run = Callable[[Segments], None]


def passes(
    members: list[Member], k: Any, area: Area, together: int = 1, whats: tuple[str, ...] = ()
) -> Run:
    """Raw segments to features in a pass, of ``together`` shots at once, with sums of ``whats``."""
    schema = Schema(tuple(column for m in members for column in m.all_columns))
    batch, active = Batch(schema, together), np.full(len(members), RUN, np.uint8)
    summing = Summing("sum", tuple(map(what_of, whats)), (), False, "", "keV")
    summed = Summed([summing], area.mask) if whats else None
    work, rows = AreaPass(members, k, area, schema, together, summed, together), np.arange(together)

    def run(raw: Segments) -> None:
        work.done[:] = 0
        work(raw, rows, batch.buffer, active)

    return run


def fused(k: Calibration, members: dict[str, Member], area: Area, rounds: int) -> Table:
    """One pass with few and with many reducers, and as many passes as there are reducers."""
    raws = [flat(f) for f in raw_frames(constants(), 0.0, FRAMES)]
    whole = np.zeros(SHAPE, np.float32)
    bins = members["q"].constants
    few, most = [members["box"], members["bright"]], [*members.values()]
    apart = [passes([m], Uncalibrated(area.mask, "<f4"), area) for m in most]

    def separately(raw: Segments) -> None:
        k.calibrate(raw, whole)
        for run in apart:
            run(flat(whole))

    hot = k.constants[:2]
    competitors = {
        "read raw, pedestals, factors": over(raws, lambda f: read((*f, *hot))),
        "calibration + ROI + threshold": over(raws, passes(few, k, area)),
        "read raw, pedestals, factors, bins": over(
            raws, lambda f: read((*f, *hot, bins.runs, bins.bounds))
        ),
        "calibration + ROI + threshold + I(q) + histogram": over(raws, passes(most, k, area)),
        "the same, a pass each": over(raws, separately),
        "all of them, and a sum over shots": over(raws, passes(most, k, area, whats=("calib",))),
    }
    return compare(competitors, "read raw, pedestals, factors", rounds, clock=thread_time)


def together(
    k: Calibration, members: dict[str, Member], area: Area, whats: tuple[str, ...], rounds: int
) -> Table:
    """Calibration, ROI, threshold and sums of four shots: one by one, together, and copied."""
    raws = [flat(f) for f in raw_frames(constants(), 0.0, 2 * TOGETHER)]
    fours = [sum(raws[i : i + TOGETHER], ()) for i in range(0, len(raws), TOGETHER)]
    few = [members["box"], members["bright"]]
    one, four = (passes(few, k, area, n, whats) for n in (1, TOGETHER))
    held = tuple(np.empty((len(fours[0]), fours[0][0].size), fours[0][0].dtype))

    def singly(raw: Segments) -> None:
        for i in range(0, len(raw), SHAPE[0]):
            one(raw[i : i + SHAPE[0]])

    def copied(raw: Segments) -> None:
        for own, segment in zip(held, raw, strict=True):
            own[:] = segment
        four(held)

    competitors = {
        "one by one": over(fours, singly),
        "together": over(fours, four),
        "together, copied": over(fours, copied),
    }
    title = f"calibration, ROI, threshold, {len(whats)} sums, {TOGETHER} shots of 4 Mpx"
    return compare(competitors, "one by one", rounds, title, clock=thread_time)


def against_numpy(
    members: dict[str, Member], area: Area, k: Calibration, rounds: int
) -> list[Table]:
    """Histogram and ROI statistics of calibrated frames, alone in their pass, and numpy's."""
    frames = []
    for raw in raw_frames(constants(), 0.0, 4):
        frames.append(np.zeros(SHAPE, np.float32))
        k.calibrate(flat(raw), frames[-1])
    (lo, hi), bins = SPECTRUM[:2]
    counted = passes([members["spectrum"]], Uncalibrated(area.mask, "<f4"), area)
    part = area._replace(shape=(1, *SHAPE[1:]), mask=area.mask[2:3], xyz=None)
    whole = passes([member("all", roi, Roi(), part)], Uncalibrated(part.mask, "<f4"), part)
    good = area.mask[2]
    rows, cols = np.indices(good.shape, sparse=True)

    def statistics(frame: NDArray[Any]) -> tuple[float, ...]:
        box = frame[2]
        down, across = box.sum(1, dtype=np.float64), box.sum(0, dtype=np.float64)
        total = down.sum()
        largest = box.max(where=good, initial=-np.inf)
        number, saturated = np.count_nonzero(good), np.count_nonzero(box >= 1e9)
        com = down @ rows[:, 0] / total, across @ cols[0] / total
        return total, total / number, largest, *com, number, saturated

    histograms = {
        "np.histogram": over(frames, lambda f: np.histogram(f[area.mask], bins, (lo, hi))),
        "np.histogram, masked pixels too": over(frames, lambda f: np.histogram(f, bins, (lo, hi))),
        "histogram": over(frames, lambda f: counted(flat(f))),
        "read the frame": over(frames, lambda f: read((f,))),
    }
    regions = {
        "numpy": over(frames, statistics),
        "roi": over(frames, lambda f: whole(flat(f[2:3]))),
    }
    return [
        compare(histograms, "np.histogram", rounds, f"{bins} bins, 4 Mpx", clock=thread_time),
        compare(regions, "numpy", rounds, "a segment of 0.5 Mpx", clock=thread_time),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    print(machine(), "\n")
    c = constants()
    k = calibration_of(c)
    area = Area(c.detector, SHAPE, k.mask, c.xyz, "keV")
    members = {
        "box": member("box", roi, BOX, area),
        "bright": member("bright", threshold, Levels((LEVEL, np.inf)), area),
        "q": member("q", azimuthal, SETTINGS, area),
        "spectrum": member("spectrum", histogram, SPECTRUM, area),
    }
    table = fused(k, members, area, rounds)
    print(table)
    guard(table, "calibration + ROI + threshold", "read raw, pedestals, factors")
    most = "calibration + ROI + threshold + I(q) + histogram"
    guard(table, "the same, a pass each", most)
    for whats in ((), ("calib",), ("calib", "calib_square")):
        table = together(k, members, area, whats, rounds)
        print(table)
        guard(table, "one by one", "together")
    for table in against_numpy(members, area, k, rounds):
        print(table)


if __name__ == "__main__":
    main()
