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

from ffb.compile import borrowed, build, kernel
from ffb.reduce import Calibration, Reducer, Tile, TileReducer
from ffb.schema import Column, Schema

ABSENT, RUN, LEAVE = 0, 1, 2

#: Integers of a column in the table: first byte, last byte, elements of a row.
HEAD = 3


def _put(column: Any, row: int, size: int, values: Any) -> None:
    """Copy the vector ``values`` into ``row`` of a flat ``column`` with ``size`` elements a row."""
    out = column[row * size : (row + 1) * size]
    for i in range(out.size):
        out[i] = values[i]


def _fill(column: Any, row: int, size: int, value: Any) -> None:
    """Set ``row`` of a flat ``column`` to one value."""
    out = column[row * size : (row + 1) * size]
    for i in range(out.size):
        out[i] = value


def plain(value: Any) -> Any:
    """Make plain tuples of NamedTuples, however deep.

    numba's dispatcher tells NamedTuples apart by the bare name of their class, so those of two
    reducers could be taken for one another; plain tuples are also quicker to tell.
    """
    return tuple(plain(v) for v in value) if isinstance(value, tuple) else value


def _rebuilt(value: Any, text: str, name: str, scope: dict[str, Any]) -> str:
    """Write an expression that makes ``value`` of ``text``, which stands for its plain tuples.

    Its arrays are borrowed. Puts the classes it names into ``scope``.
    """
    if not isinstance(value, tuple):
        return f"borrowed({text})" if isinstance(value, np.ndarray) else text
    parts = [_rebuilt(v, f"{text}[{i}]", f"{name}_{i}", scope) for i, v in enumerate(value)]
    if not hasattr(value, "_fields"):
        return f"({''.join(f'{p}, ' for p in parts)})"
    scope[name] = type(value)
    return f"{name}({', '.join(parts)})"


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
                f"put({var}, j, table[{at + 2}], {value}{'.ravel()' if len(c.shape) > 1 else ''})",
            ]
        return [*out, f"{self.places[0][1]}[j] = 1"]

    def absent(self) -> list[str]:
        """Write row ``j`` as missing."""
        out = []
        for c, var, at in self.places:
            value = "np.nan" if c.dtype[1] == "f" else "0"
            fill = f"fill({var}, j, table[{at + 2}], {value})"
            out.append(fill if c.shape else f"{var}[j] = {value}")
        return out


class _Taken:
    """Lines that read columns which ffb, or a reducer before, has filled in the same batch."""

    def __init__(self, columns: Sequence[Column], at: int) -> None:
        self.names = [c.name for c in columns]
        self.lines: list[str] = []
        for i, c in enumerate(columns):
            kind = np.dtype(c.dtype)
            dtype = "uint8" if kind.kind == "b" else kind.name
            self.lines.append(f"t{i} = buffer[table[{at}] : table[{at + 1}]].view(np.{dtype})")
            if c.shape:
                sizes = [f"t{i}.size // table[{at + 2}]"]
                sizes += [f"table[{at + HEAD + d}]" for d in range(len(c.shape))]
                self.lines.append(f"t{i} = t{i}.reshape(({', '.join(sizes)}))")
            at += HEAD + len(c.shape)
            if c.reducer:
                self.lines.append(f"h{i} = buffer[table[{at}] : table[{at + 1}]]")
                at += HEAD
        self._guarded = {c.name for c in columns if c.reducer}

    def frame(self, name: str) -> str:
        """Expression of a column's row ``j``."""
        return f"t{self.names.index(name)}[j]"

    def here(self, name: str) -> str:
        """Condition under which the row has a value."""
        return f" and h{self.names.index(name)}[j] != 0" if name in self._guarded else ""


