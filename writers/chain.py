"""The file segments of a run being written: rows in, commits out, a new segment when it is time.

A commit is: chunks of columns and tables, a flush, the segments synced where that is due, a record
in the journal, that synced too, and then the counter that readers believe. The journal is the
truth; the counter never runs ahead of it.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from ffb.reading.contents import LAYOUT
from ffb.schema import Schema
from ffb.sink import Counts, Provenance
from ffb.source import RunInfo
from ffb.writers import layout, user_data
from ffb.writers.growing import Rows
from ffb.writers.history import plain_of
from ffb.writers.journal import Journal
from ffb.writers.lines import Lines
from ffb.writers.master import SegmentFile, folder_of, write_master
from ffb.writers.segment import Segment

log = logging.getLogger(__name__)

#: A reader that opened a master opens its segments later; their former names stay so long [s].
LINGER_S = 30.0

#: Room kept for HDF5's own metadata, which must never meet a full disk [bytes].
RESERVE = 1 << 20


class RefusedError(OSError):
    """A reason not to write, in a sentence of ours."""


class Rolling(NamedTuple):
    """A segment ends after so many rows, a multiple of 1024, or seconds; seconds between syncs.

    It takes rows on to where chunks end, after its time, too. ``reserve`` tells how many bytes are
    to stay free on the disk; only the last commit of a run may use them.
    """

    segment_rows: int = 1 << 20
    segment_s: float = 600.0
    sync_s: float = 1.0
    reserve: Callable[[], int] = int


class Begun(NamedTuple):
    """What there is of a run already: closed segments, and where the next one begins."""

    segments: tuple[tuple[SegmentFile, Schema], ...] = ()
    number: int = 0
    rows: int = 0
    tables: Mapping[str, int] = {}
    epoch: int = 0
    books: Counts = Counts()
    steps: Mapping[str, Any] | None = None


class Chain:
    """The segments of the run at ``path``, which is a master with its folder beside it.

    ``rows`` are committed, ``books`` are the counts of the last commit, ``segment`` is the one that
    grows. What raises ``OSError`` can be repeated when the cause is gone.
    """

    def __init__(
        self,
        path: Path,
        info: RunInfo,
        schema: Schema,
        provenance: Provenance,
        rolling: Rolling,
        begun: Begun,
    ) -> None:
        self.path, self.info, self.rolling = path, info, rolling
        self.folder, self.rows, self.books = folder_of(path), begun.rows, begun.books
        self._lines = Lines(begun.tables, len(begun.books.producers), begun.steps)
        self._tables, self._steps = dict(self._lines.handed), self._lines.steps
        self._closed, self._number = [*begun.segments], begun.number
        self._waiting: list[Rows] = []
        self._taken = self._placed = begun.rows  # rows appended, and those given to a segment
        self._noted: tuple[int, Counts] | None = None  # rows and books last said in the tables,
        self._recorded: tuple[int, Counts] | None = None  # and in the journal
        self._full: list[Segment] = []  # followed by others, to be committed with them
        self._done: list[Segment] = []  # committed, to be closed and shown so
        self._lingering: list[tuple[float, Path]] = []
        self._synced, self._due, self._complaint = time.monotonic(), False, ""
        self._inode, self._ended = -1, False
        self.folder.mkdir(exist_ok=True)
        self._journal = Journal(self.folder / "journal")
        try:
            if not begun.number:
                about = {"exp": info.exp, "run": info.run, "began": info.began}
                self._journal.add("run", layout=LAYOUT, **about)
            self.segment = self._begin(begun.epoch, schema, provenance)
            if not begun.segments:
                self._lines.epoch(begun.epoch, begun.rows, schema, provenance)
            self._journal.write()
            self._journal.sync()
            self._show()
        except BaseException:
            self._journal.close()
            raise

    @property
    def waiting(self) -> int:
        """Rows taken and not committed."""
        return self._taken - self.rows

    def append(self, batch: Rows) -> None:
        """Take rows, which must stay as they are until committed."""
        self._waiting.append(batch)
        self._taken += batch.n

    def step(self, step: int, values: Mapping[str, float], docstring: str) -> None:
        """Take the values of a step."""
        self._lines.step(step, values, docstring)

    def begin_epoch(self, epoch: int, schema: Schema, provenance: Provenance) -> None:
        """Begin a segment for rows of other columns or parameters, right after a commit."""
        if self.waiting:
            raise RefusedError(errno.EAGAIN, "rows of the epoch before wait to be committed")
        self._follow(self._begin(epoch, schema, provenance))
        self._lines.epoch(epoch, self.rows, schema, provenance)
        self._done, self._full = [*self._done, *self._full], []
        self._publish()

    def commit(self, counts: Counts, final: bool = False) -> None:
        """Make all rows taken so far count; ``final`` ones are synced whatever the time is."""
        self._look(0 if final else self.rolling.reserve())
        self._place()
        if final:
            self._lines.end()
        segments = [*self._full, self.segment]
        # Once due, always due until it is done: what was written meanwhile has no checks.
        due = self._due = (
            self._due or final or time.monotonic() - self._synced >= self.rolling.sync_s
        )
        if self._noted != (self._taken, counts):  # else said by a commit that failed afterwards
            self._lines.commit(counts, self._taken)
        for table, lines in self._lines.take():
            self.segment.add(table, lines)
        self._noted = self._taken, counts
        for segment in segments:
            segment.write(checked=not due)
        for segment in [*self._done, *segments] if due else ():
            segment.sync()
        self._record(counts, due)
        self._journal.write()
        if due:
            self._journal.sync()
            self._synced, self._due = time.monotonic(), False
        for segment in segments:
            segment.settle()
        self.segment.show()  # the full ones when the next are shown: readers see whole commits
        self.rows, self.books, self._tables = self._taken, counts, dict(self._lines.handed)
        self._done, self._full = [*self._done, *self._full], []
        self._publish()

    def end(self, counts: Counts) -> None:
        """Commit, and close everything for good."""
        if not self._ended:
            self.commit(counts, final=True)
            self._ended = True
        self._close()

    def close(self) -> None:
        """Close everything as it is, to be continued; what is not committed is dropped."""
        try:
            self._close()
        finally:
            self._journal.close()

    def _look(self, reserve: int) -> None:
        """Find out what HDF5 would not say: a file that is no longer there, or no room."""
        for path, inode in (
            (self.folder / self.segment.live, self.segment.inode),
            (self.path, self._inode),
        ):
            if not path.exists() or path.stat().st_ino != inode:
                gone = f"{path.name} was removed or replaced; end this run and begin it again"
                raise RefusedError(errno.ENOENT, gone)
        rows = sum(b.n for b in self._waiting)
        self._find_room(self.segment.schema, reserve, rows * sum(self.segment.schema.row_bytes))

    def _find_room(self, schema: Schema, reserve: int, size: int = 0) -> None:
        size += layout.overhead(schema) + RESERVE
        stat = os.statvfs(self.folder)
        if (free := stat.f_bavail * stat.f_frsize) < size + reserve:
            kept = f" and {reserve / 1e6:,.0f} MB kept free" if reserve else ""
            need = f"{free / 1e6:.1f} MB free, {size / 1e6:.1f} MB needed{kept}: make room"
            raise RefusedError(errno.ENOSPC, need)

    def _begin(self, epoch: int, schema: Schema, provenance: Provenance) -> Segment:
        """Make the next segment, for rows from those on that have found a place."""
        self._find_room(
            schema, self.rolling.reserve(), user_data.size_of(self.folder, epoch, provenance)
        )
        user_data.write(self.folder, epoch, provenance)
        where = (self.folder, self._number, self._placed, epoch, self._lines.handed)
        segment = Segment(*where, self.info, schema, provenance)
        self._journal.add("segment", **segment.record)
        self._number += 1
        return segment

    def _follow(self, segment: Segment) -> None:
        """Let ``segment`` take what comes; the one before is closed when it is committed."""
        if self.segment.used:
            self._full.append(self.segment)
        else:
            self.segment.discard()
        self.segment = segment

    def _roll(self) -> bool:
        """Go on in a new segment if one can be made; say whether."""
        now = self.segment
        try:
            self._follow(self._begin(now.epoch, now.schema, now.provenance))
        except (OSError, RuntimeError) as e:
            self._complain(f"no new segment can be begun, {now.live} goes on: {e}")
            return False
        return True

    def _place(self) -> None:
        """Give waiting rows to segments, each of which is filled before the next one begins."""
        while self._placed < self._taken:
            n = self._taken - self._placed
            now = self.segment
            over = now.total > 0 and now.age >= self.rolling.segment_s
            if room := now.room(self.rolling.segment_rows, over):
                n = min(n, room)
            elif self._roll():
                continue
            batches, self._waiting = _cut(self._waiting, n)
            self._lines.rows(batches, self._placed)
            self.segment.take(batches, n)
            self._placed += n

    def _record(self, counts: Counts, synced: bool) -> None:
        """Queue the record of a commit, which tells of segments that it filled, too."""
        filled = [
            {
                "segment": s.number,
                "rows": s.first + s.total,
                "tables": after.before,
                "chunks": s.moved(),
                "checks": s.checks(),
            }
            for s, after in pairwise([*self._full, self.segment])
        ]
        chunks, steps = self.segment.moved(), self._lines.steps
        told, self._recorded = self._recorded, (self._taken, counts)
        if told == self._recorded and not chunks and not any(f["chunks"] for f in filled):
            return  # it is queued already, by a commit that failed afterwards
        more = {"steps": steps} if steps != self._steps else {}
        self._steps = steps
        self._journal.add(
            "commit",
            commit=counts.commit,
            segment=self.segment.number,
            rows=self._taken,
            tables=self._lines.handed,
            counts=plain_of(counts),
            chunks=chunks,
            checks=self.segment.checks(),
            filled=filled,
            synced=synced,
            **more,
        )

    def _publish(self) -> None:
        """Close what is full and let readers see what follows; if that fails, at the next commit.

        Rows are safe without it, only not seen yet.
        """
        if not (self._done or self._inode < 0):
            return
        try:
            self._show()
        except (OSError, RuntimeError) as e:
            self._inode = self.path.stat().st_ino if self.path.exists() else -1
            self._complain(f"new rows cannot be shown to readers yet: {e}")
        else:
            self._complain("")

    def _show(self) -> None:
        """Let a new master show what grows now, and close what was full before."""
        for s in self._done:
            s.name()
        segments = [*self._closed, *(_listed(s) for s in self._done)]
        now = _listed(self.segment)
        grows = now[0]._replace(file=self.segment.live, rows=-1)
        self._write_master([*segments, (grows, now[1])])
        for s in self._done:
            s.close()
        self._close_books(self._done)
        self._closed, self._done = segments, []

    def _close_books(self, segments: list[Segment]) -> None:
        """Enter segments as closed, and forget the names of those that were so long ago."""
        now = time.monotonic()
        for s in segments:
            self._journal.add("closed", segment=s.number, rows=s.committed)
            self._lingering.append((now + LINGER_S, self.folder / s.live))
        while self._lingering and self._lingering[0][0] < now:
            self._lingering.pop(0)[1].unlink(missing_ok=True)

    def _write_master(
        self, segments: list[tuple[SegmentFile, Schema]], complete: bool = False
    ) -> None:
        about = (self.info, segments, self.segment.provenance, self.books, self._tables, complete)
        write_master(self.path, *about)
        self._inode = self.path.stat().st_ino

    def _close(self) -> None:
        left = [*self._done, *self._full, self.segment]
        for s in left:
            if not s.said:
                s.discard()
        last = [s for s in left if s.said]
        for s in last:
            s.close()
        # From here on the run has ended, for readers and for whoever would go on with it.
        self._write_master([*self._closed, *(_listed(s) for s in last)], self._ended)
        self._close_books(last)
        if self._ended:
            self._journal.add("ended", counts=plain_of(self.books))
        self._journal.write()
        self._journal.sync()
        self._journal.close()

    def _complain(self, why: str) -> None:
        """Log what is wrong once, and when it is over."""
        if why != self._complaint:
            log.warning("file=%s %s", self.path, why or "all is well again")
        self._complaint = why


def _listed(s: Segment) -> tuple[SegmentFile, Schema]:
    return SegmentFile(s.file, s.first, s.committed, s.epoch, s.before), s.schema


def _cut(batches: list[Rows], n: int) -> tuple[list[Rows], list[Rows]]:
    """The first ``n`` rows of ``batches``, and the others."""
    head: list[Rows] = []
    for i, batch in enumerate(batches):
        if not n:
            return head, batches[i:]
        if batch.n > n:
            parts = [
                SimpleNamespace(
                    n=len(range(*rows.indices(batch.n))),
                    columns={k: v[rows] for k, v in batch.columns.items()},
                    encoded={},
                )
                for rows in (slice(n), slice(n, None))
            ]
            return [*head, parts[0]], [parts[1], *batches[i + 1 :]]
        head.append(batch)
        n -= batch.n
    return head, []
