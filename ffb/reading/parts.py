"""One HDF5 file of a run, read while it grows: a file segment, or the whole run in a plain file.

Exports :class:`Part`, :class:`BrokenFileError`, :func:`open_h5` and :func:`patiently`.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from ffb.reading.contents import FOLDER, GROUP, LOG, ORDER_DTYPE, SUMS, TABLES, stored
from ffb.reading.lists import Flat, entries, padded
from ffb.schema import Column
from ffb.source import RunInfo

T = TypeVar("T")

#: Seconds for which a torn read is tried again.
PATIENCE_S = 1.0

#: Where HDF5's superblock (version 3) says whether somebody writes the file, and the two bits.
_FLAGS_AT, _WRITING = 11, 0b101

#: States of a dataset beside the numbers of committed rows: as it is now, and for good.
NOW, CLOSED = -1, -2


class BrokenFileError(OSError):
    """A file that cannot be read, and will not be by waiting."""


def patiently(action: Callable[[], T], wait: float = PATIENCE_S) -> T:
    """Repeat ``action`` while a writer is in the middle of something; the last error counts."""
    deadline, pause = time.monotonic() + wait, 0.001
    while True:
        try:
            return action()
        except BrokenFileError:
            raise
        except (OSError, RuntimeError):  # HDF5 calls a torn read by either name
            if time.monotonic() >= deadline:
                raise
        time.sleep(pause)
        pause = min(2 * pause, 0.05)


def open_h5(path: Path) -> h5py.File:
    """Open for reading without taking a lock that could hinder a writer.

    What nobody writes is never opened as if it grew: HDF5 then reads zeros where a file was cut
    off. Within one process all handles of a file must agree on how it is open, so where it is open
    already that way is tried too.
    """
    try:
        return h5py.File(path, "r", locking=False)
    except (OSError, RuntimeError) as e:
        size = path.stat().st_size
        if "truncated" in str(e) or not size:  # of nothing HDF5 would wait for the rest
            wrong = f"{path} is cut off: it has {size:,} bytes"
            if _written(path):  # by a writer in the middle of something, or cut off after all
                raise OSError(wrong) from e
            raise BrokenFileError(wrong) from e
    ways: list[dict[str, Any]] = [{"swmr": True, "locking": False}, {"swmr": True}, {}]
    for way in ways[:-1]:
        with contextlib.suppress(OSError, RuntimeError):
            return h5py.File(path, "r", **way)
    with _named(path):
        return h5py.File(path, "r", **ways[-1])


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the file of which HDF5 complains, and what may help."""
    try:
        yield
    except (OSError, RuntimeError) as e:
        if getattr(e, "errno", None) is not None or str(path) in str(e):
            raise  # it says enough
        why = str(e).rpartition("(")[2].rstrip(")")
        hint = ""
        if path.parent.suffix == FOLDER:
            hint = f"; see what 'ffb recover {path.parent.with_suffix('.h5')}' can restore"
        raise OSError(f"{path} cannot be read: HDF5 says {why!r}{hint}") from e


def _written(path: Path) -> bool:
    """Whether the file says that somebody writes it."""
    with path.open("rb") as file:
        head = file.read(_FLAGS_AT + 1)
    return len(head) > _FLAGS_AT and head[8] == 3 and bool(head[_FLAGS_AT] & _WRITING)


def identity(file: h5py.File) -> RunInfo:
    """Which run a file is of."""
    attrs = file[GROUP].attrs
    return RunInfo(str(attrs["exp"]), int(attrs["run"]), int(attrs["began"]))


