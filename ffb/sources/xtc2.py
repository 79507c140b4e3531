"""The layout of xtc2 datagrams: what a Configure declares, and values read where they lie.

No psana here: a datagram is a stretch of memory that somebody else owns. All numbers are
little-endian; every offset and size is checked before it is used, because one torn datagram must
not take the process with it. Layout (u32 unless said otherwise)::

    datagram   = ns, seconds since 1990, env (service = env >> 24 & 15), xtc
    xtc        = source (low 20 bits name the block), u16 damage, u16 type, extent (with these 12)
    type         0 parent of xtcs, 1 ShapesData = {2 Shapes, 3 Data in either order}, 4 Names
    Names      = arrays, char[256] dettype, detector, detid, Alg {char[256], version}, segment,
                 then per field: Alg, char[256] name, type, rank
    Shapes     = five dimensions for each array field, in order
    Data       = values in the order of the fields, without padding
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from math import prod
from typing import Any, NamedTuple

import numpy as np

#: A datagram, as bytes or as a window on somebody else's memory.
Buffer = bytes | bytearray | memoryview

PARENT, SHAPES_DATA, SHAPES, DATA, NAMES = range(5)

#: Types of fields by their code; the last two are an enumeration's value and its dictionary.
DTYPES = ("<u1", "<u2", "<u4", "<u8", "<i1", "<i2", "<i4", "<i8", "<f4", "<f8", "S1", "<i4", "<i4")
STRING, ENUM, ENUM_DICT = 10, 11, 12
FLOATS = (8, 9)

#: The one bit of damage that hides data: psana shows nothing that lies in such a parent.
CORRUPTED = 1 << 3

#: Low bits of an xtc's source, which tell (node, names) apart within a stream.
BLOCK_BITS = 0xFFFFF

#: Parents within parents that are still followed.
MAX_DEPTH = 8

HEADER, XTC = 24, 12
_XTC = struct.Struct("<IHHI")
_TWO = struct.Struct("<II")
_NAMES_HEAD, _NAME = 4 + 3 * 256 + 260 + 4, 260 + 256 + 8
_MAX_RANK = 5


class Xtc2Error(ValueError):
    """A datagram that is not what its own numbers say; ``offset`` is where that showed."""

    def __init__(self, what: str, offset: int) -> None:
        super().__init__(f"{what}, at byte {offset} of the datagram")
        self.offset = offset


class FieldType(NamedTuple):
    """One field as Configure declares it; ``code`` indexes :data:`DTYPES`."""

    name: str
    code: int
    rank: int

    @property
    def size(self) -> int:
        """Bytes of one element."""
        return np.dtype(DTYPES[self.code]).itemsize

    def __str__(self) -> str:
        if self.code == STRING:
            return "string"
        kind = "enum" if self.code >= ENUM else np.dtype(DTYPES[self.code]).name
        return f"{kind}, rank {self.rank}" if self.rank else kind


class Names(NamedTuple):
    """What one (detector, alg, segment) writes; ``block`` is the source its blocks carry."""

    detector: str
    alg: str
    segment: int
    dettype: str
    detid: str
    version: tuple[int, int, int]
    fields: tuple[FieldType, ...]
    block: int


class Block(NamedTuple):
    """Where the values of one (detector, alg, segment) lie in a datagram."""

    names: Names
    damage: int
    shapes: int
    shapes_end: int
    data: int
    data_end: int


def service(dgram: Buffer) -> int:
    """Kind of a datagram, a :class:`ffb.sources.xtc2_specs.Service` or 11, a shot too."""
    return int(dgram[11]) & 15


def timestamp(dgram: Buffer) -> int:
    """Psana's 64-bit stamp of a datagram."""
    return int.from_bytes(dgram[:8], "little")


def size(dgram: Buffer) -> int:
    """Bytes of the datagram at the start of ``dgram``, as its header says.

    Raises :class:`Xtc2Error` when they are more than there are, or fewer than a header.
    """
    if len(dgram) < HEADER:
        raise Xtc2Error(f"{len(dgram)} bytes are not a datagram: its header alone has {HEADER}", 0)
    n = XTC + int.from_bytes(dgram[20:24], "little")
    if not HEADER <= n <= len(dgram):
        raise Xtc2Error(f"a datagram of {n} bytes in a buffer of {len(dgram)}", 20)
    return n


