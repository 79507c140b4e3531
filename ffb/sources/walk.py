"""The compiled walk through a datagram: no names, only tables, bytes and offsets.

It must survive every input: each offset and size is checked against what encloses it before a
byte is read. An error is told as ``-1 - offset``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from inspect import signature
from typing import Any, TypeVar, cast

import numpy as np
from numba import types
from numpy.typing import NDArray

from ffb.compile import build, kernel
from ffb.shot import CODE_WORDS
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
# its place within the row.
SKIP, SIZE, RANK, STAY, ACTION, SLOT, PART, INPUT, DIM = range(9)
WIDTH = DIM + 5

PASS, VALUE, AREA, PULSE, CODES = range(5)

#: Whether a datagram is the first, the last of a shot.
FIRST, LAST = 1, 2

#: In place of an offset: not there; there, with another shape than declared.
ABSENT, MISFIT = -1, -2

#: Scratch of a walk: the four numbers of _parts, then the ends of the parents it is in.
SCRATCH = 4 + MAX_DEPTH + 1

#: The error for a row that the block does not have.
BAD_ROW = -(2**62)

_CODE_BYTES = 2 * CODE_WORDS
_LARGEST = 2**31  # bytes of a datagram: keeps every product below within 64 bits

_Int = Any  # an int64 once compiled; an int, or numpy's, with NUMBA_DISABLE_JIT
_Bytes = NDArray[np.uint8]
_Ints = NDArray[np.int64]
_Bools = NDArray[np.bool_]
_Words = NDArray[np.uint16]
_F = TypeVar("_F", bound=Callable[..., Any])


def _jit(f: _F) -> _F:
    return cast(_F, kernel(f))


@_jit
def _u32(b: _Bytes, at: _Int) -> _Int:
    low = np.int64(b[at]) | np.int64(b[at + 1]) << 8
    return low | np.int64(b[at + 2]) << 16 | np.int64(b[at + 3]) << 24


@_jit
def _type(b: _Bytes, at: _Int) -> _Int:
    return np.int64(b[at + 6]) | np.int64(b[at + 7] & 15) << 8


@_jit
def _copy(source: _Bytes, at: _Int, n: _Int, to: _Bytes, start: _Int) -> None:
    for k in range(n):
        to[start + k] = source[at + k]


@_jit
def _parts(dgram: _Bytes, at: _Int, end: _Int, found: _Ints) -> _Int:
    """Find Shapes and Data within a ShapesData: start, end, start, end; 0, or the error."""
    begin = at
    found[:4] = -1
    at += XTC
    while at < end:
        if end - at < XTC:
            return -1 - at
        kind, extent = _type(dgram, at), _u32(dgram, at + 8)
        if extent < XTC or extent > end - at:
            return -1 - at
        if kind in (SHAPES, DATA):
            k = 2 * (kind - SHAPES)
            found[k], found[k + 1] = at + XTC, at + extent
        at += extent
    return 0 if found[0] >= 0 and found[2] >= 0 else -1 - begin


@_jit
def _fields(
    dgram: _Bytes, found: _Ints, ops: _Ints, op: _Int, row: _Int, base: _Ints, stride: _Ints,
    buffer: _Bytes, pulse: _Bytes, codes: _Bytes, timed: _Bools, damage: _Words, offsets: _Ints,
    tally: _Ints, damaged: _Int,
) -> _Int:  # fmt: skip
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
                n, want = _u32(dgram, shapes + 4 * k), ops[op, DIM + k]
                fits = fits and (want < 0 or want == n)
                count = min(count * min(n, _LARGEST), _LARGEST)
            if ops[op, STAY] == 0:
                shapes += 20
        nbytes = count * ops[op, SIZE]
        if nbytes > data_end - data:
            return -1 - data
        action, slot = ops[op, ACTION], ops[op, SLOT]
        if action in (VALUE, AREA):
            i = ops[op, INPUT]
            offsets[slot] = data if fits else MISFIT
            damage[row, i] |= np.uint16(damaged)
            tally[2 * inputs + i] += damaged != 0
            if action == VALUE and fits:
                _copy(dgram, data, nbytes, buffer, base[i] + row * stride[i] + ops[op, PART])
        elif action == PULSE:
            _copy(dgram, data, min(nbytes, 8), pulse, 8 * row)
            pulse[8 * row + 7] &= 0x7F  # as psana: the top bit tells who made the pulse
        elif action == CODES:
            _copy(dgram, data, min(nbytes, _CODE_BYTES), codes, _CODE_BYTES * row)
            timed[row] = True
        if ops[op, STAY] == 0:
            data += nbytes
        op += 1
    return 0


@_jit
def _begin(
    row: _Int, stamp: _Bytes, pulse: _Bytes, codes: _Bytes, timed: _Bools, present: _Bools,
    damage: _Words, offsets: _Ints,
) -> None:  # fmt: skip
    """Make the row that of a shot in which nothing was there."""
    stamp[8 * row : 8 * row + 8] = 0
    pulse[8 * row : 8 * row + 8] = 0
    codes[_CODE_BYTES * row : _CODE_BYTES * (row + 1)] = 0
    timed[row] = False
    present[row, :] = False
    damage[row, :] = 0
    offsets[:] = ABSENT


@_jit
def _finish(row: _Int, present: _Bools, slots: _Ints, offsets: _Ints, tally: _Ints) -> None:
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


@_jit
def _walk(
    dgram: _Bytes, lookup: NDArray[np.int32], ops: _Ints, row: _Int, step: _Int, base: _Ints,
    stride: _Ints, buffer: _Bytes, stamp: _Bytes, pulse: _Bytes, codes: _Bytes, timed: _Bools,
    present: _Bools, damage: _Words, slots: _Ints, offsets: _Ints, tally: _Ints, work: _Ints,
) -> _Int:  # fmt: skip
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
        _copy(dgram, 0, 8, stamp, 8 * row)
        end = XTC + _u32(dgram, 20)
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
            kind, extent = _type(dgram, at), _u32(dgram, at + 8)
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
            block = _u32(dgram, at) & BLOCK_BITS
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


@cache
def compiled() -> Callable[..., int]:
    """Compile the walk, once; other argument types than the declared are refused, not compiled.

    The datagram may be read-only, and lie anywhere. The lock of Python is not held meanwhile.
    """
    dgram = types.Array(types.uint8, 1, "C", readonly=True, aligned=False)
    ints, octets, bools = types.int64[::1], types.uint8[::1], types.boolean[::1]
    arguments = (
        dgram, types.int32[::1], types.int64[:, ::1], types.int64, types.int64, ints, ints,
        octets, octets, octets, octets, bools, types.boolean[:, ::1], types.uint16[:, ::1],
        ints, ints, ints, ints,
    )  # fmt: skip
    names = ", ".join(signature(getattr(_walk, "py_func", _walk)).parameters)
    source = f"def walk({names}):\n    return go({names})\n"
    return cast(Callable[..., int], build(source, {"go": _walk}, arguments))
