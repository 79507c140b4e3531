"""The one envelope between processes, and the one frame of a snapshot: a codec without sockets.

An envelope is three frames: a header (msgpack map), the schema (msgpack, parsed once per id; empty
for messages without rows) and a body. The body of ``shots`` is the buffer of a batch as it is, that
of ``sum`` is made like the frame of a snapshot, those of the other kinds are msgpack maps. Nothing
that arrives is trusted: whatever is malformed, foreign or too large raises :class:`WireError`, and
nothing else.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from math import prod
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from ffb.batch import Batch
from ffb.messaging import arrays
from ffb.messaging.checksum import crc32
from ffb.messaging.codec import check
from ffb.messaging.header import CHUNK, KINDS, VERSION, Header, parse
from ffb.messaging.untrusted import (
    DTYPES,
    MAX_COLUMNS,
    MAX_HEADER,
    MAX_PAYLOAD,
    MAX_RANK,
    MAX_ROWS,
    MAX_SCHEMA,
    MAX_STAMP,
    MAX_STATUS,
    MAX_VALUES,
    UNTRUSTED,
    Frame,
    WireError,
    check_coords,
    limit,
    packed,
    parse_schema,
    told,
    typed,
    unpacked,
)
from ffb.schema import ALIGN, Schema
from ffb.shot import BeginStep
from ffb.sink import Provenance
from ffb.sums.piece import Parcel, parcel_of

__all__ = [
    "KINDS",
    "VERSION",
    "Body",
    "Decoder",
    "EndRun",
    "Frame",
    "Header",
    "Message",
    "WireError",
    "encode",
    "pack",
    "unpack",
]


class EndRun(NamedTuple):
    """The producer is through with the run; ``ended`` says why, ``"end of run"`` if all is well."""

    ended: str = "end of run"


Body: TypeAlias = Batch | Provenance | BeginStep | Parcel | EndRun | Mapping[str, Any]


class Message(NamedTuple):
    """A decoded envelope. ``body`` is a :class:`Batch` for ``shots``, a :class:`Provenance` for
    ``begin_run``, a :class:`BeginStep`, a :class:`Parcel`, an :class:`EndRun`, or a map of plain
    data for ``status``.
    """  # noqa: D205 - one sentence

    header: Header
    schema: Schema | None
    body: Body


def encode(header: Header, schema: Schema | None, body: Body) -> list[Frame]:
    """Frames of one message; the payload of a batch is its own memory, not a copy.

    Do not write into the batch while the frames are in use. Raises :class:`WireError` when the
    message is larger than a decoder would accept.
    """
    columns = b"" if schema is None else schema.packed
    if schema is not None:
        header = header._replace(schema=schema.id)
    if isinstance(body, Batch):
        read = np.ascontiguousarray(body.read[: body.n], "<i8").tobytes()
        header = header._replace(n=body.n, read=read, encoded=_chunks(body))
        frame: Frame = memoryview(cast("Any", body.buffer))
        limit("rows", body.n, MAX_ROWS)
        limit("bytes of payload", len(frame), MAX_PAYLOAD)
    elif isinstance(body, Parcel):
        frame = pack(*body.plain)
    else:
        frame = packed(_plain_body(body))
        limit("bytes of body", len(frame), MAX_SCHEMA)
    head = packed({"v": VERSION, **header._asdict()})
    limit("bytes of header", len(head), MAX_HEADER)
    limit("bytes of schema", len(columns), MAX_SCHEMA)
    return [head, columns, frame]


class Decoder:
    """Decodes messages, parsing each schema once.

    ``unknown`` counts header fields that this version does not know: ignored beside rows and
    status, refused on the control path, where not understanding a word changes the meaning.
    """

    def __init__(self) -> None:
        self.unknown: Counter[str] = Counter()
        self._schemas: dict[bytes, Schema] = {}

    def __call__(self, frames: Sequence[Frame]) -> Message:
        """Message in ``frames``; its batch shares memory with the last of them.

        Raises :class:`WireError`.
        """
        try:
            return self._decode(frames)
        except WireError:
            raise
        except UNTRUSTED as e:
            raise WireError(f"malformed message: {told(e)}") from e

    def _decode(self, frames: Sequence[Frame]) -> Message:
        if len(frames) != 3:
            raise WireError(f"{len(frames)} frames; a message has 3: header, schema, body")
        head, columns, body = frames
        header = parse(unpacked("header", head, MAX_HEADER, 256), self.unknown)
        schema = self._schema(header.schema, columns) if header.schema or len(columns) else None
        if header.kind in {"shots", "begin_run"} and schema is None:
            raise WireError(f"{header.kind} without its schema")
        if header.kind != "shots":
            if header.n or header.read or header.encoded:
                raise WireError(f"{header.kind} carries no rows, yet n = {header.n}")
            if header.kind == "sum":
                return Message(header, schema, parcel_of(*unpack(body)))
            items = MAX_VALUES if header.kind == "begin_run" else MAX_COLUMNS
            most = MAX_STATUS if header.kind == "status" else MAX_SCHEMA
            plain = _BODIES[header.kind](unpacked("body", body, most, items))
            if isinstance(plain, Provenance) and schema is not None:
                check_coords(schema, dict(plain.reducers))
            return Message(header, schema, plain)
        assert schema is not None
        limit("rows", header.n, MAX_ROWS)
        limit("bytes of payload", len(body), MAX_PAYLOAD)
        if len(header.read) != 8 * header.n:
            raise WireError(f"{len(header.read)} bytes of read times for {header.n} rows")
        return Message(header, schema, _batch(header, schema, body))

    def _schema(self, name: bytes, frame: Frame) -> Schema:
        schema = self._schemas.get(name)
        if schema is None:
            schema = parse_schema(frame)
            if schema.id != name:
                raise WireError("the schema does not match the id in the header")
            if len(self._schemas) >= 64:  # a run has one; strangers may send many
                self._schemas.pop(next(iter(self._schemas)))
            self._schemas[name] = schema
        if bytes(frame) != schema.packed:
            raise WireError("the schema does not match the id in the header")
        return schema


def pack(meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """One frame of plain ``meta`` data and numeric ``arrays``, each at a multiple of 64 bytes.

    Raises :class:`WireError` for an array that is not an array of numbers, or a frame over 1 GiB.
    """
    at, table, blobs = 0, [], []
    for name, array in arrays.items():
        a = np.ascontiguousarray(array).reshape(np.shape(array))
        a = a.astype(a.dtype.newbyteorder("<"), copy=False)
        if a.dtype.str not in DTYPES:
            raise WireError(f"array {name!r} is {a.dtype}; only numbers and truth values travel")
        table.append((name, a.dtype.str, a.shape, at))
        pad = -a.nbytes % ALIGN
        blobs += [a.tobytes(), bytes(pad)]
        at += a.nbytes + pad
    head = packed({"meta": dict(meta), "arrays": table})
    limit("bytes of snapshot meta", len(head), MAX_SCHEMA)
    limit("bytes of snapshot", at, MAX_PAYLOAD)
    start = _PREFIX.pack(_MAGIC, VERSION, len(head))
    gap = bytes(-(len(start) + len(head)) % ALIGN)
    return b"".join([start, head, gap, *blobs])


def unpack(frame: Frame) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Meta data and arrays of a frame made by :func:`pack`; arrays are views of ``frame``.

    Raises :class:`WireError`.
    """
    try:
        return _unpack_snapshot(memoryview(frame))
    except WireError:
        raise
    except UNTRUSTED as e:
        raise WireError(f"malformed snapshot: {told(e)}") from e