def places_of(columns: Sequence[Column], schema: Schema, capacity: int) -> NDArray[np.int64]:
    """Where columns taken as inputs lie in a batch's buffer, each with that of its presence."""
    offsets = dict(zip(schema.by_name, schema.offsets(capacity), strict=False))
    out: list[int] = []
    for c in columns:
        owner = [schema.by_name[f"{c.reducer}/present"]] if c.reducer else []
        for k in (c, *owner):
            at, size = offsets[k.name], k.row_bytes // np.dtype(k.dtype).itemsize
            out += [at, at + capacity * k.row_bytes, size, *k.shape]
    return np.array(out, np.int64)


def _indent(lines: Sequence[str], levels: int) -> list[str]:
    return ["    " * levels + line for line in lines]


def _writers(members: Sequence[Member]) -> list[_Writer]:
    at, out = 0, []
    for tag, member in enumerate(members):
        out.append(_Writer(member, tag, at))
        at = out[-1].at
    return out


def _shots(
    members: Sequence[Member],
    inputs: Sequence[str],
    bit: Mapping[str, int],
    columns: Sequence[Column],
    memories: Sequence[Any],
    scope: dict[str, Any],
) -> str:
    """Text of the loop over shots; ``bit`` is each input's column of ``present``."""
    writers = _writers(members)
    taken = _Taken(columns, writers[-1].at)
    body = [line for w in writers for line in w.views()]
    body += [*taken.lines, *(f"x{i} = frames[{i}]" for i in range(len(inputs)))]
    for w in writers:
        made = _rebuilt(w.member.constants, f"constants[{w.tag}]", f"K{w.tag}", scope)
        kept = _rebuilt(memories[w.tag], f"memories[{w.tag}]", f"M{w.tag}", scope)
        body += [f"p{w.tag} = {made}", f"m{w.tag} = {kept}"]
    body.append("for j in range(lo, hi):")
    for w in writers:
        m, r = w.member, w.member.reducer
        frames = [f"x{inputs.index(i)}[j]" if i in bit else taken.frame(i) for i in m.inputs]
        tail = [] if r.params is None else [f"p{w.tag}"]
        tail += [f"m{w.tag}"] if memories[w.tag] else []
        here = "".join(
            f" and present[j, {bit[i]}]" if i in bit else taken.here(i) for i in m.inputs
        )
        body += [
            f"    if active[{w.tag}] == {RUN}{here}:",
            f"        r{w.tag} = kernel_{w.tag}({', '.join([*frames, *tail])})",
            *_indent(w.store(f"r{w.tag}"), 2),
            f"    elif active[{w.tag}] != {LEAVE}:",
            *_indent(w.absent(), 2),
        ]
    head = "def shots(lo, hi, active, present, frames, constants, memories, buffer, table):"
    return "\n".join([head, *_indent(body, 1), ""])


#: Rows are calibrated one by one, or the rows of a block together before any is reduced.
_ROW_BY_ROW = """\
for r in range(rows):
    row = segment[r * columns : (r + 1) * columns]
    number = s * rows + r
    first = number * columns
    bad = calibrate(row, first, planes, lines)
    tile = Tile(lines, good[first : first + columns], bad, number, first)
"""
_BLOCK_BY_BLOCK = """\
for r in range(rows):
    number = s * rows + r
    first = number * columns
    at = r % bads.size
    if at == 0:
        block = segment[r * columns : (r + bads.size) * columns]
        calibrate(block, first, planes, lines, bads)
    line = lines[at * columns : (at + 1) * columns]
    tile = Tile(line, good[first : first + columns], bads[at], number, first)
"""


