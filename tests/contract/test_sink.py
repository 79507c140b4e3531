"""What every sink promises. Add yours to ``SINKS``: a factory and how many rows it holds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ffb import reader
from ffb.batch import Batch
from ffb.live.model import Live
from ffb.schema import Schema
from ffb.sink import Counts, Provenance, Sink
from ffb.source import RunInfo
from ffb.writers.small_data import SmallData
from tests.unit.small_data_truth import INFO, PROVENANCE, SCHEMA, make_batch, truth


class ListSink:
    """The least that a sink can be: what the aggregator's tests use."""

    def __init__(self) -> None:
        self.rows, self._waiting = 0, 0

    def begin_run(self, info: RunInfo, schema: Schema, provenance: Provenance) -> None:
        self.rows, self._waiting = 0, 0

    def begin_epoch(self, epoch: int, schema: Schema, provenance: Provenance) -> None:
        pass

    def append(self, batch: Batch) -> None:
        self._waiting += batch.n

    def commit(self, counts: Counts) -> None:
        self.rows, self._waiting = self.rows + self._waiting, 0

    def step(self, step: int, values: Any, docstring: str) -> None:
        pass

    def end_run(self, counts: Counts) -> None:
        self.commit(counts)


def _list(_: Path) -> tuple[Sink, Callable[[], int]]:
    sink = ListSink()
    return sink, lambda: sink.rows


def _small_data(folder: Path) -> tuple[Sink, Callable[[], int]]:
    sink = SmallData(folder)

    def rows() -> int:
        with reader.open(sink.path) as run:
            for name in ("timestamp", "azav/I", "roi/mask"):
                expected = truth(SCHEMA.by_name[name], np.arange(run.committed))
                np.testing.assert_array_equal(run[name][:], expected)
            return run.committed

    return sink, rows


def _live(_: Path) -> tuple[Sink, Callable[[], int]]:
    sink = Live()
    return sink, lambda: int(sink.light.sum())


SINKS = {"list": _list, "small data": _small_data, "live": _live}


@pytest.fixture(params=SINKS)
def sink_and_rows(request, tmp_path):
    return SINKS[request.param](tmp_path)


def lit(first: int, n: int) -> Batch:
    """A batch whose lights are what lights can be."""
    batch = make_batch(first, n)
    for name in ("lightStatus/xray", "lightStatus/laser"):
        batch.columns[name][...] = np.arange(first, first + n) % 3 - 1
    return batch


def books(commit: int, rows: int) -> Counts:
    return Counts(commit, rows, rows, producers={"p0": {"epoch": 1, "seq": commit}})


def test_rows_count_once_committed_and_not_before(sink_and_rows):
    sink, rows = sink_and_rows
    sink.begin_run(INFO, SCHEMA, PROVENANCE)
    assert rows() == 0
    done = 0
    for commit, sizes in enumerate([(1,), (7, 100), (), (1000,), (3, 3, 3), ()], 1):
        before = rows()
        for n in sizes:
            sink.append(lit(done, n))
            done += n
        assert rows() == before
        sink.commit(books(commit, done))
        assert rows() == done
    sink.end_run(books(commit, done))
    assert rows() == done


def test_batches_are_left_as_they_are(sink_and_rows):
    sink, _ = sink_and_rows
    sink.begin_run(INFO, SCHEMA, PROVENANCE)
    batch = lit(0, 60)
    payload = batch.buffer.tobytes()
    received = Batch.of(SCHEMA, 60, payload, batch.read)
    assert not received.buffer.flags.writeable
    sink.append(received)
    sink.commit(books(1, 60))
    sink.end_run(books(1, 60))
    assert received.buffer.tobytes() == payload


def test_steps_may_come_at_any_time(sink_and_rows):
    sink, rows = sink_and_rows
    sink.begin_run(INFO, SCHEMA, PROVENANCE)
    sink.step(0, {"delay": -1.5, "mono": 9.0}, "a scan")
    sink.append(lit(0, 10))
    sink.step(1, {"delay": -1.0, "mono": 9.0}, "a scan")
    sink.commit(books(1, 10))
    sink.step(2, {}, "")
    sink.end_run(books(2, 10))
    assert rows() == 10


def test_a_run_may_end_without_a_row(sink_and_rows):
    sink, rows = sink_and_rows
    sink.begin_run(INFO, SCHEMA, PROVENANCE)
    sink.end_run(Counts(1, 3, 0, {"damaged": 3}))
    assert rows() == 0


def test_one_run_follows_another(sink_and_rows):
    sink, rows = sink_and_rows
    for run, n in ((1, 50), (2, 20)):
        sink.begin_run(RunInfo("mfxx49820", run, run), SCHEMA, PROVENANCE)
        sink.append(lit(0, n))
        sink.commit(books(1, n))
        assert rows() == n
        sink.end_run(books(1, n))
