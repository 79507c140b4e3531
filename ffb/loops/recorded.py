"""Inputs stored as columns, and what became of every detector: one compiled pass over a batch.

The pass knows no names, only tables of places, so that it is compiled once for all runs, and costs
a copy of the bytes, however many columns there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from inspect import signature
from typing import Any, NamedTuple, cast

import numpy as np
from numba import types
from numpy.typing import NDArray

from ffb.loops.compile import build, kernel
from ffb.schema import VALID, Column, Schema
from ffb.shot import FrameBlock, Input

#: States of a detector in a shot.
MISSING, DAMAGED, GOOD = 0, 1, 2

#: Bits of a damage word that say something is wrong; those above are the detector's own.
DAMAGE_BITS = 0x0FFF

# Columns of the table of inputs: where row 0 lies in the block, its bytes, where it goes in the
# batch, its number in the block, where its flag goes (-1: none), bytes of an element and their
# value where it is missing.
_FROM, _SIZE, _TO, _INDEX, _FLAG, _ITEM, _BLANK = range(7)
# Of the table of detectors: the numbers of its inputs from, to; where state and flag go.
_FIRST, _END, _STATE, _GOOD = range(4)


@kernel
def _record(
    lo: Any, n: Any, inputs: Any, detectors: Any, members: Any, frames: Any, present: Any,
    damage: Any, buffer: Any,
) -> None:  # fmt: skip
    """Copy rows ``lo`` to ``n`` of every input, and say what became of every detector."""
    for k in range(inputs.shape[0]):
        size, to, index = inputs[k, _SIZE], inputs[k, _TO], inputs[k, _INDEX]
        begin = inputs[k, _FROM]
        taken = frames[begin + lo * size : begin + n * size]
        copy = buffer[to + lo * size : to + n * size]
        for b in range(copy.size):  # numba takes two seconds to compile the error of `copy[:] =`
            copy[b] = taken[b]
        flag, item, blank = inputs[k, _FLAG], inputs[k, _ITEM], inputs[k, _BLANK]
        for j in range(lo, n):
            here = present[j, index]
            if flag >= 0:
                buffer[flag + j] = here
            if not here:
                for b in range(size):
                    buffer[to + j * size + b] = np.uint8(blank >> 8 * (b % item) & 0xFF)
    for k in range(detectors.shape[0]):
        for j in range(lo, n):
            here, harm = False, 0
            for m in range(detectors[k, _FIRST], detectors[k, _END]):
                here |= present[j, members[m]]
                harm |= damage[j, members[m]] & DAMAGE_BITS
            state = MISSING if not here else DAMAGED if harm else GOOD
            buffer[detectors[k, _STATE] + j] = state
            buffer[detectors[k, _GOOD] + j] = state == GOOD


@cache
def compiled() -> Callable[..., None]:
    """Compile the pass, once."""
    octets, ints, table = types.uint8[::1], types.int64[::1], types.int64[:, ::1]
    arguments = (
        types.int64, types.int64, table, table, ints, octets, types.boolean[:, ::1],
        types.uint16[:, ::1], octets,
    )  # fmt: skip
    names = ", ".join(signature(getattr(_record, "py_func", _record)).parameters)
    source = f"def recorded({names}):\n    go({names})\n"
    return cast(Callable[..., None], build(source, {"go": _record}, arguments))


class Recorded(NamedTuple):
    """An input that is stored; with ``unpack`` the bits of its words, each as a number."""

    name: str
    input: Input
    unpack: bool = False

    @property
    def problem(self) -> str:
        """Why it cannot be recorded so; ``""`` where it can."""
        if self.input.kind == "area":
            return "an area detector is not recorded whole"
        words = np.dtype(self.input.dtype).kind in "iu" and self.input.shape
        return "only arrays of whole numbers are unpacked" if self.unpack and not words else ""

    @property
    def columns(self) -> tuple[Column, ...]:
        """Its column, and the one that says where it is, beside whole numbers."""
        _, dtype, shape, unit, doc, length, *_ = self.input
        dims = ("row", "col") if len(shape) == 2 else ("entry" if length else "sample",)
        kind = np.dtype(dtype).newbyteorder("<")
        if self.unpack:
            shape, dims, kind = (*shape[:-1], 8 * kind.itemsize * shape[-1]), ("bit",), _OCTET
        count = length if shape else ""  # of a text too, which is no list
        column = Column(self.name, kind.str, shape, dims[: len(shape)], unit, doc, length=count)
        if kind.kind == "f":
            return (column,)
        return column, Column(f"{self.name}{VALID}", "|b1", doc=f"whether the shot had {self.name}")


_OCTET = np.dtype(np.uint8)


def with_count(name: str, inputs: Mapping[str, Input], unpack: bool) -> Iterator[Recorded]:
    """Yield an input that is stored, and the one that counts the entries of a list, or of a text.

    That tells by itself where entries were cut off: there are more than there is room for.
    """
    stored = inputs[name]
    yield Recorded(name, stored, unpack)
    if stored.length:
        what, room = "entries", stored.shape[0] if stored.shape else 0
        if not room:
            what, room = "bytes", np.dtype(stored.dtype).itemsize
        doc = f"{what} of {name}; what is beyond {room} was cut off"
        yield Recorded(stored.length, inputs[stored.length]._replace(doc=doc))


def damage_columns(detectors: Sequence[str]) -> list[Column]:
    """What is recorded of every one of ``detectors``."""
    out = []
    for d in detectors:
        good = f"1 where {d} is there and undamaged, 0 where it is missing or damaged"
        state = f"{MISSING} where {d} is missing, {DAMAGED} damaged, {GOOD} good"
        out += [
            Column(f"damage/{d}", "|i1", doc=good),
            Column(f"damage/{d}_state", "|i1", doc=state),
        ]
    return out


class Recorder:
    """Stores inputs of a block in batches of a schema, and the states of ``detectors``.

    ``detectors`` gives the inputs of each. One is there where any of its inputs is, and damaged
    where any of those is marked so.
    """

    def __init__(
        self,
        schema: Schema,
        block: FrameBlock,
        recorded: Sequence[Recorded],
        detectors: Mapping[str, Sequence[str]],
    ) -> None:
        self._call, self._block, self._capacity = compiled(), block, block.capacity
        places = dict(zip(schema.by_name, schema.offsets(block.capacity), strict=False))
        self._unpacked = [r for r in recorded if r.unpack]
        self._places = {c.name: (c, places[c.name]) for r in self._unpacked for c in r.columns}
        lines = [self._line(r, block, places) for r in recorded if not r.unpack]
        self._inputs = np.array(lines, np.int64).reshape(-1, _BLANK + 1)
        members: list[int] = []
        table = []
        for name, inputs in detectors.items():
            first = len(members)
            members += [block.index[i] for i in inputs]
            good = places[f"damage/{name}"]
            table.append((first, len(members), places[f"damage/{name}_state"], good))
        self._members = np.array(members, np.int64)
        self._detectors = np.array(table, np.int64).reshape(-1, _GOOD + 1)

    @staticmethod
    def _line(r: Recorded, block: FrameBlock, places: Mapping[str, int]) -> tuple[int, ...]:
        i, column = block.index[r.name], r.columns[0]
        kind = np.dtype(column.dtype)
        item = 1 if kind.kind == "S" else kind.itemsize
        blank = np.asarray(column.missing, column.dtype).tobytes()
        return (
            int(block.base[i]), column.row_bytes, places[column.name], i,
            places.get(f"{r.name}{VALID}", -1) if len(r.columns) > 1 else -1, item,
            int.from_bytes(blank, "little", signed=item == 8),
        )  # fmt: skip

    def rows(self, first: int, n: int, buffer: NDArray[np.uint8]) -> None:
        """Store rows ``first`` to ``n`` in the ``buffer`` of a batch."""
        block = self._block
        self._call(
            first, n, self._inputs, self._detectors, self._members, block.buffer, block.present,
            block.damage, buffer,
        )  # fmt: skip
        for r in self._unpacked:
            self._unpack(r, slice(first, n), buffer)

    def _unpack(self, r: Recorded, rows: slice, buffer: NDArray[np.uint8]) -> None:
        """Store the bits of an input."""
        column, begin = self._places[r.name]
        shape = (self._capacity, *column.shape)
        stored: NDArray[Any] = np.ndarray(shape, column.dtype, buffer, begin)[rows]
        here = self._block.present[rows, self._block.index[r.name]]
        words = self._block.frames[r.name][rows]
        octets = words.astype(words.dtype.newbyteorder("<"), copy=False).view(np.uint8)
        stored[:] = np.unpackbits(octets, axis=-1, bitorder="little")
        stored[~here] = 0
        flag, at = self._places[f"{r.name}{VALID}"]
        np.ndarray(self._capacity, flag.dtype, buffer, at)[rows] = here
