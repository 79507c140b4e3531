"""Bragg peaks: connected pixels that stand out of a background that depends on the radius.

Written from the description of Cheetah's peak finder 8 (Barty et al., J. Appl. Cryst. 47, 1118,
2014): the mean and the spread of the pixels at each whole radius from the beam are found by
leaving outliers out again and again; pixels above ``snr`` spreads, and above ``adc``, that touch
each other are a peak if they are neither too few nor too many and stand out of what is around them.
What the paper leaves open is as in psana's ``peakfinder_8``, so that both list the same peaks, but
for one defect: there a pixel that an earlier, larger peak left in memory may join two peaks.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated as A
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb import Area, Feature, Tile, Vector, tile_reducer
from ffb.loops.compile import kernel
from ffb.reducers import scattering

#: How often the background is found, each time without the outliers of the last.
PASSES = 5

#: Spread of the background where there is no pixel of it around a peak; it has its radius' mean.
ALONE = 0.01


class Params(NamedTuple):
    """Where the detector stands, as for ``azimuthal``, and what makes a peak.

    A pixel is lit above ``adc``, in calibrated units, and above the mean of its radius by ``snr``
    times the spread there. Lit pixels of a segment that touch, also at corners, are a peak if there
    are ``min_pixels`` to ``max_pixels`` of them, not all on the segment's edge, and their sum above
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
    min_pixels: int = 2
    max_pixels: int = 40
    local_radius: int = 3
    pixel: float = 75.0
    radius: tuple[float, float] | None = None
    capacity: int = 500
    hit: int = 15


class Ground(NamedTuple):
    """What is known of every pixel, and the numbers of :class:`Params`.

    ``radius`` (pixels,) uint16 counts steps, bad pixels have ``radii``, the number of radii; ``q``
    (pixels,) float32 is in 1/angstrom; ``rows`` and ``columns`` are a segment's.
    """

    radius: NDArray[np.uint16]
    q: NDArray[np.float32]
    radii: int
    rows: int
    columns: int
    adc: float
    snr: float
    fewest: int
    most: int
    reach: int
    capacity: int
    hit: int


class State(NamedTuple):
    """One shot.

    ``frame`` (pixels,) float32 are the calibrated pixels; ``total`` (3, radii + 1) float64 are
    number, sum and sum of squares at every radius, ``rest`` the same without outliers, ``limits``
    (2, radii + 1) float32 the least and largest value that is no outlier; ``seen`` (pixels,) uint8
    marks pixels of peaks, ``queue`` (pixels,) int64 those of the one that grows. ``peaks``
    (6, capacity) float64 and ``whole`` (2, capacity) int64 are the features.
    """

    frame: NDArray[np.float32]
    total: NDArray[np.float64]
    rest: NDArray[np.float64]
    limits: NDArray[np.float32]
    seen: NDArray[np.uint8]
    queue: NDArray[np.int64]
    peaks: NDArray[np.float64]
    whole: NDArray[np.int64]


class Peaks(NamedTuple):
    """What :class:`peaks` delivers; the lists are in the order of the pixels."""

    n: A[int, Feature("1", "peaks listed")]
    found: A[int, Feature("1", "peaks found, also those beyond the capacity")]
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


@kernel
def _outliers(row: Any, radius: Any, state: State) -> None:
    """Take the outliers of one row out of the rest; they are few."""
    low, high, rest = state.limits[0], state.limits[1], state.rest
    for i in range(row.size):
        r, v = radius[i], row[i]
        if (v < low[r]) | (v > high[r]):
            w = np.float64(v)
            rest[0, r] -= 1.0
            rest[1, r] -= w
            rest[2, r] -= w * w


@kernel
def _limit(ground: Ground, state: State) -> None:
    """Limits of every radius from the rest; nothing is lit where no pixel is left."""
    for r in range(ground.radii):
        n = state.rest[0, r]
        mean = state.rest[1, r] / n if n > 0 else np.inf
        variance = max(state.rest[2, r] / n - mean * mean, 0.0) if n > 0 else 0.0
        width = ground.snr * np.sqrt(variance)
        state.limits[0, r] = np.float32(mean - width) if n > 0 else np.float32(-np.inf)
        state.limits[1, r] = np.float32(max(mean + width, ground.adc)) if n > 0 else np.inf


