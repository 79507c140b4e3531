"""Numbers in bytes at any address, for compiled code that walks through datagrams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from ffb.loops.compile import kernel

Int = Any  # an int64 once compiled; an int, or numpy's, with NUMBA_DISABLE_JIT
Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Words = NDArray[np.uint16]
F = TypeVar("F", bound=Callable[..., Any])

#: In place of an offset: not there; there, with another shape than declared or malformed.
ABSENT, MISFIT = -1, -2


def jit(f: F) -> F:
    """``f`` compiled, as :func:`ffb.loops.compile.kernel` does it."""
    return cast(F, kernel(f))


@jit
def u16(b: Bytes, at: Int) -> Int:
    """Little-endian ``uint16`` at a byte."""
    return np.int64(b[at]) | np.int64(b[at + 1]) << 8


@jit
def u32(b: Bytes, at: Int) -> Int:
    """Little-endian ``uint32`` at a byte."""
    low = np.int64(b[at]) | np.int64(b[at + 1]) << 8
    return low | np.int64(b[at + 2]) << 16 | np.int64(b[at + 3]) << 24


@jit
def copy(source: Bytes, at: Int, n: Int, to: Bytes, start: Int) -> None:
    """Copy ``n`` bytes; slices, whose elements are known to follow each other, go at full speed."""
    taken, given = source[at : at + n], to[start : start + n]
    for k in range(n):
        given[k] = taken[k]


@jit
def put(to: Bytes, at: Int, value: Int, size: Int) -> None:
    """Write a whole number as ``size`` little-endian bytes."""
    for k in range(size):
        to[at + k] = value >> 8 * k & 255


@jit
def blank(to: Bytes, at: Int, end: Int, size: Int) -> None:
    """Fill bytes with what is missing: 0, or with ``size`` 4 or 8 NaN of so many bytes."""
    for k in range(at, end):
        to[k] = 0
    if size > 0:
        for k in range(at, end, size):
            to[k + size - 2] = 0xC0 if size == 4 else 0xF8
            to[k + size - 1] = 0x7F
