"""Keep what producers add to sums, beside the file segments, until the run is merged.

Pieces are appended as they come, one file for each sum, state of the lights and step, and are there
before the commit that acknowledges them; a piece that comes again after a restart is known by the
number of its message. A file that has grown to several times what it says is folded.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np

from ffb.sums.log import (
    Key,
    LogFile,
    Mark,
    Part,
    Pieces,
    Process,
    files_in,
    folded,
    key_of,
    packed,
    record_of,
)
from ffb.sums.piece import SumPiece
from ffb.sums.words import what_of
from ffb.writers.journal import sync_folder

log = logging.getLogger(__name__)

#: A file is folded when it has grown to so many times the bytes of its sum, and to so many bytes.
FOLD_TIMES, FOLD_BYTES = 8, 1 << 20

#: Sums of a run are in so many files at most: steps, states of lights, and what is added up.
MAX_FILES = 50_000


class _Growing:
    """A file that grows."""

    def __init__(self, path: Path, end: int = 0, marks: dict[Process, Mark] | None = None) -> None:
        self.path, self.end, self.marks = path, end, marks or {}
        self.dirty = False

    def append(self, parts: Sequence[bytes | memoryview]) -> None:
        """Write a record behind the last whole one, over what a failure left there."""
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o664)
        try:
            os.ftruncate(fd, self.end)
            at = self.end
            for part in parts:
                rest = memoryview(part)
                while rest:
                    done = os.pwrite(fd, rest, at)
                    rest, at = rest[done:], at + done
        finally:
            os.close(fd)
        self.end, self.dirty = at, True

    def sync(self) -> None:
        """Return when all of it would outlive a power failure."""
        fd = os.open(self.path, os.O_RDONLY)
        try:
            os.fdatasync(fd)
        finally:
            os.close(fd)
        self.dirty = False


class SumFiles:
    """The files of sums in ``folder``, found as an earlier life left them.

    Every method raises ``OSError`` when the disk refuses, and can be repeated.
    """

    def __init__(self, folder: Path, sync_s: float = 1.0) -> None:
        self.folder, self._sync_s, self._synced = folder, sync_s, time.monotonic()
        self._files: dict[Key, _Growing] = {}
        self._pieces = Pieces()
        self._number, self._new, self._full = 0, False, False
        for path in files_in(folder):
            found = LogFile(path)
            self._number += 1
            if found.key is None:  # torn before its first record was whole
                path.unlink()
            else:
                self._files[found.key] = _Growing(path, found.end, found.marks)
                self._number = max(self._number, int(path.stem[3:]) + 1)
            for record in found.records:
                self._pieces.note(record.deltas)

    def add(self, process: Process, seq: int, piece: SumPiece) -> None:
        """Take a piece that came in message ``seq``; one that is there already is left."""
        key = key_of(piece)
        file = self._files.get(key) or self._begin()
        mark = (seq, piece.piece)
        if file is None or mark <= file.marks.get(process, (0, 0)):
            return
        record = record_of(process, seq, piece)
        file.append(packed(key, record, piece.values))
        file.marks[process] = mark
        self._files[key] = file
        part = Part(piece.piece, piece.pieces, piece.fates)
        self._pieces.note({(*process, piece.delta): part})
        size = prod(piece.shape) * np.dtype(what_of(piece.what).dtype).itemsize
        if file.end > FOLD_BYTES + FOLD_TIMES * size:
            self.fold(key)

    def sync(self, now: bool = False) -> None:
        """Make what was added outlive a power failure, if that is due or to be done ``now``."""
        dirty = [f for f in self._files.values() if f.dirty]
        if not dirty or not (now or time.monotonic() - self._synced >= self._sync_s):
            return
        for file in dirty:
            file.sync()
        if self._new:
            sync_folder(self.folder)
        self._new, self._synced = False, time.monotonic()

    def fold(self, key: Key) -> None:
        """Make one record of all that is complete in a file, and keep the others behind it."""
        self.sync(now=True)  # or a power failure could take pieces of deltas called complete here
        file, complete = self._files[key], self._pieces.complete
        found = LogFile(file.path)
        whole = [r for r in found.records if all(d in complete for d in r.deltas)]
        rest = [r for r in found.records if r not in whole]
        if len(whole) < 2:
            return
        told = {d: part.fates for r in whole for d, part in r.deltas.items()}
        marks = {p: max(r.marks[p] for r in whole if p in r.marks) for r in whole for p in r.marks}
        record = {
            "first": 0,
            "unit": whole[-1].unit,
            "where": whole[-1].where,
            "shape": list(whole[-1].shape),
            "marks": [[*process, *mark] for process, mark in marks.items()],
            "deltas": [[*delta, 0, 0, *fates] for delta, fates in told.items()],
        }
        temporary = _Growing(file.path.with_name(f".{file.path.name}"))
        temporary.append(packed(key, record, folded(found, complete)))
        for r in rest:
            temporary.append((_bytes(file.path, r.begin, r.end),))
        temporary.sync()
        os.replace(temporary.path, file.path)
        sync_folder(self.folder)
        file.end = temporary.end

    def _begin(self) -> _Growing | None:
        """Make the next file; ``None`` where there are too many: its deltas then do not count."""
        if len(self._files) >= MAX_FILES:
            if not self._full:
                log.error(
                    "folder=%s sums are in %d files: no more are kept", self.folder, MAX_FILES
                )
            self._full = True
            return None
        file = _Growing(self.folder / f"sum{self._number:04d}.log")
        self._number, self._new = self._number + 1, True
        return file


def _bytes(path: Path, begin: int, end: int) -> bytes:
    with path.open("rb") as f:
        f.seek(begin)
        return f.read(end - begin)
