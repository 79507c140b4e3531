"""A circle through the bright pixels of one shot: centre and radius of a ring."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb import Area, Feature, Tile, tile_reducer
from ffb.reducers.circle import circle_through
from ffb.reducers.window import window

#: Pixels that are looked through together for a bright one.
BLOCK = 64


class Params(NamedTuple):
    """Which pixels make the ring: those of at least ``threshold``, in calibrated units.

    Their weight is what they are above it, or 1 with ``uniform``; fewer than ``min_npix`` make
    none. The circle is one of ``segment``, told in its pixels. With ``geometry`` it goes through
    pixels of all segments, or of ``segment`` alone, and is told in micrometres, x and y of the
    detector's geometry. ``rows`` and ``cols``, half-open, choose a rectangle of ``segment``;
    ``ring`` is centre, inner and outer radius of where to look, in the units of the circle: row and
    column, or x and y.
    """

    threshold: float
    segment: int | None = None
    geometry: bool = False
    rows: tuple[int, int] | None = None
    cols: tuple[int, int] | None = None
    ring: tuple[float, ...] | None = None
    uniform: bool = False
    min_npix: int = 20

    @property
    def without_geometry(self) -> bool:
        """Without geometry."""
        return not self.geometry


class Constants(NamedTuple):
    """Where to look, and what is bright.

    ``inside`` (pixels,) uint8; by tile, (tiles, 3), the first and, half-open, the last column that
    has any of it, and the tile's row in its segment; ``xy`` (2, pixels) float64 micrometres, (2, 0)
    where the circle is told in pixels.
    """

    inside: NDArray[np.uint8]
    spans: NDArray[np.int64]
    xy: NDArray[np.float64]
    threshold: float
    uniform: bool
    min_npix: int


class State(NamedTuple):
    """Moments of the bright pixels about the first of them, ``origin`` (2,).

    ``moments`` (9,) are the weighted sums of 1, x, y, x^2, x y, y^2, x z, y z, z^2 with
    z = x^2 + y^2; ``npix`` (1,) counts the pixels.
    """

    moments: NDArray[np.float64]
    origin: NDArray[np.float64]
    npix: NDArray[np.int64]


class Ring(NamedTuple):
    """The circle of one shot; NaN where there is none."""

    row: Annotated[
        float, Feature("pixel", "row of the centre, of the segment", when="without_geometry")
    ]
    col: Annotated[float, Feature("pixel", "column of the centre", when="without_geometry")]
    radius: Annotated[float, Feature("pixel", "radius", when="without_geometry")]
    rms: Annotated[
        float,
        Feature(
            "pixel", "weighted rms distance of the pixels from the circle", when="without_geometry"
        ),
    ]
    x: Annotated[float, Feature("um", "x of the centre in the geometry", when="geometry")]
    y: Annotated[float, Feature("um", "y of the centre in the geometry", when="geometry")]
    radius_um: Annotated[float, Feature("um", "radius", when="geometry")]
    rms_um: Annotated[
        float, Feature("um", "weighted rms distance of the pixels from the circle", when="geometry")
    ]
    npix: Annotated[int, Feature("1", "bright pixels, of at least the threshold")]


@tile_reducer(version=1)
class ring_fit:  # noqa: N801
    """Circle through the bright pixels of one shot: centre, radius, rms distance from it.

    The least-squares circle "Hyper" of Al-Sharadqah and Chernov, Electron. J. Stat. 3, 886 (2009):
    of all that follow from moments, which one pass collects, it alone has no essential bias; those
    of Kasa, Pratt and Taubin have, and Kasa's shrinks on short arcs. The rms distance is that of
    the squared distances, to first order in the width over the radius. A ring a few pixels wide is
    best weighted; a saturated one, or one with hot pixels, fitted ``uniform``.
    """

    @staticmethod
    def prepare(params: Params, area: Area) -> Constants:
        """Find the pixels to look at; ``ValueError`` lists what does not fit the detector."""
        if found := list(_problems(params, area)):
            raise ValueError("\n".join(found))
        segments, height, width = area.shape
        w = window(area, params.segment or 0, params.rows, params.cols)
        top = w.first - (params.segment or 0) * height
        inside = np.zeros(area.shape, np.bool_)
        chosen = slice(None) if params.segment is None else params.segment
        rectangle = (chosen, slice(top, top + w.shape[0]), slice(w.start, w.stop))
        inside[rectangle] = area.mask[rectangle]
        first, second = np.indices(area.shape, np.float64)[1:]
        if params.geometry:
            assert area.xyz is not None
            first, second = area.xyz[:2]
        if params.ring is not None:
            a, b, inner, outer = params.ring
            distance = np.hypot(first - a, second - b)
            inside &= (distance >= inner) & (distance < outer)
        if not inside.any() and area.mask.any():
            raise ValueError(f"ring: no good pixel of {area.detector} lies where to look")
        xy = np.reshape([first, second], (2, -1)) if params.geometry else np.empty((2, 0))
        lines = inside.reshape(-1, width)
        begin = np.where(lines.any(axis=1), lines.argmax(axis=1), 0)
        end = np.where(lines.any(axis=1), width - lines[:, ::-1].argmax(axis=1), 0)
        spans = np.stack([begin, end, np.tile(np.arange(height), segments)], axis=1)
        flat = lines.ravel().astype(np.uint8)
        chosen_by = (params.threshold, params.uniform, params.min_npix)
        return Constants(flat, spans.astype(np.int64), xy.astype(np.float64), *chosen_by)

    @staticmethod
    def allocate(constants: Constants) -> State:
        """Room for the moments."""
        return State(np.zeros(9), np.zeros(2), np.zeros(1, np.int64))

    @staticmethod
    def start(constants: Constants, state: State) -> None:
        """Forget the last shot."""
        state.moments[:] = 0.0
        state.npix[:] = 0

    @staticmethod
    def accumulate(tile: Tile, constants: Constants, state: State) -> None:
        """Add the bright pixels of a row to the moments; blocks without any cost a comparison.

        Moments about the first bright pixel keep their digits however small the ring is, or far
        from the origin of the geometry.
        """
        spans = constants.spans
        start, stop, row = spans[tile.number, 0], spans[tile.number, 1], spans[tile.number, 2]
        m, origin, xy = state.moments, state.origin, constants.xy
        level = np.float32(constants.threshold)
        for begin in range(start, stop, BLOCK):
            end = min(begin + BLOCK, stop)
            values = tile.values[begin:end]
            inside = constants.inside[tile.first + begin : tile.first + end]
            bright = 0
            for i in range(values.size):
                bright += (values[i] >= level) & (inside[i] != 0)
            if bright == 0:
                continue
            for i in range(values.size):
                above = np.float64(values[i]) - constants.threshold
                if not above >= 0.0 or inside[i] == 0:  # the level may be rounded down
                    continue
                x, y = np.float64(row), np.float64(begin + i)
                if xy.shape[1] > 0:
                    x, y = xy[0, tile.first + begin + i], xy[1, tile.first + begin + i]
                if state.npix[0] == 0:
                    origin[0], origin[1] = x, y
                w = 1.0 if constants.uniform else above
                x -= origin[0]
                y -= origin[1]
                z = x * x + y * y
                m[0] += w
                m[1] += w * x
                m[2] += w * y
                m[3] += w * x * x
                m[4] += w * x * y
                m[5] += w * y * y
                m[6] += w * x * z
                m[7] += w * y * z
                m[8] += w * z * z
                state.npix[0] += 1

    @staticmethod
    def finish(constants: Constants, state: State) -> Ring:
        """Find the circle of the moments."""
        nan, n = np.nan, state.npix[0]
        x, y, radius, rms = circle_through(state.moments)
        if n < constants.min_npix:
            x, y, radius, rms = nan, nan, nan, nan
        x += state.origin[0]
        y += state.origin[1]
        return Ring(x, y, radius, rms, x, y, radius, rms, n)


def _problems(params: Params, area: Area) -> Iterator[str]:
    """What is wrong with the parameters, one line each."""
    if not np.isfinite(params.threshold):
        yield f"threshold: {params.threshold} must be a number"
    if params.min_npix < 3:
        yield f"min_npix: {params.min_npix} pixels make no circle; at least 3"
    if params.geometry and area.xyz is None:
        yield (
            f"geometry: {area.detector} has none; name a file as"
            f" calibration.{area.detector}.geometry"
        )
    several, rectangle = area.shape[0] > 1, params.rows or params.cols
    if params.segment is None and several and (rectangle or not params.geometry):
        which = f"say which of the {area.shape[0]}"
        yield f"segment: {which}" + ("" if params.geometry else ", or set geometry to join them")
    try:
        window(area, params.segment or 0, params.rows, params.cols)
    except ValueError as e:
        yield str(e)
    if (ring := params.ring) is None:
        return
    if len(ring) != 4:
        center = "x, y" if params.geometry else "row, column"
        yield f"ring: {len(ring)} numbers; give {center}, inner, outer radius"
    elif not np.isfinite(ring).all():
        yield f"ring: {list(ring)} has numbers that are not finite"
    elif not 0 <= ring[2] < ring[3]:
        yield f"ring: radii {list(ring[2:])} enclose nothing; inner first"


def example() -> tuple[Params, Area]:
    """Parameters, and a detector to try them on."""
    mask = np.ones((2, 9, 23), np.bool_)
    params = Params(60.0, segment=1, ring=(4.0, 11.0, 1.0, 7.5), min_npix=10)
    return params, Area("example", mask.shape, mask, None, "ADU")
