"""The aggregator: messages of all producers in, committed rows out, and who may forget what.

Pure logic: no sockets, and time is what the caller says it is. Every run has its own sinks, books
and merge (:mod:`ffb.aggregating.runstate`). Nothing is acknowledged before it is done, so producers
keep what we cannot.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ffb.aggregating.epochs import Parameters
from ffb.aggregating.runstate import Run, Timing
from ffb.books.account import Account
from ffb.ledger import Ledger
from ffb.messaging.window import Arrivals, Name
from ffb.sink import Counts, Provenance, Sink
from ffb.source import RunInfo
from ffb.wire import Header, Message

log = logging.getLogger(__name__)

NS = 1_000_000_000

#: The column that numbers producers' processes ends here.
MAX_PRODUCERS = 65_536


class Committed(NamedTuple):
    """Everything up to message ``seq`` of a producer is durable."""

    producer: str
    epoch: int
    seq: int


class Closed(NamedTuple):
    """A run that is over: its last counts, and what does not add up in its books.

    A ``recalled`` one had been ended by an earlier process, and its producers may not know yet.
    """

    info: RunInfo
    counts: Counts
    problems: list[str]
    recalled: bool = False


class Aggregator:
    """Merges the messages of all producers, run by run, and commits them to sinks.

    Parameters
    ----------
    sinks
        Called for every run; returns the sinks of that run, in the order in which they are told.
        What a sink shows must not run ahead of what another keeps, so writers come first.
    horizon_ns
        How long a row may wait for older rows of other producers.
    producers
        How many are to be expected; at the beginning of a run rows wait for them, too.
    commit_ns, commit_rows
        Commit when so much time has passed, or so many rows have come.
    end_timeout_ns
        How long a run waits for producers that neither go on nor end, and how long it lasts when
        nobody says a word.
    horizon_shots
        How many rows may wait for older ones; the oldest go on when there are more.
    ended
        Last books of those complete files that hold a run: an earlier life may have been killed
        after it ended the run and before producers knew.
    """

    def __init__(
        self,
        sinks: Callable[[RunInfo], Sequence[Sink]],
        horizon_ns: int = NS // 2,
        commit_ns: int = NS // 10,
        end_timeout_ns: int = 10 * NS,
        commit_rows: int = 10_000,
        producers: int = 1,
        horizon_shots: int = 1 << 20,
        ended: Callable[[RunInfo], Sequence[Counts]] = lambda info: (),
    ) -> None:
        self.sinks, self.producers, self.ended = sinks, producers, ended
        self.timing = Timing(horizon_ns, commit_ns, end_timeout_ns, commit_rows, horizon_shots)
        self.fault = ""
        self.refused: Counter[str] = Counter()
        self.closed: list[Closed] = []
        self._runs: dict[RunInfo, Run] = {}
        self._arrivals = Arrivals()
        self._heard: dict[Name, int] = {}

    @property
    def open(self) -> dict[RunInfo, Counts]:
        """Runs being taken, with their counts as of the last commit."""
        return {info: run.counts for info, run in self._runs.items()}

    @property
    def pending(self) -> int:
        """Rows that wait for a commit."""
        return sum(run.merge.rows for run in self._runs.values())

    @property
    def notes(self) -> list[str]:
        """What a person should know of the runs being taken."""
        return [note for run in self._runs.values() for note in run.notes]

    def receive(self, message: Message, now: int) -> None:
        """Take a message, in order and once per producer; ``now`` is a monotonic clock's [ns]."""
        header = message.header
        name = (header.producer, header.epoch)
        self._heard[name] = now
        if header.kind == "status":
            return
        info = RunInfo(header.exp, header.run, header.began)
        new = self._arrivals.take(name, header.seq, max(header.n, 1))
        if header.kind == "begin_run":  # may be repeated, as a reminder
            self._begin(info, message, name, now)
            return
        run = self._runs.get(info)
        if not new:
            return
        if run is not None and name in run.attendance.present:
            run.take(name, message, now)
        else:
            self._refuse(run, info, name, message)

    def skip(self, producer: str, epoch: int, seq: int) -> None:
        """Let go of a numbered message that could not be decoded; its rows are lost."""
        name = (producer, epoch)
        if self._arrivals.take(name, seq, 0):
            for run in self._runs.values():
                if name in run.attendance.missing:
                    run.unreadable(name)

    def tick(self, now: int) -> list[Committed]:
        """Commit what is due, end what is over; returns what producers may forget."""
        before, self.fault = self.fault, ""
        for run in [*self._runs.values()]:
            try:
                self._drive(run, now)
            except OSError as e:
                self.fault = f"{run.info.exp} run {run.info.run}: {e}"
        if self.fault != before:
            log.warning("commits %s", f"held up: {self.fault}" if self.fault else "go on")
        return [Committed(*name, seq) for name, seq in self._arrivals.moved().items()]

    @property
    def through(self) -> set[str]:
        """Producers for which no open run waits any more."""
        return {name for run in self._runs.values() for name in run.attendance.through}

    def give_up(self, producer: str) -> None:
        """Let no open run wait for a producer that is dead; its end_run may come all the same."""
        for run in self._runs.values():
            run.give_up(producer)

    def books_of(self, producer: str) -> dict[RunInfo, tuple[Name, Account]]:
        """By open run, the newest process of a producer, and its account there.

        Of one that never came it is process 0, with an empty account.
        """
        return {info: run.books_of(producer) for info, run in self._runs.items()}

    def end(self, reason: str) -> None:
        """Let every open run end at the next tick, whoever may still be in it."""
        for run in self._runs.values():
            run.ending = run.ending or reason

    def _begin(self, info: RunInfo, message: Message, name: Name, now: int) -> None:
        assert message.schema is not None
        assert isinstance(message.body, Provenance)
        for other in self._runs.values():
            if other.info != info:
                other.gone_on(name)
        run, seq = self._runs.get(info), message.header.seq
        if run is None and not self._is_closed(info, name):
            self._recall(info, name)
        if self._is_closed(info, name) or (run and len(run.attendance.joined) >= MAX_PRODUCERS):
            self._refuse(run, info, name, message)
            return
        parameters = Parameters.of(message.schema, message.body)
        if run is None:
            sinks = self.sinks(info)
            run = Run(info, parameters, sinks, self._arrivals, self.timing, self.producers, now)
            self._runs[info] = run
            log.info("exp=%s run=%d opened by producer=%s", info.exp, info.run, name[0])
        run.begin(name, parameters, seq, now)

    def _is_closed(self, info: RunInfo, name: Name) -> bool:
        """Whether a run is closed in which this process took part.

        Another one may come when all were dead for too long: its shots go to a file of their own.
        """
        return any(c.info == info and _seq_of(c.counts, name) is not None for c in self.closed)

    def _recall(self, info: RunInfo, name: Name) -> None:
        """Take a run as closed that an earlier life ended, if it knew this very process."""
        for counts in self.ended(info):
            if _seq_of(counts, name) is not None:
                log.info("exp=%s run=%d had been ended by an earlier process", info.exp, info.run)
                books = Ledger()
                books.resume(counts)
                self.closed.append(Closed(info, counts, books.balance(), recalled=True))
                return

    def _refuse(self, run: Run | None, info: RunInfo, name: Name, message: Message) -> None:
        header: Header = message.header
        covered = [_seq_of(c.counts, name) or 0 for c in self.closed if c.info == info]
        if closed := self._is_closed(info, name):
            run = None
        if run is None and header.seq <= max(covered, default=0):  # only the word of it got lost
            self._arrivals.settle(name, header.seq, max(header.n, 1))
            return
        reason = "the run is closed" if closed else "no begin_run came first"
        if header.n or header.kind == "begin_run":
            log.warning(
                "exp=%s run=%d producer=%s refused kind=%s rows=%d: %s",
                info.exp,
                info.run,
                name[0],
                header.kind,
                header.n,
                reason,
            )
        self.refused[reason] += header.n
        if run is not None:
            run.refuse(name, message, reason)
        else:
            self._arrivals.settle(name, header.seq, max(header.n, 1))

    def _drive(self, run: Run, now: int) -> None:
        run.work()
        if not run.ended:
            run.ending = run.ending or run.over_why(now, self._heard)
            if run.due(now):
                run.commit(now)
                run.work()
        if run.ended:
            self._close(run)

    def _close(self, run: Run) -> None:
        info = run.info
        del self._runs[info]
        self.closed.append(Closed(info, run.counts, run.ledger.balance()))
        log.info("exp=%s run=%d closed: %s", info.exp, info.run, run.ending)
        for problem in self.closed[-1].problems:
            log.warning("exp=%s run=%d %s", info.exp, info.run, problem)


def _seq_of(counts: Counts, name: Name) -> int | None:
    """Last message of a producer's process that these books cover; ``None`` if it is not known."""
    books = (p for p in counts.producers.values() if (p["producer"], p["epoch"]) == name)
    return next((int(p["seq"]) for p in books), None)
