"""Mean and spread of the pixels at each radius from the beam, without those that stand out.

As in Cheetah's peak finder 8 (Barty et al., J. Appl. Cryst. 47, 1118, 2014): outliers are left out
of number, sum and sum of squares again and again, each time by the limits that the rest set.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ffb.loops.compile import kernel

#: How often the background is found, each time without the outliers of the last.
PASSES = 5


@kernel
def find_background(
    frame: Any, radius: Any, total: Any, snr: float, adc: float, rest: Any, limits: Any
) -> None:
    """Find the background of every radius of a ``frame`` (rows, columns) float32.

    ``radius`` (rows, columns) uint16 is the place of each pixel in the others: ``total`` (3, radii
    + 1) float64 has number, sum and sum of squares; ``rest`` becomes the same without outliers, and
    ``limits`` (2, radii + 1) float32 the least and largest value that is none, ``snr`` spreads from
    the mean; the largest is at least ``adc``. The last place is of bad pixels, and left as it is.
    """
    rest[:] = total
    _limit(rest, snr, adc, limits)
    for _ in range(PASSES - 1):
        rest[:] = total
        for number in range(len(frame)):
            _outliers(frame[number], radius[number], limits, rest)
        _limit(rest, snr, adc, limits)


@kernel
def _outliers(row: Any, radius: Any, limits: Any, rest: Any) -> None:
    """Take the outliers of one row out of the rest; they are few."""
    low, high = limits[0], limits[1]
    for i in range(row.size):
        r, v = radius[i], row[i]
        if (v < low[r]) | (v > high[r]):
            w = np.float64(v)
            rest[0, r] -= 1.0
            rest[1, r] -= w
            rest[2, r] -= w * w


@kernel
def _limit(rest: Any, snr: float, adc: float, limits: Any) -> None:
    """Limits of every radius from the rest; nothing is lit where no pixel is left."""
    for r in range(rest.shape[1] - 1):
        n = rest[0, r]
        mean = rest[1, r] / n if n > 0 else np.inf
        variance = max(rest[2, r] / n - mean * mean, 0.0) if n > 0 else 0.0
        width = snr * np.sqrt(variance)
        limits[0, r] = np.float32(mean - width) if n > 0 else np.float32(-np.inf)
        limits[1, r] = np.float32(max(mean + width, adc)) if n > 0 else np.inf
