"""Ways to spoil bytes and plain data, all drawn from one random generator."""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Sequence
from typing import Any

import msgpack

#: Numbers at which code breaks.
EDGES = (
    *(0, 1, -1, 127, 128, 255, 256, 65535, 2**31 - 1, 2**31, -(2**31), 2**32, 2**53, 2**63 - 1),
    *(-(2**63), 2**63, 2**64 - 1),
)

VALUES: tuple[Any, ...] = (
    *EDGES,
    *(None, True, False, 0.5, -0.0, float("nan"), float("inf"), 1e308, "", "x", "\0", "a/b"),
    *(
        "../x",
        "ffb/committed",
        "timestamp",
        "\x1b[31m",
        "x" * 300,
        "é\u202e",
        b"",
        b"\xff" * 9,
        [],
        {},
    ),
    *([[]] * 3, {"a": {"b": []}}, [[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]], {"": ""}),
)

#: A list, a map, bytes and an extension that promise more than there is.
_LENGTHS = tuple(k + b"\xff\xff\xff\xff" for k in (b"\xdd", b"\xdf", b"\xc6", b"\xc9"))


def spoil(rng: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """``data`` after a few random edits, some of them splices of ``others``."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at, size = rng.randint(0, len(out)), rng.choice((1, 2, 4, 8, 64))
        match rng.randrange(10):
            case 0 | 1 if out:
                out[at % len(out)] ^= 1 << rng.randrange(8)
            case 2 if out:
                out[at % len(out)] = rng.randrange(256)
            case 3:
                del out[at : at + size]
            case 4:
                out[at:at] = rng.randbytes(size)
            case 5:
                out[at:at] = out[at : at + size]
            case 6:
                del out[at:]
            case 7:
                form, most = rng.choice((("<I", 32), (">I", 32), ("<Q", 64), (">Q", 64)))
                number = struct.pack(form, rng.choice(EDGES) % (1 << most))
                out[at : at + len(number)] = number
            case 8:
                out[at:at] = rng.choice(_LENGTHS)
            case 9:
                other = rng.choice(others)
                begin = rng.randint(0, len(other))
                out[at : at + size] = other[begin : begin + rng.choice((4, 32, 512))]
    return bytes(out)


def twist(rng: random.Random, value: Any, depth: int = 0) -> Any:
    """Plain data with one part of it replaced, removed or doubled."""
    if depth and (rng.random() < 0.35 or not isinstance(value, dict | list) or not value):
        return rng.choice(VALUES) if rng.random() < 0.8 else _near(rng, value)
    if isinstance(value, dict):
        out, key = dict(value), rng.choice(list(value))
        match rng.randrange(6):
            case 0:
                del out[key]
            case 1:
                out[rng.choice(("evil", "", "n", "schema", "x" * 300, "\0"))] = rng.choice(VALUES)
            case _:
                out[key] = twist(rng, value[key], depth + 1)
        return out
    if isinstance(value, list):
        out_, at = [*value], rng.randrange(len(value))
        match rng.randrange(6):
            case 0:
                del out_[at]
            case 1:
                out_ *= rng.choice((2, 50))
            case 2:
                rng.shuffle(out_)
            case _:
                out_[at] = twist(rng, value[at], depth + 1)
        return out_
    return rng.choice(VALUES)


def _near(rng: random.Random, value: Any) -> Any:
    """Something like ``value``."""
    match value:
        case bool() | None:
            return not value
        case int():
            return value + rng.choice((-1, 1, 8, -8, 64))
        case float():
            return value * rng.choice((-1.0, 0.0, 1e300))
        case bytes():
            return spoil(rng, value, [value])
        case str():
            return value + rng.choice(("x", "/x", "\0", "\n", "../", ".."))
        case _:
            return value


def repacked(rng: random.Random, frames: Sequence[bytes]) -> list[bytes]:
    """A message edited as the data it is; what depends on what is often made to agree again."""
    head, schema, body = frames
    header = msgpack.unpackb(head)
    which = rng.randrange(4)
    if which == 0 and schema:
        columns = twist(rng, msgpack.unpackb(schema))
        schema = _pack(columns)
    elif which == 1 and header["kind"] != "shots":
        body = _pack(twist(rng, msgpack.unpackb(body)))
    else:
        header = twist(rng, header)
    if schema and rng.random() < 0.9 and isinstance(header.get("schema"), bytes):
        header["schema"] = hashlib.blake2b(schema, digest_size=8).digest()
    n = header.get("n")
    if rng.random() < 0.5 and type(n) is int and 0 <= n < 10_000 and header.get("kind") == "shots":
        header["read"] = bytes(8 * n)
    return [_pack(header), schema, body]


def _pack(value: Any) -> bytes:
    try:
        return bytes(msgpack.packb(value))
    except (OverflowError, ValueError):  # beyond what msgpack can say
        return b"\xc0"
