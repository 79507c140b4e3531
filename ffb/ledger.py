"""The books of a run: what became of every shot that a producer read.

Beside the sums there are entries: intervals of shots with one fate. A producer's written shots
make one open interval, which a loss among them, an epoch or the end closes; open ones stand in the
books of every commit, so that the next life of the aggregator goes on with them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffb.batch import Batch
from ffb.books.account import Account, Cut, Interval
from ffb.messaging.window import Name
from ffb.schema import PRODUCER, TIMESTAMP
from ffb.sink import WRITTEN, Counts, Entry

#: Reason for the shots a producer is known to have read, and took with it when it vanished.
VANISHED = "producer vanished"

#: Reason for the shots of messages that came and could not be decoded.
UNREADABLE = "message unreadable"


#: Reason for shots that were acknowledged, and are not there after the machine went down.
POWER = "power failure"


class Ledger:
    """Accounts of all producers of a run, by (producer, process).

    ``rows`` counts the rows of the run, ``changed`` says whether there is anything new to commit.
    """

    def __init__(self) -> None:
        self.accounts: dict[Name, Account] = {}
        self.changed = False
        self.rows = 0
        self._by_index: list[Account] = []
        self._entries: list[Entry] = []
        self._settled = False

    def account(self, name: Name) -> Account:
        """Account of ``name``, opened when it has none."""
        if name not in self.accounts:
            self.changed = True
            self._by_index.append(Account(len(self._by_index)))
            self.accounts[name] = self._by_index[-1]
        return self.accounts[name]

    def heard(
        self,
        name: Name,
        seq: int,
        counts: Mapping[str, Any],
        losses: Sequence[Sequence[Any]] = (),
    ) -> bool:
        """Take what message ``seq`` says of its producer; False when that is in the books already.

        Losses become entries once, in the commit that follows. What was said once cannot be taken
        back; a loss that is only counted becomes an entry without timestamps.
        """
        account = self.account(name)
        account.cuts += [Cut(first, last, seq) for _, first, last, n in losses if n]
        if seq <= account.heard:
            return False
        before, account.heard = (account.read, account.gone), seq
        account.read = max(account.read, counts["read"])
        for reason, first, last, shots in losses:
            self._lose(account, account.lost, reason, shots, first, last)
        for reason, n in counts["lost"].items():
            self._lose(account, account.lost, reason, n - account.lost.get(reason, 0))
        self.changed |= before != (account.read, account.gone)
        return True

    def refuse(self, name: Name, reason: str, stamps: NDArray[np.uint64]) -> None:
        """Count rows that came but cannot be written."""
        account = self.account(name)
        if n := len(stamps):
            self._lose(account, account.refused, reason, n, int(stamps[0]), int(stamps[-1]))

    def spoil(self, name: Name, column: str) -> bool:
        """Count a chunk that did not unpack; returns whether it is the first of its producer."""
        account = self.account(name)
        first, self.changed = not account.spoilt, True
        account.spoilt[column] += 1
        return first

    def miss(self, name: Name) -> None:
        """Note that messages of ``name`` were acknowledged and are in no books."""
        self.account(name).missed = True

    def receive(self, name: Name, rows: int) -> None:
        """Count rows that came to be written."""
        self.account(name).received += rows

    def write(self, batch: Batch) -> None:
        """Enter rows that the commit being made will hold, after those entered so far."""
        row, self.rows, self.changed = self.rows, self.rows + batch.n, True
        of, stamps = batch.columns[PRODUCER.name], batch.columns[TIMESTAMP.name]
        if (of == of[0]).all():
            self._extend(self._by_index[int(of[0])], stamps, np.arange(row, row + batch.n))
            return
        for index in np.unique(of):
            at = np.flatnonzero(of == index)
            self._extend(self._by_index[index], stamps[at], row + at)

    def cover(self, name: Name, seq: int, partial: dict[int, int]) -> None:
        """Note which messages of ``name`` the commit being made covers, wholly and in part.

        Everything the producer read before a loss that is covered is written by now, so what comes
        later lies behind the loss.
        """
        account = self.accounts[name]
        account.seq, account.partial = max(account.seq, seq), partial
        passed = [c for c in account.cuts if c.seq <= account.seq]
        if passed:
            account.cuts = [c for c in account.cuts if c.seq > account.seq]
            if account.interval and any(account.interval.last <= c.last for c in passed):
                self._close(account)
        if account.ended and account.written == account.received:
            self._close(account)

    def end(self, name: Name, ended: str, seq: int) -> None:
        """Note that a producer is through with the run, and why; ``seq`` is its end_run.

        It said its last word, so what it read and we did not get was in messages that were
        unreadable, or that a power failure took after they were acknowledged.
        """
        account = self.account(name)
        account.ended, account.ended_at = ended, seq
        self.changed = True
        if account.unreadable or account.missed:
            gap = account.read - account.received - account.gone
            reason = POWER if account.missed else UNREADABLE
            self._lose(account, account.refused, reason, gap)

    def forfeit(self, told: Counts, reason: str) -> None:
        """Take the word of later books ``told``, of which no row is there: those are lost."""
        for plain in sorted(told.producers.values(), key=lambda p: int(p.get("index", 0))):
            said = Account.of(plain)
            account = self.account((str(plain["producer"]), int(plain["epoch"])))
            self._close(account)
            for book, there in ((account.lost, said.lost), (account.refused, said.refused)):
                for why, n in there.items():
                    self._lose(account, book, why, n - book.get(why, 0))
            self._lose(account, account.refused, reason, said.written - account.written)
            account.read, account.seq, account.heard = said.read, said.seq, said.heard
            account.partial, account.ended = said.partial, said.ended
            account.unreadable, account.spoilt = said.unreadable, said.spoilt
            account.missed |= said.missed

    def close(self) -> None:
        """Close all intervals, because an epoch is over."""
        for account in self._by_index:
            self._close(account)

    def settle(self) -> None:
        """Close the run: what producers held that never ended is lost."""
        self._settled = True
        for account in self._by_index:
            if not account.ended:
                self._lose(account, account.lost, VANISHED, account.open)
        self.close()

    def counts(
        self, commit: int = 0, late: int = 0, duplicates: int = 0, ended: str = "", **more: Any
    ) -> Counts:
        """Sum of all accounts, with the entries made since the last call, as of ``commit``.

        ``more`` are other fields of :class:`ffb.sink.Counts`.
        """
        self.changed = False
        lost: Counter[str] = Counter()
        for a in self._by_index:
            lost.update(a.lost)
            lost.update(a.refused)
        newest = dict(sorted(self.accounts))  # by producer, its newest process
        entries, self._entries = tuple(self._entries), []
        return Counts(
            commit=commit,
            late=late,
            duplicates=duplicates,
            ended=ended,
            read=sum(a.read for a in self._by_index),
            written=sum(a.written for a in self._by_index),
            lost={reason: n for reason, n in lost.items() if n},
            producers={
                name if newest[name] == process else f"{name}@{process}": a.plain((name, process))
                for (name, process), a in self.accounts.items()
            },
            ledger=entries,
            **more,
        )

    def resume(self, counts: Counts) -> None:
        """Go on from the books of an earlier life of the aggregator; there are no accounts yet."""
        kept = sorted(counts.producers.values(), key=lambda p: int(p.get("index", 0)))
        self._by_index = [Account.of({**p, "index": i}) for i, p in enumerate(kept)]
        names = ((str(p["producer"]), int(p["epoch"])) for p in kept)
        self.accounts = dict(zip(names, self._by_index, strict=True))
        self.rows = sum(a.written for a in self._by_index)
        self.changed = True

    def check(self) -> list[str]:
        """What contradicts itself at this commit, in words: cheap, and [] when all is well."""
        out = []
        for (name, process), a in self.accounts.items():
            flight = a.read - a.received - a.gone
            entered = a.closed + (a.interval.shots if a.interval else 0)
            if flight < 0 or not a.written <= a.received or entered != a.written:
                out.append(
                    f"{_who(name, process)}: the books contradict each other: read {a.read},"
                    f" received {a.received}, written {a.written}, in entries {entered},"
                    f" lost {a.gone}"
                )
        if self.rows != sum(a.written for a in self._by_index):
            out.append(f"{self.rows} rows in the file are not those in the books")
        return out

    def balance(self) -> list[str]:
        """What does not add up, in words; empty when the books are in order.

        At any commit no producer may have more rows written than it read and did not lose; after
        :meth:`settle` nothing may be left open.
        """
        out = []
        for (name, process), a in sorted(self.accounts.items()):
            who = _who(name, process)
            says = f"read {a.read}, written {a.written}, lost {a.gone}"
            if a.open < 0:
                out.append(f"{who}: {says}: {-a.open} shots more than it read")
            elif self._settled and not a.ended:
                out.append(
                    f"{who} vanished without end_run: {says}; what it read after its last word is"
                    " not known"
                )
            elif self._settled and a.open > 0:
                out.append(f"{who}: {says}: {a.open} shots are unaccounted for")
        return out

    def _lose(
        self,
        account: Account,
        book: dict[str, int],
        reason: str,
        shots: int,
        first: int = 0,
        last: int = 0,
    ) -> None:
        if shots > 0:
            book[reason] = book.get(reason, 0) + shots
            self._entries.append(Entry(account.index, reason, first, last, shots))
            self.changed = True

    def _extend(self, a: Account, stamps: NDArray[np.uint64], rows: NDArray[np.intp]) -> None:
        """Add written shots, in ascending order, to the open interval or to new ones."""
        sections = _Sections(a.cuts)
        edges = [0, *sections.edges(stamps), len(stamps)]
        for i, j in pairwise(edges):
            first, last, now = int(stamps[i]), int(stamps[j - 1]), a.interval
            if now and (first < now.last or sections.part(now.last, first)):
                self._close(a)
            if a.interval is None:
                a.interval = Interval(first, first, 0, int(rows[i]))
            a.interval.last = last
            a.interval.shots += j - i
        a.written += len(stamps)

    def _close(self, account: Account) -> None:
        if i := account.interval:
            account.closed += i.shots
            account.interval = None
            self._entries.append(Entry(account.index, WRITTEN, i.first, i.last, i.shots, i.row))
            self.changed = True


class _Sections:
    """Time divided by losses: shots in different sections do not belong in one interval."""

    def __init__(self, cuts: Sequence[Cut]) -> None:
        self._cut = bool(cuts)
        self._first = np.sort(np.array([c.first for c in cuts], np.uint64))
        self._last = np.sort(np.array([c.last for c in cuts], np.uint64))

    def _of(self, stamps: Any) -> Any:
        before = np.searchsorted(self._first, stamps, "right")
        return before + np.searchsorted(self._last, stamps, "left")

    def edges(self, stamps: NDArray[np.uint64]) -> list[int]:
        """Where in ``stamps`` (n,), ascending, another section begins."""
        if not self._cut:
            return []
        edges: list[int] = (np.flatnonzero(np.diff(self._of(stamps))) + 1).tolist()
        return edges

    def part(self, a: int, b: int) -> bool:
        """Whether there is a loss between ``a`` and ``b``."""
        return self._cut and bool(np.ptp(self._of(np.array([a, b], np.uint64))))


def _who(name: str, process: int) -> str:
    return f"producer {name} (epoch {process})"
