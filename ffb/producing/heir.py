"""What a killed producer left, delivered by the next one of its name before it begins itself.

Everything that lies in the ring goes out under the process number of the dead, so that the
aggregator takes each message once, whoever sends it and however often. Then its part of the run is
ended. Shots that it had read and not sent are lost where shots cannot wait, and are told one by
one. Where they can, they are read again: the heir begins behind the last shot that was sent.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ffb.books.losses import Losses
from ffb.messaging.link import Link
from ffb.producing.ring import Left
from ffb.shot import BeginStep, Idle, Item
from ffb.source import Run, RunInfo
from ffb.wire import Decoder, EndRun, Header

log = logging.getLogger(__name__)

#: Reason for shots read and not sent, and for the end of that process's part of the run.
DIED = "producer died"


class Resume(NamedTuple):
    """Where to go on in a run that can be read again: behind ``shots`` of it."""

    info: RunInfo
    shots: int
    last: int

    def items(self, run: Run) -> Iterator[Item]:
        """Items of ``run`` without the shots that are done; while it skips, it gives Idle."""
        left = self.shots
        for item in run:
            if left == 0 or isinstance(item, BeginStep | Idle):
                yield item
                continue
            left -= 1
            if left == 0 and self.last and item.timestamp != self.last:
                log.warning(
                    "run %d: shot %d was %d before: the source has another order now, so that"
                    " shots may be missing or come twice",
                    run.info.run,
                    item.timestamp,
                    self.last,
                )
            yield Idle()


def deliver(
    left: Left, link: Link, *, live: bool, patience_s: float, stopping: Callable[[], bool]
) -> Resume | None:
    """Deliver what was ``left`` through ``link``, which has its epoch, and wait till it is taken.

    Returns where to resume the run, if that is to be done. Raises ``TimeoutError`` when there is
    no aggregator for ``patience_s`` seconds, or when ``stopping``; everything stays then.
    """
    link.restore(left.messages, left.acked)
    newest = left.messages[-1]
    head, resume = Decoder()(newest.frames).header, None
    log.warning(
        "process %d of %s was killed in run %d: delivering %d messages",
        left.epoch,
        head.producer,
        head.run,
        link.unacked,
    )
    if newest.kind != "end_run":
        link.send(*_end(left, head, live=live))
        if not live:
            resume = Resume(RunInfo(head.exp, head.run, head.began), newest.place, left.last)
    _wait(link, patience_s, stopping)
    return resume


def _end(left: Left, head: Header, *, live: bool) -> tuple[Header, None, EndRun]:
    """End its part of the run, with the books as of its last shot."""
    losses, counts = Losses(), head.counts
    for stamp in left.unsent if live else ():
        losses.add(DIED, stamp)
    if live and left.more:
        losses.add(DIED, left.unsent[-2], left.unsent[-1], left.more)
    lost = {**counts["lost"], **losses.total}
    books = {"read": counts["read"] + losses.total.total(), "lost": lost}
    end = Header("end_run", head.exp, head.run, head.began, counts=books, losses=losses.take())
    return end, None, EndRun(DIED)


def _wait(link: Link, patience_s: float, stopping: Callable[[], bool]) -> None:
    heard = told = time.monotonic()
    while link.unacked:
        link.pump(0.05)
        now = time.monotonic()
        if link.connected:
            heard = now
            if now - told > 1:
                told = now
                link.status({"pid": os.getpid(), "doing": "delivering what was left behind"})
        if stopping() or now - heard > patience_s:
            raise TimeoutError(
                f"{link.unacked} messages of a killed producer were not taken, {link.silence}; they"
                " stay for the next start of this one"
            )
