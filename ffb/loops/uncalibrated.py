"""Raw ADU as they are, for detectors with ``calibration = "none"``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.loops.compile import kernel


class Good(NamedTuple):
    """1 for good pixels, flat over the detector."""

    valid: NDArray[np.uint8]


@kernel
def _tile(raw: Any, first: int, constants: Good, values: NDArray[np.float32]) -> Any:
    """Convert a row to float32; masked pixels become 0; returns how many good ones are NaN."""
    valid = constants.valid[first : first + raw.size]
    for i in range(raw.size):
        values[i] = np.float32(raw[i]) if valid[i] != 0 else np.float32(0.0)
    bad = np.int32(0)
    for i in range(raw.size):
        bad = np.int32(bad + (values[i] != values[i]))  # numba would count in 64 bits
    return np.int64(bad)


class Uncalibrated(NamedTuple):
    """A :class:`ffb.reduce.Calibration` that leaves the values alone."""

    mask: NDArray[np.bool_]
    dtype: str
    unit: str = "ADU"
    height: int = 0

    @property
    def constants(self) -> Good:
        """What the converter needs."""
        return Good(self.mask.astype(np.uint8).ravel())

    @property
    def tile(self) -> Any:
        """The converter."""
        return _tile

    @property
    def skipped(self) -> Mapping[str, int]:
        """There are no corrections."""
        return {}
