"""Chunks compressed outside HDF5 against its filter, and merges against a copy of the bytes.

``python -m tests.benchmarks.bench_codec``.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401 - registers the filter
import numpy as np

from ffb.batch import Batch, compressed
from ffb.messaging import codec
from ffb.schema import CORE, Column, Schema
from ffb.sink import Counts, Provenance
from ffb.source import RunInfo
from ffb.writers.chain import Rolling
from ffb.writers.consolidate import merge
from ffb.writers.small_data import SmallData
from tests.benchmarks.harness import Table, compare, machine

ROWS = 128
RNG = np.random.default_rng(0)
DATA = {
    "64x64 of counts, int16": RNG.poisson(10, (ROWS, 64, 64)).astype("<i2"),
    "1000 samples, float32": (
        np.sin(np.arange(1000) / 30) * 100 + RNG.normal(0, 1, (ROWS, 1000))
    ).astype("<f4"),
}


def in_memory(name: str, array: np.ndarray, verb: str) -> Table:
    """One chunk in memory: ours, the filter within HDF5, and what moving the bytes costs."""
    chunk = codec.encode(array, name)
    with h5py.File("bench", "w", driver="core", backing_store=False) as file:
        options = {"chunks": array.shape, **codec.filter_options(name)}
        file.create_dataset("x", array.shape, array.dtype, **options)[...] = array
        out = np.empty_like(array)

        # Opened anew each time, or a chunk would come from the cache of its dataset.
        ways = {
            "encode": (
                lambda: codec.encode(array, name),
                lambda: file["x"].write_direct(array),
            ),
            "decode": (
                lambda: codec.decode(chunk, array.dtype, array.shape, name),
                lambda: file["x"].read_direct(out),
            ),
        }
        ours, filtered = ways[verb]
        rates = {"ffb.messaging.codec": ours, "the filter in HDF5": filtered, "a copy": array.copy}
        title = f"{verb} {name}, {array.nbytes / 1e6:.1f} MB in {len(chunk) / 1e6:.2f} MB"
        return compare(rates, "the filter in HDF5", 40, title)


def run(folder: Path, rows: int, name: str, *, late: bool) -> Path:
    """A finished run that is not merged, in segments of 4096 rows."""
    array, wave = (*DATA.values(),)
    packed = {"codec": name, "chunk": ROWS} if name else {}
    schema = Schema(
        (
            *CORE,
            *(Column(f"s/{i:02d}", "<f8") for i in range(50)),
            *(Column(f"w/{i}", "<f4", (1000,), ("t",), "V", **packed) for i in range(5)),
            Column("roi/area", "<i2", (64, 64), ("y", "x"), "keV", **packed),
        )
    )
    sink = SmallData(folder, rolling=Rolling(segment_rows=4096), merge=None)
    sink.begin_run(RunInfo("bench", 1), schema, Provenance())
    for i in range(rows // ROWS):
        batch = Batch(schema, ROWS)
        for c in schema.columns:
            batch.columns[c.name][...] = 0
        batch.columns["timestamp"][:] = np.arange(i * ROWS, (i + 1) * ROWS) + 1000
        if late and i % 16 == 15:
            batch.columns["timestamp"][3] -= 300
        for k in range(5):
            batch.columns[f"w/{k}"][:] = wave
        batch.columns["roi/area"][:] = array
        sink.append(compressed(batch))
        done = (i + 1) * ROWS
        sink.commit(Counts(i + 1, done, done))
    sink.end_run(Counts(rows // ROWS + 1, rows, rows))
    assert sink.path is not None
    return sink.path


@contextmanager
def scratch() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="ffb_bench_", dir="/dev/shm"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def merging(rows: int) -> None:
    """Print how fast runs merge, each made anew and merged once."""
    print("| run | MB | merge MB/s | chunks as they were | anew | copy and fsync MB/s |")
    print("|---|---|---|---|---|---|")
    for name in ("", *codec.CODECS):
        for late in (False, True):
            with scratch() as folder:
                path = run(folder, rows, name, late=late)
                parts = path.with_suffix(".parts")
                size = sum(p.stat().st_size for p in parts.iterdir())
                copied = timed(lambda: shutil.copytree(parts, folder / "copy"))  # noqa: B023
                shutil.rmtree(folder / "copy")
                m = merge(path)
                what = f"{name or 'raw'}{', 1 in 2048 rows late' if late else ''}"
                rate = f"{m.bytes / 1e6 / m.seconds:.0f} | {m.copied} | {m.anew}"
                print(f"| {what} | {m.bytes / 1e6:.0f} | {rate} | {size / 1e6 / copied:.0f} |")


def timed(action: Callable[[], object]) -> float:
    """Seconds that ``action`` takes."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def main() -> None:
    """Print everything."""
    print(machine("h5py", "hdf5plugin"))
    for label, array in DATA.items():
        print(f"\n### {label}\n")
        for name in codec.CODECS:
            for verb in ("encode", "decode"):
                print(in_memory(name, array, verb))
    print("\n### merge\n")
    merging(16_384)


if __name__ == "__main__":
    main()
