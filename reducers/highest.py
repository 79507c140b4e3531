"""The first of the highest of many numbers, several at a time."""

from __future__ import annotations

from typing import Any

from ffb.loops.compile import kernel

#: So many are asked at once whether any of them is higher than all before.
BLOCK = 64


@kernel
def highest(values: Any) -> Any:
    """Index of the first of the highest of ``values`` (n >= 1,); a NaN is never higher.

    A running maximum of floats takes one after the other. Whether any of a block is higher is told
    of several at a time, and few blocks hold one.
    """
    at, most = 0, values[0]
    for begin in range(0, values.size, BLOCK):
        block, higher = values[begin : begin + BLOCK], 0
        for i in range(block.size):
            higher += block[i] > most
        if higher:
            for i in range(block.size):
                if block[i] > most:
                    at, most = begin + i, block[i]
    return at
