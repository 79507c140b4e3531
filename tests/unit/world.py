"""An aggregator with a clock that only we move."""

from __future__ import annotations

from ffb.aggregate import Aggregator
from ffb.source import RunInfo
from tests.unit.producers import Memory

MS = 1_000_000
HORIZON, COMMIT, END = 100 * MS, 10 * MS, 1000 * MS


class World:
    """An aggregator with a clock that only we move."""

    def __init__(
        self, *sinks: Memory, horizon: int = HORIZON, rows: int = 10_000, producers: int = 1
    ) -> None:
        self.sinks = list(sinks) or [Memory()]
        self.now = 1
        self.made: list[RunInfo] = []
        self.acks: dict[str, int] = {}
        self._marks: dict[tuple[str, int], int] = {}
        self.aggregator = Aggregator(self.make, horizon, COMMIT, END, rows, producers)

    def make(self, info: RunInfo) -> list[Memory]:
        self.made.append(info)
        return self.sinks if len(self.made) == 1 else [Memory()]

    @property
    def sink(self) -> Memory:
        return self.sinks[0]

    def give(self, *messages) -> None:
        for m in messages:
            self.aggregator.receive(m, self.now)

    def tick(self, ms: float = 11) -> dict[str, int]:
        self.now += int(ms * MS)
        moved: dict[str, int] = {}
        for producer, process, seq in self.aggregator.tick(self.now):
            assert seq > self._marks.get((producer, process), 0), "a watermark goes up"
            self._marks[producer, process] = moved[producer] = seq
        self.acks |= moved
        return moved
