"""The books of a run: what every producer read, what is written, what is lost and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ffb.sink import Counts
from ffb.window import Name

#: Reason for the shots a producer is known to have read, and took with it when it vanished.
VANISHED = "producer vanished"


@dataclass
class Account:
    """One producer's process in one run.

    ``read`` and ``lost`` are what it says, cumulative; ``refused`` counts the rows we would not
    take, by reason; ``seq`` is the last of its messages covered by a commit, ``partial`` counts by
    message the rows of later ones that are so too, the oldest ones. ``ended_at`` is the number of
    its end_run.
    """

    read: int = 0
    lost: dict[str, int] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    written: int = 0
    seq: int = 0
    partial: dict[int, int] = field(default_factory=dict)
    ended: str = ""
    ended_at: int = 0

    @property
    def gone(self) -> int:
        """Shots lost, by whatever reason."""
        return sum(self.lost.values()) + sum(self.refused.values())

    @property
    def open(self) -> int:
        """Shots read of which nothing is known yet: in flight, as long as the run is on."""
        return self.read - self.written - self.gone


class Ledger:
    """Accounts of all producers of a run, by (producer, epoch)."""

    def __init__(self) -> None:
        self.accounts: dict[Name, Account] = {}
        self.changed = False
        self._settled = False

    def account(self, name: Name) -> Account:
        """Account of ``name``, opened when it has none."""
        self.changed |= name not in self.accounts
        return self.accounts.setdefault(name, Account())

    def heard(self, name: Name, counts: Mapping[str, Any]) -> None:
        """Take what a producer says of itself; what it said once it cannot take back."""
        account = self.account(name)
        before = (account.read, account.gone)
        account.read = max(account.read, counts["read"])
        for reason, n in counts["lost"].items():
            account.lost[reason] = max(account.lost.get(reason, 0), n)
        self.changed |= before != (account.read, account.gone)

    def refuse(self, name: Name, reason: str, rows: int) -> None:
        """Count rows that came but cannot be written."""
        self.account(name).refused[reason] += rows
        self.changed = True

    def write(self, name: Name, rows: int) -> None:
        """Count rows that the commit being made will hold."""
        self.account(name).written += rows
        self.changed = True

    def end(self, name: Name, ended: str, seq: int) -> None:
        """Note that a producer is through with the run, and why; ``seq`` is its end_run."""
        account = self.account(name)
        account.ended, account.ended_at = ended, seq
        self.changed = True

    def settle(self) -> None:
        """Close the accounts of producers that never ended: what they held is lost."""
        self._settled = True
        for account in self.accounts.values():
            if not account.ended and account.open > 0:
                account.lost[VANISHED] = account.lost.get(VANISHED, 0) + account.open

    def counts(self, commit: int, late: int, duplicates: int, ended: str = "") -> Counts:
        """Sum of all accounts, as of commit number ``commit``."""
        self.changed = False
        lost: Counter[str] = Counter()
        for a in self.accounts.values():
            lost.update(a.lost)
            lost.update(a.refused)
        newest = dict(sorted(self.accounts))  # by producer, its newest epoch
        producers = {
            name if newest[name] == epoch else f"{name}@{epoch}": {
                "producer": name,
                "epoch": epoch,
                "seq": a.seq,
                "partial": [*a.partial.items()],
                "read": a.read,
                "written": a.written,
                "lost": dict(a.lost),
                "refused": dict(a.refused),
                "ended": a.ended if a.seq >= a.ended_at else "",
            }
            for (name, epoch), a in self.accounts.items()
        }
        return Counts(
            commit=commit,
            read=sum(a.read for a in self.accounts.values()),
            written=sum(a.written for a in self.accounts.values()),
            lost={reason: n for reason, n in lost.items() if n},
            late=late,
            duplicates=duplicates,
            producers=producers,
            ended=ended,
        )

    def resume(self, counts: Counts) -> None:
        """Go on from the books of an earlier life of the aggregator."""
        for p in counts.producers.values():
            account = self.account((str(p["producer"]), int(p["epoch"])))
            account.seq, account.written = int(p["seq"]), account.written + int(p["written"])
            account.partial = {int(seq): int(rows) for seq, rows in p["partial"]}
            account.refused.update(p["refused"])
            account.ended = account.ended or str(p["ended"])
            self.heard((str(p["producer"]), int(p["epoch"])), p)

    def balance(self) -> list[str]:
        """What does not add up, in words; empty when the books are in order.

        At any commit no producer may have more rows written than it read and did not lose; after
        :meth:`settle` nothing may be left open.
        """
        out = []
        for (name, epoch), a in sorted(self.accounts.items()):
            who = f"producer {name} (epoch {epoch})"
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
