"""Rows per second over ipc: a columnar message per 100 rows against a msgpack map per row.

Run: python -m tests.benchmarks.bench_wire [rounds]. The ways take turns within each round; the
table gives the median over rounds, and the median of the ratios within rounds. ``link`` is the
whole lossless way: numbered, windowed, acknowledged. The other two only encode, pass and decode.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection

import msgpack
import numpy as np
import zmq

from ffb.batch import Batch
from ffb.schema import CORE, Column, Schema
from ffb.transport import Hub, Link
from ffb.wire import Decoder, Header, encode

ROWS = 100
SCHEMA = Schema((*CORE, *(Column(f"s{i}", "<f8") for i in range(50))))
HEAD = Header("shots", "e", 1, 2)
WAYS = {"msgpack per row": 20_000, "columnar": 600_000, "link": 600_000}


def rows_of(batch: Batch) -> list[dict[str, float]]:
    """The rows as a program would hold them that sends each by itself."""
    return [{k: v[i].item() for k, v in batch.columns.items()} for i in range(batch.n)]


def receive(way: str, address: str, n: int, pipe: Connection) -> None:
    """Take and decode ``n`` rows, touching every column's memory; tell when it is done."""
    got, decode = 0, Decoder()
    if way == "link":
        hub = Hub(address)
        pipe.send("ready")
        while got < n:
            for d in hub.receive(1.0):
                got += use(decode(d.frames).body)
                hub.ack(d.producer, d.epoch, d.seq)
        pipe.send("done")
        pipe.recv()
        hub.close()
        return
    context = zmq.Context()
    socket = context.socket(zmq.PULL)
    socket.bind(address)
    pipe.send("ready")
    while got < n:
        if way == "columnar":
            frames = [f.buffer for f in socket.recv_multipart(copy=False)]
            got += use(decode(frames).body)
        else:
            got += len(msgpack.unpackb(socket.recv())) > 0
    pipe.send("done")
    pipe.recv()
    context.destroy(0)


def use(batch: object) -> int:
    """Look at all columns, as an aggregator does."""
    assert isinstance(batch, Batch)
    return batch.n if batch.columns["s49"][0] == 49 else 0


def send(way: str, address: str, n: int, batch: Batch, start: Callable[[], float]) -> float:
    """Send ``n`` rows; returns when the clock started."""
    if way == "link":
        link = Link(address, "p0")
        while not link.connected:
            link.pump(0.01)
        begun = start()
        for _ in range(n // ROWS):
            while not link.room:
                link.pump(0.01)
            link.send(HEAD, SCHEMA, batch)
            link.pump()
        assert link.drain(60)
        link.close()
        return begun
    context = zmq.Context()
    socket = context.socket(zmq.PUSH)
    socket.linger = -1
    socket.connect(address)
    rows, begun = rows_of(batch), start()
    if way == "columnar":
        for _ in range(n // ROWS):
            socket.send_multipart(encode(HEAD, SCHEMA, batch), copy=False)
    else:
        for i in range(n):
            socket.send(msgpack.packb(rows[i % ROWS]))
    threading.Thread(target=context.destroy).start()
    return begun


def once(way: str, n: int) -> float:
    """Rows per second of one way."""
    batch = Batch(SCHEMA, ROWS)
    batch.buffer[:] = 0
    for i in range(50):
        batch.columns[f"s{i}"][:] = i + np.arange(ROWS)
    with tempfile.TemporaryDirectory() as directory:
        address = f"ipc://{directory}/bench"
        ours, theirs = get_context("forkserver").Pipe()
        process = get_context("forkserver").Process(
            target=receive, args=(way, address, n, theirs), daemon=True
        )
        process.start()
        ours.recv()
        begun = send(way, address, n, batch, time.perf_counter)
        ours.recv()
        seconds = time.perf_counter() - begun
        ours.send("go")
        process.join()
    return n / seconds


def main() -> None:
    """Print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    got: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way, n in WAYS.items():
            got[way].append(once(way, n))
    base = got["msgpack per row"]
    print("| way | rows/s (55 columns) | ratio to msgpack per row |")
    print("|---|---|---|")
    for way, rates in got.items():
        ratio = statistics.median(a / b for a, b in zip(rates, base, strict=True))
        print(f"| {way} | {statistics.median(rates):,.0f} | {ratio:.1f} |")


if __name__ == "__main__":
    main()
