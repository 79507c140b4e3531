"""The pixels of a frame that hold something, one by one: what is left of it without the rest."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb import Area, Feature, Tile, Vector, tile_reducer
from ffb.reducers.lanes import BLOCK, lowest
from ffb.reducers.lit import lit
from ffb.reducers.quality import levels


class Params(NamedTuple):
    """Which pixels are kept: those within ``thresholds``, [least, largest] in calibrated units.

    In a photon map [1, inf] keeps all that hold photons. At most ``capacity`` are listed.
    """

    thresholds: tuple[float, float]
    capacity: int = 1000


class Constants(NamedTuple):
    """The two thresholds as float32 values are compared with them, rows of a segment, the room."""

    low: np.float32
    high: np.float32
    rows: int
    capacity: int


class State(NamedTuple):
    """``n`` (1,) int64 counts those beyond the room of the list, too; the list."""

    n: NDArray[np.int64]
    value: NDArray[np.float32]
    row: NDArray[np.int32]
    col: NDArray[np.int32]
    segment: NDArray[np.int16]


class Pixels(NamedTuple):
    """Pixels in raster order, segment by segment."""

    n: Annotated[int, Feature("1", "pixels within the thresholds")]
    overflow: Annotated[bool, Feature("1", "whether n is more than the list has room for")]
    value: Annotated[Vector, Feature("@", "value of a pixel", ("pixel",), "<f4", length="n")]
    row: Annotated[Vector, Feature("pixel", "row of a pixel", ("pixel",), "<i4", length="n")]
    col: Annotated[Vector, Feature("pixel", "column of a pixel", ("pixel",), "<i4", length="n")]
    segment: Annotated[Vector, Feature("1", "segment of a pixel", ("pixel",), "<i2", length="n")]


@tile_reducer(version=1)
class sparse:  # noqa: N801
    """Pixels within two thresholds with their places: the non-zero entries of a thresholded frame.

    What smalldata_tools' sparsifyFunc keeps of an image, its ``tile`` is our ``segment``: but no
    pixel goes missing unsaid, ``n`` is right where the list has no room for all, and a value is
    never rounded. Masked pixels and NaN are never listed. In the finished file the entries lie end
    to end, ``var_sparse/value`` and so on.
    """

    @staticmethod
    def prepare(params: Params, area: Area) -> Constants:
        """Check the levels; ``ValueError`` lists what makes no sense."""
        problems: list[str] = []
        least, largest = levels(params.thresholds, problems)
        if not problems and not 0 < least < np.inf:
            problems.append(
                f"thresholds: {least:g} must be above 0, which is what masked pixels are"
            )
        if not 1 <= params.capacity <= 1 << 24:
            problems.append(f"capacity: {params.capacity} must be from 1 to {1 << 24} places")
        if problems:
            raise ValueError("\n".join(problems))
        with np.errstate(over="ignore"):
            low, high = np.float32(least), np.float32(largest)
        low = np.nextafter(low, np.float32(np.inf)) if float(low) < least else low
        high = np.nextafter(high, np.float32(0)) if float(high) > largest else high
        return Constants(low, high, area.shape[1], params.capacity)

    @staticmethod
    def allocate(constants: Constants) -> State:
        """Room for the list."""
        n = constants.capacity
        return State(
            np.zeros(1, np.int64),
            np.zeros(n, np.float32),
            np.zeros(n, np.int32),
            np.zeros(n, np.int32),
            np.zeros(n, np.int16),
        )

    @staticmethod
    def start(constants: Constants, state: State) -> None:
        """Forget the last shot."""
        state.n[0] = 0

    @staticmethod
    def accumulate(tile: Tile, constants: Constants, state: State) -> None:
        """List the pixels of a row; a block without any costs a comparison a pixel."""
        low, high, values = constants.low, constants.high, tile.values
        for at in range(0, values.size, BLOCK):
            bits = lit(values, at, low)
            while bits:
                i = at + lowest(bits)
                bits &= bits - 1
                if values[i] <= high:
                    n = state.n[0]
                    state.n[0] += 1
                    if n < state.value.size:
                        state.value[n] = values[i]
                        state.row[n] = tile.number % constants.rows
                        state.col[n] = i
                        state.segment[n] = tile.number // constants.rows

    @staticmethod
    def finish(constants: Constants, state: State) -> Pixels:
        """Clear the places that are not used."""
        n, room = state.n[0], state.value.size
        used = min(n, room)
        state.value[used:] = np.nan
        state.row[used:] = 0
        state.col[used:] = 0
        state.segment[used:] = 0
        return Pixels(n, n > room, state.value, state.row, state.col, state.segment)


def example() -> tuple[Params, Area]:
    """Parameters, and a detector to try them on."""
    mask = np.ones((2, 9, 23), np.bool_)
    return Params((90.0, 160.0), 60), Area("example", mask.shape, mask, None, "keV")
