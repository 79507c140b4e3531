"""Shots of two tables that belong together, found by their timestamps: integers, never floats.

Exports :class:`Pairs`, :func:`exact`, :func:`nearest` and :func:`times`. Timestamps are psana's,
see :data:`ffb.schema.TIMESTAMP`, in any order; rows are numbered as the arrays given have them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.shot import EPOCH_1990

Rows = NDArray[np.int64]


class Pairs(NamedTuple):
    """Row ``left[i]`` of one table and row ``right[i]`` of the other are of one moment.

    Both are (n,) int64, in order of the left one's timestamps: ``a[left]`` and ``b[right]`` are
    aligned.
    """

    left: Rows
    right: Rows


def times(stamps: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Nanoseconds since 1970-01-01 UTC of psana's stamps."""
    stamps = np.asarray(stamps).astype(np.uint64)
    seconds = (stamps >> np.uint64(32)).astype(np.int64) + EPOCH_1990
    return seconds * 1_000_000_000 + (stamps & np.uint64(0xFFFF_FFFF)).astype(np.int64)


def exact(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> Pairs:
    """Rows with equal timestamps.

    Where a timestamp is repeated, its first rows on both sides are paired, then its second ones.
    """
    stamps = [np.asarray(s).astype(np.uint64) for s in (left, right)]
    stamp = np.concatenate(stamps)
    turn = np.concatenate([_turns(s) for s in stamps])
    side = np.repeat([0, 1], [len(s) for s in stamps])
    order = np.lexsort((side, turn, stamp))
    a, b = order[:-1], order[1:]
    pair = (stamp[a] == stamp[b]) & (turn[a] == turn[b])  # then a is of the left and b not
    return Pairs(a[pair], b[pair] - len(stamps[0]))


def _turns(stamps: NDArray[np.uint64]) -> Rows:
    """Of every row, how many rows before it have its timestamp."""
    order = np.argsort(stamps, kind="stable")
    index = np.arange(len(stamps))
    new = np.ones(len(stamps), np.bool_)
    new[1:] = stamps[order[1:]] != stamps[order[:-1]]
    out = np.empty(len(stamps), np.int64)
    out[order] = index - np.maximum.accumulate(np.where(new, index, 0))
    return out


def nearest(left: NDArray[np.uint64], right: NDArray[np.uint64], within: int) -> Pairs:
    """For every row of the left its nearest in time of the right, at most ``within`` ns away.

    Of two that are equally near the earlier one counts. A row of the right may be the nearest of
    several, as a slow camera's frame is of many shots.
    """
    if isinstance(within, bool) or not isinstance(within, int | np.integer) or within < 0:
        raise ValueError(f"within: expected whole nanoseconds, 0 or more, got {within!r}")
    a, b = times(left), times(right)
    rows_a, rows_b = (np.argsort(t, kind="stable") for t in (a, b))
    a, b = a[rows_a], b[rows_b]
    if not len(b):
        return Pairs(rows_a[:0], rows_b[:0])
    after = np.searchsorted(b, a).clip(0, len(b) - 1)
    before = np.searchsorted(b, a, side="right").clip(1, len(b)) - 1
    chosen = np.where(np.abs(a - b[before]) <= np.abs(b[after] - a), before, after)
    close = np.abs(a - b[chosen]) <= within
    return Pairs(rows_a[close], rows_b[chosen[close]])
