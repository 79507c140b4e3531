"""Generate the loops that run many reducers in one compiled call.

Two kinds of function come from here. ``shots`` runs all whole-shot reducers over the shots of a
block, one dispatch a batch; ``area`` calibrates an area detector tile by tile and feeds each tile,
while it is in the cache, to all its tile reducers and to the sums over shots, one dispatch for a
shot or for a few: each row is then done for all of them, so that constants and sums cross memory
once. Both write into the batch's buffer, whose layout they receive as one table of integers
(:mod:`ffb.loops.places`), so that neither new parameters nor new shapes compile anything.

Every reducer has a switch in the argument ``active``: :data:`RUN`, :data:`LEAVE` its columns as
they are, or write them as :data:`ABSENT`. With it the same function also runs reducers singly,
after an exception.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from ffb.loops.compile import borrowed, build, kernel
from ffb.loops.places import Places
from ffb.reduce import Calibration, Reducer, Tile, TileReducer
from ffb.schema import Column, Schema, present_of
from ffb.shot import FrameBlock
from ffb.sums.kernels import count_missed, kernel_of
from ffb.sums.words import What

ABSENT, RUN, LEAVE = 0, 1, 2


def _put(column: Any, begin: int, size: int, values: Any) -> None:
    """Copy the vector ``values`` into ``size`` elements of a flat ``column``."""
    out = column[begin : begin + size]
    for i in range(out.size):
        out[i] = values[i]


def _fill(column: Any, begin: int, size: int, value: Any) -> None:
    """Set ``size`` elements of a flat ``column`` to one value."""
    out = column[begin : begin + size]
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
        return Column(present_of(self.name), "|b1", doc=doc, reducer=self.name)

    @property
    def all_columns(self) -> tuple[Column, ...]:
        """Its presence, then its features."""
        return (self.present, *self.columns)


class _Writer:
    """Lines that write one member's columns."""

    def __init__(self, member: Member, tag: int, places: Places) -> None:
        self.member, self.tag = member, tag
        self.columns = [(c, places.column(c)) for c in member.all_columns]

    def store(self, result: str) -> list[str]:
        """Write the features of ``result`` to row ``j``; shapes were learnt at the dry run."""
        out = []
        for c, p in self.columns[1:]:
            value = f"{result}.{c.feature}"
            if not c.shape:
                out.append(f"{p.row} = {value}")
                continue
            now = [f"{value}.shape[{d}] != {size}" for d, size in enumerate(p.sizes)]
            flat = f"{value}.ravel()" if len(c.shape) > 1 else value
            out += [
                f"if {' or '.join(now)}:",
                f"    raise ValueError('{c.name} changed its shape during the run')",
                f"put({p.view}, {p.begin}, {p.size}, {flat})",
            ]
        return [*out, f"{self.columns[0][1].row} = 1"]

    def absent(self) -> list[str]:
        """Write row ``j`` as missing."""
        out = []
        for c, p in self.columns:
            value = "np.nan" if c.dtype[1] == "f" else "0"
            fill = f"fill({p.view}, {p.begin}, {p.size}, {value})"
            out.append(fill if c.shape else f"{p.row} = {value}")
        return out


class _Taken:
    """Text of what a member takes of shot ``j``, and of the condition under which it is there.

    Columns are those which ffb, or a reducer before, has filled in the same batch.
    """

    def __init__(self, name: str, schema: Schema, block: FrameBlock, places: Places) -> None:
        if name in block.index:
            self.row = places.frame(name, block).row
            self.here = f" and present[j, {block.index[name]}]"
            return
        column = schema.by_name[name]
        self.row, self.here = places.column(column).row, ""
        if column.reducer:
            present = places.column(schema.by_name[present_of(column.reducer)])
            self.here = f" and {present.row} != 0"


def _indent(lines: Sequence[str], levels: int) -> list[str]:
    return ["    " * levels + line for line in lines]


