"""A producer: read shots, reduce them, send batches, account for every one."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ffb.batch import Batch, compressed
from ffb.books.losses import Losses
from ffb.config import Config, ConfigError
from ffb.health import SECOND, Rate
from ffb.origin import origin
from ffb.plan import Plan
from ffb.producing.shed import Shedder, Stratum
from ffb.schema import CORE, Schema
from ffb.shot import BeginStep, Idle, Item, Shot
from ffb.source import Taking
from ffb.sums.held import DELTA_SHOTS
from ffb.sums.outbox import Outbox
from ffb.wire import EndRun, Header

if TYPE_CHECKING:
    from ffb.messaging.link import Link
    from ffb.producing.heir import Resume
    from ffb.source import Run, RunInfo, Source

log = logging.getLogger(__name__)

#: How long the aggregator is waited for, to be told that a run is prepared.
GREET_S = 2.0

#: Between two looks at the socket a producer at full speed does this much work.
PUMP_NS = 2_000_000

#: Bytes that a message of a full batch may have beside its rows: schema, header, losses.
BESIDE = 1 << 20

#: A producer that is told to stop has so many seconds to send what it added to sums.
STOP_SUMS_S = 2.0


class Producer:
    """Takes every shot a source offers to the aggregator, or says why not.

    A source whose shots cannot wait (``source.live``) loses whole shots while the window of
    unacknowledged batches fills; any other waits. All are counted: ``read = sent + lost``.
    ``resume`` tells where a killed predecessor has left a run that can be read again.
    """

    def __init__(
        self, config: Config, source: Source, link: Link, name: str, resume: Resume | None = None
    ) -> None:
        self.config, self.source, self.link, self.name = config, source, link, name
        self._resume = resume
        self.read = self.reduced = 0
        self.losses, self.shed = Losses(), Shedder()
        self.runs = 0
        self.stopping = False
        self._sent: dict[str, Any] = {}  # the books as of the last message
        self._hand = 0  # timestamp of a shot that is neither in a batch nor lost yet
        self._opened = self._pumped = self._told = self._summed = 0
        self._outbox = Outbox(link)
        self._refused = False  # whether the run passes by
        self._before: tuple[int, Mapping[str, Mapping[str, str]]] = (0, {})  # a run, its constants
        self._rates = Rate(), Rate()
        self._taking = isinstance(source, Taking)
        if isinstance(source, Taking):
            source.note = self._note

    def stop(self) -> None:
        """Finish the shot in hand, send what is there, and end; safe in a signal handler."""
        self.stopping = True
        self.source.stop()

    def loop(self, runs: int | None = None) -> int:
        """Take runs as they come, at most ``runs`` of them; returns how many were taken."""
        for run in self.source.runs():
            self._take(run)
            self.runs += 1
            if self.stopping or self.runs == runs:
                break
        return self.runs

    def _take(self, run: Run) -> None:
        info = run.info
        self.read, self.reduced, self.losses, self.shed = 0, 0, Losses(), Shedder()
        self._sent, self._opened, self._refused = self.counts, 0, False
        self._say(f"preparing run {info.run}: reading constants, compiling reducers", GREET_S)
        head = Header("begin_run", info.exp, info.run, info.began)
        if self._taking:  # its shots may be taken before we know what is made of them
            self.link.promise(head, Schema(CORE), origin(self.config))
        try:
            self._belongs(info)
            plan = Plan.make(self.config, run)
        except ConfigError as e:
            if self.stopping:  # while a shape was looked for: what was taken is our successor's
                return
            self.link.withdraw()
            self._refused = True
            if self.runs == 0 and not (self._taking and run.ended):
                raise
            self._refuse(run, e)
            return
        for sentence in plan.compare(*self._before):
            log.info("run %d: %s", info.run, sentence)
        self._before = (info.run, plan.constants)
        log.info("run %d begins: %d columns", info.run, len(plan.schema.columns))
        for warning in plan.warnings:
            log.warning("run %d: %s", info.run, warning)
        begun = {*plan.notes}
        resume = self._resume if self._resume and self._resume.info == info else None
        self._admitted()
        self.link.expect(plan.schema.offsets(plan.capacity)[-1] + BESIDE + 8 * plan.capacity)
        self.link.send(head, plan.schema, plan.provenance(), resume.shots if resume else 0)
        ended = ""
        try:
            self._shots(resume.items(run) if resume else run, plan, head)
            ended = "stopped" if self.stopping and not run.ended else run.ended
        finally:
            if self._hand:
                self._lose("producer failed")
            self._flush(plan, head)
            self._end_sums(plan, head)
            self._send_end(head, ended or "producer failed")
            log.info(
                "run %d ends (%s): read %d lost %s",
                info.run,
                ended,
                self.read,
                dict(self.losses.total),
            )
            for note in (n for n in plan.notes if n not in begun):
                log.warning("run %d: %s", info.run, note)

    def _belongs(self, info: RunInfo) -> None:
        """Raise ``ConfigError`` for a run of another experiment, which has no file here."""
        if self.config.exp not in {"", info.exp}:
            raise ConfigError(
                [
                    f"source.exp: {self.config.exp!r}, but the stream is of {info.exp!r}, run"
                    f" {info.run}; correct the experiment, or where its shots come from"
                ]
            )

    def _refuse(self, run: Run, error: ConfigError) -> None:
        """Let a run pass that the configuration does not fit, and say so all the while.

        Only the first run may end the service: after it, the next run may well fit again. One whose
        shots are shared out may end while we look for shapes, without a shot for us.
        """
        sentence = f"run {run.info.run} is not reduced: {'; '.join(error.problems)}"
        log.error("%s", sentence)
        self._told = 0
        for item in run:
            self.read += not isinstance(item, BeginStep | Idle)
            now = time.time_ns()
            if now - self._told >= SECOND:
                self._told = now
                self._say(f"run {run.info.run} passes by", alarm=sentence)
        log.error("run %d ended: %d shots passed by", run.info.run, self.read)

    def _say(self, doing: str, patience_s: float = 0.0, **more: str) -> None:
        """Tell the aggregator what we are at when that takes long; it may just be starting."""
        end = time.monotonic() + patience_s
        self.link.pump()
        while not (self.link.connected or self.stopping) and time.monotonic() < end:
            self.link.pump(PUMP_NS / 1e9)
        self.link.status({"pid": os.getpid(), "doing": doing, **more})

    def _shots(self, items: Iterable[Item], plan: Plan, head: Header) -> None:
        age = self.config.batch.age_ms * 1_000_000
        self._summed = time.time_ns()
        for item in items:
            now, full = time.time_ns(), False
            if isinstance(item, BeginStep):
                if plan.sums.per_step:
                    self._delta(plan, head, now)
                plan.step(item)
                self._admitted()
                self.link.send(head._replace(kind="step", counts=self._sent), None, item)
            elif not isinstance(item, Idle):
                self._opened = self._opened or now
                full = self._shot(item, plan, now)
            if full or (self._opened and now - self._opened > age):
                self._flush(plan, head)
            if plan.sums.shots and self._delta_due(plan, now):
                self._delta(plan, head, now)
            if isinstance(item, Idle) or now - self._pumped > PUMP_NS:
                self._pump(now, plan)

    def _shot(self, shot: Shot, plan: Plan, now: int) -> bool:
        """Take a shot or lose it; true when the batch is full."""
        self._hand, full = shot.timestamp, False
        self.read += 1
        if not self._taking:
            self.link.note(self._hand)
        try:
            plan.fill(shot)
            if kept := self._kept(plan):
                full = plan.reduce(shot, now, kept)
            elif self.stopping and not self.source.live:
                self._lose("stopped")
            else:
                self._lose("disk" if self.link.held else "backpressure")
        except ValueError as e:
            self._lose("damaged")
            times = self.losses.total["damaged"]
            if times in {1, 10, 100} or times % 1000 == 0:
                log.warning("shot %d cannot be read (%d so far): %s", shot.timestamp, times, e)
        self._hand = 0
        return full

    def _note(self, timestamp: int) -> None:
        """Take note of a shot that the source has taken, for :meth:`_shot` or our successor."""
        if not self._refused:
            self.link.note(timestamp)

    def _lose(self, reason: str) -> None:
        self.losses.add(reason, self._hand)
        self._hand = 0

    def _kept(self, plan: Plan) -> float:
        """Fraction of shots kept if the one in hand is; 0 where it has to be given up."""
        if not self.source.live:
            while not (self._room or self.stopping):
                self._make_room(0.05)
            return float(self._room)
        if not self._room:
            self._make_room()
        stratum = Stratum(*plan.light, plan.step_number)
        return self.shed.keep(self._hand, stratum, self.link.fill, self._room)

    @property
    def _room(self) -> bool:
        return self.link.room and self._outbox.room

    def _make_room(self, timeout_s: float = 0.0) -> None:
        self.link.pump(timeout_s)
        self._outbox.send(self._sent)

    def _delta_due(self, plan: Plan, now: int) -> bool:
        """Whether it is time to say what was added to sums; never while a delta is being sent."""
        late = now - self._summed > self.config.batch.sums_s * SECOND
        return (late or plan.sums.shots >= DELTA_SHOTS) and not self._outbox

    def _delta(self, plan: Plan, head: Header, now: int) -> None:
        """Take away what was added to sums; its rows go first."""
        self._flush(plan, head)
        self._summed = now
        self._outbox.put(head, plan.close_sums())

    def _end_sums(self, plan: Plan, head: Header) -> None:
        """Send all that was added, as long as the aggregator takes it."""
        self._outbox.put(head, plan.close_sums())
        moved, before = time.monotonic(), -1
        while self._outbox:
            if before != (before := self.link.acked):
                moved = time.monotonic()
            patience = STOP_SUMS_S if self.stopping else self.config.aggregate.end_timeout_s
            if time.monotonic() - moved > patience:
                log.warning(
                    "%d bytes of sums were not accepted, and are given up", self._outbox.bytes
                )
                break
            self._make_room(0.0 if self.link.room else 0.05)
        self._outbox = Outbox(self.link)

    def _admitted(self) -> None:
        """Wait while so much is under way that even a word would be too much."""
        while self.link.burst and not self.stopping:
            self.link.pump(0.05)

    def _flush(self, plan: Plan, head: Header) -> None:
        """Send the rows there are, and the losses; losses alone wait for room."""
        batch = plan.close()
        if batch is None:
            if not (self.losses and self.link.room):
                return
            batch = Batch(plan.schema, 0)
        self._opened = 0
        self.reduced += batch.n
        self._sent = self.counts
        head = head._replace(kind="shots", counts=self._sent, losses=self.losses.take())
        self.link.send(head, plan.schema, compressed(batch))

    def _send_end(self, head: Header, ended: str) -> None:
        head = head._replace(kind="end_run", counts=self.counts, losses=self.losses.take())
        self.link.send(head, None, EndRun(ended))
        self.link.pump()

    @property
    def counts(self) -> dict[str, Any]:
        """The books of this producer for this run, up to the shot in hand."""
        return {"read": self.read, "lost": dict(self.losses.total)}

    def _pump(self, now: int, plan: Plan) -> None:
        self._pumped = now
        self._make_room()
        if now - self._told >= SECOND:
            self._told = now
            self.link.status(self._numbers(now, plan))

    def _numbers(self, now: int, plan: Plan) -> dict[str, Any]:
        """How we are, once a second; strata are [x-ray, laser, offered, kept]."""
        numbers = {
            "pid": os.getpid(),
            "doing": "reducing",
            "time": now,
            "read": self.read,
            "reduced": self.reduced,
            "lost": dict(self.losses.total),
            "read_hz": self._rates[0](self.read, now),
            "reduced_hz": self._rates[1](self.reduced, now),
            "errors": plan.tallies,
            "notes": [*plan.notes],
            **self.link.gauges,
        }
        if self.link.alarm:
            numbers["alarm"] = self.link.alarm
        if self.source.live:
            numbers["kept"] = self.shed.fraction(now)
            numbers["strata"] = [
                [*light, offered, self.shed.kept.get(light, 0)]
                for light, offered in self.shed.offered.items()
            ]
        return numbers
