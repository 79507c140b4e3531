"""Rows cut into runs of neighbours that share a bin: how pixels are summed into bins fast."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffb.loops.compile import kernel, prefetch

#: Longest run of pixels that is summed in one go.
LONGEST = 8

#: Columns must be countable in 13 bits, bins in 19.
MOST_COLUMNS = 2**13


#: Pixels, of float32, that are fetched from memory in one go: a line of the cache.
AT_ONCE = 16

#: A run is a word: its bin above this bit, its first column below.
BIN = np.uint32(13)
COLUMN = np.uint32(0x1FFF)


@kernel
def _one(v: Any, run: Any, k: int) -> Any:
    """Pixel ``k`` of a run; numba does not ask an unsigned index whether it counts from the end."""
    return v[np.uint64(run & COLUMN) + np.uint64(k)]


@kernel
def _two(v: Any, run: Any, k: int) -> Any:
    return _one(v, run, k) + _one(v, run, k + 1)


@kernel
def _four(v: Any, run: Any, k: int) -> Any:
    return _two(v, run, k) + _two(v, run, k + 2)


@kernel
def _ask(pixels: Any, part: int) -> None:
    """Have a ``part`` of ``LONGEST`` of the row behind that of ``pixels`` fetched.

    Sums leave the memory idle, and nothing else tells it what comes next. All parts asked for at
    once would have to wait for one another.
    """
    size = -(-pixels.size // LONGEST)
    for k in range(part * size, (part + 1) * size, AT_ONCE):
        prefetch(pixels, pixels.size + k)


@kernel
def add(v: Any, row: int, runs: Any, bounds: Any, sums: Any, pixels: Any) -> None:
    """Add a row ``v`` to the sums, run by run; what is not to count is 0.

    It was made of a row of ``pixels``; what lies behind that is asked for ahead.

    One addition to memory a run instead of one a pixel, and hardly ever twice in a row to the
    same bin, which would have to wait for the first. Loops of fixed length spare the processor
    guessing where a run ends. A run is added up in the type of ``v``, since turning every pixel
    into float64 took a third of the time: in float32 it is off by at most 7 * 2**-24 of the sum of
    its pixels' sizes; runs are added up in float64.
    """
    b = bounds[row * LONGEST : row * LONGEST + LONGEST + 1]
    _ask(pixels, 0)
    for run in runs[b[0] : b[1]]:
        sums[run >> BIN] += np.float64(_one(v, run, 0))
    _ask(pixels, 1)
    for run in runs[b[1] : b[2]]:
        sums[run >> BIN] += np.float64(_two(v, run, 0))
    _ask(pixels, 2)
    for run in runs[b[2] : b[3]]:
        sums[run >> BIN] += np.float64(_two(v, run, 0) + _one(v, run, 2))
    _ask(pixels, 3)
    for run in runs[b[3] : b[4]]:
        sums[run >> BIN] += np.float64(_four(v, run, 0))
    _ask(pixels, 4)
    for run in runs[b[4] : b[5]]:
        sums[run >> BIN] += np.float64(_four(v, run, 0) + _one(v, run, 4))
    _ask(pixels, 5)
    for run in runs[b[5] : b[6]]:
        sums[run >> BIN] += np.float64(_four(v, run, 0) + _two(v, run, 4))
    _ask(pixels, 6)
    for run in runs[b[6] : b[7]]:
        sums[run >> BIN] += np.float64(_four(v, run, 0) + (_two(v, run, 4) + _one(v, run, 6)))
    _ask(pixels, 7)
    for run in runs[b[7] : b[8]]:
        sums[run >> BIN] += np.float64(_four(v, run, 0) + _four(v, run, 4))


def cut(
    of: NDArray[np.uint32], mask: NDArray[np.bool_], none: int
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Cut rows into runs of up to 8 pixels of one bin; ``none`` is the bin that is left out.

    Masked pixels are exactly 0, so one inside a run does not end it. Returns ``runs`` (runs,)
    uint32, bin and first column in one word; and ``bounds`` (rows * 8 + 1,) int64, which says where
    the runs of each row and length begin: they are sorted by both.
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
    words = of.ravel()[start].astype(np.uint32) << BIN | (start % columns).astype(np.uint32)
    return words, bounds.astype(np.int64)