class Part:
    """One HDF5 file of a run, opened when it is first needed.

    ``first`` is the run's row at which it begins, ``rows`` its number of rows, -1 while it grows;
    ``before`` are the lines of each table that stand in files before it, ``after`` those up to its
    end where another file follows. Rows are asked for by their number in the run. ``lists`` tells
    of columns that the file holds as entries end to end.
    """

    def __init__(
        self, path: Path, first: int = 0, epoch: int = 0, before: Mapping[str, int] | None = None
    ) -> None:
        self.path, self.first, self.epoch, self.before = path, first, epoch, dict(before or {})
        self.rows, self.after = -1, dict[str, int]()
        self._file: h5py.File | None = None
        self.lists: Mapping[str, Flat] = {}
        self._datasets: dict[str, tuple[h5py.Dataset, int]] = {}
        self._tables: dict[str, NDArray[Any]] = {}

    @property
    def file(self) -> h5py.File:
        """The HDF5 file. Raises ``BrokenFileError`` when it is not there, or cut off."""
        if self._file is None:
            # A recovery closes a segment some time before it writes the master that says so.
            closed = self.path.with_name(self.path.name.replace(".live.h5", ".h5"))
            for path in (self.path, closed):
                with contextlib.suppress(FileNotFoundError):
                    self._file = open_h5(path)
                    break
            else:
                raise BrokenFileError(f"{self.path} is missing")
        return self._file

    def close(self) -> None:
        """Give the file back."""
        if self._file is not None:
            self._file.close()
        self._file, self._datasets = None, {}

    def settle(self, path: Path, rows: int, after: Mapping[str, int]) -> None:
        """Learn how many rows and lines the file has in the end, and what it is called now."""
        if path != self.path and self._file is not None:
            held = os.fstat(self._file.id.get_vfd_handle())
            with contextlib.suppress(FileNotFoundError):
                if (there := os.stat(path)).st_ino != held.st_ino or there.st_dev != held.st_dev:
                    self.close()  # it was made anew from its chunks
        self.path, self.rows, self.after = path, rows, dict(after)

    def counter(self, name: str) -> int:
        """Value of ``COMMITTED`` or ``COMPLETE`` as it is now."""
        return int(self._dataset(name, NOW)[0])

    def text(self, name: str) -> str:
        """Text of one of ffb's datasets."""
        with _named(self.path):
            return str(self.file[name].asstr()[()])

    def read(self, name: str, rows: slice, rest: list[Any], committed: int) -> Any:
        """Rows of a column, all of them within this file, of a run with ``committed`` ones."""
        if name in self.lists:
            with _named(self.path):
                return padded(self.lists[name], self._closed, rows)[(slice(None), *rest)]

        def attempt() -> Any:
            with _named(self.path):
                data = self._dataset(name, committed if self.rows < 0 else CLOSED)
            if rows.stop - self.first > data.shape[0]:
                kind = OSError if self.rows < 0 else BrokenFileError
                raise kind(f"{self.path} is cut off: {name} ends before row {rows.stop - 1}")
            return data[(slice(rows.start - self.first, rows.stop - self.first, rows.step), *rest)]

        return patiently(attempt)

    def entries(self, name: str, rows: slice) -> tuple[NDArray[Any], NDArray[np.int64]] | None:
        """Entries of a list in consecutive rows, and how many each has, where they stand so."""
        if name not in self.lists:
            return None
        with _named(self.path):
            return entries(self.lists[name], self._closed, rows)

    def _closed(self, name: str) -> h5py.Dataset:
        return self._dataset(name, CLOSED)

    def table(self, name: str) -> NDArray[Any]:
        """Lines of a table, of an unfinished commit too while the file grows."""
        if name in self._tables:
            return self._tables[name]
        if name not in self.file:
            return np.empty(0, TABLES[name][0] if name in TABLES else ORDER_DTYPE)
        with _named(self.path):
            lines = patiently(lambda: np.asarray(self._dataset(name, NOW)[()]))
        if name in self.after:
            lines = self._tables[name] = lines[: self.after[name] - self.before.get(name, 0)]
        return lines

    @property
    def sums(self) -> dict[str, tuple[tuple[int, ...], dict[str, Any]]]:
        """Shape and attributes of each sum over shots, in a merged file."""
        with _named(self.path):
            return {k: (d.shape, dict(d.attrs)) for k, d in self.file.get(SUMS, {}).items()}

    def sum(self, name: str, key: Any) -> NDArray[Any]:
        """A sum over shots, or the part of it that ``key`` selects."""
        with _named(self.path):
            return np.asarray(self.file[SUMS][name][key])

    def faults(self, columns: Mapping[str, Column], rows: int, info: RunInfo) -> list[str]:
        """What is wrong with the file as such, in words, if it should have ``rows`` rows.

        ``columns`` are those it should have by their names in it.
        """
        try:
            return patiently(lambda: list(self._faults(columns, rows, info)))
        except (OSError, RuntimeError) as e:
            return [str(e).removeprefix(f"{self.path} ")]

    def _faults(self, columns: Mapping[str, Column], rows: int, info: RunInfo) -> Iterator[str]:
        if (mine := identity(self.file)) != info:
            yield f"is of {mine.exp} run {mine.run}, begun at {mine.began}"
        ends, here = [0], {k: f for k, f in self.lists.items() if k in columns}
        flat = dict.fromkeys(name for f in here.values() for name in f[:3])
        for f in here.values():
            yield from self._list_faults(f, rows)
        for name in (*(c for c in columns if c not in here), *flat, *TABLES):
            if name not in self.file:
                yield f"has no {name}"
                continue
            data = self._dataset(name, NOW)
            column = columns.get(name)
            kinds = (column.dtype, stored(column)) if column else ()
            if column and (data.dtype not in kinds or data.shape[1:] != column.shape):
                yield f"has {name} as {data.dtype} {data.shape[1:]}, not as it is listed"
            if column and data.shape[0] < rows:
                yield f"is cut off: {name} has {data.shape[0]:,} of {rows:,} rows"
            if data.chunks:
                lying: list[Any] = []
                data.id.chunk_iter(lying.append)
                ends += [chunk.byte_offset + chunk.size for chunk in lying]
                if column and self.path.parent.suffix == FOLDER:
                    found = [chunk.chunk_offset[0] for chunk in lying]
                    yield from self._holes(name, data.chunks[0], found, rows)
        # Of a file that is marked as being written HDF5 reads zeros where its end is missing.
        if (size := self.path.stat().st_size) < max(ends):
            yield f"is cut off: it has {size:,} bytes of {max(ends):,}"

    def _list_faults(self, flat: Flat, rows: int) -> Iterator[str]:
        if any(name not in self.file for name in flat[:3]):
            return  # which is told of each
        lengths, offsets = (self._dataset(name, NOW) for name in (flat.lengths, flat.offsets))
        if len(lengths) < rows or len(offsets) != len(lengths) + 1:
            yield f"is cut off: {flat.lengths} has {len(lengths):,} of {rows:,} rows"
        elif offsets[-1] != len(self._dataset(flat.values, NOW)):
            yield f"is cut off: {flat.values} does not end where {flat.offsets} says"

    def _holes(self, name: str, per: int, found: list[int], rows: int) -> Iterator[str]:
        """Committed rows, by their numbers in the run, of which no recovery found anything."""
        gone = np.setdiff1d(np.arange(0, rows, per), found)
        for span in np.split(gone, np.flatnonzero(np.diff(gone) != per) + 1):
            if len(span):
                first, last = self.first + span[0], self.first + min(rows, span[-1] + per) - 1
                yield f"has lost rows {first:,} to {last:,} of {name}, which read as missing"

    def log(self, begin: int, size: int) -> bytes:
        """Bytes of the log, by their place in that of the run."""
        begin -= self.before.get(LOG, 0)
        with _named(self.path):
            return patiently(lambda: bytes(self._dataset(LOG, NOW)[begin : begin + size]))

    def _dataset(self, name: str, when: int) -> h5py.Dataset:
        """A dataset as it is ``when``: at a number of committed rows, ``NOW``, or ``CLOSED``."""
        if name not in self._datasets:
            data = self.file[name]
            if data.id.get_create_plist().get_nfilters():
                import hdf5plugin  # noqa: F401 - HDF5 reads compressed columns from now on
            self._datasets[name] = data, when
        data, seen = self._datasets[name]
        if seen != when or when == NOW:
            # The cached extent and the cached last chunk are those of an earlier commit.
            data.refresh()
            self._datasets[name] = data, when
        return data
