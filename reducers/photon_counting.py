"""Photons by pixel: whole ones, and those whose charge two neighbours share."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb import Area, Axis, Feature, Tile, Vector, tile_reducer
from ffb.reducers.gain_ranges import exact
from ffb.reducers.greedy import BRIGHTEST, photon_problems
from ffb.reducers.lanes import BLOCK, lowest
from ffb.reducers.lit import lit
from ffb.reducers.photons import MOST

#: Least remainder of the larger of two pixels that share a photon.
LARGER = 0.5

#: Places in ``State.counts``: photons, pixels that hold any, pixels not valid in this shot.
PHOTONS, PIXELS, BAD = range(3)


class Params(NamedTuple):
    """What one photon leaves in a pixel, ``photon`` in calibrated units, and when two share one.

    Two pixels whose remainders, in photons, sum up to ``fraction`` or more count as one photon, if
    the larger is 0.5 or more. smalldata_tools' ``ADU_per_photon``, ``thr_fraction`` and
    ``thresADU`` are ``photon``, ``fraction`` and ``threshold``.
    Pixels below ``threshold`` or above ``pixel_max``, in calibrated units, are none. ``listed``
    keeps the pixels that hold photons, at most ``capacity``.
    """

    photon: float
    fraction: float = 0.9
    threshold: float = 0.0
    pixel_max: float = np.inf
    capacity: int = 1000
    listed: bool = True


class Constants(NamedTuple):
    """The parameters; ``least`` is what a pixel needs to be looked at, ``valid`` good pixels."""

    photon: float
    fraction: float
    low: float
    high: float
    least: float
    valid: int
    rows: int
    columns: int
    capacity: int


class State(NamedTuple):
    """Three rows, that of tile ``number`` at ``number`` % 3, counts and the list.

    ``taken`` marks pixels whose remainder went to a neighbour; ``last`` (1,) int64 is the tile
    that is not counted yet, because it waits for the row below, -1 for none.
    """

    values: NDArray[np.float32]
    taken: NDArray[np.uint8]
    last: NDArray[np.int64]
    counts: NDArray[np.int64]
    held: NDArray[np.int64]
    prob: NDArray[np.float64]
    row: NDArray[np.int32]
    col: NDArray[np.int32]
    segment: NDArray[np.int16]
    photons: NDArray[np.int32]


class Found(NamedTuple):
    """Photons, and the pixels that hold them in raster order."""

    n: Annotated[int, Feature("1", "photons")]
    npix: Annotated[int, Feature("1", "pixels that hold photons")]
    mean: Annotated[float, Feature("1", "photons per valid pixel; NaN without any")]
    prob: Annotated[
        Vector,
        Feature("1", "fraction of the valid pixels that hold k photons", ("k",), "<f8"),
    ]
    overflow: Annotated[
        bool, Feature("1", "whether npix is more than the list has room for", when="listed")
    ]
    row: Annotated[Vector, Feature("pixel", "row of a pixel", ("pixel",), "<i4", "listed", "npix")]
    col: Annotated[
        Vector, Feature("pixel", "column of a pixel", ("pixel",), "<i4", "listed", "npix")
    ]
    segment: Annotated[
        Vector, Feature("1", "segment of a pixel", ("pixel",), "<i2", "listed", "npix")
    ]
    photons: Annotated[
        Vector, Feature("1", "photons that it holds", ("pixel",), "<i4", "listed", "npix")
    ]


@exact
def _in_photons(value: Any, k: Constants) -> Any:
    """Value of a pixel in photons; 0 where it is out of bounds or NaN."""
    return np.float64(value) / k.photon if value >= k.low and value <= k.high else 0.0


@exact
def _remainder(state: State, tile: int, i: int, k: Constants) -> Any:
    """What a pixel has beside whole photons; nothing beyond the edges of a row."""
    if i < 0 or i >= k.columns:
        return 0.0
    x = _in_photons(state.values[tile % 3, i], k)
    return x - np.floor(x)


@exact
def _shares(state: State, tile: int, i: int, k: Constants) -> bool:
    """Whether a pixel and its largest neighbour make a photon, which takes the neighbour's part.

    The pixel has to hold half a photon, and more than all its neighbours; of equals the first does.
    """
    mine = _remainder(state, tile, i, k)
    above, left = _remainder(state, tile - 1, i, k), _remainder(state, tile, i - 1, k)
    right, below = _remainder(state, tile, i + 1, k), _remainder(state, tile + 1, i, k)
    if mine < LARGER or mine <= above or mine <= left or mine < right or mine < below:
        return False
    row, col, most = -1, -1, 0.0
    for r, c, its in ((tile - 1, i, above), (tile, i - 1, left), (tile, i + 1, right)):
        if its > most and state.taken[r % 3, c] == 0:
            row, col, most = r, c, its
    if below > most:  # nobody has come to it yet
        row, col, most = tile + 1, i, below
    if mine + most < k.fraction:
        return False
    if row >= 0:
        state.taken[row % 3, col] = 1
    return True


@exact
def _count(state: State, tile: int, i: int, k: Constants) -> None:
    """Count the photons of a pixel."""
    if state.values[tile % 3, i] > k.high:
        state.counts[BAD] += 1
        return
    n = np.int64(np.floor(_in_photons(state.values[tile % 3, i], k)))
    n += _shares(state, tile, i, k)
    if n > 0:
        at = state.counts[PIXELS]
        state.counts[PIXELS] += 1
        state.counts[PHOTONS] += n
        state.held[min(n, MOST + 1)] += 1
        if at < state.row.size:
            state.row[at] = tile % k.rows
            state.col[at] = i
            state.segment[at] = tile // k.rows
            state.photons[at] = n


@exact
def begin(state: State) -> None:
    """Forget all rows and counts."""
    state.counts[:] = 0
    state.held[:] = 0
    state.values[:] = 0
    state.taken[:] = 0
    state.last[0] = -1


@exact
def take(state: State, k: Constants, number: int, values: NDArray[np.float32]) -> None:
    """Take row ``number``, and count the one before, which has waited for what is below it."""
    first = number % k.rows == 0 or number != state.last[0] + 1
    if first:
        state.values[(state.last[0] + 1) % 3] = 0
    else:
        _enter(state, number, values)
    _complete(state, k)
    if first:
        state.values[:] = 0
        state.taken[:] = 0
        _enter(state, number, values)
    state.last[0] = number


@exact
def end(state: State, k: Constants) -> None:
    """Count the last row, below which there is nothing."""
    state.values[(state.last[0] + 1) % 3] = 0
    _complete(state, k)


@exact
def _complete(state: State, k: Constants) -> None:
    """Count the row that waits, whose neighbours are all there now."""
    tile = state.last[0]
    if tile < 0:  # none does: the first row of the shot
        return
    values, least = state.values[tile % 3], np.float32(k.least)
    for at in range(0, values.size, BLOCK):
        bits = lit(values, at, least)
        while bits:
            _count(state, tile, at + lowest(bits), k)
            bits &= bits - 1


@exact
def _enter(state: State, tile: int, values: NDArray[np.float32]) -> None:
    """Put a row in its place."""
    here, taken = state.values[tile % 3], state.taken[tile % 3]
    for i in range(values.size):
        here[i] = values[i]
    taken[:] = 0


@tile_reducer(version=3)
class photon_counting:  # noqa: N801
    """Photons by pixel, for photons whose charge spreads over one pixel or two.

    In units of ``photon`` a pixel holds as many photons as it has whole ones. What remains is
    between 0 and 1: a pixel whose remainder is 0.5 or more and the largest among its four
    neighbours is paired with the largest of them that is left, and holds one photon more if the two
    sum up to ``fraction``. A remainder goes to one pair only, pairs are made row by row, and of
    equal remainders the first counts as the larger. This is the two-pixel merge of psana's photon
    counting (parameter ``thr_fraction``), but for the order in which remainders are taken: there
    pixels inside a segment come before those on its edges.
    Neighbours are of one segment. Masked and NaN pixels, those above ``pixel_max`` and those of
    more than a million photons have nothing, and are not valid in this shot. ``prob`` gives k = 0
    to 10 over the pixels that are: it sums up to 1 unless a pixel holds more.
    """

    @staticmethod
    def prepare(params: Params, area: Area) -> Constants:
        """Check the parameters; ``ValueError`` lists what makes no sense."""
        photon, problems = params.photon, [*photon_problems(params.photon, area)]
        if not 0 < params.fraction <= 1:
            problems.append(f"fraction: {params.fraction} must be above 0 and at most 1")
        if not 0 <= params.threshold < np.inf:
            problems.append(f"threshold: {params.threshold} must be 0 or more")
        if not params.pixel_max > params.threshold:
            problems.append(f"pixel_max: {params.pixel_max} leaves nothing above threshold")
        if not 1 <= params.capacity <= 1 << 24:
            problems.append(f"capacity: {params.capacity} must be from 1 to {1 << 24} places")
        if problems:
            raise ValueError("\n".join(problems))
        _, rows, columns = area.shape
        # The larger of two has half a photon; a little less, to be safe from rounding.
        least = max(params.threshold, LARGER * photon) * (1 - 1e-6)
        high = min(params.pixel_max, BRIGHTEST * photon)
        least = min(least, high)  # pixels above are looked at, to tell that they are not valid
        capacity, valid = params.capacity if params.listed else 0, int(area.mask.sum())
        sizes = (valid, rows, columns, capacity)
        return Constants(photon, params.fraction, params.threshold, high, least, *sizes)

    @staticmethod
    def axes(_: Params, __: Constants) -> dict[str, Axis]:
        """Photons in a pixel."""
        return {"k": Axis(np.arange(MOST + 1.0), "1")}

    @staticmethod
    def allocate(constants: Constants) -> State:
        """Room for three rows and for the list."""
        n = constants.capacity
        return State(
            np.zeros((3, constants.columns), np.float32),
            np.zeros((3, constants.columns), np.uint8),
            np.full(1, -1, np.int64),
            np.zeros(3, np.int64),
            np.zeros(MOST + 2, np.int64),
            np.zeros(MOST + 1),
            np.zeros(n, np.int32),
            np.zeros(n, np.int32),
            np.zeros(n, np.int16),
            np.zeros(n, np.int32),
        )

    @staticmethod
    def start(constants: Constants, state: State) -> None:
        """Forget the last shot."""
        begin(state)

    @staticmethod
    def accumulate(tile: Tile, constants: Constants, state: State) -> None:
        """Take a row, and count the one before."""
        take(state, constants, tile.number, tile.values)
        state.counts[BAD] += tile.bad

    @staticmethod
    def finish(constants: Constants, state: State) -> Found:
        """Count the last row; clear the places that are not used."""
        end(state, constants)
        n, npix, bad = state.counts
        valid = constants.valid - bad
        state.held[0] = valid - npix
        for k in range(state.prob.size):
            state.prob[k] = state.held[k] / valid if valid else np.nan
        used = min(npix, state.row.size)
        state.row[used:] = 0
        state.col[used:] = 0
        state.segment[used:] = 0
        state.photons[used:] = 0
        mean = n / valid if valid else np.nan
        overflow = npix > state.row.size
        return Found(
            n,
            npix,
            mean,
            state.prob,
            overflow,
            state.row,
            state.col,
            state.segment,
            state.photons,
        )


def example() -> tuple[Params, Area]:
    """Parameters, and a detector to try them on."""
    mask = np.ones((2, 9, 23), np.bool_)
    params = Params(40.0, threshold=5.0, pixel_max=180.0, capacity=150)
    return params, Area("example", mask.shape, mask, None, "keV")
