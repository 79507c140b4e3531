"""Histogram of pixel values: the spectrum of one shot."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb import Area, Axis, Feature, Tile, Vector, tile_reducer
from ffb.loops.compile import kernel
from ffb.reduce import Window
from ffb.reducers.checks import noted
from ffb.reducers.window import count_nan, somewhere


class Params(NamedTuple):
    """The values that are counted: ``bins`` equal bins over ``limits``, in calibrated units.

    Without ``segment`` the whole detector is counted; with it, that segment, or the rectangle of
    it that ``rows`` and ``cols``, half-open, choose.
    """

    limits: tuple[float, float]
    bins: int
    segment: int | None = None
    rows: tuple[int, int] | None = None
    cols: tuple[int, int] | None = None


#: Counts are kept in copies, by turns. Pixels side by side often fall into one bin, and in one copy
#: a count would have to wait for the one before it.
COPIES = 8

#: More bins than a 16-bit pixel has values 16 times over.
MOST_BINS = 1 << 20

#: Room for the copies of all bins that stays in the nearest caches; more bins have fewer copies.
ROOM = 2**16

#: Pixels that are looked through together for some that are close to an edge.
BLOCK = 64

#: Set in a slot whose pixel is so close to an edge that rounding could decide.
CLOSE = np.uint32(1 << 31)

#: Part of the pixels that may be held against the edges before float32 gives way to float64.
MOST_CLOSE = 0.05


class Constants(NamedTuple):
    """Where to look, and the bins.

    ``edges`` (bins + 1,) float64 are the bins' own; ``ends`` (bins + 2,) float32 is for every slot
    the least float32 above it, NaN for the last. ``line`` (5,) float32, or float64 where that would
    leave too many pixels close to an edge: first edge, bins per unit, what no slot may pass, how
    near to an edge, in bins, rounding could decide, and the number 0.5 of its type. ``masked``
    pixels are bad, and hold 0, which belongs to the slot ``zero``.
    """

    window: Window
    edges: NDArray[np.float64]
    ends: NDArray[np.float32]
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
def sort(values: Any, line: Any, zero: Any, slots: Any) -> Any:
    """Write the slot of each of ``values``; returns whether some are too close to an edge for that.

    Those get the lower one of two, and :data:`CLOSE`. Zeros are many where pixels are masked, and
    often an edge: their slot is known. A value that is NaN gets the first: it is taken off again.
    """
    lo, scale, above, close, half = line[0], line[1], line[2], line[3], line[4]
    seen, zero = np.uint32(0), np.uint32(zero)
    for i in range(values.size):
        v = values[i]
        x = (v - lo) * scale + (half + half)
        x = x if x > half else half
        x = x if x < above else above
        low, high = np.uint32(np.int32(x - close)), np.uint32(np.int32(x + close))
        slot = low if low == high else low | CLOSE
        slot = zero if v == 0 else slot
        slots[i] = slot
        seen = np.uint32(seen | slot)
    return seen >= CLOSE


@kernel
def settle(values: Any, ends: Any, slots: Any) -> None:
    """Move up those pixels, in blocks with some close to an edge, which reach their slot's end.

    Without a question for each pixel: where values are whole numbers, most are on an edge.
    """
    for at in range(0, values.size, BLOCK):
        here, to = values[at : at + BLOCK], slots[at : at + BLOCK]
        most = np.uint32(0)
        for i in range(to.size):
            most = np.uint32(most | to[i])
        if most < CLOSE:
            continue
        for i in range(to.size):
            slot = np.uint64(to[i] & ~CLOSE)
            to[i] = np.uint32(slot + np.uint64(here[i] >= ends[slot]))


@kernel
def count(slots: Any, counts: Any) -> None:
    """Count slots, by turns in one of the copies."""
    n, one = counts.shape[0], np.int32(1)
    a, b, c, d = counts[0], counts[1 % n], counts[2 % n], counts[3 % n]
    e, f, g, h = counts[4 % n], counts[5 % n], counts[6 % n], counts[7 % n]
    whole = slots.size // COPIES * COPIES
    for i in range(0, whole, COPIES):
        eight = slots[i : i + COPIES]
        a[eight[0]] += one
        b[eight[1]] += one
        c[eight[2]] += one
        d[eight[3]] += one
        e[eight[4]] += one
        f[eight[5]] += one
        g[eight[6]] += one
        h[eight[7]] += one
    for slot in slots[whole:]:
        a[slot] += one


def _line(lo: float, hi: float, bins: int, kind: Any) -> NDArray[Any]:
    """Numbers that turn values into slots, see :class:`Constants`.

    Rounding of the first edge, of the scale and of each step may come to 2.5 eps of the largest
    number on the way.
    """
    scale = bins / (hi - lo)
    close = 3 * np.finfo(kind).eps * (bins + 2 + scale * max(abs(lo), abs(hi)))
    return np.array([lo, scale, bins + 1.5, close, 0.5], kind)


def _ends(edges: NDArray[np.float64]) -> NDArray[np.float32]:
    """Least float32 above each slot, see :class:`Constants`: the last bin holds its upper edge."""
    ends = edges.astype(np.float32)
    short = ends < edges
    short[-1] = ends[-1] <= edges[-1]
    return np.append(
        np.where(short, np.nextafter(ends, np.float32(np.inf)), ends), np.float32(np.nan)
    )


@tile_reducer(version=1)
class histogram:  # noqa: N801
    """Histogram of the valid pixels of a detector or of a rectangle of it.

    Bins are those of ``np.histogram(values, bins, limits)`` for float64 values: closed on the
    left, the last one on both sides. This is smalldata_tools' spectrum of a region, whose
    ``bins = [lo, hi, n]`` are these; bins of unequal width there are not.
    """

    @staticmethod
    def prepare(params: Params, area: Area) -> Constants:
        """Lay out the bins; ``ValueError`` for a bad range, or a place off the detector."""
        problems, (lo, hi) = [], params.limits
        if params.bins < 1:
            problems.append(f"bins: {params.bins} is too few; at least 1")
        if params.bins > MOST_BINS:
            problems.append(f"bins: {params.bins} is too many; at most {MOST_BINS}")
        if not -np.inf < lo < hi < np.inf:
            problems.append(f"limits: [{lo}, {hi}] must be two numbers, the lower first")
        elif params.bins > 0 and _line(lo, hi, params.bins, np.float64)[3] > MOST_CLOSE:
            problems.append(f"bins: {params.bins} from {lo} to {hi} are too narrow")
        with noted(problems):
            place = somewhere(area, params.segment, params.rows, params.cols)
        if problems:
            raise ValueError("\n".join(problems))
        edges = np.linspace(lo, hi, params.bins + 1)
        line = _line(lo, hi, params.bins, np.float32)
        if 2 * line[3] > MOST_CLOSE:
            line = _line(lo, hi, params.bins, np.float64)
        mask = area.mask.reshape(-1, area.shape[2])[place.first : place.last]
        masked = int((~mask[:, place.start : place.stop]).sum())
        zero = int(np.searchsorted(edges, 0.0, "right")) if hi != 0 else params.bins
        return Constants(place, edges, _ends(edges), line, masked, zero)

    @staticmethod
    def axes(_: Params, constants: Constants) -> dict[str, Axis]:
        """Say where the centres of the bins are."""
        edges = constants.edges
        return {"bin": Axis((edges[1:] + edges[:-1]) / 2, "@")}

    @staticmethod
    def allocate(constants: Constants) -> State:
        """Room for the counts."""
        slots, place = constants.ends.size, constants.window
        copies = min(COPIES, max(1, ROOM // (4 * slots)))
        return State(
            np.zeros((copies, slots), np.int32), np.zeros(place.stop - place.start, np.uint32)
        )

    @staticmethod
    def start(constants: Constants, state: State) -> None:
        """Forget the last shot."""
        state.counts[:] = 0

    @staticmethod
    def accumulate(tile: Tile, constants: Constants, state: State) -> None:
        """Sort a row into the slots; only values close to an edge are held against the edges."""
        w, slots = constants.window, state.slots
        values = tile.values[w.start : w.stop]
        if sort(values, constants.line, constants.zero, slots):
            settle(values, constants.ends, slots)
        count(slots, state.counts)
        if tile.bad:
            state.counts[0, 0] -= count_nan(values)

    @staticmethod
    def finish(constants: Constants, state: State) -> Spectrum:
        """Add the copies, take off the masked pixels, split into below, bins and above."""
        counts = np.zeros(state.counts.shape[1], np.int64)
        for copy in range(state.counts.shape[0]):
            for i in range(counts.size):
                counts[i] += state.counts[copy, i]
        counts[constants.zero] -= constants.masked
        return Spectrum(counts[1:-1], counts[0], counts[-1])


def example() -> tuple[Params, Area]:
    """Parameters, and a detector to try them on."""
    mask = np.ones((2, 9, 23), np.bool_)
    return Params((-10.0, 90.0), bins=37), Area("example", mask.shape, mask, None, "keV")
