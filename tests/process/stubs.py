"""Small processes for the tests of the transport, started from a fork server."""

from __future__ import annotations

import os
import random
import struct
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np

from ffb.batch import Batch
from ffb.schema import CORE, Column, Schema
from ffb.transport import Hub, Link, Subscriber
from ffb.wire import Decoder, Header

SCHEMA = Schema((*CORE, Column("x", "<f8", (24,))))
ROWS = 100
RECORD = struct.Struct("<16sQQQ")


def batch(value: int) -> Batch:
    """A batch that can be recognised by ``value``, and its damage by its rows."""
    out = Batch(SCHEMA, ROWS)
    out.buffer[:] = 0
    out.columns["timestamp"][:] = value
    out.columns["x"][:] = value + np.arange(ROWS)[:, None]
    return out


def records(ledger: Path) -> list[tuple[str, int, int, int]]:
    """Name, epoch, seq and value of every message in ``ledger``; a torn record is no record."""
    data = ledger.read_bytes() if ledger.exists() else b""
    whole = data[: len(data) // RECORD.size * RECORD.size]
    return [
        (name.rstrip(b"\0").decode(), epoch, seq, value)
        for name, epoch, seq, value in RECORD.iter_unpack(whole)
    ]


def aggregate(address: str, ledger: Path) -> None:
    """Take messages into ``ledger`` for ever, in groups, each one write; then acknowledge."""
    durable = {(name, epoch): seq for name, epoch, seq, _ in records(ledger)}
    fd = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.ftruncate(fd, os.fstat(fd).st_size // RECORD.size * RECORD.size)
    hub, decode = Hub(address, durable), Decoder()
    while True:
        group, last = [], {}
        for d in hub.receive(1.0, random.randint(1, 9)):
            message = decode(d.frames)
            assert isinstance(message.body, Batch)
            value = int(message.body.columns["timestamp"][0])
            assert (message.body.columns["x"][-1] == value + ROWS - 1).all()
            assert message.header[4:7] == d[:3]
            group.append(RECORD.pack(d.producer.encode(), d.epoch, d.seq, value))
            last[d.producer, d.epoch] = d.seq
        os.write(fd, b"".join(group))
        for name, seq in last.items():
            hub.ack(*name, seq)


def produce(address: str, name: str, enough: Event, sent: Synchronized[int]) -> None:
    """Send batches through a small window until ``enough``; leave when all are acknowledged."""
    link = Link(address, name, window_bytes=16 * batch(0).buffer.nbytes)
    while not enough.is_set():
        if link.room:
            link.send(Header("shots", "e", 1, 2), SCHEMA, batch(sent.value))
            sent.value += 1
        link.pump(0.0 if link.room else 0.1)
    assert link.drain(120.0)
    link.close()


def linger(address: str, name: str, connected: Event) -> None:
    """Be a producer until killed."""
    link = Link(address, name)
    while True:
        link.pump(0.1)
        if link.connected:
            connected.set()


def watch(address: str, listening: Event, seen: Event) -> None:
    """Take frames until ``b"last"`` comes."""
    subscriber = Subscriber(address)
    while (frame := subscriber.receive(0.1)) != b"last":
        if frame is not None:
            listening.set()
    seen.set()
    subscriber.close()
