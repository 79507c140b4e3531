"""Blocks of a row that hold something bright: the search of all that looks for single photons."""

from __future__ import annotations

from typing import Any

import numpy as np

from ffb.reducers.gain_ranges import exact

#: Pixels that are asked together.
BLOCK = 64


@exact
def lit(block: Any, least: Any) -> Any:
    """Whether any pixel of up to 64 is at least ``least``; of fewer, at the end of a row, say so.

    Nearly all blocks of a frame are dark, so that this is what the search costs.
    """
    if block.size < BLOCK:
        return True
    bits = np.int32(0)
    for i in range(BLOCK):  # a length known to the compiler: half the time
        bits = np.int32(bits | (block[i] >= least))  # numba would count in 64 bits
    return bits != 0
