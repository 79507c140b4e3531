"""Plain data from strangers: msgpack and schemas read with limits, or refused with a sentence."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from math import prod
from typing import Any, TypeAlias

import msgpack

from ffb.messaging.codec import CODECS
from ffb.reading.contents import GROUP
from ffb.schema import CORE, Column, Schema

MAX_HEADER = 1 << 20
MAX_SCHEMA = 4 << 20
MAX_STATUS = 1 << 17  # one is kept of every producer, and all of them go into each snapshot
MAX_PAYLOAD = 1 << 30
MAX_COLUMNS = 20_000
MAX_VALUES = 1 << 17  # in one list: the coordinates of a long axis
MAX_CELLS = 1 << 24  # in one row, over all columns: an image of 16 Mpx and not much more
MAX_ROWS = 100_000  # their read times, eight bytes each, must fit into the header
MAX_CHUNK = 1024  # rows that are compressed together
MAX_RANK = 4
MAX_INT = (1 << 63) - 1  # what a table of the file holds
MAX_STAMP = (1 << 64) - 1
MAX_TEXT = 255
MAX_LETTERS = 4096  # bytes of a text in one row
MAX_NEST = 16

_SIZES = ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16")
DTYPES = frozenset([f"<{s}" for s in _SIZES] + ["|b1", "|i1", "|u1"])
_TEXT_DTYPE = re.compile(r"\|S([1-9][0-9]{0,3})")

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


def told(error: BaseException) -> str:
    """What an exception says, in a few words: some would quote all that they were given."""
    return f"{type(error).__name__}: {str(error)[:100]}"


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
        if not all(type(k) is str and "\0" not in k for k in value):
            raise WireError("keys must be text")
        value = list(value.values())
    if isinstance(value, list):
        for v in value:
            _check_plain(v, depth - 1)
    elif isinstance(value, str) and "\0" in value:
        raise WireError("a zero byte in a text: no file could hold it")
    elif not isinstance(value, str | bytes | int | float | None):
        raise WireError(f"{type(value).__name__} is not plain data")


def parse_schema(frame: Frame) -> Schema:
    """Schema in ``frame``, every field of every column checked."""
    rows = typed("schema", unpacked("schema", frame, MAX_SCHEMA, MAX_COLUMNS), list)
    schema = Schema(tuple(_column(row) for row in rows))
    if [c[:3] for c in schema.columns[: len(CORE)]] != [c[:3] for c in CORE]:
        raise WireError(f"a schema begins with {', '.join(c.name for c in CORE)}")
    limit("values in a row", sum(prod(c.shape) for c in schema.columns), MAX_CELLS)
    for c in (c for c in schema.columns if c.length):
        count = schema.by_name.get(c.length)
        if not c.shape or count is None or count.shape or count.dtype[1] not in "iu":
            raise WireError(f"column {c.name[:40]!r}: {c.length[:40]!r} does not count its entries")
    _check_places({c.name for c in schema.columns})
    return schema


def _check_places(names: set[str]) -> None:
    """Refuse columns that would stand where a file has something else."""
    ours = {c.name for c in CORE}
    for name in names:
        parts = name.split("/")
        if parts[0] == GROUP and name not in ours:
            raise WireError(f"column {name[:40]!r}: {GROUP}/ is kept for what ffb itself writes")
        for k in range(1, len(parts)):
            if (above := "/".join(parts[:k])) in names:
                raise WireError(f"column {name[:40]!r} lies below another, {above[:40]!r}")


def check_coords(schema: Schema, reducers: Mapping[str, Any]) -> None:
    """Refuse axes of reducers that are no numbers, or have no place in the file."""
    taken = {c.name for c in schema.columns}
    known = {c.reducer for c in schema.columns} - {"", GROUP} - taken
    for name, facts in reducers.items():
        coords = facts.get("coords", {}) if isinstance(facts, dict) else {}
        for dim, axis in typed(f"coords of {name}", coords, dict).items():
            where = f"axis {dim[:40]!r} of {name[:40]!r}"
            if name not in known or not dim.isidentifier():
                raise WireError(f"{where} belongs to no column")
            values = typed(where, axis, dict).get("values")
            if type(values) is not list or not all(type(v) in {int, float} for v in values):
                raise WireError(f"{where}: values must be numbers")


def _column(row: Any) -> Column:
    fields = len(Column._fields)
    if type(row) is not list or len(row) not in {fields - 1, fields}:
        raise WireError(f"a column has the fields {', '.join(Column._fields)}")
    name, dtype, shape, dims, unit, doc, reducer, codec, chunk, length = [*row, ""][:fields]
    texts = {"name": name, "unit": unit, "doc": doc, "reducer": reducer, "codec": codec}
    texts["length"] = length
    for field, value in texts.items():
        typed(field, value, str)
        limit(f"letters of {field}", len(value), 4096 if field == "doc" else MAX_TEXT)
    where = f"column {name[:40]!r}"
    if not name.isprintable() or any(part in {"", ".", ".."} for part in name.split("/")):
        raise WireError(f"{where}: not a path in a file")
    letters = _TEXT_DTYPE.fullmatch(dtype) if type(dtype) is str else None
    if dtype not in DTYPES and not (letters and int(letters[1]) <= MAX_LETTERS and shape == []):
        raise WireError(
            f"{where}: dtype {str(dtype)[:20]!r} is not a little-endian number or a text of one row"
        )
    if type(shape) is not list or type(dims) is not list or len(shape) > MAX_RANK:
        raise WireError(f"{where}: at most {MAX_RANK} axes")
    if not all(type(s) is int and 0 < s <= MAX_PAYLOAD for s in shape):
        raise WireError(f"{where}: shape must hold positive whole numbers")
    if not all(type(d) is str and len(d) <= MAX_TEXT for d in dims) or len(dims) > len(shape):
        raise WireError(f"{where}: dims must be names of its axes")
    if type(chunk) is not int or not 0 <= chunk <= MAX_CHUNK or chunk & (chunk - 1):
        raise WireError(f"{where}: a chunk has a power of two of rows, at most {MAX_CHUNK}")
    if codec and (codec not in CODECS or not shape or not chunk):
        raise WireError(f"{where}: codec {codec[:40]!r} for {chunk} rows of {shape}")
    return Column(name, dtype, tuple(shape), tuple(dims), unit, doc, reducer, codec, chunk, length)
