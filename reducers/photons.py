"""Photons: droplets divided into the photons that made them."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb import Area, Axis, Feature, Tile, Vector, tile_reducer
from ffb.reducers.connected import (
    END,
    SEGMENT,
    Candidates,
    Droplets,
    Levels,
    begin,
    beside,
    levels_of,
    make_candidates,
    make_droplets,
    room_of,
    search,
    unite,
)
from ffb.reducers.gain_ranges import exact

#: Photons of a pixel of which the probability is given.
MOST = 10

#: Photons that a pixel may hold; a brighter one is none.
BRIGHTEST = 1_000_000

#: Places in ``State.counts``.
PHOTONS, DROPLETS, GIANT, BAD = range(4)


class Params(NamedTuple):
    """The value ``energy`` of one photon, and what makes a droplet; all in calibrated units.

    For ``threshold``, ``threshold_low``, ``min_sum``, ``pixel_max`` and ``in_noise`` see
    ``droplets``. Giant droplets, of more than ``max_npix`` pixels, are counted in ``giant`` and are
    not divided: the time that takes grows with their pixels squared. ``listed`` keeps the photons
    themselves, at most ``capacity``.
    """

    energy: float
    threshold: float
    threshold_low: float | None = None
    min_sum: float = 0.0
    pixel_max: float = np.inf
    max_npix: int = 200
    capacity: int = 1000
    listed: bool = True
    in_noise: bool = False


class Constants(NamedTuple):
    """Value of a photon, thresholds, cuts, pixels that are valid, what states need to be made."""

    energy: float
    levels: Levels
    min_sum: float
    max_npix: int
    valid: int
    rows: int
    columns: int
    capacity: int


class State(NamedTuple):
    """Pixels and droplets of the segment, counts and the list.

    ``rest`` and ``whole``, by candidate, are the part of a photon that is left in a pixel, and the
    photons placed in it. ``counts`` (4,) int64: photons, droplets, giants, pixels that are NaN;
    ``held`` (MOST + 2,) int64: pixels by the photons they hold, more in the last.
    """

    candidates: Candidates
    droplets: Droplets
    rest: NDArray[np.float64]
    whole: NDArray[np.int32]
    counts: NDArray[np.int64]
    held: NDArray[np.int64]
    prob: NDArray[np.float64]
    row: NDArray[np.float32]
    col: NDArray[np.float32]
    segment: NDArray[np.int16]


class Found(NamedTuple):
    """Photons in the order of their droplets; of one droplet, those of whole pixels first."""

    n: Annotated[int, Feature("1", "photons")]
    n_droplets: Annotated[
        int, Feature("1", "droplets of at least min_sum and at most max_npix pixels")
    ]
    giant: Annotated[int, Feature("1", "droplets of more than max_npix pixels, not divided")]
    mean: Annotated[float, Feature("1", "photons per valid pixel; NaN without any")]
    prob: Annotated[
        Vector,
        Feature("1", "fraction of the valid pixels that hold k photons", ("k",), "<f8"),
    ]
    overflow: Annotated[
        bool, Feature("1", "whether n is more than the list has room for", when="listed")
    ]
    row: Annotated[Vector, Feature("pixel", "row of a photon", ("photon",), "<f4", "listed", "n")]
    col: Annotated[
        Vector, Feature("pixel", "column of a photon", ("photon",), "<f4", "listed", "n")
    ]
    segment: Annotated[
        Vector, Feature("1", "segment of a photon", ("photon",), "<i2", "listed", "n")
    ]


@exact
def _place(state: State, n: int, row: float, col: float) -> None:
    """Add ``n`` photons at one place; what there is no room for is counted."""
    at = state.counts[PHOTONS]
    state.counts[PHOTONS] += n
    for k in range(at, min(at + n, state.row.size)):
        state.row[k] = row
        state.col[k] = col
        state.segment[k] = state.candidates.now[SEGMENT]


@exact
def _brightest_beside(state: State, i: int) -> Any:
    """Neighbour of candidate ``i`` in its droplet with the most left, -1 if none has any."""
    c, rest = state.candidates, state.rest
    best: Any = -1
    most = 0.0
    left = i - 1 if i > 0 and beside(c, i - 1, i) else -1
    right = i + 1 if i + 1 < c.now[END] and beside(c, i, i + 1) else -1
    for j in (np.int64(c.up[i]), left, right, np.int64(c.down[i])):
        if j >= 0 and c.member[j] != 0 and rest[j] > most:
            best, most = j, rest[j]
    return best


@exact
def _divide(state: State, energy: float, d: int, n: int) -> None:
    """Place the ``n`` photons of droplet ``d``: whole ones, then by the brightest remainder."""
    c, rest, whole = state.candidates, state.rest, state.whole
    first, placed = state.droplets.first[d], 0
    i = first
    while i >= 0:
        x = np.float64(c.value[i]) / energy
        whole[i] = np.int32(np.floor(x))
        rest[i] = x - whole[i]
        placed += whole[i]
        _place(state, whole[i], c.row[i], c.col[i])
        i = c.next[i]
    for _ in range(n - placed):
        best = i = first
        while i >= 0:
            best = i if rest[i] > rest[best] else best
            i = c.next[i]
        to, shift = _brightest_beside(state, best), 1.0 - rest[best]
        rest[best] = 0.0
        row, col = np.float64(c.row[best]), np.float64(c.col[best])
        if to >= 0:
            row += shift * (c.row[to] - c.row[best])
            col += shift * (c.col[to] - c.col[best])
            rest[to] = max(rest[to] - shift, 0.0)
        _place(state, 1, row, col)
        whole[to if to >= 0 and shift > 0.5 else best] += 1
    i = first
    while i >= 0:
        state.held[min(whole[i], MOST + 1)] += 1
        i = c.next[i]


@exact
def _record(constants: Constants, state: State) -> None:
    """Make droplets of the pixels of a segment that is complete, and photons of them."""
    drops, counts = state.droplets, state.counts
    for d in range(unite(state.candidates, drops)):
        if drops.npix[d] > constants.max_npix:
            counts[GIANT] += 1
        elif drops.total[d] >= constants.min_sum:
            counts[DROPLETS] += 1
            n = np.int64(np.floor(drops.total[d] / constants.energy + 0.5))
            if n == 1:
                total = drops.total[d]
                _place(state, 1, drops.by_row[d] / total, drops.by_col[d] / total)
                state.held[1] += 1
            elif n > 1:
                _divide(state, constants.energy, d, n)


@tile_reducer(version=1)
class photons:  # noqa: N801
    """Photons from droplets by the greedy guess, and how many pixels hold how many.

    A droplet of sum S holds the whole number n of photons that is nearest to S / ``energy``,
    halves up. One photon is at the centroid of its droplet. Of more, every whole photon of a pixel
    is placed on that pixel; then, until n are placed, the brightest remainder f gets one, moved
    towards the brightest of its four neighbours in the droplet by 1 - f pixels: the remainder is
    0 then, and the neighbour's is less by 1 - f, at least 0. Without a neighbour that has any left
    the photon stays where it is. Of equals the first along the rows counts. This is what
    smalldata_tools does on droplets with ``relabel=True``; see ``droplets`` for those.

    A photon is held by the pixel of its droplet that is closest to it, halfway by the one it comes
    from. ``prob`` gives k = 0 to 10 over the pixels that are valid in this shot: it sums up to 1
    unless a pixel holds more. Pixels of more than a million photons are none. Giant droplets bring
    no photons: where ``giant`` is not 0 these numbers are too small.
    """

    @staticmethod
    def prepare(params: Params, area: Area) -> Constants:
        """Check energy, thresholds and bounds; ``ValueError`` lists what makes no sense."""
        problems: list[str] = []
        energy = params.energy if 0 < params.energy < np.inf else 0.0
        if not energy:
            problems.append(f"energy: {params.energy} is no value of a photon; above 0")
        brightest = min(params.pixel_max, BRIGHTEST * (energy or np.inf))
        p, noise = params, area if params.in_noise else None
        levels = levels_of(p.threshold, p.threshold_low, brightest, problems, noise)
        room_of(params.capacity, params.max_npix, problems)
        if not params.min_sum >= 0:
            problems.append(f"min_sum: {params.min_sum} must be 0 or more")
        if problems:
            raise ValueError("\n".join(problems))
        _, rows, columns = area.shape
        capacity, valid = params.capacity if params.listed else 0, int(area.mask.sum())
        bounds = (params.min_sum, params.max_npix, valid, rows, columns, capacity)
        return Constants(energy, levels, *bounds)

    @staticmethod
    def axes(_: Params, __: Constants) -> dict[str, Axis]:
        """Photons in a pixel."""
        return {"k": Axis(np.arange(MOST + 1.0), "1")}

    @staticmethod
    def allocate(constants: Constants) -> State:
        """Room for the pixels and droplets of a segment, and for the list."""
        size, n = (constants.rows, constants.columns), constants.capacity
        candidates = make_candidates(*size)
        return State(
            candidates,
            make_droplets(*size),
            np.zeros(candidates.value.size),
            np.zeros(candidates.value.size, np.int32),
            np.zeros(4, np.int64),
            np.zeros(MOST + 2, np.int64),
            np.zeros(MOST + 1),
            np.zeros(n, np.float32),
            np.zeros(n, np.float32),
            np.zeros(n, np.int16),
        )

    @staticmethod
    def start(constants: Constants, state: State) -> None:
        """Forget the last shot."""
        state.counts[:] = 0
        state.held[:] = 0
        begin(state.candidates, -1)

    @staticmethod
    def accumulate(tile: Tile, constants: Constants, state: State) -> None:
        """Search a row; the first one of a segment completes the segment before."""
        segment = tile.number // constants.rows
        if segment != state.candidates.now[SEGMENT]:
            _record(constants, state)
            begin(state.candidates, segment)
        search(tile, constants.rows, constants.levels, state.candidates)
        state.counts[BAD] += tile.bad

    @staticmethod
    def finish(constants: Constants, state: State) -> Found:
        """Complete the last segment; clear the places that are not used."""
        _record(constants, state)
        n, n_droplets, giant, bad = state.counts
        valid = constants.valid - bad
        state.held[0] = valid - state.held[1:].sum()
        for k in range(state.prob.size):
            state.prob[k] = state.held[k] / valid if valid else np.nan
        used = min(n, state.row.size)
        state.row[used:] = np.nan
        state.col[used:] = np.nan
        state.segment[used:] = 0
        mean = n / valid if valid else np.nan
        overflow = n > state.row.size
        return Found(
            n,
            n_droplets,
            giant,
            mean,
            state.prob,
            overflow,
            state.row,
            state.col,
            state.segment,
        )


def example() -> tuple[Params, Area]:
    """Parameters, and a detector to try them on."""
    mask = np.ones((2, 9, 23), np.bool_)
    params = Params(60.0, 80.0, 30.0, min_sum=90.0, pixel_max=180.0, max_npix=40, capacity=80)
    return params, Area("example", mask.shape, mask, None, "keV")
