"""What is on its way: the window a producer keeps, and the order an aggregator insists on."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeAlias

from ffb.messaging.untrusted import Frame

#: Messages that may be in flight, whatever their size.
MAX_IN_FLIGHT = 1024

#: A producer's process: its name, and its epoch (when it started, ns).
Name: TypeAlias = tuple[str, int]


class Sent(NamedTuple):
    """A message in our keeping."""

    seq: int
    size: int
    frames: list[Frame]


class Window:
    """Messages sent and not yet known to be committed, bounded in bytes and number."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.seq = self.acked = self.bytes = self.high_water = 0
        self._sent: deque[Sent] = deque()
        self._runs: list[tuple[Sent, int]] = []  # begin_run, and the number of its end_run or 0

    def __len__(self) -> int:
        return len(self._sent)

    def __iter__(self) -> Iterator[Sent]:
        return iter(self._sent)

    @property
    def room(self) -> bool:
        """Whether a batch may be begun."""
        return self.bytes < self.most and len(self._sent) < MAX_IN_FLIGHT

    @property
    def burst(self) -> bool:
        """Whether somebody goes on sending though there is no room: twice the bound."""
        return self.bytes >= 2 * self.most or len(self._sent) >= 2 * MAX_IN_FLIGHT

    @property
    def fill(self) -> float:
        """How full it is: 1 when there is no room."""
        return max(self.bytes / self.most, len(self._sent) / MAX_IN_FLIGHT)

    def keep(self, kind: str, frames: list[Frame]) -> Sent:
        """Take the next message, the one numbered ``seq + 1``, into our keeping."""
        self.seq += 1
        sent = Sent(self.seq, sum(len(f) for f in frames), frames)
        self._sent.append(sent)
        self.bytes += sent.size
        self.high_water = max(self.high_water, self.bytes)
        if kind == "begin_run":
            self._runs.append((sent, 0))
        elif kind == "end_run" and self._runs:
            self._runs[-1] = (self._runs[-1][0], sent.seq)
        return sent

    def restore(self, seq: int, kind: str, frames: list[Frame]) -> None:
        """Take message ``seq`` of an earlier process into our keeping, after those before it."""
        self.seq = seq - 1
        self.keep(kind, frames)

    def ack(self, seq: int) -> list[int]:
        """Let go of everything up to ``seq``; returns the numbers of what is needed no more."""
        gone = []
        while self._sent and self._sent[0].seq <= seq:
            sent = self._sent.popleft()
            self.bytes -= sent.size
            gone.append(sent.seq)
        self.acked = max(self.acked, seq)
        before, self._runs = self._runs, []
        for begun, end in before:
            if not 0 < end <= self.acked:
                self._runs.append((begun, end))
                gone = [n for n in gone if n != begun.seq]
            elif begun.seq not in gone:
                gone.append(begun.seq)
        return gone

    def reminders(self) -> list[Sent]:
        """Committed begin_runs of runs not wholly committed: who starts afresh needs them."""
        return [begun for begun, _ in self._runs if begun.seq <= self.acked]


class Order:
    """Which message of every producer comes next: each is taken once, none ahead of its turn.

    ``durable`` holds the number up to which each producer's messages are committed. ``gaps``
    counts what came ahead of its turn (it will come again), ``repeated`` what had come before.
    """

    def __init__(self, durable: Mapping[Name, int]) -> None:
        self.durable = dict(durable)
        self.gaps = self.repeated = 0
        self._received: dict[Name, int] = {}

    def greet(self, name: Name, acked: int) -> int:
        """Where to resume with ``name``, who knows of ``acked`` being committed."""
        self.durable[name] = max(self.durable.get(name, 0), acked)
        self._received[name] = max(self._received.get(name, 0), self.durable[name])
        return self.durable[name]

    def take(self, name: Name, seq: int) -> bool:
        """Whether ``seq`` is the one that comes next."""
        following = self._received[name] + 1
        if seq == following:
            self._received[name] = seq
        elif seq < following:
            self.repeated += 1
        else:
            self.gaps += 1
        return seq == following

    def ack(self, name: Name, seq: int) -> bool:
        """Note that everything up to ``seq`` is committed; whether that is news."""
        news = seq > self.durable.get(name, 0)
        if news:
            self.durable[name] = seq
        return news


class Arrivals:
    """Messages the aggregator has and that are not durable yet, in order, by producer.

    A message is durable when nothing of it is left: its rows are committed, or its word is passed
    on. A producer is told of the last message up to which all are.
    """

    def __init__(self) -> None:
        self._last: dict[Name, int] = {}
        self._left: dict[Name, dict[int, tuple[int, int]]] = {}  # how much it is, what is left
        self._durable: dict[Name, int] = {}

    def take(self, name: Name, seq: int, n: int) -> bool:
        """Note message ``seq`` with ``n`` rows, or one word, still to be made durable.

        False when it is not new.
        """
        if seq <= self._last.get(name, 0):
            return False
        self._last[name] = seq
        self._left.setdefault(name, {})[seq] = (n, n)
        return True

    def settle(self, name: Name, seq: int, n: int) -> None:
        """Note that ``n`` of what was left of message ``seq`` is durable."""
        tickets = self._left.get(name, {})
        if seq in tickets:
            whole, left = tickets[seq]
            tickets[seq] = (whole, left - n)

    def promised(
        self, name: Name, staged: Mapping[tuple[Name, int], int]
    ) -> tuple[int, dict[int, int]]:
        """Where ``name`` will stand once what is ``staged``, by message, is settled.

        That is the last message up to which all are durable, and for later ones of which some
        rows are, how many.
        """
        last, whole, partly = self._durable.get(name, 0), True, {}
        for seq, (n, left) in self._left.get(name, {}).items():
            done = n - left + staged.get((name, seq), 0)
            whole = whole and done == n
            if whole:
                last = seq
            elif done:
                partly[seq] = done
        return last, partly

    def moved(self) -> dict[Name, int]:
        """Producers of whom more has become durable, and up to which message."""
        out: dict[Name, int] = {}
        for name, tickets in self._left.items():
            while tickets and not tickets[seq := next(iter(tickets))][1]:
                del tickets[seq]
                out[name] = self._durable[name] = seq
        return out


def printable(sender: bytes) -> str:
    """Name to count and log ``sender`` by, whatever it calls itself."""
    text = sender.decode("ascii", "replace")
    return text if text.isprintable() and text.isascii() else f"stranger {sender.hex()[:16]}"
