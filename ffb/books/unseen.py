"""Shots that the DAQ made and never offered to us, estimated from gaps between pulse ids.

The beam's period is the difference that most neighbouring shots have, in each stretch of
:data:`STRETCH` shots anew, so a run may change its rate, and jitter of a few percent does not
matter; two or three spacings that alternate are all the beam's own. A gap of n periods is n - 1
pulses of which we know nothing, less the shots in it without a usable pulse id, less the late ones,
less the losses that are in the books.

It is an estimate, and no part of the balance, because pulse ids cannot tell

- a beam, or an event builder, at half the rate from somebody who takes every second shot over a
  good part of a stretch: both are taken for the rate there, and nothing is missing;
- a pause of the DAQ within a step from shots that were not offered: both are gaps. Between two
  steps the DAQ always pauses, and nothing is counted;
- anything about shots before the first row and after the newest but one, nor, for up to a stretch,
  which of two rates holds where the rate changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Differences between neighbours from which a period is learnt, and the fewest that tell anything
#: against what is known already.
STRETCH, FEWEST = 512, 64

#: A difference with at least this share of a stretch is the beam's own. Shots shed at random leave
#: no second difference with more than a quarter, whatever fraction is kept.
FREQUENT = 0.3

#: The longest credible gap [pulses], almost five minutes at 929 kHz: beyond it the DAQ was paused,
#: the counter set anew, or the id is garbage.
LONGEST = 1 << 28

#: So many incredible ids in a row are the counter's new beginning, fewer are garbage.
ANEW = 3

#: Differences from here on are told apart to 5 % only.
EXACT = 64


def estimate(
    pulse_ids: ArrayLike,
    lost: int = 0,
    steps: ArrayLike | None = None,
    late: ArrayLike | None = None,
) -> int:
    """Estimate for a whole run, which :class:`Unseen` explains."""
    unseen = Unseen()
    unseen.add(pulse_ids, steps, late)
    return unseen.estimate(lost)


class Unseen:
    """Estimate for a run whose rows come piece by piece; how they are cut up makes no difference.

    ``state`` is what ``Unseen(state)`` goes on from: plain data, some ten numbers as a rule.
    """

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        said = state or {}
        self._missing, self._period = float(said.get("missing", 0)), float(said.get("period", 0))
        self._filled = int(said.get("filled", 0))
        kinds = said.get("kinds", ())
        self._kinds = {int(k): (int(n), int(sum_), int(gap)) for k, n, sum_, gap in kinds}
        self._chain = _Chain(*map(int, said.get("chain", ())))

    @property
    def state(self) -> dict[str, Any]:
        """All that is known, as plain data."""
        return {
            "missing": self._missing,
            "period": self._period,
            "filled": self._filled,
            "kinds": [[key, *kind] for key, kind in self._kinds.items()],
            "chain": list(astuple(self._chain)),
        }

    @property
    def period(self) -> float:
        """The beam's period as of the newest shots [pulses], 0 while it is not known."""
        return self._learn()[0]

    def add(
        self,
        pulse_ids: ArrayLike,
        steps: ArrayLike | None = None,
        late: ArrayLike | None = None,
    ) -> None:
        """Take the next rows in the order of the file.

        ``pulse_ids`` (n,) are 0 where unknown; ``steps`` (n,) is the column ``step``, without it
        pauses between steps count as gaps; ``late`` (n,) marks rows out of order, each of which
        fills a gap that was counted before.
        """
        ids = np.atleast_1d(np.asarray(pulse_ids)).astype(np.uint64).view(np.int64)
        at = np.zeros(len(ids), np.int64) if steps is None else np.atleast_1d(np.asarray(steps))
        if late is not None and (out := np.atleast_1d(np.asarray(late, bool))).any():
            self._filled += int(np.count_nonzero(out))
            ids, at = ids[~out], at[~out]
        for piece in np.split(np.arange(len(ids)), np.flatnonzero(np.diff(at)) + 1):
            if len(piece):
                self._take(*self._chain.follow(ids[piece], int(at[piece[0]])))

    def estimate(self, lost: int = 0) -> int:
        """Shots not seen so far, where ``lost`` ones were seen and are in the books."""
        missing = self._missing + self._gaps() - self._filled
        return max(0, round(missing) - lost)

    def _take(self, differences: NDArray[np.int64], fills: NDArray[np.int64]) -> None:
        """Count differences by kind; ``fills`` (n,) are the shots known to lie within each."""
        while len(differences):
            room = STRETCH - sum(n for n, _, _ in self._kinds.values())
            for key, kind in _sorted(differences[:room], fills[:room]):
                n, total, fill = self._kinds.get(key, (0, 0, 0))
                self._kinds[key] = (n + kind[0], total + kind[1], fill + kind[2])
            if len(differences) >= room:
                self._missing, self._period = self._missing + self._gaps(), self.period
                self._kinds = {}
            differences, fills = differences[room:], fills[room:]

    def _learn(self) -> tuple[float, Sequence[int]]:
        """Period of the newest stretch, and which kinds of differences are the beam's own."""
        count = sum(n for n, _, _ in self._kinds.values())
        if count < FEWEST and self._period:
            return self._period, ()
        own = [key for key, kind in self._kinds.items() if kind[0] >= FREQUENT * count]
        if not own and not self._period and self._kinds:
            own = [max(self._kinds, key=lambda key: self._kinds[key][0])]
        if not own:
            return self._period, ()
        return sum(self._kinds[k][1] for k in own) / sum(self._kinds[k][0] for k in own), own

    def _gaps(self) -> float:
        """Pulses missing in the newest stretch."""
        period, own = self._learn()
        missing = 0.0
        for key, (n, total, fill) in self._kinds.items():
            if key not in own and round(total / n / period) > 1:
                missing += max(0.0, total / period - n - fill)
        return missing


