"""Rows as a hutch makes them, as messages of two producers' size, and the ways to write them.

Scalars are doubles as a beam monitor gives them, waveforms and regions are quantised by their ADC:
random numbers would not compress, and constants would compress too well.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from ffb import reader
from ffb.aggregate import NS, Aggregator
from ffb.batch import Batch, compressed
from ffb.schema import CORE, Column, Schema
from ffb.sink import Provenance
from ffb.source import RunInfo
from ffb.sources.standins import import_psana
from ffb.wire import Decoder, EndRun, Frame, Header, encode
from ffb.writers.small_data import SmallData

os.environ.setdefault("PS_PARALLEL", "none")

#: Seconds; time that neighbours take from us does not count with ``time.thread_time``.
CLOCK = time.perf_counter

SHOTS = 128
INFO = RunInfo("benchmark", 1, 1)
FIRST = 1 << 62
SCALARS = tuple(Column(f"s/{i:02d}", "<f8", reducer="s") for i in range(50))


def schema_of(full: bool, codec: str = "") -> Schema:
    """50 scalars, and in full 5 waveforms of 1000 and a region of 64 x 64 pixels."""
    arrays = {"codec": codec, "chunk": SHOTS if codec else 0}
    waves = tuple(
        Column(f"w/{i}", "<f4", (1000,), ("t",), "V", reducer="w", **arrays) for i in range(5)
    )
    roi = Column("roi/area", "<f4", (64, 64), ("y", "x"), "keV", reducer="roi", **arrays)
    return Schema((*CORE, *SCALARS, *waves, roi) if full else (*CORE, *SCALARS))


def fill(batch: Batch, rng: np.random.Generator) -> None:
    """Columns of one batch, without its timestamps."""
    n = batch.n
    for c in batch.schema.columns:
        into = batch.columns[c.name]
        if c.name.startswith("s/"):
            into[:] = rng.integers(0, 100, n) if c.name.endswith("0") else rng.normal(100, 5, n)
        elif c.name.startswith("w/"):
            peak = np.exp(-0.5 * ((np.arange(1000) - rng.normal(500, 20, (n, 1))) / 15) ** 2)
            volts = rng.exponential(300, (n, 1)) * peak + rng.normal(0, 3, (n, 1000))
            into[:] = np.round(volts) * 0.25
        elif c.name == "roi/area":
            photons = (rng.random((n, 64, 64)) < 0.02) * rng.normal(150, 3, (n, 64, 64))
            into[:] = np.round(rng.normal(0, 2.5, (n, 64, 64)) + photons) / 15.5
        else:
            into[:] = 0


class Load(NamedTuple):
    """What is to be written: batches in the order of sending, by producer, and as messages."""

    schema: Schema
    batches: list[tuple[int, Batch]]
    messages: list[list[Frame]]
    rows: int

    @property
    def producers(self) -> int:
        """How many producers there are."""
        return 1 + max(p for p, _ in self.batches)


def load(schema: Schema, rows: int, producers: int = 1, distinct: int = 8) -> Load:
    """Messages of full batches; producers take shots in turns, so that their rows interleave."""
    rng, kinds, out = np.random.default_rng(1), [], []
    for _ in range(distinct):
        kinds.append(Batch(schema, SHOTS))
        fill(kinds[-1], rng)
    for k in range(rows // SHOTS):
        turn, p = divmod(k, producers)
        batch = Batch(schema, SHOTS)
        batch.buffer[:] = kinds[k % distinct].buffer
        begin = FIRST + turn * SHOTS * producers + p
        batch.columns["timestamp"][:] = np.arange(begin, begin + SHOTS * producers, producers)
        batch.columns["pulse_id"][:] = batch.columns["timestamp"] - np.uint64(FIRST)
        out.append((p, compressed(batch)))
    return Load(schema, out, said(schema, out), len(out) * SHOTS)


def head(kind: str, p: int, seq: int = 0, read: int = 0) -> Header:
    """Header of a producer's message."""
    counts = {"read": read, "lost": {}}
    run = (INFO.exp, INFO.run, INFO.began)
    return Header(kind, *run, producer=f"p{p}", epoch=1, seq=seq, counts=counts)


def said(schema: Schema, batches: Sequence[tuple[int, Batch]]) -> list[list[Frame]]:
    """The messages of a whole run."""
    producers = sorted({p for p, _ in batches})
    out = [encode(head("begin_run", p, 1), schema, Provenance()) for p in producers]
    seq = dict.fromkeys(producers, 1)
    for p, batch in batches:
        seq[p] += 1
        frames = encode(head("shots", p, seq[p], SHOTS * (seq[p] - 1)), schema, batch)
        out.append([bytes(f) for f in frames])
    ends = [head("end_run", p, seq[p] + 1, SHOTS * (seq[p] - 1)) for p in producers]
    return out + [encode(end, None, EndRun()) for end in ends]


