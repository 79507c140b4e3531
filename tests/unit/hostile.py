"""Messages nobody honest would send, by name; with the honest ones the fuzzer starts from them."""

from __future__ import annotations

import hashlib
import struct
from typing import Any
from zlib import crc32

import msgpack
import numpy as np

from ffb.batch import compressed
from ffb.messaging.header import CHUNK
from ffb.schema import CORE, Column, Schema
from ffb.wire import VERSION, Header, encode
from tests.unit.spoken import filled, messages

BEGIN, SHOTS, STEP, END, STATUS = range(5)
BIG = 2**64 - 1

Frames = list[bytes]


def honest(kind: int) -> Frames:
    """A good message of every kind, in the order of ``KINDS``."""
    return [bytes(f) for f in messages()[kind]]


def headed(kind: int, /, **changes: Any) -> Frames:
    """A good message whose header says something else."""
    head, *rest = honest(kind)
    return [msgpack.packb(msgpack.unpackb(head) | changes), *rest]


def bodied(kind: int, /, **changes: Any) -> Frames:
    """A good message whose body says something else."""
    *rest, body = honest(kind)
    return [*rest, msgpack.packb(msgpack.unpackb(body) | changes)]


def raw_body(kind: int, body: bytes) -> Frames:
    """A good header with a body from elsewhere."""
    return [*honest(kind)[:2], body]


def column(name: str = "x", dtype: Any = "<f8", **more: Any) -> list[Any]:
    """A column as the wire has it."""
    fields = {"shape": [], "dims": [], "unit": "1", "doc": "", "reducer": "", "codec": ""}
    return [name, dtype, *(fields | {"chunk": 0} | more).values()]


def schemed(*columns: Any, rows: int = 0) -> Frames:
    """Shots under a schema of the usual columns and these; the id is right."""
    schema = msgpack.packb([*[list(c) for c in CORE], *columns])
    name = hashlib.blake2b(schema, digest_size=8).digest()
    head = headed(SHOTS, schema=name, n=rows, read=bytes(8 * rows))[0]
    return [head, schema, b""]


def nested(depth: int, seed: bytes = b"\xc0") -> bytes:
    return b"\x91" * depth + seed


def encoded() -> Frames:
    """Good shots of which one column is compressed."""
    wave = Column("wave", "<f4", (64,), codec="bitshuffle-lz4", chunk=16)
    batch = filled(Schema((*CORE, wave)), 16)
    frames = encode(Header("shots", "e", 1, 2, "p", 3, 4), batch.schema, compressed(batch))
    return [bytes(f) for f in frames]


def reencoded(**changes: Any) -> Frames:
    """Those with another header."""
    head, *rest = encoded()
    return [msgpack.packb(msgpack.unpackb(head) | changes), *rest]


def _chunk_at(payload: bytes) -> int:
    """Where the chunk begins: with the bytes of its data, and those of a block."""
    return payload.index(struct.pack(">Q", 16 * 64 * 4))


def resealed(frames: Frames) -> Frames:
    """Encoded shots with the sums of their chunks as they are."""
    head, schema, payload = frames
    told, at = (
        np.frombuffer(msgpack.unpackb(head)["encoded"], CHUNK).copy(),
        _chunk_at(encoded()[2]),
    )
    told["sum"][-1] = crc32(payload[at : at + int(told["size"][-1])])
    return [msgpack.packb(msgpack.unpackb(head) | {"encoded": told.tobytes()}), schema, payload]


def unsound(**changes: Any) -> Frames:
    """Encoded shots whose chunk comes as it was sent, and does not unpack."""
    head, schema, payload = reencoded(**changes)
    at = _chunk_at(payload)
    size = int(np.frombuffer(msgpack.unpackb(head)["encoded"], CHUNK)["size"][-1])
    noise = payload[: at + 16] + b"\xff" * (size - 16) + payload[at + size :]
    return resealed([head, schema, noise])


def _flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def corpus() -> dict[str, Frames]:
    """Every hostile message by its name."""
    return {**_framing(), **_headers(), **_encoded(), **_bombs(), **_schemas(), **_bodies()}


