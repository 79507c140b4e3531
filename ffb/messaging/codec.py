"""Chunks of the HDF5 filter bitshuffle (number 32008), encoded and decoded outside of HDF5.

So a producer compresses and the writer only places bytes. A chunk is the size of its data and that
of a block, both in bytes and big-endian (u64, u32), then for every block the size of its compressed
bytes (u32) and those bytes, then as they are the elements that do not fill a group of eight. The
work is done by the library that hdf5plugin brings for h5py, called without HDF5: one thread, no
lock held, and the same code that reads the file later.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["CODECS", "FILTER", "check", "decode", "encode", "filter_options"]

#: Registered number of the filter.
FILTER = 32008

#: Codecs by name, with the filter's number of each.
CODECS = {"bitshuffle-lz4": 2, "bitshuffle-zstd": 3}

#: zstd's own scale; more costs a producer much and gains little on detector data.
ZSTD_LEVEL = 1

_HEADER, _SIZE = struct.Struct(">QI"), struct.Struct(">I")

#: Elements are shuffled in groups of so many.
_GROUP = 8

#: Elements in a block. The filter by itself takes 8 KiB: with more zstd is twice as fast and packs
#: better, lz4 does as well, and there are fewer sizes to be followed.
_BLOCK = 8192

#: A block with more bytes than this is none that we would read.
_MAX_BLOCK = 1 << 24


class _Functions(NamedTuple):
    encode: Any
    decode: Any
    bound: Any
    more: tuple[int, ...]  # last arguments of ``encode``


def filter_options(codec: str) -> dict[str, Any]:
    """Arguments of h5py's ``create_dataset`` for chunks in ``codec``, none for ``""``."""
    if not codec:
        return {}
    level = (ZSTD_LEVEL,) if codec == "bitshuffle-zstd" else ()
    return {"compression": FILTER, "compression_opts": (_BLOCK, CODECS[codec], *level)}


def encode(array: NDArray[Any], codec: str) -> bytes:
    """One chunk of the values of ``array``, of any shape, as the filter would write it.

    Raises ``LookupError`` for an unknown codec or where the library is not installed.
    """
    array, work = np.ascontiguousarray(array), _functions(codec)
    size, item = array.size, array.itemsize
    out = np.empty(_HEADER.size + work.bound(size, item, _BLOCK), np.uint8)
    _HEADER.pack_into(out.data, 0, array.nbytes, _BLOCK * item)
    to = out.ctypes.data + _HEADER.size
    used = work.encode(array.ctypes.data, to, size, item, _BLOCK, *work.more)
    if used < 0:
        raise MemoryError(f"{codec} failed with {used} on {array.nbytes} bytes")
    return out[: _HEADER.size + used].tobytes()


def decode(
    data: bytes | memoryview, dtype: DTypeLike, shape: Sequence[int], codec: str
) -> NDArray[Any]:
    """Values (*shape) of a chunk; the bytes may come from anybody.

    Raises ``ValueError`` for what is no such chunk of exactly this size, before it takes memory
    for more than ``shape`` tells, and ``LookupError`` as :func:`encode`.
    """
    dtype, work = np.dtype(dtype), _functions(codec)
    raw, size, item = np.frombuffer(data, np.uint8), prod(shape), dtype.itemsize
    block = check(data, size, item)
    out = np.empty(tuple(shape), dtype)
    begin = raw.ctypes.data + _HEADER.size
    used = work.decode(begin, out.ctypes.data, size, item, block)
    if used != len(raw) - _HEADER.size:
        raise ValueError(f"{codec}: a chunk of {len(raw)} bytes is damaged ({used})")
    return out


def check(data: bytes | memoryview, size: int, item: int) -> int:
    """Elements in a block of a chunk of ``size`` elements of ``item`` bytes.

    The library, here and in whoever reads the file, trusts the sizes in a chunk, so that these are
    followed to the end first. Raises ``ValueError``.
    """
    if len(data) < _HEADER.size:
        raise ValueError(f"a chunk of {len(data)} bytes has no header")
    told, block_bytes = _HEADER.unpack_from(data)
    if told != size * item:
        raise ValueError(f"a chunk says it holds {told} bytes; {size * item} are expected")
    if not 0 < block_bytes <= _MAX_BLOCK or block_bytes % (_GROUP * item):
        raise ValueError(f"a chunk in blocks of {block_bytes} bytes, with {item} an element")
    block: int = block_bytes // item
    at, end, size_at, step = _HEADER.size, len(data) - size % _GROUP * item, _SIZE.unpack_from, 4
    try:  # it only goes forwards, so that one look at the end tells whether it ever left the blocks
        for _ in range(size // block + (size % block >= _GROUP)):
            at += step + size_at(data, at)[0]
    except struct.error as e:
        raise ValueError(f"a chunk is cut short at byte {at}") from e
    if at != end:
        raise ValueError(f"the blocks of a chunk end at byte {at}, not at {end}")
    return block


@cache
def _functions(codec: str) -> _Functions:
    if codec not in CODECS:
        raise LookupError(f"no codec {codec!r}; known: {', '.join(CODECS)}")
    library, name = _library(), codec.removeprefix("bitshuffle-")
    more = (ZSTD_LEVEL,) if name == "zstd" else ()
    sizes = [ctypes.c_size_t] * 3  # elements, bytes of one, elements in a block
    arguments = [ctypes.c_void_p, ctypes.c_void_p, *sizes]
    bound = getattr(library, f"bshuf_compress_{name}_bound")
    bound.argtypes, bound.restype = sizes, ctypes.c_size_t
    to = getattr(library, f"bshuf_compress_{name}")
    to.argtypes, to.restype = [*arguments, *[ctypes.c_int] * len(more)], ctypes.c_int64
    back = getattr(library, f"bshuf_decompress_{name}")
    back.argtypes, back.restype = arguments, ctypes.c_int64
    return _Functions(to, back, bound, more)


@cache
def _library() -> ctypes.CDLL:
    spec = find_spec("hdf5plugin")  # found, not imported: that would bring h5py into a producer
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in sorted(Path(folder, "plugins").glob("libh5bshuf.*")):
            return ctypes.CDLL(str(path))
    raise LookupError(
        "compression needs the package hdf5plugin (pip install hdf5plugin),"
        ' or writer.compression = "none"'
    )
