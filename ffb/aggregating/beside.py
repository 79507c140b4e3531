"""Sinks beside the writer: the latency of rows, and the live model kept from doing harm."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from ffb.batch import Batch
from ffb.health import Latency
from ffb.sink import Counts, Sink

log = logging.getLogger(__name__)


class Delays:
    """A sink that turns times of reading into latencies when their rows are committed."""

    def __init__(self, latency: Latency) -> None:
        self._latency = latency
        self._waiting: list[Batch] = []

    def begin_run(self, *_: Any) -> None:
        """Nothing to prepare."""

    def begin_epoch(self, *_: Any) -> None:
        """Nothing to prepare."""

    def append(self, batch: Batch) -> None:
        """Hold the times of reading until the commit."""
        self._waiting.append(batch)

    def commit(self, counts: Counts) -> None:
        """The rows are committed now."""
        now = time.time_ns()
        for batch in self._waiting:
            self._latency.add(now - batch.read)
        self._waiting = []

    def step(self, *_: Any) -> None:
        """Nothing to note."""

    def end_run(self, counts: Counts) -> None:
        """Nothing to close."""


class Contained:
    """A sink whose failure costs what it shows and nothing else: rows go on being written."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.fault = ""

    def begin_run(self, *args: Any) -> None:
        """Pass on."""
        self._try(self._sink.begin_run, *args)

    def begin_epoch(self, *args: Any) -> None:
        """Pass on."""
        self._try(self._sink.begin_epoch, *args)

    def append(self, batch: Batch) -> None:
        """Pass on."""
        self._try(self._sink.append, batch)

    def commit(self, counts: Counts) -> None:
        """Pass on."""
        self._try(self._sink.commit, counts)

    def step(self, *args: Any) -> None:
        """Pass on."""
        self._try(self._sink.step, *args)

    def end_run(self, counts: Counts) -> None:
        """Pass on."""
        self._try(self._sink.end_run, counts)

    def _try(self, call: Callable[..., None], *args: Any) -> None:
        if self.fault:
            return
        try:
            call(*args)
        except Exception as e:
            self.fail(e)

    def fail(self, e: Exception) -> None:
        """Note the failure, to be told as an alarm, and leave the sink alone from now on."""
        self.fault = f"the page shows no more rows of this run: {type(e).__name__}: {e}"
        log.exception("the live model failed")
