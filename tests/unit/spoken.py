"""One message of every kind, for tests of codec and captures."""

from typing import Any

import msgpack
import numpy as np

from ffb.batch import Batch
from ffb.schema import CORE, Column, Schema
from ffb.shot import BeginStep
from ffb.sink import Provenance
from ffb.wire import EndRun, Header, encode

SCHEMA = Schema(
    (*CORE, Column("a/b", "<f4", (2, 3), ("y", "x"), "keV", "doc", "r"), Column("n", "<i8"))
)


def filled(schema: Schema, n: int, seed: int = 0) -> Batch:
    batch = Batch(schema, n)
    batch.buffer[:] = np.random.default_rng(seed).integers(0, 2, batch.buffer.size, np.uint8)
    batch.read[:] = np.arange(n) + 10**18
    return batch


def messages() -> list[list[Any]]:
    shots = encode(Header("shots", "e", 1, 2, "p", 3, 4), SCHEMA, filled(SCHEMA, 5))
    provenance = Provenance("text", {"r": {"v": 1}}, {}, {"ffb": "1"}, "h", "c", ("n",))
    return [
        encode(Header("begin_run", "e", 1, 2, "p", 3, 1), SCHEMA, provenance),
        shots,
        encode(Header("step", "e", 1, 2, "p", 3, 5), None, BeginStep(1, {"x": 0.5}, "d", 9)),
        encode(Header("end_run", "e", 1, 2, "p", 3, 6), None, EndRun("stopped")),
        encode(Header("status", producer="p", epoch=3), None, {"hz": 119.5, "lost": {"a": 1}}),
    ]


def reheaded(frames: list[Any], **changes: object) -> list[Any]:
    """The message with other fields in its header; one that is "gone" is left out."""
    head = msgpack.unpackb(bytes(frames[0])) | changes
    return [msgpack.packb({k: v for k, v in head.items() if v != "gone"}), *frames[1:]]
