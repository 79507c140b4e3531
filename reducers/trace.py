"""What waveform reducers share: gates, medians, checks of parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffb.compile import kernel

#: Gates are half-open ranges of samples.
Gate = tuple[int, int]

#: Widest range of whole numbers whose every value is counted apart; beyond, and for floats,
#: values share bins, of which only the one that holds the median is looked into.
SPAN = 8192
BINS = 1024

#: Copies of the counts. Samples of a baseline are few values, and in one copy a count would have
#: to wait for the one before it.
COPIES = 4


def gate_problem(name: str, gate: Gate | None, size: int) -> list[str]:
    """Say what is wrong with a gate of a waveform of ``size`` samples, if anything."""
    if gate is None or 0 <= gate[0] < gate[1] <= size:
        return []
    return [
        f"{name}: [{gate[0]}, {gate[1]}] is no part of the waveform; it has samples"
        f" 0..{size}, the end is not included"
    ]


def common_problems(dt: float, sign: int, signs: tuple[int, ...] = (1, -1)) -> list[str]:
    """Say what is wrong with the sign of pulses and the distance of samples, if anything."""
    out = []
    if sign not in signs:
        out.append(f"sign: {sign} is neither {' nor '.join(map(str, signs))}")
    if not 0 < dt < np.inf:
        out.append(f"dt: {dt} ns is no distance of samples")
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


@kernel
def _of_whole(values: NDArray[Any], lo: int, span: int) -> Any:
    """Median of whole numbers from ``lo`` to ``lo + span``: all are counted."""
    counts = np.zeros((COPIES, span + 1), np.int32)
    for copy in range(COPIES):
        own = counts[copy]
        for i in range(copy, values.size, COPIES):
            own[np.uint64(np.int64(values[i]) - lo)] += 1
    n = values.size
    seen, at, below = 0, -1, -1
    while seen <= n // 2:
        at += 1
        here = 0
        for copy in range(COPIES):
            here += counts[copy, at]
        seen += here
        if below < 0 and seen > (n - 1) // 2:
            below = at
    return lo + 0.5 * (below + at)


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


@kernel
def median(values: NDArray[Any], whole: bool) -> Any:
    """Median of ``values`` (n >= 1,), exactly ``np.median``'s; NaN if one is NaN or infinite.

    ``whole`` says that they are integers (``Input.dtype`` of kind ``i`` or ``u``).
    """
    lo, hi = extremes(values)
    bad = 0
    for i in range(values.size):
        bad += values[i] != values[i]
    if bad:
        return np.nan
    if whole and np.int64(hi) - np.int64(lo) <= SPAN:
        return _of_whole(values, np.int64(lo), np.int64(hi) - np.int64(lo))
    low, high = np.float64(lo), np.float64(hi)
    if low == high or high - low == np.inf:
        return low if low == high else np.nan
    return _of_any(values, low, high)
