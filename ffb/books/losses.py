"""What a producer lost between two messages: shot by shot up to a bound, then as ranges."""

from __future__ import annotations

from collections import Counter
from typing import TypeAlias

#: Losses told one by one in a message, and in a run; more go as one range for each reason.
SINGLY, SINGLY_IN_RUN = 1024, 65_536

#: Reason, first and last timestamp in the order of reading, shots.
Loss: TypeAlias = list[str | int]


class Losses:
    """The losses of one run.

    ``total`` counts all of them by reason, those not yet taken included.
    """

    def __init__(self, singly: int = SINGLY, singly_in_run: int = SINGLY_IN_RUN) -> None:
        self.total: Counter[str] = Counter()
        self._singly, self._left = singly, singly_in_run
        self._waiting: list[Loss] = []
        self._ranges: dict[str, Loss] = {}

    def add(self, reason: str, timestamp: int, last: int = 0, shots: int = 1) -> None:
        """Note a shot lost, or ``shots`` of them from ``timestamp`` to ``last``."""
        self.total[reason] += shots
        loss: Loss = [reason, timestamp, last or timestamp, shots]
        if self._left and len(self._waiting) < self._singly:
            self._left -= 1
            self._waiting.append(loss)
            return
        known = self._ranges.setdefault(reason, loss)
        if known is not loss:
            known[2], known[3] = loss[2], int(known[3]) + shots

    def __bool__(self) -> bool:
        """Whether there are losses of which no message tells yet."""
        return bool(self._waiting or self._ranges)

    def take(self) -> list[Loss]:
        """Give what the next message tells, as :attr:`ffb.wire.Header.losses`."""
        out = [*self._waiting, *self._ranges.values()]
        self._waiting, self._ranges = [], {}
        return out