def _framing() -> dict[str, Frames]:
    head, schema, payload = honest(SHOTS)
    out = {
        "no frames at all": [],
        "one frame": [head],
        "two frames": [head, schema],
        "four frames": [head, schema, payload, b""],
        "frames in another order": [payload, schema, head],
        "header twice": [head, head, payload],
        "empty frames": [b"", b"", b""],
        "header cut in the middle": [head[: len(head) // 2], schema, payload],
        "header without its last byte": [head[:-1], schema, payload],
        "schema cut in the middle": [head, schema[: len(schema) // 2], payload],
        "schema missing": [head, b"", payload],
        "payload cut in the middle": [head, schema, payload[: len(payload) // 2]],
        "payload without its last byte": [head, schema, payload[:-1]],
        "payload one byte longer": [head, schema, payload + b"\0"],
        "payload missing": [head, schema, b""],
        "garbage behind the header": [head + b"\xc0", schema, payload],
        "a bit of the schema flipped": [head, _flip(schema, 5), payload],
        "a pickle for a header": [b"\x80\x04\x95\x0b\x00.", schema, payload],
        "JSON for a header": [b'{"v": 2, "kind": "shots"}', schema, payload],
        "a snapshot for a header": [struct.pack("<4sII", b"ffbS", VERSION, 0), b"", b""],
    }
    for k, kind in enumerate(("begin_run", "step", "end_run", "status")):
        head, schema, body = honest(k + (k > 0))
        out[f"{kind} cut in its body"] = [head, schema, body[:-1]]
        out[f"{kind} with rows for a body"] = [head, schema, payload]
    return out


def _headers() -> dict[str, Frames]:
    return {
        "rows promised, none there": headed(SHOTS, n=6, read=bytes(48)),
        "more rows than read times": headed(SHOTS, read=bytes(32)),
        "rows beyond 64 bits": headed(SHOTS, n=BIG),
        "negative rows": headed(SHOTS, n=-1),
        "rows as a fraction": headed(SHOTS, n=5.0),
        "rows as NaN": headed(SHOTS, n=float("nan")),
        "rows in a step": headed(STEP, n=1),
        "an unknown kind": headed(SHOTS, kind="steal"),
        "an empty kind": headed(SHOTS, kind=""),
        "a begin_run that is no map": raw_body(BEGIN, msgpack.packb([1, 2, 3])),
        "another protocol": headed(SHOTS, v=VERSION + 1),
        "an experiment that climbs": headed(BEGIN, exp="../../../tmp/x"),
        "an experiment that is a path": headed(BEGIN, exp="/etc/passwd"),
        "an experiment with a format": headed(BEGIN, exp="{0.__class__}"),
        "an experiment with a zero byte": headed(BEGIN, exp="a\0b"),
        "an experiment with a line end": headed(BEGIN, exp="mfx\nlog forged"),
        "a hidden experiment": headed(BEGIN, exp=".ssh"),
        "an endless experiment": headed(BEGIN, exp="x" * 256),
        "a producer that climbs": headed(SHOTS, producer="../p"),
        "a run beyond 63 bits": headed(SHOTS, run=BIG),
        "a negative run": headed(SHOTS, run=-7),
        "a beginning before time": headed(BEGIN, began=-1),
        "a process beyond 63 bits": headed(SHOTS, epoch=BIG),
        "a message number beyond 63 bits": headed(SHOTS, seq=BIG),
        "a schema id of text": headed(SHOTS, schema="12345678"),
        "a schema id of nobody": headed(SHOTS, schema=b"12345678"),
        "a schema id too long": headed(SHOTS, schema=bytes(4096)),
        "counts beyond 63 bits": headed(SHOTS, counts={"read": BIG, "lost": {}}),
        "losses beyond 63 bits": headed(SHOTS, counts={"read": 5, "lost": {"x": BIG}}),
        "a negative loss": headed(SHOTS, counts={"read": 5, "lost": {"x": -1}}),
        "a loss of NaN": headed(SHOTS, counts={"read": 5, "lost": {"x": float("nan")}}),
        "a true loss": headed(SHOTS, counts={"read": 5, "lost": {"x": True}}),
        "a loss with a zero byte": headed(SHOTS, counts={"read": 5, "lost": {"x\0": 1}}),
        "losses that are no list": headed(SHOTS, losses={"x": 1}),
        "a loss that is text": headed(SHOTS, losses=["backpressure"]),
        "a loss with one stamp": headed(SHOTS, losses=[["x", 1, 1]]),
        "a loss of negative shots": headed(SHOTS, losses=[["x", 1, 2, -1]]),
        "a loss of half a shot": headed(SHOTS, losses=[["x", 1, 2, 0.5]]),
        "a loss before time": headed(SHOTS, losses=[["x", -1, 2, 1]]),
        "a loss beyond 64 bits": headed(SHOTS, losses=[["x", 1, 2, BIG]]),
        "a loss without a reason": headed(SHOTS, losses=[[None, 1, 2, 1]]),
        "losses without end": headed(SHOTS, losses=[["x", 1, 2, 1]] * 20_001),
        "a step with losses of bytes": headed(STEP, losses=[[b"x", 1, 2, 1]]),
        "a field too many in a begin_run": headed(BEGIN, evil=True),
    }


def _encoded() -> dict[str, Frames]:
    head, schema, payload = encoded()
    told = np.frombuffer(msgpack.unpackb(head)["encoded"], CHUNK)
    at = _chunk_at(payload)

    def lie(which: int, size: int) -> bytes:
        out = told.copy()
        out[which] = size, crc32(payload[at : at + size])
        return out.tobytes()

    def written(offset: int, form: str, value: int) -> Frames:
        spoilt = bytearray(payload)
        struct.pack_into(form, spoilt, at + offset, value)
        return resealed([head, schema, bytes(spoilt)])

    return {
        "encoded sizes of nothing": headed(SHOTS, encoded=b"\1"),
        "encoded sizes for fewer columns": headed(SHOTS, encoded=bytes(8)),
        "encoded sizes of columns without a codec": reencoded(encoded=lie(0, 64)),
        "encoded sizes beyond the payload": reencoded(encoded=lie(-1, 2**31)),
        "encoded sizes that overflow": reencoded(encoded=lie(-1, 2**32 - 1)),
        "encoded sizes of the rows themselves": reencoded(encoded=lie(-1, 16 * 64 * 4)),
        "encoded sizes one too small": reencoded(encoded=lie(-1, int(told["size"][-1]) - 1)),
        "encoded sizes forgotten": reencoded(encoded=b""),
        "encoded sizes in a step": headed(STEP, encoded=told.tobytes()),
        "encoded sizes as a list": headed(SHOTS, encoded=[1, 2]),
        "encoded rows of another number": reencoded(n=15, read=bytes(120)),
        "a chunk of more than its rows": written(0, ">Q", 2**40),
        "a chunk of nothing": written(0, ">Q", 0),
        "a chunk in blocks of nothing": written(8, ">I", 0),
        "a chunk in endless blocks": written(8, ">I", 2**32 - 1),
        "a chunk in odd blocks": written(8, ">I", 3),
        "a block beyond its chunk": written(12, ">I", 2**31),
        "a block of nothing": written(12, ">I", 0),
        "a chunk with a bit flipped": [head, schema, _flip(payload, at + 20)],
        "a chunk of noise": [head, schema, payload[: at + 16] + b"\xff" * (len(payload) - at - 16)],
        "a chunk with the sum of another": reencoded(encoded=told.tobytes()[:-1] + b"\0"),
        "terabytes in a chunk": schemed(
            column(shape=[1 << 24], codec="bitshuffle-lz4", chunk=65536), rows=65536
        ),
    }


def _bombs() -> dict[str, Frames]:
    _, schema, payload = honest(SHOTS)
    heads = {
        "a deep header": nested(10_000),
        "a deep map": b"\x81\xa1a" * 600 + b"\xc0",
        "a header of promised lists": b"\xdd\x00\x00\x01\x00" * 1000,
        "a header that promises 4 G items": b"\xdd\xff\xff\xff\xff",
        "a header that promises 4 G keys": b"\xdf\xff\xff\xff\xff",
        "a header that promises 4 GB of text": b"\xdb\xff\xff\xff\xff",
        "a header of 1 MiB and one": b"\xc6\x00\x10\x00\x00" + bytes(1 << 20),
        "an extension": msgpack.packb({"v": msgpack.ExtType(5, b"x")}),
        "a time as msgpack knows it": msgpack.packb({"v": msgpack.Timestamp(1)}),
        "a reserved byte": b"\xc1",
        "a number for a key": b"\x81\x01\x01",
        "bytes for a key": b"\x81\xc4\x01v\x01",
        "a list for a key": b"\x81\x91\x01\x01",
        "one key twice": b"\x82\xa1v\x02\xa1v\x02",
        "text that is no UTF-8": b"\x81\xa1v\xa2\xff\xfe",
        "half a surrogate": b"\x81\xa1v\xa3\xed\xa0\x80",
        "257 keys": msgpack.packb({f"k{i}": 0 for i in range(257)}),
    }
    out = {name: [head, schema, payload] for name, head in heads.items()}
    wide = b"\xdd\x00\x02\x00\x01" + bytes(0x20001)
    out["a wide list in a status"] = raw_body(STATUS, b"\x81\xa1a" + wide)
    out["a status of a megabyte"] = bodied(STATUS, x="x" * (1 << 20))
    out["a million empty maps"] = raw_body(STATUS, b"\x81\xa1a" + _million(b"\x80"))
    out["extensions in a begin_run"] = bodied(BEGIN, reducers={"r": msgpack.ExtType(1, b"")})
    return out


def _million(item: bytes) -> bytes:
    thousand = b"\xdc\x03\xe8" + item * 1000
    return b"\xdc\x03\xe8" + thousand * 1000


def _schemas() -> dict[str, Frames]:
    return {
        "a column in ffb's own tables": schemed(column("ffb/committed")),
        "a column among ffb's own": schemed(column("ffb/mine")),
        "a column in place of ffb's group": schemed(column("ffb")),
        "a column below another": schemed(column("a"), column("a/b")),
        "a column below a core one": schemed(column("timestamp/x")),
        "a column above the core's": schemed(column("lightStatus")),
        "the same column twice": schemed(column("a"), column("a")),
        "a column that climbs": schemed(column("../x")),
        "a column that climbs within": schemed(column("a/../ffb/committed")),
        "a column of nothing": schemed(column("")),
        "a column with a hole": schemed(column("a//b")),
        "a column from the root": schemed(column("/x")),
        "a column that stays": schemed(column("a/./b")),
        "a column with a zero byte": schemed(column("a\0b")),
        "a column that turns letters round": schemed(column("x\u202ey")),
        "a unit with a zero byte": schemed(column(unit="a\0b")),
        "a doc with a zero byte": schemed(column(doc="a\0b")),
        "a doc without end": schemed(column(doc="x" * 5000)),
        "more names than axes": schemed(column(shape=[3], dims=["a", "b"])),
        "axes that are numbers": schemed(column(shape=[3], dims=[1])),
        "a shape of 16 Mpx and one": schemed(column(shape=[(1 << 24) + 1])),
        "a shape beyond memory": schemed(column(shape=[2**30, 2**30, 2**30, 2**30])),
        "a shape that overflows": schemed(column(shape=[2**63])),
        "a shape of NaN": schemed(column(shape=[float("nan")])),
        "a column of objects": schemed(column(dtype="|O")),
        "a column of text": schemed(column(dtype="<U9")),
        "a column of a record": schemed(column(dtype="<f8,<f8")),
        "a column of times": schemed(column(dtype="<M8[ns]")),
        "a column of void": schemed(column(dtype="|V8")),
        "a column the wrong way round": schemed(column(dtype=">f8")),
        "a type that is no text": schemed(column(dtype=8)),
        "a chunk of minus one": schemed(column(chunk=-1)),
        "a chunk beyond any batch": schemed(column(chunk=2**40)),
        "a codec without end": schemed(column(codec="z" * 5000)),
        "a codec nobody has": schemed(column(codec="rot13", shape=[4], chunk=128)),
        "a column with a field missing": schemed(column()[:-1]),
        "a column with a field too many": schemed([*column(), 0]),
        "a column that is a map": schemed({"name": "x"}),
        "20 001 columns": schemed(*[column(f"c{i}") for i in range(20_001)]),
        "rows of a foreign schema": [*schemed(column("y"), rows=5)[:2], honest(SHOTS)[2]],
    }


def _bodies() -> dict[str, Frames]:
    axis = {"values": [1.0], "unit": "1"}
    return {
        "a configuration with a zero byte": bodied(BEGIN, config="a\0b"),
        "a configuration of bytes": bodied(BEGIN, config=b"x"),
        "reducers that are a list": bodied(BEGIN, reducers=[]),
        "versions that are numbers": bodied(BEGIN, versions={"ffb": 1}),
        "notes that are no text": bodied(BEGIN, notes=[None]),
        "axes that are a number": bodied(BEGIN, reducers={"r": {"coords": 5}}),
        "an axis that is a word": bodied(BEGIN, reducers={"r": {"coords": {"x": "y"}}}),
        "an axis of words": bodied(BEGIN, reducers={"r": {"coords": {"x": {"values": ["a"]}}}}),
        "an axis without values": bodied(BEGIN, reducers={"r": {"coords": {"x": {}}}}),
        "an axis that climbs": bodied(BEGIN, reducers={"r": {"coords": {"../ffb/x": axis}}}),
        "an axis of nobody's": bodied(BEGIN, reducers={"evil": {"coords": {"x": axis}}}),
        "an axis among ffb's own": bodied(BEGIN, reducers={"ffb": {"coords": {"x": axis}}}),
        "an axis below a column": bodied(BEGIN, reducers={"timestamp": {"coords": {"x": axis}}}),
        "a step beyond 31 bits": bodied(STEP, step=2**31),
        "a step before the first": bodied(STEP, step=-1),
        "a step of NaN": bodied(STEP, step=float("nan")),
        "a step that is true": bodied(STEP, step=True),
        "a step from before time": bodied(STEP, timestamp=-1),
        "a motor that is a word": bodied(STEP, values={"lxt": "fast"}),
        "a motor that is a list": bodied(STEP, values={"lxt": [1.0]}),
        "a motor with a zero byte": bodied(STEP, values={"l\0": 1.0}),
        "words with a zero byte": bodied(STEP, docstring="a\0b"),
        "an end with a zero byte": bodied(END, ended="a\0b"),
        "an end of bytes": bodied(END, ended=b"x"),
        "an end with a field too many": bodied(END, really=True),
        "a status that is a list": raw_body(STATUS, msgpack.packb([1, 2])),
        "a status with an alarm of zero": bodied(STATUS, alarm="\0"),
    }
