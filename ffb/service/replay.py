"""Send a capture to an aggregator again, as its producers did."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from ffb.batch import Batch
from ffb.transport import Link
from ffb.wire import Decoder, Message
from ffb.writers.capture import read_capture

#: Seconds without any acknowledgement after which the aggregator counts as away.
PATIENCE_S = 30.0


def play(path: str | Path, to: str, speed: float = 1.0, patience_s: float = PATIENCE_S) -> int:
    """Send every message of the capture once, each producer's life through a link of its own.

    Shots keep the distances at which they were read, divided by ``speed``. Returns the number of
    messages. Raises ``TimeoutError`` when the aggregator at ``to`` takes none for ``patience_s``
    seconds, ``OSError`` and ``WireError`` for what is no capture.
    """
    decode, pace, count = Decoder(), _Pace(speed), 0
    links: dict[tuple[str, int], Link] = {}
    last: dict[tuple[str, int], int] = {}
    try:
        for frames in read_capture(path):
            message = decode(frames)
            header = message.header
            life = header.producer, header.epoch
            if header.seq <= last.get(life, 0):
                continue  # sent again after a reconnection, or a status, which has no number
            last[life] = header.seq
            if life not in links:
                links[life] = Link(to, _name(life, links))
            due = pace.due(message)
            while (left := due - time.monotonic()) > 0:
                _pump(links, min(left, 0.02))
            _wait(links, partial(_room, links[life]), patience_s, to)
            links[life].send(header, message.schema, message.body)
            count += 1
        _wait(links, lambda: not any(k.unacked for k in links.values()), patience_s, to)
    finally:
        for link in links.values():
            link.close()
    return count


def _room(link: Link) -> bool:
    return link.room


def _pump(links: Mapping[tuple[str, int], Link], timeout_s: float) -> None:
    for link in links.values():
        link.pump(timeout_s / len(links))


def _wait(
    links: Mapping[tuple[str, int], Link], done: Callable[[], bool], patience_s: float, to: str
) -> None:
    """Pump until ``done``; raises ``TimeoutError`` when nothing is acknowledged for too long."""
    before, since = -1, time.monotonic()
    while not done():
        unacked = sum(link.unacked for link in links.values())
        if unacked != before:
            before, since = unacked, time.monotonic()
        elif time.monotonic() - since > patience_s:
            raise TimeoutError(
                f"{unacked} messages were not taken within {patience_s:g} s: is an aggregator"
                f" listening at {to}?"
            )
        _pump(links, 0.02)


def _name(life: tuple[str, int], links: Mapping[tuple[str, int], Link]) -> str:
    """Name of a link: the producer's, and a number for its later lives."""
    earlier = sum(producer == life[0] for producer, _ in links)
    return f"{life[0]}:{earlier}" if earlier else life[0]


class _Pace:
    """When to send what: a monotonic time for the time at which its first shot was read."""

    def __init__(self, speed: float) -> None:
        self.speed, self._origin = speed, (0, 0.0)

    def due(self, message: Message) -> float:
        """Monotonic time at which ``message`` is due; now for what holds no shots."""
        now = time.monotonic()
        if not isinstance(message.body, Batch) or not message.body.n:
            return now
        read = int(message.body.read[0])
        if not self._origin[0]:
            self._origin = read, now
        return self._origin[1] + (read - self._origin[0]) / 1e9 / self.speed
