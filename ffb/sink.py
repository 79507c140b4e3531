"""What receives committed batches: a writer, a capture, the live model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ffb.batch import Batch
from ffb.schema import Schema
from ffb.source import RunInfo


@dataclass(frozen=True)
class Provenance:
    """Where the numbers of a run come from; every value is text or plain JSON data."""

    config: str = ""
    reducers: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    host: str = ""
    command: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Counts:
    """The books at a commit, over all producers: ``read = written + sum(lost) + in flight``.

    ``late`` rows came after newer ones were committed, ``duplicates`` have the timestamp of
    another row; both are written. ``ended`` says at the end of the run why it ended.
    """

    commit: int = 0
    read: int = 0
    written: int = 0
    lost: Mapping[str, int] = field(default_factory=dict)
    late: int = 0
    producers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    ended: str = ""
    duplicates: int = 0


class Sink(Protocol):
    """Receives a run's rows in order; what it raises sets the commit back, never aside."""

    def begin_run(self, info: RunInfo, schema: Schema, provenance: Provenance) -> None:
        """Prepare for a run; called once, before its first rows."""
        ...

    def append(self, batch: Batch) -> None:
        """Take rows in timestamp order; they count only once committed."""
        ...

    def commit(self, counts: Counts) -> None:
        """Make all rows appended so far durable and readable."""
        ...

    def step(self, step: int, values: Mapping[str, float], docstring: str) -> None:
        """Note that a new step began."""
        ...

    def end_run(self, counts: Counts) -> None:
        """Close the run; nothing follows."""
        ...
