"""psana's shared-memory stream, without loss: every shot queued for this client, in order.

**The order.** Transitions come over TCP, shots through a message queue, and each of the two
keeps its own order; timestamps put them together:

1. a shot goes before a waiting transition with a later timestamp, and after one with an earlier;
2. a transition waits until a later shot has come, or until :data:`SETTLE` has gone by and the
   queue of shots is empty: what the server queued before it has then arrived;
3. whenever a shot was taken, transitions are looked for after that: the server had announced
   those that precede it before it queued the shot;
4. a replay goes back in time. Where such a turn waits among the transitions, a shot not later
   than the one before it belongs behind the turn, whatever its timestamp says.

A run is read with the Configure that came before it in this order, and not with any other.
"""

from __future__ import annotations

import logging
import os
import select
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator

from ffb.sources.dgram_run import DgramRun, Meanings, prepare
from ffb.sources.dgram_shot import Moment, Stream
from ffb.sources.shmem_client import Client, NoServerError
from ffb.sources.xtc2 import Xtc2Error
from ffb.sources.xtc2_specs import SHOTS, Service

log = logging.getLogger(__name__)

#: Seconds of silence after which an ``Idle`` is delivered.
IDLE = 0.01

#: Seconds that a transition waits for shots which precede it.
SETTLE = 0.005

#: Seconds between two attempts to attach.
RETRY = 0.05


class Order:
    """Puts shots and transitions in the order stated above. Knows no clock and no socket."""

    def __init__(self) -> None:
        self.shot: Moment | None = None
        self._transitions: deque[tuple[Moment, bool]] = deque()
        self._turns = 0
        self._last_transition = self._last_shot = 0

    @property
    def waiting(self) -> bool:
        """Whether transitions wait."""
        return bool(self._transitions)

    def announce(self, transition: Moment) -> None:
        """Add a transition behind those that wait."""
        turn = transition.timestamp < self._last_transition
        self._last_transition = transition.timestamp
        self._turns += turn
        self._transitions.append((transition, turn))

    def next(self, settled: bool) -> Moment | None:
        """Take what is due; a transition without a shot behind it only when ``settled``."""
        if self._transitions and (settled if self.shot is None else not self._shot_first()):
            transition, turn = self._transitions.popleft()
            if turn:
                self._turns -= 1
                self._last_shot = 0
            return transition
        shot, self.shot = self.shot, None
        if shot is not None:
            self._last_shot = shot.timestamp
        return shot

    def _shot_first(self) -> bool:
        assert self.shot is not None
        if self._turns and self.shot.timestamp <= self._last_shot:
            return False
        return self.shot.timestamp < self._transitions[0][0].timestamp


