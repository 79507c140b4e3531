"""The aggregator's process: messages in, commits, acknowledgements and snapshots out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from ffb.aggregate import NS, Aggregator
from ffb.aggregating.beside import Delays
from ffb.config import Config
from ffb.health import Latency, Rate, trim
from ffb.live.shown import Shown, Writer
from ffb.reader import ended_books
from ffb.service.report import FileState, Queue, Said
from ffb.sink import Sink
from ffb.source import RunInfo
from ffb.transport import Delivery, Hub, Publisher
from ffb.wire import Decoder, Frame, Header, WireError

log = logging.getLogger(__name__)

#: At most this often a snapshot goes out, and at least every second.
PUBLISH_NS, REPEAT_NS = NS // 10, NS

#: So often free memory goes back to the system.
TRIM_NS = 10 * NS

#: Making snapshots takes at most one part in so many of the aggregator's time, by its CPU clock: to
#: wait for a disk or a busy machine meanwhile is no reason to tell less.
SHARE = 10

#: How many messages are taken before the aggregator gets its turn, how many before a look at how
#: much waits, and how long we wait for the first [s].
TURN, GULP, IDLE_S = 256, 16, 0.01


class Recorder(Protocol):
    """Keeps messages as they came."""

    def write(self, frames: Sequence[Frame]) -> None:
        """Append one message; raises ``OSError`` when that cannot be done."""
        ...

    def close(self) -> None:
        """Close the recording."""
        ...


class Service:
    """Owns the sockets and the runs being written; ``loop`` until told to stop.

    ``writer(config, info)`` makes the sink that writes a run; ``recorder`` keeps every message;
    ``alarms`` says what else is wrong.
    """

    def __init__(
        self,
        config: Config,
        writer: Callable[[Config, RunInfo], Writer],
        recorder: Recorder | None = None,
        alarms: Callable[[], list[str]] = list,
    ) -> None:
        self.config, self._make_writer, self._recorder = config, writer, recorder
        self._more_alarms = alarms
        self._not_recorded = ""
        a = config.aggregate
        self.aggregator = Aggregator(
            self._sinks,
            int(a.horizon_ms * 1e6),
            int(a.commit_ms * 1e6),
            int(a.end_timeout_s * NS),
            producers=config.run.producers,
            horizon_shots=a.horizon_shots,
            ended=lambda info: ended_books(config.file(info.exp, info.run), info),
        )
        self.stopping = False
        self._shown, self._before = Shown(), list[Shown]()
        self._latency, self._rate = Latency(), Rate()
        self._file = FileState()
        self._decode = Decoder()
        self._said = Said()
        self._published = self._commit = self._making = self._trimmed = 0
        endpoints = config.endpoints()
        key, window = config.key(secret=True), int(config.transport.window_mb * 1e6)
        self.hub = Hub(endpoints.aggregator, window_bytes=window, key=key)
        # All that producers may have in flight, with what they are at: nothing is read above it.
        self.most = 2 * window * max(2, config.run.producers)
        self.publisher = Publisher(endpoints.views, key=key)

    def _sinks(self, info: RunInfo) -> Sequence[Sink]:
        writer, self._latency = self._make_writer(self.config, info), Latency()
        self._before = [s for s in (*self._before, self._shown) if not s.live.ended]
        self._shown = Shown(writer)
        return [writer, Delays(self._latency), self._shown]

    def stop(self) -> None:
        """Take what is there, end the runs, and return from :meth:`loop`."""
        self.stopping = True

    def loop(self, *, once: bool, grace_s: float) -> bool:
        """Serve; returns whether the books of every run that ended balance.

        With ``once`` the end of a run is the end. After :meth:`stop` producers have ``grace_s``
        seconds to end their runs.
        """
        balanced, seen, end, over = True, 0, 0, 0
        while True:
            now = self.turn()
            closed = [*self.aggregator.closed][seen:]
            seen += len(closed)
            balanced &= not any(c.problems for c in closed)
            if any(c.recalled for c in closed):  # its producers come one by one, to be told
                over = now + self.aggregator.timing.end_timeout_ns
            if self.stopping:
                end = end or now + int(grace_s * NS)
                if now > end:
                    self.aggregator.end("the aggregator was stopped")
            if (self.stopping or (once and seen and now >= over)) and not self.aggregator.open:
                self._finish()
                return balanced
            if end and now > end + NS:  # a sink cannot finish, and says so in the fault
                why = self.aggregator.fault or "its sinks do not finish"
                log.error("stopped with rows not committed: %s", why)
                return False

    def farewell(self, most_s: float) -> None:
        """Answer producers until all have taken their leave, for ``most_s`` seconds at most.

        A word that is under way when we close our end is lost with the connection, and so is one
        whose connection broke a moment ago: they would wait for it. Nothing that comes now is
        acknowledged; it stays with them.
        """
        end = time.monotonic() + most_s
        while self.hub.attended and time.monotonic() < end:
            self.hub.receive(IDLE_S)

    def turn(self) -> int:
        """Take what came, commit what is due, acknowledge, publish; returns the time [ns]."""
        now = time.monotonic_ns()
        self._receive(now)
        for done in self.aggregator.tick(now):
            self.hub.ack(*done)
        self.hub.held = bool(self.aggregator.fault)
        for shown in (self._shown, *self._before):
            shown.fill()
        self._publish(now)
        if now - self._trimmed >= TRIM_NS:
            self._trimmed = now
            trim()
        return now

    def _receive(self, now: int) -> None:
        """Take what came, a gulp at a time; nothing when too much waits: then the sockets fill."""
        if self.hub.waiting_bytes > self.most:
            time.sleep(IDLE_S)
        taken, wait = 0, IDLE_S
        while taken < TURN and self.hub.waiting_bytes <= self.most:
            deliveries = self.hub.receive(wait, GULP)
            for delivery in deliveries:
                self._take(delivery, now)
            if len(deliveries) < GULP:
                return
            taken, wait = taken + GULP, 0.0

    def close(self) -> None:
        """Close sockets and recording."""
        self.hub.close()
        self.publisher.close()
        if self._recorder is not None:
            self._recorder.close()

    def _take(self, delivery: Delivery, now: int) -> None:
        try:
            message = self._decode(delivery.frames)
            _check_sender(message.header, delivery, self.config.exp)
        except WireError as e:
            self.hub.reject(delivery.producer)
            log.warning("producer=%s sent what cannot be read: %s", delivery.producer, e)
            if delivery.seq:
                self.aggregator.skip(delivery.producer, delivery.epoch, delivery.seq)
            return
        self._record(delivery.frames)
        self._said.hear(delivery.producer, now)
        if message.header.kind == "status" and isinstance(message.body, dict):
            self._said.take(delivery.producer, message.body, now)
        self.aggregator.receive(message, now)

    def _record(self, frames: Sequence[Frame]) -> None:
        """Record a message; a recording that fails ends, and never holds up the rows."""
        if self._recorder is None:
            return
        try:
            self._recorder.write(frames)
        except OSError as e:
            self._not_recorded = f"recording stopped: {e}"
            log.error("%s", self._not_recorded)
            self._recorder.close()
            self._recorder = None

    def _publish(self, now: int) -> None:
        """Send the newest run's snapshot when it is due; keep those of every run that are due."""
        commit = self._shown.live.counts.commit
        due = max(PUBLISH_NS, SHARE * self._making) if commit != self._commit else REPEAT_NS
        if now - self._published < due:
            return
        self._published, self._commit = now, commit
        began = time.thread_time_ns()
        frame = self._snapshot(now)
        self.publisher.send(frame)
        self._shown.keep(now, lambda: frame)
        for shown in self._before:
            shown.keep(now, partial(shown.frame, {}))
        self._making = time.thread_time_ns() - began

    def _finish(self) -> None:
        """Show and keep the last of every run."""
        for shown in (self._shown, *self._before):
            while not shown.fill():
                pass
        self._publish(time.monotonic_ns() + REPEAT_NS)

    def _snapshot(self, now: int) -> bytes:
        return self._shown.frame(self._status(now))

    def _status(self, now: int) -> dict[str, Any]:
        """How the processes are, for page and terminal."""
        waiting = Queue("aggregator", self.hub.waiting_bytes, self.most, self.hub.high_water)
        return {
            "producers": self._said.producers(now),
            "children": self._said.children(now),
            "written_hz": self._rate(self._shown.live.counts.written, now),
            "latency_ms": self._latency.percentiles(50, 95),
            "file": self._file(self._shown.path, now),
            "pending": self.aggregator.pending,
            "queues": [list(q) for q in (waiting, *self._said.queues)],
            "held": self.aggregator.fault,
            "alarms": self._alarms(),
            "notes": self.aggregator.notes,
        }

    def _alarms(self) -> list[str]:
        """What is wrong, in sentences."""
        shown = (self._shown.fault, self._shown.not_kept)
        faults = [a for a in (self.aggregator.fault, *shown, self._not_recorded) if a]
        refused = [f"{n:,} rows refused: {k}" for k, n in self.aggregator.refused.items() if n]
        rejected = self.hub.rejected.items()
        foreign = [f"{n:,} messages not understood from {who}" for who, n in rejected]
        others = self._said.alarms + self._more_alarms()
        return faults + refused + foreign + others


def _check_sender(header: Header, delivery: Delivery, exp: str) -> None:
    """Refuse a message that says of itself what its envelope does not, or of no concern here."""
    if (header.producer, header.epoch) != (delivery.producer, delivery.epoch):
        raise WireError(f"it gives itself another name, {header.producer!r}")
    if delivery.seq == 0:  # a reminder of a run, or a status: nothing that counts
        if header.kind not in {"begin_run", "status"}:
            raise WireError(f"{header.kind} without a number")
    elif header.seq != delivery.seq or header.kind == "status":
        raise WireError("its number is not that of its envelope")
    if header.kind != "status" and exp not in {"", header.exp}:
        raise WireError(f"it is of experiment {header.exp!r}, and this aggregator of {exp!r}")
