"""I(q) and I(phi, q) against pyFAI's engines, peaks against psana's.

All on one thread and 4 Mpx, in time of that thread:
``python -m tests.benchmarks.bench_scattering``.
"""

import argparse
import os
import warnings
from collections.abc import Callable
from time import thread_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffb import Area
from ffb.batch import Batch
from ffb.loops.fuse import RUN
from ffb.loops.stages import AreaPass
from ffb.loops.uncalibrated import Uncalibrated
from ffb.reduce import TileReducer
from ffb.reducers.azimuthal import azimuthal
from ffb.reducers.cake import Params as Cake
from ffb.reducers.cake import cake
from ffb.reducers.calibration import calibration_of
from ffb.reducers.geometry import HC
from ffb.reducers.peaks import Params as Peaks
from ffb.reducers.peaks import peaks
from ffb.schema import Schema
from ffb.source import Constants
from ffb.sources.standins import import_psana
from tests.benchmarks.bench_kernels import (
    BEAM,
    BINS,
    DISTANCE,
    ENERGY,
    HIGH,
    IMAGE,
    PIXEL,
    PLACES,
    SETTINGS,
    SHAPE,
    constants,
    flat,
    raw_frames,
)
from tests.benchmarks.harness import Table, compare, machine, over, read
from tests.unit.passes import member

Run = Callable[[NDArray[Any]], Any]
ENGINES = ("histogram", "csr", "csc", "lut")


def engines(area: Area, phi_bins: int = 0) -> dict[str, Run]:
    """pyFAI's Cython engines without pixel splitting; the first call builds their tables."""
    os.environ |= {"OMP_NUM_THREADS": "1", "NUMEXPR_NUM_THREADS": "1"}  # read at import
    from pyFAI.detectors import Detector
    from pyFAI.integrator.azimuthal import AzimuthalIntegrator

    engine = AzimuthalIntegrator(
        dist=DISTANCE * 1e-3,
        poni1=BEAM[0] * PIXEL,
        poni2=BEAM[1] * PIXEL,
        wavelength=HC / ENERGY * 1e-10,
        detector=Detector(PIXEL, PIXEL, max_shape=IMAGE),
    )
    mask = (~assembled(area.mask)).astype(np.int8)
    integrate = engine.integrate2d if phi_bins else engine.integrate1d
    around = (phi_bins,) if phi_bins else ()

    def run(method: str) -> Run:
        return lambda image: integrate(
            image, BINS, *around, mask=mask, unit="q_A^-1", radial_range=(0.0, HIGH),
            azimuth_range=(-180, 180) if phi_bins else None,
            method=("no", method, "cython"), polarization_factor=SETTINGS.polarization,
        )  # fmt: skip

    return {f"pyFAI {m}": run(m) for m in ENGINES}


def assembled(segments: NDArray[Any]) -> NDArray[Any]:
    """The image that the segments make."""
    image = np.empty(IMAGE, segments.dtype)
    for s, (r, c) in enumerate(PLACES):
        image[r : r + SHAPE[1], c : c + SHAPE[2]] = segments[s]
    return image


def ours(reducer: TileReducer, params: Any, area: Area) -> tuple[Run, Any, dict[str, Any]]:
    """A tile reducer alone in a pass over calibrated frames, its constants, what it writes."""
    m = member("ours", reducer, params, area)
    schema = Schema(m.all_columns)
    batch, active = Batch(schema, 1), np.full(1, RUN, np.uint8)
    work = AreaPass((m,), Uncalibrated(area.mask, "<f4"), area, schema, 1)
    return lambda f: work(flat(f), 0, batch.buffer, active), m.constants, batch.columns


def detector(c: Constants, number: int = 3) -> tuple[Area, list[NDArray[np.float32]]]:
    """The detector, and calibrated frames."""
    k = calibration_of(c)
    frames = []
    for raw in raw_frames(c, 0.0, number):
        frames.append(np.zeros(SHAPE, np.float32))
        k.calibrate(flat(raw), frames[-1])
    return Area(c.detector, SHAPE, k.mask, c.xyz, "keV"), frames


