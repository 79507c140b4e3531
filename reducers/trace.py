"""What waveform reducers share: gates, medians, checks of parameters."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffb.loops.compile import kernel

#: Gates are half-open ranges of samples.
Gate = tuple[int, int]

#: Widest range of whole numbers that is searched by halves; beyond, and for floats, values share
#: bins, of which only the one that holds the median is looked into.
SPAN = 1 << 16
BINS = 1024

#: So many may be counted in 16 bits, which is the fastest.
MOST = 1 << 15


def gate_problem(name: str, gate: Gate | None, size: int) -> list[str]:
    """Say what is wrong with a gate of a waveform of ``size`` samples, if anything."""
    if gate is None or 0 <= gate[0] < gate[1] <= size:
        return []
    return [
        f"{name}: [{gate[0]}, {gate[1]}] is not part of the waveform; it has samples"
        f" 0..{size}, the end is not included"
    ]


def common_problems(dt: float, sign: int, signs: tuple[int, ...] = (1, -1)) -> list[str]:
    """Say what is wrong with the sign of pulses and the distance of samples, if anything."""
    out = []
    if sign not in signs:
        out.append(f"sign: {sign} is neither {' nor '.join(map(str, signs))}")
    if not 0 < dt < np.inf:
        out.append(f"dt: {dt} ns is not a distance between samples")
    return out


@kernel
def select(values: NDArray[np.float64], rank: int) -> Any:
    """Return the element of ``rank``, 0 the least, and reorder ``values`` (Hoare 1961)."""
    first, last = 0, values.size - 1
    while first < last:
        pivot, i, j = values[(first + last) // 2], first, last
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if rank <= j:
            last = j
        elif rank >= i:
            first = i
        else:
            break
    return values[rank]


@partial(kernel, inlined=True)
def _up_to(values: NDArray[Any], level: Any) -> Any:
    """How many of ``values`` are at most ``level``, which is of their type."""
    number = 0
    for at in range(0, values.size, MOST):
        block = values[at : at + MOST]
        some = np.uint16(0)
        for i in range(block.size):
            some = np.uint16(some + np.uint16(block[i] <= level))
        number += int(some)
    return number


@partial(kernel, inlined=True)
def _of_whole(values: NDArray[Any], lo: Any, hi: Any) -> Any:
    """Median of whole numbers from ``lo`` to ``hi``: numbers up to a level are counted.

    The first level is the middle one of three samples, as most are near the median; from there it
    goes in steps that double until the median lies between two, and then by halves. A count goes
    through many samples at once; a histogram takes longer, and most of all where pulses are high.
    """
    kind, n, last = values.dtype.type, values.size, hi
    a, b, c = np.int64(values[n // 4]), np.int64(values[n // 2]), np.int64(values[n - 1 - n // 4])
    level: Any = max(min(a, b), min(max(a, b), c))
    step: Any = min(level - min(a, b, c), max(a, b, c) - level) + 1
    up_to = n
    while lo < hi:
        number = _up_to(values, kind(level))
        if number > (n - 1) // 2:
            hi, up_to = level, number
            level = max(lo + (hi - lo) // 2, hi - step)
        else:
            lo = level + 1
            level = min(lo + (hi - lo) // 2, lo + step)
        step *= 2
    if up_to > n // 2:
        return np.float64(lo)
    low, most = kind(lo), kind(last)
    for i in range(n):
        most = min(most, values[i] if values[i] > low else kind(last))
    return 0.5 * (np.float64(lo) + np.float64(most))


@kernel
def _of_any(values: NDArray[Any], lo: float, hi: float) -> Any:
    """Median of numbers from ``lo`` to ``hi``: one bin of a histogram is looked into."""
    n = values.size
    counts = np.zeros(BINS, np.int32)
    slots = np.empty(n, np.int32)
    scale = (BINS - 1) / (hi - lo)
    for i in range(n):
        slots[i] = np.int32((np.float64(values[i]) - lo) * scale)
    for i in range(n):
        counts[slots[i]] += 1
    slot, before = 0, 0
    while before + counts[slot] <= n // 2:
        before += counts[slot]
        slot += 1
    inside, k = np.empty(counts[slot]), 0
    for i in range(n):
        if slots[i] == slot:
            inside[k] = values[i]
            k += 1
    upper = select(inside, n // 2 - before)
    if n % 2:
        return upper
    smaller, largest = 0, -np.inf
    for i in range(n):
        v = np.float64(values[i])
        smaller += v < upper
        largest = v if (v < upper) & (v > largest) else largest
    return 0.5 * (upper + largest) if smaller == n // 2 else upper


@kernel
def extremes(values: NDArray[Any]) -> Any:
    """Least and largest of ``values`` (n >= 1,), in their own type; of NaN it says nothing.

    Over indices, as all loops that should vectorise: one over the values themselves does not, and
    takes ten times as long.
    """
    lo, hi = values[0], values[0]
    for i in range(values.size):
        lo, hi = min(lo, values[i]), max(hi, values[i])
    return lo, hi


@partial(kernel, inlined=True)
def middle(values: NDArray[Any], lo: Any, hi: Any, whole: bool) -> Any:
    """Median of ``values``, of which :func:`extremes` are known; else as :func:`median`."""
    bad = 0
    for i in range(values.size):
        bad += values[i] != values[i]
    if bad:
        return np.nan
    low, high = np.float64(lo), np.float64(hi)
    if whole and high - low <= SPAN and high < 2.0**63:  # beyond, integers would wrap around
        return _of_whole(values, np.int64(lo), np.int64(hi))
    if low == -np.inf or high == np.inf or high - low == np.inf:
        return np.nan
    if low == high:
        return low
    return _of_any(values, low, high)


@kernel
def median(values: NDArray[Any], whole: bool) -> Any:
    """Median of ``values`` (n >= 1,), exactly ``np.median``'s; NaN if one is NaN or infinite.

    ``whole`` says that they are integers (``Input.dtype`` of kind ``i`` or ``u``).
    """
    lo, hi = extremes(values)
    return middle(values, lo, hi, whole)
