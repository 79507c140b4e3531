"""Make a torn file segment anew from the chunks that its journal tells of."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.reading.contents import COMMITTED, TABLES
from ffb.source import RunInfo
from ffb.writers import layout
from ffb.writers.history import Written
from ffb.writers.journal import CHUNK


class Rebuilt(NamedTuple):
    """Where the chunks of the new file lie, and (dataset, first row, last row) that are lost."""

    chunks: NDArray[np.void]
    lost: list[tuple[str, int, int]]


class _Chunk(NamedTuple):
    """A chunk as the journal tells of it, and its bytes, ``None`` where they are gone."""

    chunk: int
    mask: int
    data: bytes | None


def rebuild(torn: Path, target: Path, told: Written, info: RunInfo) -> Rebuilt:
    """Write ``target``, a closed segment with exactly the committed rows of ``torn``, and sync it.

    Chunks go over as they are, filters and all; what ``torn`` does not hold any more reads as
    missing. Raises ``OSError`` when the disk refuses, or when what was written reads otherwise.
    """
    target.unlink(missing_ok=True)
    placed: list[tuple[int, int, int, int, int]] = []
    lost: list[tuple[str, int, int]] = []
    with _opened(torn) as source:
        with layout.open_new(target) as file:
            layout.create(file, info, told.schema, told.provenance)
            for i, name in enumerate(told.datasets):
                out, rows = file[name].id, told.lengths[name]
                out.set_extent((rows, *out.shape[1:]))
                per, origin = file[name].chunks[0], (0,) * (out.rank - 1)
                for c in _chunks(source, told, i, -(-rows // per)):
                    at = c.chunk * per
                    if c.data is None:
                        _lose(lost, told, name, range(at, min(at + per, rows)))
                        continue
                    out.write_direct_chunk((at, *origin), c.data, c.mask)
                    where = out.get_chunk_info_by_coord((at, *origin))
                    placed.append((i, c.chunk, where.byte_offset, where.size, c.mask))
            layout.set_counter(file[COMMITTED], told.first + told.rows)
        chunks = np.array(placed, CHUNK)
        with _opened(target) as result:
            _compare(source, result, told, chunks)
            os.fsync(result)
    return Rebuilt(chunks, lost)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def _chunks(source: int, told: Written, dataset: int, count: int) -> Iterator[_Chunk]:
    """The first ``count`` chunks of a dataset."""
    mine = told.chunks[told.chunks["dataset"] == dataset]
    places = {chunk: place for _, chunk, *place in mine.tolist()}
    for chunk in range(count):
        address, size, mask = places.get(chunk, (0, 0, 0))
        data = os.pread(source, size, address)
        yield _Chunk(chunk, mask, data if len(data) == size > 0 else None)


def _lose(lost: list[tuple[str, int, int]], told: Written, name: str, rows: range) -> None:
    """Enter rows of this segment as lost ones of the run; neighbours make one entry."""
    before = told.before.get(name, 0) if name in TABLES else told.first
    first, last = before + rows[0], before + rows[-1]
    if lost and lost[-1][0] == name and lost[-1][2] == first - 1:
        first = lost.pop()[1]
    lost.append((name, first, last))


def _compare(source: int, result: int, told: Written, chunks: NDArray[np.void]) -> None:
    """Raise ``OSError`` unless every chunk placed has the bytes of the one it was made from."""
    before = {(d, c): (address, size) for d, c, address, size, _ in told.chunks.tolist()}
    for d, c, address, size, _ in chunks.tolist():
        at, length = before[d, c]
        if os.pread(source, length, at) != os.pread(result, size, address):
            raise OSError(
                errno.EIO,
                f"{told.file}: chunk {c} of {told.datasets[d]} does not read back as written",
            )
