"""Calibration against psana's C++, the fused pass against the bytes it reads.

All on one thread and 4 Mpx, in time of that thread. ``python -m tests.benchmarks.bench_kernels``.
"""

import argparse
import warnings
from collections.abc import Callable, Sequence
from time import thread_time
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ffb import Area
from ffb.batch import Batch
from ffb.loops.fuse import RUN
from ffb.loops.stages import AreaPass
from ffb.reducers.azimuthal import Params as Azimuthal
from ffb.reducers.azimuthal import azimuthal
from ffb.reducers.calibration import calibration_of
from ffb.reducers.histogram import Params as Histogram
from ffb.reducers.histogram import histogram
from ffb.reducers.roi import Params as Roi
from ffb.reducers.roi import roi
from ffb.reducers.threshold import Params as Threshold
from ffb.reducers.threshold import threshold
from ffb.schema import Schema
from ffb.source import Constants
from ffb.sources.standins import import_psana
from ffb.sums.held import Summed, Summing
from ffb.sums.words import what_of
from tests.benchmarks.harness import Table, compare, guard, machine, over, read
from tests.unit.passes import member

SHAPE = (8, 512, 1024)
PIXEL, DISTANCE, ENERGY, BINS = 75e-6, 100.0, 9.5, 500
#: Rows and columns of the segments in the assembled image: two columns of four, without gaps, so
#: that pyFAI is given exactly our pixels.
PLACES = [(i // 2 * 512, i % 2 * 1024) for i in range(8)]
IMAGE = (2048, 2048)
BEAM = (1021.37, 1027.71)


def constants() -> Constants:
    """Constants like those of a Jungfrau of 4 Mpx; the beam goes through the middle."""
    rng = np.random.default_rng(1)
    pedestals, gain = (np.empty((3, *SHAPE), np.float32) for _ in range(2))
    for g, (pedestal, slope) in enumerate(((2800, 40.0), (14500, -1.35), (14000, -0.1))):
        pedestals[g] = rng.normal(pedestal, 60, SHAPE)
        gain[g] = slope * rng.normal(1, 0.01, SHAPE)
    status = (rng.random((3, *SHAPE), np.float32) < 5e-4).astype(np.uint64)
    x, y = (np.indices(IMAGE) + 0.5) * PIXEL * 1e6
    xyz = np.stack([*(scattered(a) for a in (x, y)), np.full(SHAPE, -1e5)])
    xyz[:2] -= np.array(BEAM).reshape(2, 1, 1, 1) * PIXEL * 1e6
    return Constants("jungfrau", "jungfrau", SHAPE, pedestals, gain, None, status, xyz=xyz)


def scattered(image: NDArray[Any]) -> NDArray[Any]:
    """Segments of an assembled image."""
    return np.stack([image[r : r + SHAPE[1], c : c + SHAPE[2]] for r, c in PLACES])


def raw_frames(c: Constants, switched: float, number: int = 4) -> list[NDArray[np.uint16]]:
    """Raw frames with photons; ``switched`` of the pixels, in clusters, are in gain 1 or 2."""
    assert c.pedestals is not None
    rng = np.random.default_rng(2)
    out = []
    for _ in range(number):
        adu = c.pedestals[0] + rng.poisson(0.05, SHAPE) * 380 + rng.normal(0, 2, SHAPE)
        raw = np.clip(adu, 0, 16383).astype(np.uint16)
        spots = int(switched * raw.size / 144)
        for s, r, col in zip(*(rng.integers(0, n, spots) for n in (8, 500, 1012)), strict=True):
            spot = raw[s, r : r + 12, col : col + 12]
            spot[:] = 14000 - rng.integers(0, 500, spot.shape) | rng.choice([0x4000, 0xC000])
        out.append(raw)
    return out


def flat(raw: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """Segments as a source hands them over."""
    return tuple(s.ravel() for s in raw)


def psana_calib(c: Constants) -> Callable[[NDArray[Any]], Any]:
    """psana's C++ ``calib_jungfrau_v3``, its default, with its layout of the constants."""
    assert c.pedestals is not None
    assert c.gain is not None
    assert c.status is not None
    fn = import_psana("psana.pycalgos.utilsdetector").calib_jungfrau_v3
    good = (c.status == 0).all(axis=0)
    packed = np.zeros((4, good.size, 2), np.float32)
    for g, code in ((0, 0), (1, 1), (2, 3)):
        packed[code, :, 0] = c.pedestals[g].ravel()
        packed[code, :, 1] = (np.float32(1) / c.gain[g] * good).ravel()
    cons, out = packed.ravel(), np.zeros(good.size, np.float32)

    def run(raw: NDArray[Any]) -> NDArray[Any]:
        fn(raw, cons, 512 * 1024, out)
        return out

    return run


def calibrations(c: Constants, rounds: int) -> list[Table]:
    """Whole frames to keV: psana's C++ and ours, which must agree bit by bit."""
    ours, theirs = calibration_of(c, psana=True), psana_calib(c)
    out = np.zeros(SHAPE, np.float32)
    tables = []
    for switched in (0.0, 0.05):
        frames = raw_frames(c, switched)
        ours.calibrate(flat(frames[0]), out)
        np.testing.assert_array_equal(out.ravel(), theirs(frames[0]).ravel())
        share = np.mean([(f > 0x3FFF).mean() for f in frames])
        competitors = {
            "psana C++ v3": over(frames, theirs),
            "ours": over(frames, lambda f: ours.calibrate(flat(f), out)),
            "read raw, pedestals, factors; write frame": over(
                frames, lambda f: (read((f, *ours.constants[:2])), out.fill(1))
            ),
        }
        title = f"calibration, 4 Mpx, {share:.1%} of the pixels switched"
        tables.append(compare(competitors, "psana C++ v3", rounds, title, clock=thread_time))
    return tables


#: Upper limit of q [1/angstrom] for pyFAI, which rounds it to float32 and then adds an epsilon.
HIGH = 4.5
SETTINGS = Azimuthal(
    distance=DISTANCE,
    energy=ENERGY,
    bins=BINS,
    polarization=0.99,
    limits=(0.0, HIGH * (1 + float(np.finfo(np.float32).eps))),
)


def fused(c: Constants, rounds: int) -> list[Table]:
    """Raw to I(q) and ROI in one pass, against reading once every byte that it must read."""
    k = calibration_of(c)
    area = Area(c.detector, SHAPE, k.mask, c.xyz, "keV")
    members = [
        member("azimuthal", azimuthal, SETTINGS, area),
        member("roi", roi, Roi((100, 228), (400, 656), 2), area),
    ]
    schema = Schema(tuple(column for m in members for column in m.all_columns))
    batch = Batch(schema, 1)
    run = AreaPass(members, k, area, schema, 1)
    active = np.full(len(members), RUN, np.uint8)
    bins = members[0].constants
    always = (*k.constants[:2], bins.runs, bins.bounds)
    tables = []
    for switched in (0.0, 0.05):
        frames = raw_frames(c, switched)
        competitors = {
            "read raw, pedestals, factors, bins": over(frames, lambda f: read((f, *always))),
            "calibration + ROI + I(q)": over(
                frames, lambda f: run(flat(f), 0, batch.buffer, active)
            ),
        }
        share = np.mean([(f > 0x3FFF).mean() for f in frames])
        title = f"fused pass, 4 Mpx, {share:.1%} of the pixels switched"
        tables.append(
            compare(
                competitors, "read raw, pedestals, factors, bins", rounds, title, clock=thread_time
            )
        )
    return tables


#: What the whole of a detector's pass may be.
SIX = "calibration + ROI + threshold + I(q) + histogram + sum"


@njit(fastmath=True)
def add_one(array: NDArray[np.float64]) -> None:
    """Read and write an array once: the floor of a sum over shots."""
    for i in range(array.size):
        array[i] += 1.0


def sums(c: Constants, rounds: int) -> list[Table]:
    """Frames added up in the pass, alone and with reducers, against the bytes that have to move."""
    k = calibration_of(c)
    area = Area(c.detector, SHAPE, k.mask, c.xyz, "keV")
    corner = member("roi", roi, Roi((100, 228), (400, 656), 2), area)
    above = member("above", threshold, Threshold((4.0, np.inf)), area)
    rings = member("azimuthal", azimuthal, SETTINGS, area)
    values = member("values", histogram, Histogram((-5.0, 45.0), 500), area)
    frames, total = raw_frames(c, 0.0), np.zeros(k.mask.size)
    planes, bins = k.constants[:2], rings.constants[:3]

    def passing(members: Sequence[Any], *whats: str) -> Callable[[], Any]:
        made = Summing("sum", tuple(map(what_of, whats)), (), False, "", "keV")
        schema = Schema(tuple(column for m in members for column in m.all_columns))
        buffer, active = Batch(schema, 1).buffer, np.full(len(members), RUN, np.uint8)
        run = AreaPass(members, k, area, schema, 1, Summed([made], area.mask) if whats else None)

        def one(raw: NDArray[Any]) -> None:
            run.done[0] = 0
            run(flat(raw), 0, buffer, active)

        return over(frames, one)

    def floor(*arrays: NDArray[Any]) -> Callable[[], Any]:
        return over(frames, lambda f: (read((f, *arrays)), add_one(total)))

    few, all_ = "read raw, pedestals, factors; read and write a sum", "the same, and bins"
    alone = {
        few: floor(*planes),
        "calibration + sum": passing([], "calib"),
        "calibration": passing([]),
        "calibration + sum, squares": passing([], "calib", "calib_square"),
        "calibration + sum, squares, max, hits": passing(
            [], "calib", "calib_square", "calib_max", "calib_thresADU4_nhits"
        ),
        "calibration + raw sum": passing([], "raw"),
    }
    together = {
        all_: floor(*planes, *bins),
        "calibration + ROI + I(q) + histogram + sum": passing([corner, rings, values], "calib"),
        "the same without the sum": passing([corner, rings, values]),
        SIX: passing([corner, above, rings, values], "calib"),
    }
    one = compare(alone, few, rounds, "sums over shots in the pass, 4 Mpx", clock=thread_time)
    six = compare(together, all_, rounds, "a fused pass with a sum, 4 Mpx", clock=thread_time)
    for table, ours, floor in ((one, "calibration + sum", few), (six, SIX, all_)):
        guard(table, ours, floor)
    return [one, six]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    warnings.simplefilter("ignore")
    print(machine("psana"), "\n")
    c = constants()
    for table in (*calibrations(c, rounds), *fused(c, rounds), *sums(c, rounds)):
        print(table)


if __name__ == "__main__":
    main()
