"""The compiled walk through a datagram: no names, only tables, bytes and offsets.

It must survive every input: each offset and size is checked against what encloses it before a
byte is read. An error is told as ``-1 - offset``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from inspect import signature
from typing import Any, cast

import numpy as np
from numba import types
from numpy.typing import NDArray

from ffb.loops.compile import build
from ffb.shot import CODE_WORDS
from ffb.sources.hsd import digitize
from ffb.sources.octets import (
    ABSENT,
    MISFIT,
    Bools,
    Bytes,
    Int,
    Ints,
    Words,
    blank,
    copy,
    jit,
    put,
    u32,
)
from ffb.sources.xtc2 import (
    BLOCK_BITS,
    CORRUPTED,
    DATA,
    HEADER,
    MAX_DEPTH,
    PARENT,
    SHAPES,
    SHAPES_DATA,
    XTC,
)

# Columns of an operation: SKIP bytes lie before the field, an element has SIZE bytes (0 ends the
# block), its RANK dimensions must be those at DIM (-1: any), and with STAY the next operation is
# about the same field. SLOT is where the field's offset goes; INPUT and PART are its column and
# its place within the row. Of a list or a text, whose length is whatever it is, PART says how many
# bytes a NaN has that stands where there are no entries (0: zeros), or TEXT.
SKIP, SIZE, RANK, STAY, ACTION, SLOT, PART, INPUT, DIM = range(9)
WIDTH = DIM + 5

#: The last three: entries as far as there is room, how many there are, and where a field lies.
PASS, VALUE, AREA, PULSE, CODES, LIST, COUNT, SPAN = range(8)

TEXT = -1

#: Whether a datagram is the first, the last of a shot.
FIRST, LAST = 1, 2

#: Scratch of a walk: the four numbers of _parts, then the ends of the parents it is in; of a
#: digitizer's decoder, when the walk is over.
SCRATCH = 4 + MAX_DEPTH + 1

#: The error for a row that the block does not have.
BAD_ROW = -(2**62)

_CODE_BYTES = 2 * CODE_WORDS
_LARGEST = 2**31  # bytes of a datagram: keeps every product below within 64 bits


@jit
def _type(b: Bytes, at: Int) -> Int:
    return np.int64(b[at + 6]) | np.int64(b[at + 7] & 15) << 8


@jit
def _parts(dgram: Bytes, at: Int, end: Int, found: Ints) -> Int:
    """Find Shapes and Data within a ShapesData: start, end, start, end; 0, or the error."""
    begin = at
    found[:4] = -1
    at += XTC
    while at < end:
        if end - at < XTC:
            return -1 - at
        kind, extent = _type(dgram, at), u32(dgram, at + 8)
        if extent < XTC or extent > end - at:
            return -1 - at
        if kind in (SHAPES, DATA):
            k = 2 * (kind - SHAPES)
            found[k], found[k + 1] = at + XTC, at + extent
        at += extent
    return 0 if found[0] >= 0 and found[2] >= 0 else -1 - begin


@jit
def _letters(b: Bytes, at: Int, n: Int) -> Int:
    """Bytes of a text, which ends at its first zero."""
    for k in range(n):
        if b[at + k] == 0:
            return k
    return n


@jit
def _whole(b: Bytes, at: Int, n: Int) -> Int:
    """At most ``n`` bytes of a longer text, that end with a whole letter of UTF-8."""
    while n > 0 and b[at + n] & 0xC0 == 0x80:
        n -= 1
    return n


@jit
def _fields(
    dgram: Bytes, found: Ints, ops: Ints, op: Int, row: Int, base: Ints, stride: Ints,
    buffer: Bytes, pulse: Bytes, codes: Bytes, timed: Bools, damage: Words, offsets: Ints,
    tally: Ints, damaged: Int,
) -> Int:  # fmt: skip
    """Do the operations of one block, which the DAQ marked with ``damaged``; 0, or the error."""
    inputs = tally.size // 3
    shapes, shapes_end = np.int64(found[0]), np.int64(found[1])
    data, data_end = np.int64(found[2]), np.int64(found[3])
    while ops[op, SIZE] > 0:
        data += ops[op, SKIP]
        count, fits = 1, True
        if ops[op, RANK] > 0:
            if shapes_end - shapes < 20:
                return -1 - shapes
            for k in range(ops[op, RANK]):
                n, want = u32(dgram, shapes + 4 * k), ops[op, DIM + k]
                fits = fits and (want < 0 or want == n)
                count = min(count * min(n, _LARGEST), _LARGEST)
            if ops[op, STAY] == 0:
                shapes += 20
        nbytes = count * ops[op, SIZE]
        if nbytes > data_end - data:
            return -1 - data
        action, slot = ops[op, ACTION], ops[op, SLOT]
        length = nbytes
        if ops[op, PART] == TEXT:
            length = _letters(dgram, data, nbytes)
        if action in (VALUE, AREA):
            i = ops[op, INPUT]
            offsets[slot] = data if fits else MISFIT
            damage[row, i] |= np.uint16(damaged)
            tally[2 * inputs + i] += damaged != 0
            if action == VALUE and fits:
                copy(dgram, data, nbytes, buffer, base[i] + row * stride[i] + ops[op, PART])
        elif action in (LIST, COUNT):
            i = ops[op, INPUT]
            offsets[slot] = data
            damage[row, i] |= np.uint16(damaged)
            tally[2 * inputs + i] += damaged != 0
            start = base[i] + row * stride[i]
            if action == LIST:
                kept = length
                if length > stride[i]:
                    kept = stride[i]
                    if ops[op, PART] == TEXT:
                        kept = _whole(dgram, data, kept)
                copy(dgram, data, kept, buffer, start)
                blank(buffer, start + kept, start + stride[i], max(ops[op, PART], 0))
            else:
                put(buffer, start, length // ops[op, SIZE], 8)
        elif action == SPAN:
            offsets[slot], offsets[slot + 1] = data, nbytes
        elif action == PULSE:
            copy(dgram, data, min(nbytes, 8), pulse, 8 * row)
            pulse[8 * row + 7] &= 0x7F  # as psana: the top bit tells who made the pulse
        elif action == CODES:
            copy(dgram, data, min(nbytes, _CODE_BYTES), codes, _CODE_BYTES * row)
            timed[row] = True
        if ops[op, STAY] == 0:
            data += nbytes
        op += 1
    return 0


@jit
def _begin(
    row: Int, stamp: Bytes, pulse: Bytes, codes: Bytes, timed: Bools, present: Bools,
    damage: Words, offsets: Ints,
) -> None:  # fmt: skip
    """Make the row that of a shot in which nothing was there."""
    stamp[8 * row : 8 * row + 8] = 0
    pulse[8 * row : 8 * row + 8] = 0
    codes[_CODE_BYTES * row : _CODE_BYTES * (row + 1)] = 0
    timed[row] = False
    present[row, :] = False
    damage[row, :] = 0
    offsets[:] = ABSENT


@jit
def _finish(row: Int, present: Bools, slots: Ints, offsets: Ints, tally: Ints) -> None:
    """Set what is present: inputs all of whose segments were there, in the declared shape."""
    inputs = tally.size // 3
    for i in range(slots.size - 1):
        whole, misfit = slots[i] < slots[i + 1], False
        for slot in range(slots[i], slots[i + 1]):
            whole = whole and offsets[slot] >= 0
            misfit = misfit or offsets[slot] == MISFIT
        present[row, i] = whole
        tally[i] += misfit
        tally[inputs + i] += not whole and not misfit and slots[i] < slots[i + 1]


@jit
def _walk(
    dgram: Bytes, lookup: NDArray[np.int32], ops: Ints, row: Int, step: Int,
    base: Ints, stride: Ints, buffer: Bytes, stamp: Bytes, pulse: Bytes, codes: Bytes, timed: Bools,
    present: Bools, damage: Words, slots: Ints, offsets: Ints, tally: Ints, work: Ints,
) -> Int:  # fmt: skip
    """Go through ``dgram`` (empty: a stream that missed the shot); 0, or the error.

    ``tally`` counts by input: misfits, then shots that lack it, then damaged blocks of it; and at
    its end parents that were marked corrupted.
    """
    if row < 0 or row >= timed.size:
        return BAD_ROW
    if step & FIRST:
        _begin(row, stamp, pulse, codes, timed, present, damage, offsets)
    if dgram.size > 0:
        if dgram.size < HEADER:
            return -1
        copy(dgram, 0, 8, stamp, 8 * row)
        end = XTC + u32(dgram, 20)
        if end < HEADER or end > dgram.size or end > _LARGEST:
            return -1 - 20
        at, depth = XTC, 0
        work[4] = end
        while True:
            while depth >= 0 and at == work[4 + depth]:
                depth -= 1
            if depth < 0:
                break
            room = work[4 + depth] - at
            if room < XTC:
                return -1 - at
            kind, extent = _type(dgram, at), u32(dgram, at + 8)
            if extent < XTC or extent > room:
                return -1 - at
            if kind == PARENT and not dgram[at + 4] & CORRUPTED:
                if depth == MAX_DEPTH:
                    return -1 - at
                depth += 1
                work[4 + depth] = at + extent
                at += XTC
                continue
            if kind == PARENT:
                tally[tally.size - 1] += 1
            block = u32(dgram, at) & BLOCK_BITS
            if kind == SHAPES_DATA and block < lookup.size and lookup[block] >= 0:
                error = _parts(dgram, at, at + extent, work)
                if error == 0:
                    error = _fields(
                        dgram, work, ops, lookup[block], row, base, stride, buffer, pulse, codes,
                        timed, damage, offsets, tally,
                        np.int64(dgram[at + 4]) | np.int64(dgram[at + 5]) << 8,
                    )  # fmt: skip
                if error != 0:
                    return error
            at += extent
    if step & LAST:
        _finish(row, present, slots, offsets, tally)
    return 0


@jit
def _digitized(
    dgram: Bytes, wish: Ints, row: Int, step: Int, base: Ints, stride: Ints, buffer: Bytes,
    present: Bools, damage: Words, slots: Ints, offsets: Ints, tally: Ints, work: Ints,
) -> None:  # fmt: skip
    """Decode what ``wish``, a table of :mod:`ffb.sources.hsd`, wants of a datagram walked through.

    The walks have not said what is present, since that is known only now.
    """
    digitize(dgram, wish, row, base, stride, buffer, damage, offsets, work)
    if step & LAST:
        _finish(row, present, slots, offsets, tally)


_DGRAM = types.Array(types.uint8, 1, "C", readonly=True, aligned=False)
_INTS, _TABLE, _OCTETS = types.int64[::1], types.int64[:, ::1], types.uint8[::1]
_FLAGS, _WORDS = types.boolean[:, ::1], types.uint16[:, ::1]


@cache
def compiled() -> Callable[..., int]:
    """Compile the walk, once; other argument types than the declared are refused, not compiled.

    The datagram may be read-only, and lie anywhere. The lock of Python is not held meanwhile.
    """
    arguments = (
        _DGRAM, types.int32[::1], _TABLE, types.int64, types.int64, _INTS, _INTS, _OCTETS, _OCTETS,
        _OCTETS, _OCTETS, types.boolean[::1], _FLAGS, _WORDS, _INTS, _INTS, _INTS, _INTS,
    )  # fmt: skip
    return cast(Callable[..., int], _built("walk", _walk, arguments))


@cache
def digitizing() -> Callable[..., None]:
    """Compile what follows the walks of a shot where a run has digitizers, once."""
    arguments = (
        _DGRAM, _TABLE, types.int64, types.int64, _INTS, _INTS, _OCTETS, _FLAGS, _WORDS, _INTS,
        _INTS, _INTS, _INTS,
    )  # fmt: skip
    return cast(Callable[..., None], _built("digitized", _digitized, arguments))


def _built(name: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    names = ", ".join(signature(getattr(function, "py_func", function)).parameters)
    source = f"def {name}({names}):\n    return go({names})\n"
    return build(source, {"go": function}, arguments)
