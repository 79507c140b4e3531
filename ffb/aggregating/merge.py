"""Rows of several producers into one stream in timestamp order, within a horizon.

A row waits until every producer at work has passed it, yet no longer than the horizon. Waiting is
measured by our clock, never by timestamps, so that a timestamp from nowhere cannot hold the rest.
Batches that no other overlaps pass as they are; where they do, their rows are interleaved.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.aggregating.interleave import Piece, Rows, interleave, order_of
from ffb.aggregating.order import Front, Positions, Stamps, bulk_end
from ffb.batch import Batch
from ffb.messaging.window import Name
from ffb.schema import EPOCH, LATE, PRODUCER, TIMESTAMP, Column

#: Batches of fewer bytes are strung together: what follows costs so much for each batch.
SMALL = 1 << 18

#: Everything is older than this.
END = (1 << 64) - 1


@dataclass
class _Pending:
    """The rows of a message not yet released: all but the ``done`` oldest."""

    name: Name
    seq: int
    index: int
    key: str
    batch: Batch
    arrived: int
    stamps: Stamps  # ascending
    order: NDArray[np.intp] | None  # rows in that order, None when they are so by themselves
    done: int = 0

    @property
    def left(self) -> int:
        return len(self.stamps) - self.done


class Release(NamedTuple):
    """Rows in timestamp order, and how many of them each message (producer, seq) gave."""

    batches: list[Batch]
    shares: Counter[tuple[Name, int]]


class _Taken(NamedTuple):
    producer: int
    piece: Piece
    whole: bool  # all rows of a batch, in order


class Merge:
    """Merges batches; those of different ``key`` never share a batch.

    At first, for as long as the horizon, rows wait until ``expect`` producers have joined. At most
    ``most`` rows wait; the oldest go on when there are more. ``rows`` wait, ``fresh`` ones came
    since the last release. Late rows, those that came after newer ones had been released, are
    released at once; ``front`` knows how far the stream has come. ``absent`` are those that are
    expected and will not come.
    """

    def __init__(self, horizon_ns: int, expect: int = 1, most: int = 1 << 20) -> None:
        self.horizon_ns, self.expect, self.most = horizon_ns, expect, most
        self.rows = self.fresh = 0
        self.absent: set[str] = set()
        self.front = Front()
        self._positions = Positions(horizon_ns)
        self._pending: list[_Pending] = []
        self._opened = 0

    def join(self, name: Name, now: int) -> None:
        """Expect rows of ``name``."""
        self._opened = self._opened if self._positions.at else now
        self._positions.join(name, now)

    def leave(self, name: Name) -> None:
        """Wait for ``name`` no longer; its rows stay."""
        self._positions.leave(name)

    def add(
        self, name: Name, seq: int, batch: Batch, now: int, index: int, key: str, skip: int = 0
    ) -> None:
        """Take the rows of a message, except for the ``skip`` oldest ones.

        ``index`` is that of the producer, ``key`` that of the batch's epoch.
        """
        stamps: Stamps = batch.columns[TIMESTAMP.name]
        if len(stamps) <= skip:
            return
        order = None
        if (stamps[1:] < stamps[:-1]).any():
            order = np.argsort(stamps, kind="stable")
            stamps = stamps[order]
        self._pending.append(_Pending(name, seq, index, key, batch, now, stamps, order, skip))
        self.rows += len(stamps) - skip
        self.fresh += len(stamps) - skip
        self._positions.move(name, bulk_end(stamps), now)
        self.front.settle(self._positions, now)

    def resume(self, newest: int, late: int, duplicates: int) -> None:
        """Go on behind rows that an earlier life released."""
        self.front = Front(newest, late, duplicates)

    def waiting(self) -> dict[str, int]:
        """Keys of the rows that wait, and since when their oldest ones do."""
        out: dict[str, int] = {}
        for p in self._pending:
            out[p.key] = min(out.get(p.key, p.arrived), p.arrived)
        return out

    def release(self, now: int, key: str, epoch: int, everything: bool = False) -> Release | None:
        """Rows of ``key`` that need not wait any longer, or ``None`` when there are none.

        Columns for producer, epoch and lateness are filled in; ``epoch`` is the number of ``key``.
        """
        self.fresh = 0
        mine = [p for p in self._pending if p.key == key]
        mark = END if everything else self._mark(mine, now)
        taken: list[_Taken] = []
        shares: Counter[tuple[Name, int]] = Counter()
        for p in mine:
            n = p.left if now - p.arrived >= self.horizon_ns else _upto(p, mark)
            if n:
                taken.append(_take(p, n))
                shares[p.name, p.seq] += n
        if not taken:
            return None
        self._pending = [p for p in self._pending if p.left]
        self.rows -= shares.total()
        batches = self._in_order(taken)
        furthest = self._positions.furthest
        for batch in batches:
            late = self.front.take(batch.columns[TIMESTAMP.name], furthest)
            batch.columns[EPOCH.name] = _filled(EPOCH, epoch, batch.n)
            batch.columns[LATE.name] = _filled(LATE, late > 0, batch.n)
            if 0 < late < batch.n:
                batch.columns[LATE.name] = np.arange(batch.n) < late
        return Release(batches, shares)

    def _mark(self, mine: Sequence[_Pending], now: int) -> int:
        """Up to which timestamp rows are released, whenever they came."""
        furthest = np.uint64(self._positions.furthest)
        mark = max(self._watermark(now), self.front.released)
        for p in mine:
            if now - p.arrived >= self.horizon_ns:
                sane = int(np.searchsorted(p.stamps, furthest, "right"))
                mark = max(mark, int(p.stamps[sane - 1]) if sane else 0)
        if self.rows > self.most and mine:
            stamps = np.concatenate([p.stamps[p.done :] for p in mine])
            at = min(self.rows - self.most, len(stamps)) - 1
            mark = max(mark, int(np.partition(stamps, at)[at]))
        return mark

    def _watermark(self, now: int) -> int:
        """Oldest position of the producers at work: no older row is to be expected."""
        at = self._positions.at
        young = now - self._opened < self.horizon_ns
        if young and len({name for name, _ in at} | self.absent) < self.expect:
            return 0
        return min((at[k] for k in self._positions.working(now)), default=END)

    def _in_order(self, taken: list[_Taken]) -> list[Batch]:
        """Batches that follow each other in time; large ones pass as they are where they can."""
        out: list[Batch] = []
        strung: list[_Taken] = []
        for group in _overlapping(taken):
            one = group[0]
            if len(group) > 1 or not one.whole or one.piece.batch.buffer.nbytes < SMALL:
                strung += group
                continue
            if strung:
                out.append(_string(strung))
                strung = []
            out.append(one.piece.batch)
            out[-1].columns[PRODUCER.name] = _filled(PRODUCER, one.producer, out[-1].n)
        if strung:
            out.append(_string(strung))
        return out


def _upto(p: _Pending, mark: int) -> int:
    """How many of the rows that wait are not beyond ``mark``."""
    if int(p.stamps[-1]) <= mark:
        return p.left
    return max(0, int(np.searchsorted(p.stamps, np.uint64(mark), "right")) - p.done)


def _take(p: _Pending, n: int) -> _Taken:
    """The ``n`` oldest rows that wait."""
    begin, end = p.done, p.done + n
    p.done = end
    rows: Rows = slice(begin, end) if p.order is None else p.order[begin:end]
    whole = n == len(p.stamps) and p.order is None
    return _Taken(p.index, Piece(p.batch, rows, p.stamps[begin:end]), whole)


def _overlapping(taken: list[_Taken]) -> Iterator[list[_Taken]]:
    """Groups in time order, of which none reaches into the next."""
    taken = sorted(taken, key=lambda t: int(t.piece.stamps[0]))
    group, last = [taken[0]], int(taken[0].piece.stamps[-1])
    for t in taken[1:]:
        if int(t.piece.stamps[0]) < last:
            group.append(t)
        else:
            yield group
            group = [t]
        last = max(last, int(t.piece.stamps[-1]))
    yield group


def _string(taken: Sequence[_Taken]) -> Batch:
    """One batch of all that is taken."""
    pieces = [t.piece for t in taken]
    order = order_of(pieces)
    one = len(taken) == 1 and taken[0].whole
    batch = pieces[0].batch if one else interleave(pieces, order)
    first = taken[0].producer
    of = _filled(PRODUCER, first, batch.n)
    if any(t.producer != first for t in taken):
        of = np.concatenate([_filled(PRODUCER, t.producer, len(t.piece.stamps)) for t in taken])
        of = of if order is None else of[order]
    batch.columns[PRODUCER.name] = of
    return batch


def _filled(column: Column, value: Any, n: int) -> NDArray[Any]:
    """``n`` times ``value``, for reading only: many batches share it."""
    size = max(1024, 1 << (n - 1).bit_length())
    return _shared(column.dtype, value, size)[:n]


@lru_cache(maxsize=64)
def _shared(dtype: str, value: Any, size: int) -> NDArray[Any]:
    out = np.full(size, value, dtype)
    out.flags.writeable = False
    return out
