"""Sums of a run in the making: files beside the segments to which deltas are appended.

There is one file for each :class:`Key`: a sum, what it adds up, a state of the lights, a step, and
the form that makes numbers comparable. A record is a piece of a delta as it came, with the number
of its message; or *folded*, all pieces of complete deltas before it as one. Nothing is held in
memory: whoever wants a sum folds the records. A delta counts where all its pieces are there, so
that whatever is torn, or was never sent, all that a sum says is of the same shots.

A record is a head (``magic``, bytes of the map, bytes of the values, CRC-32 of both), a msgpack
map, and the values. What follows a torn record does not count.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import numpy as np
from numpy.typing import NDArray

from ffb.messaging.checksum import crc32
from ffb.messaging.untrusted import MAX_SCHEMA
from ffb.sums.piece import Fates, SumPiece, together
from ffb.sums.words import COUNTS, What, what_of

_HEAD = struct.Struct("<4sIQI")
_MAGIC = b"ffbA"


def files_in(folder: Path) -> list[Path]:
    """Files of sums in the order in which they were begun."""
    return sorted(folder.glob("sum[0-9]*.log"), key=lambda path: int(path.stem[3:]))


#: A producer's process, a message of it and a piece in that, and a delta of it.
Process = tuple[str, int]
Mark = tuple[int, int]
Delta = tuple[str, int, int]


class Part(NamedTuple):
    """Which ``piece`` of how many of a delta, (0, 0) where it is whole, and its shots."""

    piece: int
    pieces: int
    fates: Fates


class Key(NamedTuple):
    """What a file of sums holds."""

    form: str
    sum: str
    what: str
    light: str
    step: int


class Record(NamedTuple):
    """A record of a file, from byte ``begin`` to ``end``, without its values, which are at ``at``.

    ``marks`` says up to which message of each process, and which piece in it, the file goes with
    it; ``deltas`` whose pieces it holds, with what became of their shots.
    """

    first: int
    dtype: str
    size: int
    begin: int
    at: int
    end: int
    marks: dict[Process, Mark]
    deltas: dict[Delta, Part]
    unit: str
    where: str
    shape: tuple[int, ...]


def packed(
    key: Key, record: Mapping[str, Any], values: NDArray[Any]
) -> tuple[bytes, memoryview | bytes]:
    """Head and map of a record, and its values."""
    data = np.ascontiguousarray(values)
    data = data.astype(data.dtype.newbyteorder("<"), copy=False)
    body = bytes(msgpack.packb({**key._asdict(), **record, "dtype": data.dtype.str}))
    raw = data.view(np.uint8).data if data.size else b""
    crc = crc32(raw, crc32(body))
    return _HEAD.pack(_MAGIC, len(body), data.nbytes, crc) + body, raw


def record_of(process: Process, seq: int, piece: SumPiece) -> dict[str, Any]:
    """What the record of a piece says of it, that came in message ``seq``."""
    return {
        "first": piece.first,
        "unit": piece.unit,
        "where": piece.where,
        "shape": list(piece.shape),
        "marks": [[*process, seq, piece.piece]],
        "deltas": [[*process, piece.delta, piece.piece, piece.pieces, *piece.fates]],
    }


def key_of(piece: SumPiece) -> Key:
    """Where a piece belongs."""
    return Key(piece.form, piece.sum, piece.what, piece.light, piece.step)


class LogFile:
    """A file of sums as it is now: its key, and all records that are whole.

    ``key`` is ``None`` where not even the first one is; ``end`` is the byte behind the last.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.end = path, 0
        self.key: Key | None = None
        self.records: list[Record] = []
        with path.open("rb") as f:
            self._inode = os.fstat(f.fileno()).st_ino
            for key, record in _records(f):
                self.key, self.end = self.key or key, record.end
                self.records.append(record)

    @property
    def marks(self) -> dict[Process, Mark]:
        """Up to which message of each process, and which piece in it, there are records."""
        out: dict[Process, Mark] = {}
        for r in self.records:
            for process, mark in r.marks.items():
                out[process] = max(mark, out.get(process, mark))
        return out

    def values(self, record: Record) -> NDArray[Any]:
        """Values of a record. Raises ``OSError`` when the file was folded since it was read."""
        with self.path.open("rb") as f:
            if os.fstat(f.fileno()).st_ino != self._inode:
                raise OSError(f"{self.path} was folded meanwhile: look again")
            return np.fromfile(f, record.dtype, record.size, offset=record.at)


