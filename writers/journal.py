"""The journal of a run: an append-only record of every commit and of where its chunks lie.

A record is ``<u32 length, u32 crc32>``, the CRC over the length and the body, then the body: a
msgpack map with the key ``kind``. What follows a torn or damaged record does not count. A record
that :meth:`Journal.sync` has returned for outlives a power failure; where the rows that it tells of
were synced before it, they can be found again whatever became of the rest of their file.

Kinds and their fields:

======= ==========================================================================================
run     layout, exp, run, began
segment number, file, live, first (the run's row it begins at), epoch, schema (``Schema.packed``),
        provenance (a map of plain data), tables (for each table, lines before this segment's first)
commit  commit, segment, rows (of the run), tables (lines of the run), counts (``Counts`` without
        its ledger), chunks (records of ``CHUNK``, for chunks that are new or moved), checks
        (records of ``CHECK``, for all bytes that are new, unless they are synced), filled
        (segment, rows, tables, chunks, checks of segments that this commit filled), synced
        (whether all of it is synced), steps (plain data to go on with, where it changed)
closed  segment, rows (of the segment)
ended   counts
rebuilt segment, chunks (all of them), lost (dataset, first row, last row)
cut     number (of the next segment), counts and ledger (books that are still to be committed, see
        :mod:`ffb.writers.unsynced`); the commits that it cut are gone from the journal
======= ==========================================================================================
"""

from __future__ import annotations

import errno
import os
import re
import struct
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgpack
import numpy as np

from ffb.messaging.checksum import crc32

#: Where a chunk lies: its dataset (the columns in order of the schema, then ``contents.TABLES``),
#: its number within the segment, its bytes in the file, and which filters it was *not* put through.
CHUNK = np.dtype(
    [("dataset", "<u2"), ("chunk", "<u4"), ("address", "<u8"), ("size", "<u4"), ("mask", "<u4")]
)

#: What bytes ``begin`` to ``end`` of a chunk have to be: their CRC-32.
CHECK = np.dtype(
    [("dataset", "<u2"), ("chunk", "<u4"), ("begin", "<u4"), ("end", "<u4"), ("crc", "<u4")]
)

#: A disk writes so many bytes at once, or none of them.
SECTOR = 512

_HEAD = struct.Struct("<II")


class Journal:
    """A journal open for appending: created, or continued after cutting off a torn end.

    Every method raises ``OSError`` when the disk refuses; what is queued stays queued then, so
    that :meth:`write` can be repeated.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        new = not os.path.exists(self.path)
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o664)
        self._queue: list[bytes] = []
        try:
            self._size = 0 if new else scan(self.path).end
            os.ftruncate(self._fd, self._size)
            if new:
                sync_folder(os.path.dirname(self.path) or ".")
        except BaseException:
            self.close()
            raise

    def add(self, kind: str, **fields: Any) -> None:
        """Queue a record of plain data; numpy's scalars and mappings are taken too."""
        body = bytes(msgpack.packb({"kind": kind, **fields}, default=_plain))
        size = len(body).to_bytes(4, "little")
        self._queue.append(_HEAD.pack(len(body), crc32(body, crc32(size))) + body)

    def write(self) -> None:
        """Hand all that is queued to the operating system at once, or nothing of it."""
        data = b"".join(self._queue)
        try:
            # Not by O_APPEND: after a failure the next attempt overwrites what was torn.
            done = os.pwrite(self._fd, data, self._size)
            if done < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)
        except OSError:
            os.ftruncate(self._fd, self._size)
            raise
        self._size += len(data)
        self._queue.clear()

    def sync(self) -> None:
        """Return when all that was written would outlive a power failure."""
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Close it; what was queued and not written is gone."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


class Scan(NamedTuple):
    """How far a journal is whole: records, the byte after the last of them, and the file's size."""

    records: int
    end: int
    size: int


def read(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """All records up to the first that is torn or damaged; ``FileNotFoundError`` without a file."""
    for _, record in _walk(path):
        yield record


def scan(path: str | os.PathLike[str]) -> Scan:
    """Tell how far the journal is whole."""
    ends = [0, *(end for end, _ in _walk(path))]
    return Scan(len(ends) - 1, ends[-1], os.stat(path).st_size)


def damaged(path: str | os.PathLike[str]) -> bool:
    """Whether records were lost in the midst of a journal: whole ones follow the first bad one.

    A power failure may leave that, too, and then it is no damage, for nobody relied on those
    records: it shows by zeros up to the end of a sector, where pages were never written.
    """
    end, rest = _rest(path)
    for head, _ in _stranded(rest):
        sectors = range(-end % SECTOR, head, SECTOR)
        return not any(rest[max(0, s - 16) : s] == bytes(16) for s in sectors)
    return False


def commits(path: str | os.PathLike[str]) -> bool:
    """Whether any whole record of a commit is left, wherever in the file, and whatever precedes."""
    whole = (record["kind"] for record in read(path))
    stranded = (body["kind"] for _, body in _stranded(_rest(path)[1]))
    return "commit" in whole or "commit" in stranded


def _rest(path: str | os.PathLike[str]) -> tuple[int, bytes]:
    """Where the first torn or damaged record begins, and all bytes from there on."""
    end = scan(path).end
    with open(path, "rb") as f:
        f.seek(end)
        return end, f.read()


def _stranded(rest: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    """Whole records in ``rest`` behind what is torn, and where they begin."""
    for found in re.finditer(b"\xa4kind", rest):
        head = found.start() - 1 - _HEAD.size  # a map of at most 15 keys begins with one byte
        if head <= 0:
            continue
        length, crc = _HEAD.unpack_from(rest, head)
        body = rest[head + _HEAD.size :][:length]
        if len(body) == length and crc32(body, crc32(rest[head : head + 4])) == crc:
            yield head, msgpack.unpackb(body, strict_map_key=False)


def _walk(path: str | os.PathLike[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    with open(path, "rb") as f:
        size = os.fstat(f.fileno()).st_size
        while len(head := f.read(_HEAD.size)) == _HEAD.size:
            length, crc = _HEAD.unpack(head)
            if not 0 < length <= size - f.tell():
                return
            body = f.read(length)
            if len(body) < length or crc32(body, crc32(head[:4])) != crc:
                return
            yield f.tell(), msgpack.unpackb(body, strict_map_key=False)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Return when the names in ``folder`` would outlive a power failure."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not plain data: {value!r}")
