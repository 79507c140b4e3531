"""What a run's file says, read once for an audit: rows, tables and the books of every commit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffb.reader import RunFile
from ffb.reading import contents
from ffb.schema import EPOCH, KEPT, LATE, PRODUCER, PULSE_ID, STEP, TIMESTAMP
from ffb.sink import WRITTEN


@dataclass(frozen=True)
class Evidence:
    """A run as of its last commit.

    ``columns`` are those of :data:`ffb.schema.CORE` that tell about a shot's fate, in the order of
    the file; ``placed[i]`` is the row in the file of the i-th row that was committed. ``books`` are
    the details of each of the ``commits``, a map of :class:`ffb.sink.Counts`. ``plain`` is a run in
    one file, not in file segments.
    """

    rows: int
    complete: bool
    plain: bool
    columns: Mapping[str, NDArray[Any]]
    placed: NDArray[np.int64]
    commits: NDArray[Any]
    books: list[Mapping[str, Any]]
    ledger: NDArray[Any]
    producers: NDArray[Any]
    epochs: NDArray[Any]
    steps: NDArray[Any]

    @cached_property
    def in_order(self) -> dict[str, NDArray[Any]]:
        """Columns in the order in which rows were committed."""
        return {name: values[self.placed] for name, values in self.columns.items()}

    @cached_property
    def moved(self) -> bool:
        """Whether the file has its rows in another order than they were committed in."""
        return bool((np.diff(self.placed) < 0).any())

    @cached_property
    def names(self) -> dict[int, str]:
        """Producers' processes by number, as people call them."""
        names = [p["name"].decode() for p in self.producers]
        return {
            int(p["producer"]): name if names.count(name) == 1 else f"{name}@{int(p['process'])}"
            for p, name in zip(self.producers, names, strict=True)
        }

    @cached_property
    def written(self) -> NDArray[Any]:
        """Entries of the ledger about shots that have a row."""
        return np.asarray(self.ledger[self.ledger["state"] == WRITTEN.encode()])

    @cached_property
    def lost(self) -> NDArray[Any]:
        """Entries of the ledger about shots that have none."""
        return np.asarray(self.ledger[self.ledger["state"] != WRITTEN.encode()])

    @cached_property
    def accounts(self) -> dict[int, Mapping[str, Any]]:
        """The newest books of each producer's process, by its number."""
        return self.accounts_at(-1) if self.books else {}

    def accounts_at(self, i: int) -> dict[int, Mapping[str, Any]]:
        """Books of each producer's process at commit line ``i``; -1 - k for unknown ones."""
        known = {
            (p["name"].decode(), int(p["process"])): int(p["producer"]) for p in self.producers
        }
        out: dict[int, Mapping[str, Any]] = {}
        for k, (key, account) in enumerate(self.books[i].get("producers", {}).items()):
            name = (str(account.get("producer", key)), int(account.get("epoch", 0)))
            out[known.get(name, -1 - k)] = account
        return out


def losses(account: Mapping[str, Any]) -> dict[str, int]:
    """Shots that a producer's process lost, by reason."""
    out: dict[str, int] = {}
    for told in ("lost", "refused"):
        for reason, n in account.get(told, {}).items():
            out[reason] = out.get(reason, 0) + int(n)
    return out


def gather(run: RunFile) -> Evidence:
    """Read all that an audit needs. Raises ``OSError`` where a file of the run cannot be read."""
    commits = run.commits
    wanted = (TIMESTAMP, PULSE_ID, STEP, KEPT, PRODUCER, EPOCH, LATE)
    placed = np.arange(run.committed)
    for line in run.order:
        at = np.arange(int(line["rows"]))
        inside = at[at + int(line["place"]) < len(placed)]
        placed[inside + int(line["place"])] = inside + int(line["row"])
    placed = np.clip(placed, 0, max(0, run.committed - 1))
    return Evidence(
        rows=run.committed,
        complete=run.complete,
        plain=not run.segmented,
        columns={c.name: run[c.name][:] for c in wanted},
        placed=placed,
        commits=commits,
        books=[run.said(line) for line in commits],
        ledger=run.table(contents.LEDGER) if run.complete else run.lines(contents.LEDGER),
        producers=run.lines(contents.PRODUCERS),
        epochs=run.lines(contents.EPOCHS),
        steps=run.lines(contents.STEPS),
    )
