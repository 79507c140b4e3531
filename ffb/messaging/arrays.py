"""Arrays of a whole run, such as masks and pixel positions: packed on their way into its file.

They travel with the parameters of every producer, so they have to be small: a mask goes as bits, a
detector's pixel positions as what they are made of, a function of the row and one of the column of
each segment. What does not become small so, such as the pedestals of a large detector, is left out,
and a note says so; the ids in ``ffb/constants`` tell where it is found.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.schema import ALIGN

#: Bytes that all arrays of a run may have together when packed.
ROOM = 2 << 20

#: Arrays of more bytes are not even tried, unless they have a form of their own.
LARGE = 4 * ROOM

#: Bounds for who unpacks what others have packed: arrays, and elements of all together.
MAX_ARRAYS, MAX_ELEMENTS = 256, 1 << 27

#: Positions that are a sum of rows and columns up to this are taken for one [the array's unit].
EXACT = 1e-3

_FIELDS = {"name": str, "form": str, "dtype": str, "shape": list, "unit": str, "doc": str,
           "data": bytes}  # fmt: skip
_DTYPES = ("<f4", "<f8", "<i2", "<i4", "<i8", "<u2", "<u4", "<u8", "|u1", "|i1")


class RunArray(NamedTuple):
    """An array of a run under its path in the file."""

    name: str
    values: NDArray[Any]
    unit: str
    doc: str


def packed(arrays: Iterable[RunArray], room: int = ROOM) -> tuple[list[dict[str, Any]], list[str]]:
    """Arrays as plain data, the first ones first while there is ``room``; names of all others."""
    out, left = [], []
    for a in arrays:
        made = _packed(a)
        size = len(made["data"]) if made else room + 1
        if made is None or size > room:
            left.append(a.name)
        else:
            out.append(made)
            room -= size + ALIGN
    return out, left


def _packed(a: RunArray) -> dict[str, Any] | None:
    values, form = np.ascontiguousarray(a.values), "plain"
    if values.dtype == np.bool_:
        form, raw = "bits", np.packbits(values).tobytes()
        values = values.view(np.uint8)
    elif (parts := _summands(values)) is not None:
        form, raw = "sum", b"".join(p.tobytes() for p in parts)
        values = values.astype("<f4")
    elif values.nbytes > LARGE:
        return None
    else:
        values = values.astype(values.dtype.newbyteorder("<"), copy=False)
        raw = values.tobytes()
    about = {"dtype": values.dtype.str, "shape": list(values.shape), "unit": a.unit, "doc": a.doc}
    return {"name": a.name, "form": form, **about, "data": zlib.compress(raw, 1)}


def _summands(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Functions of row and column whose sum ``values`` (segments, rows, columns) are, if so."""
    if values.ndim != 3 or values.dtype.kind != "f" or 0 in values.shape:
        return None
    rows, columns = values[:, :, 0] - values[:, :1, 0], values[:, 0]
    for s in range(len(values)):  # a segment at a time, for memory
        if not np.all(np.abs(rows[s, :, None] + columns[s] - values[s]) <= EXACT):  # NaN as well
            return None
    return rows.astype("<f8"), columns.astype("<f8")


def check(arrays: Sequence[Mapping[str, Any]]) -> str:
    """What is wrong with packed arrays from strangers, ``""`` if nothing that shows unpacked."""
    if len(arrays) > MAX_ARRAYS:
        return f"{len(arrays)} arrays; at most {MAX_ARRAYS} are allowed"
    total, names = 0, set[str]()
    for a in arrays:
        if type(a) is not dict or a.keys() != _FIELDS.keys():
            return f"an array holds {', '.join(_FIELDS)}, nothing else"
        if wrong := [k for k, kind in _FIELDS.items() if type(a[k]) is not kind]:
            return f"{', '.join(wrong)} of an array is of a wrong type"
        name, shape = a["name"], a["shape"]
        where = f"array {name[:40]!r}"
        parts = name.split("/")
        above = {"/".join(parts[:k]) for k in range(1, len(parts))}
        inside = any(n.startswith(f"{name}/") for n in names) or above & names
        if not name.isprintable() or {"", ".", ".."} & {*parts} or name in names or inside:
            return f"{where}: not a path of its own in a file"
        if a["dtype"] not in _DTYPES or not all(type(n) is int and n > 0 for n in shape):
            return f"{where}: not an array of numbers"
        if len(shape) > 8 or a["form"] not in {"plain", "bits", "sum"}:
            return f"{where}: packed in an unknown way"
        if (total := total + prod(shape)) > MAX_ELEMENTS:
            return f"{where}: more than {MAX_ELEMENTS} elements together"
        names.add(name)
    return ""


def unpacked(a: Mapping[str, Any]) -> RunArray:
    """Undo :func:`packed`; ``ValueError`` where the data are not what they are said to be."""
    shape, dtype = tuple(a["shape"]), np.dtype(a["dtype"])
    n = prod(shape)
    if a["form"] == "bits":
        raw = np.frombuffer(_inflated(a, -(-n // 8)), np.uint8)
        values = np.unpackbits(raw, count=n).reshape(shape).astype(dtype)
    elif a["form"] == "sum":
        if len(shape) != 3:
            raise ValueError(f"array {a['name']}: {shape} are not rows and columns of segments")
        s, r, c = shape
        both = np.frombuffer(_inflated(a, 8 * s * (r + c)), "<f8")
        rows, columns = both[: s * r].reshape(s, r, 1), both[s * r :].reshape(s, 1, c)
        values = (rows + columns).astype(dtype)
    else:
        values = np.frombuffer(_inflated(a, n * dtype.itemsize), dtype).reshape(shape)
    return RunArray(str(a["name"]), values, str(a["unit"]), str(a["doc"]))


def _inflated(a: Mapping[str, Any], size: int) -> bytes:
    """Exactly ``size`` bytes, never more."""
    try:
        raw = zlib.decompressobj().decompress(a["data"], size + 1)
    except zlib.error as e:
        raise ValueError(f"array {a['name']} does not unpack: {e}") from e
    if len(raw) != size:
        raise ValueError(f"array {a['name']} has {len(raw)} bytes or more, not {size}")
    return raw
