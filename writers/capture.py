"""Captures: recordings of messages as they came, what ``replay`` reads.

A capture is a magic, then one record a message: the number of its frames and their sizes, the
frames, and a CRC over all that. Records are only ever appended, so a writer that is killed leaves
at most one torn record, at the end.
"""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from ffb.messaging.checksum import crc32
from ffb.wire import Frame, WireError

log = logging.getLogger(__name__)

MAGIC = b"ffbcapt1"
_COUNT, _SIZE, _CRC = struct.Struct("<H"), struct.Struct("<Q"), struct.Struct("<I")

#: Most frames and bytes of a record; a message has three frames and 1 GiB at most.
MAX_FRAMES, MAX_BYTES = 16, (1 << 30) + (1 << 23)


class CaptureWriter:
    """Appends messages to a new file at ``path``; raises ``FileExistsError`` if there is one."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file: BinaryIO = Path(path).open("xb")  # noqa: SIM115 - closed by close()
        self._file.write(MAGIC)

    def write(self, frames: Sequence[Frame]) -> None:
        """Append one message. A record that does not fit on the disk is taken back.

        Raises ``OSError`` then, and ``ValueError`` for what no reader would accept.
        """
        sizes = [len(f) for f in frames]
        if not 0 < len(sizes) <= MAX_FRAMES or sum(sizes) > MAX_BYTES:
            raise ValueError(f"{len(sizes)} frames of {sum(sizes)} bytes are not a message")
        head = _COUNT.pack(len(sizes)) + b"".join(map(_SIZE.pack, sizes))
        crc, start = crc32(head), self._file.tell()
        try:
            self._file.write(head)
            for frame in frames:
                crc = crc32(frame, crc)
                self._file.write(frame)
            self._file.write(_CRC.pack(crc))
            self._file.flush()
        except OSError:
            self._file.seek(start)
            self._file.truncate()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_capture(path: str | os.PathLike[str]) -> Iterator[list[bytes]]:
    """Frames of each message, in order.

    A torn record at the end is reported in the log and left out. Raises ``WireError`` for a file
    that is no capture, or that is damaged before its end.
    """
    with Path(path).open("rb") as file:
        end = os.fstat(file.fileno()).st_size
        if file.read(len(MAGIC)) != MAGIC:
            raise WireError(f"{path}: not a capture of this version")
        while (start := file.tell()) < end:
            try:
                frames = _record(file, end)
            except EOFError:
                log.warning("%s: torn record of %d bytes at its end left out", path, end - start)
                return
            except WireError as e:
                raise WireError(f"{path}, byte {start}: {e}") from e
            yield frames


def _record(file: BinaryIO, end: int) -> list[bytes]:
    head = _exactly(file, _COUNT.size, end)
    (count,) = _COUNT.unpack(head)
    if not 0 < count <= MAX_FRAMES:
        raise WireError(f"a message of {count} frames")
    sizes = _exactly(file, count * _SIZE.size, end)
    lengths = [size for (size,) in _SIZE.iter_unpack(sizes)]
    if sum(lengths) > MAX_BYTES:
        raise WireError(f"a message of {sum(lengths)} bytes")
    frames = [_exactly(file, size, end) for size in lengths]
    crc = crc32(head + sizes)
    for frame in frames:
        crc = crc32(frame, crc)
    if _CRC.unpack(_exactly(file, _CRC.size, end)) != (crc,):
        raise WireError("a message is damaged (its checksum differs)")
    return frames


def _exactly(file: BinaryIO, size: int, end: int) -> bytes:
    if size > end - file.tell():
        raise EOFError
    return file.read(size)