def children(dgram: memoryview, start: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield (offset, block, damage, type, extent) of the xtcs that fill [start, end).

    Raises :class:`Xtc2Error` for one that does not fit.
    """
    at = start
    while at < end:
        if end - at < XTC:
            raise Xtc2Error(f"{end - at} bytes where an xtc should begin", at)
        source, damage, kind, extent = _XTC.unpack_from(dgram, at)
        if not XTC <= extent <= end - at:
            raise Xtc2Error(f"an xtc of {extent} bytes in a space of {end - at}", at)
        yield at, source & BLOCK_BITS, damage, kind & 0xFFF, extent
        at += extent


def leaves(
    dgram: memoryview, start: int, end: int, depth: int = 0
) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield what :func:`children` yields, with parents replaced by what is in them.

    A corrupted parent has nothing in it. Raises :class:`Xtc2Error`, also for parents too deep.
    """
    for xtc in children(dgram, start, end):
        at, _, damage, kind, extent = xtc
        if kind != PARENT:
            yield xtc
        elif not damage & CORRUPTED:
            if depth == MAX_DEPTH:
                raise Xtc2Error(f"parents nested more than {MAX_DEPTH} deep", at)
            yield from leaves(dgram, at + XTC, at + extent, depth + 1)


def _text(raw: memoryview) -> str:
    return bytes(raw).split(b"\0", 1)[0].decode("utf-8", "replace")


class Configure:
    """A Configure datagram, parsed once: names and types of everything that follows.

    ``names`` holds :class:`Names` by block; ``values`` the configuration data that came with it,
    by (detector, alg, segment) and then by field. Raises :class:`Xtc2Error`.
    """

    def __init__(self, dgram: Buffer) -> None:
        self.data = bytes(dgram[: size(dgram)])
        view = memoryview(self.data)
        self.names: dict[int, Names] = {}
        for at, block, _, kind, extent in leaves(view, XTC, len(view)):
            if kind == NAMES:
                self.names[block] = _names(view, at + XTC, at + extent, block)
        self.values = {k: dict(v) for k, v in self.decode(self.data).items()}

    def blocks(self, dgram: Buffer) -> Iterator[Block]:
        """Yield every block of ``dgram`` that Configure names, in the order of the datagram."""
        view = memoryview(dgram)[: size(dgram)]
        for at, block, damage, kind, extent in leaves(view, XTC, len(view)):
            names = self.names.get(block)
            if kind == SHAPES_DATA and names is not None:
                yield Block(names, damage, *_shapes_data(view, at, extent))

    def decode(self, dgram: Buffer) -> dict[tuple[str, str, int], dict[str, Any]]:
        """Every value of ``dgram``: scalars, strings and copied arrays, by name.

        For transitions and for tests: shots are read by :class:`ffb.sources.gather.Gather`.
        Raises :class:`Xtc2Error`.
        """
        view = memoryview(dgram)
        out: dict[tuple[str, str, int], dict[str, Any]] = {}
        for b in self.blocks(dgram):
            key = b.names.detector, b.names.alg, b.names.segment
            out.setdefault(key, {}).update(_values(view, b))
        return out

    def shapes(self, dgram: Buffer, block: int) -> dict[str, tuple[int, ...]] | None:
        """Shapes of the fields of one block, ``None`` where ``dgram`` has no such block.

        Raises :class:`Xtc2Error`.
        """
        view = memoryview(dgram)
        for b in self.blocks(dgram):
            if b.names.block == block:
                return {f.name: shape for f, shape, _ in _spans(b, view)}
        return None

    def read(self, dgram: Buffer, block: int) -> dict[str, Any] | None:
        """Values of the fields of one block, ``None`` where ``dgram`` has no such block.

        Raises :class:`Xtc2Error`.
        """
        view = memoryview(dgram)
        for b in self.blocks(dgram):
            if b.names.block == block:
                return dict(_values(view, b))
        return None

    def verify(self, dgram: Buffer) -> None:
        """Raise :class:`Xtc2Error` if anything in ``dgram`` is not what its numbers say."""
        view = memoryview(dgram)
        for b in self.blocks(dgram):
            for _ in _spans(b, view):
                pass


def _names(view: memoryview, at: int, end: int, block: int) -> Names:
    """Parse one Names; ``at`` is behind its xtc header."""
    if end - at < _NAMES_HEAD or (end - at - _NAMES_HEAD) % _NAME:
        raise Xtc2Error(f"Names of {end - at} bytes", at)
    dettype, detector, detid = (_text(view[at + 4 + k : at + 260 + k]) for k in (0, 256, 512))
    alg = _text(view[at + 772 : at + 1028])
    version, segment = _TWO.unpack_from(view, at + 1028)
    fields = []
    for q in range(at + _NAMES_HEAD, end, _NAME):
        name, (code, rank) = _text(view[q + 260 : q + 516]), _TWO.unpack_from(view, q + 516)
        if code >= len(DTYPES) or rank > _MAX_RANK:
            raise Xtc2Error(f"{detector}.{alg}.{name}: type {code} of rank {rank} is unknown", q)
        if code == ENUM:  # "state:states", where the dictionary has "low:states"
            name = name.partition(":")[0]
        fields.append(FieldType(name, code, rank))
    numbers = (version >> 16 & 255, version >> 8 & 255, version & 255)
    return Names(detector, alg, segment, dettype, detid, numbers, tuple(fields), block)


def _shapes_data(view: memoryview, at: int, extent: int) -> tuple[int, int, int, int]:
    """Start and end of Shapes and of Data in the ShapesData at ``at``."""
    found = {k: (o + XTC, o + n) for o, _, _, k, n in children(view, at + XTC, at + extent)}
    if SHAPES not in found or DATA not in found:
        raise Xtc2Error("ShapesData without Shapes or without Data", at)
    return *found[SHAPES], *found[DATA]


def _values(view: memoryview, block: Block) -> Iterator[tuple[str, Any]]:
    """Give the values of the fields of ``block``."""
    for f, shape, at in _spans(block, view):
        count = prod(shape)
        if f.code == STRING and f.rank:
            yield f.name, _text(view[at : at + count])
        else:
            value = np.frombuffer(view, DTYPES[f.code], count, at).reshape(shape).copy()
            yield f.name, value if f.rank else value[()].item()


def _spans(block: Block, view: memoryview) -> Iterator[tuple[FieldType, tuple[int, ...], int]]:
    """Walk the fields of ``block``: each with its shape and the offset of its values."""
    at, shapes = block.data, block.shapes
    for f in block.names.fields:
        shape: tuple[int, ...] = ()
        if f.rank:
            if block.shapes_end - shapes < 20:
                raise Xtc2Error(f"no shape for {f.name}", shapes)
            shape = struct.unpack_from("<5I", view, shapes)[: f.rank]
            shapes += 20
        count = prod(shape)
        if count * f.size > block.data_end - at:
            raise Xtc2Error(f"{f.name} of shape {shape} is larger than what is there", at)
        yield f, shape, at
        at += count * f.size
