"""Sum and number of the pixels within two thresholds: the cheapest look at a whole detector."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb import Area, Feature, Tile, tile_reducer
from ffb.reduce import Window
from ffb.reducers.checks import noted
from ffb.reducers.quality import levels
from ffb.reducers.window import somewhere

#: Pixels whose sum is float32 before it is added in float64: 256 whole numbers of 16 bits stay
#: exact, and each addition of others rounds by at most 2^-24.
BLOCK = 256


class Params(NamedTuple):
    """Pixels within ``thresholds``, [least, largest] in calibrated units, are taken.

    [5, inf] are all of at least 5. Without ``segment`` those of the whole detector; with it, of
    that segment, or of the rectangle of it that ``rows`` and ``cols``, half-open, choose.
    """

    thresholds: tuple[float, float]
    segment: int | None = None
    rows: tuple[int, int] | None = None
    cols: tuple[int, int] | None = None


class Constants(NamedTuple):
    """Where to look, the levels, and how many ``masked`` pixels, which hold 0, lie between them."""

    window: Window
    low: np.float32
    high: np.float32
    masked: int


class State(NamedTuple):
    """Sum (1,) float64 and number (1,) int64 of the pixels so far."""

    total: NDArray[np.float64]
    number: NDArray[np.int64]


class Taken(NamedTuple):
    """What lies within the thresholds, of the pixels that are valid in this shot."""

    sum: Annotated[float, Feature("@", "sum of the valid pixels within the thresholds")]
    npix: Annotated[int, Feature("1", "valid pixels within the thresholds")]


@tile_reducer(version=2)
class threshold:  # noqa: N801
    """Sum and number of the valid pixels within two thresholds, both of which are in.

    They are compared in float32, as pixels are. The sum is exact for whole numbers of 16 bits;
    of others rounding moves it by at most 2^-16 of the magnitudes it adds, in practice by 1e-7.
    For other statistics of what lies above a threshold see ``region``, which takes longer.
    """

    @staticmethod
    def prepare(params: Params, area: Area) -> Constants:
        """Place the rectangle; ``ValueError`` lists what does not fit the detector."""
        problems: list[str] = []
        least, largest = levels(params.thresholds, problems)
        with noted(problems):
            w = somewhere(area, params.segment, params.rows, params.cols)
        if problems:
            raise ValueError("\n".join(problems))
        low, high = np.float32(least), np.float32(largest)
        mask = area.mask.reshape(-1, area.shape[2])[w.first : w.last, w.start : w.stop]
        return Constants(w, low, high, int((~mask).sum()) if low <= 0 <= high else 0)

    @staticmethod
    def allocate(_: Constants) -> State:
        """Room for both."""
        return State(np.zeros(1), np.zeros(1, np.int64))

    @staticmethod
    def start(_: Constants, state: State) -> None:
        """Forget the last shot."""
        state.total[0], state.number[0] = 0.0, 0

    @staticmethod
    def accumulate(tile: Tile, constants: Constants, state: State) -> None:
        """Add a row, in blocks whose sums are float32: half the time of float64 for each pixel."""
        w, low, high = constants.window, constants.low, constants.high
        values, nothing = tile.values[w.start : w.stop], np.float32(0)
        total, number = 0.0, np.int32(0)
        for at in range(0, values.size, BLOCK):
            block = values[at : at + BLOCK]
            part, several = nothing, np.int32(0)
            for i in range(block.size):
                taken = (block[i] >= low) & (block[i] <= high)
                part += block[i] if taken else nothing
                several = np.int32(several + np.int32(taken))  # numba would count in 64 bits
            total += np.float64(part)
            number = np.int32(number + several)
        state.total[0] += total
        state.number[0] += number

    @staticmethod
    def finish(constants: Constants, state: State) -> Taken:
        """Take the masked pixels off."""
        return Taken(state.total[0], state.number[0] - constants.masked)


def example() -> tuple[Params, Area]:
    """Parameters, and a detector to try them on."""
    mask = np.ones((2, 9, 23), np.bool_)
    return Params((-10.0, 90.0)), Area("example", mask.shape, mask, None, "keV")
