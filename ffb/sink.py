"""What receives committed batches: a writer, a capture, the live model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from ffb.batch import Batch
from ffb.schema import Schema
from ffb.source import RunInfo

if TYPE_CHECKING:
    from ffb.sums.piece import Parcel


@dataclass(frozen=True)
class Provenance:
    """Where the numbers of a run come from; every value is text or plain JSON data.

    ``inputs`` tells of every input by its name the field it is, ``detector.alg.field``. ``arrays``
    are masks and the like, packed by :mod:`ffb.messaging.arrays`; they go to a place of their own
    in the file, and what is read back of a run has none.
    """

    config: str = ""
    reducers: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    host: str = ""
    command: str = ""
    notes: tuple[str, ...] = ()
    inputs: Mapping[str, str] = field(default_factory=dict)
    arrays: tuple[Mapping[str, Any], ...] = ()

    @property
    def facts(self) -> dict[str, Any]:
        """All of it but the arrays, as plain data."""
        return {k: v for k, v in vars(self).items() if k != "arrays"}


class Entry(NamedTuple):
    """A line of the ledger: what became of ``shots`` shots of one producer.

    ``state`` is :data:`WRITTEN`, or the reason for a loss. ``first`` and ``last`` are timestamps
    in the order in which the producer read them, 0 where they are not known. Those of written shots
    ascend, so a producer whose timestamps go back has entries that overlap. Between two written
    ones of an entry the producer read nothing that it lost, unless both lie within one loss of
    several shots; between two lost ones of an entry with more shots than one there may be others,
    with entries of their own. ``row`` is where the first written shot stands, -1 for a loss.
    """

    producer: int
    state: str
    first: int
    last: int
    shots: int
    row: int = -1


#: State of shots that have a row.
WRITTEN = "written"


@dataclass(frozen=True)
class Counts:
    """The books at a commit, over all producers: ``read = written + sum(lost) + in flight``.

    ``late`` rows came after newer ones were committed, ``duplicates`` have the timestamp of
    another row; both are written. ``ended`` says at the end of the run why it ended. ``epoch`` is
    that of the newest rows. ``not_seen`` estimates from gaps between pulse ids how many shots the
    DAQ made that were never offered to us; it is not part of the balance. ``ledger`` holds the
    entries that this commit adds, everything else is cumulative. ``state`` is what the aggregator
    goes on from after a restart, plain data.
    """

    commit: int = 0
    read: int = 0
    written: int = 0
    lost: Mapping[str, int] = field(default_factory=dict)
    late: int = 0
    producers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    ended: str = ""
    duplicates: int = 0
    epoch: int = 0
    not_seen: int = 0
    ledger: tuple[Entry, ...] = ()
    state: Mapping[str, Any] = field(default_factory=dict)


class Sink(Protocol):
    """Receives a run's rows in order; what it raises sets the commit back, never aside."""

    def begin_run(self, info: RunInfo, schema: Schema, provenance: Provenance) -> None:
        """Prepare for a run; called once, before its first rows."""
        ...

    def begin_epoch(self, epoch: int, schema: Schema, provenance: Provenance) -> None:
        """Prepare for rows of other columns or parameters; comes right after a commit."""
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


@runtime_checkable
class Adder(Protocol):
    """A sink that keeps sums over shots, too."""

    def add(self, producer: tuple[str, int], seq: int, parcel: Parcel) -> None:
        """Take message ``seq`` of a producer's process, of what it added to its sums.

        It counts with the next commit, and may come again after a restart.
        """
        ...