def _unpack_snapshot(view: memoryview) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    limit("bytes of snapshot", len(view), MAX_PAYLOAD + MAX_SCHEMA + 2 * ALIGN)
    magic, version, size = _PREFIX.unpack_from(view)
    if (magic, version) != (_MAGIC, VERSION):
        raise WireError(f"not a snapshot of version {VERSION}")
    end = _PREFIX.size + size
    if end > len(view):
        raise WireError("the snapshot is cut short")
    head = typed(
        "snapshot", unpacked("meta", view[_PREFIX.size : end], MAX_SCHEMA, MAX_VALUES), dict
    )
    if head.keys() != {"meta", "arrays"}:
        raise WireError("a snapshot holds meta and arrays, nothing else")
    data, out = view[end + -end % ALIGN :], {}
    for name, dtype, shape, at in head["arrays"]:
        typed("name", name, str)
        if dtype not in DTYPES or len(shape) > 2 * MAX_RANK or type(at) is not int or at < 0:
            raise WireError(f"array {name[:40]!r} is described wrongly")
        if not all(type(s) is int and s >= 0 for s in shape):
            raise WireError(f"array {name[:40]!r} has no shape")
        stop = at + prod(shape) * np.dtype(dtype).itemsize
        if stop > len(data):
            raise WireError(f"array {name[:40]!r} reaches beyond the snapshot")
        out[name] = np.frombuffer(data[at:stop], dtype).reshape(shape)
    return typed("meta", head["meta"], dict), out


