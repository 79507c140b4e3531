"""Histogram of pixel values: the spectrum of one shot."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb import Area, Feature, Tile, Vector, tile_reducer
from ffb.reducers.window import Window, window


class Params(NamedTuple):
    """Edges ``lo`` to ``hi`` in ``nbins`` equal bins, in calibrated units.

    ``segment`` -1 takes the whole detector; otherwise ``rows`` and ``cols``, half-open, choose a
    rectangle of a segment.
    """

    lo: float
    hi: float
    nbins: int
    segment: int = -1
    rows: tuple[int, int] | None = None
    cols: tuple[int, int] | None = None


class Constants(NamedTuple):
    """Where to look, the edges (nbins + 1,) float64, bins per unit."""

    window: Window
    edges: NDArray[np.float64]
    scale: float


class State(NamedTuple):
    """Counts (2, nbins + 2) int64: below, the bins, above; two, for neighbouring pixels.

    Two, because pixels side by side often fall into one bin, and a count would have to wait for
    the one before it.
    """

    counts: NDArray[np.int64]


class Spectrum(NamedTuple):
    """Counts of the valid pixels."""

    counts: Annotated[Vector, Feature("1", "pixels in each bin", ("bin",), "<i8")]
    underflow: Annotated[int, Feature("1", "pixels below the first edge")]
    overflow: Annotated[int, Feature("1", "pixels above the last edge")]


def _place(params: Params, area: Area) -> Window:
    if params.segment >= 0:
        return window(area, params.segment, params.rows, params.cols)
    segments, height, width = area.shape
    if params.rows or params.cols:
        raise ValueError("segment: rows and cols belong to one segment; say which")
    return Window(0, segments * height, 0, width)


@tile_reducer(version=1)
class histogram:  # noqa: N801
    """Histogram of the valid pixels of a detector or of a rectangle of it.

    Bins are those of ``np.histogram(values, nbins, (lo, hi))`` for float64 values: closed on the
    left, the last one on both sides.
    """

    @staticmethod
    def prepare(params: Params, area: Area) -> Constants:
        """Lay out the bins; ``ValueError`` for a bad range, or a place off the detector."""
        problems = []
        if params.nbins < 1:
            problems.append(f"nbins: {params.nbins} is too few; at least 1")
        if not (np.isfinite(params.lo) and np.isfinite(params.hi) and params.lo < params.hi):
            problems.append(f"hi: {params.hi} must be a number above lo, {params.lo}")
        try:
            place = _place(params, area)
        except ValueError as e:
            problems.append(str(e))
        if problems:
            raise ValueError("\n".join(problems))
        edges = np.linspace(params.lo, params.hi, params.nbins + 1)
        return Constants(place, edges, params.nbins / (params.hi - params.lo))

    @staticmethod
    def allocate(constants: Constants) -> State:
        """Room for the counts."""
        return State(np.zeros((2, constants.edges.size + 1), np.int64))

    @staticmethod
    def start(constants: Constants, state: State) -> None:
        """Forget the last shot."""
        state.counts[:] = 0

    @staticmethod
    def accumulate(tile: Tile, constants: Constants, state: State) -> None:
        """Sort a row into the bins."""
        w, edges, scale = constants.window, constants.edges, constants.scale
        if tile.number < w.first or tile.number >= w.last:
            return
        values, valid = tile.values[w.start : w.stop], tile.valid[w.start : w.stop]
        nbins = edges.size - 1
        lo, hi = edges[0], edges[nbins]
        for i in range(values.size):
            v = np.float64(values[i])
            if valid[i] == 0 or v != v:
                continue
            if v < lo:
                at = 0
            elif v > hi:
                at = nbins + 1
            else:
                at = int((v - lo) * scale)
                at = at if at < nbins else nbins - 1
                # The product is rounded; the edges decide.
                if v < edges[at]:
                    at -= 1
                elif v >= edges[at + 1] and at < nbins - 1:
                    at += 1
                at += 1
            state.counts[i & 1, at] += 1

    @staticmethod
    def finish(constants: Constants, state: State) -> Spectrum:
        """Add the two and cut off what is outside."""
        counts = state.counts[0] + state.counts[1]
        return Spectrum(counts[1:-1], counts[0], counts[-1])


def example() -> tuple[Params, Area]:
    """Parameters, and a detector to try them on."""
    mask = np.ones((2, 9, 23), np.bool_)
    return Params(lo=-10.0, hi=90.0, nbins=37), Area("example", mask.shape, mask, None, "keV")
