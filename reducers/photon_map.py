"""Whole photons in each pixel of a calibrated frame: what comes between calibration and reducers.

A photon map is a calibration with one step more, so that every tile reducer and every sum over
shots takes it as it takes a calibrated frame, in the same pass. Masked pixels stay 0; a pixel that
is not valid in the shot, or whose photons cannot be known, is NaN and never 0. Where the photons of
a pixel depend on its neighbours a whole segment is calibrated at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.configuration.photon_settings import PhotonConfig
from ffb.reduce import Area, Calibration, Tile
from ffb.reducers import photon_counting as pairs
from ffb.reducers.connected import OVER, Levels, begin, levels_of, room_of, search, unite
from ffb.reducers.gain_ranges import exact
from ffb.reducers.greedy import (
    BRIGHTEST,
    Guess,
    Places,
    Worth,
    divide,
    make_guess,
    make_places,
    photons_in,
    worth_of,
)
from ffb.reducers.lanes import BLOCK
from ffb.reducers.lit import lit

UNIT = "photons"

F32 = NDArray[np.float32]
Counts = NDArray[np.int64]


class PhotonMap(NamedTuple):
    """A :class:`ffb.reduce.Calibration` whose pixels are whole photons, ``unit`` photons.

    ``calibrated`` is the one without photons.
    """

    calibrated: Calibration
    constants: Any
    tile: Any
    mask: NDArray[np.bool_]
    dtype: str
    height: int
    unit: str = UNIT
    lend: None = None

    @property
    def skipped(self) -> Mapping[str, int]:
        """Corrections of the calibration that could not be made."""
        return self.calibrated.skipped


class Mapped(NamedTuple):
    """Constants ``planes`` of the calibration, ``own`` ones of the map, columns of the detector."""

    planes: Any
    own: Any
    columns: int


class Pixels(NamedTuple):
    """Value of a photon, the least value that is one, the largest of a valid pixel."""

    worth: Worth
    least: np.float32
    high: np.float32


class Pairs(NamedTuple):
    """Constants and state of ``photon_counting``, whose list has room for a row."""

    constants: pairs.Constants
    state: pairs.State


class Drops(NamedTuple):
    """Value of a photon, what makes a droplet, room to work in."""

    worth: Worth
    levels: Levels
    min_sum: float
    max_npix: int
    guess: Guess
    nowhere: Places


def photon_map(calibration: Calibration, settings: PhotonConfig, area: Area) -> PhotonMap:
    """A calibration that ends in photons, as ``settings`` ask; ``area`` is that of the frame.

    Raises ``ValueError`` with a line, by setting, for each thing that does not fit.
    """
    s, (_, rows, columns) = settings, area.shape
    problems: list[str] = []
    worth = worth_of(s.photon, s.edges, area, problems)
    high = min(np.inf if s.pixel_max is None else s.pixel_max, BRIGHTEST * s.photon)
    own: Any
    match s.by:
        case "pixels":
            first = worth.edges[0] if worth.edges.size else 0.5 * s.photon
            levels = levels_of(first, None, high, problems)
            own = Pixels(worth, np.float32(levels.low), np.float32(levels.high))
        case "pairs":
            params = pairs.Params(s.photon, s.fraction, s.threshold or 0.0, high, columns)
            own = Pairs(*_made(pairs.photon_counting, params, area))
        case _:
            noise = area if s.in_noise else None
            seed = 0.5 * s.photon if s.threshold is None else s.threshold
            levels = levels_of(seed, s.threshold_low, high, problems, noise)
            room_of(1, s.max_npix, problems)
            room = make_guess(rows, columns), make_places(0)
            own = Drops(worth, levels, s.min_sum, s.max_npix, *room)
    if problems:
        raise ValueError("\n".join(problems))
    height = calibration.height if s.by == "pixels" else rows
    tile = _kernel(calibration.tile, calibration.height, s.by)
    constants = Mapped(calibration.constants, own, columns)
    return PhotonMap(calibration, constants, tile, calibration.mask, calibration.dtype, height)


def _made(reducer: Any, params: Any, area: Area) -> tuple[Any, Any]:
    constants = reducer.prepare(params, area)
    return constants, reducer.allocate(constants)


@cache
def _kernel(tile: Any, height: int, by: str) -> Any:
    """Calibrate with ``tile``, ``height`` rows at a time or row by row, and count photons."""
    count = {"pixels": _by_pixels, "pairs": _by_pairs, "droplets": _by_droplets}[by]

    @exact
    def row(raw: Any, first: int, c: Mapped, out: Any) -> Any:
        return tile(raw, first, c.planes, out) + _whole(out, c.own)

    @exact
    def rows(raw: Any, first: int, c: Mapped, out: Any, bad: Any) -> None:
        for r in range(bad.size):
            at = r * c.columns
            bad[r] = tile(raw[at : at + c.columns], first + at, c.planes, out[at : at + c.columns])
        count(out, first, c.own, bad)

    @exact
    def blocks(raw: Any, first: int, c: Mapped, out: Any, bad: Any) -> None:
        for r in range(0, bad.size, height):
            at, to = r * c.columns, (r + height) * c.columns
            tile(raw[at:to], first + at, c.planes, out[at:to], bad[r : r + height])
        count(out, first, c.own, bad)

    if height:
        return blocks
    return row if by == "pixels" else rows


@exact
def _whole(values: Any, k: Pixels) -> Any:
    """Make photons of the pixels of a row, each for itself; returns how many are not valid."""
    bad = np.int64(0)
    for at in range(0, values.size, BLOCK):
        block = values[at : at + BLOCK]
        if lit(values, at, k.least):
            for i in range(block.size):
                if block[i] > k.high:
                    block[i] = np.nan
                    bad += 1
                elif block[i] >= k.least:
                    block[i] = photons_in(np.float64(block[i]), k.worth)
                elif block[i] == block[i]:
                    block[i] = 0
        else:
            _clear(block)
    return bad


@exact
def _clear(values: Any) -> None:
    """Leave no photons, and pixels that are not valid as they are."""
    for i in range(values.size):
        values[i] = np.float32(0) if values[i] == values[i] else values[i]


@exact
def _clear_valid(values: Any, high: float) -> None:
    """Leave no photons; pixels above ``high`` are not valid."""
    for i in range(values.size):
        values[i] = np.float32(np.nan) if np.float64(values[i]) > high else values[i]
    _clear(values)


@exact
def _by_pixels(out: Any, first: int, k: Pixels, bad: Any) -> None:
    """Make photons of several rows."""
    columns = out.size // bad.size
    for r in range(bad.size):
        bad[r] += _whole(out[r * columns : (r + 1) * columns], k)


@exact
def _by_pairs(out: Any, first: int, own: Pairs, bad: Any) -> None:
    """Make photons of a segment, each row as soon as the one below it is known."""
    k, state, columns = own.constants, own.state, own.constants.columns
    pairs.begin(state)
    for r in range(bad.size):
        pairs.take(state, k, r, out[r * columns : (r + 1) * columns])
        if r:
            bad[r - 1] += _listed(out[(r - 1) * columns : r * columns], own)
    pairs.end(state, k)
    bad[-1] += _listed(out[-columns:], own)


@exact
def _listed(line: Any, own: Pairs) -> Any:
    """Write the photons that were counted into their row; returns how many are not valid."""
    state, over = own.state, own.state.counts[pairs.BAD]
    if over:
        _clear_valid(line, own.constants.high)
    else:
        _clear(line)
    for j in range(state.counts[pairs.PIXELS]):
        line[state.col[j]] = state.photons[j]
    state.counts[:] = 0
    return over


@exact
def _by_droplets(out: Any, first: int, own: Drops, bad: Any) -> None:
    """Make photons of a segment by its droplets."""
    guess, places, levels, rows = own.guess, own.nowhere, own.levels, bad.size
    c, drops, columns = guess.candidates, guess.droplets, out.size // bad.size
    begin(c, 0)
    for r in range(rows):
        line, known = out[r * columns : (r + 1) * columns], c.now[OVER]
        search(Tile(line, c.member[:0], 0, r, first + r * columns), rows, levels, c)
        if c.now[OVER] > known:
            _clear_valid(line, levels.high)
            bad[r] += c.now[OVER] - known
        else:
            _clear(line)
    for d in range(unite(c, drops)):
        if drops.npix[d] > own.max_npix:
            _lose(out, columns, guess, d, bad)
        elif drops.total[d] >= own.min_sum:
            n = photons_in(drops.total[d], own.worth)
            if n == 1:
                i = _closest(guess, d)
                out[c.row[i] * columns + c.col[i]] = 1
            elif n > 1:
                places.n[0] = 0
                divide(guess, places, own.worth.photon, d, n)
                i = np.int64(drops.first[d])
                while i >= 0:
                    out[c.row[i] * columns + c.col[i]] = guess.whole[i]
                    i = np.int64(c.next[i])


@exact
def _lose(out: Any, columns: int, guess: Guess, d: int, bad: Any) -> None:
    """Mark the pixels of a giant droplet as not valid."""
    c, i = guess.candidates, np.int64(guess.droplets.first[d])
    while i >= 0:
        out[c.row[i] * columns + c.col[i]] = np.nan
        bad[c.row[i]] += 1
        i = np.int64(c.next[i])


@exact
def _closest(guess: Guess, d: int) -> Any:
    """The candidate of a droplet that is closest to its centroid; of equals the first."""
    c, drops = guess.candidates, guess.droplets
    row, col = drops.by_row[d] / drops.total[d], drops.by_col[d] / drops.total[d]
    i = best = np.int64(drops.first[d])
    least = np.inf
    while i >= 0:
        away = (c.row[i] - row) ** 2 + (c.col[i] - col) ** 2
        if away < least - 1e-9:  # rounding of the centroid breaks no tie
            best, least = i, away
        i = np.int64(c.next[i])
    return best
