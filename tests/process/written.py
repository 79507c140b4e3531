"""Runs of which every value is known, written by whoever may be killed at it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ffb import reader
from ffb.batch import Batch
from ffb.books.account import Account
from ffb.reading.contents import FOLDER
from ffb.schema import CORE, EPOCH, KEPT, LATE, PRODUCER, PULSE_ID, STEP, TIMESTAMP, Column, Schema
from ffb.sink import WRITTEN, Counts, Entry, Provenance
from ffb.source import RunInfo
from ffb.writers.chain import Rolling
from ffb.writers.small_data import SmallData

INFO = RunInfo("tstx00123", 7, 1 << 60)
NAME = "tstx00123_Run0007.h5"
STEP_ROWS = 150
ABOUT = Provenance(
    config="[x]",
    reducers={"w": {"version": 2, "coords": {"t": {"values": np.arange(300), "unit": "ns"}}}},
    notes=("a note",),
)


def schema(codec: str = "") -> Schema:
    """Columns with chunks of many sizes, two of them compressed by ``codec``."""
    packed: dict[str, Any] = {"codec": codec, "chunk": 128} if codec else {}
    return Schema(
        (
            *CORE,
            Column("s/x", "<f8", reducer="s"),
            Column("s/present", "|b1", reducer="s"),
            Column("w/trace", "<f4", (300,), ("t",), reducer="w", **packed),
            Column("roi/area", "<i4", (16, 20), ("y", "x"), reducer="roi", **packed),
        )
    )


def truth(column: Column, first: int, n: int) -> np.ndarray:
    """What the column holds in rows ``first`` to ``first + n``; no two rows alike."""
    if column.name in (EPOCH.name, PRODUCER.name, LATE.name):
        return np.zeros(n, column.dtype)
    rows = np.arange(first, first + n).reshape(n, *(1,) * len(column.shape))
    if column.name == TIMESTAMP.name:
        return rows.astype(np.uint64) + np.uint64(1 << 60)
    if column.name == STEP.name:
        return (rows // STEP_ROWS).astype(column.dtype)
    if column.name == PULSE_ID.name:
        return rows.astype(column.dtype)
    if column.name == KEPT.name:
        return np.ones(n, column.dtype)
    pixels = np.arange(np.prod(column.shape, dtype=int)).reshape(column.shape)
    values = rows + 1 + len(column.name) * pixels
    made = values % 2 == 1 if column.dtype == "|b1" else values % 101
    return np.asarray(made, column.dtype)


def make_batch(columns: Schema, first: int, n: int) -> Batch:
    batch = Batch(columns, n)
    for c in columns.columns:
        batch.columns[c.name][...] = truth(c, first, n)
    return batch


def books(commit: int, rows: int, before: int, ended: str = "") -> Counts:
    """Books of one producer that lost two shots before the first commit; they balance."""
    lost = {"damaged": 2}
    account = {"read": rows + 2, "written": rows, "lost": lost, "seq": rows, "heard": rows}
    producers = {"p0": Account(0).plain(("p0", 5)) | account | {"ended": ended}}
    stamps = (1 << 60) + before, (1 << 60) + rows - 1
    ledger = [Entry(0, WRITTEN, *stamps, rows - before, before)] if rows > before else []
    ledger += [Entry(0, "damaged", 0, 0, 2)] if commit == 1 else []
    return Counts(commit, rows + 2, rows, lost, 0, producers, ended, ledger=tuple(ledger))


def write(
    folder: Path,
    rows: int,
    rolling: Rolling,
    codec: str = "",
    seed: int = 0,
    end: bool = False,
    **merge: Any,
) -> Iterator[int]:
    """Continue the run to row ``rows`` in random commits, each of which is told when it is done."""
    rng, sink, columns = (
        np.random.default_rng(seed),
        SmallData(folder, rolling=rolling, **merge),
        schema(codec),
    )
    sink.begin_run(INFO, columns, ABOUT)
    row, commit = sink.rows, sink.books.commit
    yield row
    while row < rows:
        before = row
        for _ in range(rng.integers(1, 4)):
            n = int(min(rng.choice([1, 7, 30, 128]), rows - row))
            sink.append(make_batch(columns, row, n))
            row += n
        commit += 1
        for step in range(before // STEP_ROWS, (row - 1) // STEP_ROWS + 1):
            sink.step(step, {"motor": float(step * STEP_ROWS)}, "scan")
        sink.commit(books(commit, row, before))
        yield row
    if end:
        sink.end_run(books(commit + 1, row, row, "end of run"))
        yield row
    sink.close()


def assert_true(
    run: reader.RunFile, codec: str = "", last: int = 1 << 40, settled: bool = True
) -> None:
    """Every committed row, or the last ones, has the values it was written with.

    Right after a kill in the midst of a roll rows may be seen before the books that tell of them;
    ``settled`` says that this is over.
    """
    n = run.committed
    rows = slice(max(0, n - last), n)
    for c in schema(codec).columns:
        expected = truth(c, rows.start, n - rows.start)
        np.testing.assert_array_equal(run[c.name][rows], expected, err_msg=c.name)
    told = run.counts.written
    assert told == n if settled else told <= n
    steps = [(s.step, s.row) for s in run.steps]
    assert steps[: -(-told // STEP_ROWS)] == [
        (i, i * STEP_ROWS) for i in range(-(-told // STEP_ROWS))
    ]
    assert not n or run.counts.lost["damaged"] == 2


def assert_plain(path: Path, rows: int, codec: str = "") -> None:
    """Any HDF5 program finds the rows through the master, or in the plain file."""
    with h5py.File(path, "r") as file:
        assert int(file["ffb/committed"][0]) == rows
        for c in schema(codec).columns:
            assert file[c.name].shape == (rows, *c.shape)
            np.testing.assert_array_equal(file[c.name][...], truth(c, 0, rows), err_msg=c.name)


def names(folder: Path) -> list[str]:
    """Names of the files of the run's segments and journal."""
    return sorted(p.name for p in (folder / NAME).with_suffix(FOLDER).iterdir())
