"""Generate the loops that run many reducers in one compiled call.

Two kinds of function come from here. ``shots`` runs all whole-shot reducers over the shots of a
block, one dispatch a batch; ``area`` calibrates an area detector tile by tile and feeds each tile,
while it is in the cache, to all its tile reducers, one dispatch a shot. Both write into the
batch's buffer, whose layout they receive as one table of integers, so that neither new parameters
nor new shapes compile anything.

Every reducer has a switch in the argument ``active``: :data:`RUN`, :data:`LEAVE` its columns as
they are, or write them as :data:`ABSENT`. With it the same function also runs reducers singly,
after an exception.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from ffb.compile import build, kernel
from ffb.reduce import Calibration, Reducer, Tile, TileReducer
from ffb.schema import Column, Schema

ABSENT, RUN, LEAVE = 0, 1, 2

#: Integers of a column in the table: first byte, last byte, elements of a row.
HEAD = 3


def _put(column: Any, row: int, size: int, values: Any) -> None:
    """Copy ``values`` into ``row`` of a flat ``column`` with ``size`` elements a row."""
    out = column[row * size : (row + 1) * size]
    flat = values.ravel()
    for i in range(out.size):
        out[i] = flat[i]


def _fill(column: Any, row: int, size: int, value: Any) -> None:
    """Set ``row`` of a flat ``column`` to one value."""
    out = column[row * size : (row + 1) * size]
    for i in range(out.size):
        out[i] = value


class Member(NamedTuple):
    """A reducer at work: ``columns`` are its features in the order of the schema."""

    name: str
    reducer: Reducer[Any, Any] | TileReducer
    columns: tuple[Column, ...]
    constants: Any
    inputs: tuple[str, ...]

    @property
    def present(self) -> Column:
        """The column that says whether the reducer ran."""
        doc = f"whether {self.name} ran on this shot"
        return Column(f"{self.name}/present", "|b1", doc=doc, reducer=self.name)

    @property
    def all_columns(self) -> tuple[Column, ...]:
        """Its presence, then its features."""
        return (self.present, *self.columns)


def table_of(members: Sequence[Member], schema: Schema, capacity: int) -> NDArray[np.int64]:
    """Where the members' columns lie in a batch's buffer: the argument ``table``."""
    offsets = dict(zip(schema.by_name, schema.offsets(capacity), strict=False))
    out: list[int] = []
    for c in (c for m in members for c in m.all_columns):
        at = offsets[c.name]
        size = c.row_bytes // np.dtype(c.dtype).itemsize
        out += [at, at + capacity * c.row_bytes, size, *c.shape]
    return np.array(out, np.int64)


class _Writer:
    """Lines that write one member's columns; knows their places in the table."""

    def __init__(self, member: Member, tag: int, at: int) -> None:
        self.member, self.tag, self.at = member, tag, at
        self.places: list[tuple[Column, str, int]] = []
        for i, c in enumerate(member.all_columns):
            self.places.append((c, f"c{tag}_{i}", self.at))
            self.at += HEAD + len(c.shape)

    def views(self) -> list[str]:
        """Flat typed views of the columns, made once a call."""
        out = []
        for c, var, at in self.places:
            kind = np.dtype(c.dtype)
            dtype = "uint8" if kind.kind == "b" else kind.name
            out.append(f"{var} = buffer[table[{at}] : table[{at + 1}]].view(np.{dtype})")
        return out

    def store(self, result: str) -> list[str]:
        """Write the features of ``result`` to row ``j``; shapes were learnt at the dry run."""
        out = []
        for c, var, at in self.places[1:]:
            value = f"{result}.{c.name.rpartition('/')[2]}"
            if not c.shape:
                out.append(f"{var}[j] = {value}")
                continue
            now = [f"{value}.shape[{d}] != table[{at + HEAD + d}]" for d in range(len(c.shape))]
            out += [
                f"if {' or '.join(now)}:",
                f"    raise ValueError('{c.name} changed its shape during the run')",
                f"put({var}, j, table[{at + 2}], {value})",
            ]
        return [*out, f"{self.places[0][1]}[j] = 1"]

    def absent(self) -> list[str]:
        """Write row ``j`` as missing."""
        return [
            f"fill({var}, j, table[{at + 2}], {'np.nan' if c.dtype[1] == 'f' else 0})"
            for c, var, at in self.places
        ]


def _indent(lines: Sequence[str], levels: int) -> list[str]:
    return ["    " * levels + line for line in lines]


def _writers(members: Sequence[Member]) -> list[_Writer]:
    at, out = 0, []
    for tag, member in enumerate(members):
        out.append(_Writer(member, tag, at))
        at = out[-1].at
    return out


