"""Blocks of a row that hold something bright: the search of all that looks for single photons."""

from __future__ import annotations

from typing import Any

from ffb.reducers.gain_ranges import exact
from ffb.reducers.lanes import BLOCK, reaching


@exact
def lit(values: Any, at: int, least: Any) -> Any:
    """Bit k is set if pixel ``at`` + k of a row is at least ``least``, for k < ``BLOCK``.

    Nearly all blocks of a frame are dark, so that this is what the search costs. Beyond the row
    there are none.
    """
    if at + BLOCK <= values.size:
        return reaching(values, at, least)
    bits = 0
    for i in range(at, values.size):
        bits |= int(values[i] >= least) << (i - at)
    return bits
