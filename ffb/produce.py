"""A producer: read shots, reduce them, send batches, account for every one."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from ffb.config import Config, ConfigError
from ffb.health import SECOND, Rate
from ffb.plan import Plan
from ffb.shot import BeginStep, Idle
from ffb.wire import EndRun, Header

if TYPE_CHECKING:
    from ffb.source import Run, Source
    from ffb.transport import Link

log = logging.getLogger(__name__)

#: Between two looks at the socket a producer at full speed does this much work.
PUMP_NS = 2_000_000


class Producer:
    """Takes every shot a source offers to the aggregator, or says why not.

    A source whose shots cannot wait (``source.live``) loses whole shots while the window of
    unacknowledged batches is full; any other waits. Both are counted: ``read = sent + lost``.
    """

    def __init__(self, config: Config, source: Source, link: Link, name: str) -> None:
        self.config, self.source, self.link, self.name = config, source, link, name
        self.read = self.reduced = 0
        self.lost: Counter[str] = Counter()
        self.runs = 0
        self.stopping = False
        self._rates = Rate(), Rate()
        self._pumped = self._told = 0

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
        self.read, self.reduced, self.lost = 0, 0, Counter()
        self._say(f"preparing run {info.run}")
        try:
            plan = Plan.make(self.config, run)
        except ConfigError as e:
            if self.runs == 0:
                raise
            self._refuse(run, e)
            return
        head = Header("begin_run", info.exp, info.run, info.began)
        log.info("run %d begins: %d columns", info.run, len(plan.schema.columns))
        self.link.send(head, plan.schema, plan.provenance())
        ended = ""
        try:
            self._shots(run, plan, head)
            ended = "stopped" if self.stopping and not run.ended else run.ended
        finally:
            self._flush(plan, head)
            self._send_end(head, ended or "producer failed")
            log.info(
                "run %d ends (%s): read %d lost %s", info.run, ended, self.read, dict(self.lost)
            )

    def _refuse(self, run: Run, error: ConfigError) -> None:
        """Let a run pass that the configuration does not fit, and say so all the while.

        Only the first run may end the service: after it, the next run may well fit again.
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

    def _say(self, doing: str, **more: str) -> None:
        """Tell the aggregator what we are at when that takes long."""
        self.link.pump()
        self.link.status({"pid": os.getpid(), "doing": doing, **more})

    def _shots(self, run: Run, plan: Plan, head: Header) -> None:
        age, opened = self.config.batch.age_ms * 1_000_000, 0
        for item in run:
            now = time.time_ns()
            if isinstance(item, BeginStep):
                plan.step(item)
                self.link.send(head._replace(kind="step"), None, item)
            elif not isinstance(item, Idle):
                self.read += 1
                if self.link.room or self._wait():
                    opened = opened or now
                    if plan.take(item, now):
                        self._flush(plan, head)
                        opened = 0
                else:
                    self.lost["stopped" if self.stopping else "backpressure"] += 1
            if opened and now - opened > age:
                self._flush(plan, head)
                opened = 0
            if isinstance(item, Idle) or now - self._pumped > PUMP_NS:
                self._pump(now, plan)

    def _wait(self) -> bool:
        """Wait for room where shots can wait; False when this one has to be given up."""
        if self.source.live:
            self.link.pump()
        else:
            while not (self.link.room or self.stopping):
                self.link.pump(0.05)
        return self.link.room

    def _flush(self, plan: Plan, head: Header) -> None:
        batch = plan.close()
        if batch is None:
            return
        self.reduced += batch.n
        head = head._replace(kind="shots", counts=self.counts)
        self.link.send(head, plan.schema, batch)

    def _send_end(self, head: Header, ended: str) -> None:
        head = head._replace(kind="end_run", counts=self.counts)
        self.link.send(head, None, EndRun(ended))
        self.link.pump()

    @property
    def counts(self) -> dict[str, Any]:
        """The books of this producer for this run, as sent so far."""
        return {"read": self.read, "lost": dict(self.lost)}

    def _pump(self, now: int, plan: Plan) -> None:
        self._pumped = now
        self.link.pump()
        if now - self._told >= SECOND:
            self._told = now
            self.link.status(
                {
                    "pid": os.getpid(),
                    "doing": "reducing",
                    "time": now,
                    "read": self.read,
                    "reduced": self.reduced,
                    "lost": dict(self.lost),
                    "read_hz": self._rates[0](self.read, now),
                    "reduced_hz": self._rates[1](self.reduced, now),
                    "in_flight_bytes": self.link.in_flight_bytes,
                    "high_water_bytes": self.link.high_water,
                    "resent": self.link.resent,
                    "errors": {str(k): v for k, v in plan.errors.items()},
                    "notes": [*plan.notes],
                }
            )
