"""Projection of a rectangle of one segment onto its rows or columns."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb import Area, Feature, Tile, Vector, tile_reducer
from ffb.loops.compile import kernel
from ffb.reduce import Window
from ffb.reducers.checks import noted
from ffb.reducers.connected import noise_of
from ffb.reducers.quality import levels
from ffb.reducers.window import count_nan, window


class Params(NamedTuple):
    """What to sum over what.

    ``axis`` is the one that is summed over: 0 leaves a value per column, 1 a value per row.
    ``rows`` and ``cols``, half-open, choose a rectangle of ``segment``, all of it if left out.

    Pixels outside ``thresholds``, in calibrated units or, with ``in_noise``, in units of each
    pixel's noise as in ``droplets``, are not summed; both limits are inside.
    """

    axis: int
    segment: int = 0
    rows: tuple[int, int] | None = None
    cols: tuple[int, int] | None = None
    thresholds: tuple[float, float] | None = None
    in_noise: bool = False


class Constants(NamedTuple):
    """The rectangle, the axis, the good pixels behind every value, and which pixels are summed.

    Those from ``low`` to ``high``, or that many times their ``noise`` (rows, columns), which is NaN
    where it is not known, and without rows where the two are values; all if ``cut`` is not set.
    """

    window: Window
    axis: int
    npix: NDArray[np.int32]
    cut: bool
    low: float
    high: float
    noise: NDArray[np.float32]


class State(NamedTuple):
    """Sums float64, counts of valid pixels and of those summed int32, one for each value.

    ``kept`` float32 and ``within`` int32 are a row's pixels that are summed, and 1 for them; empty
    without thresholds, as the counts of those summed are.
    """

    sums: NDArray[np.float64]
    npix: NDArray[np.int32]
    number: NDArray[np.int32]
    kept: NDArray[np.float32]
    within: NDArray[np.int32]


class Profile(NamedTuple):
    """The projection and what it rests on."""

    sum: Annotated[
        Vector, Feature("@", "sum of the valid pixels within the thresholds", ("pixel",), "<f8")
    ]
    npix: Annotated[Vector, Feature("1", "valid pixels in this shot", ("pixel",), "<i4")]
    number: Annotated[
        Vector,
        Feature("1", "valid pixels within the thresholds", ("pixel",), "<i4", when="thresholds"),
    ]


@kernel
def _select(values: Any, valid: Any, row: int, constants: Constants, state: State) -> None:
    """Keep a row's pixels within the thresholds, and count them."""
    low, high, kept, within = constants.low, constants.high, state.kept, state.within
    if constants.noise.size:
        noise = constants.noise[row]
        for i in range(values.size):
            v, unit = np.float64(values[i]), np.float64(noise[i])
            within[i] = (v >= low * unit) & (v <= high * unit) & (valid[i] != 0)
    else:
        for i in range(values.size):
            v = np.float64(values[i])
            within[i] = (v >= low) & (v <= high) & (valid[i] != 0)
    for i in range(values.size):
        kept[i] = values[i] if within[i] != 0 else np.float32(0.0)
    if constants.axis == 1:
        number = np.int32(0)
        for i in range(within.size):
            number = np.int32(number + within[i])
        state.number[row] = number
    else:
        for i in range(within.size):
            state.number[i] += within[i]


@tile_reducer(version=1)
class projection:  # noqa: N801
    """Projection of a rectangle of one segment onto its rows or columns.

    The ``sum`` is that of smalldata_tools, with its ``thresADU`` as ``thresholds``. Its ``mean``
    is ``sum`` / ``npix``, over all valid pixels also where thresholds leave some out of the sum;
    its ``singlePhoton``, with a threshold above 0, is ``number``. Its ``thresRms``, which never had
    an effect, is ``in_noise``. A cut along row k, a line-out there, is ``axis = 0`` over ``rows``
    from k to k + 1.
    """

    @staticmethod
    def prepare(params: Params, area: Area) -> Constants:
        """Place the rectangle; ``ValueError`` where it is off the detector."""
        problems: list[str] = []
        if params.axis not in (0, 1):
            problems.append(f"axis: there is no {params.axis}; 0 sums over rows, 1 over columns")
        with noted(problems):
            w = window(area, params.segment, params.rows, params.cols)
        low, high = levels(params.thresholds, problems)
        noise = np.zeros((0, 0), np.float32)
        if params.in_noise and params.thresholds is None:
            problems.append("in_noise: is the unit of thresholds; give those too")
        elif params.in_noise:
            noise = noise_of(area, problems).reshape(-1, area.shape[2])
        if problems:
            raise ValueError("\n".join(problems))
        noise = noise[w.first : w.last, w.start : w.stop]
        noise = np.ascontiguousarray(np.where(np.isfinite(noise), noise, np.float32(np.nan)))
        top = w.first - params.segment * area.shape[1]
        mask = area.mask[params.segment, top : top + w.shape[0], w.start : w.stop]
        npix = mask.sum(axis=params.axis, dtype=np.int32)
        cut = params.thresholds is not None
        return Constants(w, params.axis, npix, cut, low, high, noise)

    @staticmethod
    def allocate(constants: Constants) -> State:
        """Room for the sums."""
        size, row = constants.npix.size, constants.window.shape[1]
        n, m = (size, row) if constants.cut else (0, 0)
        return State(
            np.zeros(size),
            np.zeros(size, np.int32),
            np.zeros(n, np.int32),
            np.zeros(m, np.float32),
            np.zeros(m, np.int32),
        )

    @staticmethod
    def start(constants: Constants, state: State) -> None:
        """Forget the last shot."""
        for i in range(state.sums.size):
            state.sums[i] = 0.0
            state.npix[i] = constants.npix[i]
        state.number[:] = 0

    @staticmethod
    def accumulate(tile: Tile, constants: Constants, state: State) -> None:
        """Add a row to every column's sum, or its sum to the row's."""
        w = constants.window
        row = tile.number - w.first
        found, sums, npix = tile.values[w.start : w.stop], state.sums, state.npix
        values = found
        if constants.cut:
            _select(found, tile.valid[w.start : w.stop], row, constants, state)
            values = state.kept
        if constants.axis == 1:
            total = 0.0
            for i in range(values.size):
                v = np.float64(values[i])
                total += v if v == v else 0.0
            sums[row] = total
            npix[row] -= count_nan(found) if tile.bad else 0
            return
        for i in range(values.size):
            v = np.float64(values[i])
            sums[i] += v if v == v else 0.0
        if tile.bad:
            for i in range(values.size):
                npix[i] -= found[i] != found[i]

    @staticmethod
    def finish(constants: Constants, state: State) -> Profile:
        """Hand over the sums."""
        return Profile(state.sums, state.npix, state.number)


def example() -> tuple[Params, Area]:
    """Parameters, and a detector to try them on."""
    mask = np.ones((2, 9, 23), np.bool_)
    return Params(axis=0, segment=1, rows=(2, 9)), Area("example", mask.shape, mask, None, "keV")
