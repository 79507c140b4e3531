"""Where a liquid jet is, and how it leans, from a camera that looks at it."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb import Area, Feature, Tile, tile_reducer
from ffb.reduce import Window
from ffb.reducers.checks import noted
from ffb.reducers.window import window

#: Why there is no axis, as ``reason`` has it; 0 where there is one.
FEW, ROUND, FLAT, LEANING = range(1, 5)

#: The least ratio of the spread along an axis to that about it, and the largest of the spread about
#: it to that of a frame which is equally bright all over. Both are 1 where nothing tells an axis.
LONG, NARROW = 1.5, 0.6


class Params(NamedTuple):
    """Where to look, and what is jet.

    ``rows`` and ``cols``, half-open, choose a rectangle of ``segment``. Pixels of at least
    ``threshold``, in calibrated units, are jet, with what they are above it as their weight;
    fewer than ``min_npix`` of them are none. The jet runs roughly across rows, upright, or, with
    ``axis = 1``, across columns; one that leans more than ``lean`` [deg] from there is none.
    ``at`` is the row (column) where the position is told, the middle of the rectangle without it;
    it counts from the segment's first.
    """

    threshold: float
    segment: int = 0
    rows: tuple[int, int] | None = None
    cols: tuple[int, int] | None = None
    min_npix: int = 20
    axis: int = 0
    at: float | None = None
    lean: float = 60.0


class Constants(NamedTuple):
    """The same, checked; ``at`` counts from the rectangle's first.

    ``first`` is where the rectangle begins along the position's axis.
    """

    window: Window
    threshold: float
    min_npix: int
    axis: int
    at: float
    first: int
    lean: float


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
    reason: Annotated[
        int,
        Feature(
            "1",
            "why there is no axis: 0 there is, 1 too few pixels, 2 as wide as long,"
            " 3 light all over the rectangle, 4 leans too far",
        ),
    ]


@tile_reducer(version=2)
class jet:  # noqa: N801
    """Axis of the brightest streak of a rectangle: position, angle and width.

    The axis is the line through the centre of weight along which the weight spreads most (the
    first principal axis of its second moments). Its angle is 0 where it is upright (level, with
    ``axis = 1``) and at most ``lean``: it never jumps between +90 and -90, which are one line.
    Any frame has such an axis, a flat one and noise, too. It is a jet's if the weight spreads, in
    rms, at least 1.5 times as far along it as about it, and about it at most 0.6 times as far as
    that of a rectangle full of light, which a jet of 0.6 times its breadth does; without one,
    position, angle and width are NaN, and ``reason`` says why. (Of noise, 1 frame in 2000 passes if
    50 pixels are above the threshold, 1 in 20 if 20 are.)
    """

    @staticmethod
    def prepare(params: Params, area: Area) -> Constants:
        """Place the rectangle; ``ValueError`` where it is off the detector."""
        problems = []
        if not np.isfinite(params.threshold):
            problems.append(f"threshold: {params.threshold} must be a number")
        if params.min_npix < 2:
            problems.append(f"min_npix: {params.min_npix} pixels make no line; at least 2")
        w = Window(0, 1, 0, 1)
        with noted(problems):
            w = window(area, params.segment, params.rows, params.cols)
        if not 0 < params.lean < 90:
            problems.append(f"lean: {params.lean} degrees; above 0 and below 90")
        if params.axis not in (0, 1):
            problems.append(f"axis: there is no {params.axis}; 0 is upright, 1 is level")
        begin = (w.first - params.segment * area.shape[1], w.start)
        along = 0 if params.axis == 0 else 1
        middle = begin[along] + (w.shape[along] - 1) / 2
        at = middle if params.at is None else params.at
        if not np.isfinite(at):
            problems.append(f"at: {at} is not a place along the jet")
        if problems:
            raise ValueError("\n".join(problems))
        return Constants(
            w,
            params.threshold,
            params.min_npix,
            along,
            at - begin[along],
            begin[1 - along],
            np.radians(params.lean),
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
        c, m, n, nan = constants, state.moments, state.npix[0], np.nan
        if n < c.min_npix or not m[0] > 0.0:
            return Jet(nan, nan, nan, m[0], n, FEW)
        row, col = m[1] / m[0], m[2] / m[0]
        along = m[3] / m[0] - row * row
        mixed = m[4] / m[0] - row * col
        across = m[5] / m[0] - col * col
        w = c.window
        length, breadth = w.last - w.first, w.stop - w.start
        if c.axis == 1:
            row, col, along, across = col, row, across, along
            length, breadth = breadth, length
        angle = 0.5 * np.arctan2(2.0 * mixed, along - across)
        spread = np.hypot(along - across, 2.0 * mixed)
        about = max(0.5 * (along + across - spread), 0.0)
        most = about + spread
        # What it is of a rectangle full of light, about this axis through its middle.
        full = (breadth**2 - 1) * np.cos(angle) ** 2 + (length**2 - 1) * np.sin(angle) ** 2
        reason = 0
        if most < LONG**2 * about:
            reason = ROUND
        elif about > NARROW**2 * full / 12.0:
            reason = FLAT
        elif abs(angle) > c.lean:
            reason = LEANING
        if reason:
            return Jet(nan, nan, nan, m[0], n, reason)
        position = c.first + col + np.tan(angle) * (c.at - row)
        return Jet(position, np.degrees(angle), np.sqrt(about), m[0], n, 0)


def example() -> tuple[Params, Area]:
    """Parameters, and a detector to try them on, masked so that anything there is a jet."""
    rows, cols = np.indices((9, 23))
    mask = np.stack([np.ones((9, 23), np.bool_), abs(cols - 9 - 0.5 * rows) < 2])
    params = Params(60.0, segment=1, rows=(1, 9), cols=(2, 20), min_npix=3)
    return params, Area("example", mask.shape, mask, None, "ADU")
