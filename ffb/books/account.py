"""What the books hold of one producer's process in one run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ffb.messaging.window import Name


class Cut(NamedTuple):
    """A loss, told by message ``seq``, that no interval of written shots may span."""

    first: int
    last: int
    seq: int


@dataclass
class Interval:
    """Written shots without a loss among them; ``row`` is that of the first."""

    first: int
    last: int
    shots: int
    row: int


@dataclass
class Account:
    """One producer's process in one run; ``index`` is its place in the order of joining.

    ``read`` and ``lost`` are what it says, cumulative, as of its message ``heard``; ``refused``
    counts the shots that we lost, by reason; ``received`` counts rows that came to be written.
    ``seq`` is the last of its messages covered by a commit, ``partial`` counts by message the rows
    of later ones that are so too, the oldest ones. ``unreadable`` counts messages that could not
    be decoded, ``spoilt`` by column the chunks that did not unpack, ``ended_at`` is the number of
    its end_run. ``closed`` counts the shots of closed intervals. ``missed`` says that messages were
    acknowledged of which these books, found after a restart, do not know.
    """

    index: int
    read: int = 0
    lost: dict[str, int] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    received: int = 0
    written: int = 0
    closed: int = 0
    seq: int = 0
    heard: int = 0
    partial: dict[int, int] = field(default_factory=dict)
    unreadable: int = 0
    spoilt: Counter[str] = field(default_factory=Counter)
    ended: str = ""
    ended_at: int = 0
    missed: bool = False
    interval: Interval | None = None
    cuts: list[Cut] = field(default_factory=list)

    @property
    def gone(self) -> int:
        """Shots lost, by whatever reason."""
        return sum(self.lost.values()) + sum(self.refused.values())

    @property
    def open(self) -> int:
        """Shots read of which nothing is known yet: in flight, as long as the run is on."""
        return self.read - self.written - self.gone

    def plain(self, name: Name) -> dict[str, Any]:
        """The account as the books hold it."""
        i = self.interval
        return {
            "producer": name[0],
            "epoch": name[1],
            "index": self.index,
            "seq": self.seq,
            "heard": self.heard,
            "partial": [*self.partial.items()],
            "read": self.read,
            "written": self.written,
            "lost": dict(self.lost),
            "refused": dict(self.refused),
            "unreadable": self.unreadable,
            "spoilt": dict(self.spoilt),
            "ended": self.ended if self.seq >= self.ended_at else "",
            "missed": self.missed,
            "open": [i.first, i.last, i.shots, i.row] if i else [],
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Account:
        """Undo :meth:`plain`."""
        p = cls(0).plain(("", 0)) | dict(plain)
        interval = Interval(*map(int, p["open"])) if p["open"] else None
        written = int(p["written"])
        return cls(
            index=int(p["index"]),
            read=int(p["read"]),
            lost={str(k): int(n) for k, n in p["lost"].items()},
            refused=Counter({str(k): int(n) for k, n in p["refused"].items()}),
            received=written,
            written=written,
            closed=written - (interval.shots if interval else 0),
            seq=int(p["seq"]),
            heard=int(p["heard"]),
            partial={int(seq): int(rows) for seq, rows in p["partial"]},
            unreadable=int(p["unreadable"]),
            spoilt=Counter({str(k): int(n) for k, n in p["spoilt"].items()}),
            ended=str(p["ended"]),
            missed=bool(p["missed"]),
            interval=interval,
        )
