"""A rectangle of one segment, as tile reducers look at it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffb import Area
from ffb.loops.compile import kernel
from ffb.reduce import Window


def _off(name: str, limits: tuple[int, int], size: int, detector: str) -> str:
    begin, end = limits
    if not (0 <= begin <= size and 0 <= end <= size):
        return f"{name}: [{begin}, {end}] is off the detector; {detector} has {name} 0..{size}"
    return "" if begin < end else f"{name}: [{begin}, {end}] is empty; the end is not included"


def window(
    area: Area, segment: int, rows: tuple[int, int] | None, cols: tuple[int, int] | None
) -> Window:
    """Place a rectangle on the detector; without ``rows`` or ``cols`` it takes all of them.

    Raises ``ValueError`` with a line for each limit that is off the detector.
    """
    segments, height, width = area.shape
    rows, cols = rows or (0, height), cols or (0, width)
    problems = [_off("rows", rows, height, area.detector), _off("cols", cols, width, area.detector)]
    if not 0 <= segment < segments:
        has = f"{segments} segments, 0..{segments - 1}" if segments > 1 else "one segment, 0"
        problems.append(f"segment: there is no {segment}; {area.detector} has {has}")
    if found := [p for p in problems if p]:
        raise ValueError("\n".join(found))
    first = segment * height
    return Window(first + rows[0], first + rows[1], *cols)


def somewhere(
    area: Area,
    segment: int | None,
    rows: tuple[int, int] | None,
    cols: tuple[int, int] | None,
) -> Window:
    """Place a rectangle as :func:`window` does, or, without ``segment``, the whole detector."""
    if segment is not None:
        return window(area, segment, rows, cols)
    segments, height, width = area.shape
    if rows or cols:
        raise ValueError("segment: rows and cols are of one segment; say which")
    return Window(0, segments * height, 0, width)


@kernel
def count_nan(values: NDArray[np.float32]) -> Any:
    """Count the NaN among ``values``: pixels bad in this shot only."""
    n = np.int32(0)
    for i in range(values.size):
        n = np.int32(n + (values[i] != values[i]))  # numba would count in 64 bits
    return np.int64(n)
