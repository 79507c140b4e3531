"""Rows per second into the small-data file against h5py and np.tofile, interleaved.

Every way writes the same columns of the same batches to memory-backed disk; a round runs all of
them, and a ratio is the median of its rounds. ``python -m tests.benchmarks.bench_writer``.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from ffb import reader
from ffb.batch import Batch
from ffb.schema import Column, Schema
from ffb.sink import Counts, Provenance
from ffb.source import RunInfo
from ffb.writers.small_data import SmallData

SCALARS = tuple(Column(f"s/{i:02d}", "<f8", reducer="s") for i in range(50))
WAVES = tuple(Column(f"w/{i}", "<f4", (1000,), ("t",), "V", reducer="w") for i in range(5))
ROI = Column("roi/area", "<f4", (64, 64), ("y", "x"), "keV", reducer="roi")
STAMP = Column("timestamp", "<u8")
SCHEMAS = {
    "full": Schema((STAMP, *SCALARS, *WAVES, ROI)),
    "scalars": Schema((STAMP, *SCALARS)),
}
DISTINCT = 1000


def make_batches(schema: Schema, size: int) -> list[Batch]:
    """Distinct rows cut into batches, used again and again."""
    rng, out = np.random.default_rng(0), []
    for first in range(0, DISTINCT, size):
        batch = Batch(schema, size)
        for c in schema.columns:
            batch.columns[c.name][...] = rng.integers(0, 1000, (size, *c.shape))
        batch.columns["timestamp"][...] = np.arange(first, first + size)
        out.append(batch)
    return out


def ffb(folder: Path, schema: Schema, batches: list[Batch], n: int) -> None:
    sink, rows = SmallData(folder), 0
    sink.begin_run(RunInfo("bench", 1), schema, Provenance())
    for i in range(n):
        batch = batches[i % len(batches)]
        sink.append(batch)
        rows += batch.n
        sink.commit(Counts(i + 1, rows, rows, producers={"p": {"epoch": 1, "seq": i}}))
    sink.end_run(Counts(n, rows, rows, producers={"p": {"epoch": 1, "seq": n}}))


def check(folder: Path, schema: Schema, batches: list[Batch], n: int) -> None:
    """The file that ffb wrote ends with the rows it should."""
    with reader.open(folder / "bench_Run0001.h5") as run:
        assert run.complete
        assert run.committed == n * batches[0].n
        last = batches[(n - 1) % len(batches)]
        for c in schema.columns:
            assert np.array_equal(run[c.name][-last.n :], last.columns[c.name])


def h5py_blocks(folder: Path, schema: Schema, batches: list[Batch], n: int) -> None:
    """Buffer 1000 rows of every column, then one resize and one write each: h5py's best habit."""
    block = {c.name: np.empty((1000, *c.shape), c.dtype) for c in schema.columns}
    with h5py.File(folder / "h5py.h5", "x", libver="latest") as file:
        sets = {
            c.name: file.create_dataset(
                c.name, (0, *c.shape), c.dtype, maxshape=(None, *c.shape), chunks=(1000, *c.shape)
            )
            for c in schema.columns
        }
        rows = filled = 0
        for i in range(n):
            batch = batches[i % len(batches)]
            for name, column in batch.columns.items():
                block[name][filled : filled + batch.n] = column
            filled += batch.n
            if filled == 1000 or i == n - 1:
                for name, dataset in sets.items():
                    dataset.resize(rows + filled, 0)
                    dataset[rows:] = block[name][:filled]
                rows, filled = rows + filled, 0


def tofile(folder: Path, schema: Schema, batches: list[Batch], n: int) -> None:
    """A raw file a column: what the bytes cost."""
    files = {c.name: (folder / c.name.replace("/", "_")).open("xb") for c in schema.columns}
    for i in range(n):
        for name, column in batches[i % len(batches)].columns.items():
            column.tofile(files[name])
    for file in files.values():
        file.close()


def rate(
    write: Callable[..., None], schema: Schema, batches: list[Batch], n: int, where: str
) -> float:
    folder = Path(tempfile.mkdtemp(prefix="ffb_bench_", dir=where))
    try:
        begin = time.perf_counter()
        write(folder, schema, batches, n)
        seconds = time.perf_counter() - begin
        if write is ffb:
            check(folder, schema, batches, n)
        return n * batches[0].n / seconds
    finally:
        shutil.rmtree(folder)


def main() -> None:
    """Print rates and ratios for both schemas."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--where", default="/dev/shm" if os.path.isdir("/dev/shm") else None)
    options = parser.parse_args()
    for name, rows, size in (("full", 20_000, 100), ("scalars", 200_000, 100)):
        schema = SCHEMAS[name]
        batches = make_batches(schema, size)
        ways = {"ffb": ffb, "h5py block 1000": h5py_blocks, "np.tofile": tofile}
        rates: dict[str, list[float]] = {k: [] for k in ways}
        for _ in range(options.rounds):
            for key, way in ways.items():
                rates[key].append(rate(way, schema, batches, rows // size, options.where))
        print(f"\n{name}: {sum(c.row_bytes for c in schema.columns)} bytes a row, {size} a batch")
        for key, found in rates.items():
            ratio = statistics.median(a / b for a, b in zip(rates["ffb"], found, strict=True))
            middle = statistics.median(found)
            print(f"  {key:16} {middle:10.0f} rows/s   ffb is {ratio:6.2f} x this")


if __name__ == "__main__":
    main()
