"""Bragg peaks: connected pixels that stand out of a background that depends on the radius.

Written from the description of Cheetah's peak finder 8 (Barty et al., J. Appl. Cryst. 47, 1118,
2014): the background of each radius is found first (:mod:`ffb.reducers.radial_background`), then
what stands out of it (:mod:`ffb.reducers.bragg`). What the paper leaves open is as in psana's
``peakfinder_8``, so that both list the same peaks, but for one defect: there a pixel that an
earlier, larger peak left in memory may join two peaks.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated as A
from typing import NamedTuple

import numpy as np

from ffb import Area, Feature, Tile, Vector, tile_reducer
from ffb.reducers import scattering
from ffb.reducers.bragg import Ground, State, find_peaks
from ffb.reducers.radial_background import find_background


class Params(NamedTuple):
    """Where the detector stands, as for ``azimuthal``, and what makes a peak.

    A pixel is lit above ``adc``, in calibrated units, and above the mean of its radius by ``snr``
    times the spread there. Lit pixels of a segment that touch, also at corners, are a peak if there
    are ``min_npix`` to ``max_npix`` of them, not all on the segment's edge, and their sum above
    the background around them is at least ``snr`` times its spread. That background is of the unlit
    pixels of the segment within twice ``local_radius`` pixels; none of them is brighter than the
    peak, and they do spread. ``pixel`` [um] is the step of the radius;
    ``radius`` keeps the search to pixels from one to another number of steps from the beam.
    At most ``capacity`` peaks are listed; a shot is a hit from ``hit`` peaks on. Without ``energy``
    q is NaN.
    """

    distance: float | None = None
    energy: float | None = None
    center: tuple[float, float] | None = None
    tilts: tuple[float, float] | None = None
    poni: Path | None = None
    adc: float = 0.0
    snr: float = 6.0
    min_npix: int = 2
    max_npix: int = 40
    local_radius: int = 3
    pixel: float = 75.0
    radius: tuple[float, float] | None = None
    capacity: int = 500
    hit: int = 15


class Peaks(NamedTuple):
    """What :class:`peaks` delivers; the lists are in the order of the pixels."""

    n: A[int, Feature("1", "peaks found, also those beyond the capacity")]
    overflow: A[bool, Feature("1", "whether there were more than the capacity")]
    hit: A[bool, Feature("1", "whether there were peaks enough for a hit")]
    row: A[
        Vector,
        Feature("pixel", "centroid of its values along the rows", ("peak",), "<f8", length="n"),
    ]
    col: A[
        Vector,
        Feature("pixel", "centroid of its values along the columns", ("peak",), "<f8", length="n"),
    ]
    intensity: A[
        Vector, Feature("@", "sum above the local background", ("peak",), "<f8", length="n")
    ]
    max: A[
        Vector,
        Feature("@", "largest pixel above the local background", ("peak",), "<f8", length="n"),
    ]
    snr: A[
        Vector, Feature("1", "intensity over the spread around it", ("peak",), "<f8", length="n")
    ]
    q: A[Vector, Feature("1/angstrom", "q of the brightest pixel", ("peak",), "<f8", length="n")]
    segment: A[Vector, Feature("1", "segment", ("peak",), "<i8", length="n")]
    npix: A[Vector, Feature("1", "lit pixels", ("peak",), "<i8", length="n")]


@tile_reducer(version=3)
class peaks:  # noqa: N801 - named after its module
    """Bragg peaks of an area detector over a radial background, those of psana's ``peakfinder_8``.

    ``adc``, ``snr``, ``min_npix``, ``max_npix``, ``local_radius`` and ``capacity`` are its ADC
    threshold, minimal signal-to-noise ratio, pixel counts, local background radius and largest
    number of peaks; ``radius`` is its least and largest resolution in pixels, if ``pixel`` is the
    size of one. ``adc`` is in calibrated units, often keV: 100 ADU of a Jungfrau are 2.5. One thing
    differs: there a pixel that an earlier, larger peak left in memory may join two peaks.
    """

    @staticmethod
    def prepare(params: Params, area: Area) -> Ground:
        """Find radius and q of every pixel."""
        if problems := list(_problems(params, area)):
            raise ValueError("\n".join(problems))
        where, pixels = scattering.pixels_of(params, area)
        steps = np.rint(pixels.radius / (params.pixel * 1e-6))
        low, high = params.radius or (0.0, np.inf)
        searched = area.mask & (steps >= low) & (steps <= high)
        if not searched.any():
            raise ValueError(
                f"radius: no good pixel is {low:g} to {high:g} steps from the beam; they are"
                f" {steps[area.mask].min():.0f} to {steps[area.mask].max():.0f}"
            )
        radii = int(steps[searched].max()) + 1
        if radii >= 2**16:
            raise ValueError(f"pixel: {params.pixel:g} um makes {radii} radii; at most 65535")
        known = where.wavelength is not None
        q = where.q(pixels.two_theta) if known else np.full(area.shape, np.nan)
        return Ground(
            np.where(searched, steps, radii).astype(np.uint16).ravel(),
            q.astype(np.float32).ravel(),
            radii,
            area.shape[1],
            area.shape[2],
            params.adc,
            params.snr,
            params.min_npix,
            params.max_npix,
            2 * params.local_radius,
            params.capacity,
            params.hit,
        )

    @staticmethod
    def allocate(ground: Ground) -> State:
        """Make room for the frame."""
        pixels, slots = ground.radius.size, ground.radii + 1
        limits = np.zeros((2, slots), np.float32)
        limits[0, -1], limits[1, -1] = -np.inf, np.inf  # of bad pixels none is an outlier or lit
        return State(
            np.zeros(pixels, np.float32),
            np.zeros((3, slots)),
            np.zeros((3, slots)),
            limits,
            np.zeros(pixels, np.uint8),
            np.zeros(pixels, np.int64),
            np.zeros((6, ground.capacity)),
            np.zeros((2, ground.capacity), np.int64),
        )

    @staticmethod
    def start(ground: Ground, state: State) -> None:
        """Forget the last shot."""
        state.total[:] = 0.0
        state.seen[:] = 0
        state.peaks[:] = np.nan
        state.whole[:] = 0

    @staticmethod
    def accumulate(tile: Tile, ground: Ground, state: State) -> None:
        """Keep a row, and add it to the background of its radii; NaN is dark and not counted."""
        here = slice(tile.first, tile.first + tile.values.size)
        frame, radius, total = state.frame[here], ground.radius[here], state.total
        for i in range(tile.values.size):
            frame[i] = tile.values[i]
        for i in range(tile.values.size):
            v, r = np.float64(frame[i]), radius[i]
            if v == v:
                total[0, r] += 1.0
                total[1, r] += v
                total[2, r] += v * v

    @staticmethod
    def finish(ground: Ground, state: State) -> Peaks:
        """Find the background, then the peaks."""
        find_background(
            state.frame.reshape(-1, ground.columns),
            ground.radius.reshape(-1, ground.columns),
            state.total,
            ground.snr,
            ground.adc,
            state.rest,
            state.limits,
        )
        n = find_peaks(ground, state)
        out, whole = state.peaks, state.whole
        return Peaks(
            n, n > ground.capacity, n >= ground.hit,
            out[0], out[1], out[2], out[3], out[4], out[5], whole[0], whole[1],
        )  # fmt: skip


def _problems(params: Params, area: Area) -> Iterator[str]:
    """Everything that cannot be meant, one line each, by parameter."""
    yield from scattering.setup_problems(params, area)
    if not np.isfinite(params.adc):
        yield f"adc: {params.adc:g}; give the least value of a lit pixel"
    if not 0 < params.snr < np.inf:
        yield f"snr: {params.snr:g}; give a number above 0"
    if not 1 <= params.min_npix <= params.max_npix:
        yield f"min_npix: {params.min_npix}; give 1 to max_npix = {params.max_npix}"
    if not 1 <= params.local_radius <= 50:
        yield f"local_radius: {params.local_radius}; give 1 to 50 pixels"
    if not 0 < params.pixel < np.inf:
        yield f"pixel: {params.pixel:g}; give micrometres"
    if params.radius and not 0 <= params.radius[0] <= params.radius[1]:
        yield f"radius: {list(params.radius)}; give the least and the largest, in steps"
    if not 1 <= params.capacity <= 100_000:
        yield f"capacity: {params.capacity}; give 1 to 100000"
    if params.hit < 1:
        yield f"hit: {params.hit}; give the least number of peaks of a hit"
    if not area.mask.any():
        yield f"adc: no pixel of {area.detector} is good; look at its mask and constants"


def example() -> tuple[Params, Area]:
    """Parameters, and a detector to try them on."""
    mask = np.ones((2, 9, 23), np.bool_)
    segment, row, col = np.indices(mask.shape, np.float64)
    xyz = np.stack([75 * (row - 10 * segment), 75 * (col - 11), 0 * row])
    params = Params(distance=5.0, energy=9.5, snr=1.2, min_npix=1, capacity=3, hit=2)
    return params, Area("example", mask.shape, mask, xyz, "keV")