def against_pyfai(
    title: str, reducer: TileReducer, params: Any, area: Area, frames: Any, rounds: int
) -> Table:
    """Calibrated frames to bins: pyFAI on the assembled image, ours on its segments."""
    run, made, written = ours(reducer, params, area)
    images = [assembled(f) for f in frames]
    theirs = engines(area, getattr(params, "phi_bins", 0))
    reference = theirs["pyFAI histogram"](images[0])
    run(frames[0])
    npix, mine = written["ours/npix"][0], written["ours/intensity"][0]
    filled = (npix > 0) & (npix == reference.count)
    moved = (npix != reference.count).sum()
    worst = np.abs(mine[filled] / reference.intensity[filled] - 1).max()
    print(
        f"{title}: at most {worst:.1e}, relative, from pyFAI's histogram engine,"
        f" but for {moved} bins with other pixels\n"
    )
    engaged = compare({n: over(images, fn) for n, fn in theirs.items()}, "pyFAI csc", 3, title)
    best = min(engaged.rows, key=lambda r: r.best).name
    competitors = {
        best: over(images, theirs[best]),
        "ours": over(frames, run),
        "read frame and bins": over(frames, lambda f: read((f, made.runs, made.bounds))),
    }
    return compare(competitors, best, rounds, title, clock=thread_time)


def variants(area: Area, frames: Any, rounds: int) -> Table:
    """What thresholds and errors cost."""
    settings = {
        "plain": SETTINGS,
        "moments, poisson": SETTINGS._replace(moments=True, errors="poisson", photon=ENERGY),
        "azimuthal errors": SETTINGS._replace(errors="azimuthal"),
        "thresholds that nothing fails": SETTINGS._replace(thresholds=(-1e6, 1e6)),
        "thresholds that 95 % fail": SETTINGS._replace(thresholds=(5.0, 1e6)),
    }
    runs = {n: over(frames, ours(azimuthal, p, area)[0]) for n, p in settings.items()}
    return compare(runs, "plain", rounds, f"I(q), {BINS} bins, 4 Mpx", clock=thread_time)


def crystals(rounds: int) -> Table:
    """Peaks of a segment of 4 Mpx: as many as psana's ``peakfinder_8`` finds."""
    rng, (r, c) = np.random.default_rng(3), np.indices(IMAGE)
    radius = np.hypot(r - BEAM[0], c - BEAM[1])
    image = 20 * np.exp(-radius / 60) + rng.normal(5, 1, IMAGE)
    for y, x in rng.integers(8, 2040, (150, 2)):
        image[y - 1 : y + 2, x - 1 : x + 2] += rng.uniform(20, 300)
    image, mask = image.astype(np.float32), rng.random(IMAGE) > 0.01
    xyz = np.stack([(r - BEAM[0]) * 75.0, (c - BEAM[1]) * 75.0, 0.0 * r])[:, None]
    area = Area("det", (1, *IMAGE), mask[None], xyz, "keV")
    params = Peaks(DISTANCE, ENERGY, adc=10.0, snr=5.0, max_npix=50, capacity=2000)
    run, made, written = ours(peaks, params, area)
    find = import_psana("psana.peakfinder8").peakfinder_8
    theirs = (image, mask.astype(np.int8), radius.astype(np.float32), *IMAGE, 1, 1)

    def psana() -> Any:
        return find(2000, *theirs, 10.0, 5.0, 2, 50, 3)

    run(image[None])
    assert len(psana()[0]) == written["ours/n"][0]
    competitors = {
        "psana peakfinder_8": psana,
        "ours": lambda: run(image[None]),
        "read frame and radii": lambda: read((image, made.radius)),
    }
    title = f"{written['ours/n'][0]} peaks, 4 Mpx"
    return compare(competitors, "psana peakfinder_8", rounds, title, clock=thread_time)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    warnings.simplefilter("ignore")
    print(machine("pyFAI", "psana"), "\n")
    area, frames = detector(constants())
    cut = Cake(**{k: v for k, v in SETTINGS._asdict().items() if k in Cake._fields})
    print(against_pyfai(f"I(q), {BINS} bins", azimuthal, SETTINGS, area, frames, rounds))
    print(against_pyfai(f"I(phi, q), 36 x {BINS} bins", cake, cut, area, frames, rounds))
    print(variants(area, frames, rounds))
    print(crystals(rounds))


if __name__ == "__main__":
    main()
