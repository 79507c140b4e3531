"""The aggregator: messages of all producers in, committed rows out, and who may forget what.

Pure logic: no sockets, and time is what the caller says it is. Every run has its own sinks, books
and merge; what is to be done to the sinks stands in a queue in order, and what fails with
``OSError`` (a full disk, a lost mount) stays at its head and is tried again at the next tick.
Nothing is acknowledged before it is done, so producers keep what we cannot.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol, runtime_checkable

from ffb.batch import Batch
from ffb.ledger import Ledger
from ffb.merge import Merge
from ffb.schema import Schema
from ffb.shot import BeginStep
from ffb.sink import Counts, Provenance, Sink
from ffb.source import RunInfo
from ffb.window import Arrivals, Name
from ffb.wire import EndRun, Header, Message

log = logging.getLogger(__name__)

NS = 1_000_000_000
NORMAL_END = "end of run"


@runtime_checkable
class Keeper(Protocol):
    """A sink that may continue what an earlier life began: the counts it found, once begun."""

    @property
    def books(self) -> Counts:
        """Counts of the last commit; ``Counts()`` for a new run."""
        ...


class Committed(NamedTuple):
    """Everything up to message ``seq`` of a producer is durable."""

    producer: str
    epoch: int
    seq: int


class Closed(NamedTuple):
    """A run that is over: its last counts, and what does not add up in its books."""

    info: RunInfo
    counts: Counts
    problems: list[str]


class _Run:
    """A run being taken: who takes part, what waits, what is to be done."""

    def __init__(
        self,
        info: RunInfo,
        schema: Schema,
        provenance: Provenance,
        sinks: Sequence[Sink],
        merge: Merge,
    ) -> None:
        self.info, self.schema, self.sinks = info, schema, sinks
        self.merge, self.ledger = merge, Ledger()
        self.todo: deque[Callable[[], None]] = deque()
        self.joined: dict[Name, int] = {}  # when each last sent anything of this run
        self.refused: dict[Name, str] = {}
        self.over: set[Name] = set()
        self.words: list[tuple[Name, int]] = []  # steps and end_runs not yet in a commit
        self.steps: set[int] = set()
        self.begun = False
        self.waiting: list[Callable[[], None]] = []  # messages, until the sinks have begun
        self.resumed: dict[Name, int] = {}  # what a sink has already: messages,
        self.partial: dict[Name, dict[int, int]] = {}  # and the oldest rows of later ones
        self.first_end = 0
        self.commits = 0
        self.committed_at = 0
        self.ending = ""
        self.counts = Counts()
        self.todo.extend(partial(s.begin_run, info, schema, provenance) for s in sinks)

    @property
    def missing(self) -> list[Name]:
        """Producers that joined and have not ended."""
        return [name for name in self.joined if name not in self.over]

    def leave(self, name: Name) -> None:
        """Expect nothing more of ``name``."""
        if name in self.joined:
            self.over.add(name)
            self.merge.leave(name)


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
        Commit when so much time has passed, or so many rows wait.
    end_timeout_ns
        How long a run waits for producers that neither go on nor end, and how long it lasts when
        nobody says a word.
    """

    def __init__(
        self,
        sinks: Callable[[RunInfo], Sequence[Sink]],
        horizon_ns: int = NS // 2,
        commit_ns: int = NS // 10,
        end_timeout_ns: int = 10 * NS,
        commit_rows: int = 10_000,
        producers: int = 1,
    ) -> None:
        self.sinks, self.horizon_ns, self.commit_ns = sinks, horizon_ns, commit_ns
        self.end_timeout_ns, self.commit_rows = end_timeout_ns, commit_rows
        self.producers = producers
        self.fault = ""
        self.refused: Counter[str] = Counter()
        self.closed: list[Closed] = []
        self._runs: dict[RunInfo, _Run] = {}
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
        if run is None or name not in run.joined:
            self._refuse(run, info, name, header)
            return
        if run.begun:
            self._take(run, name, message, now)
        else:
            run.waiting.append(partial(self._take, run, name, message, now))

    def skip(self, producer: str, epoch: int, seq: int) -> None:
        """Let go of a numbered message that could not be decoded; the books will miss its rows."""
        self._arrivals.take((producer, epoch), seq, 0)

    def tick(self, now: int) -> list[Committed]:
        """Commit what is due, end what is over; returns what producers may forget."""
        before, self.fault = self.fault, ""
        for run in [*self._runs.values()]:
            self._drive(run, now)
        if self.fault != before:
            log.warning("commits %s", f"held up: {self.fault}" if self.fault else "go on")
        return [Committed(*name, seq) for name, seq in self._arrivals.moved().items()]

    def end(self, reason: str) -> None:
        """Let every open run end at the next tick, whoever may still be in it."""
        for run in self._runs.values():
            run.ending = run.ending or reason

    def _begin(self, info: RunInfo, message: Message, name: Name, now: int) -> None:
        assert message.schema is not None
        assert isinstance(message.body, Provenance)
        for other in self._runs.values():  # a producer begun anew has left where it was before
            for old in other.missing:
                if old[0] == name[0] and old[1] < name[1]:
                    other.leave(old)
        run, seq = self._runs.get(info), message.header.seq
        if run is None and any(c.info == info for c in self.closed):
            self._refuse(run, info, name, message.header)
            return
        if run is None:
            merge = Merge(message.schema, self.horizon_ns, self.producers)
            run = _Run(info, message.schema, message.body, self.sinks(info), merge)
            run.committed_at = now
            run.todo.append(partial(self._resume, run))
            self._runs[info] = run
            log.info("exp=%s run=%d opened by producer=%s", info.exp, info.run, name[0])
        if name not in run.joined:
            run.joined[name] = now
            run.ledger.account(name)
            run.merge.join(name, now)
            if message.schema.id != run.schema.id:
                run.refused[name] = "other columns than the run's"
                run.leave(name)
                log.warning("producer=%s refused: its columns are not those of the run", name[0])
        run.todo.append(partial(self._arrivals.settle, name, seq, 1))

    def _resume(self, run: _Run) -> None:
        """Go on where a sink found the run, and let go of what it has already."""
        for sink in run.sinks:
            if isinstance(sink, Keeper) and sink.books.commit:
                run.ledger.resume(sink.books)
                run.commits = sink.books.commit
        for name, account in run.ledger.accounts.items():
            run.resumed[name] = account.seq
            run.joined.setdefault(name, run.committed_at)
            if account.ended or any(n[0] == name[0] and n[1] > name[1] for n in run.joined):
                run.leave(name)
            run.partial[name] = dict(account.partial)
        run.begun = True
        for take in run.waiting:
            take()
        run.waiting.clear()

    def _take(self, run: _Run, name: Name, message: Message, now: int) -> None:
        header, body = message.header, message.body
        if header.seq <= run.resumed.get(name, 0):
            self._arrivals.settle(name, header.seq, max(header.n, 1))
            return
        run.joined[name] = now
        run.ledger.heard(name, header.counts)
        if isinstance(body, Batch):
            self._rows(run, name, message, body, now)
        elif isinstance(body, BeginStep):
            self._step(run, name, header.seq, body)
        elif isinstance(body, EndRun):
            run.ledger.end(name, body.ended, header.seq)
            run.words.append((name, header.seq))
            run.first_end = run.first_end or now
            run.leave(name)

    def _rows(self, run: _Run, name: Name, message: Message, batch: Batch, now: int) -> None:
        seq, reason = message.header.seq, run.refused.get(name, "")
        if message.schema is not None and message.schema.id != run.schema.id:
            reason = reason or "other columns than the run's"
        if reason:
            run.ledger.refuse(name, reason, batch.n)
            self.refused[reason] += batch.n
            written = max(batch.n, 1)
        else:
            written = run.partial.get(name, {}).pop(seq, 0) if batch.n else 1
            run.merge.add(name, seq, batch, now, skip=written)
        self._arrivals.settle(name, seq, written)

    def _step(self, run: _Run, name: Name, seq: int, body: BeginStep) -> None:
        if body.step not in run.steps:
            run.steps.add(body.step)
            run.todo.extend(
                partial(s.step, body.step, body.values, body.docstring) for s in run.sinks
            )
        run.words.append((name, seq))

    def _refuse(self, run: _Run | None, info: RunInfo, name: Name, header: Header) -> None:
        closed = any(c.info == info for c in self.closed)
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
            run.ledger.heard(name, header.counts)
            run.ledger.refuse(name, reason, header.n)
        self._arrivals.settle(name, header.seq, max(header.n, 1))

    def _drive(self, run: _Run, now: int) -> None:
        if not self._work(run) or run.info not in self._runs:
            return
        run.ending = run.ending or self._over(run, now)
        waited = now - run.committed_at >= self.commit_ns
        if run.ending or waited or run.merge.rows >= self.commit_rows:
            self._commit(run, now)
            self._work(run)

    def _work(self, run: _Run) -> bool:
        """Do what is to be done, in order; False when something could not be done yet."""
        while run.todo:
            try:
                run.todo[0]()
            except OSError as e:
                self.fault = f"{run.info.exp} run {run.info.run}: {e}"
                return False
            run.todo.popleft()
        return True

    def _over(self, run: _Run, now: int) -> str:
        """Why the run is over; "" while it is not."""
        missing, patience = run.missing, self.end_timeout_ns
        if not missing:
            ends = [a.ended for a in run.ledger.accounts.values() if a.ended]
            odd = [e for e in ends if e != NORMAL_END]
            return (odd or ends or ["its producers vanished"])[0] if run.joined else ""
        names = ", ".join(name for name, _ in missing)
        word = max(run.joined[name] for name in missing)
        if run.first_end and now - max(run.first_end, word) > patience:
            return f"no end_run of {names}"
        sign = max(max(run.joined[name], self._heard.get(name, 0)) for name in missing)
        return f"no word of {names}" if now - sign > patience else ""

    def _commit(self, run: _Run, now: int) -> None:
        """Queue a commit of the rows that need not wait, and the end when the run is over."""
        run.committed_at = now
        release = run.merge.release(now, everything=bool(run.ending))
        if not (release or run.words or run.ledger.changed or run.ending):
            return
        staged = Counter(dict.fromkeys(run.words, 1))
        run.words = []
        if release is not None:
            staged.update(release.shares)
            for (name, _), rows in release.shares.items():
                run.ledger.write(name, rows)
            run.todo.extend(partial(s.append, release.batch) for s in run.sinks)
        for name, account in run.ledger.accounts.items():
            last, partly = self._arrivals.promised(name, staged)
            account.seq = max(account.seq, last)
            account.partial = run.partial.get(name, {}) | partly
        if run.ending:
            run.ledger.settle()
        run.commits += 1
        merge = run.merge
        counts = run.ledger.counts(run.commits, merge.late, merge.duplicates, run.ending)
        run.todo.extend(partial(s.commit, counts) for s in run.sinks)
        if run.ending:
            run.todo.extend(partial(s.end_run, counts) for s in run.sinks)
        run.todo.append(partial(self._settle, run, counts, staged))

    def _settle(self, run: _Run, counts: Counts, staged: Counter[tuple[Name, int]]) -> None:
        """All sinks have committed: producers may forget."""
        run.counts = counts
        for (name, seq), n in staged.items():
            self._arrivals.settle(name, seq, n)
        if run.ending:
            closed = Closed(run.info, counts, run.ledger.balance())
            self.closed.append(closed)
            del self._runs[run.info]
            log.info("exp=%s run=%d closed: %s", run.info.exp, run.info.run, run.ending)
            for problem in closed.problems:
                log.warning("exp=%s run=%d %s", run.info.exp, run.info.run, problem)
