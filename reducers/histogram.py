"""Histogram of pixel values: the spectrum of one shot."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb import Area, Axis, Feature, Tile, Vector, tile_reducer
from ffb.compile import kernel
from ffb.reducers.window import Window, count_nan, window


class Params(NamedTuple):
    """The values that are counted: ``bins`` equal bins from ``lo`` to ``hi``, in calibrated units.

    Without ``segment`` the whole detector is counted; with it, that segment, or the rectangle of
    it that ``rows`` and ``cols``, half-open, choose.
    """

    lo: float
    hi: float
    bins: int
    segment: int | None = None
    rows: tuple[int, int] | None = None
    cols: tuple[int, int] | None = None


#: Set in a slot whose pixel is so close to an edge that rounding could decide.
CLOSE = np.uint32(1 << 31)

#: Copies of the counts. Pixels side by side often fall into one bin, and in one copy a count
#: would have to wait for the one before it.
COPIES = 4


class Constants(NamedTuple):
    """Where to look, and the bins.

    ``edges`` (bins + 1,) float64; ``scale`` bins per unit; ``close`` how near to an edge, in
    bins, rounding could decide; ``masked`` bad pixels, which hold 0, in slot ``zero``.
    """

    window: Window
    edges: NDArray[np.float64]
    scale: float
    close: float
    masked: int
    zero: int


class State(NamedTuple):
    """Counts (copies, bins + 2) int64, below, the bins, above; slots (columns,) uint32."""

    counts: NDArray[np.int64]
    slots: NDArray[np.uint32]


class Spectrum(NamedTuple):
    """Counts of the valid pixels."""

    counts: Annotated[Vector, Feature("1", "pixels in each bin, by its centre", ("bin",), "<i8")]
    underflow: Annotated[int, Feature("1", "pixels below the first edge")]
    overflow: Annotated[int, Feature("1", "pixels above the last edge")]


@kernel
def settle(slot: int, value: float, edges: NDArray[np.float64]) -> Any:
    """Move a slot that rounding may have put one off to where the edges want it."""
    last = edges.size - 1
    if slot > 0 and value < edges[slot - 1]:
        slot -= 1
    elif slot <= last and value >= edges[slot]:
        slot += 1
    return last if slot > last and value == edges[last] else slot


def _place(params: Params, area: Area) -> Window:
    if params.segment is not None:
        return window(area, params.segment, params.rows, params.cols)
    segments, height, width = area.shape
    if params.rows or params.cols:
        raise ValueError("segment: rows and cols are of one segment; say which")
    return Window(0, segments * height, 0, width)


@tile_reducer(version=1)
class histogram:  # noqa: N801
    """Histogram of the valid pixels of a detector or of a rectangle of it.

    Bins are those of ``np.histogram(values, bins, (lo, hi))`` for float64 values: closed on the
    left, the last one on both sides.
    """

    @staticmethod
    def prepare(params: Params, area: Area) -> Constants:
        """Lay out the bins; ``ValueError`` for a bad range, or a place off the detector."""
        problems = []
        if params.bins < 1:
            problems.append(f"bins: {params.bins} is too few; at least 1")
        if not (np.isfinite(params.lo) and np.isfinite(params.hi) and params.lo < params.hi):
            problems.append(f"hi: {params.hi} must be a number above lo, {params.lo}")
        try:
            place = _place(params, area)
        except ValueError as e:
            problems.append(str(e))
        if problems:
            raise ValueError("\n".join(problems))
        edges = np.linspace(params.lo, params.hi, params.bins + 1)
        scale = params.bins / (params.hi - params.lo)
        largest = max(abs(params.lo), abs(params.hi))
        close = 8 * np.finfo(np.float64).eps * (params.bins + scale * largest)
        mask = area.mask.reshape(-1, area.shape[2])[place.first : place.last]
        masked = int((~mask[:, place.start : place.stop]).sum())
        zero = int(np.searchsorted(edges, 0.0, "right")) if params.hi != 0 else params.bins
        return Constants(place, edges, scale, float(close), masked, zero)

    @staticmethod
    def axes(_: Params, constants: Constants) -> dict[str, Axis]:
        """Say where the centres of the bins are."""
        edges = constants.edges
        return {"bin": Axis((edges[1:] + edges[:-1]) / 2, "@")}

    @staticmethod
    def allocate(constants: Constants) -> State:
        """Room for the counts."""
        place = constants.window
        return State(
            np.zeros((COPIES, constants.edges.size + 1), np.int64),
            np.zeros(place.stop - place.start, np.uint32),
        )

    @staticmethod
    def start(constants: Constants, state: State) -> None:
        """Forget the last shot."""
        state.counts[:] = 0

    @staticmethod
    def accumulate(tile: Tile, constants: Constants, state: State) -> None:
        """Sort a row into the slots; only values close to an edge are held against the edges."""
        w, edges, slots = constants.window, constants.edges, state.slots
        if tile.number < w.first or tile.number >= w.last:
            return
        values = tile.values[w.start : w.stop]
        lo, scale = edges[0], constants.scale
        above, close = edges.size + 0.5, constants.close
        for i in range(values.size):
            x = (np.float64(values[i]) - lo) * scale + 1.0
            x = x if x > 0.5 else 0.5  # NaN too: taken off again below
            x = x if x < above else above
            slot = np.uint32(np.int32(x))
            rest = x - slot
            slots[i] = slot | CLOSE if (rest < close) | (rest > 1.0 - close) else slot
        for copy in range(COPIES):
            counts = state.counts[copy]
            for i in range(copy, values.size, COPIES):
                slot = slots[i]
                if slot < CLOSE:
                    counts[slot] += 1
                else:
                    counts[settle(np.int64(slot & ~CLOSE), np.float64(values[i]), edges)] += 1
        if tile.bad:
            state.counts[0, 0] -= count_nan(values)

    @staticmethod
    def finish(constants: Constants, state: State) -> Spectrum:
        """Add the copies, take off the masked pixels, split into below, bins and above."""
        counts = state.counts[0].copy()
        for copy in range(1, COPIES):
            for i in range(counts.size):
                counts[i] += state.counts[copy, i]
        counts[constants.zero] -= constants.masked
        return Spectrum(counts[1:-1], counts[0], counts[-1])


def example() -> tuple[Params, Area]:
    """Parameters, and a detector to try them on."""
    mask = np.ones((2, 9, 23), np.bool_)
    return Params(lo=-10.0, hi=90.0, bins=37), Area("example", mask.shape, mask, None, "keV")
