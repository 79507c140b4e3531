"""Producers and sinks made by hand, for tests of what lies between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ffb.batch import Batch
from ffb.schema import CORE, EPOCH, LATE, PRODUCER, Column, Schema
from ffb.shot import BeginStep
from ffb.sink import Counts, Entry, Provenance
from ffb.source import RunInfo
from ffb.wire import EndRun, Header, Message

#: Columns that the aggregator fills in.
FILLED = (PRODUCER, EPOCH, LATE)
SCHEMA = Schema((*CORE, Column("value", "<f8"), Column("wave", "<f4", (3,), ("t",))))
RUN = RunInfo("xpptest01", 7, 1)


def batch(stamps: Sequence[int], schema: Schema = SCHEMA) -> Batch:
    """Rows whose every column follows from the timestamp, so that a mixed-up row shows."""
    out = Batch(schema, len(stamps))
    t = np.asarray(stamps, np.uint64)
    for c in schema.columns:
        v = t if c.name == "timestamp" else t % 97
        out.columns[c.name][:] = v.reshape(-1, *(1 for _ in c.shape)).astype(c.dtype)
    out.read[:] = t.astype(np.int64) + 5
    return out


class Producer:
    """Numbers its messages and keeps its books, as a real one does."""

    def __init__(self, name: str, epoch: int = 1, run: RunInfo = RUN) -> None:
        self.name, self.epoch, self.run = (name, epoch), epoch, run
        self.seq = self.read = 0
        self.lost: Counter[str] = Counter()
        self.losses: list[list[Any]] = []
        self.sent: list[Message] = []

    def say(self, kind: str, schema: Schema | None, body: Any) -> Message:
        if kind != "status":
            self.seq += 1
        counts = {"read": self.read, "lost": dict(self.lost)}
        n = body.n if isinstance(body, Batch) else 0
        seq = self.seq if kind != "status" else 0
        run = (self.run.exp, self.run.run, self.run.began)
        header = Header(kind, *run, *self.name, seq=seq, n=n, counts=counts, losses=self.losses)
        self.losses = []
        message = Message(header, schema, body)
        if kind != "status":
            self.sent.append(message)
        return message

    def begin(self, schema: Schema = SCHEMA, config: str = "c") -> Message:
        return self.say("begin_run", schema, Provenance(config=config))

    def lose(self, reason: str, first: int, last: int = 0, shots: int = 1) -> None:
        """Read shots and lose them; the next message tells."""
        self.read += shots
        self.lost[reason] += shots
        self.losses.append([reason, first, last or first, shots])

    def shots(self, stamps: Sequence[int], schema: Schema = SCHEMA) -> Message:
        self.read += len(stamps)
        return self.say("shots", schema, batch(stamps, schema))

    def step(self, step: int, at: int | None = None, delay: float | None = None) -> Message:
        values = {"delay": step / 2 if delay is None else delay}
        return self.say("step", None, BeginStep(step, values, "", step if at is None else at))

    def end(self, ended: str = "end of run") -> Message:
        return self.say("end_run", None, EndRun(ended))

    def status(self) -> Message:
        return self.say("status", None, {})


class Memory:
    """A sink that keeps everything, survives its aggregator, and fails when told to."""

    def __init__(self) -> None:
        self.info: RunInfo | None = None
        self.rows: list[int] = []  # committed
        self.waiting: list[Batch] = []
        self.batches: list[Batch] = []
        self.steps: list[int] = []
        self.books = Counts()
        self.all_books: list[Counts] = []
        self.ended: Counts | None = None
        self.ledger: list[Entry] = []
        self.epochs: list[tuple[int, int, str]] = []  # number, row, configuration
        self.told: list[tuple[int, int]] = []  # steps, and rows before them
        self.failing: set[str] = set()

    def _try(self, what: str) -> None:
        if what in self.failing:
            raise OSError(28, f"no space left to {what}")

    def begin_run(self, info: RunInfo, schema: Schema, provenance: Provenance) -> None:
        self._try("begin_run")
        self.info, self.waiting = info, []

    def begin_epoch(self, epoch: int, schema: Schema, provenance: Provenance) -> None:
        self._try("begin_epoch")
        assert not self.waiting, "an epoch begins right after a commit"
        self.epochs.append((epoch, len(self.rows), provenance.config))

    def append(self, batch: Batch) -> None:
        self._try("append")
        t = batch.columns["timestamp"]
        for c in batch.schema.columns[1:]:
            if c in FILLED:
                continue
            expected = (t % np.uint64(97)).reshape(-1, *(1 for _ in c.shape)).astype(c.dtype)
            np.testing.assert_array_equal(
                batch.columns[c.name], np.broadcast_to(expected, (batch.n, *c.shape))
            )
        np.testing.assert_array_equal(batch.read, t.astype(np.int64) + 5)
        self.waiting.append(batch)

    def commit(self, counts: Counts) -> None:
        self._try("commit")
        for b in self.waiting:
            self.rows += b.columns["timestamp"].tolist()
        self.batches += self.waiting
        self.waiting, self.books = [], counts
        self.all_books.append(counts)
        self.ledger += counts.ledger

    def step(self, step: int, values: Mapping[str, float], docstring: str) -> None:
        self._try("step")
        self.steps.append(step)
        self.told.append((step, len(self.rows) + sum(b.n for b in self.waiting)))

    def column(self, name: str) -> list[Any]:
        """A column of all rows committed."""
        return [v for b in self.batches for v in b.columns[name].tolist()]

    def end_run(self, counts: Counts) -> None:
        self._try("end_run")
        assert self.ended is None
        self.ended = counts