def _records(f: Any) -> Iterator[tuple[Key, Record]]:
    at, size = 0, f.seek(0, 2)
    f.seek(0)
    while len(head := f.read(_HEAD.size)) == _HEAD.size:
        magic, length, nbytes, crc = _HEAD.unpack(head)
        values = at + _HEAD.size + length
        end = values + nbytes
        if magic != _MAGIC or length > MAX_SCHEMA or end > size:
            return
        body = f.read(length)
        if crc32(f.read(nbytes), crc32(body)) != crc:
            return
        told = msgpack.unpackb(body)
        key = Key(*(told[k] for k in Key._fields))
        marks = {(p, e): (seq, piece) for p, e, seq, piece in told["marks"]}
        deltas = {(p, e, d): Part(k, n, Fates(*f)) for p, e, d, k, n, *f in told["deltas"]}
        dtype = np.dtype(told["dtype"])
        place = (told["first"], dtype.str, nbytes // dtype.itemsize, at, values, end)
        said = (told["unit"], told["where"], tuple(told["shape"]))
        yield key, Record(*place, marks, deltas, *said)
        at = end


class Pieces:
    """Which deltas are ``complete``, as their pieces become known; ``known`` are all."""

    def __init__(self) -> None:
        self.known: set[Delta] = set()
        self.complete: set[Delta] = set()
        self._seen: dict[Delta, set[int]] = {}

    def note(self, deltas: Mapping[Delta, Part]) -> None:
        """Take what a record says of its deltas."""
        for delta, (piece, pieces, _) in deltas.items():
            self.known.add(delta)
            if delta in self.complete:
                continue
            seen = self._seen.setdefault(delta, set())
            seen.add(piece)
            if len(seen) >= pieces:  # of whole ones there are none
                self.complete.add(delta)
                del self._seen[delta]


class Folder:
    """All sums of a run in the making, as its files are now. Raises ``OSError``.

    ``unfinished`` counts deltas of which something is there, and not all.
    """

    def __init__(self, folder: Path) -> None:
        found = [LogFile(p) for p in files_in(folder)]
        self.files = {f.key: f for f in found if f.key is not None}
        pieces = Pieces()
        for r in (r for f in found for r in f.records):
            pieces.note(r.deltas)
        self.complete, self.unfinished = pieces.complete, len(pieces.known - pieces.complete)

    def fold(self, key: Key) -> NDArray[Any]:
        """The sum of all complete deltas."""
        return folded(self.files[key], self.complete)

    def fates(self, key: Key) -> Fates:
        """What became of shots in a sum, as of its complete deltas."""
        file = self.files.get(key._replace(what=COUNTS))
        told = {
            delta: part.fates
            for r in (file.records if file else ())
            for delta, part in r.deltas.items()
            if delta in self.complete
        }
        return together(told.values())


def folded(file: LogFile, complete: set[Delta]) -> NDArray[Any]:
    """Merge those records of a file whose deltas are ``complete``."""
    assert file.key is not None
    what: What = what_of(file.key.what)
    shape = file.records[0].shape
    out = what.begin((prod(shape),))
    for r in file.records:
        if r.size and all(d in complete for d in r.deltas):
            what.merge(out[r.first : r.first + r.size], file.values(r))
    return out.reshape(shape)