def _shots(
    members: Sequence[Member],
    memories: Sequence[Any],
    schema: Schema,
    block: FrameBlock,
    places: Places,
    scope: dict[str, Any],
) -> str:
    """Text of the loop over shots."""
    writers = [_Writer(m, tag, places) for tag, m in enumerate(members)]
    wanted = dict.fromkeys(i for m in members for i in m.inputs)
    taken = {i: _Taken(i, schema, block, places) for i in wanted}
    body = places.lines
    for w in writers:
        made = _rebuilt(w.member.constants, f"constants[{w.tag}]", f"K{w.tag}", scope)
        kept = _rebuilt(memories[w.tag], f"memories[{w.tag}]", f"M{w.tag}", scope)
        body += [f"p{w.tag} = {made}", f"m{w.tag} = {kept}"]
    body.append("for j in range(lo, hi):")
    for w in writers:
        m, r = w.member, w.member.reducer
        tail = [] if r.params is None else [f"p{w.tag}"]
        tail += [f"m{w.tag}"] if memories[w.tag] else []
        call = ", ".join([*(taken[i].row for i in m.inputs), *tail])
        body += [
            f"    if active[{w.tag}] == {RUN}{''.join(taken[i].here for i in m.inputs)}:",
            f"        r{w.tag} = kernel_{w.tag}({call})",
            *_indent(w.store(f"r{w.tag}"), 2),
            f"    elif active[{w.tag}] != {LEAVE}:",
            *_indent(w.absent(), 2),
        ]
    head = "def shots(lo, hi, active, present, frames, constants, memories, buffer, table):"
    return "\n".join([head, *_indent(body, 1), ""])


#: Rows are calibrated one by one, or the rows of a block together before any is reduced.
_ROW_BY_ROW = """\
for r in range(rows):
    number = s * rows + r
    first = number * columns
    {shot}
    words = segment[r * columns : (r + 1) * columns]
    bad = calibrate(words, first, planes, lines)
    tile = Tile(lines, good[first : first + columns], bad, number, first)
"""
_BLOCK_BY_BLOCK = """\
for r in range(0, rows, bads.size):
    {shot}
    block = segment[r * columns : (r + bads.size) * columns]
    calibrate(block, (s * rows + r) * columns, planes, lines, bads)
    for at in range(bads.size):
        number = s * rows + r + at
        first = number * columns
        line = lines[at * columns : (at + 1) * columns]
        words = block[at * columns : (at + 1) * columns]
        tile = Tile(line, good[first : first + columns], bads[at], number, first)
"""


def _sums(
    added: Sequence[tuple[What, ...]], shot: str, scope: dict[str, Any]
) -> tuple[list[str], list[str]]:
    """Lines before the loop over tiles, and for each tile, that add it to sums.

    ``sums`` has for each sum the arrays of what is ``added``, its missed pixels and its levels.
    ``done`` counts the tiles of each ``shot`` that are added: a pass that runs again after an
    exception adds none twice.
    """
    if not added:
        return [], []
    before, each = [], list[str]()
    for n, whats in enumerate(added):
        before.append(f"levels{n} = borrowed(sums[{n}][{len(whats) + 1}])")
        for k, what in enumerate(whats):
            scope[f"add_{n}_{k}"] = kernel(kernel_of(what))
            before.append(f"t{n}_{k} = borrowed(sums[{n}][{k}])")
            row = "words" if what.of == "raw" else "tile.values"
            into = f"t{n}_{k}[first : first + columns]"
            each.append(f"    add_{n}_{k}({row}, levels{n}[{k}], {into})")
        before.append(f"missed{n} = borrowed(sums[{n}][{len(whats)}])")
        into = f"missed{n}[first : first + columns]"
        each += ["    if tile.bad:", f"        count_missed(tile.values, {into})"]
    scope["count_missed"] = kernel(count_missed)
    return before, [f"if number >= done[{shot}]:", *each, f"    done[{shot}] = number + 1"]


