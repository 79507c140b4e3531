"""Raw ADU as they are, for detectors with ``calibration = "none"``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.loops.compile import kernel, lent

#: What is larger is infinite.
LARGEST = np.finfo(np.float32).max


class Good(NamedTuple):
    """``valid`` is 1 for good pixels, flat over the detector.

    ``masked`` are the others, ascending, those of row r from ``begin[r]`` to ``begin[r + 1]``.
    """

    valid: NDArray[np.uint8]
    masked: NDArray[np.int32]
    begin: NDArray[np.int32]


@kernel
def _count_wild(values: Any) -> Any:
    """Count what is no number in a row, NaN or infinite; its masked pixels are 0."""
    bad = np.int32(0)
    for i in range(values.size):
        bad = np.int32(bad + (not abs(values[i]) <= LARGEST))  # numba would count in 64 bits
    return np.int64(bad)


@kernel
def _tile(raw: Any, first: int, constants: Good, values: NDArray[np.float32]) -> Any:
    """Convert a row to float32; returns how many good pixels are NaN.

    Masked pixels become 0. Infinite ones, and those too large for float32, become NaN: whatever
    leaves those out, leaves these out, too.
    """
    valid = constants.valid[first : first + raw.size]
    for i in range(raw.size):
        values[i] = np.float32(raw[i]) if valid[i] != 0 else np.float32(0.0)
    bad = _count_wild(values)
    if bad:
        for i in range(values.size):
            values[i] = values[i] if abs(values[i]) <= LARGEST else np.float32(np.nan)
    return bad


@kernel
def _lend(raw: Any, first: int, constants: Good, values: NDArray[np.float32]) -> Any:
    """Give a float32 row as :func:`_tile` makes it, and how many NaN: itself if it is like that."""
    row = first // raw.size
    right = raw.ctypes.data % raw.itemsize == 0
    for pixel in constants.masked[constants.begin[row] : constants.begin[row + 1]]:
        right &= raw[pixel - first] == 0
    if right:
        bad = _count_wild(raw)
        if bad == 0 or bad == _count_nan(raw):
            return lent(raw, values), bad
    return values, _tile(raw, first, constants, values)


@kernel
def _count_nan(values: Any) -> Any:
    bad = np.int32(0)
    for i in range(values.size):
        bad = np.int32(bad + (values[i] != values[i]))
    return np.int64(bad)


class Uncalibrated(NamedTuple):
    """A :class:`ffb.reduce.Calibration` that leaves the values alone.

    But for infinite ones, which are NaN, as pixels are that are bad in one shot.
    """

    mask: NDArray[np.bool_]
    dtype: str
    unit: str = "ADU"
    height: int = 0

    @property
    def constants(self) -> Good:
        """What the functions need."""
        masked = np.flatnonzero(~self.mask)
        rows = np.arange(0, self.mask.size + 1, self.mask.shape[-1])
        begin = np.searchsorted(masked, rows)
        valid = self.mask.astype(np.uint8).ravel()
        return Good(valid, masked.astype(np.int32), begin.astype(np.int32))

    @property
    def tile(self) -> Any:
        """The converter."""
        return _tile

    @property
    def skipped(self) -> Mapping[str, int]:
        """There are no corrections."""
        return {}

    @property
    def lend(self) -> Any:
        """The one that need not copy, where pixels are float32."""
        return _lend if np.dtype(self.dtype) == np.float32 else None
