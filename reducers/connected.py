"""Connected pixels above two thresholds: what droplets, and photons from them, have in common.

Rows are searched as they pass for pixels above the lower threshold; a block of pixels without any
costs a comparison a pixel. Those found, the *candidates* of a segment, are listed in raster order
and know their neighbours. When the segment is complete, union-find over its candidates makes
droplets of them. There is no image of labels, and what memory is touched grows with what is lit.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb import Area, Tile
from ffb.loops.compile import kernel
from ffb.reducers.lanes import BLOCK, lowest
from ffb.reducers.lit import lit

#: Places in ``Candidates.now``: the segment, the tile looked at last, where its candidates begin,
#: the number of candidates, and that of pixels above the largest value of one.
SEGMENT, NUMBER, BEGIN, END, OVER = range(5)


class Levels(NamedTuple):
    """Least values of a seed and of a neighbour, and the largest of a pixel: exact in float32.

    With ``noise`` (pixels,), in calibrated units, seeds and neighbours have at least ``seed`` and
    ``low`` times that of their pixel; it is empty where the two are values. ``least`` is the least
    value of a neighbour anywhere.
    """

    seed: float
    low: float
    high: float
    least: float
    noise: NDArray[np.float32]


class Candidates(NamedTuple):
    """Candidates of a segment in raster order; arrays of (pixels + 1,).

    ``up`` and ``down`` are the candidates above and below, ``next`` the one that follows in the
    same droplet, -1 for none. ``bright`` tells seeds, ``member`` those that belong to droplets.
    ``droplet`` is the parent in the forest of union-find, then the number of the droplet, -1 for
    none.
    """

    value: NDArray[np.float32]
    row: NDArray[np.int32]
    col: NDArray[np.int32]
    up: NDArray[np.int32]
    down: NDArray[np.int32]
    bright: NDArray[np.uint8]
    member: NDArray[np.uint8]
    droplet: NDArray[np.int32]
    next: NDArray[np.int32]
    now: NDArray[np.int64]


class Droplets(NamedTuple):
    """Droplets of a segment, in the order of their first pixels; arrays of (droplets,).

    ``total`` is the sum of the pixels, ``by_row`` and ``by_col`` the sums weighted by place,
    ``first`` and ``last`` are candidates.
    """

    total: NDArray[np.float64]
    by_row: NDArray[np.float64]
    by_col: NDArray[np.float64]
    npix: NDArray[np.int32]
    first: NDArray[np.int32]
    last: NDArray[np.int32]


def levels_of(
    threshold: float,
    threshold_low: float | None,
    pixel_max: float,
    problems: list[str],
    in_noise: Area | None = None,
) -> Levels:
    """Thresholds for comparison with float32 values, as float64 would compare them.

    Appends to ``problems`` a line for each that makes no sense. Thresholds are positive, so that
    masked pixels, which are 0, are none. With ``in_noise`` they are in units of the noise of that
    detector's pixels, and pixels whose noise is not known, or not above 0, are none.
    """
    low = threshold if threshold_low is None else threshold_low
    if not 0 < threshold < np.inf:
        problems.append(f"threshold: {threshold} must be a positive number, in calibrated units")
    if threshold_low is not None and not 0 < low <= threshold:
        problems.append(f"threshold_low: {low} must be above 0 and at most threshold, {threshold}")
    if (in_noise is None and pixel_max < threshold) or np.isnan(pixel_max):
        problems.append(f"pixel_max: {pixel_max} is below threshold, {threshold}: nothing is left")
    nothing = np.zeros(0, np.float32)
    with np.errstate(over="ignore"):
        values = (_least(threshold), _least(low), _most(pixel_max))
    if in_noise is None or problems:
        return Levels(*values, values[1], nothing)
    noise = noise_of(in_noise, problems)
    least = _least(low * float(noise.min())) if noise.size else 0.0
    return Levels(threshold, low, values[2], least, noise)


def noise_of(area: Area, problems: list[str]) -> NDArray[np.float32]:
    """Noise of every pixel, infinite where there is none to compare with, one line if nowhere."""
    if area.noise is None:
        problems.append(
            f"in_noise: the constants of {area.detector} hold no noise of its pixels (psana's"
            f" pixel_rms); name a file as rms in [calibration.{area.detector}], or give thresholds"
            " in calibrated units"
        )
        return np.zeros(0, np.float32)
    known = area.mask & np.isfinite(area.noise) & (area.noise > 0)
    if not known.any():
        problems.append(f"in_noise: no good pixel of {area.detector} has a noise above 0")
        return np.zeros(0, np.float32)
    return np.where(known, area.noise, np.inf).astype(np.float32).ravel()


def room_of(capacity: int, max_npix: int, problems: list[str]) -> None:
    """Append to ``problems`` what is wrong with the bounds of lists and droplets."""
    if not 1 <= capacity <= 1 << 24:
        problems.append(f"capacity: {capacity} must be from 1 to {1 << 24} places")
    if max_npix < 1:
        problems.append(f"max_npix: {max_npix} leaves no droplet; at least 1 pixel")


def _least(x: float) -> float:
    """Smallest float32 that is not below ``x``."""
    f = np.float32(x)
    return float(np.nextafter(f, np.float32(np.inf)) if float(f) < x else f)


def _most(x: float) -> float:
    """Largest finite float32 that is not above ``x``."""
    f = np.float32(min(x, float(np.finfo(np.float32).max)))
    return float(np.nextafter(f, np.float32(-np.inf)) if float(f) > x else f)


def make_candidates(rows: int, columns: int) -> Candidates:
    """Room for every pixel of a segment; memory that is never touched is never given."""
    size = rows * columns + 1
    value = np.zeros(size, np.float32)
    bright, member = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
    row, col, up, down, droplet, after = (np.zeros(size, np.int32) for _ in range(6))
    places = (row, col, up, down, bright, member, droplet, after)
    return Candidates(value, *places, np.zeros(5, np.int64))


def make_droplets(rows: int, columns: int) -> Droplets:
    """Room for as many droplets as fit into a segment: every second pixel, as on a chessboard."""
    size = (rows * columns + 1) // 2
    total, by_row, by_col = (np.zeros(size) for _ in range(3))
    npix, first, last = (np.zeros(size, np.int32) for _ in range(3))
    return Droplets(total, by_row, by_col, npix, first, last)


@kernel
def begin(c: Candidates, segment: int) -> None:
    """Forget the candidates; those to come are of ``segment``."""
    c.now[SEGMENT] = segment
    c.now[NUMBER] = -2
    c.now[BEGIN] = c.now[END] = c.now[OVER] = 0


@kernel
def search(tile: Tile, rows: int, levels: Levels, c: Candidates) -> None:
    """Add the candidates of a row of the segment, and tell neighbours of each other."""
    low, high = np.float32(levels.least), np.float32(levels.high)
    values, begun = tile.values, c.now[END]
    col, end = c.col, begun
    for at in range(0, values.size, BLOCK):
        bits = lit(values, at, low)
        while bits:
            i = at + lowest(bits)
            bits &= bits - 1
            col[end] = i
            small = values[i] <= high
            end += small
            c.now[OVER] += not small
    noise = levels.noise[tile.first : tile.first + values.size]  # empty if there is none
    if begun < end and noise.size:
        found, end = end, begun
        for i in range(begun, found):
            at = col[i]
            if np.float64(values[at]) >= levels.low * np.float64(noise[at]):
                col[end] = at
                end += 1
    if begun < end:
        above = c.now[BEGIN] if tile.number == c.now[NUMBER] + 1 else begun
        for i in range(begun, end):
            value = values[col[i]]
            level = levels.seed * np.float64(noise[col[i]]) if noise.size else levels.seed
            c.value[i], c.row[i] = value, tile.number % rows
            c.bright[i] = np.float64(value) >= level
        _meet(above, begun, end, c)
    c.now[NUMBER], c.now[BEGIN], c.now[END] = tile.number, begun, end


@kernel
def _meet(above: int, begun: int, end: int, c: Candidates) -> None:
    """Find the neighbours of candidates ``begun`` to ``end``, of one row, in it and above it.

    Seeds are members, and so are candidates with a seed for a neighbour.
    """
    bright, col, up, down, member = c.bright, c.col, c.up, c.down, c.member
    j = above
    for i in range(begun, end):
        up[i] = down[i] = -1
        member[i] = bright[i]
        if i > begun and col[i - 1] + 1 == col[i]:
            member[i] |= bright[i - 1]
            member[i - 1] |= bright[i]
        while j < begun and col[j] < col[i]:
            j += 1
        if j < begun and col[j] == col[i]:
            up[i], down[j] = j, i
            member[i] |= bright[j]
            member[j] |= bright[i]


@kernel
def beside(c: Candidates, i: int, j: int) -> Any:
    """Whether candidate ``j``, ``i`` + 1, is the right neighbour of ``i``."""
    return c.row[i] == c.row[j] and c.col[i] + 1 == c.col[j]


@kernel
def _root(parent: NDArray[np.int32], i: int) -> Any:
    """Root of a tree, which is its first pixel; halves the way there."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@kernel
