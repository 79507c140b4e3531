"""A peer on the lossless way that keeps to no rule, and an honest producer beside it."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from ffb.aggregating.serve import Service
from ffb.batch import Batch
from ffb.config import Config, parse
from ffb.schema import CORE, Column, Schema
from ffb.sink import Provenance
from ffb.source import RunInfo
from ffb.transport import Link
from ffb.wire import EndRun, Header, encode
from ffb.writers.chain import Rolling
from ffb.writers.small_data import SmallData

EXP, RUN = "tstx00001", {"exp": "tstx00001", "run": 1, "began": 5}
SCHEMA = Schema((*CORE, Column("x", "<f8"), Column("wave", "<f4", (4,), ("t",))))
FIRST = 2**40
DEADLINE_S = 120

_PREFIX = struct.Struct("<4scQQ")


def serve(folder: Path, files: Path | None = None, **writer: float) -> Service:
    """An aggregator in this process, with its files in ``folder``, or elsewhere."""
    tables: dict[str, Any] = {
        "source": {"kind": "synthetic", "exp": EXP},
        "transport": {"aggregator": f"ipc://{folder}/a", "views": f"ipc://{folder}/v"},
        "aggregate": {"commit_ms": 1.0, "horizon_ms": 20.0, "end_timeout_s": 60.0},
        "writer": {"directory": str(files or folder / "h5"), **writer},
        "run": {"producers": 1},
    }
    return Service(parse(tables), writer_of)


def writer_of(config: Config, info: RunInfo) -> SmallData:
    """What writes a run, as `ffb aggregate` makes it."""
    file = config.file(info.exp, info.run)
    w = config.writer
    return SmallData(file.parent, file.name, Rolling(w.segment_rows, w.segment_s, w.sync_s))


def rows(first: int, n: int = 3, schema: Schema = SCHEMA, **values: Any) -> Batch:
    """Rows whose ``x`` is their timestamp, with other values where they are given."""
    batch = Batch(schema, n)
    batch.buffer[:] = 0
    stamps = first + np.arange(n, dtype=np.uint64)
    batch.columns["timestamp"][:] = stamps
    if "x" in batch.columns:
        batch.columns["x"][:] = stamps
    batch.columns["ffb/kept"][:] = 1.0
    batch.read[:] = time.time_ns()
    for name, value in values.items():
        (batch.read if name == "read" else batch.columns[name])[:] = value
    return batch


class Honest:
    """A producer that does everything right; ``stamps`` are those of all rows it sent."""

    def __init__(self, service: Service, name: str = "good") -> None:
        self.service = service
        self.link = Link(service.hub.address, name)
        self.read, self.stamps = 0, list[int]()
        self.link.send(Header("begin_run", **RUN), SCHEMA, Provenance())

    def shots(self, n: int = 3) -> None:
        """Send some rows, each with a timestamp of its own."""
        first = self.stamps[-1] + 7 if self.stamps else FIRST
        self.stamps += range(first, first + n)
        self.read += n
        counts = {"read": self.read, "lost": {}}
        self.link.send(Header("shots", **RUN, counts=counts), SCHEMA, rows(first, n))

    def end(self) -> None:
        """Say that the run is over."""
        counts = {"read": self.read, "lost": {}}
        self.link.send(Header("end_run", **RUN, counts=counts), None, EndRun())


class Stranger:
    """A peer that says whatever it is told to say."""

    def __init__(self, service: Service, name: str = "evil", epoch: int = 7) -> None:
        self.name, self.epoch, self.seq = name, epoch, 0
        self.acked, self.said = 0, b""
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.setsockopt(zmq.ROUTING_ID, f"{name}/{epoch}".encode())
        self._socket.connect(service.hub.address)

    def raw(self, *frames: bytes) -> None:
        """Send frames as they are."""
        self._socket.send_multipart([*frames])

    def put(self, kind: bytes, seq: int, *frames: bytes, magic: bytes = b"ffb1") -> None:
        """Send frames behind a prefix."""
        self.raw(_PREFIX.pack(magic, kind, self.epoch, seq), *frames)

    def hello(self, name: str | None = None, acked: int = 0, after: int = 0) -> None:
        """Introduce ourselves, by whatever name, as heir of whatever process."""
        who = (self.name if name is None else name).encode()
        self.put(b"H", acked, who, after.to_bytes(8, "little"))

    def data(self, *frames: bytes) -> None:
        """Send a numbered message."""
        self.seq += 1
        self.put(b"D", self.seq, *frames)

    def say(self, kind: str, schema: Schema | None, body: Any, **header: Any) -> None:
        """Send a message that is what it should be, but for ``header``."""
        about = {**RUN, "producer": self.name, "epoch": self.epoch, "seq": self.seq + 1} | header
        self.data(*(bytes(f) for f in encode(Header(kind, **about), schema, body)))

    def begin(self, schema: Schema = SCHEMA, **header: Any) -> None:
        """Join a run."""
        self.hello()
        self.say("begin_run", schema, Provenance(), **header)

    def shots(self, batch: Batch, read: int, lost: Mapping[str, int] = {}, **header: Any) -> None:
        """Send rows, with counts."""
        self.say("shots", batch.schema, batch, counts={"read": read, "lost": dict(lost)}, **header)

    def hear(self) -> None:
        """Take what the aggregator says."""
        while self._socket.poll(0):
            frames = self._socket.recv_multipart()
            _, kind, _, seq = _PREFIX.unpack(frames[0])
            if kind == b"X":
                self.said = frames[1]
            else:
                self.acked = max(self.acked, seq)

    def close(self) -> None:
        """Be gone."""
        self._context.destroy(0)


def serve_until(service: Service, done: Callable[[], bool], *peers: Any) -> None:
    """Turn the aggregator until something has come about."""
    end = time.monotonic() + DEADLINE_S
    while not done():
        assert time.monotonic() < end, f"it never came about; fault {service.aggregator.fault!r}"
        service.turn()
        for peer in peers:
            peer.link.pump() if isinstance(peer, Honest) else peer.hear()
