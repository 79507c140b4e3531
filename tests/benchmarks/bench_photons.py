"""Photon maps against the droplets in them, and correlations of maps against scipy.

Frames of 4 Mpx with 0.1 % photons a pixel, calibrated ones, on one thread, in time of that thread;
regions of interest of 256 and 512 pixels. ``python -m tests.benchmarks.bench_photons``.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from time import thread_time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from ffb import Area
from ffb.configuration.photon_settings import PhotonConfig
from ffb.loops.compile import kernel
from ffb.loops.fuse import Member
from ffb.loops.uncalibrated import Uncalibrated
from ffb.reduce import Calibration
from ffb.reducers.autocorrelation import Params as Lags
from ffb.reducers.autocorrelation import autocorrelation
from ffb.reducers.droplets import droplets
from ffb.reducers.photon_map import photon_map
from ffb.reducers.sparse import Params as Sparse
from ffb.reducers.sparse import sparse
from ffb.reducers.speckle import Params as Speckle
from ffb.reducers.speckle import speckle
from ffb.shot import Input
from tests.benchmarks.bench_droplets import DENSITY, ROOM, TWO, guard, passing
from tests.benchmarks.bench_kernels import SHAPE
from tests.benchmarks.harness import Table, compare, machine, over, read
from tests.unit.passes import member
from tests.unit.photon_frames import ENERGY, charges

Frame = NDArray[Any]


def maps(frames: Sequence[Frame], area: Area, rounds: int) -> Table:
    """Maps by each way of counting, alone and with reducers, against droplets alone."""
    frame = Uncalibrated(area.mask, "<f4")
    levels = {"threshold": TWO.threshold, "threshold_low": TWO.threshold_low}
    ways: dict[str, dict[str, Any]] = {"pixels": {}, "pairs": {}, "droplets": levels}
    as_map: dict[str, Calibration] = {
        by: photon_map(frame, PhotonConfig(photon=ENERGY, by=by, **more), area)
        for by, more in ways.items()
    }
    many = [
        member("s", speckle, Speckle(1.0), area),
        member("l", sparse, Sparse((1.0, np.inf), capacity=ROOM), area),
    ]
    runs: dict[str, tuple[Sequence[Member], Calibration]] = {
        "droplets listed": ([member("d", droplets, TWO, area)], frame),
        "the pass without reducers": ((), frame),
        **{f"map by {by}": ((), c) for by, c in as_map.items()},
        "map by droplets, P(k), contrast, list": (many, as_map["droplets"]),
    }
    competitors = {name: over(frames, passing(*given, area)[0]) for name, given in runs.items()}
    competitors["read frame"] = over(frames, lambda f: read((f,)))
    title = "photon maps against droplets alone"
    return compare(competitors, "droplets listed", rounds, title, clock=thread_time)


def by_scipy(image: Frame, lag: int) -> Frame:
    """The same autocorrelation by Fourier transforms of scipy, in float64."""
    mask = np.isfinite(image)
    shape = [fft.next_fast_len(n + lag, real=True) for n in image.shape]
    values = fft.rfft2(np.where(mask, image, 0).astype(np.float64), shape)
    masks = fft.rfft2(mask.astype(np.float64), shape)
    parts = [(values, values), (masks, masks), (values, masks), (masks, values)]
    both, pairs, first, second = (fft.irfft2(a * b.conj(), shape) for a, b in parts)
    with np.errstate(all="ignore"):
        return np.asarray(both * pairs / (first * second))


def correlations(rounds: int) -> list[Table]:
    """Autocorrelation of maps and of dense images."""
    rng, tables, ours = np.random.default_rng(6), [], kernel(autocorrelation.fn)
    for size, lag in ((256, 8), (512, 8), (512, 25), (512, 50)):
        holes = rng.random((size, size)) < 0.02
        dense = np.where(holes, np.nan, rng.gamma(2, 3, holes.shape)).astype(np.float32)
        few = np.where(holes, np.nan, rng.poisson(0.01, holes.shape)).astype(np.float32)
        p = autocorrelation.constants(Lags(lag), {"image": Input("value", "<f4", (size, size))})
        got = ours(dense, p).correlation[lag, lag:]
        np.testing.assert_allclose(got, by_scipy(dense, lag)[0, : lag + 1], rtol=1e-9)
        competitors: dict[str, Callable[[], Any]] = {
            "scipy.fft": partial(by_scipy, dense, lag),
            "every pixel lit": partial(ours, dense, p),
            "1 % lit": partial(ours, few, p),
        }
        title = f"autocorrelation of {size} x {size} pixels, 2 % masked, up to {lag} pixels"
        tables.append(compare(competitors, "scipy.fft", rounds, title, clock=thread_time))
    return tables


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    print(machine("scipy"), "\n")
    rng = np.random.default_rng(1)
    frames = [charges(SHAPE, DENSITY, rng) for _ in range(3)]
    area = Area("det", SHAPE, np.ones(SHAPE, np.bool_), None, "keV")
    table = maps(frames, area, rounds)
    print(table)
    for by in ("pixels", "pairs", "droplets"):
        guard(table, f"map by {by}", "read frame")
    for table in correlations(rounds):
        print(table)


if __name__ == "__main__":
    main()