def unite(c: Candidates, drops: Droplets) -> Any:
    """Make droplets of the candidates of a segment; returns how many."""
    parent, member, end = c.droplet, c.member, c.now[END]
    for i in range(end):
        root = i
        if member[i] == 0:
            root = -1
        else:
            if i > 0 and member[i - 1] != 0 and beside(c, i - 1, i):
                root = _root(parent, i - 1)
            if c.up[i] >= 0 and member[c.up[i]] != 0:
                other = _root(parent, c.up[i])
                if root != i:
                    parent[max(root, other)] = min(root, other)
                root = min(root, other)
        parent[i] = root
    return _measure(c, drops)


@kernel
def _measure(c: Candidates, drops: Droplets) -> Any:
    """Number the trees and sum up their pixels; parents come first, and have their number."""
    count = 0
    for i in range(c.now[END]):
        parent = c.droplet[i]
        if parent < 0:
            continue
        value = np.float64(c.value[i])
        if parent == i:
            d = count
            count += 1
            drops.total[d] = drops.by_row[d] = drops.by_col[d] = 0.0
            drops.npix[d] = 0
            drops.first[d] = i
        else:
            d = c.droplet[parent]
            c.next[drops.last[d]] = i
        drops.total[d] += value
        drops.by_row[d] += value * c.row[i]
        drops.by_col[d] += value * c.col[i]
        drops.npix[d] += 1
        drops.last[d] = i
        c.next[i] = -1
        c.droplet[i] = d
    return count