def aggregator(folder: Path, producers: int, commit_ms: int = 50) -> Aggregator:
    """An aggregator that writes to ``folder`` as the service does."""
    sink = SmallData(folder, merge=None)
    return Aggregator(
        lambda info: [sink], 2 * NS, commit_ms * NS // 1000, 10 * NS, producers=producers
    )


def ffb(folder: Path, load: Load) -> float:
    """Decode, merge, enter into the books, write, journal and commit all rows; rows/s.

    The file is made before the clock starts, and closed after it stops.
    """
    took, decode, n = aggregator(folder, load.producers), Decoder(), load.producers
    for frames in load.messages[:n]:
        took.receive(decode(frames), time.monotonic_ns())
    took.tick(time.monotonic_ns())
    begin = CLOCK()
    for k, frames in enumerate(load.messages[n:-n]):
        took.receive(decode(frames), time.monotonic_ns())
        if k % 16 == 0:
            took.tick(time.monotonic_ns())
    enough = load.rows - (n - 1) * SHOTS  # the newest rows wait for the other producer to pass
    while (written := took.open[INFO].written) < enough:
        took.tick(time.monotonic_ns())
    seconds = CLOCK() - begin
    for frames in load.messages[-n:]:
        took.receive(decode(frames), time.monotonic_ns())
    while not took.closed:
        took.tick(time.monotonic_ns())
    assert took.closed[0].problems == []
    return written / seconds


def check(folder: Path, load: Load) -> None:
    """The file that :func:`ffb` wrote holds the rows it should, in order."""
    order = np.argsort(
        np.concatenate([b.columns["timestamp"] for _, b in load.batches]), kind="stable"
    )
    with reader.open(folder / "benchmark_Run0001.h5") as run:
        assert run.committed == load.rows
        for c in load.schema.columns:
            if not c.name.startswith("ffb/"):
                at = slice(load.rows - 3 * SHOTS, None)
                wanted = [load.batches[i // SHOTS][1].columns[c.name][i % SHOTS] for i in order[at]]
                assert np.array_equal(run[c.name][at], wanted), c.name


def psana(folder: Path, load: Load) -> float:
    """psana's SmallData as its users call it: an event at a time; rows/s."""
    import_psana()
    from psana.smalldata import SmallData as Theirs

    rows = min(load.rows, 2048 if len(load.schema.columns) > 60 else 8192)
    data: list[tuple[int, dict[str, Any]]] = []
    for _, batch in load.batches[: rows // SHOTS]:
        columns = {c.name: batch.columns[c.name] for c in load.schema.columns if c.reducer}
        stamps = batch.columns["timestamp"].tolist()
        data += [(t, {k: v[i] for k, v in columns.items()}) for i, t in enumerate(stamps)]
    data.sort(key=lambda d: d[0])
    begin = CLOCK()
    small = Theirs()
    small.setup_parms(filename=str(folder / "psana.h5"), batch_size=1000)
    for stamp, row in data:
        small.event(stamp, row)
    small.done()
    return rows / (CLOCK() - begin)


def h5py_blocks(folder: Path, load: Load) -> float:
    """Buffer 1000 rows of every column, then one resize and one write each; rows/s."""
    columns = [batch.columns for _, batch in load.batches]
    block = {c.name: np.empty((1000, *c.shape), c.dtype) for c in load.schema.columns}
    with h5py.File(folder / "h5py.h5", "x", libver="latest") as file:
        sets = {
            c.name: file.create_dataset(
                c.name, (0, *c.shape), c.dtype, maxshape=(None, *c.shape), chunks=(1000, *c.shape)
            )
            for c in load.schema.columns
        }
        at, begin = 0, CLOCK()
        for batch in columns:
            at = _into_blocks(block, sets, batch, at)
        for name, dataset in sets.items():
            dataset.resize(load.rows, 0)
            if at % 1000:
                dataset[load.rows - at % 1000 :] = block[name][: at % 1000]
    return load.rows / (CLOCK() - begin)


def _into_blocks(
    block: dict[str, NDArray[Any]], sets: dict[str, Any], batch: dict[str, Any], at: int
) -> int:
    done = 0
    while done < SHOTS:
        n = min(1000 - at % 1000, SHOTS - done)
        for name, column in batch.items():
            block[name][at % 1000 : at % 1000 + n] = column[done : done + n]
        at, done = at + n, done + n
        if at % 1000 == 0:
            for name, dataset in sets.items():
                dataset.resize(at, 0)
                dataset[at - 1000 :] = block[name]
    return at


def tofile(folder: Path, load: Load) -> float:
    """A raw file a column: what the bytes cost; rows/s."""
    columns = [batch.columns for _, batch in load.batches]
    files = {c.name: (folder / c.name.replace("/", "_")).open("xb") for c in load.schema.columns}
    begin = CLOCK()
    for batch in columns:
        for name, column in batch.items():
            column.tofile(files[name])
    for file in files.values():
        file.close()
    return load.rows / (CLOCK() - begin)


WAYS: dict[str, Callable[[Path, Load], float]] = {
    "ffb": ffb,
    "psana SmallData": psana,
    "h5py block 1000": h5py_blocks,
    "np.tofile": tofile,
}
