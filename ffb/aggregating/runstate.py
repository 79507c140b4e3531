"""A run being taken: what waits, what the books say of it, what is to be done to its sinks.

What is to be done stands in a queue in order, and what fails with ``OSError`` (a full disk, a lost
mount) stays at its head and is tried again at the next tick.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ffb.aggregating.attendance import DIED, Attendance
from ffb.aggregating.epochs import Epochs, Parameters
from ffb.aggregating.merge import END, Merge
from ffb.aggregating.steps import Item, Steps
from ffb.batch import Batch
from ffb.books.account import Account
from ffb.books.unseen import Unseen
from ffb.ledger import Ledger
from ffb.messaging.window import Arrivals, Name
from ffb.schema import LATE, PULSE_ID, STEP, TIMESTAMP
from ffb.shot import BeginStep
from ffb.sink import Adder, Counts, Sink
from ffb.source import RunInfo
from ffb.sums.piece import Parcel
from ffb.wire import EndRun, Message

log = logging.getLogger(__name__)

#: Reason for rows that do not fit their own producer's begin_run.
OTHER_COLUMNS = "not the columns it began with"


@runtime_checkable
class Keeper(Protocol):
    """A sink that may continue what an earlier life began: the counts it found, once begun."""

    @property
    def books(self) -> Counts:
        """Counts of the last commit; ``Counts()`` for a new run."""
        ...


class Timing(NamedTuple):
    """How long what may take, in ns, and how many rows make a commit, or may wait."""

    horizon_ns: int
    commit_ns: int
    end_timeout_ns: int
    commit_rows: int
    horizon_shots: int


class Run:
    """A run being taken.

    ``ending`` is why it is over, ``ended`` says that all sinks know, ``counts`` are those of the
    last commit.
    """

    def __init__(
        self,
        info: RunInfo,
        first: Parameters,
        sinks: Sequence[Sink],
        arrivals: Arrivals,
        timing: Timing,
        producers: int,
        now: int,
    ) -> None:
        self.info, self.sinks, self.timing, self.arrivals = info, sinks, timing, arrivals
        self.merge = Merge(timing.horizon_ns, producers, timing.horizon_shots)
        self.epochs = Epochs(first, timing.horizon_ns)
        self.ledger, self.steps, self.unseen = Ledger(), Steps(), Unseen()
        self.attendance = Attendance(producers, timing.end_timeout_ns)
        self.ending, self.ended = "", False
        self.counts = Counts()
        self._todo: deque[Callable[[], None]] = deque()
        self._waiting: list[Callable[[], None]] = []  # messages, until the sinks have begun
        self._words: list[tuple[Name, int]] = []  # ends and sums not yet in a commit
        self._covered: dict[Name, int] = {}  # what a sink has already: messages,
        self._partial: dict[Name, dict[int, int]] = {}  # and the oldest rows of later ones
        self._resumed: set[Name] = set()  # those in the books found, until their first new word
        self._parameters: dict[Name, Parameters] = {}
        self._begun = False
        self._commits = 0
        self._committed_at = now
        self._contradictions: list[str] = []
        begin = (info, first.schema, first.provenance)
        self._todo.extend(partial(s.begin_run, *begin) for s in sinks)
        self._todo.append(partial(self._resume, now))

    @property
    def notes(self) -> list[str]:
        """What a person should know of the run."""
        spoilt = [
            f"{name[0]}: {a.spoilt.total():,} chunks did not unpack, the first of"
            f" {next(iter(a.spoilt))}; their rows are missing, or cannot be read: see ffb audit"
            for name, a in self.ledger.accounts.items()
            if a.spoilt
        ]
        return [*self.steps.notes, *self._contradictions, *spoilt]

    def begin(self, name: Name, parameters: Parameters, seq: int, now: int) -> None:
        """Take a producer's begin_run; another one with other parameters begins an epoch."""
        if self.attendance.begin(name, now):
            self.merge.join(name, now)
        self._then(partial(self._begin, name, self.epochs.know(parameters), seq))

    def take(self, name: Name, message: Message, now: int) -> None:
        """Take a message of a producer that has joined."""
        self._then(partial(self._take, name, message, now))

    def refuse(self, name: Name, message: Message, reason: str) -> None:
        """Count rows that are not taken."""
        self._then(partial(self._refuse, name, message, reason))

    def unreadable(self, name: Name) -> None:
        """Note that a message of ``name`` could not be decoded."""
        self._then(partial(self._unreadable, name))

    def gone_on(self, name: Name) -> None:
        """Note that a producer has begun another run: its earlier processes are over in this one.

        What they left it has delivered before, should the ring have kept it.
        """
        self.attendance.elsewhere.add(name[0])
        for old in self.attendance.earlier(name):
            self._leave(old)

    def give_up(self, producer: str) -> None:
        """Wait no longer for a producer that is dead."""
        self.gone_on((producer, END))
        self.merge.absent.add(producer)

    def books_of(self, producer: str) -> tuple[Name, Account]:
        """Newest process of a producer, and its account; process 0 and an empty one for none."""
        newest = self.attendance.newest(producer)
        return newest, self.ledger.accounts.get(newest, Account(-1))

    def work(self) -> None:
        """Do what is to be done, in order; raises ``OSError`` when something cannot be done yet."""
        while self._todo:
            self._todo[0]()
            self._todo.popleft()

    def due(self, now: int) -> bool:
        """Whether it is time for a commit."""
        waited = now - self._committed_at >= self.timing.commit_ns
        return bool(self.ending) or waited or self.merge.fresh >= self.timing.commit_rows

    def over_why(self, now: int, heard: Mapping[Name, int]) -> str:
        """Why the run is over, "" while it is not; ``heard`` says when each gave a sign of life."""
        ends = {name: a.ended for name, a in self.ledger.accounts.items() if a.ended}
        return self.attendance.over_why(now, heard, ends)

    def _then(self, action: Callable[[], None]) -> None:
        if self._begun:
            action()
        else:
            self._waiting.append(action)

    def _resume(self, now: int) -> None:
        """Go on where a sink found the run, and let go of what it has already."""
        books = next((s.books for s in self.sinks if isinstance(s, Keeper)), Counts())
        if books.commit:
            self._go_on(books, now)
        self._begun = True
        for action in self._waiting:
            action()
        self._waiting.clear()

    def _go_on(self, books: Counts, now: int) -> None:
        state = books.state
        self.ledger.resume(books)
        self.counts, self._commits = books, books.commit
        self.merge.resume(int(state.get("newest", 0)), books.late, books.duplicates)
        self.steps.resume(state.get("steps", ()))
        self.unseen = Unseen(state.get("unseen"))
        for name, account in self.ledger.accounts.items():
            self._covered[name] = account.seq
            self._resumed.add(name)
            self._partial[name] = dict(account.partial)
            self.attendance.joined.setdefault(name, now)
            if account.ended:
                self._leave(name)
        self.epochs.number = books.epoch
        if state.get("parameters", self.epochs.current.key) != self.epochs.current.key:
            self._begin_epoch(self.epochs.current, now)

    def _begin(self, name: Name, parameters: Parameters, seq: int) -> None:
        self.ledger.account(name)
        self._parameters[name] = parameters
        self.arrivals.settle(name, seq, 1)

    def _take(self, name: Name, message: Message, now: int) -> None:
        header, body = message.header, message.body
        if header.seq <= self._covered.get(name, 0):
            self.arrivals.settle(name, header.seq, max(header.n, 1))
            return
        if name in self._resumed:
            self._resumed.discard(name)
            if header.seq > self._covered[name] + 1:  # what it has been told is safe, and was not
                self.ledger.miss(name)
        self.attendance.joined[name] = now
        fresh = self.ledger.heard(name, header.seq, header.counts, header.losses)
        if isinstance(body, Batch):
            self._rows(name, header.seq, body, now, fresh)
        elif isinstance(body, BeginStep):
            self.steps.take(name, header.seq, body, now)
        elif isinstance(body, Parcel):
            self._todo.extend(
                partial(s.add, name, header.seq, body) for s in self.sinks if isinstance(s, Adder)
            )
            self._words.append((name, header.seq))
        elif isinstance(body, EndRun):
            self.ledger.end(name, body.ended, header.seq)
            self._words.append((name, header.seq))
            if body.ended != DIED:
                self.attendance.first_end = self.attendance.first_end or now
            for over in (*self.attendance.earlier(name), name):
                self._leave(over)  # what its predecessors left it has delivered before

    def _rows(self, name: Name, seq: int, batch: Batch, now: int, fresh: bool) -> None:
        parameters, written = self._parameters[name], 1
        if batch.schema.id != parameters.schema.id:
            if fresh:
                self.ledger.refuse(name, OTHER_COLUMNS, batch.columns[TIMESTAMP.name])
            written = max(batch.n, 1)
        elif batch.n:
            written = self._partial.get(name, {}).pop(seq, 0)
            account = self.ledger.account(name)
            account.received += batch.n - written
            batch.forgive(partial(self._spoil, name, batch.n))
            self.merge.add(name, seq, batch, now, account.index, parameters.key, skip=written)
        self.arrivals.settle(name, seq, written)

    def _refuse(self, name: Name, message: Message, reason: str) -> None:
        header, body = message.header, message.body
        fresh = self.ledger.heard(name, header.seq, header.counts, header.losses)
        if fresh and isinstance(body, Batch):
            self.ledger.refuse(name, reason, body.columns[TIMESTAMP.name])
        elif isinstance(body, EndRun):
            self.ledger.end(name, body.ended, header.seq)
        self.arrivals.settle(name, header.seq, max(header.n, 1))

    def _spoil(self, name: Name, n: int, column: str, why: str) -> None:
        """Count a chunk that does not unpack, though it came as it was sent."""
        if self.ledger.spoil(name, column):
            said = (self.info.exp, self.info.run, name[0], column, n, why)
            log.error("exp=%s run=%d producer=%s column %s of %d rows did not unpack: %s", *said)

    def _unreadable(self, name: Name) -> None:
        self.ledger.account(name).unreadable += 1

    def _leave(self, name: Name) -> None:
        self.attendance.over.add(name)
        self.merge.leave(name)

    def commit(self, now: int) -> None:
        """Queue a commit of the rows that need not wait, then what has to follow it."""
        self._committed_at = now
        in_use = {p.key for name, p in self._parameters.items() if name not in self.attendance.over}
        crowded = self.merge.rows > self.timing.horizon_shots
        following = self.epochs.due(self.merge.waiting(), in_use, now, bool(self.ending) or crowded)
        self._commit(now, everything=bool(self.ending or following), last=not following)
        if following is not None:
            self._begin_epoch(following, now)
            if self.ending:
                self.commit(now)

    def _commit(self, now: int, *, everything: bool, last: bool) -> None:
        epochs, ending = self.epochs, self.ending if last else ""
        release = self.merge.release(now, epochs.current.key, epochs.number, everything)
        batches, shares = release or ([], Counter())
        patience = now if everything else now - self.timing.horizon_ns
        passed = [*self.steps.among(batches, patience)]
        for item in passed:
            self._pass_on(item)
        self._look_for_gaps([b.columns for b in passed if isinstance(b, Batch)])
        staged = Counter(dict.fromkeys((*self._words, *self.steps.told()), 1)) + shares
        self._words = []
        if not (staged or self.ledger.changed or ending):
            return
        for name in self.ledger.accounts:
            seq, partly = self.arrivals.promised(name, staged)
            self.ledger.cover(name, seq, self._partial.get(name, {}) | partly)
        if ending:
            self.ledger.settle()
        elif everything:
            self.ledger.close()
        self._check()
        counts = self._books(ending)
        self._todo.extend(partial(s.commit, counts) for s in self.sinks)
        if ending:
            self._todo.extend(partial(s.end_run, counts) for s in self.sinks)
        self._todo.append(partial(self._settle, counts, staged))

    def _pass_on(self, item: Item) -> None:
        """Queue a batch or a step for the sinks, and enter rows into the books."""
        if isinstance(item, BeginStep):
            step = (item.step, item.values, item.docstring)
            self._todo.extend(partial(s.step, *step) for s in self.sinks)
            return
        self.ledger.write(item)
        self._todo.extend(partial(s.append, item) for s in self.sinks)

    def _look_for_gaps(self, rows: Sequence[Mapping[str, NDArray[Any]]]) -> None:
        """Estimate what was not seen among all rows of a commit at once."""
        if rows:
            looked_at = (PULSE_ID.name, STEP.name, LATE.name)
            self.unseen.add(*(np.concatenate([c[name] for c in rows]) for name in looked_at))

    def _books(self, ending: str) -> Counts:
        self._commits += 1
        front, lost = self.merge.front, sum(a.gone for a in self.ledger.accounts.values())
        return self.ledger.counts(
            self._commits,
            front.late,
            front.duplicates,
            ending,
            epoch=self.epochs.number,
            not_seen=self.unseen.estimate(lost),
            state={
                "newest": front.released,
                "parameters": self.epochs.current.key,
                "steps": self.steps.state,
                "unseen": self.unseen.state,
            },
        )

    def _check(self) -> None:
        for said in self.ledger.check():
            if said not in self._contradictions and len(self._contradictions) < 100:
                self._contradictions.append(said)
                log.error("exp=%s run=%d %s", self.info.exp, self.info.run, said)

    def _begin_epoch(self, parameters: Parameters, now: int) -> None:
        self.epochs.begin(parameters, now)
        begin = (self.epochs.number, parameters.schema, parameters.provenance)
        self._todo.extend(partial(s.begin_epoch, *begin) for s in self.sinks)
        log.info("exp=%s run=%d epoch=%d begins", self.info.exp, self.info.run, begin[0])

    def _settle(self, counts: Counts, staged: Counter[tuple[Name, int]]) -> None:
        """All sinks have committed: producers may forget."""
        self.counts, self.ended = counts, bool(counts.ended)
        for (name, seq), n in staged.items():
            self.arrivals.settle(name, seq, n)
