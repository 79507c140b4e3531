"""Rows cut into runs of neighbours that share a bin: how pixels are summed into bins fast."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffb.compile import kernel

#: Longest run of pixels that is summed in one go.
LONGEST = 8

#: Columns must be countable in 16 bits.
MOST_COLUMNS = 2**16


@kernel
def _two(v: Any, i: int) -> Any:
    return np.float64(v[i]) + np.float64(v[i + 1])


@kernel
def _four(v: Any, i: int) -> Any:
    return _two(v, i) + _two(v, i + 2)


@kernel
def add(v: Any, row: int, starts: Any, bins: Any, bounds: Any, sums: Any) -> None:
    """Add a row ``v`` to the sums, run by run; what is not to count is 0.

    One addition to memory a run instead of one a pixel, and hardly ever twice in a row to the
    same bin, which would have to wait for the first. Loops of fixed length spare the processor
    guessing where a run ends. Four sums for each bin, by turns, are faster on a frame that lies in
    memory, but not in a pass that has just calibrated the row.
    """
    at = row * LONGEST
    for k in range(bounds[at], bounds[at + 1]):
        sums[bins[k]] += v[starts[k]]
    for k in range(bounds[at + 1], bounds[at + 2]):
        sums[bins[k]] += _two(v, starts[k])
    for k in range(bounds[at + 2], bounds[at + 3]):
        sums[bins[k]] += _two(v, starts[k]) + v[starts[k] + 2]
    for k in range(bounds[at + 3], bounds[at + 4]):
        sums[bins[k]] += _four(v, starts[k])
    for k in range(bounds[at + 4], bounds[at + 5]):
        sums[bins[k]] += _four(v, starts[k]) + v[starts[k] + 4]
    for k in range(bounds[at + 5], bounds[at + 6]):
        sums[bins[k]] += _four(v, starts[k]) + _two(v, starts[k] + 4)
    for k in range(bounds[at + 6], bounds[at + 7]):
        sums[bins[k]] += _four(v, starts[k]) + (_two(v, starts[k] + 4) + v[starts[k] + 6])
    for k in range(bounds[at + 7], bounds[at + 8]):
        sums[bins[k]] += _four(v, starts[k]) + _four(v, starts[k] + 4)


def cut(
    of: NDArray[np.uint16], mask: NDArray[np.bool_], none: int
) -> tuple[NDArray[np.uint16], NDArray[np.uint16], NDArray[np.int64]]:
    """Cut rows into runs of up to 8 pixels of one bin; ``none`` is the bin that is left out.

    Masked pixels are exactly 0, so one inside a run does not end it. Returns ``starts`` (runs,)
    uint16, the first columns; ``bins`` (runs,) uint16; and ``bounds`` (rows * 8 + 1,) int64, which
    says where the runs of each row and length begin: they are sorted by both.
    """
    columns = of.shape[-1]
    of, mask = of.reshape(-1, columns), mask.reshape(-1, columns)
    last_good = np.maximum.accumulate(np.where(mask, np.arange(columns), 0), axis=1)
    of = np.take_along_axis(of, last_good, axis=1)
    begins = np.ones(of.shape, np.bool_)
    begins[:, 1:] = of[:, 1:] != of[:, :-1]
    at = np.flatnonzero(begins)
    length = np.diff(np.append(at, of.size))
    wanted = of.ravel()[at] != none
    at, length = at[wanted], length[wanted]
    pieces = -(-length // LONGEST)
    run = np.repeat(np.arange(at.size), pieces)
    offset = LONGEST * (np.arange(run.size) - np.repeat(np.cumsum(pieces) - pieces, pieces))
    start = at[run] + offset
    key = start // columns * LONGEST + np.minimum(length[run] - offset, LONGEST) - 1
    order = np.argsort(key, kind="stable")
    start = start[order]
    bounds = np.searchsorted(key[order], np.arange(of.shape[0] * LONGEST + 1))
    return (
        (start % columns).astype(np.uint16),
        of.ravel()[start],
        bounds.astype(np.int64),
    )
