"""Where a liquid jet is, and how it leans, from a camera that looks at it."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb import Area, Feature, Tile, tile_reducer
from ffb.reduce import Window
from ffb.reducers.window import window


class Params(NamedTuple):
    """Where to look, and what is jet.

    ``rows`` and ``cols``, half-open, choose a rectangle of ``segment``. Pixels of at least
    ``threshold``, in calibrated units, are jet, with what they are above it as their weight;
    fewer than ``least`` of them are none. The jet runs roughly across rows, upright, or, with
    ``axis = 1``, across columns. ``at`` is the row (column) where the position is told, the middle
    of the rectangle without it; it counts from the segment's first.
    """

    threshold: float
    segment: int = 0
    rows: tuple[int, int] | None = None
    cols: tuple[int, int] | None = None
    least: int = 20
    axis: int = 0
    at: float | None = None


class Constants(NamedTuple):
    """The same, checked; ``at`` counts from the rectangle's first.

    ``first`` is where the rectangle begins along the position's axis.
    """

    window: Window
    threshold: float
    least: int
    axis: int
    at: float
    first: int


class State(NamedTuple):
    """Weighted moments (6,): 1, row, col, row^2, row col, col^2; and pixels (1,)."""

    moments: NDArray[np.float64]
    npix: NDArray[np.int64]


class Jet(NamedTuple):
    """The jet of one shot; NaN where there is none."""

    position: Annotated[
        float, Feature("pixel", "column (row) of the jet's axis at the row (column) asked for")
    ]
    angle: Annotated[
        float,
        Feature("deg", "how the axis leans from upright (from level) to higher columns (rows)"),
    ]
    width: Annotated[float, Feature("pixel", "rms distance of the weight from the axis")]
    sum: Annotated[float, Feature("@", "weight of all pixels that are jet")]
    npix: Annotated[int, Feature("1", "pixels that are jet")]


@tile_reducer(version=1)
class jet:  # noqa: N801
    """Axis of the brightest streak of a rectangle: position, angle and width.

    The axis is the line through the centre of weight along which the weight spreads most (the
    first principal axis of its second moments). Its angle is 0 where it is upright (level, with
    ``axis = 1``); beyond 45 degrees position and angle hold as well, and the other axis is better.
    """

    @staticmethod
    def prepare(params: Params, area: Area) -> Constants:
        """Place the rectangle; ``ValueError`` where it is off the detector."""
        problems = []
        if not np.isfinite(params.threshold):
            problems.append(f"threshold: {params.threshold} is no level")
        if params.least < 2:
            problems.append(f"least: {params.least} pixels make no line; at least 2")
        w = Window(0, 1, 0, 1)
        try:
            w = window(area, params.segment, params.rows, params.cols)
        except ValueError as e:
            problems.append(str(e))
        if params.axis not in (0, 1):
            problems.append(f"axis: there is no {params.axis}; 0 is upright, 1 is level")
        begin = (w.first - params.segment * area.shape[1], w.start)
        along = 0 if params.axis == 0 else 1
        middle = begin[along] + (w.shape[along] - 1) / 2
        at = middle if params.at is None else params.at
        if not np.isfinite(at):
            problems.append(f"at: {at} is no place along the jet")
        if problems:
            raise ValueError("\n".join(problems))
        return Constants(
            w, params.threshold, params.least, along, at - begin[along], begin[1 - along]
        )

    @staticmethod
    def allocate(constants: Constants) -> State:
        """Room for the moments."""
        return State(np.zeros(6), np.zeros(1, np.int64))

    @staticmethod
    def start(constants: Constants, state: State) -> None:
        """Forget the last shot."""
        state.moments[:] = 0.0
        state.npix[:] = 0

    @staticmethod
    def accumulate(tile: Tile, constants: Constants, state: State) -> None:
        """Add a row to the moments."""
        w = constants.window
        row = tile.number - w.first
        values, valid = tile.values[w.start : w.stop], tile.valid[w.start : w.stop]
        level, n, s0, s1, s2 = np.float32(constants.threshold), 0, 0.0, 0.0, 0.0
        for i in range(values.size):
            inside = (values[i] >= level) & (valid[i] != 0)
            weight = np.float64(values[i]) - constants.threshold if inside else 0.0
            n += inside
            s0 += weight
            s1 += weight * i
            s2 += weight * i * i
        m = state.moments
        m[0] += s0
        m[1] += s0 * row
        m[2] += s1
        m[3] += s0 * row * row
        m[4] += s1 * row
        m[5] += s2
        state.npix[0] += n

    @staticmethod
    def finish(constants: Constants, state: State) -> Jet:
        """Find the axis of the moments."""
        m, n, nan = state.moments, state.npix[0], np.nan
        if n < constants.least or not m[0] > 0.0:
            return Jet(nan, nan, nan, m[0], n)
        row, col = m[1] / m[0], m[2] / m[0]
        along = m[3] / m[0] - row * row
        mixed = m[4] / m[0] - row * col
        across = m[5] / m[0] - col * col
        if constants.axis == 1:
            row, col, along, across = col, row, across, along
        angle = 0.5 * np.arctan2(2.0 * mixed, along - across)
        least = 0.5 * (along + across - np.hypot(along - across, 2.0 * mixed))
        slope = np.tan(angle)
        return Jet(
            constants.first + col + slope * (constants.at - row),
            np.degrees(angle),
            np.sqrt(max(least, 0.0)),
            m[0],
            n,
        )


def example() -> tuple[Params, Area]:
    """Parameters, and a detector to try them on."""
    mask = np.ones((2, 9, 23), np.bool_)
    params = Params(60.0, segment=1, rows=(1, 9), cols=(2, 20), least=3)
    return params, Area("example", mask.shape, mask, None, "ADU")
