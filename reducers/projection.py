"""Projection of a rectangle of one segment onto its rows or columns."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb import Area, Feature, Tile, Vector, tile_reducer
from ffb.reduce import Window
from ffb.reducers.window import count_nan, window


class Params(NamedTuple):
    """What to sum over what.

    ``axis`` is the one that is summed over: 0 leaves a value per column, 1 a value per row.
    ``rows`` and ``cols``, half-open, choose a rectangle of ``segment``, all of it if left out.
    """

    axis: int
    segment: int = 0
    rows: tuple[int, int] | None = None
    cols: tuple[int, int] | None = None


class Constants(NamedTuple):
    """The rectangle, the axis, and the good pixels behind every value."""

    window: Window
    axis: int
    npix: NDArray[np.int32]


class State(NamedTuple):
    """Sums float64 and counts of valid pixels int32, one for each value."""

    sums: NDArray[np.float64]
    npix: NDArray[np.int32]


class Profile(NamedTuple):
    """The projection and what it rests on."""

    sum: Annotated[Vector, Feature("@", "sum of the valid pixels", ("pixel",), "<f8")]
    npix: Annotated[Vector, Feature("1", "valid pixels in this shot", ("pixel",), "<i4")]


@tile_reducer(version=1)
class projection:  # noqa: N801
    """Projection of a rectangle of one segment onto its rows or columns."""

    @staticmethod
    def prepare(params: Params, area: Area) -> Constants:
        """Place the rectangle; ``ValueError`` where it is off the detector."""
        problems = []
        if params.axis not in (0, 1):
            problems.append(f"axis: there is no {params.axis}; 0 sums over rows, 1 over columns")
        try:
            w = window(area, params.segment, params.rows, params.cols)
        except ValueError as e:
            problems.append(str(e))
        if problems:
            raise ValueError("\n".join(problems))
        top = w.first - params.segment * area.shape[1]
        mask = area.mask[params.segment, top : top + w.shape[0], w.start : w.stop]
        return Constants(w, params.axis, mask.sum(axis=params.axis, dtype=np.int32))

    @staticmethod
    def allocate(constants: Constants) -> State:
        """Room for the sums."""
        return State(np.zeros(constants.npix.size), np.zeros(constants.npix.size, np.int32))

    @staticmethod
    def start(constants: Constants, state: State) -> None:
        """Forget the last shot."""
        for i in range(state.sums.size):
            state.sums[i] = 0.0
            state.npix[i] = constants.npix[i]

    @staticmethod
    def accumulate(tile: Tile, constants: Constants, state: State) -> None:
        """Add a row to every column's sum, or its sum to the row's."""
        w = constants.window
        row = tile.number - w.first
        values, sums, npix = tile.values[w.start : w.stop], state.sums, state.npix
        if constants.axis == 1:
            total = 0.0
            for i in range(values.size):
                v = np.float64(values[i])
                total += v if v == v else 0.0
            sums[row] = total
            npix[row] -= count_nan(values) if tile.bad else 0
            return
        for i in range(values.size):
            v = np.float64(values[i])
            sums[i] += v if v == v else 0.0
        if tile.bad:
            for i in range(values.size):
                npix[i] -= values[i] != values[i]

    @staticmethod
    def finish(constants: Constants, state: State) -> Profile:
        """Hand over the sums."""
        return Profile(state.sums, state.npix)


def example() -> tuple[Params, Area]:
    """Parameters, and a detector to try them on."""
    mask = np.ones((2, 9, 23), np.bool_)
    return Params(axis=0, segment=1, rows=(2, 9)), Area("example", mask.shape, mask, None, "keV")