def _area(
    members: Sequence[Member],
    calibration: Calibration,
    states: Sequence[Any],
    added: Sequence[tuple[What, ...]],
    together: int,
    places: Places,
    scope: dict[str, Any],
) -> str:
    """Text of the pass over the raw pixels of up to ``together`` shots.

    With more than one, arrays of states have a first axis for them.
    """
    writers = [_Writer(m, tag, places) for tag, m in enumerate(members)]
    body = [
        *places.lines,
        f"planes = {_rebuilt(calibration.constants, 'calibration', 'Planes', scope)}",
        "good, lines, bads = borrowed(valid), borrowed(values), borrowed(spoilt)",
        "columns = values.size // max(spoilt.size, 1)",
        f"segments = len(raw) // {together}",
    ]
    own = []
    for w in writers:
        k, s, name = w.member.constants, states[w.tag], f"S{w.tag}"
        body += [f"k{w.tag} = {_rebuilt(k, f'constants[{w.tag}]', f'K{w.tag}', scope)}"]
        made = _rebuilt(s, f"states[{w.tag}]", name, scope)
        if together > 1:
            body += [f"t{w.tag} = {_rebuilt(plain(s), f'states[{w.tag}]', name, scope)}"]
            made = _of_shot(s, f"t{w.tag}", name)
        own.append(f"s{w.tag} = {made}")
    each = ["for k in range(shots):", *_indent(own, 1)] if together > 1 else own
    inner = int(together > 1)
    body += each
    for w in writers:
        begin = [f"if active[{w.tag}] == {RUN}:", f"    start_{w.tag}(k{w.tag}, s{w.tag})"]
        body += _indent(begin, inner)
    before, sums = _sums(added, "k" if together > 1 else "0", scope)
    body += [
        *before,
        "for k in range(shots):",
        "    for s in range(segments):",
        "        if raw[k * segments + s].size != rows * columns:",
        "            raise ValueError('a segment has not the size the run declared')",
        "for s in range(segments):",
    ]
    loops = (_BLOCK_BY_BLOCK if calibration.height else _ROW_BY_ROW).splitlines()
    at = next(i for i, line in enumerate(loops) if line.endswith("{shot}"))
    level = 2 + (calibration.height > 0) + inner
    if together > 1:
        shot = [*each, "    segment = borrowed(raw[k * segments + s])"]
        loops = [*loops[:at], *_indent(shot, 1), *_indent(loops[at + 1 :], 1)]
    else:
        loops = ["segment = borrowed(raw[s])", *loops[:at], *loops[at + 1 :]]
    body += _indent(loops, 1)
    for w in writers:
        call = f"    accumulate_{w.tag}(tile, k{w.tag}, s{w.tag})"
        body += _indent([f"if active[{w.tag}] == {RUN}:", call], level)
    body += _indent(sums, level)
    body += [*each, "    j = where[k]"] if together > 1 else ["j = where[0]"]
    for w in writers:
        end = [
            f"if active[{w.tag}] == {RUN}:",
            f"    r{w.tag} = finish_{w.tag}(k{w.tag}, s{w.tag})",
            *_indent(w.store(f"r{w.tag}"), 1),
            f"elif active[{w.tag}] == {ABSENT}:",
            *_indent(w.absent(), 1),
        ]
        body += _indent(end, inner)
    head = (
        "def area(raw, rows, calibration, valid, values, spoilt, active, constants, states, sums,"
        " done, shots, where, buffer, table):"
    )
    return "\n".join([head, *_indent(body, 1), ""])


def _of_shot(value: Any, text: str, name: str) -> str:
    """Write an expression for shot ``k`` of ``value``, whose arrays have an axis for shots."""
    if not isinstance(value, tuple):
        return f"{text}[k]" if isinstance(value, np.ndarray) else text
    parts = [_of_shot(v, f"{text}[{i}]", f"{name}_{i}") for i, v in enumerate(value)]
    made = "".join(f"{p}, " for p in parts)
    return f"{name}({made})" if hasattr(value, "_fields") else f"({made})"


def several(value: Any, shots: int) -> Any:
    """State for several shots: arrays with a first axis for them; memory is touched as for one."""
    if isinstance(value, tuple):
        parts = [several(v, shots) for v in value]
        return value._make(parts) if hasattr(value, "_make") else tuple(parts)
    if not isinstance(value, np.ndarray):
        return value
    out = np.zeros((shots, *value.shape), value.dtype)
    if value.any():
        out[:] = value
    return out


def compile_shots(
    members: Sequence[Member],
    memories: Sequence[Any],
    schema: Schema,
    block: FrameBlock,
    example: tuple[Any, ...],
) -> tuple[Any, NDArray[np.int64]]:
    """Compile the loop over shots, and make its argument ``table``.

    ``example`` are the arguments before it, which tell their types.
    """
    places = Places(schema, block.capacity)
    scope = {"borrowed": borrowed, "put": kernel(_put), "fill": kernel(_fill)}
    for tag, m in enumerate(members):
        assert isinstance(m.reducer, Reducer)
        scope[f"kernel_{tag}"] = kernel(m.reducer.fn)
    source = _shots(members, memories, schema, block, places, scope)
    types = tuple(numba.typeof(a) for a in (*example, places.table))
    return build(source, scope, types), places.table


def compile_area(
    members: Sequence[Member],
    states: Sequence[Any],
    added: Sequence[tuple[What, ...]],
    calibration: Calibration,
    segments: int,
    together: int,
    places: Places,
    example: tuple[Any, ...],
) -> tuple[Any, NDArray[np.int64]]:
    """Compile the pass over an area detector, and make its argument ``table``.

    It takes the segments of ``together`` shots, one shot after the other; with more than one the
    ``states`` are those of :func:`several`.

    ``example`` are the arguments between ``raw`` and the table, which stands in ``places``.
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
    source = _area(members, calibration, states, added, together, places, scope)
    rest = (numba.typeof(a) for a in (*example, places.table))
    return build(
        source, scope, (numba.types.UniTuple(raw, segments * together), *rest)
    ), places.table


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
