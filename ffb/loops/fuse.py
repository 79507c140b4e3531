"""Generate the loops that run many reducers in one compiled call.

There are two kinds. ``shots``, made here, runs all whole-shot reducers over the shots of a block,
one dispatch a batch; ``area`` (:mod:`ffb.loops.area`) calibrates an area detector tile by tile and
feeds each tile, while it is in the cache, to all its tile reducers and to the sums over shots, one
dispatch for a shot or for a few. Both write into the batch's buffer, whose layout they receive as
one table of integers (:mod:`ffb.loops.places`), so that neither new parameters nor new shapes
compile anything.

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
from ffb.reduce import Reducer, TileReducer
from ffb.schema import Column, Schema, present_of
from ffb.shot import FrameBlock

ABSENT, RUN, LEAVE = 0, 1, 2


def put(column: Any, begin: int, size: int, values: Any) -> None:
    """Copy the vector ``values`` into ``size`` elements of a flat ``column``."""
    out = column[begin : begin + size]
    for i in range(out.size):
        out[i] = values[i]


def fill(column: Any, begin: int, size: int, value: Any) -> None:
    """Set ``size`` elements of a flat ``column`` to one value."""
    out = column[begin : begin + size]
    for i in range(out.size):
        out[i] = value


def tools() -> dict[str, Any]:
    """Functions that generated text names."""
    return {"borrowed": borrowed, "put": kernel(put), "fill": kernel(fill)}


def plain(value: Any) -> Any:
    """Make plain tuples of NamedTuples, however deep.

    numba's dispatcher tells NamedTuples apart by the bare name of their class, so those of two
    reducers could be taken for one another; plain tuples are also quicker to tell.
    """
    return tuple(plain(v) for v in value) if isinstance(value, tuple) else value


def rebuilt(value: Any, text: str, name: str, scope: dict[str, Any]) -> str:
    """Write an expression that makes ``value`` of ``text``, which stands for its plain tuples.

    Its arrays are borrowed. Puts the classes it names into ``scope``.
    """
    if not isinstance(value, tuple):
        return f"borrowed({text})" if isinstance(value, np.ndarray) else text
    parts = [rebuilt(v, f"{text}[{i}]", f"{name}_{i}", scope) for i, v in enumerate(value)]
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


class Writer:
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


def indent(lines: Sequence[str], levels: int) -> list[str]:
    """Move lines of a text to the right."""
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
    writers = [Writer(m, tag, places) for tag, m in enumerate(members)]
    wanted = dict.fromkeys(i for m in members for i in m.inputs)
    taken = {i: _Taken(i, schema, block, places) for i in wanted}
    body = places.lines
    for w in writers:
        made = rebuilt(w.member.constants, f"constants[{w.tag}]", f"K{w.tag}", scope)
        kept = rebuilt(memories[w.tag], f"memories[{w.tag}]", f"M{w.tag}", scope)
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
            *indent(w.store(f"r{w.tag}"), 2),
            f"    elif active[{w.tag}] != {LEAVE}:",
            *indent(w.absent(), 2),
        ]
    head = "def shots(lo, hi, active, present, frames, constants, memories, buffer, table):"
    return "\n".join([head, *indent(body, 1), ""])


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
    scope = tools()
    for tag, m in enumerate(members):
        assert isinstance(m.reducer, Reducer)
        scope[f"kernel_{tag}"] = kernel(m.reducer.fn)
    source = _shots(members, memories, schema, block, places, scope)
    types = tuple(numba.typeof(a) for a in (*example, places.table))
    return build(source, scope, types), places.table


def compile_one(member: Member, frames: tuple[Any, ...]) -> Any:
    """Compile a whole-shot reducer alone, with bounds checks.

    The result is a function of frames, constants and memory, both as plain tuples.
    """
    assert isinstance(member.reducer, Reducer)
    scope = {"borrowed": borrowed, "kernel": kernel(member.reducer.fn, True)}
    memory = member.reducer.remembered(member.constants)
    tail = [] if member.reducer.params is None else [("constants", member.constants, "K")]
    tail += [("memory", memory, "M")] if memory else []
    rest = [rebuilt(value, name, letter, scope) for name, value, letter in tail]
    call = ", ".join([*(f"frames[{i}]" for i in range(len(frames))), *rest])
    source = f"def one(frames, constants, memory):\n    return kernel({call})\n"
    types = (frames, plain(member.constants), plain(memory))
    return build(source, scope, tuple(map(numba.typeof, types)), checked=True)
