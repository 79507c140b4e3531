"""The small data of a run: one HDF5 file that grows, readable at every moment.

Exports :class:`SmallData`, a sink. One commit is: columns written in whole chunks, the tables of
commits, losses and steps, a flush, and then the counter ``ffb/committed``, in that order; a reader
that believes the counter sees whole rows only, and so does whoever continues the file after its
writer was killed. Layout: :mod:`ffb.writers.layout`; names: :mod:`ffb.reader`.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path

import h5py
import numpy as np

from ffb import reader
from ffb.batch import Batch
from ffb.schema import Schema
from ffb.sink import Counts, Provenance
from ffb.source import RunInfo
from ffb.writers import layout
from ffb.writers.h5clear import clear
from ffb.writers.lease import Lease

log = logging.getLogger(__name__)

#: The oldest format that can be read while it grows: what newer ones add, older readers refuse.
FORMAT = ("v110", "v110")

#: Room kept for HDF5's own metadata, which must never meet a full disk [bytes].
RESERVE = 1 << 20


class SmallData:
    """A sink that writes ``<directory>/<name>``, by default ``<exp>_Run<NNNN>.h5``.

    A file that a killed writer left behind is continued when it is of the same run and schema;
    :meth:`resume` then tells what is in it. Any other file of that name is left alone, and the
    run goes to ``<name>_2.h5``, ``_3`` and so on. ``path`` is the file being written or written
    last, ``rows`` the number of rows committed, ``books`` the counts at the last commit.

    :meth:`commit` raises ``OSError`` with a sentence when it cannot write; rows then wait in
    memory and the next commit writes them too, so they must not be appended again.
    """

    def __init__(
        self, directory: str | os.PathLike[str], name: str = "{exp}_Run{run:04d}.h5"
    ) -> None:
        self.directory, self.name = Path(directory), name
        self.path: Path | None = None
        self.rows, self.books = 0, Counts()
        self._file: h5py.File | None = None
        self._ended = False

    def begin_run(self, info: RunInfo, schema: Schema, provenance: Provenance) -> None:
        """Create the file, or continue the one that this run has already.

        Raises ``OSError`` when the directory cannot be written, has no room, or when another
        process is writing this run.
        """
        if self._file is not None:
            raise RuntimeError(f"{self.path} is still open: end its run before the next begins")
        self.rows, self.books, self._noted, self._bytes = 0, Counts(), (-1, Counts()), 0
        self._ended, self._schema, notes = False, schema, list(provenance.notes)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            for path in self._candidates(info):
                lease = Lease(path)
                try:
                    _part(path).unlink(missing_ok=True)  # left by a writer killed while creating
                    why = _foreign(path, info, schema) if path.exists() else ""
                    if not why and path.exists():
                        self._continue(path)
                    elif not why:
                        about = replace(provenance, notes=tuple(notes))
                        self._create(path, info, schema, about)
                finally:
                    if self._file is None:
                        lease.release()
                if not why:
                    self._lease, self.path = lease, path
                    return
                notes.append(f"{path.name} is left as it is: {why}")
                log.warning("file=%s left as it is: %s", path, why)
        except (PermissionError, NotADirectoryError) as e:
            why = os.strerror(e.errno or errno.EACCES)
            raise OSError(e.errno, f"{self.directory}: cannot be written: {why}") from e

    def _candidates(self, info: RunInfo) -> Iterator[Path]:
        first = self.directory / self.name.format(exp=info.exp, run=info.run)
        yield first
        for n in count(2):
            yield first.with_name(f"{first.stem}_{n}{first.suffix}")

    def _create(self, path: Path, info: RunInfo, schema: Schema, provenance: Provenance) -> None:
        """Make the file under another name and let it appear when readers can open it."""
        if full := _no_room(self.directory, layout.overhead(schema) + RESERVE):
            raise OSError(errno.ENOSPC, f"{self.directory}: {full}")
        part = _part(path)
        file = h5py.File(part, "x", libver=FORMAT, locking=False)
        try:
            layout.create(file, info, schema, provenance)
            file.swmr_mode = True
            file.flush()
            os.link(part, path)
        except BaseException:
            file.close()
            part.unlink()
            raise
        part.unlink()
        self._use(file, schema, {})

    def _continue(self, path: Path) -> None:
        with reader.open(path) as run:
            self.rows, self.books, schema = run.committed, run.counts, run.schema
            rows = layout.table_rows(run)
        access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
        access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
        access.set_file_locking(False, False)
        access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
        flags = h5py.h5f.ACC_RDWR | h5py.h5f.ACC_SWMR_WRITE
        self._use(h5py.File(h5py.h5f.open(os.fsencode(path), flags, access)), schema, rows)
        log.info("file=%s continued at row=%d commit=%d", path, self.rows, self.books.commit)

    def _use(self, file: h5py.File, schema: Schema, rows: Mapping[str, int]) -> None:
        self._columns = {c.name: layout.Growing(file[c.name], self.rows) for c in schema.columns}
        self._tables = {k: layout.Growing(file[k], rows.get(k, 0)) for k in layout.TABLES}
        self._counter = file[reader.COMMITTED]
        self._overhead = layout.overhead(schema) + RESERVE
        self._inode = os.fstat(file.id.get_vfd_handle()).st_ino
        self._file = file

    def resume(self) -> dict[tuple[str, int], int]:
        """Tell for each (producer, epoch) the last ``seq`` that the continued file holds.

        Empty for a new file. It is what ``Counts.producers`` of the last commit says, where all
        else is found that was said with it.
        """
        return {
            (str(p.get("producer", name)), int(p["epoch"])): int(p["seq"])
            for name, p in self.books.producers.items()
            if "epoch" in p and "seq" in p
        }

    def begin_epoch(self, epoch: int, schema: Schema, provenance: Provenance) -> None:
        """Refuse: columns cannot change within one file."""
        raise NotImplementedError

    def append(self, batch: Batch) -> None:
        """Take rows in timestamp order; the batch must stay as it is until committed.

        Raises ``ValueError`` when its schema is not that of the run.
        """
        self._opened()
        if batch.schema.id != self._schema.id:
            raise ValueError(
                f"a batch of schema {batch.schema.id.hex()} in a file of schema"
                f" {self._schema.id.hex()}: columns cannot change within a run's file"
            )
        for name, growing in self._columns.items():
            growing.append(batch.columns[name])
        self._bytes += batch.buffer.nbytes

    def step(self, step: int, values: Mapping[str, float], docstring: str) -> None:
        """Note that a new step began after the rows appended so far; written at next commit."""
        self._opened()
        row = self._appended()
        line = {"step": step, "row": row, "values": dict(values), "docstring": docstring}
        at, size = self._say(line)
        table = np.array([(step, row, at, size)], reader.STEP_DTYPE)
        self._tables[reader.STEPS].append(table)

    def commit(self, counts: Counts) -> None:
        """Write all rows appended so far and let readers see them.

        Raises ``OSError`` with a sentence; repeat it when the cause is gone.
        """
        file, rows = self._opened(), self._appended()
        self._look()
        with self._refusing():
            for growing in self._columns.values():
                growing.write()
            self._note(counts, rows)
            for table in self._tables.values():
                table.write()
            file.flush()  # before the counter: it must never run ahead of what it counts
            layout.set_counter(self._counter, rows)
        self.rows, self.books, self._bytes = rows, counts, 0

    def _look(self) -> None:
        """Find out what HDF5 would not say: a file that is no longer there, or no room."""
        assert self.path is not None
        if not self.path.exists() or self.path.stat().st_ino != self._inode:
            gone = "the file was removed or replaced; end this run and begin it again"
            raise self._refusal(errno.ENOENT, gone)
        if full := _no_room(self.directory, self._bytes + self._overhead):
            raise self._refusal(errno.ENOSPC, full)

    def _note(self, counts: Counts, rows: int) -> None:
        """Append to the tables, once for each state of the books."""
        if self._noted == (rows, counts):  # said already, by a commit that failed afterwards
            return
        now, lost = time.time_ns(), sum(counts.lost.values())
        at, size = self._say({"rows": rows, "time": now} | vars(counts))
        numbers = (counts.commit, rows, now, counts.read, counts.written, lost, counts.late)
        self._tables[reader.COMMITS].append(np.array([(*numbers, at, size)], reader.COMMIT_DTYPE))
        before = self._noted[1].lost or self.books.lost
        moved = [(k, n) for k, n in counts.lost.items() if before.get(k) != n]
        table = [(counts.commit, reason.encode()[:64], n) for reason, n in moved]
        if table:
            self._tables[reader.LOSSES].append(np.array(table, reader.LOSS_DTYPE))
        self._noted = (rows, counts)

    def _say(self, line: Mapping[str, object]) -> tuple[int, int]:
        """Append a line to the log; return its offset and size."""
        text = np.frombuffer(f"{layout.to_json(line)}\n".encode(), np.uint8)
        at = self._tables[reader.LOG].total
        self._tables[reader.LOG].append(text)
        return at, len(text)

    def end_run(self, counts: Counts) -> None:
        """Commit, complete and close the file, so that any HDF5 tool opens it; fsync it.

        Raises ``OSError`` with a sentence; repeat it when the cause is gone.
        """
        if self._ended:  # all of it is there, only closing failed before, and that is not repeated
            return
        self.commit(counts)
        with self._refusing():
            for growing in (*self._columns.values(), *self._tables.values()):
                growing.trim()
            layout.set_end(self._opened(), counts)
            self._opened().flush()
            layout.set_counter(self._opened()[reader.COMPLETE], 1)
        self._ended = True
        self.close()

    def close(self) -> None:
        """Close the file as it is; unless its run has ended, it can be continued.

        Raises ``OSError`` when HDF5 could not leave it tidy; committed rows are safe even then.
        """
        if self._file is None:
            return
        assert self.path is not None
        file, self._file = self._file, None
        try:
            with self._refusing():
                file.close()
            for place in (self.path, self.directory):
                if place.exists():
                    fd = os.open(place, os.O_RDONLY)
                    os.fsync(fd)
                    os.close(fd)
        finally:
            self._lease.release()

    def _opened(self) -> h5py.File:
        if self._file is None:
            raise RuntimeError("no run is being written: begin_run comes first")
        return self._file

    def _appended(self) -> int:
        return next((g.total for g in self._columns.values()), 0)

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        """Say in one sentence what HDF5 says in a page."""
        try:
            yield
        except (OSError, RuntimeError) as e:
            number = getattr(e, "errno", None) or errno.EIO
            raise self._refusal(number, os.strerror(number)) from e

    def _refusal(self, number: int, why: str) -> OSError:
        return OSError(
            number,
            f"{self.path}: not written: {why}; {self.rows} rows are safe in the file,"
            f" {self._appended() - self.rows} wait in memory for the next commit",
        )


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _foreign(path: Path, info: RunInfo, schema: Schema) -> str:
    """Say why the file at ``path``, whose lease we hold, is not ours to continue; "" if it is."""
    try:
        clear(path)
        with reader.open(path) as run:
            if run.info != info:
                return f"it holds {run.info.exp} run {run.info.run} begun at {run.info.began}"
            if run.complete:
                return "it is complete"
            if run.schema.id != schema.id:
                return f"its columns are others (schema {run.schema.id.hex()})"
    except (OSError, ValueError) as e:
        return f"it cannot be continued ({e})"
    return ""


def _no_room(directory: Path, size: int) -> str:
    """Say that fewer than ``size`` bytes are free in ``directory``; "" if there is room."""
    stat = os.statvfs(directory)
    if (free := stat.f_bavail * stat.f_frsize) >= size:
        return ""
    return f"{free / 1e6:.1f} MB free, {size / 1e6:.1f} MB needed: make room"