_PREFIX, _MAGIC = struct.Struct("<4sII"), b"ffbS"


def _chunks(batch: Batch) -> bytes:
    """What the header says of encoded columns."""
    if not batch.sizes:
        return b""
    out = np.zeros(len(batch.sizes), CHUNK)
    out["size"] = batch.sizes
    names = [c.name for c in batch.schema.columns]
    for name, chunk in batch.encoded.items():
        out["sum"][names.index(name)] = crc32(chunk)
    return out.tobytes()


def _batch(header: Header, schema: Schema, body: Frame) -> Batch:
    """Rows in ``body``; chunks are as they were sent, and HDF5 can walk through them."""
    limit("bytes of rows", schema.offsets(header.n)[-1], MAX_PAYLOAD)
    chunks = np.frombuffer(header.encoded, CHUNK)
    read = np.frombuffer(header.read, "<i8")
    batch = Batch.of(schema, header.n, body, read, chunks["size"].tolist())
    sums = chunks["sum"][chunks["size"] > 0].tolist()
    for (name, chunk), sum_ in zip(batch.encoded.items(), sums, strict=True):
        if crc32(chunk) != sum_:
            raise WireError(f"{name}: a chunk of {len(chunk)} bytes was damaged on its way")
        column = schema.by_name[name]
        check(chunk, header.n * prod(column.shape), np.dtype(column.dtype).itemsize)
    return batch


def _plain_body(body: Body) -> dict[str, Any]:
    if isinstance(body, Provenance | BeginStep):
        plain = {f.name: getattr(body, f.name) for f in fields(body)}
        return {k: dict(v) if isinstance(v, Mapping) else v for k, v in plain.items()}
    return body._asdict() if isinstance(body, EndRun) else dict(cast("Mapping[str, Any]", body))


def _exactly(what: str, raw: Any, expected: Mapping[str, type]) -> dict[str, Any]:
    got: dict[str, Any] = typed(what, raw, dict)
    if got.keys() != expected.keys():
        raise WireError(f"{what} holds {', '.join(expected)}, nothing else")
    for name, kind in expected.items():
        typed(f"{what}.{name}", got[name], kind)
    return got


def _numbers(what: str, got: dict[str, Any]) -> dict[str, float]:
    if not all(type(v) in {int, float} for v in got.values()):
        raise WireError(f"{what} must be numbers")
    return got


def _provenance(raw: Any) -> Provenance:
    text = dict.fromkeys(("config", "host", "command"), str)
    tables = dict.fromkeys(("inputs", "reducers", "constants", "versions"), dict)
    lists = dict.fromkeys(("notes", "arrays"), list)
    older: dict[str, Any] = {"inputs": {}, "arrays": []}  # what recordings made before it lack
    got = _exactly(
        "begin_run", {**older, **typed("begin_run", raw, dict)}, {**text, **tables, **lists}
    )
    if wrong := arrays.check(got["arrays"]):
        raise WireError(f"begin_run: {wrong}")
    texts = (*got["inputs"].values(), *got["versions"].values(), *got["notes"])
    if not all(type(v) is str for v in texts):
        raise WireError("begin_run: inputs, versions and notes must be text")
    return Provenance(**{**got, **{k: tuple(got[k]) for k in lists}})


def _step(raw: Any) -> BeginStep:
    kinds = {"step": int, "values": dict, "docstring": str, "timestamp": int}
    got = _exactly("step", raw, kinds)
    if not (0 <= got["step"] < 1 << 31 and 0 <= got["timestamp"] <= MAX_STAMP):
        raise WireError("step: its number or timestamp is out of range")
    return BeginStep(**{**got, "values": _numbers("step.values", got["values"])})


def _end_run(raw: Any) -> EndRun:
    return EndRun(**_exactly("end_run", raw, {"ended": str}))


def _status(raw: Any) -> dict[str, Any]:
    status: dict[str, Any] = typed("status", raw, dict)
    return status


_BODIES: dict[str, Callable[[Any], Body]] = {
    "begin_run": _provenance,
    "step": _step,
    "end_run": _end_run,
    "status": _status,
}
