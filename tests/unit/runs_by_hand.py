"""Runs in segments of which every value is known from its timestamp, written without a writer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from ffb.batch import Batch, compressed
from ffb.reading import contents
from ffb.reading.contents import COMMITTED, COMPLETE, LOG, ORDER, TABLES
from ffb.schema import CORE, Column, Schema
from ffb.sink import Counts, Provenance
from ffb.source import RunInfo
from ffb.writers.journal import Journal
from ffb.writers.master import SegmentFile, folder_of, write_master
from ffb.writers.segment import Segment

INFO = RunInfo("mfxx49820", 42, 99)
COUNTS = Counts(9, 5000, 4990, {"damaged": 10}, ended="end of run", late=3)
AXIS = {"values": [0.5, 1.0, 1.5], "unit": "1/Å"}
PROVENANCE = Provenance("text", {"a": {"version": 2, "coords": {"q": AXIS}}}, host="h", command="c")
PACKED = {"codec": "bitshuffle-lz4", "chunk": 16}

#: Columns by epoch: the shape of a/wave changes, a/new comes, a/old goes, noise never packs.
SCHEMAS = [
    Schema(
        (
            *CORE,
            Column("a/x", "<f8", reducer="a"),
            Column("a/flag", "|b1"),
            Column("a/wave", "<f4", (3,), ("q",), reducer="a"),
            Column("a/n", "<i8", reducer="a"),
            Column("a/hit", "<f4", (4,), ("hit",), reducer="a", length="a/n"),
            Column("a/box", "<i2", (4, 2), ("hit", "b"), reducer="a", length="a/n", **PACKED),
            Column("a/old", "<i2", (70,)),
            Column("a/packed", "<u2", (8, 20), **PACKED),
            Column("a/noise", "<u8", (40,), **PACKED),
        )
    ),
    Schema(
        (
            *CORE,
            Column("a/x", "<f8", reducer="a"),
            Column("a/flag", "|b1"),
            Column("a/wave", "<f4", (5,), ("q",), reducer="a"),
            Column("a/n", "<i8", reducer="a"),
            Column("a/hit", "<f4", (6,), ("hit",), reducer="a", length="a/n"),
            Column("a/new", "<i4", (2,)),
            Column("a/packed", "<u2", (8, 20), codec="bitshuffle-zstd", chunk=16),
            Column("a/noise", "<u8", (40,), **PACKED),
        )
    ),
]


def rows_of(schema: Schema, stamps: np.ndarray, epoch: int) -> Batch:
    """Rows of which every value is known from its timestamp."""
    batch = Batch(schema, len(stamps))
    for c in schema.columns:
        n = stamps.reshape(-1, *(1,) * len(c.shape)).astype("i8")
        pixel = np.arange(np.prod(c.shape, dtype=int)).reshape(c.shape)
        values = (n * 7 + pixel * 3) % 97
        if c.name == "a/noise":
            mixed = (n + 1).astype("u8") * np.uint64(0x9E3779B97F4A7C15) * (pixel + 3).astype("u8")
            values = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
        if c.name == "a/x":
            values = np.where(n % 5 == 0, np.nan, n / 4)
        if c.name == "a/n":  # none, some, and more than there is room for
            values = n * 5 % 9
        if c.length:
            place = np.arange(c.shape[0]).reshape(-1, *(1,) * (len(c.shape) - 1))
            values = np.where(place < n * 5 % 9, values + 1, c.missing)
        batch.columns[c.name][...] = values.astype(c.dtype)
    batch.columns["timestamp"][:] = stamps
    batch.columns["step"][:] = stamps // 1000
    batch.columns["ffb/epoch"][:] = epoch
    return batch


class ByHand:
    """A run written segment by segment, and what it holds."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "mfxx49820_Run0042.h5"
        self.folder = folder_of(self.path)
        self.folder.mkdir()
        journal = Journal(self.folder / "journal")
        journal.add("run", layout=2, exp=INFO.exp, run=INFO.run, began=INFO.began)
        journal.write()
        journal.close()
        self.listed: list[tuple[SegmentFile, Schema]] = []
        self.stamps: list[int] = []
        self.epochs: list[int] = []
        self.lines = {name: np.empty(0, dtype) for name, (dtype, _) in TABLES.items()}

    def segment(
        self,
        stamps: Sequence[int],
        epoch: int = 0,
        *,
        uncommitted: int = 0,
        batch: int = 16,
        **tables: Sequence[tuple],
    ) -> None:
        first, number, schema = len(self.stamps), len(self.listed), SCHEMAS[epoch]
        before = {name: len(lines) for name, lines in self.lines.items()}
        made = Segment(self.folder, number, first, epoch, before, INFO, schema, PROVENANCE)
        given = np.array([*stamps, *range(uncommitted)], "<u8")
        for i in range(0, len(given), batch):
            rows = compressed(rows_of(schema, given[i : i + batch], epoch))
            made.take([rows], rows.n)
            made.write()
        for name, lines in tables.items():
            self.add(made, f"ffb/{name}", lines)
        self.add(made, LOG, [*f"segment {number}\n".encode()])
        made.write()
        made.close()
        (self.folder / made.live).unlink()
        self.listed.append((SegmentFile(made.file, first, len(stamps), epoch, before), schema))
        self.stamps += stamps
        self.epochs += [epoch] * len(stamps)

    def add(self, made: Segment, name: str, lines: Sequence) -> None:
        array = np.array(lines, TABLES[name][0])
        made.add(name, array)
        self.lines[name] = np.concatenate([self.lines[name], array])

    def master(self, *, complete: bool = True) -> Path:
        ends = {name: len(lines) for name, lines in self.lines.items()}
        write_master(self.path, INFO, self.listed, PROVENANCE, COUNTS, ends, complete)
        return self.path

    def truth(self) -> dict[str, np.ndarray]:
        """Every column of the merged file, made row by row from the timestamps."""
        stamps, epochs = np.array(self.stamps, "<u8"), np.array(self.epochs)
        order = np.argsort(stamps, kind="stable")
        used = {s.epoch: schema for s, schema in self.listed}
        out = {}
        for name, shown in contents.union(used).items():
            c = shown.column
            column = np.full((len(stamps), *c.shape), c.missing, c.dtype)
            for epoch in shown.epochs:
                here = np.flatnonzero(epochs == epoch)
                rows = rows_of(SCHEMAS[epoch], stamps[here], epoch)
                column[here] = rows.columns[shown.source]
            out[name] = column[order]
        return out


