"""One file segment being written: rows of one epoch, readable from its first row on."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ffb.reading.contents import COMMITTED, TABLES
from ffb.schema import Schema
from ffb.sink import Provenance
from ffb.source import RunInfo
from ffb.writers import layout
from ffb.writers.growing import Growing, Packed, Rows
from ffb.writers.h5clear import clear
from ffb.writers.journal import CHECK, CHUNK, sync_folder


class Segment:
    """A new file segment, number ``number`` of its run, in ``folder``.

    It begins at row ``first`` of the run and after ``before`` lines of each table. ``total`` is the
    number of its rows taken, ``committed`` of those that count, and ``said`` whether any commit of
    it counts. Raises ``OSError`` when the file cannot be made; nothing is left of it then.
    """

    def __init__(
        self,
        folder: Path,
        number: int,
        first: int,
        epoch: int,
        before: Mapping[str, int],
        info: RunInfo,
        schema: Schema,
        provenance: Provenance,
    ) -> None:
        self.folder, self.number, self.first, self.epoch = folder, number, first, epoch
        self.before, self.schema, self.provenance = dict(before), schema, provenance
        self.file, self.live = f"seg{number:04d}.h5", f"seg{number:04d}.live.h5"
        self.total = self.committed = 0
        self.said, self._began = False, time.monotonic()
        self._unit = math.lcm(layout.CHUNK_ROWS, *map(layout.chunk_rows, schema.columns))
        self._h5: h5py.File | None = self._create(info)
        self._columns = [_growing(self._h5, c.name, c.codec) for c in schema.columns]
        self._tables = {name: Growing(self._h5, name) for name in TABLES}
        self._counter = self._h5[COMMITTED]
        self._fd: int = self._h5.id.get_vfd_handle()
        self.inode = os.fstat(self._fd).st_ino

    def _create(self, info: RunInfo) -> h5py.File:
        """Make the file under another name and let it appear when readers can open it."""
        part = self.folder / f".{self.file}.part"
        part.unlink(missing_ok=True)
        file = layout.open_new(part)
        try:
            layout.create(file, info, self.schema, self.provenance)
            layout.set_counter(file[COMMITTED], self.first)
            file.swmr_mode = True
            file.flush()
            os.link(part, self.folder / self.live)
            sync_folder(self.folder)
        except BaseException:
            file.close()
            part.unlink()
            raise
        part.unlink()
        return file

    @property
    def record(self) -> dict[str, Any]:
        """What the journal says of it at its beginning."""
        return {
            "number": self.number,
            "file": self.file,
            "live": self.live,
            "first": self.first,
            "epoch": self.epoch,
            "schema": self.schema.packed,
            "provenance": self.provenance.facts,
            "tables": self.before,
        }

    @property
    def age(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._began

    @property
    def used(self) -> bool:
        """Whether anything was ever given to it."""
        return any(growing.total for growing in self._all())

    def room(self, limit: int, over: bool = False) -> int:
        """Rows that it still takes, to where chunks of all columns end: then a merge copies them.

        That is the last such place within ``limit``, a multiple of 1024, unless it has more rows
        already or is ``over``: then the next one.
        """
        unit = self._unit if self._unit <= limit else layout.CHUNK_ROWS
        following = -(-self.total // unit) * unit
        return max(0 if over else limit // unit * unit, following) - self.total

    def take(self, batches: Sequence[Rows], n: int) -> None:
        """Take batches of ``n`` rows together, to be written by the next :meth:`write`."""
        for growing in self._columns:
            growing.take(batches, n)
        self.total += n

    def add(self, table: str, lines: NDArray[Any]) -> None:
        """Take lines of a table."""
        self._tables[table].append(lines)

    def write(self, checked: bool = True) -> None:
        """Hand rows and lines to the operating system, where readers find them; repeatable.

        They are ``checked`` when they are not synced before they count.
        """
        assert self._h5 is not None
        for growing in self._all():
            growing.write(checked)
        self._h5.flush()

    def sync(self) -> None:
        """Return when all that was written would outlive a power failure; what is closed does."""
        if self._h5 is not None:
            os.fdatasync(self._fd)

    def moved(self) -> bytes:
        """Places of chunks that are new or elsewhere since the last call, as the journal says."""
        placed = [(i, *p) for i, growing in enumerate(self._all()) for p in growing.placed]
        for growing in self._all():
            growing.placed.clear()
        return np.array(placed, CHUNK).tobytes()

    def checks(self) -> bytes:
        """Checks of all bytes written unsynced since the last call, as the journal says."""
        checks = [(i, *c) for i, growing in enumerate(self._all()) for c in growing.checks]
        for growing in self._all():
            growing.checks.clear()
        return np.array(checks, CHECK).tobytes()

    def settle(self) -> None:
        """Let everything taken count."""
        self.committed, self.said = self.total, True

    def show(self) -> None:
        """Let readers see what counts."""
        if self._h5 is not None:
            layout.set_counter(self._counter, self.first + self.committed)

    def name(self) -> None:
        """Give the file its closed name beside its live one; repeatable."""
        if not (self.folder / self.file).exists():
            os.link(self.folder / self.live, self.folder / self.file)

    def close(self) -> None:
        """Leave a file that never changes again; repeatable.

        It may hold rows that were never committed, at the end of its datasets.
        """
        self.name()
        if self._h5 is not None:
            self.show()
            self._h5.flush()
            file, self._h5 = self._h5, None
            file.close()
        closed = self.folder / self.file
        clear(closed)  # where a reader in this process keeps HDF5 from doing it
        with closed.open("rb") as written:
            os.fsync(written)
        sync_folder(self.folder)

    def discard(self) -> None:
        """Remove a segment in which nothing was committed."""
        file, self._h5 = self._h5, None
        if file is not None:
            file.close()
        (self.folder / self.live).unlink(missing_ok=True)

    def _all(self) -> list[Growing]:
        return [*self._columns, *self._tables.values()]


def _growing(file: h5py.File, name: str, codec: str) -> Growing:
    return Packed(file, name, codec) if codec else Growing(file, name)
