"""Statistics of a region of any outline: rectangle, polygon, ellipse, ring, mask file, all."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb import Area, Feature, Tile, tile_reducer
from ffb.reducers.checks import noted
from ffb.reducers.shapes import region_mask
from ffb.reducers.window import count_nan, somewhere

_COM = "of the centre of mass of what passes the threshold; NaN where that sum is 0"


class Params(NamedTuple):
    """Where to look: good pixels that lie in everything that is given.

    ``polygon`` is row and column of its corners, one after the other; ``ellipse`` row and column
    of its centre, half height and half width, and maybe degrees from the columns towards the rows;
    ``ring`` row and column of its centre, inner and outer radius; ``rows`` and ``cols`` are
    half-open; all in pixels of ``segment``. ``mask`` is a .npy file with the shape of the detector,
    not 0 is in. Pixels of at least ``threshold`` make the thresholded sum and count, those of at
    least ``saturation`` count as saturated; both in calibrated units.

    ``com`` adds the centre of mass of what passes the threshold, in pixels of ``segment``; with
    ``geometry`` it is of all segments together, in micrometres of the detector's geometry.
    """

    segment: int | None = None
    polygon: tuple[float, ...] | None = None
    ellipse: tuple[float, ...] | None = None
    ring: tuple[float, ...] | None = None
    mask: Path | None = None
    threshold: float = 0.0
    saturation: float = np.inf
    rows: tuple[int, int] | None = None
    cols: tuple[int, int] | None = None
    com: bool = False
    geometry: bool = False

    @property
    def in_pixels(self) -> bool:
        """With com, without geometry."""
        return self.com and not self.geometry

    @property
    def in_geometry(self) -> bool:
        """With com and geometry."""
        return self.com and self.geometry


class Constants(NamedTuple):
    """The region: ``inside`` (pixels,) uint8, and by tile, (tiles, 4), where it is.

    A tile's columns of the region lie between ``spans[t, 0]`` and ``spans[t, 1]``, half-open;
    behind are their pixels, and the tile's row in its segment. ``xy`` (2, pixels) float64 are
    micrometres, (2, 0) where pixels tell the centre of mass.
    """

    inside: NDArray[np.uint8]
    spans: NDArray[np.int64]
    threshold: float
    saturation: float
    com: bool
    xy: NDArray[np.float64]


class State(NamedTuple):
    """Sums (5,) float64: values, squares about the mean, those above, their moments; counts (3,).

    Counted are valid pixels, those above and those that are saturated.
    ``best`` (columns,) float32 is the largest of every column; ``kept`` (columns,) room for a row.
    """

    sums: NDArray[np.float64]
    counts: NDArray[np.int64]
    best: NDArray[np.float32]
    kept: NDArray[np.float32]


class Statistics(NamedTuple):
    """What is known of the region, over its pixels that are valid in this shot."""

    sum: Annotated[float, Feature("@", "sum of the valid pixels")]
    mean: Annotated[float, Feature("@", "mean of the valid pixels; NaN without any")]
    std: Annotated[float, Feature("@", "standard deviation of the valid pixels")]
    contrast: Annotated[
        float, Feature("1", "variance over squared mean; NaN unless the mean is above 0")
    ]
    max: Annotated[float, Feature("@", "largest valid pixel; NaN without any")]
    npix: Annotated[int, Feature("1", "valid pixels in this shot")]
    above_sum: Annotated[float, Feature("@", "sum of the valid pixels of at least the threshold")]
    nabove: Annotated[int, Feature("1", "valid pixels of at least the threshold")]
    nsat: Annotated[int, Feature("1", "valid pixels of at least the saturation level")]
    com_row: Annotated[float, Feature("pixel", f"row {_COM}", when="in_pixels")]
    com_col: Annotated[float, Feature("pixel", f"column {_COM}", when="in_pixels")]
    com_x: Annotated[float, Feature("um", f"x {_COM}", when="in_geometry")]
    com_y: Annotated[float, Feature("um", f"y {_COM}", when="in_geometry")]


@tile_reducer(version=1)
class region:  # noqa: N801
    """Statistics of a region of any outline: sum, spread, contrast, thresholded sum, saturation.

    Means are over valid pixels. ``contrast`` is the speckle contrast as it is measured, squared:
    var / mean^2, with the shot noise in it; in units of photons take 1 / mean off for what is left
    without it.
    """

    @staticmethod
    def prepare(params: Params, area: Area) -> Constants:
        """Rasterise the region; ``ValueError`` lists what does not fit the detector."""
        inside = _inside(params, area)
        any_here = inside.any(axis=1)
        first = np.where(any_here, inside.argmax(axis=1), 0)
        last = np.where(any_here, inside.shape[1] - inside[:, ::-1].argmax(axis=1), 0)
        row = np.tile(np.arange(area.shape[1]), area.shape[0])
        spans = np.stack([first, last, inside.sum(axis=1), row], axis=1)
        flat = np.ascontiguousarray(inside.ravel().astype(np.uint8))
        xy = np.empty((2, 0))
        if params.in_geometry:
            assert area.xyz is not None
            xy = np.ascontiguousarray(area.xyz[:2].reshape(2, -1), np.float64)
        levels = (params.threshold, params.saturation)
        return Constants(flat, spans.astype(np.int64), *levels, params.com, xy)

    @staticmethod
    def allocate(constants: Constants) -> State:
        """Room for the sums."""
        columns = constants.inside.size // len(constants.spans)
        best = np.zeros(columns, np.float32)
        return State(np.zeros(5), np.zeros(3, np.int64), best, best.copy())

    @staticmethod
    def start(constants: Constants, state: State) -> None:
        """Forget the last shot."""
        state.sums[:] = 0.0
        state.counts[:] = 0
        state.best[:] = -np.inf

    @staticmethod
    def accumulate(tile: Tile, constants: Constants, state: State) -> None:
        """Add a row; loops are apart because a mixed one does not vectorise.

        Spread is about the row's own mean and joined by Chan, Golub and LeVeque (1979): a
        difference of large squares would give a flat frame a spread.
        """
        spans = constants.spans
        start, stop, npix = spans[tile.number, 0], spans[tile.number, 1], spans[tile.number, 2]
        if start == stop:
            return
        values = tile.values[start:stop]
        inside = constants.inside[tile.first + start : tile.first + stop]
        kept, best = state.kept[start:stop], state.best[start:stop]
        nothing = np.float32(np.nan)
        for i in range(values.size):
            kept[i] = values[i] if inside[i] != 0 else nothing
        npix -= count_nan(kept) - (kept.size - npix) if tile.bad else 0
        if npix == 0:
            return
        total, squares, above = 0.0, 0.0, 0.0
        for i in range(kept.size):
            v = np.float64(kept[i])
            total += v if v == v else 0.0
        mean = total / npix
        for i in range(kept.size):
            away = np.float64(kept[i]) - mean
            squares += away * away if away == away else 0.0
        low, high = np.float32(constants.threshold), np.float32(constants.saturation)
        over, saturated = np.int32(0), np.int32(0)  # in 64 bits half as fast
        for i in range(kept.size):
            v = np.float64(kept[i])
            above += v if kept[i] >= low else 0.0
        for i in range(kept.size):
            over = np.int32(over + np.int32(kept[i] >= low))
        for i in range(kept.size):
            saturated = np.int32(saturated + np.int32(kept[i] >= high))
        for i in range(kept.size):
            best[i] = kept[i] if kept[i] > best[i] else best[i]
        if constants.com:
            along, first = 0.0, tile.first + start
            if constants.xy.shape[1] > 0:
                across = 0.0
                for i in range(kept.size):
                    heavy = np.float64(kept[i]) if kept[i] >= low else 0.0
                    across += heavy * constants.xy[0, first + i]
                    along += heavy * constants.xy[1, first + i]
                state.sums[3] += across
            else:
                for i in range(kept.size):
                    along += np.float64(kept[i]) * (start + i) if kept[i] >= low else 0.0
                state.sums[3] += above * spans[tile.number, 3]
            state.sums[4] += along
        known = state.counts[0]
        if known > 0:
            apart = mean - state.sums[0] / known
            squares += apart * apart * (known * npix / (known + npix))
        state.sums[0] += total
        state.sums[1] += squares
        state.sums[2] += above
        state.counts[0] += npix
        state.counts[1] += over
        state.counts[2] += saturated

    @staticmethod
    def finish(constants: Constants, state: State) -> Statistics:
        """Turn sums into features."""
        npix, total = state.counts[0], state.sums[0]
        largest = -np.inf
        for v in state.best:
            largest = max(largest, np.float64(v))
        mean = total / npix if npix else np.nan
        variance = state.sums[1] / npix if npix else np.nan
        above = state.sums[2]
        row = state.sums[3] / above if above != 0.0 else np.nan
        col = state.sums[4] / above if above != 0.0 else np.nan
        return Statistics(
            total,
            mean,
            np.sqrt(variance),
            variance / (mean * mean) if mean > 0.0 else np.nan,
            largest if npix else np.nan,
            npix,
            above,
            state.counts[1],
            state.counts[2],
            row,
            col,
            row,
            col,
        )


def _inside(params: Params, area: Area) -> NDArray[np.bool_]:
    """The region (tiles, columns); ``ValueError`` lists what does not fit the detector."""
    problems: list[str] = []
    inside: NDArray[np.bool_] = np.zeros((area.shape[0] * area.shape[1], area.shape[2]), np.bool_)
    with noted(problems):
        chosen = (params.segment, params.polygon, params.ellipse, params.ring, params.mask)
        inside |= region_mask(area, *chosen).reshape(inside.shape)
    if params.rows or params.cols:
        only = 0 if params.segment is None and area.shape[0] == 1 else params.segment
        try:
            w = somewhere(area, only, params.rows, params.cols)
            within: NDArray[np.bool_] = np.zeros(inside.shape, np.bool_)
            within[w.first : w.last, w.start : w.stop] = True
            inside &= within
        except ValueError as e:
            problems += [p for p in str(e).splitlines() if p not in "\n".join(problems)]
    for name in ("threshold", "saturation"):
        if np.isnan(getattr(params, name)):
            problems.append(f"{name}: nan must be a number")
    if params.in_geometry and area.xyz is None:
        problems.append(
            f"geometry: {area.detector} has none; name a file as"
            f" calibration.{area.detector}.geometry"
        )
    if params.in_pixels and params.segment is None and area.shape[0] > 1:
        problems.append(
            f"com: say which of the {area.shape[0]} segments, or set geometry to join them"
        )
    if not problems and not inside.any() and area.mask.any():
        problems.append(f"region: no good pixel of {area.detector} lies in it")
    if problems:
        raise ValueError("\n".join(problems))
    return inside


def example() -> tuple[Params, Area]:
    """Parameters, and a detector to try them on."""
    mask = np.ones((2, 9, 23), np.bool_)
    params = Params(1, ring=(4.0, 11.0, 2.0, 6.5), threshold=50.0, saturation=150.0, com=True)
    return params, Area("example", mask.shape, mask, None, "keV")
