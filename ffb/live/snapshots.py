"""Snapshots kept beside a run, so that what the page showed can be checked against the file later.

``<name>.snapshots`` is a magic, then one record a snapshot: its size, a CRC, the number of its
commit, the frame. Records are only ever appended, so whoever is killed leaves at most one torn
record, at the end; when the file gets large, every second snapshot goes, and a new file takes the
old one's name.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ffb.messaging.checksum import crc32

MAGIC = b"ffbsnap1"
_HEAD = struct.Struct("<QQI")  # size, commit, CRC over both and the frame

#: Bytes that the snapshots of a run may take.
MOST = 64 << 20


class Kept(NamedTuple):
    """A snapshot and the commit it was made at."""

    commit: int
    frame: bytes


class DamagedError(ValueError):
    """A record is not what was written; those before it are."""


def beside(file: Path) -> Path:
    """Where the snapshots of the run in ``file`` are kept."""
    return file.with_suffix(".snapshots")


class Album:
    """Keeps snapshots at ``path``, at most ``most`` bytes of them; goes on with what is there.

    Raises ``FileExistsError`` for a file of another kind.
    """

    def __init__(self, path: Path, most: int = MOST) -> None:
        self.path, self.most = path, most
        self._size = _sound(path) if path.exists() else 0

    def add(self, commit: int, frame: bytes) -> None:
        """Keep a snapshot; one that is larger than all of them may be is left out.

        Raises ``OSError`` when it cannot be written; what was kept before stays as it is.
        """
        record = _record(Kept(commit, frame))
        if len(MAGIC) + len(record) > self.most:
            return
        while self._size + len(record) > self.most:
            self._thin(self.most - len(record))
        with self.path.open("r+b" if self._size else "wb") as file:
            file.truncate(self._size)
            file.seek(self._size)
            try:
                file.write(record if self._size else MAGIC + record)
                file.flush()
            except OSError:
                file.truncate(self._size)
                raise
            self._size = file.tell()

    def _thin(self, room: int) -> None:
        """Let go of every second snapshot, until they fit into ``room``; the newest one stays."""
        kept = [*read(self.path)]
        while sum(len(k.frame) + _HEAD.size for k in kept) + len(MAGIC) > room and kept:
            kept = kept[:-1][::2] + kept[-1:] if len(kept) > 1 else []
        new = self.path.with_name(f".{self.path.name}.new")
        new.write_bytes(MAGIC + b"".join(map(_record, kept)))
        os.replace(new, self.path)
        self._size = self.path.stat().st_size


def read(path: str | os.PathLike[str]) -> Iterator[Kept]:
    """Snapshots in the order of their commits; a torn record at the end is left out.

    Raises :class:`DamagedError` when it comes to a record that is damaged, and ``ValueError`` for
    a file of another kind.
    """
    with Path(path).open("rb") as file:
        end = os.fstat(file.fileno()).st_size
        if file.read(len(MAGIC)) != MAGIC:
            raise ValueError(f"{path}: no snapshots are kept in this file")
        while (at := file.tell()) + _HEAD.size <= end:
            head = file.read(_HEAD.size)
            size, commit, crc = _HEAD.unpack(head)
            if at + _HEAD.size + size > end:
                return
            frame = file.read(size)
            if _crc(size, commit, frame) != crc:
                raise DamagedError(f"{path}: the snapshot at byte {at} is damaged")
            yield Kept(commit, frame)


def _record(kept: Kept) -> bytes:
    size = len(kept.frame)
    return _HEAD.pack(size, kept.commit, _crc(size, *kept)) + kept.frame


def _crc(size: int, commit: int, frame: bytes) -> int:
    return crc32(frame, crc32(struct.pack("<QQ", size, commit)))


def _sound(path: Path) -> int:
    """Bytes of the file at ``path`` that are whole records; 0 where it was only just begun."""
    with path.open("rb") as file:
        if len(begun := file.read(len(MAGIC))) < len(MAGIC) and MAGIC.startswith(begun):
            return 0
    size = len(MAGIC)
    try:
        for kept in read(path):
            size += _HEAD.size + len(kept.frame)
    except DamagedError:
        return size
    except ValueError as e:
        raise FileExistsError(f"{e}, and it is left as it is") from e
    return size
