"""What a commit adds to the tables of its file: commits, ledger, producers, epochs, steps, log."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.reading import contents
from ffb.schema import STEP, Schema
from ffb.sink import Counts, Provenance
from ffb.writers.describe import to_json
from ffb.writers.growing import Rows


class _Said(NamedTuple):
    """Where the log tells of a step's values."""

    log: int
    size: int


class Lines:
    """Lines on their way into the tables of a run.

    ``handed`` are the lines of each table that :meth:`take` has handed out so far. ``steps`` is
    plain data to go on from: rows and values of steps of which the other is not known yet, and
    steps that are entered.
    """

    def __init__(
        self, handed: Mapping[str, int], producers: int = 0, steps: Mapping[str, Any] | None = None
    ) -> None:
        self.handed = {name: int(handed.get(name, 0)) for name in contents.TABLES}
        self._gathered: list[tuple[str, NDArray[Any]]] = []
        self._log, self._producers = self.handed[contents.LOG], producers
        self._rows: dict[int, int] = dict((steps or {}).get("rows", ()))
        self._said = {int(k): _Said(*v) for k, v in (steps or {}).get("said", ())}
        self._entered: set[int] = set((steps or {}).get("entered", ()))
        self._begun: list[tuple[int, int, _Said]] = []

    @property
    def steps(self) -> dict[str, Any]:
        """Steps as plain data."""
        return {
            "rows": list(self._rows.items()),
            "said": [(step, tuple(at)) for step, at in self._said.items()],
            "entered": sorted(self._entered),
        }

    def take(self) -> list[tuple[str, NDArray[Any]]]:
        """Hand out the lines gathered so far, each with the name of its table."""
        out, self._gathered = self._gathered, []
        for table, lines in out:
            self.handed[table] += len(lines)
        return out

    def step(self, step: int, values: Mapping[str, float], docstring: str) -> None:
        """Note the values of a step; the first word on it counts."""
        if step not in self._said and step not in self._entered:
            self._said[step] = self._say(
                {"step": step, "values": dict(values), "docstring": docstring}
            )
            self._match()

    def rows(self, batches: Iterable[Rows], row: int) -> None:
        """Note which steps begin with the rows from ``row`` on."""
        columns = [b.columns[STEP.name] for b in batches if STEP.name in b.columns]
        steps = np.concatenate(columns) if columns else np.empty(0, np.int32)
        if not len(steps):
            return
        for at in [0, *(np.flatnonzero(steps[1:] != steps[:-1]) + 1).tolist()]:
            step = int(steps[at])
            if step not in self._rows and step not in self._entered and step >= 0:
                self._rows[step] = row + at
        self._match()

    def epoch(self, epoch: int, row: int, schema: Schema, provenance: Provenance) -> None:
        """Note that an epoch begins at ``row``; which commit brought it, the next one says."""
        columns = [c._asdict() for c in schema.columns]
        line = {"epoch": epoch, "row": row, "columns": columns, "provenance": provenance.facts}
        self._begun.append((epoch, row, self._say(line)))

    def commit(self, counts: Counts, rows: int) -> None:
        """Note the books of a commit up to ``rows``, and what they hold that is new."""
        now, lost = time.time_ns(), sum(counts.lost.values())
        told = {k: v for k, v in vars(counts).items() if k != "ledger"}
        said = self._say({"rows": rows, "time": now} | told)
        numbers = (counts.commit, rows, now, counts.read, counts.written, lost, counts.late)
        self._add(contents.COMMITS, [(*numbers, counts.not_seen, *said)])
        self._add(
            contents.LEDGER,
            [
                (e.producer, contents.state_bytes(e.state), *e[2:], counts.commit)
                for e in counts.ledger
            ],
        )
        begun, self._begun = self._begun, []
        self._add(contents.EPOCHS, [(e, row, counts.commit, *at) for e, row, at in begun])
        self._add(contents.PRODUCERS, self._joined(counts.producers))

    def _joined(self, producers: Mapping[str, Mapping[str, Any]]) -> list[tuple[Any, ...]]:
        """Lines of producers that are new, in the order of their numbers."""
        if len(producers) <= self._producers:
            return []
        numbered = enumerate(producers.items())
        every = sorted((int(p.get("index", i)), name, p) for i, (name, p) in numbered)
        new = [
            (index, str(p.get("producer", name)).encode()[:70], int(p.get("epoch", 0)))
            for index, name, p in every
            if index >= self._producers
        ]
        self._producers = len(producers)
        return new

    def end(self) -> None:
        """Give steps that are still open what is known of them: row -1, or no values."""
        for step in [s for s in self._rows if s not in self._said]:
            self._said[step] = self._say({"step": step, "values": {}, "docstring": ""})
        for step in self._said:
            self._rows.setdefault(step, -1)
        self._match()

    def _match(self) -> None:
        for step in sorted(self._rows.keys() & self._said.keys()):
            self._add(contents.STEPS, [(step, self._rows.pop(step), *self._said.pop(step))])
            self._entered.add(step)

    def _say(self, line: Mapping[str, object]) -> _Said:
        """Append a line to the log."""
        text = np.frombuffer(f"{to_json(line)}\n".encode(), np.uint8)
        at, self._log = self._log, self._log + len(text)
        self._gathered.append((contents.LOG, text))
        return _Said(at, len(text))

    def _add(self, table: str, lines: Sequence[tuple[Any, ...]]) -> None:
        if lines:
            self._gathered.append((table, np.array(lines, contents.TABLES[table][0])))
