"""Statistics of a rectangle of one segment."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb import Area, Feature, Tile, Vector, tile_reducer
from ffb.reduce import Window
from ffb.reducers.checks import noted
from ffb.reducers.window import count_nan, window


class Params(NamedTuple):
    """Where to look: ``rows`` and ``cols`` of one segment, half-open, the whole of it if left out.

    Pixels of at least ``saturation``, in calibrated units, count as saturated; ``area`` keeps the
    pixels themselves as well.
    """

    rows: tuple[int, int] | None = None
    cols: tuple[int, int] | None = None
    segment: int = 0
    saturation: float = np.inf
    area: bool = False


class Constants(NamedTuple):
    """The rectangle, its good pixels by row, the saturation level, whether to keep the pixels."""

    window: Window
    npix: NDArray[np.int64]
    saturation: float
    area: bool


class State(NamedTuple):
    """What was seen so far.

    ``sums`` (3,) float64: sum, sum weighted by row, sum weighted by column; ``counts`` (2,) int64:
    valid and saturated pixels; ``best`` (columns,) float32: the largest of every column;
    ``image`` (rows, columns) float32, empty unless it is kept.
    """

    sums: NDArray[np.float64]
    counts: NDArray[np.int64]
    best: NDArray[np.float32]
    image: NDArray[np.float32]


class Statistics(NamedTuple):
    """What is known of the rectangle, over its pixels that are valid in this shot."""

    sum: Annotated[float, Feature("@", "sum of the valid pixels")]
    mean: Annotated[float, Feature("@", "mean of the valid pixels; NaN without any")]
    max: Annotated[float, Feature("@", "largest valid pixel; NaN without any")]
    com_row: Annotated[
        float,
        Feature(
            "pixel",
            "centre of mass along the rows, 0 at the rectangle's first; NaN where the sum is 0",
        ),
    ]
    com_col: Annotated[
        float,
        Feature(
            "pixel",
            "centre of mass along the columns, 0 at the rectangle's first; NaN where the sum is 0",
        ),
    ]
    npix: Annotated[int, Feature("1", "valid pixels in this shot")]
    nsat: Annotated[int, Feature("1", "valid pixels of at least the saturation level")]
    area: Annotated[
        Vector,
        Feature("@", "the pixels, NaN where invalid", ("row", "col"), "<f4", when="area"),
    ]


@tile_reducer(version=1)
class roi:  # noqa: N801
    """Statistics of a rectangle of one segment.

    All are over the pixels that are valid in this shot: good in the mask and calibrated. Sums are
    float64, exact for whole numbers up to 2^53; pixels themselves are float32, exact for whole
    numbers up to 2^24. The centre of mass is weighted with the values as they are, negative ones
    included, and counts pixels from the corner of the rectangle. Saturation is judged on the
    calibrated value, as in smalldata_tools; unlike there, mean and max are over valid pixels only,
    and there is no threshold: what its ``thresADU`` sums is in ``threshold`` and ``region``. Its
    ``userMask`` is ``mask`` in ``[calibration]``, which adds to the other masks.
    """

    @staticmethod
    def prepare(params: Params, area: Area) -> Constants:
        """Place the rectangle; ``ValueError`` lists what does not fit."""
        problems = []
        if np.isnan(params.saturation):
            problems.append(
                "saturation: nan must be a number; without it no pixel counts as saturated"
            )
        with noted(problems):
            w = window(area, params.segment, params.rows, params.cols)
        if problems:
            raise ValueError("\n".join(problems))
        height = area.shape[1]
        top = w.first - params.segment * height
        mask = area.mask[params.segment, top : top + w.shape[0], w.start : w.stop]
        return Constants(w, mask.sum(axis=1, dtype=np.int64), params.saturation, params.area)

    @staticmethod
    def allocate(constants: Constants) -> State:
        """Room for the sums."""
        shape = constants.window.shape
        return State(
            np.zeros(3),
            np.zeros(2, np.int64),
            np.zeros(shape[1], np.float32),
            np.zeros(shape if constants.area else (0, 0), np.float32),
        )

    @staticmethod
    def start(constants: Constants, state: State) -> None:
        """Forget the last shot."""
        state.sums[:] = 0.0
        state.counts[:] = 0
        state.best[:] = -np.inf

    @staticmethod
    def accumulate(tile: Tile, constants: Constants, state: State) -> None:
        """Add a row; loops are apart because a mixed one does not vectorise."""
        place = constants.window
        row = tile.number - place.first
        values = tile.values[place.start : place.stop]
        valid = tile.valid[place.start : place.stop]
        best, level = state.best, np.float32(constants.saturation)
        total, moment, saturated = 0.0, 0.0, np.int32(0)
        for i in range(values.size):
            v = np.float64(values[i])
            good = v if v == v else 0.0
            total += good
            moment += good * i
        for i in range(values.size):
            w = values[i] if valid[i] != 0 else np.float32(-np.inf)
            best[i] = w if w > best[i] else best[i]
        for i in range(values.size):
            above = (values[i] >= level) & (valid[i] != 0)
            saturated = np.int32(saturated + np.int32(above))
        state.sums[0] += total
        state.sums[1] += total * row
        state.sums[2] += moment
        state.counts[0] += constants.npix[row] - (count_nan(values) if tile.bad else 0)
        state.counts[1] += saturated
        if constants.area:
            out = state.image[row]
            for i in range(values.size):
                out[i] = values[i] if valid[i] != 0 else np.float32(np.nan)

    @staticmethod
    def finish(constants: Constants, state: State) -> Statistics:
        """Turn sums into features."""
        total, npix = state.sums[0], state.counts[0]
        largest = -np.inf
        for v in state.best:
            largest = max(largest, np.float64(v))
        return Statistics(
            total,
            total / npix if npix else np.nan,
            largest if npix else np.nan,
            state.sums[1] / total if total != 0.0 else np.nan,
            state.sums[2] / total if total != 0.0 else np.nan,
            npix,
            state.counts[1],
            state.image,
        )


def example() -> tuple[Params, Area]:
    """Parameters, and a detector to try them on."""
    mask = np.ones((2, 9, 23), np.bool_)
    return Params(rows=(2, 7), cols=(3, 18), segment=1, saturation=150.0, area=True), Area(
        "example", mask.shape, mask, None, "keV"
    )
