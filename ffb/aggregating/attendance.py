"""Who takes part in a run, and when it is over: all have ended, or those missing stay silent."""

from __future__ import annotations

from collections.abc import Mapping

from ffb.messaging.window import Name

NORMAL_END = "end of run"

#: How a producer's process ends whose successor says so.
DIED = "producer died"


class Attendance:
    """Processes of producers in one run; times are of the aggregator's monotonic clock [ns].

    ``joined`` says when each last sent anything of this run; ``present`` are those whose begin_run
    came in this life of the aggregator, ``over`` those that are not waited for any more;
    ``elsewhere`` are names of producers that have gone on to other runs. ``first_end`` is when the
    first of them ended the run, 0 before; the others have ``patience_ns`` from then on.
    """

    def __init__(self, expect: int, patience_ns: int) -> None:
        self.expect, self.patience_ns = expect, patience_ns
        self.joined: dict[Name, int] = {}
        self.present: set[Name] = set()
        self.over: set[Name] = set()
        self.elsewhere: set[str] = set()
        self.first_end = 0

    @property
    def missing(self) -> list[Name]:
        """Those that joined and have not ended."""
        return [name for name in self.joined if name not in self.over]

    @property
    def through(self) -> set[str]:
        """Producers that are not waited for: they have ended their part, or are elsewhere."""
        return {name for name, _ in self.over} | self.elsewhere

    def begin(self, name: Name, now: int) -> bool:
        """Note that the begin_run of ``name`` came; whether it is the first word of it."""
        self.present.add(name)
        new = name not in self.joined
        self.joined.setdefault(name, now)
        return new

    def earlier(self, name: Name) -> list[Name]:
        """Processes of the same producer before ``name`` that are still waited for."""
        return [old for old in self.missing if old[0] == name[0] and old[1] < name[1]]

    def newest(self, producer: str) -> Name:
        """Newest process of a producer; number 0 for one that never came."""
        return max((name for name in self.joined if name[0] == producer), default=(producer, 0))

    def over_why(self, now: int, heard: Mapping[Name, int], ends: Mapping[Name, str]) -> str:
        """Why the run is over, "" while it is not.

        ``heard`` says when each gave a sign of life, ``ends`` how those that have ended did.
        """
        if not self.missing:
            recent = now - max(self.joined.values(), default=now) <= self.patience_ns
            if not self.joined or (recent and (self._successors(ends) or self._incomplete())):
                return ""
            told = [*ends.values()]
            odd = [end for end in told if end not in {NORMAL_END, DIED}]
            normal = [end for end in told if end == NORMAL_END]
            return (odd or normal or told or ["its producers vanished"])[0]
        names = ", ".join(name for name, _ in self.missing)
        word = max(self.joined[name] for name in self.missing)
        if self.first_end and now - max(self.first_end, word) > self.patience_ns:
            return f"no end_run of {names}"
        sign = max(max(self.joined[name], heard.get(name, 0)) for name in self.missing)
        return f"no word of {names}" if now - sign > self.patience_ns else ""

    def _successors(self, ends: Mapping[Name, str]) -> bool:
        """Whether a producer died whose next process may still go on with this run."""
        newest = dict(sorted(self.joined))
        return any(
            ends.get((name, process)) == DIED and name not in self.elsewhere
            for name, process in newest.items()
        )

    def _incomplete(self) -> bool:
        """Whether a producer that is to be expected has come neither here nor to another run."""
        return len({name for name, _ in self.joined} | self.elsewhere) < self.expect
