"""An edge in a trace: a filter laid over it everywhere, and the place and width of its maximum."""

from __future__ import annotations

from typing import Any

import numpy as np

from ffb.loops.compile import kernel


@kernel
def correlate(signal: Any, weights: Any, out: Any) -> None:
    """Fill ``out`` (n - m + 1,) with the filter's answer at every place where it fits."""
    places, whole = out.size, weights.size - weights.size % 4
    out[:] = 0.0
    for i in range(0, whole, 4):  # four at once, so that sums need not be stored for each
        a, b, c, d = weights[i], weights[i + 1], weights[i + 2], weights[i + 3]
        s, t = signal[i : i + places], signal[i + 1 : i + 1 + places]
        u, v = signal[i + 2 : i + 2 + places], signal[i + 3 : i + 3 + places]
        for k in range(places):
            out[k] += a * s[k] + b * t[k] + c * u[k] + d * v[k]
    for i in range(whole, weights.size):
        a, s = weights[i], signal[i : i + places]
        for k in range(places):
            out[k] += a * s[k]


@kernel
def correlate_step(signal: Any, width: int, sign: float, sums: Any, out: Any) -> None:
    """Fill ``out`` with what :func:`correlate` gives for a step of ``width`` samples a side.

    By sums of all samples so far, ``sums`` (n + 1,), about the first one: whatever the width, each
    place takes three of them.
    """
    first, total = signal[0], 0.0
    sums[0] = 0.0
    for i in range(signal.size):
        total += signal[i] - first
        sums[i + 1] = total
    before, middle, behind = sums[:], sums[width:], sums[2 * width :]
    scale = sign / width
    for k in range(out.size):
        out[k] = scale * (before[k] - 2.0 * middle[k] + behind[k])


@kernel
def summit(y: Any, at: int, half: int) -> Any:
    """Abscissa of the parabola through ``y`` around its maximum ``at``; NaN where it has none.

    Least squares over ``half`` samples on either side.
    """
    if at < half or at + half >= y.size:
        return np.nan
    s0, s1, s2, n = 0.0, 0.0, 0.0, 2 * half + 1
    x2, x4 = 0.0, 0.0
    for j in range(-half, half + 1):
        v, xx = y[at + j], np.float64(j * j)
        s0 += v
        s1 += j * v
        s2 += xx * v
        x2 += xx
        x4 += xx * xx
    curvature = (n * s2 - x2 * s0) / (n * x4 - x2 * x2)
    shift = -0.5 * (s1 / x2) / curvature if curvature < 0.0 else np.nan
    return at + shift if abs(shift) <= half else np.nan


@kernel
def width_at_half(y: Any, at: int) -> Any:
    """Width of the peak ``at`` at half of its height; NaN where ``y`` does not come down to it."""
    level, left, right = 0.5 * y[at], at, at
    while left > 0 and y[left] > level:
        left -= 1
    while right < y.size - 1 and y[right] > level:
        right += 1
    if y[left] > level or y[right] > level or left == right:
        return np.nan
    low = left + (level - y[left]) / (y[left + 1] - y[left])
    high = right - (level - y[right]) / (y[right - 1] - y[right])
    return high - low
