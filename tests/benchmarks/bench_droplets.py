"""Droplets against scipy.ndimage and against reading the frame, photons against droplets.

Frames of 4 Mpx with 0.1 % photons a pixel, on one thread, in time of that thread: calibrated ones,
which the pass hands over as they lie, and raw ones, which it calibrates.
``python -m tests.benchmarks.bench_droplets``.
"""

import argparse
from collections.abc import Callable, Sequence
from time import thread_time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ffb import Area
from ffb.batch import Batch
from ffb.loops.fuse import RUN, Member
from ffb.loops.stages import AreaPass
from ffb.loops.uncalibrated import Uncalibrated
from ffb.reduce import Calibration
from ffb.reducers.calibration import calibration_of
from ffb.reducers.droplets import Params, droplets
from ffb.reducers.photon_counting import Params as Counting
from ffb.reducers.photon_counting import photon_counting
from ffb.reducers.photons import Params as Photons
from ffb.reducers.photons import photons
from ffb.schema import Schema
from ffb.source import Constants
from tests.benchmarks.bench_kernels import SHAPE, constants, flat
from tests.benchmarks.harness import Table, compare, guard, machine, over, read
from tests.unit.passes import member
from tests.unit.photon_frames import ENERGY, charges

DENSITY, ROOM = 0.001, 8192
ONE = Params(threshold=0.5 * ENERGY, capacity=ROOM)
TWO = ONE._replace(threshold_low=0.15 * ENERGY)

Frame = NDArray[Any]


def passing(
    members: Sequence[Member], calibration: Calibration, area: Area
) -> tuple[Callable[[Frame], None], Batch]:
    """A pass of ``members`` over a frame, and the batch it fills the only row of."""
    schema = Schema(tuple(column for m in members for column in m.all_columns))
    batch, active = Batch(schema, 1), np.full(len(members), RUN, np.uint8)
    run = AreaPass(members, calibration, area, schema, 1)
    return lambda frame: run(flat(frame), 0, batch.buffer, active), batch


def by_scipy(frame: Frame, p: Params) -> int:
    """The same features by scipy.ndimage; returns how many droplets."""
    low = p.threshold if p.threshold_low is None else p.threshold_low
    found = 0
    for values in frame:
        members = values >= p.threshold
        if low < p.threshold:
            members |= ndimage.binary_dilation(members) & (values >= low)
        labels, n = ndimage.label(members)
        index = np.arange(1, n + 1)
        ndimage.sum_labels(values, labels, index)
        ndimage.sum_labels(members, labels, index)
        ndimage.center_of_mass(values, labels, index)
        found += n
    return found


def calibrated(frames: Sequence[Frame], area: Area, rounds: int) -> list[Table]:
    """Droplets of calibrated frames; the count of the first is scipy's."""
    plain = Uncalibrated(area.mask, "<f4")
    nothing, _ = passing((), plain, area)
    floor, tables = over(frames, lambda f: read((f,))), []
    for title, p in (("one threshold", ONE), ("two thresholds", TWO)):
        ours, batch = passing((member("d", droplets, p, area),), plain, area)
        ours(frames[0])
        n = int(batch.columns["d/n_all"][0])
        assert n == by_scipy(frames[0], p)
        competitors = {
            "scipy.ndimage": over(frames, lambda f, p=p: by_scipy(f, p)),
            "droplets": over(frames, ours),
            "the pass without reducers": over(frames, nothing),
            "read frame": floor,
        }
        text = f"droplets, {title}, {n} in a frame of 4 Mpx"
        tables.append(compare(competitors, "scipy.ndimage", rounds, text, clock=thread_time))
    return tables


def chain(frames: Sequence[Frame], area: Area, rounds: int) -> Table:
    """Photons by way of the same droplets, and counted by pixel, against droplets alone."""
    p = Photons(ENERGY, TWO.threshold, TWO.threshold_low, capacity=ROOM)
    members = {
        "droplets": member("d", droplets, TWO, area),
        "droplets to photons": member("p", photons, p, area),
        "photon counting": member("c", photon_counting, Counting(ENERGY, capacity=ROOM), area),
    }
    competitors = {}
    for name, m in members.items():
        run, _ = passing((m,), Uncalibrated(area.mask, "<f4"), area)
        competitors[name] = over(frames, run)
    competitors["read frame"] = over(frames, lambda f: read((f,)))
    title = "photons, two thresholds, against droplets alone"
    return compare(competitors, "droplets", rounds, title, clock=thread_time)


def fused(c: Constants, rounds: int) -> Table:
    """Raw to droplets in one pass, against reading once every byte that it must read."""
    k, rng = calibration_of(c), np.random.default_rng(4)
    assert c.pedestals is not None
    assert c.gain is not None
    frames = []
    for _ in range(3):
        adu = c.pedestals[0] + charges(SHAPE, DENSITY, rng) * c.gain[0]
        frames.append(np.clip(adu, 0, 16383).astype(np.uint16))
    area = Area(c.detector, SHAPE, k.mask, c.xyz, "keV")
    ours, _ = passing((member("d", droplets, TWO, area),), k, area)
    nothing, _ = passing((), k, area)
    competitors = {
        "read raw, pedestals, factors": over(frames, lambda f: read((f, *k.constants[:2]))),
        "calibration": over(frames, nothing),
        "calibration + droplets": over(frames, ours),
    }
    title = "fused pass, droplets with two thresholds"
    return compare(competitors, "read raw, pedestals, factors", rounds, title, clock=thread_time)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    print(machine("scipy"), "\n")
    rng = np.random.default_rng(1)
    frames = [charges(SHAPE, DENSITY, rng) for _ in range(3)]
    area = Area("det", SHAPE, np.ones(SHAPE, np.bool_), None, "keV")
    for table in calibrated(frames, area, rounds):
        print(table)
        guard(table, "droplets", "read frame")
    table = chain(frames, area, 2 * rounds)
    print(table)
    for name in ("droplets to photons", "photon counting"):
        guard(table, name, "read frame")
    table = fused(constants(), rounds)
    print(table)
    guard(table, "calibration + droplets", "read raw, pedestals, factors")


if __name__ == "__main__":
    main()
