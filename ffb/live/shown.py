"""What is shown of one run, and kept for later: a sink that may fail without costing a row."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from ffb.aggregating.beside import Contained
from ffb.live.model import Live
from ffb.live.refill import Refill
from ffb.live.snapshots import Album, beside
from ffb.schema import Schema
from ffb.sink import Counts, Provenance, Sink

log = logging.getLogger(__name__)

#: A snapshot is kept at most this often [ns], and at the end of the run.
KEEP_NS = 10_000_000_000


class Writer(Sink, Protocol):
    """A sink that writes a file."""

    @property
    def path(self) -> Path | None:
        """The file being written, or written last."""
        ...

    @property
    def books(self) -> Counts:
        """Counts of the last commit; once begun, those of an earlier life, if there was one."""
        ...


class Shown(Contained):
    """The live model of the run that ``writer`` writes, and the snapshots kept beside its file.

    After a restart the model is filled from the file; when it fails, its counts go on.
    """

    def __init__(self, writer: Writer | None = None) -> None:
        self._writer = writer
        self.live = Live(lambda: writer.books if writer else Counts())
        super().__init__(self.live)
        self.not_kept = ""
        self._found = 0  # commit up to which an earlier life came
        self._refill: Refill | None = None
        self._album: Album | None = None
        self._kept, self._kept_at = (0, False), -KEEP_NS

    @property
    def path(self) -> Path | None:
        """The file of the run, as soon as it has one."""
        return self._writer.path if self._writer else None

    def begin_run(self, *args: Any) -> None:
        """Pass on."""
        super().begin_run(*args)
        self._found = self.live.counts.commit

    def commit(self, counts: Counts) -> None:
        """Pass on; a model that has failed still tells the counts."""
        super().commit(counts)
        self.live.counts = counts

    def end_run(self, counts: Counts) -> None:
        """Pass on."""
        super().end_run(counts)
        self.live.counts, self.live.ended = counts, True

    def fail(self, e: Exception) -> None:
        """Show nothing but the counts from now on."""
        super().fail(e)
        info, counts, ended = self.live.info, self.live.counts, self.live.ended
        self.live = Live()
        self.live.begin_run(info, Schema(()), Provenance())
        self.live.counts, self.live.ended = counts, ended

    def fill(self) -> bool:
        """Read a block of the file, if that is needed; returns whether nothing is missing."""
        if not self.live.filling or self.path is None:
            return True
        try:
            self._refill = self._refill or Refill(self.live, self.path, self._found)
            done = self._refill.turn()
        except (OSError, RuntimeError, ValueError, LookupError) as e:
            self.fail(e)
            return True
        if done:
            self._refill = None
        return done

    def frame(self, status: Mapping[str, Any]) -> bytes:
        """Make a snapshot, of the counts alone if there is no other way."""
        try:
            return self.live.snapshot(status)
        except Exception as e:
            self.fail(e)
            return self.live.snapshot(status)

    def keep(self, now: int, frame: Callable[[], bytes]) -> None:
        """Keep the snapshot that ``frame`` gives, when one is due at ``now``, a monotonic time."""
        live, path = self.live, self.path
        state = (live.counts.commit, live.ended)
        if self.fault or live.filling or path is None or state in ((0, False), self._kept):
            return
        if now - self._kept_at < KEEP_NS and not live.ended:
            return
        self._kept_at = now
        try:
            self._album = self._album or Album(beside(path))
            self._album.add(live.counts.commit, frame())
        except OSError as e:
            self.not_kept = f"snapshots are not kept: {e}"
            log.warning("%s", self.not_kept)
        else:
            self._kept, self.not_kept = state, ""