def assert_merged(run: ByHand) -> h5py.File:
    """Compare the file with the truth; give it back open."""
    assert not run.folder.exists()
    assert {p.name for p in run.path.parent.iterdir()} == {run.path.name}
    file = h5py.File(run.path, "r", locking=False)
    truth = run.truth()
    used = {s.epoch: schema for s, schema in run.listed}
    lists = {k: s.column for k, s in contents.union(used).items() if s.column.length}
    flat = assert_lists(file, {k: (c, truth.pop(k), truth["a/n"]) for k, c in lists.items()})
    for name, column in truth.items():
        assert not file[name].is_virtual
        assert file[name].dtype == (np.int64 if name == "timestamp" else column.dtype)
        assert file[name][...].tobytes() == column.tobytes(), name
    assert (file[COMMITTED][0], file[COMPLETE][0]) == (len(run.stamps), 1)
    assert contents.SEGMENTS not in file
    found: list[str] = []
    file.visititems(lambda k, item: found.append(k) if isinstance(item, h5py.Dataset) else None)
    texts = ("config", "inputs", "reducers", "constants", "versions", "notes", "columns", "schema")
    ours = {*TABLES, COMMITTED, COMPLETE, ORDER, "a/q", *(f"ffb/{t}" for t in texts)}
    assert set(found) - ours - flat == set(truth)
    about = file["ffb"].attrs
    assert (about["ended"], about["read"], about["late"]) == (b"end of run", 5000, 3)
    assert json.loads(file["ffb/columns"].asstr()[()])[0]["name"] == "timestamp"
    return file


def assert_lists(file: h5py.File, lists: dict[str, tuple]) -> set[str]:
    """Compare lists, cut by their offsets one by one, with the rows they were; give their names."""
    told = json.loads(file[contents.LISTS].asstr()[()]) if contents.LISTS in file else {}
    assert told.keys() == lists.keys()
    names = {contents.LISTS} & file.keys()
    for name, (column, rows, counts) in lists.items():
        at = told[name]
        values, lengths, offsets = (file[at[k]] for k in ("values", "lengths", "offsets"))
        names |= {at[k] for k in ("values", "lengths", "offsets")}
        assert (values.dtype, lengths.dtype, offsets.dtype) == (column.dtype, "<i8", "<i8")
        assert values.shape[1:] == column.shape[1:]
        ends = np.cumsum(lengths[:])
        assert offsets[:].tolist() == [0, *ends.tolist()]
        assert len(values) == offsets[-1]
        everything = values[:]
        for i, row in enumerate(rows):  # as analysts read it
            mine = everything[ends[i] - lengths[i] : ends[i]]
            there = not np.array_equal(row, np.full_like(row, column.missing), equal_nan=True)
            assert len(mine) == (min(counts[i], len(row)) if there else 0)
            assert mine.tobytes() == row[: len(mine)].tobytes()
    return names | ({contents.LISTS} if told else set())