def _sorted(
    differences: NDArray[np.int64], fills: NDArray[np.int64]
) -> list[tuple[int, tuple[int, int, int]]]:
    """Differences by kind: key, then how many there are, their sum and what fills them."""
    coarse = EXACT + np.log(np.maximum(differences, EXACT) / EXACT) / np.log(1.05)
    keys = np.where(differences < EXACT, differences, coarse).astype(np.int64)
    kinds, which, count = np.unique(keys, return_inverse=True, return_counts=True)
    out = []
    for i, key in enumerate(kinds.tolist()):
        mine = which == i
        out.append((key, (int(count[i]), int(differences[mine].sum()), int(fills[mine].sum()))))
    return out


@dataclass
class _Chain:
    """Credible pulse ids one after the other; -1 is none.

    ``last`` is the newest certain one; ``next`` waits for a successor, because an id behind which
    the next one falls was garbage. ``before`` and ``after`` count shots without a usable id on
    either side of ``next``; ``odd`` counts incredible ids in a row.
    """

    last: int = -1
    next: int = -1
    before: int = 0
    after: int = 0
    odd: int = 0
    step: int = 0

    def follow(
        self, ids: NDArray[np.int64], step: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Take ids of one step; returns differences that are certain now, and shots in them."""
        found: list[tuple[int, int]] = []
        if step != self.step:
            self._anew(-1, found)
            self.step = step
        whole = np.concatenate([(self.last, self.next), ids])
        rising = np.diff(whole)
        if self.last >= 0 and not self.after and rising.min() > 0 and rising.max() <= LONGEST:
            fills = np.zeros(len(ids), np.int64)
            fills[0] = self.before
            self.last, self.next, self.before, self.odd = int(whole[-2]), int(whole[-1]), 0, 0
            return rising[:-1], fills
        for one in ids.tolist():
            self._one(one, found)
        table = np.array(found, np.int64).reshape(-1, 2)
        return table[:, 0], table[:, 1]

    def _one(self, one: int, found: list[tuple[int, int]]) -> None:
        if one <= 0:
            self.after += self.next >= 0
        elif self.next < 0:
            self.next = one
        elif 0 < one - self.next <= LONGEST:
            self._certain(found)
            self.last, self.next, self.before, self.after, self.odd = (
                self.next,
                one,
                self.after,
                0,
                0,
            )
        elif self.last >= 0 and 0 < one - self.last <= LONGEST and one != self.next:
            self.next, self.before, self.after = one, self.before + 1 + self.after, 0
        elif one != self.next:  # the same once more is the same shot once more
            self.after, self.odd = self.after + 1, self.odd + 1
            if self.odd == ANEW:
                self._anew(one, found)

    def _certain(self, found: list[tuple[int, int]]) -> None:
        if self.last >= 0:
            found.append((self.next - self.last, self.before))

    def _anew(self, begin: int, found: list[tuple[int, int]]) -> None:
        """Count nothing between what was so far and what follows."""
        self._certain(found)
        self.last, self.next, self.before, self.after, self.odd = -1, begin, 0, 0, 0
