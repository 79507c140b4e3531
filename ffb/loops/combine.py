"""Columns computed from other columns: derived numbers and filters, in one loop over a batch.

What an expression may say, and what it means that something is missing, is in
:mod:`ffb.configuration.expression`. A derived number is a float64, NaN where it is missing. A
filter is a bool, false where it is unknown, and ``<name>_valid`` says where it is known.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from ffb.batch import Batch
from ffb.configuration.conditions import DerivedConfig, FilterConfig
from ffb.configuration.derive import Entry, entry_of, in_order
from ffb.configuration.expression import (
    UNKNOWN,
    YES,
    Code,
    Kind,
    Term,
    names_in,
    translate,
    written,
)
from ffb.configuration.problems import Problem, nearest
from ffb.configuration.syntax import At, Span
from ffb.loops.compile import build, kernel
from ffb.loops.over import NOTHING, over
from ffb.schema import EPOCH, LASER, LATE, PRODUCER, PULSE_ID, TIMESTAMP, XRAY, Column, Schema
from ffb.shot import FrameBlock

_REFUSED = {
    TIMESTAMP.name: "is the key of the shot and no number; use pulse_id",
    **dict.fromkeys((PRODUCER.name, EPOCH.name, LATE.name), "is known to the aggregator only"),
}
_LIGHTS = (XRAY.name, LASER.name)


def _storage(c: Column) -> str:
    """The type as which a column's elements are read."""
    kind = np.dtype(c.dtype)
    return "uint8" if kind.kind == "b" else kind.name


