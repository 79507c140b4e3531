"""The aggregator among ranks: it notices who died, waits for nobody in vain, and says how it goes.

Rank 0 runs it in a thread beside its own share of the shots. Each rank is a producer named after
its number. One that died is given up at once, so that the rows of the others go on; what it had
not sent is entered as lost in the end, by rank 0, which then knows all shots of the run.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import NamedTuple

from ffb.aggregating.serve import Service
from ffb.books.losses import Losses
from ffb.config import Config
from ffb.health import Rate
from ffb.live.shown import Writer
from ffb.producing.heir import DIED
from ffb.source import RunInfo
from ffb.wire import EndRun, Header, Message

#: Seconds between two looks at the ranks, and two lines of progress; seconds for which a rank whose
#: connection is gone may come back.
LOOK_S, LINE_S, GONE_S = 0.2, 2.0, 2.0


def name_of(rank: int) -> str:
    """Name of a rank as a producer."""
    return f"p{rank}"


class _Missing(NamedTuple):
    """A dead rank's share of the shots, to be entered as lost as far as it is in no books."""

    producer: str
    stamps: Sequence[int]
    done: Future[int]


class RankService(Service):
    """An aggregator of ``ranks`` producers; a rank that did not come in ``patience_s`` is dead.

    ``read`` gives how much of the files was read, from 0 to 1, and ``say`` takes a line of
    progress. ``waiting`` are ranks that are at work, ``dead`` those that died; both may be looked
    at by other threads.
    """

    def __init__(
        self,
        config: Config,
        writer: Callable[[Config, RunInfo], Writer],
        ranks: int,
        patience_s: float,
        read: Callable[[], float],
        say: Callable[[str], None],
    ) -> None:
        super().__init__(config, writer)
        self.dead: tuple[str, ...] = ()
        self.others = tuple(name_of(k) for k in range(1, ranks))
        self.waiting = self.others
        self._patience_s, self._read, self._say = patience_s, read, say
        self._began = self._looked = self._told = time.monotonic()
        self._gone: dict[str, float] = {}
        self._inbox: queue.SimpleQueue[_Missing] = queue.SimpleQueue()
        self._written_hz = Rate()

    def turn(self) -> int:
        """See :meth:`ffb.aggregating.serve.Service.turn`."""
        now, seconds = super().turn(), time.monotonic()
        if seconds - self._looked > LOOK_S:
            self._looked = seconds
            self._look(seconds)
        while not self._inbox.empty():
            missing = self._inbox.get()
            missing.done.set_result(self._enter(missing, now))
        if seconds - self._told > LINE_S:
            self._told = seconds
            self._say(self._line(now))
        return now

    def miss(self, producer: str, stamps: Sequence[int]) -> Future[int]:
        """Enter of a dead producer's shots, in its order, those that it had not sent as lost.

        Gives how many, once that is done.
        """
        self._inbox.put(missing := _Missing(producer, stamps, Future()))
        return missing.done

    def _look(self, seconds: float) -> None:
        through = self.aggregator.through
        self.waiting = tuple(p for p in self.others if p not in through and p not in self.dead)
        for producer in self.waiting:
            here = self.hub.here(producer)
            if here:
                self._gone.pop(producer, None)
                continue
            since = self._began if here is None else self._gone.setdefault(producer, seconds)
            if seconds - since > (self._patience_s if here is None else GONE_S):
                self.dead = (*self.dead, producer)
                self._say(f"{producer} {'did not come' if here is None else 'died'}: go on without")
        for producer in self.dead:
            self.aggregator.give_up(producer)

    def _enter(self, missing: _Missing, now: int) -> int:
        lost = 0
        for info, (name, account) in self.aggregator.books_of(missing.producer).items():
            losses, rest = Losses(), missing.stamps[account.read :]
            if rest:
                losses.add(DIED, rest[0], rest[-1], len(rest))
            counts = {
                "read": account.read + len(rest),
                "lost": {**account.lost, DIED: account.lost.get(DIED, 0) + len(rest)},
            }
            head = Header("end_run", *info_of(info), *name, account.heard + 1)
            head = head._replace(counts=counts, losses=losses.take())
            self.aggregator.receive(Message(head, None, EndRun(DIED)), now)
            lost += len(rest)
        return lost

    def _line(self, now: int) -> str:
        """How far we are."""
        done = [c.counts for c in self.aggregator.closed]
        counts = [*self.aggregator.open.values()] or done
        if not counts:
            return "preparing"
        written = sum(c.written for c in counts)
        share, rate = 100 * self._read(), self._written_hz(written, now)
        held = f"  |  held up: {self.aggregator.fault}" if self.aggregator.fault else ""
        return f"{written:,} shots written  |  {rate:,.0f}/s  |  {share:.0f} % read{held}"


def info_of(info: RunInfo) -> tuple[str, int, int]:
    """Identity of a run as a header has it."""
    return info.exp, info.run, info.began
