"""What there is to say of the values of an array in one shot: how many, their sum, their ends."""

from __future__ import annotations

from typing import Any

import numpy as np

#: What stands for an array that is not there: a NaN.
NOTHING = "(0, 1, np.nan, np.nan, np.nan)"


def over(
    values: Any, at: int, n0: int, s0: int, n1: int, s1: int, n2: int, s2: int
) -> tuple[int, int, float, float, float]:
    """Values that are not NaN, how many are NaN; sum, least and largest of the former.

    There are ``n0 * n1 * n2`` values, ``s0``, ``s1`` and ``s2`` elements apart, from element ``at``
    of ``values``. They are added in order as float64, so that the sum of the file's column is the
    same to the last bit. Of no values the ends are NaN.
    """
    known, unknown, total, least, most = 0, 0, 0.0, np.nan, np.nan
    for i in range(n0):
        for j in range(n1):
            first = at + i * s0 + j * s1
            for k in range(n2):
                v = np.float64(values[first + k * s2])
                if np.isnan(v):
                    unknown += 1
                    continue
                if known == 0 or v < least:
                    least = v
                if known == 0 or v > most:
                    most = v
                known += 1
                total += v
    return known, unknown, total, least, most
