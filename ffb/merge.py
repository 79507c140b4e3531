"""Rows of several producers into one stream in timestamp order, within a horizon.

A row waits until every producer at work has passed it, yet no longer than the horizon. Waiting is
measured by our clock, never by timestamps, so that a timestamp from nowhere cannot hold the rest.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.batch import Batch
from ffb.schema import Schema
from ffb.window import Name

#: At least so many timestamps are remembered, to recognise a row that came twice.
REMEMBERED = 200_000


@dataclass
class _Pending:
    name: Name
    seq: int
    batch: Batch
    arrived: int
    rows: NDArray[np.intp]  # those not yet released


class Release(NamedTuple):
    """Rows in timestamp order, and how many of them each message (producer, seq) gave."""

    batch: Batch
    shares: Counter[tuple[Name, int]]


class Merge:
    """Merges batches of one schema.

    At first, for as long as the horizon, rows wait until ``expect`` producers have joined.
    ``late`` counts rows that came after newer ones had been released; they are released at once.
    ``duplicates`` counts rows whose timestamp had been released before.
    """

    def __init__(self, schema: Schema, horizon_ns: int, expect: int = 1) -> None:
        self.schema, self.horizon_ns, self.expect = schema, horizon_ns, expect
        self.late = self.duplicates = self.rows = 0
        self._pending: list[_Pending] = []
        self._position: dict[Name, int] = {}  # newest word of every producer's stream
        self._moved: dict[Name, int] = {}  # when it came, of those still at work
        self._released = self._highest = self._opened = 0
        self._young: set[int] = set()
        self._old: set[int] = set()

    def join(self, name: Name, now: int) -> None:
        """Expect rows of ``name``."""
        self._opened = self._opened if self._position else now
        self._position.setdefault(name, 0)
        self._moved[name] = now

    def leave(self, name: Name) -> None:
        """Wait for ``name`` no longer; its rows stay."""
        self._moved.pop(name, None)

    def add(self, name: Name, seq: int, batch: Batch, now: int, skip: int = 0) -> None:
        """Take the rows of a message, except for the ``skip`` oldest ones."""
        stamps = batch.columns["timestamp"]
        rows = np.sort(np.argsort(stamps, kind="stable")[skip:]) if skip else np.arange(batch.n)
        if rows.size == 0:
            return
        self.late += int(np.count_nonzero(stamps[rows] < self._released))
        self._pending.append(_Pending(name, seq, batch, now, rows))
        self.rows += rows.size
        self._position[name] = int(stamps[-1])
        self._moved[name] = now
        # Released rows beyond where every stream now stands had timestamps from nowhere.
        self._released = min(self._released, max(self._position.values()))

    def release(self, now: int, everything: bool = False) -> Release | None:
        """Rows that need not wait any longer, or ``None`` when there are none."""
        mark = max(self._watermark(now), self._released)
        taken: list[tuple[_Pending, NDArray[np.intp]]] = []
        for p in self._pending:
            rows = p.rows
            if not everything and now - p.arrived < self.horizon_ns:
                stamps = p.batch.columns["timestamp"]
                if int(stamps.max()) > mark:
                    rows = rows[stamps[rows] <= np.uint64(mark)]
            if rows.size:
                taken.append((p, rows))
        if not taken:
            return None
        for p, rows in taken:
            p.rows = (
                p.rows[:0] if rows is p.rows else np.setdiff1d(p.rows, rows, assume_unique=True)
            )
        self._pending = [p for p in self._pending if p.rows.size]
        batch = self._in_order(taken)
        self.rows -= batch.n
        self._remember(batch.columns["timestamp"])
        return Release(batch, Counter({(p.name, p.seq): rows.size for p, rows in taken}))

    def _watermark(self, now: int) -> int:
        """Oldest position of the producers at work: no older row is to be expected."""
        young = now - self._opened < self.horizon_ns
        if young and len({name for name, _ in self._position}) < self.expect:
            return 0
        at_work = [k for k, moved in self._moved.items() if now - moved < self.horizon_ns]
        return min((self._position[k] for k in at_work), default=(1 << 64) - 1)

    def _in_order(self, taken: list[tuple[_Pending, NDArray[np.intp]]]) -> Batch:
        stamps = np.concatenate([p.batch.columns["timestamp"][rows] for p, rows in taken])
        order = np.argsort(stamps, kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(order.size)
        out, at = Batch(self.schema, order.size), 0
        for p, rows in taken:
            to = place[at : at + rows.size]
            at += rows.size
            whole = rows.size == p.batch.n
            together = int(to[-1] - to[0]) == to.size - 1 and bool(np.all(np.diff(to) == 1))
            target = slice(int(to[0]), int(to[0]) + to.size) if together else to
            for name, column in p.batch.columns.items():
                out.columns[name][target] = column if whole else column[rows]
            out.read[target] = p.batch.read if whole else p.batch.read[rows]
        return out

    def _remember(self, stamps: NDArray[np.uint64]) -> None:
        """Count duplicates among the sorted ``stamps`` just released, and move on to them."""
        self.duplicates += int(np.count_nonzero(stamps[1:] == stamps[:-1]))
        keys = set(stamps.tolist())
        if int(stamps[0]) <= self._highest:
            self.duplicates += len(keys & self._young | keys & self._old)
        self._highest = max(self._highest, int(stamps[-1]))
        self._young |= keys
        if len(self._young) > REMEMBERED:
            self._young, self._old = set(), self._young
        top = np.uint64(max(self._position.values()))
        sane = int(np.searchsorted(stamps, top, side="right"))
        if sane:
            self._released = max(self._released, int(stamps[sane - 1]))