class Combined:
    """The expressions of a run, bound to its columns, compiled, and evaluated for batches.

    ``columns`` are those that they add, in the order of the configuration; ``problems`` lists
    everything that is wrong; ``unrecorded`` are inputs that are no columns. ``compile`` comes
    before ``run``, which also fills ``truths`` (wheres, capacity): what the conditions ``wheres``
    of sums say of each shot, ``NO``, ``UNKNOWN`` or ``YES``.
    """

    def __init__(
        self,
        derived: Mapping[str, DerivedConfig],
        filters: Mapping[str, FilterConfig],
        columns: Sequence[Column],
        unrecorded: Collection[str] = (),
        wheres: Mapping[str, str] | None = None,
    ) -> None:
        entries = [
            *(Entry("derived", n, d.expr, d.unit, d.doc) for n, d in derived.items()),
            *(Entry("filters", n, f.expr, doc=f.doc) for n, f in filters.items()),
        ]
        self.columns = tuple(c for e in entries for c in e.columns)
        self._entries = {e.name: e for e in entries}
        self._known, self._unrecorded = {c.name: c for c in columns}, unrecorded
        self._own: dict[str, Term] = {}  # of its entries
        self._placed: dict[str, Column] = {}  # those it reads or writes
        self._read: dict[tuple[str, tuple[int, ...]], Term] = {}
        self._code = Code()  # what is done for every shot
        wrong = {e.name: self._bind(e) for e in in_order(entries)[0]}
        self.problems = [line for e in entries for line in wrong[e.name]]
        self.wheres = dict(wheres or {})
        for k, (name, text) in enumerate(self.wheres.items()):
            term, said = translate(text, self._find, Kind.TRUTH, self._code)
            self._code.lines.append(f"truths[{k}, j] = {term.text}")
            self.problems += [str(Problem(("sums", name, "where"), line)) for line in said]

    def _bind(self, e: Entry) -> list[str]:
        """Write the lines that evaluate one expression and store it; what is wrong with it."""
        term, wrong = translate(e.expr, self._find, e.kind, self._code)
        self._own[e.name] = Term(e.kind, term.text)
        stored = [term.text]
        if e.kind is Kind.TRUTH:
            stored = [f"{term.text} == {YES}", f"{term.text} != {UNKNOWN}"]
        for c, value in zip(e.columns, stored, strict=True):
            self._code.lines.append(f"{self._at(c)} = {value}")
        return [str(Problem((e.section, e.name, "expr"), text)) for text in wrong]

    def _at(self, c: Column, row: str = "j") -> str:
        """Code for an element of a column; all of one type are seen in one view of the buffer."""
        self._placed.setdefault(c.name, c)
        return f"{_storage(c)}[a{[*self._placed].index(c.name)} + {row}]"

    def _find(self, name: str, at: At, many: bool) -> Term | str:
        """Code that gives a column's value, ``at`` a place in an array; or what is wrong."""
        own = self._own.get(entry_of(name, self._entries))
        if own is not None:
            if at or many:
                return f"{written(name)} is one value a shot and has no index"
            if name in self._own:
                return own
            return self._code.keep(Kind.TRUTH, f"0 if {own.text} == {UNKNOWN} else {YES}")
        if name in _REFUSED:
            return f"{written(name)} {_REFUSED[name]}"
        c = self._known.get(name)
        if c is None and name in self._unrecorded:
            return f"{written(name)} is an input, not a column; record it, or reduce it"
        if c is None and (of := [n for n in self._known if n.startswith(f"{name}/")]):
            return f"no column {written(name)}, but {written(of[0])}: paths are written with dots"
        if c is None:
            there = [written(n) for n in (*self._known, *self._own) if n not in _REFUSED]
            return f"no column {written(name)}; {nearest(written(name), there)}"
        if np.dtype(c.dtype).kind == "S":
            return f"{written(name)} is a text; only numbers can be combined"
        if many:
            return self._many(c, at)
        if len(at) != len(c.shape):
            if c.shape and not at:
                first = ", ".join("0" * len(c.shape))
                return f"{written(name)} is an array; name one element, as {written(name)}[{first}]"
            if not c.shape:
                return f"{written(name)} is one value a shot; it has no elements"
            return f"{written(name)} has {len(c.shape)} axes, not {len(at)}"
        index = tuple(k for k in at if isinstance(k, int))
        if any(k >= size for k, size in zip(index, c.shape, strict=True)):
            return f"{written(name)} has the shape {c.shape}; {list(index)} is not in it"
        if (name, index) not in self._read:
            self._read[name, index] = self._code.keep(*self._reading(c, index))
        return self._read[name, index]

    def _many(self, c: Column, at: At) -> Term | str:
        """Code for what is said over many values of an array, NaN where it is missing."""
        name = written(c.name)
        if not c.shape:
            return f"{name} is one value a shot; there is nothing to add up"
        if len(at) > len(c.shape):
            return f"{name} has {len(c.shape)} axes, not {len(at)}"
        place = (*at, *(Span(0, None) for _ in c.shape[len(at) :]))
        spans = [k if isinstance(k, Span) else Span(k, k + 1) for k in place]
        ends = [size if s.end is None else s.end for s, size in zip(spans, c.shape, strict=True)]
        if any(not s.begin < end <= n for s, end, n in zip(spans, ends, c.shape, strict=True)):
            told = ", ".join(f"{s.begin}:{end}" for s, end in zip(spans, ends, strict=True))
            return f"{name} has the shape {c.shape}; [{told}] is empty, or not all in it"
        if len(c.shape) > 3:
            return f"{name} has {len(c.shape)} axes; values of up to 3 are added up"
        steps = [int(np.prod(c.shape[k + 1 :], dtype=np.int64)) for k in range(len(c.shape))]
        begin = sum(s.begin * step for s, step in zip(spans, steps, strict=True))
        counts = [str(end - s.begin) for s, end in zip(spans, ends, strict=True)]
        if c.length in self._known:  # of a list there are so many entries as it says
            entries = f"np.int64({self._at(self._known[c.length])})"
            counts[0] = f"max(min({entries}, {ends[0]}) - {spans[0].begin}, 0)"
        pairs = [*[("1", 0)] * (3 - len(steps)), *zip(counts, steps, strict=True)]
        size = int(np.prod(c.shape, dtype=np.int64))
        first = self._at(c, f"j * {size} + {begin}")
        kind, _, element = first.partition("[")
        told = f"over({kind}, {element[:-1]}, {', '.join(f'{n}, {step}' for n, step in pairs)})"
        here = self._here(c)
        return self._code.keep(Kind.ANY, f"{told} if {here} else {NOTHING}" if here else told)

    def _here(self, c: Column) -> str:
        """Code that says whether a column holds, ``""`` where it always does, or says so itself."""
        flag = next((self._known[f] for f in c.flags if f in self._known and f != c.name), None)
        return f"{self._at(flag)} != 0" if flag else ""

    def _reading(self, c: Column, at: tuple[int, ...]) -> Term:
        """Code that reads a column's element and makes what is missing NaN or unknown."""
        size = int(np.prod(c.shape, dtype=np.int64))
        place = f"j * {size} + {np.ravel_multi_index(at, c.shape)}" if at else "j"
        value = self._at(c, place)
        if c.name in _LIGHTS:
            return Term(Kind.TRUTH, f"{UNKNOWN} if {value} < 0 else {YES} * {value}")
        here = self._here(c)
        if c.name == PULSE_ID.name:
            here = f"{value} != 0"
        if np.dtype(c.dtype).kind == "b":
            kind, text, missing = Kind.TRUTH, f"{YES} * {value}", f"{UNKNOWN}"
        else:
            kind, text, missing = Kind.NUMBER, f"np.float64({value})", "np.nan"
        return Term(kind, f"{text} if {here} else {missing}" if here else text)

    def _text(self) -> str:
        """Text of the loop over the shots of a batch."""
        kinds = sorted({_storage(c) for c in self._placed.values()})
        body = [f"{kind} = buffer.view(np.{kind})" for kind in kinds]
        body += [f"a{i} = table[{i}]" for i in range(len(self._placed))]
        body += ["for j in range(first, n):", "    words, timed = codes[j], given[j]"]
        body += [f"    {line}" for line in self._code.lines]
        head = "def combined(first, n, codes, given, truths, buffer, table):"
        return "\n".join([head, *(f"    {line}" for line in body), ""])

    @property
    def expressions(self) -> dict[str, str]:
        """Text of each of them by its name."""
        return {name: e.expr for name, e in self._entries.items()}

    @property
    def reads(self) -> tuple[Column, ...]:
        """Columns that they need, beside their own."""
        own = {c.name for c in self.columns}
        return tuple(c for n, c in self._placed.items() if n not in own)

    def compile(self, schema: Schema, block: FrameBlock) -> None:
        """Compile everything for batches of ``schema`` with the event codes of ``block``."""
        self.truths: NDArray[np.uint8] = np.zeros((len(self.wheres), block.capacity), np.uint8)
        if not (self._entries or self.wheres):
            return
        offsets = dict(zip(schema.by_name, schema.offsets(block.capacity), strict=False))
        sizes = [np.dtype(_storage(c)).itemsize for c in self._placed.values()]
        begins = [offsets[n] // size for n, size in zip(self._placed, sizes, strict=True)]
        self._given = (block.codes, block.timed, self.truths)
        self._table = np.array(begins, np.int64)
        example = (0, 0, *self._given, np.zeros(0, np.uint8), self._table)
        types = tuple(numba.typeof(a) for a in example)
        scope = {"over": kernel(over, exact=True)} if "over(" in self._text() else {}
        self._call = build(self._text(), scope, types, exact=True)

    def run(self, n: int, batch: Batch, first: int = 0) -> None:
        """Evaluate all of them for shots ``first`` to ``n``, whose other columns are filled in.

        Those that read what is not filled in yet are to be evaluated once more.
        """
        if self._entries or self.wheres:
            self._call(first, n, *self._given, batch.buffer, self._table)

    def origins(self) -> dict[str, dict[str, Any]]:
        """What provenance says of every expression, by its name."""
        return {
            e.name: {"use": e.section, "expr": e.expr, "inputs": sorted(names_in(e.expr))}
            for e in self._entries.values()
        }
