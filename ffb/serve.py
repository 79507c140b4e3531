"""The aggregator's process: messages in, commits, acknowledgements and snapshots out."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from ffb.aggregate import NS, Aggregator
from ffb.beside import Contained, Delays
from ffb.config import Config
from ffb.health import Latency, Rate
from ffb.live import Live
from ffb.sink import Sink
from ffb.source import RunInfo
from ffb.transport import Delivery, Hub, Publisher
from ffb.wire import Decoder, Frame, Header, WireError

log = logging.getLogger(__name__)

#: At most this often a snapshot goes out, and at least every second.
PUBLISH_NS, REPEAT_NS = NS // 10, NS

#: Making snapshots takes at most one part in so many of the aggregator's time.
SHARE = 10

#: A producer that has said nothing for so long is shown as not alive.
SILENT_NS = 3 * NS

#: How many messages are taken before the aggregator gets its turn.
TURN = 256


class Writer(Sink, Protocol):
    """A sink that writes a file."""

    @property
    def path(self) -> Path | None:
        """The file being written, or written last."""
        ...


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

    ``writer(config, info)`` makes the sink that writes a run; ``recorder`` keeps every message.
    """

    def __init__(
        self,
        config: Config,
        writer: Callable[[Config, RunInfo], Writer],
        recorder: Recorder | None = None,
    ) -> None:
        self.config, self._make_writer, self._recorder = config, writer, recorder
        self._not_recorded = ""
        a = config.aggregate
        self.aggregator = Aggregator(
            self._sinks,
            int(a.horizon_ms * 1e6),
            int(a.commit_ms * 1e6),
            int(a.end_timeout_s * NS),
            producers=config.run.producers,
        )
        self.stopping = False
        self._writer: Writer | None = None
        self._live = Live()
        self._shown = Contained(self._live)
        self._latency = Latency()
        self._rates = Rate(), Rate()
        self._decode = Decoder()
        self._producers: dict[str, dict[str, Any]] = {}
        self._heard: dict[str, int] = {}
        self._published = self._commit = self._making = 0
        endpoints = config.endpoints()
        key = config.key(secret=True)
        self.hub = Hub(endpoints.aggregator, key=key)
        self.publisher = Publisher(endpoints.views, key=key)

    def _sinks(self, info: RunInfo) -> Sequence[Sink]:
        self._writer, self._live = self._make_writer(self.config, info), Live()
        self._latency = Latency()
        self._shown = Contained(self._live)
        return [self._writer, Delays(self._latency), self._shown]

    def stop(self) -> None:
        """Take what is there, end the runs, and return from :meth:`loop`."""
        self.stopping = True

    def loop(self, *, once: bool, grace_s: float) -> bool:
        """Serve; returns whether the books of every run that ended balance.

        With ``once`` the end of a run is the end. After :meth:`stop` producers have ``grace_s``
        seconds to end their runs.
        """
        balanced, seen, end = True, 0, 0
        while True:
            now = self.turn()
            closed = [*self.aggregator.closed][seen:]
            seen += len(closed)
            balanced &= not any(c.problems for c in closed)
            if self.stopping:
                end = end or now + int(grace_s * NS)
                if now > end:
                    self.aggregator.end("the aggregator was stopped")
            if (self.stopping or (once and seen)) and not self.aggregator.open:
                self._publish(now + REPEAT_NS)
                return balanced
            if end and now > end + NS:  # a sink cannot finish, and says so in the fault
                log.error("stopped with rows not committed: %s", self.aggregator.fault)
                return False

    def turn(self) -> int:
        """Take what came, commit what is due, acknowledge, publish; returns the time [ns]."""
        now = time.monotonic_ns()
        for delivery in self.hub.receive(0.01, TURN):
            self._take(delivery, now)
        for done in self.aggregator.tick(now):
            self.hub.ack(*done)
        self._publish(now)
        return now

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
        header = message.header
        self._record(delivery.frames)
        self._heard[delivery.producer] = now
        if header.kind == "status" and isinstance(message.body, dict):
            self._producers[delivery.producer] = message.body
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
        commit = self._live.counts.commit
        due = max(PUBLISH_NS, SHARE * self._making) if commit != self._commit else REPEAT_NS
        if now - self._published >= due:
            self._published, self._commit = now, commit
            self.publisher.send(self._snapshot(now))
            self._making = time.monotonic_ns() - now

    def _snapshot(self, now: int) -> bytes:
        try:
            return self._live.snapshot(self._status(now))
        except Exception as e:
            self._shown.fail(e)
            blank = Live()
            blank.info, blank.counts = self._live.info, self._live.counts
            self._live = blank
            return blank.snapshot(self._status(now))

    def _file(self, now: int) -> dict[str, Any]:
        """The file being written: path, size, growth, and bytes free beside it."""
        path = self._writer.path if self._writer else None
        if path is None or not path.exists():
            return {"path": str(path or ""), "bytes": 0, "bytes_hz": 0.0}
        size = path.stat().st_size
        return {
            "path": str(path),
            "bytes": size,
            "bytes_hz": self._rates[1](size, now),
            "free": shutil.disk_usage(path.parent).free,
        }

    def _status(self, now: int) -> dict[str, Any]:
        """How the processes are, for page and terminal."""
        written = self._live.counts.written
        file = self._file(now)
        faults = self.aggregator.fault, self._shown.fault, self._not_recorded
        alarms = [a for a in faults if a]
        alarms += [f"{n:,} rows refused: {why}" for why, n in self.aggregator.refused.items() if n]
        alarms += [
            f"{n:,} messages not understood from {who}" for who, n in self.hub.rejected.items()
        ]
        alarms += sorted({str(s["alarm"]) for s in self._producers.values() if s.get("alarm")})
        return {
            "producers": {
                name: {**said, "alive": now - self._heard.get(name, 0) < SILENT_NS}
                for name, said in self._producers.items()
            },
            "written_hz": self._rates[0](written, now),
            "latency_ms": self._latency.percentiles(50, 95),
            "file": file,
            "pending": self.aggregator.pending,
            "alarms": alarms,
        }


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
