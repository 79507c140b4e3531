"""Datasets that grow at their end, in whole chunks past HDF5's cache.

A full disk then is an error that can be repeated, where HDF5's cached writes end in a crash of the
process when the cache cannot be written back. It is the fastest way, too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from ffb.messaging.checksum import crc32
from ffb.messaging.codec import encode

#: Filter mask of a chunk that did not go through the filter of its dataset.
UNFILTERED = 1


class Rows(Protocol):
    """Rows of all columns: a batch, or a part of one."""

    @property
    def n(self) -> int:
        """How many."""
        ...

    @property
    def columns(self) -> Mapping[str, NDArray[Any]]:
        """Values (n, *shape) by column."""
        ...

    @property
    def encoded(self) -> Mapping[str, memoryview]:
        """Chunks ready for the file, of columns that came so."""
        ...


class Placed(NamedTuple):
    """A chunk: its number, its address and size in bytes, and which filters it did not pass."""

    chunk: int
    address: int
    size: int
    mask: int


class Growing:
    """A dataset that grows; rows wait here until they are written.

    Whole chunks are written once, the last one, padded with the missing value, anew whenever it
    got rows. Where writing fails nothing has advanced: call :meth:`write` again. ``placed`` takes
    up chunks that are new or moved, ``checks`` tells of all bytes that were new in a checked
    :meth:`write`, as records of ``journal.CHECK`` without the dataset; whoever has noted them
    clears both.

    The dataset is new, and its file was created without management of free space, so that what is
    new lies at the end of the file: to ask HDF5 for an address takes longer with every chunk.
    """

    def __init__(self, file: h5py.File, name: str) -> None:
        self.name, self.rows, self.total = name, 0, 0
        self.placed: list[Placed] = []
        self.checks: list[tuple[int, int, int, int]] = []
        self._file, dataset = file, file[name]
        self._id, self._size_of_file = dataset.id, file.id.get_filesize
        self._missing, self._chunk = dataset.fillvalue, int(dataset.chunks[0])
        self._row_shape: tuple[int, ...] = dataset.shape[1:]
        self._origin = (0,) * len(self._row_shape)
        self._waiting: deque[NDArray[Any]] = deque()
        self._tail = np.empty(dataset.chunks, dataset.dtype)
        self._extent, self._written = 0, 0
        self._last, self._told = Placed(-1, 0, 0, 0), False
        self._checked, self._known = True, 0  # rows of the last chunk that need no more checks
        self._row_bytes = dataset.dtype.itemsize * int(np.prod(self._row_shape, dtype=int))

    def append(self, rows: NDArray[Any]) -> None:
        """Take rows (n, *shape), C-contiguous; they must stay as they are until written."""
        self._waiting.append(rows)
        self.total += len(rows)

    def take(self, batches: Sequence[Rows], n: int) -> None:
        """Take this column of batches, ``n`` rows together, as :meth:`append` does."""
        name = self.name
        self._waiting.extend([b.columns[name] for b in batches])
        self.total += n

    def write(self, checked: bool = True) -> None:
        """Hand all waiting rows to the operating system; ``OSError`` when it has no room.

        Bytes that are synced before anybody relies on them need not be ``checked``.
        """
        self._checked = checked
        if self._extent < self.total:
            self._id.set_extent((self.total, *self._row_shape))
            self._extent = self.total
        self._consume()
        if self._written < self.rows and self.rows % self._chunk:
            self._put(*self._partial(self._tail), self.rows % self._chunk)
        self._written = self.rows

    def _consume(self) -> None:
        waiting = self._waiting
        if len(waiting) > 1 and len(waiting[0]) < self._chunk:  # few long writes, not many short
            self._waiting = waiting = deque([np.concatenate(waiting)])
        while waiting:
            rows = waiting[0]
            n = self._take(rows)
            self.rows += n
            if n < len(rows):
                waiting[0] = rows[n:]
            else:
                waiting.popleft()

    def _take(self, rows: NDArray[Any]) -> int:
        """Write the next chunk if ``rows`` fill it, else add them to its image; return how many."""
        at, chunk, tail = self.rows % self._chunk, self._chunk, self._tail
        n = min(chunk - at, len(rows))
        if n == chunk:
            self._put(*self._whole(rows[:n]))
            return n
        tail[at : at + n] = rows[:n]
        if at == 0:
            tail[n:] = self._missing
        elif at + n == chunk:
            self._put(*self._whole(tail))
        return n

    def _whole(self, rows: NDArray[Any]) -> tuple[Any, int]:
        """Bytes of a chunk that is full, and its filter mask."""
        return rows, 0

    def _partial(self, rows: NDArray[Any]) -> tuple[Any, int]:
        """Bytes of a chunk that will be written again, and its filter mask."""
        return rows, 0

    def _put(self, data: Any, mask: int, used: int = 0) -> None:
        """Write the chunk that holds row ``rows``; ``used`` rows of it are there, 0 for all."""
        number, size, last = self.rows // self._chunk, data.nbytes, self._last
        place = (number * self._chunk, *self._origin)
        stays = number == last.chunk and size == last.size
        end = 0 if stays else self._size_of_file()
        try:
            self._id.write_direct_chunk(place, data, mask)
        except (OSError, RuntimeError):
            self._reopen()
            raise
        if not stays:
            if not self._told:  # the first write makes the index as well, in front of the chunk
                end, self._told = self._id.get_chunk_info_by_coord(place).byte_offset, True
            self._last = Placed(number, end, size, mask)
            self.placed.append(self._last)
        begin, end = self._known if stays else 0, used or self._chunk
        if self._checked and begin < end:
            if isinstance(data, np.ndarray):
                at = begin * self._row_bytes, end * self._row_bytes
                self.checks.append((number, *at, crc32(data[begin:end])))
            else:
                self.checks.append((number, 0, size, crc32(data)))
        self._known = end

    def _reopen(self) -> None:
        """Make HDF5 forget the chunk that it could not write.

        It keeps the address in mind that it had chosen, and takes it at the next attempt for a
        chunk that the index has already: the data would be written and never found again.
        """
        del self._id
        self._id, self._told = self._file[self.name].id, False


class Packed(Growing):
    """A dataset of compressed chunks, which producers have compressed where the rows fit.

    The last chunk is not compressed before it is full.
    """

    def __init__(self, file: h5py.File, name: str, codec: str) -> None:
        super().__init__(file, name)
        self._codec = codec
        self._batches: deque[Rows] = deque()

    def take(self, batches: Sequence[Rows], n: int) -> None:
        """Take this column of batches, ``n`` rows together."""
        self._batches.extend(batches)
        self.total += n

    def _consume(self) -> None:
        super()._consume()
        while self._batches:
            batch = self._batches[0]
            fits = batch.n == self._chunk and self.rows % self._chunk == 0
            if fits and (ready := batch.encoded.get(self.name)):
                self._put(ready, 0)
                self.rows += batch.n
                self._batches.popleft()
                continue
            self._waiting.append(batch.columns[self.name])
            self._batches.popleft()
            super()._consume()

    def _whole(self, rows: NDArray[Any]) -> tuple[Any, int]:
        data = memoryview(encode(rows, self._codec))
        return (data, 0) if data.nbytes < rows.nbytes else (rows, UNFILTERED)

    def _partial(self, rows: NDArray[Any]) -> tuple[Any, int]:
        return rows, UNFILTERED
