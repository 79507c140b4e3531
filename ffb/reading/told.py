"""What a file tells of how it came about: commits, books, producers, epochs, steps, segments.

All of it is as of the commit that is shown, unless it says otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.reading import contents
from ffb.reading.segments import Segments, columns_of
from ffb.schema import Column
from ffb.sink import Counts

LEDGER_DTYPE = np.dtype(
    [("producer", "<u2"), ("name", "U70"), ("process", "<i8"), ("state", "U30")]
    + [(k, contents.LEDGER_DTYPE[k]) for k in ("first", "last", "shots", "row", "commit")]
)


class Step(NamedTuple):
    """A step as the file has it; ``row`` is the number of rows that came before it."""

    step: int
    row: int
    values: Mapping[str, float]
    docstring: str


class Epoch(NamedTuple):
    """An interval of rows made by one set of columns and parameters, from ``row`` on.

    ``columns`` are as they were in it; ``provenance`` has what :class:`ffb.sink.Provenance` has.
    """

    epoch: int
    row: int
    commit: int
    columns: tuple[Column, ...]
    provenance: Mapping[str, Any]


class Segment(NamedTuple):
    """A file that holds ``rows`` rows of the run from ``first`` on."""

    path: Path
    first: int
    rows: int
    growing: bool


class Producer(NamedTuple):
    """A process that took part: the ``producer`` of the column ``ffb/producer``."""

    producer: int
    name: str
    process: int


class Told:
    """Tables and logs of a run's file, whose segments are ``_segments``."""

    _segments: Segments

    @property
    def committed(self) -> int:
        """Rows that count."""
        return self._segments.committed

    @property
    def complete(self) -> bool:
        """Whether the run has ended and nothing follows."""
        return self._segments.complete

    @property
    def segmented(self) -> bool:
        """Whether rows stand in file segments behind a master."""
        return self._segments.listed

    @property
    def segments(self) -> list[Segment]:
        """Files that hold the rows, in order: one for a plain file."""
        return [
            Segment(p.path, p.first, self.committed - p.first if p.rows < 0 else p.rows, p.rows < 0)
            for p in self._segments.parts
        ]

    def damage(self) -> list[tuple[str, str]]:
        """What is wrong with the files as such: name of a file, and what it is."""
        return self._segments.damage()

    def table(self, name: str) -> NDArray[Any]:
        """One of ffb's tables as it is now, lines of an unfinished commit included."""
        return self._segments.table(name)

    def lines(self, name: str) -> NDArray[Any]:
        """Lines of one of ffb's tables up to the commit shown."""
        table, last = self.table(name), self._segments.last_commit()
        if last is None or name in (contents.PRODUCERS, contents.ORDER):
            return table if last is not None else table[:0]
        if "commit" in (table.dtype.names or ()):
            inside = table["commit"] <= last["commit"]
        else:
            inside = table["log"] + table["size"] <= last["log"] + last["size"]
        return np.asarray(table[inside])

    @property
    def commits(self) -> NDArray[Any]:
        """Table of commits up to the one shown: times in ns since 1970."""
        return self.lines(contents.COMMITS)

    @property
    def counts(self) -> Counts:
        """The books at the commit shown, without its entries, for which see ``ledger``."""
        line = self._segments.last_commit()
        known = {f.name for f in fields(Counts)} - {"ledger"}
        said = {} if line is None else self.said(line)
        return Counts(**{k: v for k, v in said.items() if k in known})

    def said(self, line: Any) -> dict[str, Any]:
        """What the log holds for a line of the commits, epochs or steps."""
        return dict(json.loads(self._segments.log(int(line["log"]), int(line["size"]))))

    @property
    def ledger(self) -> NDArray[Any]:
        """What became of every shot, up to the commit shown: dtype ``LEDGER_DTYPE``.

        A line is an interval of shots of one producer's process, see :class:`ffb.sink.Entry`;
        ``commit`` brought it. Written shots of the newest commits have no line yet while their
        interval is open: ``counts.producers`` has it.
        """
        table, names = self.lines(contents.LEDGER), {p.producer: p for p in self.producers}
        out = np.zeros(len(table), LEDGER_DTYPE)
        for key in contents.LEDGER_DTYPE.names or ():
            out[key] = np.char.decode(table[key]) if key == "state" else table[key]
        for i, number in enumerate(table["producer"].tolist()):
            if number in names:
                out["name"][i], out["process"][i] = names[number].name, names[number].process
        return out

    @property
    def producers(self) -> list[Producer]:
        """Processes that took part."""
        return [
            Producer(int(p["producer"]), p["name"].decode(), int(p["process"]))
            for p in self.lines(contents.PRODUCERS)
        ]

    @property
    def epochs(self) -> list[Epoch]:
        """Sets of columns and parameters, in the order in which they began."""
        out = []
        for line in self.lines(contents.EPOCHS):
            said = self.said(line)
            columns = columns_of(said.pop("columns"))
            numbers = (int(line["epoch"]), int(line["row"]), int(line["commit"]))
            out.append(Epoch(*numbers, columns, said.get("provenance", said)))
        return out

    @property
    def steps(self) -> list[Step]:
        """Steps so far, in their order, with the values of their motors; row -1 without a shot."""
        table = self.lines(contents.STEPS)
        lines = [self.said(line) for line in table]
        found = [
            Step(int(line["step"]), int(line["row"]), said["values"], said["docstring"])
            for line, said in zip(table, lines, strict=True)
        ]
        return sorted(found, key=lambda step: step[:2])

    @property
    def order(self) -> NDArray[Any]:
        """Where rows stood in the order of their commits: ``ffb/order``, empty if they do yet."""
        return self.table(contents.ORDER)
