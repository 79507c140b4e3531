"""Raw ADU as they are, for detectors with ``calibration = "none"``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.loops.compile import kernel, lent


class Good(NamedTuple):
    """``valid`` is 1 for good pixels, flat over the detector.

    ``masked`` are the others, ascending, those of row r from ``begin[r]`` to ``begin[r + 1]``.
    """

    valid: NDArray[np.uint8]
    masked: NDArray[np.int32]
    begin: NDArray[np.int32]


@kernel
def _count_nan(values: Any) -> Any:
    """Count the NaN in a row, whose masked pixels are 0."""
    bad = np.int32(0)
    for i in range(values.size):
        bad = np.int32(bad + (values[i] != values[i]))  # numba would count in 64 bits
    return np.int64(bad)


@kernel
def _tile(raw: Any, first: int, constants: Good, values: NDArray[np.float32]) -> Any:
    """Convert a row to float32; masked pixels become 0; returns how many good ones are NaN."""
    valid = constants.valid[first : first + raw.size]
    for i in range(raw.size):
        values[i] = np.float32(raw[i]) if valid[i] != 0 else np.float32(0.0)
    return _count_nan(values)


@kernel
def _lend(raw: Any, first: int, constants: Good, values: NDArray[np.float32]) -> Any:
    """Give a float32 row as it is, if its masked pixels are 0, else a copy; and how many NaN."""
    row = first // raw.size
    right = raw.ctypes.data % raw.itemsize == 0
    for pixel in constants.masked[constants.begin[row] : constants.begin[row + 1]]:
        right &= raw[pixel - first] == 0
    if right:
        return lent(raw, values), _count_nan(raw)
    return values, _tile(raw, first, constants, values)


class Uncalibrated(NamedTuple):
    """A :class:`ffb.reduce.Calibration` that leaves the values alone."""

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
