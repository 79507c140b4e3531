"""Rows of which every value is known from its column and its number, in all kinds of columns."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ffb import reader
from ffb.batch import Batch
from ffb.schema import CORE, Column, Schema
from ffb.shot import timestamp_of
from ffb.sink import Counts, Provenance
from ffb.source import RunInfo
from ffb.writers.small_data import SmallData

INFO = RunInfo("mfxx49820", 42, 99)
NAME = "mfxx49820_Run0042.h5"
BEGAN = 1_700_000_000_000_000_000
Q = np.linspace(0.5, 3.5, 40)

SCHEMA = Schema(
    (
        *CORE,
        Column("spot/sum", "<f8", unit="keV", doc="all of it", reducer="spot"),
        Column("spot/npix", "<i8", reducer="spot"),
        Column("spot/flag", "|u1", reducer="spot"),
        Column("spot/present", "|b1", reducer="spot"),
        Column("azav/I", "<f4", (40,), ("q",), "keV", "radial intensity", "azav"),
        Column("azav/counts", "<u4", (40,), ("q",), "1", "pixels", "azav"),
        Column("azav/present", "|b1", reducer="azav"),
        Column("roi/area", "<i2", (3, 5), ("y", "x"), "ADU", reducer="roi"),
        Column("roi/big", "<f8", (60, 50), reducer="roi"),
        Column("roi/mask", "|b1", (4,), ("y",), reducer="roi"),
    )
)

PROVENANCE = Provenance(
    config="[inputs]\nx = 1\n",
    reducers={"azav": {"version": 3, "coords": {"q": {"values": Q, "unit": "1/Å"}}}},
    constants={"jungfrau": {"ids": {"pedestals": "abc"}}},
    versions={"ffb": "0.1.0"},
    host="somewhere",
    command="ffb aggregate x.toml",
    notes=("calibrated from a file",),
)


def truth(column: Column, rows: np.ndarray) -> np.ndarray:
    """Values of ``column`` in ``rows``; every fifth is missing where a column can say so."""
    if column.name == "step":
        return (rows // 150).astype(np.int32)
    n = rows.reshape(-1, *(1,) * len(column.shape)).astype(np.int64)
    if column.name == "timestamp":
        return np.array([timestamp_of(BEGAN + int(r) * 8_333_333) for r in rows], np.uint64)
    pixel = np.arange(np.prod(column.shape, dtype=int)).reshape(column.shape)
    values = (n * 7 + pixel * 3 + len(column.name)) % 97 - (20 if column.dtype[1] in "fi" else 0)
    if column.dtype[1] == "b":
        return values % 2 == 0
    if column.dtype[1] == "f":
        values = np.where((n + pixel) % 5 == 0, np.nan, values / 4)
    return values.astype(column.dtype)


def make_batch(first: int, n: int, schema: Schema = SCHEMA) -> Batch:
    batch = Batch(schema, n)
    for c in schema.columns:
        batch.columns[c.name][...] = truth(c, np.arange(first, first + n))
    return batch


def cut(n: int, size: int) -> Iterator[Batch]:
    """``n`` rows in batches of ``size``, the last one shorter."""
    for first in range(0, n, size):
        yield make_batch(first, min(size, n - first))


def books(commit: int, rows: int, **more: object) -> Counts:
    return Counts(commit, rows, rows, **more)


def begun(folder: Path, info: RunInfo = INFO, schema: Schema = SCHEMA) -> SmallData:
    sink = SmallData(folder)
    sink.begin_run(info, schema, PROVENANCE)
    return sink


def written(folder: Path, rows: int, ended: bool = True) -> Path:
    """A file of ``rows`` rows, complete or only closed."""
    sink = begun(folder)
    sink.append(make_batch(0, rows))
    sink.commit(books(1, rows))
    if ended:
        sink.end_run(books(2, rows, ended="end of run"))
    else:
        sink.close()
    assert sink.path is not None
    return sink.path


def assert_true(run: reader.RunFile, n: int) -> None:
    assert run.committed == n
    for c in SCHEMA.columns:
        found = run[c.name][:]
        assert found.dtype == c.dtype
        np.testing.assert_array_equal(found, truth(c, np.arange(n)), err_msg=c.name)