def _area(
    members: Sequence[Member],
    calibration: Calibration,
    states: Sequence[Any],
    scope: dict[str, Any],
) -> str:
    """Text of the pass over one shot's raw pixels."""
    writers = _writers(members)
    body = [line for w in writers for line in w.views()]
    body += [
        f"planes = {_rebuilt(calibration.constants, 'calibration', 'Planes', scope)}",
        "good, lines, bads = borrowed(valid), borrowed(values), borrowed(spoilt)",
    ]
    for w in writers:
        k, s = w.member.constants, states[w.tag]
        body += [
            f"k{w.tag} = {_rebuilt(k, f'constants[{w.tag}]', f'K{w.tag}', scope)}",
            f"s{w.tag} = {_rebuilt(s, f'states[{w.tag}]', f'S{w.tag}', scope)}",
        ]
    for w in writers:
        body += [f"if active[{w.tag}] == {RUN}:", f"    start_{w.tag}(k{w.tag}, s{w.tag})"]
    body += [
        "columns = values.size // max(spoilt.size, 1)",
        "for s in range(len(raw)):",
        "    segment = borrowed(raw[s])",
        "    if segment.size != rows * columns:",
        "        raise ValueError('a segment has not the size the run declared')",
        *_indent((_BLOCK_BY_BLOCK if calibration.height else _ROW_BY_ROW).splitlines(), 1),
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
        "def area(raw, rows, calibration, valid, values, spoilt, active, constants, states, j,"
        " buffer, table):"
    )
    return "\n".join([head, *_indent(body, 1), ""])


def compile_shots(
    members: Sequence[Member],
    inputs: Sequence[str],
    bit: Mapping[str, int],
    columns: Sequence[Column],
    memories: Sequence[Any],
    example: tuple[Any, ...],
) -> Any:
    """Compile the loop over shots for arguments of the types of ``example``.

    ``inputs`` are those of the block, in the order of the frames; ``columns`` are the others that
    reducers take, which stand in the batch.
    """
    scope = {"borrowed": borrowed, "put": kernel(_put), "fill": kernel(_fill)}
    for tag, m in enumerate(members):
        assert isinstance(m.reducer, Reducer)
        scope[f"kernel_{tag}"] = kernel(m.reducer.fn)
    types = tuple(numba.typeof(a) for a in example)
    return build(_shots(members, inputs, bit, columns, memories, scope), scope, types)


def compile_area(
    members: Sequence[Member],
    states: Sequence[Any],
    calibration: Calibration,
    segments: int,
    example: tuple[Any, ...],
) -> Any:
    """Compile the pass over an area detector; ``example`` are the arguments after ``raw``.

    Raw segments are declared read-only and unaligned, as a source may hand them over, so that no
    flavour of them compiles anything later.
    """
    scope = {"borrowed": borrowed, "put": kernel(_put), "fill": kernel(_fill)}
    scope |= {"Tile": Tile, "calibrate": calibration.tile}
    for tag, m in enumerate(members):
        assert isinstance(m.reducer, TileReducer)
        for f in ("start", "accumulate", "finish"):
            scope[f"{f}_{tag}"] = kernel(m.reducer.functions[f])
    pixel = numba.from_dtype(np.dtype(calibration.dtype))
    raw = numba.types.Array(pixel, 1, "C", readonly=True, aligned=False)
    types = (numba.types.UniTuple(raw, segments), *(numba.typeof(a) for a in example))
    source = _area(members, calibration, states, scope)
    return build(source, scope, types)


def compile_one(member: Member, frames: tuple[Any, ...]) -> Any:
    """Compile a whole-shot reducer alone, with bounds checks.

    The result is a function of frames, constants and memory, both as plain tuples.
    """
    assert isinstance(member.reducer, Reducer)
    scope = {"borrowed": borrowed, "kernel": kernel(member.reducer.fn, True)}
    memory = member.reducer.remembered(member.constants)
    tail = [] if member.reducer.params is None else [("constants", member.constants, "K")]
    tail += [("memory", memory, "M")] if memory else []
    rest = [_rebuilt(value, name, letter, scope) for name, value, letter in tail]
    call = ", ".join([*(f"frames[{i}]" for i in range(len(frames))), *rest])
    source = f"def one(frames, constants, memory):\n    return kernel({call})\n"
    types = (frames, plain(member.constants), plain(memory))
    return build(source, scope, tuple(map(numba.typeof, types)), checked=True)
