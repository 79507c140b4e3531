"""Plain data from strangers: msgpack and schemas read with limits, or refused with a sentence."""

from __future__ import annotations

import struct
from typing import Any, TypeAlias

import msgpack

from ffb.schema import CORE, Column, Schema

MAX_HEADER = 1 << 20
MAX_SCHEMA = 4 << 20
MAX_PAYLOAD = 1 << 30
MAX_COLUMNS = 20_000
MAX_VALUES = 1 << 17  # in one list: the coordinates of a long axis
MAX_ROWS = 100_000  # their read times, eight bytes each, must fit into the header
MAX_RANK = 4
MAX_TEXT = 255
MAX_NEST = 16

_SIZES = ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16")
DTYPES = frozenset([f"<{s}" for s in _SIZES] + ["|b1", "|i1", "|u1"])

Frame: TypeAlias = bytes | memoryview

#: What reading hostile bytes may raise on the way; callers turn it into :class:`WireError`.
UNTRUSTED = (
    ValueError,
    TypeError,
    OverflowError,
    RecursionError,
    MemoryError,
    struct.error,
    msgpack.UnpackException,
)


class WireError(ValueError):
    """A message that cannot be trusted; count it, name its sender, carry on."""


def typed(name: str, value: Any, kind: type) -> Any:
    """``value``, which must be exactly of type ``kind``."""
    if type(value) is not kind:  # a bool is no int here
        raise WireError(f"{name[:40]} must be {kind.__name__}, not {type(value).__name__}")
    return value


def limit(what: str, size: int, most: int) -> None:
    """Refuse more than ``most``."""
    if size > most:
        raise WireError(f"{size} {what}; at most {most} are allowed")


def packed(value: Any) -> bytes:
    """Plain data as msgpack."""
    return bytes(msgpack.packb(value))


def unpacked(what: str, frame: Frame, most: int, items: int) -> Any:
    """Plain data in ``frame``: bounded in bytes, items and depth, so that it cannot be a bomb."""
    limit(f"bytes of {what}", len(frame), most)
    value = msgpack.unpackb(
        frame, use_list=True, ext_hook=_no_extension, max_array_len=items, max_map_len=items
    )
    _check_plain(value, MAX_NEST)
    return value


def _no_extension(code: int, data: bytes) -> Any:
    raise WireError(f"msgpack extension {code}: only plain data travels")


def _check_plain(value: Any, depth: int) -> None:
    if depth == 0:
        raise WireError(f"data nested deeper than {MAX_NEST}")
    if isinstance(value, dict):
        if not all(type(k) is str for k in value):
            raise WireError("keys must be text")
        value = list(value.values())
    if isinstance(value, list):
        for v in value:
            _check_plain(v, depth - 1)
    elif not isinstance(value, str | bytes | int | float | None):
        raise WireError(f"{type(value).__name__} is not plain data")


def parse_schema(frame: Frame) -> Schema:
    """Schema in ``frame``, every field of every column checked."""
    rows = typed("schema", unpacked("schema", frame, MAX_SCHEMA, MAX_COLUMNS), list)
    schema = Schema(tuple(_column(row) for row in rows))
    if [c[:3] for c in schema.columns[: len(CORE)]] != [c[:3] for c in CORE]:
        raise WireError(f"a schema begins with {', '.join(c.name for c in CORE)}")
    limit("bytes in a row", sum(c.row_bytes for c in schema.columns), MAX_PAYLOAD)
    return schema


def _column(row: Any) -> Column:
    if type(row) is not list or len(row) != len(Column._fields):
        raise WireError(f"a column has the fields {', '.join(Column._fields)}")
    name, dtype, shape, dims, unit, doc, reducer, codec, chunk = row
    texts = {"name": name, "unit": unit, "doc": doc, "reducer": reducer, "codec": codec}
    for field, value in texts.items():
        typed(field, value, str)
        limit(f"letters of {field}", len(value), 4096 if field == "doc" else MAX_TEXT)
    where = f"column {name[:40]!r}"
    if not name.isprintable() or any(part in {"", ".", ".."} for part in name.split("/")):
        raise WireError(f"{where}: not a path in a file")
    if dtype not in DTYPES:
        raise WireError(f"{where}: dtype {str(dtype)[:20]!r} is no little-endian number")
    if type(shape) is not list or type(dims) is not list or len(shape) > MAX_RANK:
        raise WireError(f"{where}: at most {MAX_RANK} axes")
    if not all(type(s) is int and 0 < s <= MAX_PAYLOAD for s in shape):
        raise WireError(f"{where}: shape must hold positive whole numbers")
    if not all(type(d) is str and len(d) <= MAX_TEXT for d in dims) or len(dims) > MAX_RANK:
        raise WireError(f"{where}: dims must be names")
    if type(chunk) is not int or not 0 <= chunk <= MAX_ROWS:
        raise WireError(f"{where}: chunk is a number of rows")
    return Column(name, dtype, tuple(shape), tuple(dims), unit, doc, reducer, codec, chunk)
