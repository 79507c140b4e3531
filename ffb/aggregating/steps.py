"""Steps of a scan: told by every producer, passed on once, before the first row of the step."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ffb.aggregating.interleave import FILLED, Piece, interleave
from ffb.batch import Batch
from ffb.messaging.window import Name
from ffb.schema import TIMESTAMP
from ffb.shot import BeginStep

#: A step at its place among the rows, or rows.
Item = BeginStep | Batch


class Steps:
    """Steps known, and those that wait for the rows before them.

    ``notes`` says in which steps producers contradict each other.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._known: dict[int, BeginStep | None] = {}  # None: from an earlier life
        self._waiting: list[tuple[int, BeginStep]] = []  # since when
        self._words: list[tuple[int, tuple[Name, int]]] = []  # step, message
        self._odd: set[int] = set()

    @property
    def waiting(self) -> bool:
        """Whether there are steps not yet passed on."""
        return bool(self._waiting or self._words)

    def take(self, name: Name, seq: int, step: BeginStep, now: int) -> None:
        """Take what a producer says of a step in message ``seq``."""
        self._words.append((step.step, (name, seq)))
        if step.step not in self._known:
            self._known[step.step] = step
            self._waiting.append((now, step))
            self._waiting.sort(key=lambda w: _at(w[1]))
            return
        known = self._known[step.step]
        if known is not None and dict(known.values) != dict(step.values):
            self._contradict(name[0], known, step)

    def _contradict(self, who: str, known: BeginStep, step: BeginStep) -> None:
        if step.step in self._odd or len(self._odd) > 100:
            return
        self._odd.add(step.step)
        self.notes.append(
            f"step {step.step}: {who} says {dict(step.values)}, another producer said"
            f" {dict(known.values)} before; that is kept"
        )

    def among(self, batches: Iterable[Batch], before: int) -> Iterator[Item]:
        """``batches`` with the steps that have their place among them.

        Steps that came ``before`` then wait no longer, whatever rows there are.
        """
        batches = [*batches]
        last = max((int(b.columns[TIMESTAMP.name][-1]) for b in batches), default=-1)
        due = deque(s for t, s in self._waiting if _at(s) <= last or t <= before)
        self._waiting = [w for w in self._waiting if w[1] not in due]
        for batch in batches:
            stamps, at = batch.columns[TIMESTAMP.name], 0
            while due and _at(due[0]) <= int(stamps[-1]):
                step = due.popleft()
                place = int(np.searchsorted(stamps, np.uint64(_at(step)), "left"))
                if place > at:
                    yield _cut(batch, at, place)
                    at = place
                yield step
            yield _cut(batch, at, batch.n) if at else batch
        yield from due

    def told(self) -> list[tuple[Name, int]]:
        """Messages of which nothing waits any more."""
        waiting = {step.step for _, step in self._waiting}
        told = [word for step, word in self._words if step not in waiting]
        self._words = [w for w in self._words if w[0] in waiting]
        return told

    @property
    def state(self) -> list[list[int]]:
        """Steps passed on, as ranges."""
        waiting = {step.step for _, step in self._waiting}
        out: list[list[int]] = []
        for step in sorted(self._known.keys() - waiting):
            if out and step == out[-1][1] + 1:
                out[-1][1] = step
            else:
                out.append([step, step])
        return out

    def resume(self, state: Any) -> None:
        """Go on from :attr:`state`."""
        for first, last in state:
            self._known |= dict.fromkeys(range(int(first), int(last) + 1))


def _at(step: BeginStep) -> int:
    return min(max(step.timestamp, 0), (1 << 64) - 1)


def _cut(batch: Batch, begin: int, end: int) -> Batch:
    """Rows of ``batch`` from ``begin`` to ``end``."""
    rows = slice(begin, end)
    out = interleave([Piece(batch, rows, batch.columns[TIMESTAMP.name][rows])], None)
    for name in FILLED:
        out.columns[name] = batch.columns[name][rows]
    return out