def shots_source(members: Sequence[Member], inputs: Sequence[str], bit: Mapping[str, int]) -> str:
    """Text of the loop over shots; ``bit`` is each input's column of ``present``."""
    writers = _writers(members)
    body = [line for w in writers for line in w.views()]
    body += [f"x{i} = frames[{i}]" for i in range(len(inputs))]
    body += [f"p{w.tag} = constants[{w.tag}]" for w in writers]
    body.append("for j in range(lo, hi):")
    for w in writers:
        m, r = w.member, w.member.reducer
        frames = [f"x{inputs.index(i)}[j]" for i in m.inputs]
        tail = [] if r.params is None else [f"p{w.tag}"]
        here = "".join(f" and present[j, {bit[i]}]" for i in m.inputs)
        body += [
            f"    if active[{w.tag}] == {RUN}{here}:",
            f"        r{w.tag} = kernel_{w.tag}({', '.join([*frames, *tail])})",
            *_indent(w.store(f"r{w.tag}"), 2),
            f"    elif active[{w.tag}] != {LEAVE}:",
            *_indent(w.absent(), 2),
        ]
    head = "def shots(lo, hi, active, present, frames, constants, buffer, table):"
    return "\n".join([head, *_indent(body, 1), ""])


def area_source(members: Sequence[Member]) -> str:
    """Text of the pass over one shot's raw pixels."""
    writers = _writers(members)
    body = [line for w in writers for line in w.views()]
    body += [f"k{w.tag}, s{w.tag} = constants[{w.tag}], states[{w.tag}]" for w in writers]
    for w in writers:
        body += [f"if active[{w.tag}] == {RUN}:", f"    start_{w.tag}(k{w.tag}, s{w.tag})"]
    body += [
        "columns = values.size",
        "for s in range(len(raw)):",
        "    segment = raw[s]",
        "    if segment.size != rows * columns:",
        "        raise ValueError('a segment has not the size the run declared')",
        "    for r in range(rows):",
        "        row = segment[r * columns : (r + 1) * columns]",
        "        number = s * rows + r",
        "        first = number * columns",
        "        bad = calibrate(row, first, calibration, values)",
        "        tile = Tile(values, valid[first : first + columns], bad, number, first)",
    ]
    for w in writers:
        body += [
            f"        if active[{w.tag}] == {RUN}:",
            f"            accumulate_{w.tag}(tile, k{w.tag}, s{w.tag})",
        ]
    for w in writers:
        body += [
            f"if active[{w.tag}] == {RUN}:",
            f"    r{w.tag} = finish_{w.tag}(k{w.tag}, s{w.tag})",
            *_indent(w.store(f"r{w.tag}"), 1),
            f"elif active[{w.tag}] == {ABSENT}:",
            *_indent(w.absent(), 1),
        ]
    head = (
        "def area(raw, rows, calibration, valid, values, active, constants, states, j, buffer,"
        " table):"
    )
    return "\n".join([head, *_indent(body, 1), ""])


def _scope(checked: bool) -> dict[str, Any]:
    return {"put": kernel(_put, checked), "fill": kernel(_fill, checked)}


def compile_shots(
    members: Sequence[Member],
    inputs: Sequence[str],
    bit: Mapping[str, int],
    example: tuple[Any, ...],
    *,
    checked: bool = False,
) -> Any:
    """Compile the loop over shots for arguments of the types of ``example``."""
    scope = _scope(checked)
    for tag, m in enumerate(members):
        assert isinstance(m.reducer, Reducer)
        scope[f"kernel_{tag}"] = kernel(m.reducer.fn, checked)
    types = tuple(numba.typeof(a) for a in example)
    return build(shots_source(members, inputs, bit), scope, types, checked=checked)


def compile_area(
    members: Sequence[Member],
    calibration: Calibration,
    segments: int,
    example: tuple[Any, ...],
    *,
    checked: bool = False,
) -> Any:
    """Compile the pass over an area detector; ``example`` are the arguments after ``raw``.

    Raw segments are declared read-only and unaligned, as a source may hand them over, so that no
    flavour of them compiles anything later.
    """
    scope = {**_scope(checked), "Tile": Tile, "calibrate": calibration.tile}
    for tag, m in enumerate(members):
        assert isinstance(m.reducer, TileReducer)
        for f in ("start", "accumulate", "finish"):
            scope[f"{f}_{tag}"] = kernel(m.reducer.functions[f], checked)
    pixel = numba.from_dtype(np.dtype(calibration.dtype))
    raw = numba.types.Array(pixel, 1, "C", readonly=True, aligned=False)
    types = (numba.types.UniTuple(raw, segments), *(numba.typeof(a) for a in example))
    return build(area_source(members), scope, types, checked=checked)


def compile_one(member: Member, frames: tuple[Any, ...]) -> Any:
    """Compile a whole-shot reducer alone with bounds checks: frames, constants -> features."""
    assert isinstance(member.reducer, Reducer)
    tail = [] if member.reducer.params is None else ["constants"]
    call = ", ".join([*(f"frames[{i}]" for i in range(len(frames))), *tail])
    source = f"def one(frames, constants):\n    return kernel({call})\n"
    types = (numba.typeof(frames), numba.typeof(member.constants))
    return build(source, {"kernel": kernel(member.reducer.fn, True)}, types, checked=True)
