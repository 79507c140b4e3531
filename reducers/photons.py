"""Photons: droplets divided into the photons that made them."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb import Area, Axis, Feature, Tile, Vector, tile_reducer
from ffb.reducers.connected import OVER, SEGMENT, Levels, begin, levels_of, room_of, search, unite
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
    place,
    worth_of,
)

#: Photons of a pixel of which the probability is given.
MOST = 10

#: Places in ``State.counts``.
DROPLETS, GIANT, BAD = range(3)


class Params(NamedTuple):
    """What one photon leaves in the pixels, and what makes a droplet; all in calibrated units.

    ``photon`` is the value of one: smalldata_tools' ``aduspphot``, in keV where pixels are in keV.

    A droplet with a sum of at least ``edges[k]`` holds k + 1 photons; beyond the last edge they go
    on in steps of ``photon``. Without ``edges`` they lie halfway. smalldata_tools' ``photpts`` are
    these with one for no photons in front; there a droplet beyond the last holds no more than that.
    For ``threshold``, ``threshold_low``, ``min_sum``, ``pixel_max`` and ``in_noise`` see
    ``droplets``. Giant droplets, of more than ``max_npix`` pixels, are counted in ``giant`` and are
    not divided: the time that takes grows with their pixels squared. ``listed`` keeps the photons
    themselves, at most ``capacity``.
    """

    photon: float
    threshold: float
    threshold_low: float | None = None
    min_sum: float = 0.0
    pixel_max: float = np.inf
    max_npix: int = 200
    capacity: int = 1000
    listed: bool = True
    in_noise: bool = False
    edges: tuple[float, ...] | None = None


class Constants(NamedTuple):
    """Value of a photon, thresholds, cuts, pixels that are valid, what states need to be made."""

    worth: Worth
    levels: Levels
    min_sum: float
    max_npix: int
    valid: int
    rows: int
    columns: int
    capacity: int


class State(NamedTuple):
    """Droplets of the segment and what is guessed of them, counts and the list.

    ``counts`` (3,) int64: droplets, giants, pixels that are good and not valid in this shot;
    ``held`` (MOST + 2,) int64: pixels by the photons they hold, more in the last.
    """

    guess: Guess
    counts: NDArray[np.int64]
    held: NDArray[np.int64]
    prob: NDArray[np.float64]
    places: Places


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
def _record(constants: Constants, state: State) -> None:
    """Make droplets of the pixels of a segment that is complete, and photons of them."""
    guess, counts, held = state.guess, state.counts, state.held
    c, drops = guess.candidates, guess.droplets
    for d in range(unite(c, drops)):
        total = drops.total[d]
        if drops.npix[d] > constants.max_npix:
            counts[GIANT] += 1
            counts[BAD] += drops.npix[d]
        elif total >= constants.min_sum:
            counts[DROPLETS] += 1
            n = photons_in(total, constants.worth)
            if n == 1:
                place(guess, state.places, 1, drops.by_row[d] / total, drops.by_col[d] / total)
                held[1] += 1
            elif n > 1:
                divide(guess, state.places, constants.worth.photon, d, n)
                i = np.int64(drops.first[d])
                while i >= 0:
                    held[min(guess.whole[i], MOST + 1)] += 1
                    i = np.int64(c.next[i])
    counts[BAD] += c.now[OVER]


@tile_reducer(version=2)
class photons:  # noqa: N801
    """Photons from droplets by the greedy guess, and how many pixels hold how many.

    A droplet of sum S holds the whole number n of photons that is nearest to S / ``photon``,
    halves up, or as ``edges`` say. One photon is at the centroid of its droplet. Of more, every
    whole photon of a pixel is placed on that pixel; then, until n are placed, the brightest
    remainder f gets one, moved towards the brightest of its four neighbours in the droplet by
    1 - f pixels: the remainder is 0 then, and the neighbour's is less by 1 - f, at least 0. Without
    a neighbour that has any left the photon stays where it is. Of equals the first along the rows
    counts; where edges leave fewer photons than pixels hold, the first pixels keep theirs. This is
    what smalldata_tools does on droplets with ``relabel=True``; see ``droplets`` for those.

    A photon is held by the pixel of its droplet that is closest to it, halfway by the one it comes
    from. ``prob`` gives k = 0 to 10 over the pixels that are valid in this shot: it sums up to 1
    unless a pixel holds more. Not valid are, beside masked pixels and NaN, those above
    ``pixel_max`` or of more than a million photons, and those of giant droplets, whose photons
    nobody knows: ``n`` lacks them, ``mean`` and ``prob`` are over the others. smalldata_tools'
    ``prob`` has the mean as its last value, and takes photons at one place of two segments for two
    in a pixel.
    """

    @staticmethod
    def prepare(params: Params, area: Area) -> Constants:
        """Check the photon, thresholds and bounds; ``ValueError`` lists what makes no sense."""
        problems: list[str] = []
        worth = worth_of(params.photon, params.edges, area, problems)
        brightest = min(params.pixel_max, BRIGHTEST * (params.photon if not problems else np.inf))
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
        return Constants(worth, levels, *bounds)

    @staticmethod
    def axes(_: Params, __: Constants) -> dict[str, Axis]:
        """Photons in a pixel."""
        return {"k": Axis(np.arange(MOST + 1.0), "1")}

    @staticmethod
    def allocate(constants: Constants) -> State:
        """Room for the pixels and droplets of a segment, and for the list."""
        return State(
            make_guess(constants.rows, constants.columns),
            np.zeros(3, np.int64),
            np.zeros(MOST + 2, np.int64),
            np.zeros(MOST + 1),
            make_places(constants.capacity),
        )

    @staticmethod
    def start(constants: Constants, state: State) -> None:
        """Forget the last shot."""
        state.counts[:] = 0
        state.held[:] = 0
        state.places.n[0] = 0
        begin(state.guess.candidates, -1)

    @staticmethod
    def accumulate(tile: Tile, constants: Constants, state: State) -> None:
        """Search a row; the first one of a segment completes the segment before."""
        segment = tile.number // constants.rows
        candidates = state.guess.candidates
        if segment != candidates.now[SEGMENT]:
            _record(constants, state)
            begin(candidates, segment)
        search(tile, constants.rows, constants.levels, candidates)
        state.counts[BAD] += tile.bad

    @staticmethod
    def finish(constants: Constants, state: State) -> Found:
        """Complete the last segment; clear the places that are not used."""
        _record(constants, state)
        n_droplets, giant, bad = state.counts
        places, n = state.places, state.places.n[0]
        valid = constants.valid - bad
        state.held[0] = valid - state.held[1:].sum()
        for k in range(state.prob.size):
            state.prob[k] = state.held[k] / valid if valid else np.nan
        used = min(n, places.row.size)
        places.row[used:] = np.nan
        places.col[used:] = np.nan
        places.segment[used:] = 0
        mean = n / valid if valid else np.nan
        overflow = n > places.row.size
        lists = (places.row, places.col, places.segment)
        return Found(n, n_droplets, giant, mean, state.prob, overflow, *lists)


def example() -> tuple[Params, Area]:
    """Parameters, and a detector to try them on."""
    mask = np.ones((2, 9, 23), np.bool_)
    params = Params(60.0, 80.0, 30.0, min_sum=90.0, pixel_max=180.0, max_npix=40, capacity=80)
    return params, Area("example", mask.shape, mask, None, "keV")
