"""Droplets: connected pixels above thresholds, with their sums and centroids."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb import Area, Feature, Tile, Vector, tile_reducer
from ffb.loops.compile import kernel
from ffb.reducers.connected import (
    SEGMENT,
    Candidates,
    Droplets,
    Levels,
    begin,
    levels_of,
    make_candidates,
    make_droplets,
    room_of,
    search,
    unite,
)


class Params(NamedTuple):
    """What makes a droplet; thresholds are in calibrated units.

    With ``in_noise`` they are in units of each pixel's noise, the rms of the constants over the
    gain of its first range, as smalldata_tools' ``useRms=True``. Pixels of at least ``threshold``
    are seeds; their direct neighbours of at least ``threshold_low``, the same if it is left out,
    belong to them. Pixels above ``pixel_max`` are none. Droplets with a sum below ``min_sum``, and
    giant ones of more than ``max_npix`` pixels, are counted in ``n_all`` only. ``listed`` keeps the
    droplets themselves, at most ``capacity``.
    """

    threshold: float
    threshold_low: float | None = None
    min_sum: float = 0.0
    pixel_max: float = np.inf
    max_npix: int = 10_000
    capacity: int = 1000
    listed: bool = True
    in_noise: bool = False


class Constants(NamedTuple):
    """Thresholds, the two cuts, rows of a segment, what states need to be made."""

    levels: Levels
    min_sum: float
    max_npix: int
    rows: int
    columns: int
    capacity: int


class State(NamedTuple):
    """Pixels and droplets of the segment; counts (3,) int64: all, kept, giant; the list."""

    candidates: Candidates
    droplets: Droplets
    counts: NDArray[np.int64]
    sum: NDArray[np.float32]
    npix: NDArray[np.int32]
    row: NDArray[np.float32]
    col: NDArray[np.float32]
    segment: NDArray[np.int16]


class Found(NamedTuple):
    """Droplets in the order of segments and, within one, of their first pixels."""

    n_all: Annotated[int, Feature("1", "droplets before any cut")]
    n: Annotated[int, Feature("1", "droplets of at least min_sum and at most max_npix pixels")]
    giant: Annotated[int, Feature("1", "droplets of more than max_npix pixels")]
    overflow: Annotated[
        bool, Feature("1", "whether n is more than the list has room for", when="listed")
    ]
    sum: Annotated[
        Vector,
        Feature("@", "sum of a droplet's pixels", ("droplet",), "<f4", "listed", "n"),
    ]
    npix: Annotated[Vector, Feature("1", "pixels of a droplet", ("droplet",), "<i4", "listed", "n")]
    row: Annotated[
        Vector,
        Feature("pixel", "row of a droplet's centroid", ("droplet",), "<f4", "listed", "n"),
    ]
    col: Annotated[
        Vector,
        Feature("pixel", "column of a droplet's centroid", ("droplet",), "<f4", "listed", "n"),
    ]
    segment: Annotated[
        Vector, Feature("1", "segment of a droplet", ("droplet",), "<i2", "listed", "n")
    ]


@kernel
def _record(constants: Constants, state: State) -> None:
    """Make droplets of the pixels of a segment that is complete, cut, count and list them."""
    drops, counts, segment = state.droplets, state.counts, state.candidates.now[SEGMENT]
    found = unite(state.candidates, drops)
    counts[0] += found
    for d in range(found):
        if drops.npix[d] > constants.max_npix:
            counts[2] += 1
        elif drops.total[d] >= constants.min_sum:
            at = counts[1]
            counts[1] += 1
            if at < state.sum.size:
                state.sum[at] = drops.total[d]
                state.npix[at] = drops.npix[d]
                state.row[at] = drops.by_row[d] / drops.total[d]
                state.col[at] = drops.by_col[d] / drops.total[d]
                state.segment[at] = segment


@tile_reducer(version=1)
class droplets:  # noqa: N801
    """Droplets of pixels above thresholds, connected along rows and columns.

    Seeds are pixels of at least ``threshold``; a pixel of at least ``threshold_low`` with a seed
    directly beside, above or below it belongs too, and no pixel farther out. Pixels of these two
    kinds that touch, along a row or column, are one droplet: what smalldata_tools does with
    ``relabel=True``. Droplets do not reach across segments. NaN and masked pixels are none. Sums
    are float64 and kept as float32; centroids are weighted with the values and count pixels of the
    segment, 0 at the centre of its first.

    smalldata_tools calls ``min_sum`` ``thresADU`` and ``pixel_max`` ``pixmax``; its thresholds are
    in units of the noise unless ``useRms=False``, ours are not unless ``in_noise``. There a mask of
    the user takes the place of the others and giant droplets are no special ones; here masks add
    up, and ``n`` is without giants.
    """

    @staticmethod
    def prepare(params: Params, area: Area) -> Constants:
        """Check the thresholds and bounds; ``ValueError`` lists what makes no sense."""
        problems: list[str] = []
        p, noise = params, area if params.in_noise else None
        levels = levels_of(p.threshold, p.threshold_low, p.pixel_max, problems, noise)
        room_of(params.capacity, params.max_npix, problems)
        if not params.min_sum >= 0:
            problems.append(f"min_sum: {params.min_sum} must be 0 or more")
        if problems:
            raise ValueError("\n".join(problems))
        _, rows, columns = area.shape
        capacity = params.capacity if params.listed else 0
        return Constants(levels, params.min_sum, params.max_npix, rows, columns, capacity)

    @staticmethod
    def allocate(constants: Constants) -> State:
        """Room for the pixels and droplets of a segment, and for the list."""
        size, n = (constants.rows, constants.columns), constants.capacity
        return State(
            make_candidates(*size),
            make_droplets(*size),
            np.zeros(3, np.int64),
            np.zeros(n, np.float32),
            np.zeros(n, np.int32),
            np.zeros(n, np.float32),
            np.zeros(n, np.float32),
            np.zeros(n, np.int16),
        )

    @staticmethod
    def start(constants: Constants, state: State) -> None:
        """Forget the last shot."""
        state.counts[:] = 0
        begin(state.candidates, -1)

    @staticmethod
    def accumulate(tile: Tile, constants: Constants, state: State) -> None:
        """Search a row; the first one of a segment completes the segment before."""
        segment = tile.number // constants.rows
        if segment != state.candidates.now[SEGMENT]:
            _record(constants, state)
            begin(state.candidates, segment)
        search(tile, constants.rows, constants.levels, state.candidates)

    @staticmethod
    def finish(constants: Constants, state: State) -> Found:
        """Complete the last segment; clear the places that are not used."""
        _record(constants, state)
        n_all, n, giant = state.counts
        used = min(n, state.sum.size)
        state.sum[used:] = state.row[used:] = state.col[used:] = np.nan
        state.npix[used:] = 0
        state.segment[used:] = 0
        return Found(
            n_all,
            n,
            giant,
            n > state.sum.size,
            state.sum,
            state.npix,
            state.row,
            state.col,
            state.segment,
        )


def example() -> tuple[Params, Area]:
    """Parameters, and a detector to try them on."""
    mask = np.ones((2, 9, 23), np.bool_)
    params = Params(110.0, 90.0, min_sum=130.0, pixel_max=190.0, max_npix=6, capacity=20)
    return params, Area("example", mask.shape, mask, None, "keV")
