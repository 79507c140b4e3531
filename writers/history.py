"""What a journal tells of its run: file segments, where their chunks lie, and the last books."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

import msgpack
import numpy as np
from numpy.typing import NDArray

from ffb.reading.contents import TABLES
from ffb.schema import Column, Schema
from ffb.sink import Counts, Entry, Provenance
from ffb.source import RunInfo
from ffb.writers.journal import CHUNK

T = TypeVar("T", Counts, Provenance)


@dataclass
class Written:
    """A file segment as of its last commit.

    ``first`` is the run's row it begins at and ``rows`` its own number of rows, ``before`` and
    ``tables`` the lines of each table before its own and up to its last. ``rebuilt`` counts how
    often it was; ``lost`` holds (dataset, first row of the run, last) that could not be found then.
    """

    number: int
    file: str
    live: str
    first: int
    epoch: int
    schema: Schema
    provenance: Provenance
    before: dict[str, int]
    rows: int = 0
    tables: dict[str, int] = field(default_factory=dict)
    commits: int = 0
    closed: bool = False
    rebuilt: int = 0
    lost: list[tuple[str, int, int]] = field(default_factory=list)
    _chunks: list[NDArray[np.void]] = field(default_factory=list)

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names in the order of ``CHUNK``'s ``dataset``."""
        return (*(c.name for c in self.schema.columns), *TABLES)

    @property
    def lengths(self) -> dict[str, int]:
        """Committed length of every dataset of this segment."""
        columns = {c.name: self.rows for c in self.schema.columns}
        return columns | {k: self.tables.get(k, 0) - self.before.get(k, 0) for k in TABLES}

    @property
    def chunks(self) -> NDArray[np.void]:
        """Where every chunk lay last, by dataset and number."""
        if len(self._chunks) > 1:
            said = np.concatenate(self._chunks)[::-1]
            keys = said["dataset"].astype(np.uint64) << np.uint64(32) | said["chunk"]
            self._chunks = [said[np.unique(keys, return_index=True)[1]]]
        return self._chunks[0] if self._chunks else np.empty(0, CHUNK)

    def commit(self, record: Mapping[str, Any]) -> None:
        """Take a commit of rows of this segment."""
        self.rows, self.tables = int(record["rows"]) - self.first, dict(record["tables"])
        self.commits += 1
        self.place(record["chunks"])

    def place(self, chunks: bytes) -> None:
        """Take the places of chunks, in place of what was said of them before."""
        if chunks:
            self._chunks.append(np.frombuffer(chunks, CHUNK))
        if len(self._chunks) > 1000:
            self._chunks = [self.chunks]

    def rebuild(self, record: Mapping[str, Any]) -> None:
        """Take what an earlier recovery said: all chunks are elsewhere, some may be lost."""
        self._chunks, self.rebuilt = [np.frombuffer(record["chunks"], CHUNK)], self.rebuilt + 1
        self.lost = [(str(name), int(first), int(last)) for name, first, last in record["lost"]]


@dataclass
class History:
    """All that a journal says; ``info`` is ``None`` where it says not even the run's name.

    ``steps`` is what the writer needs to go on with steps of the scan, as it gave it. ``number`` is
    that of the next segment. ``owed`` are books with entries that a cut left to be committed.
    """

    info: RunInfo | None = None
    written: dict[int, Written] = field(default_factory=dict)
    books: Counts = field(default_factory=Counts)
    steps: Mapping[str, Any] | None = None
    ended: bool = False
    number: int = 0
    owed: Counts | None = None

    @property
    def segments(self) -> list[Written]:
        """Segments in which something was committed, in order."""
        return [s for _, s in sorted(self.written.items()) if s.commits]

    def take(self, record: Mapping[str, Any]) -> None:
        """Take the next record; kinds of a newer program are passed over."""
        kind = record["kind"]
        if kind == "run":
            self.info = RunInfo(str(record["exp"]), int(record["run"]), int(record["began"]))
        elif kind == "segment":
            begun = _begun(record)
            self.written[begun.number], self.number = begun, max(self.number, begun.number + 1)
        elif kind == "commit":
            for part in (*record.get("filled", ()), record):
                self.written[int(part["segment"])].commit(part)
            self.books, self.steps = counts_of(record["counts"]), record.get("steps", self.steps)
            self.owed = None
        elif kind == "rebuilt":
            self.written[int(record["segment"])].rebuild(record)
        elif kind == "cut":
            entries = tuple(Entry(*entry) for entry in record["ledger"])
            self.owed = replace(counts_of(record["counts"]), ledger=entries)
            self.number = max(self.number, int(record["number"]))
        elif kind == "closed":
            self.written[int(record["segment"])].closed = True
        elif kind == "ended":
            self.books, self.ended = counts_of(record["counts"]), True


def told(records: Iterable[Mapping[str, Any]]) -> History:
    """What the records of a journal tell."""
    history = History()
    for record in records:
        history.take(record)
    return history


def _begun(record: Mapping[str, Any]) -> Written:
    before = {str(k): int(n) for k, n in record["tables"].items()}
    return Written(
        number=int(record["number"]),
        file=str(record["file"]),
        live=str(record["live"]),
        first=int(record["first"]),
        epoch=int(record["epoch"]),
        schema=schema_of(record["schema"]),
        provenance=_known(Provenance, record["provenance"], notes=tuple),
        before=before,
        tables=dict(before),
    )


def schema_of(packed: bytes) -> Schema:
    """Undo ``Schema.packed``."""
    rows: list[list[Any]] = msgpack.unpackb(packed)
    made: Iterator[list[Any]]
    made = ([tuple(x) if isinstance(x, list) else x for x in row] for row in rows)
    return Schema(tuple(Column(*row) for row in made))


def plain_of(counts: Counts) -> dict[str, Any]:
    """Books as the journal has them, without their entries."""
    return {k: v for k, v in vars(counts).items() if k != "ledger"}


def counts_of(record: Mapping[str, Any]) -> Counts:
    """Books as plain data, without the entries of the commit, as :class:`Counts`."""
    return _known(Counts, {**record, "ledger": ()})


def _known(kind: type[T], record: Mapping[str, Any], **made: Any) -> T:
    """Make ``kind``, a dataclass, from those keys of ``record`` that it knows."""
    known = {f.name: record[f.name] for f in fields(kind) if f.name in record}
    return kind(**{k: made[k](v) if k in made else v for k, v in known.items()})