@kernel
def _background(ground: Ground, state: State) -> None:
    """Find mean and spread of every radius, again and again without outliers."""
    columns = ground.columns
    state.rest[:] = state.total
    _limit(ground, state)
    for _ in range(PASSES - 1):
        state.rest[:] = state.total
        for number in range(state.frame.size // columns):
            here = slice(number * columns, (number + 1) * columns)
            _outliers(state.frame[here], ground.radius[here], state)
        _limit(ground, state)


@kernel
def _grow(at: int, ground: Ground, state: State) -> Any:
    """Collect the lit pixels that hang together with the one ``at``; how many."""
    rows, columns = ground.rows, ground.columns
    state.queue[0], state.seen[at] = at, 1
    done, known = 0, 1
    while done < known:
        p = state.queue[done]
        done += 1
        row, col = p // columns % rows, p % columns
        for dr in range(-1, 2):
            for dc in range(-1, 2):
                if (0 <= row + dr < rows) & (0 <= col + dc < columns):
                    n = p + dr * columns + dc
                    if state.seen[n] == 0 and state.frame[n] > state.limits[1, ground.radius[n]]:
                        state.seen[n] = 1
                        state.queue[known] = n
                        known += 1
    return known


@kernel
def _around(at: int, ground: Ground, state: State) -> Any:
    """Mean, spread and largest of the unlit good pixels around the one ``at``, and their number.

    As in psana, the window has its near edges and not its far ones.
    """
    rows, columns, reach = ground.rows, ground.columns, ground.reach
    row, col = at // columns % rows, at % columns
    n, total, squares, largest = 0.0, 0.0, 0.0, -np.inf
    for dr in range(max(-reach, -row), min(reach, rows - row)):
        for dc in range(max(-reach, -col), min(reach, columns - col)):
            p = at + dr * columns + dc
            r, v = ground.radius[p], np.float64(state.frame[p])
            near = dr * dr + dc * dc <= reach * reach
            if (r < ground.radii) & (v <= state.limits[1, r]) & near:
                n += 1.0
                total += v
                squares += v * v
                largest = max(largest, v)
    if n == 0:
        return 0.0, 0.0, largest, n
    mean = total / n
    return mean, np.sqrt(max(squares / n - mean * mean, 0.0)), largest, n


@kernel
def _measure(known: int, ground: Ground, state: State, found: int) -> Any:
    """Measure the peak in the queue, list it if it is one, and say so."""
    frame, queue, columns = state.frame, state.queue, ground.columns
    best, first = queue[0], queue[0] // columns // ground.rows * ground.rows
    raw, above, along, across, row, col = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for k in range(known):
        p, v, r = queue[k], np.float64(frame[queue[k]]), ground.radius[queue[k]]
        best = p if v > frame[best] else best
        raw += v
        along += v * (p // columns - first)
        across += v * (p % columns)
        w = v - state.rest[1, r] / state.rest[0, r]
        above += w
        row += w * (p // columns - first)
        col += w * (p % columns)
    row, col = np.rint(row / above), np.rint(col / above)
    middle = (first + np.int64(row)) * columns + np.int64(col)
    mean, spread, largest, around = _around(middle, ground, state)
    if around == 0:
        r = ground.radius[best]
        mean, spread = state.rest[1, r] / state.rest[0, r], ALONE
    total = raw - known * mean
    if not ((spread > 0) & (total >= ground.snr * spread) & (largest <= frame[best])):
        return 0
    if found < ground.capacity:
        out = state.peaks
        out[0, found], out[1, found] = along / raw, across / raw
        out[2, found], out[3, found] = total, np.float64(frame[best]) - mean
        out[4, found] = total / spread
        out[5, found] = ground.q[best]
        state.whole[0, found] = best // (columns * ground.rows)
        state.whole[1, found] = known
    return 1


@kernel
def _search(ground: Ground, state: State) -> Any:
    """List all peaks; how many there are. One begins at a pixel that is not on an edge."""
    found, columns, adc = 0, ground.columns, np.float32(ground.adc)
    high = state.limits[1]
    for number in range(state.frame.size // columns):
        if number % ground.rows in (0, ground.rows - 1):
            continue
        first = number * columns
        row, radius = state.frame[first : first + columns], ground.radius[first : first + columns]
        for i in range(1, columns - 1):
            v = row[i]
            if v > adc and v > high[radius[i]] and state.seen[first + i] == 0:
                known = _grow(first + i, ground, state)
                if (known >= ground.fewest) & (known <= ground.most):
                    found += _measure(known, ground, state, found)
    return found


@tile_reducer(version=2)
class peaks:  # noqa: N801 - named after its module
    """Bragg peaks of an area detector over a radial background."""

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
            params.min_pixels,
            params.max_pixels,
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
        _background(ground, state)
        found = _search(ground, state)
        out, whole, n = state.peaks, state.whole, min(found, ground.capacity)
        return Peaks(
            n, found, found > n, found >= ground.hit,
            out[0], out[1], out[2], out[3], out[4], out[5], whole[0], whole[1],
        )  # fmt: skip


def _problems(params: Params, area: Area) -> Iterator[str]:
    """Everything that cannot be meant, one line each, by parameter."""
    yield from scattering.setup_problems(params, area)
    if not np.isfinite(params.adc):
        yield f"adc: {params.adc:g}; give the least value of a lit pixel"
    if not 0 < params.snr < np.inf:
        yield f"snr: {params.snr:g}; give a number above 0"
    if not 1 <= params.min_pixels <= params.max_pixels:
        yield f"min_pixels: {params.min_pixels}; give 1 to max_pixels = {params.max_pixels}"
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
    params = Params(distance=5.0, energy=9.5, snr=1.2, min_pixels=1, capacity=3, hit=2)
    return params, Area("example", mask.shape, mask, xyz, "keV")
