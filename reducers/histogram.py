"""Histogram of pixel values: the spectrum of one shot."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb import Area, Axis, Feature, Tile, Vector, tile_reducer
from ffb.loops.compile import kernel
from ffb.reducers.window import Window, count_nan, somewhere


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


#: Copies of the counts, by turns. Pixels side by side often fall into one bin, and in one copy a
#: count would have to wait for the one before it.
COPIES = 4

#: Pixels that are looked through together for some that are close to an edge.
BLOCK = 64

#: Set in a slot whose pixel is so close to an edge that rounding could decide.
CLOSE = np.uint32(1 << 31)

#: Part of the pixels that may be held against the edges before float32 gives way to float64.
MOST_CLOSE = 0.05


class Constants(NamedTuple):
    """Where to look, and the bins.

    ``edges`` (bins + 1,) float64; ``line`` (6,) float32, or float64 where that would leave too many
    pixels close to an edge: first edge, bins per unit, what no slot may pass, how near to an edge,
    in bins, rounding could decide, and the numbers 0.5 and 1 of its type; ``masked`` bad pixels,
    which hold 0, in slot ``zero``.
    """

    window: Window
    edges: NDArray[np.float64]
    line: NDArray[np.float32] | NDArray[np.float64]
    masked: int
    zero: int


class State(NamedTuple):
    """Counts (copies, bins + 2) int32: below, the bins, above; slots (columns,) uint32."""

    counts: NDArray[np.int32]
    slots: NDArray[np.uint32]


class Spectrum(NamedTuple):
    """Counts of the valid pixels."""

    counts: Annotated[Vector, Feature("1", "pixels in each bin, by its centre", ("bin",), "<i8")]
    underflow: Annotated[int, Feature("1", "pixels below the first edge")]
    overflow: Annotated[int, Feature("1", "pixels above the last edge")]


@kernel
def sort(values: Any, line: Any, slots: Any) -> Any:
    """Write the slot of each of ``values``; returns how many are too close to an edge for that.

    A value that is NaN gets the first: it is taken off again.
    """
    lo, scale, above, close, half, one = line[0], line[1], line[2], line[3], line[4], line[5]
    number = np.int32(0)
    for i in range(values.size):
        x = (values[i] - lo) * scale + one
        x = x if x > half else half
        x = x if x < above else above
        whole = np.floor(x)
        rest = x - whole
        slot, near = np.uint32(np.int32(whole)), (rest < close) | (rest > one - close)
        slots[i] = slot | CLOSE if near else slot
        number = np.int32(number + np.int32(near))
    return number


@kernel
def settle(values: Any, edges: NDArray[np.float64], slots: Any) -> None:
    """Move slots that rounding may have put one off to where the edges want them."""
    last = np.uint32(edges.size - 1)
    for at in range(0, values.size, BLOCK):
        here, to = values[at : at + BLOCK], slots[at : at + BLOCK]
        most = np.uint32(0)
        for i in range(to.size):
            most = np.uint32(most | to[i])
        if most < CLOSE:
            continue
        for i in range(to.size):
            if to[i] >= CLOSE:
                slot, v = to[i] & ~CLOSE, np.float64(here[i])
                if slot > 0 and v < edges[slot - 1]:
                    slot -= 1
                elif slot <= last and v >= edges[slot]:
                    slot += 1
                to[i] = last if slot > last and v == edges[last] else slot


@kernel
def count(slots: Any, counts: Any) -> None:
    """Count slots, by turns in one of the copies."""
    a, b, c, d = counts[0], counts[1], counts[2], counts[3]
    one, whole = np.int32(1), slots.size // COPIES * COPIES
    for i in range(0, whole, COPIES):
        four = slots[i : i + COPIES]
        a[four[0]] += one
        b[four[1]] += one
        c[four[2]] += one
        d[four[3]] += one
    for slot in slots[whole:]:
        a[slot] += one


def _line(edges: NDArray[np.float64], kind: Any) -> NDArray[Any]:
    """Numbers that turn values into slots, see :class:`Constants`, with what rounding can do."""
    bins, lo, hi = edges.size - 1, edges[0], edges[-1]
    scale = bins / (hi - lo)
    close = 8 * np.finfo(kind).eps * (bins + 2 + scale * max(abs(lo), abs(hi)))
    return np.array([lo, scale, bins + 1.5, close, 0.5, 1.0], kind)


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
            place = somewhere(area, params.segment, params.rows, params.cols)
        except ValueError as e:
            problems.append(str(e))
        if problems:
            raise ValueError("\n".join(problems))
        edges = np.linspace(params.lo, params.hi, params.bins + 1)
        single, double = _line(edges, np.float32), _line(edges, np.float64)
        line = single if single[3] < MOST_CLOSE else double
        mask = area.mask.reshape(-1, area.shape[2])[place.first : place.last]
        masked = int((~mask[:, place.start : place.stop]).sum())
        zero = int(np.searchsorted(edges, 0.0, "right")) if params.hi != 0 else params.bins
        return Constants(place, edges, line, masked, zero)

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
            np.zeros((COPIES, constants.edges.size + 1), np.int32),
            np.zeros(place.stop - place.start, np.uint32),
        )

    @staticmethod
    def start(constants: Constants, state: State) -> None:
        """Forget the last shot."""
        state.counts[:] = 0

    @staticmethod
    def accumulate(tile: Tile, constants: Constants, state: State) -> None:
        """Sort a row into the slots; only values close to an edge are held against the edges."""
        w, slots = constants.window, state.slots
        if tile.number < w.first or tile.number >= w.last:
            return
        values = tile.values[w.start : w.stop]
        if sort(values, constants.line, slots):
            settle(values, constants.edges, slots)
        count(slots, state.counts)
        if tile.bad:
            state.counts[0, 0] -= count_nan(values)

    @staticmethod
    def finish(constants: Constants, state: State) -> Spectrum:
        """Add the copies, take off the masked pixels, split into below, bins and above."""
        counts = np.zeros(state.counts.shape[1], np.int64)
        for copy in range(COPIES):
            for i in range(counts.size):
                counts[i] += state.counts[copy, i]
        counts[constants.zero] -= constants.masked
        return Spectrum(counts[1:-1], counts[0], counts[-1])


def example() -> tuple[Params, Area]:
    """Parameters, and a detector to try them on."""
    mask = np.ones((2, 9, 23), np.bool_)
    return Params(lo=-10.0, hi=90.0, bins=37), Area("example", mask.shape, mask, None, "keV")
