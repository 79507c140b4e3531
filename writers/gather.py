"""One dataset of a run, gathered from the file segments in which it lies into a plain file.

Whole chunks that come from one place go over as they are, without unpacking; all other rows are
read, put in order and written anew. What stands in the plain file is compared with the segments
afterwards, chunk by chunk.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from ffb.messaging.codec import encode
from ffb.reading.parts import open_h5

#: Segments that are open at a time, and bytes of rows that are read at once (a chunk at least).
OPEN_FILES, UNIT_BYTES = 64, 8 << 20


class Files:
    """HDF5 files to read, opened when needed and kept open while there are not too many."""

    def __init__(self) -> None:
        self._open: dict[Path, h5py.File] = {}

    def __call__(self, path: Path) -> h5py.File:
        """The file at ``path``. Raises ``OSError`` that names it when it cannot be read."""
        file = self._open.pop(path, None)
        if file is None:
            if len(self._open) >= OPEN_FILES:
                self._open.pop(next(iter(self._open))).close()
            try:
                file = open_h5(path)
            except FileNotFoundError as e:
                raise FileNotFoundError(e.errno, f"{path} is missing") from e
            except OSError as e:
                raise e if str(path) in str(e) else OSError(f"{path} cannot be read: {e}") from e
        self._open[path] = file
        return file

    def close(self) -> None:
        """Close all of them."""
        while self._open:
            self._open.popitem()[1].close()


class Piece(NamedTuple):
    """Rows from ``first`` on of the whole, which are the first ``rows`` of ``name`` in a file."""

    path: Path
    name: str
    first: int
    rows: int


class Form(NamedTuple):
    """What a row is: rows of ``shape`` and ``dtype``, in chunks of ``codec``."""

    dtype: np.dtype[Any]
    missing: Any
    shape: tuple[int, ...] = ()
    codec: str = ""

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return prod(self.shape) * self.dtype.itemsize


class Tally(NamedTuple):
    """Chunks that went over as they are, and chunks written anew."""

    copied: int = 0
    anew: int = 0


class _Chunk(NamedTuple):
    """A chunk of the target: its first row, and the places of its rows in the whole."""

    row: int
    places: NDArray[np.int64]


class Joined:
    """A dataset of the whole run, ``rows`` long, of which ``pieces`` in order hold what there is.

    Rows are of ``form``; where no piece holds them they are missing. ``order`` tells for
    each row of the target its place in the whole; without it they are in the same order.
    """

    def __init__(
        self,
        files: Files,
        form: Form,
        pieces: Sequence[Piece],
        rows: int,
        order: NDArray[np.int64] | None = None,
    ) -> None:
        self._files, self._form, self._rows = files, form, rows
        self._pieces, self._order = [p for p in pieces if p.rows], order
        self._origin = (0,) * len(form.shape)
        self._data: dict[Piece, h5py.Dataset] = {}
        self._alike: dict[Piece, bool] = {}

    def check(self) -> None:
        """Raise ``OSError`` that names a file which is missing or holds less than it should."""
        for p in self._pieces:
            file = self._files(p.path)
            found = file[p.name].shape[0] if p.name in file else 0
            if found < p.rows:
                raise OSError(f"{p.path} is cut off: {p.name} has {found} of {p.rows} rows")

    def write(self, target: h5py.Dataset, before: Callable[[int], None]) -> Tally:
        """Fill ``target``; ``before`` is called with the bytes that are written next."""
        target.id.set_extent((self._rows, *self._form.shape))
        tally = Tally()
        for chunks in self._units(target):
            before(sum(c.places.size for c in chunks) * self._form.row_bytes)
            rest = []
            for c in chunks:
                if found := self._verbatim(target, c):
                    target.id.write_direct_chunk((c.row, *self._origin), found[1], found[0])
                else:
                    rest.append(c)
            for c, rows in self._gathered(rest):
                self._put(target, c.row, rows)
            tally = Tally(tally.copied + len(chunks) - len(rest), tally.anew + len(rest))
        return tally

    def compare(self, target: h5py.Dataset) -> None:
        """Raise ``OSError`` unless ``target`` reads as the pieces do."""
        wrong = -1
        if len(target) != self._rows:
            raise OSError(f"{target.name} has {len(target)} of {self._rows} rows")
        for chunks in self._units(target):
            rest = []
            for c in chunks:
                if found := self._verbatim(target, c):
                    if target.id.read_direct_chunk((c.row, *self._origin)) != found:
                        wrong = c.row
                else:
                    rest.append(c)
            for c, rows in self._gathered(rest):
                if target[c.row : c.row + len(rows)].tobytes() != rows.tobytes():
                    wrong = c.row
            if wrong >= 0:
                raise OSError(f"{target.name} does not read back as written from row {wrong} on")

    def all(self) -> NDArray[Any]:
        """All rows, in the order of the target."""
        return self.rows(0, self._rows)

    def rows(self, first: int, end: int) -> NDArray[Any]:
        """Rows from ``first`` to ``end`` of the target."""
        return self._take(np.arange(first, end) if self._order is None else self._order[first:end])

    def held(self) -> NDArray[np.bool_]:
        """Which rows of the target any piece holds; all others are missing."""
        out = np.zeros(self._rows, np.bool_)
        for p in self._pieces:
            out[p.first : p.first + p.rows] = True
        return out if self._order is None else out[self._order]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self._form.row_bytes

    def _take(self, places: NDArray[np.int64]) -> NDArray[Any]:
        """Rows at ``places`` of the whole, in that order."""
        form = self._form
        out = np.full((len(places), *form.shape), form.missing, form.dtype)
        by_place = np.argsort(places, kind="stable")
        sought = places[by_place]
        breaks = np.flatnonzero(np.diff(sought) != 1) + 1
        for a, b in pairwise([0, *breaks.tolist(), len(sought)] if len(sought) else []):
            begin, end = int(sought[a]), int(sought[b - 1]) + 1
            for p in self._within(begin, end):
                low, high = max(begin, p.first), min(end, p.first + p.rows)
                to = by_place[a + low - begin : a + high - begin]
                rows = self._dataset(p)[low - p.first : high - p.first]
                out[slice(to[0], to[-1] + 1) if _together(to) else to] = rows
        return out

    def _within(self, begin: int, end: int) -> Iterator[Piece]:
        """Pieces that hold some of the rows from ``begin`` to ``end``."""
        i = max(0, bisect_right(self._pieces, begin, key=lambda p: p.first) - 1)
        for p in self._pieces[i:]:
            if p.first >= end:
                return
            if p.first + p.rows > begin:
                yield p

    def _units(self, target: h5py.Dataset) -> Iterator[list[_Chunk]]:
        """All chunks of ``target``, so many at a time as are worth one read."""
        per: int = target.chunks[0]
        unit = per * max(1, UNIT_BYTES // (per * self._form.row_bytes))
        for first in range(0, self._rows, unit):
            end = min(first + unit, self._rows)
            places = np.arange(first, end) if self._order is None else self._order[first:end]
            yield [_Chunk(first + i, places[i : i + per]) for i in range(0, end - first, per)]

    def _gathered(self, chunks: Sequence[_Chunk]) -> Iterator[tuple[_Chunk, NDArray[Any]]]:
        """The chunks with their rows, read together."""
        if not chunks:
            return
        rows, at = self._take(np.concatenate([c.places for c in chunks])), 0
        for c in chunks:
            yield c, rows[at : at + len(c.places)]
            at += len(c.places)

    def _verbatim(self, target: h5py.Dataset, chunk: _Chunk) -> tuple[int, bytes] | None:
        """Filter mask and bytes of the chunk that is the same in a segment, if there is one."""
        per, first = target.chunks[0], int(chunk.places[0])
        if len(chunk.places) < per or not (self._order is None or _together(chunk.places)):
            return None
        for p in self._within(first, first + 1):
            data, at = self._dataset(p), first - p.first
            if at % per or at + per > p.rows or not self._same_form(p, data, target):
                return None
            where = (at, *self._origin)
            if data.id.get_chunk_info_by_coord(where).byte_offset is None:
                return None
            mask, stored = data.id.read_direct_chunk(where)
            return mask, stored
        return None

    def _same_form(self, piece: Piece, data: h5py.Dataset, target: h5py.Dataset) -> bool:
        if piece not in self._alike:
            self._alike[piece] = (data.chunks, data.dtype, _filters(data)) == (
                target.chunks,
                target.dtype,
                _filters(target),
            )
        return self._alike[piece]

    def _dataset(self, piece: Piece) -> h5py.Dataset:
        data = self._data.get(piece)
        if not data:  # or closed, because there were too many files
            data = self._data[piece] = self._files(piece.path)[piece.name]
        return data

    def _put(self, target: h5py.Dataset, row: int, rows: NDArray[Any]) -> None:
        """Write a chunk anew: encoded where that makes it smaller."""
        form, chunk, where = self._form, rows, (row, *self._origin)
        if len(rows) < target.chunks[0]:
            chunk = np.full(target.chunks, form.missing, form.dtype)
            chunk[: len(rows)] = rows
        data = encode(chunk, form.codec) if form.codec else b""
        if 0 < len(data) < chunk.nbytes:
            target.id.write_direct_chunk(where, data)
        else:
            unfiltered = 1 if form.codec else 0  # a bit for each filter it did not go through
            target.id.write_direct_chunk(where, np.ascontiguousarray(chunk), unfiltered)


def _filters(dataset: h5py.Dataset) -> list[Any]:
    made = dataset.id.get_create_plist()
    return [made.get_filter(i) for i in range(made.get_nfilters())]


def _together(indices: NDArray[np.int64]) -> bool:
    """Whether ``indices`` follow each other."""
    return indices[-1] - indices[0] == len(indices) - 1 and bool(np.all(np.diff(indices) == 1))