class ShmemSource:
    """Runs from the shared memory of ``tag``.

    It waits ``timeout`` seconds for a server, ``None`` for ever; :meth:`runs` raises
    ``TimeoutError`` if none came at all, and is over when one went away and none came back.
    ``note`` is that of :class:`ffb.source.Taking`.
    """

    #: Shots do not wait for us: what is not taken in time is lost to the server's next client.
    live = True

    def __init__(
        self, tag: str, timeout: float | None = None, meanings: Meanings | None = None
    ) -> None:
        self.tag, self.timeout, self._meanings = tag, timeout, meanings
        self.note: Callable[[int], None] = lambda _: None
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stopping = False
        self._client: Client | None = None
        self._next: Moment | None = None

    def runs(self) -> Iterator[DgramRun]:
        """See :meth:`ffb.source.Source.runs`."""
        prepare(self._meanings)
        attached = False
        while not self._stopping:
            try:
                client = self._attach()
            except TimeoutError:
                if attached:
                    return
                raise
            if client is None:
                return
            attached = True
            yield from self._runs_of(client)
            client.close()
            if not self._stopping:
                log.warning("shmem: lost tag=%s, waiting for its server to return", self.tag)

    def stop(self) -> None:
        """See :meth:`ffb.source.Source.stop`; takes no lock, so any signal handler may call it."""
        self._stopping = True
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """See :meth:`ffb.source.Source.close`."""
        self._stopping = True
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._wake >= 0:
            os.close(self._wake)
            self._wake = -1

    def _attach(self) -> Client | None:
        """Wait for a server; ``None`` when stopped. Raises ``TimeoutError``."""
        began, said = time.monotonic(), ""
        wake = select.poll()
        wake.register(self._wake, select.POLLIN)
        while not self._stopping:
            try:
                self._client = Client(self.tag, self._wake)
            except NoServerError as e:
                if (why := str(e)) != said:
                    said = why
                    log.info("shmem: waiting tag=%s because %s", self.tag, why)
            else:
                log.info("shmem: attached tag=%s", self.tag)
                return self._client
            if self.timeout is not None and time.monotonic() - began > self.timeout:
                raise TimeoutError(
                    f"no shared-memory server of tag {self.tag!r} in {self.timeout:g} s: {said};"
                    " is the DAQ's monitoring node running here, under this tag?"
                )
            wake.poll(RETRY * 1000)
        return None

    def _runs_of(self, client: Client) -> Iterator[DgramRun]:
        """Cut the stream of one attachment into runs."""
        moments, configure, early = self._ordered(client), None, 0
        for moment in self._rest(moments):
            if moment.service == Service.CONFIGURE:
                configure = moment
            elif moment.service in SHOTS:
                early += 1
            elif moment.service == Service.BEGIN_RUN and configure is not None:
                if early:
                    log.warning(
                        "shmem: skipped %d shots of no run, or of one that was left, tag=%s",
                        early,
                        self.tag,
                    )
                    early = 0
                stream = self._until_end(moments)
                try:
                    run = DgramRun(
                        _data(configure), _data(moment), stream, self._meanings, hurried=True
                    )
                except Xtc2Error:
                    log.exception("shmem: a run that cannot be read, tag=%s", self.tag)
                    configure = None
                    continue
                yield run
                for _ in stream:  # what was not read of it
                    pass

    def _rest(self, moments: Iterator[Moment | None]) -> Iterator[Moment]:
        """All moments outside of runs, and the one that ended a run by beginning another."""
        while True:
            moment, self._next = self._next, None
            try:
                moment = moment or next(moments)
            except StopIteration:
                return
            if moment is not None:
                yield moment

    def _until_end(self, moments: Iterator[Moment | None]) -> Stream:
        """Moments of one run; a shot is noted before its buffer goes back."""
        noted = -1
        for moment in moments:
            if moment is None:
                yield None
            elif moment.service in SHOTS:
                if moment.timestamp != noted:  # one that comes twice in a row counts once
                    noted = moment.timestamp
                    self.note(noted)
                yield moment
            elif moment.service == Service.END_RUN:
                return "end of run"
            elif moment.service in (Service.CONFIGURE, Service.BEGIN_RUN):
                self._next = moment
                return "no EndRun came, the next run began"
            elif moment.service == Service.UNCONFIGURE:
                return "no EndRun came, the detectors were unconfigured"
            else:
                yield moment
        if self._stopping:
            return "stopped"
        return f"lost: the shared-memory server of tag {self.tag!r} went away"

    def _ordered(self, client: Client) -> Generator[Moment | None, None, None]:
        """Everything of one attachment, in order; ends when its server is gone or at a stop.

        A buffer goes back to the server as soon as the next item is asked for.
        """
        order, held, announced = Order(), -1, 0.0
        while not self._stopping:
            if order.shot is None and (held := client.shot()) >= 0:
                found = client.moment(held)
                if found.service not in SHOTS:  # psana's own server may write over what it queued
                    client.give_back(held)
                    log.warning("shmem: no shot in a shot's buffer, tag=%s", self.tag)
                    continue
                order.shot = found
            for transition in client.transitions():
                order.announce(transition)
                announced = time.monotonic()
            shot = order.shot
            left = announced + SETTLE - time.monotonic() if order.waiting and not shot else 0.0
            moment = order.next(client.lost or left <= 0)
            if moment is not None:
                yield moment
                if moment is shot:
                    client.give_back(held)
            elif client.lost and not order.waiting:
                return
            elif not client.wait(left if order.waiting else IDLE) and not order.waiting:
                yield None


def _data(moment: Moment) -> list[memoryview]:
    return [d.data for d in moment.dgrams if d is not None]
