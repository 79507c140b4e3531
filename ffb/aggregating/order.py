"""How far a stream has come: which rows are late, which came twice, and which stamps are wild.

A timestamp from nowhere, far ahead of all others, must not make every row after it late. It is
told from the rest by its distance, and by its producer's own return to where it was before.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ffb.messaging.window import Name

Stamps = NDArray[np.uint64]

#: At least so many timestamps are remembered, to recognise a row that came twice.
REMEMBERED = 200_000

#: The newest released stamps by which a wild one is told; one in ``RARE`` of them may be wild.
TAIL, RARE = 1024, 32

#: A row is wild that lies further from its neighbours than so many times what half a batch spans.
FAR = 1024


def bulk_end(stamps: Stamps) -> int:
    """Last of ``stamps`` (n,), ascending, but for at most an eighth of them from far ahead."""
    middle, top = int(stamps[len(stamps) // 2]), stamps[len(stamps) - 1 - len(stamps) // 8 :]
    if int(top[-1]) - int(top[0]) <= FAR * (int(top[0]) - middle + 1):
        return int(top[-1])
    far = np.diff(top) > FAR * ((top[:-1] - np.uint64(middle)).astype(np.float64) + 1)
    return int(top[int(np.argmax(far))] if far.any() else top[-1])


class Positions:
    """How far every producer has come, and who is at work: who moved within the horizon."""

    def __init__(self, horizon_ns: int) -> None:
        self.horizon_ns = horizon_ns
        self.at: dict[Name, int] = {}
        self.peak: dict[Name, int] = {}
        self._moved: dict[Name, int] = {}

    def join(self, name: Name, now: int) -> None:
        """Expect rows of ``name``."""
        self.at.setdefault(name, 0)
        self._moved[name] = now

    def leave(self, name: Name) -> None:
        """Wait for ``name`` no longer."""
        self._moved.pop(name, None)

    def move(self, name: Name, to: int, now: int) -> None:
        """Note that rows of ``name`` up to ``to`` have come."""
        self.at[name], self._moved[name] = to, now
        self.peak[name] = max(self.peak.get(name, 0), to)

    def working(self, now: int) -> list[Name]:
        """Producers at work."""
        return [k for k, moved in self._moved.items() if now - moved < self.horizon_ns]

    def top(self, now: int) -> int:
        """Newest position of those at work, or of all when nobody is."""
        return max((self.at[k] for k in self.working(now) or self.at), default=0)

    @property
    def furthest(self) -> int:
        """Newest position of all, whether at work or not."""
        return max(self.at.values(), default=0)

    def went_back(self, released: int, now: int) -> bool:
        """Whether all who were once beyond :meth:`top` are at work below it now.

        Among them has to be who brought what was ``released``: after a restart he may be yet to
        come, and others who are behind him have not gone back.
        """
        top, working = self.top(now), set(self.working(now))
        here = max(self.peak.values(), default=0) >= released
        return here and all(k in working for k, peak in self.peak.items() if peak > top)


class Front:
    """The newest rows released.

    ``late`` counts rows that came after newer ones had been released, ``duplicates`` those whose
    timestamp had been released before, ``released`` is the newest timestamp that counts.
    """

    def __init__(self, released: int = 0, late: int = 0, duplicates: int = 0) -> None:
        self.released, self.late, self.duplicates = released, late, duplicates
        self._tail: Stamps = np.array([released] if released else [], np.uint64)
        self._seen, self._wild = _Seen(), _Seen()
        self._below = 0

    def settle(self, positions: Positions, now: int) -> None:
        """Take back what was released beyond where every producer now stands.

        At once when that is little and far away; when the producers themselves went back, after
        they have stayed there for the horizon.
        """
        top = positions.top(now)
        if self.released <= top:
            self._below = 0
            return
        self._below = self._below or now
        below, ahead = _split(self._tail, top)
        few = len(below) > 1 and len(ahead) <= max(1, len(self._tail) // RARE)
        far = few and int(ahead[0]) - top > int(below[-1]) - int(below[0])
        stayed = now - self._below >= positions.horizon_ns and positions.went_back(
            self.released, now
        )
        if far or stayed:
            self._tail, self._below = below, 0
            self.released = int(below[-1]) if len(below) else 0

    def take(self, stamps: Stamps, furthest: int) -> int:
        """Note rows (n,), ascending, being released; returns how many of the first are late.

        Those beyond the ``furthest`` producer are wild and do not count as progress.
        """
        late = int(np.searchsorted(stamps, np.uint64(self.released), "left"))
        self.late += late
        sane, wild = _split(stamps, max(furthest, self.released))
        self.duplicates += self._seen.take(sane) + self._wild.take(wild)
        if late < len(sane):
            self.released = int(sane[-1])
            self._tail = np.concatenate([self._tail, sane[late:][-TAIL:]])[-TAIL:]
        return late


class _Seen:
    """The last timestamps that were released, and how many came once more."""

    def __init__(self) -> None:
        self._young: list[Stamps] = []
        self._old: list[Stamps] = []
        self._count = self._highest = 0

    def take(self, stamps: Stamps) -> int:
        """Remember ``stamps`` (n,), ascending; returns how many of them there were before."""
        if not len(stamps):
            return 0
        twice = 0
        if (again := stamps[1:] == stamps[:-1]).any():
            twice = int(np.count_nonzero(again))
            stamps = stamps[np.concatenate([[True], ~again])]
        known, _ = _split(stamps, self._highest)
        if len(known):
            for seen in (self._young, self._old):
                seen[:] = [np.sort(np.concatenate(seen), kind="stable")] if seen else []
            found = np.zeros(len(known), bool)
            for one in (*self._young, *self._old):
                at = np.minimum(np.searchsorted(one, known), len(one) - 1)
                found |= one[at] == known
            twice += int(np.count_nonzero(found))
        self._highest = max(self._highest, int(stamps[-1]))
        self._young.append(stamps.copy())  # a view would keep all columns of its batch
        self._count += len(stamps)
        if self._count > REMEMBERED:
            self._young, self._old, self._count = [], self._young, 0
        return twice


def _split(stamps: Stamps, at: int) -> tuple[Stamps, Stamps]:
    """``stamps`` up to and beyond ``at``."""
    i = int(np.searchsorted(stamps, np.uint64(at), "right"))
    return stamps[:i], stamps[i:]
