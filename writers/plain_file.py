"""The plain file of a run: planned from the master and its file segments, written, compared.

Rows come in the order of their timestamps, those with equal ones in the order of their commits;
``ffb/order`` says where they stood. Everything has the name that the master gives it; sums of
frames, which stand beside the segments, come into the group ``Sums``.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from ffb.reading import contents
from ffb.reading.contents import COMMITTED, COMPLETE, GROUP, SEGMENTS, TABLES, Shown
from ffb.reading.segments import columns_of
from ffb.schema import EPOCH, STEP, TIMESTAMP, Schema
from ffb.sink import Provenance
from ffb.source import RunInfo
from ffb.sums.datasets import TELLING
from ffb.writers import integrated, layout, ragged, slow_series, user_data
from ffb.writers.describe import document
from ffb.writers.gather import Files, Form, Joined, Piece, Tally
from ffb.writers.master import folder_of
from ffb.writers.merge_sums import compare_sums, write_sums

#: Bytes to leave free: HDF5 must never meet a full disk while it writes its own metadata.
RESERVE = 16 << 20

#: What a recovery left of segments that it could not save wholly.
_SPARED = re.compile(r"\.(torn\d*|stray)$")

#: Attributes of HDF5's own that point to other objects, and cannot be copied.
_REFERENCES = {"REFERENCE_LIST", "DIMENSION_LIST"}

#: Tables that say at which row something begins, and the column that says it of every row.
_BEGINNINGS = {contents.STEPS: STEP.name, contents.EPOCHS: EPOCH.name}


class Merged(NamedTuple):
    """What a merge did; nothing if the file at ``path`` was a plain one already."""

    path: Path
    rows: int = 0
    bytes: int = 0
    copied: int = 0
    anew: int = 0
    moved: int = 0
    seconds: float = 0.0


class _Part(NamedTuple):
    """A file segment as the master lists it, with the lines of each table before and after it."""

    path: Path
    first: int
    rows: int
    epoch: int
    before: Mapping[str, int]


class PlainFile:
    """The run of ``master``, at ``path``, on its way into the plain file ``temporary``."""

    def __init__(self, path: Path, temporary: Path, master: h5py.File) -> None:
        self.path, self.temporary, self.master = path, temporary, master
        self.files, self.rows = Files(), int(master[COMMITTED][0])
        folder = folder_of(path)
        if kept := sorted(p.name for p in folder.glob("*") if _SPARED.search(p.name)):
            raise ValueError(
                f"{path}: {', '.join(kept)} in {folder} may hold rows that were not recovered;"
                " look there first, then move them away"
            )
        self.parts = [
            _Part(folder / s["file"], int(s["first"]), int(s["rows"]), int(s["epoch"]), s["tables"])
            for s in json.loads(master[SEGMENTS].asstr()[()])
        ]

    def make(self) -> Merged:
        """Write, sync, compare; what is half done does not stay.

        Raises what :func:`ffb.writers.consolidate.merge` does.
        """
        try:
            self._plan()
            for joined in self.joined.values():
                joined.check()
            self._room(sum(p.path.stat().st_size for p in self.parts))
            tally = self._write()
            self._compare()
            size = self.temporary.stat().st_size
        except BaseException:
            self.temporary.unlink(missing_ok=True)
            raise
        finally:
            self.files.close()
        return Merged(self.path, self.rows, size, *tally, moved=self.moved)

    def _plan(self) -> None:
        """Find out where everything lies and where it goes."""
        schemas: dict[int, Schema] = {}
        for part in self.parts:
            if part.epoch not in schemas:
                text = self.files(part.path)[f"{GROUP}/columns"].asstr()[()]
                schemas[part.epoch] = Schema(columns_of(text))
        if any(c.codec for s in schemas.values() for c in s.columns):
            import hdf5plugin  # noqa: F401 - HDF5 reads compressed columns from now on
        shown = contents.union(schemas)
        self.schema = Schema(tuple(s.column for s in shown.values()))
        stamps = self._joined(shown[TIMESTAMP.name], None).all().view(TIMESTAMP.dtype)
        order = None
        if np.any(stamps[1:] < stamps[:-1]):
            order = np.argsort(stamps, kind="stable")
        self.moved = 0 if order is None else int(np.count_nonzero(order != np.arange(self.rows)))
        self.joined = {k: self._joined(s, order) for k, s in shown.items()}
        self.joined |= {k: self._table(k) for k in TABLES if k in self.master}
        self.tables = {} if order is None else self._moved_tables(order)
        self.lists = ragged.lists_of(shown, self.joined)
        members = (m for lists in self.lists for m in lists.members)
        self.flat = {column.name: flat for column, flat, _ in members}
        for name in self.tables:
            self.joined.pop(name, None)

    def _joined(self, shown: Shown, order: NDArray[np.int64] | None) -> Joined:
        pieces = [
            Piece(p.path, shown.source, p.first, p.rows)
            for p in self.parts
            if p.epoch in shown.epochs
        ]
        c = shown.column
        form = Form(contents.stored(c), c.missing, c.shape, c.codec)
        return Joined(self.files, form, pieces, self.rows, order)

    def _table(self, name: str) -> Joined:
        firsts = [int(p.before.get(name, 0)) for p in self.parts]
        total = int(self.master[name].shape[0])
        pieces = [
            Piece(p.path, name, first, end - first)
            for p, first, end in zip(self.parts, firsts, [*firsts[1:], total], strict=True)
        ]
        dtype: np.dtype[Any] = TABLES[name][0]
        return Joined(self.files, Form(dtype, np.zeros((), dtype)[()]), pieces, total)

    def _moved_tables(self, order: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Tables that speak of rows, with their new numbers, and the one that tells the old."""
        new = np.empty_like(order)
        new[order] = np.arange(self.rows)
        ledger = self.joined[contents.LEDGER].all()
        written = ledger["row"] >= 0
        ledger["row"][written] = new[ledger["row"][written]]
        tables = {contents.LEDGER: ledger}
        for name, column in _BEGINNINGS.items():
            lines = self.joined[name].all()
            values, firsts = np.unique(self.joined[column].all(), return_index=True)
            # The first row of each; for one without any row, that of the next one that has some.
            following = np.searchsorted(values, lines[column.rpartition("/")[2]])
            lines["row"] = np.append(firsts, self.rows)[following]
            tables[name] = lines
        breaks = np.flatnonzero(np.diff(order) != 1) + 1
        begin, end = np.append(0, breaks), np.append(breaks, self.rows)
        tables[contents.ORDER] = np.rec.fromarrays(
            [begin, order[begin], end - begin], contents.ORDER_DTYPE
        )
        return tables

    def _write(self) -> Tally:
        """Make the new file, and sync it."""
        with layout.open_new(self.temporary) as file:
            layout.create(file, info_of(self.master), self.schema, self._provenance(), self.flat)
            self._copy_rest(file)
            self.user_data = user_data.copy(
                file, folder_of(self.path), (p.epoch for p in self.parts)
            )
            plain = ((n, joined) for n, joined in self.joined.items() if n not in self.flat)
            tallies = [joined.write(file[name], self._room) for name, joined in plain]
            tallies += [ragged.write(file, lists, self._room) for lists in self.lists]
            telling = {name: self.joined[name] for name in TELLING.values()}
            self.sums = write_sums(
                file,
                folder_of(self.path),
                lambda: {name: j.all() for name, j in telling.items()},
                self._room,
            )
            for name, lines in self.tables.items():
                if name in file:
                    file[name].resize(lines.shape)
                    file[name][...] = lines
                else:
                    file.create_dataset(name, data=lines)
            about = self._provenance()
            slow_series.write(file, self.schema.by_name, about.inputs)
            self.exposures = integrated.write(
                file, about.config, self.schema, self.rows, self._room
            )
            document(file)
            layout.set_counter(file[COMMITTED], self.rows)
            layout.set_counter(file[COMPLETE], 1)
        with self.temporary.open("rb") as written:
            os.fsync(written)
        return Tally(*map(sum, zip(*tallies, strict=True)))

    def _copy_rest(self, file: h5py.File) -> None:
        """Everything else that the master has: the last books, axes that only old epochs had."""

        def copy(name: str, item: h5py.Dataset | h5py.Group) -> None:
            known = name in file or name in self.flat or name == SEGMENTS
            if isinstance(item, h5py.Dataset) and not known:
                self.master.copy(item, file, name, without_attrs=True)
                for key in item.attrs.keys() - _REFERENCES:
                    file[name].attrs[key] = item.attrs[key]

        self.master.visititems(copy)
        for key, value in self.master[GROUP].attrs.items():
            file[GROUP].attrs[key] = value

    def _compare(self) -> None:
        """Read everything back, and raise ``OSError`` where it is not what the segments hold."""
        with h5py.File(self.temporary, "r", locking=False) as file:
            for name, joined in self.joined.items():
                if name not in self.flat:
                    joined.compare(file[name])
            for lists in self.lists:
                ragged.compare(file, lists)
            user_data.compare(file, self.user_data)
            integrated.compare(file, self.exposures)
            compare_sums(file, self.sums)
            for name, lines in self.tables.items():
                if file[name][...].tobytes() != lines.tobytes():
                    raise OSError(f"{self.temporary}: {name} does not read back as written")
            if (int(file[COMMITTED][0]), int(file[COMPLETE][0])) != (self.rows, 1):
                raise OSError(f"{self.temporary}: its counters do not read back as written")

    def _room(self, size: int) -> None:
        """Raise ``OSError`` unless ``size`` bytes can be written and there is some room left."""
        stat = os.statvfs(self.path.parent)
        free, needed = stat.f_bavail * stat.f_frsize, size + RESERVE
        if free < needed:
            raise OSError(
                errno.ENOSPC,
                f"{self.path.parent}: {free / 1e6:.0f} MB free, {needed / 1e6:.0f} MB needed to"
                f" merge {self.path.name}, which can be read as it is: make room, then run"
                f" 'ffb merge {self.path}'",
            )

    def _provenance(self) -> Provenance:
        group = self.master[GROUP]
        names = ("inputs", "reducers", "constants", "versions", "notes")
        facts = {k: json.loads(group[k].asstr()[()]) for k in names if k in group}
        facts |= {k: str(group.attrs[k]) for k in ("host", "command")}
        config = str(group["config"].asstr()[()])
        return Provenance(config, **{**facts, "notes": tuple(facts["notes"])})


def info_of(file: h5py.File) -> RunInfo:
    """The run that a master or a plain file is of."""
    about = file[GROUP].attrs
    return RunInfo(str(about["exp"]), int(about["run"]), int(about["began"]))
