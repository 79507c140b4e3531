"""Bragg peaks of a frame: pixels above the limit of their radius that touch, measured.

Lit pixels that touch each other are a peak if they are neither too few nor too many and stand out
of what is around them. The steps are those of psana's ``peakfinder_8``; the background of each
radius is that of :mod:`ffb.reducers.radial_background`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.loops.compile import kernel

#: Spread of the background where there is no pixel of it around a peak; it has its radius' mean.
ALONE = 0.01


class Ground(NamedTuple):
    """What is known of every pixel, and what makes a peak: numbers of the parameters of ``peaks``.

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
def find_peaks(ground: Ground, state: State) -> Any:
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
