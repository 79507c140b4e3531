"""Rows per second through the aggregator into the file, and how soon a reader sees them.

Against psana's SmallData, h5py and np.tofile of the same columns, by turns; a ratio is the median
of its rounds. ``python -m tests.benchmarks.bench_aggregate [--rounds 5] [--only full]``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from ffb import reader
from ffb.health import keep_memory
from ffb.sink import Counts, Provenance
from ffb.transport import Hub, Link
from ffb.wire import Decoder, EndRun
from tests.benchmarks import rows
from tests.benchmarks.harness import machine
from tests.benchmarks.rows import SHOTS, Load

#: Name, whether the schema is the full one, codec, producers, rows, and the gates: psana, tofile.
CASES = (
    ("full", True, "", 1, 16_384, 5.0, 0.6),
    ("full, 2 producers", True, "", 2, 16_384, 5.0, 0.6),
    ("full, compressed", True, "bitshuffle-lz4", 1, 16_384, 12.0, 1.5),
    ("scalars", False, "", 1, 262_144, 20.0, 0.0),
    ("scalars, 2 producers", False, "", 2, 262_144, 0.0, 0.0),
)


#: Seconds between two looks of a reader that waits for rows.
PAUSE_S = 0.0005


def once(way: Callable[[Path, Load], float], load: Load, where: str) -> float:
    """Rows per second of one way."""
    folder = Path(tempfile.mkdtemp(prefix="ffb_bench_", dir=where))
    try:
        rate = way(folder, load)
        if way is rows.ffb:
            rows.check(folder, load)
        return rate
    finally:
        shutil.rmtree(folder)


def through_sockets(folder: Path, load: Load) -> float:
    """Links of the producers here, the aggregator in another process; rows/s till all is safe."""
    context = get_context("forkserver")
    ours, theirs = context.Pipe()
    address = f"ipc://{folder}/bench"
    serve = context.Process(target=_serve, args=(address, folder, load.producers, theirs))
    serve.start()
    ours.recv()
    links = [Link(address, f"p{p}", 1 << 28, epoch=1) for p in range(load.producers)]
    while not all(link.connected for link in links):
        for link in links:
            link.pump(0.01)
    for p, link in enumerate(links):
        link.send(rows.head("begin_run", p), load.schema, Provenance())
    _drain(links)
    begin = time.perf_counter()
    sent = dict.fromkeys(range(load.producers), 0)
    for p, batch in load.batches:
        while not links[p].room:
            for link in links:
                link.pump(0.001)
        sent[p] += SHOTS
        links[p].send(rows.head("shots", p, read=sent[p]), load.schema, batch)
        links[p].pump()
    for p, link in enumerate(links):
        link.send(rows.head("end_run", p, read=sent[p]), None, EndRun())
    _drain(links)
    rate = load.rows / (time.perf_counter() - begin)
    for link in links:
        link.close()
    assert ours.recv() == []
    serve.join()
    return rate


def _drain(links: list[Link]) -> None:
    while any(link.unacked for link in links):
        for link in links:
            link.pump(0.001)


def _serve(address: str, folder: Path, producers: int, pipe: Connection) -> None:
    keep_memory()
    took, decode = rows.aggregator(folder, producers), Decoder()
    hub = Hub(address)
    pipe.send("ready")
    while not took.closed:
        now = time.monotonic_ns()
        for delivery in hub.receive(0.01, 16):
            took.receive(decode(delivery.frames), now)
        for done in took.tick(now):
            hub.ack(*done)
    end = time.monotonic() + 0.2  # what was acknowledged last has to arrive
    while time.monotonic() < end:
        hub.receive(0.01)
    hub.close()
    pipe.send(took.closed[0].problems)


def lag(load: Load, where: str) -> dict[str, np.ndarray]:
    """How soon rows can be read elsewhere, and how much of that is the machine's load [ms].

    From the beginning of each commit until ``ffb.open`` in another process shows its rows; the same
    without the time in which the writer did not run, which in memory is time without a processor;
    and how late a bare sleep in the other process ends.
    """
    folder = Path(tempfile.mkdtemp(prefix="ffb_bench_", dir=where))
    context = get_context("forkserver")
    ours, theirs = context.Pipe()
    path = folder / "benchmark_Run0001.h5"
    watch = context.Process(target=_watch, args=(path, load.rows, theirs))
    watch.start()
    took, decode = rows.aggregator(folder, load.producers), Decoder()
    begun: dict[int, tuple[int, int]] = {}
    ended: dict[int, tuple[int, int]] = {}
    made = took.sinks
    took.sinks = lambda info: [_Noting(begun), *made(info), _Noting(ended)]
    for frames in load.messages[: load.producers]:
        took.receive(decode(frames), time.monotonic_ns())
    took.tick(time.monotonic_ns())
    assert ours.recv() == "open"
    for frames in load.messages[load.producers :]:
        message = decode(frames)
        until = time.monotonic() + (0.05 / load.producers if message.header.n else 0)
        took.receive(message, time.monotonic_ns())
        while True:
            took.tick(time.monotonic_ns())
            if time.monotonic() >= until:
                break
            time.sleep(0.002)
    while not took.closed:
        took.tick(time.monotonic_ns())
    seen, asleep = map(np.array, ours.recv())
    watch.join()
    shutil.rmtree(folder)
    first, last = np.array([*begun.values()]), np.array([*ended.values()])
    took_ns, ran_ns = (last - first).T
    shown = seen[np.searchsorted(seen[:, 0], [*begun]), 1] - first[:, 0]
    return {
        "commit to readable elsewhere": shown / 1e6,
        "the same but for the writer's wait for a processor": (shown - took_ns + ran_ns) / 1e6,
        "a bare sleep there ends late by": asleep / 1e6 - PAUSE_S * 1e3,
    }


class _Noting:
    """A sink beside the writer: when each commit comes by, by the rows it makes readable.

    By the clock and by the time for which we ran, both in ns.
    """

    def __init__(self, times: dict[int, tuple[int, int]]) -> None:
        self._times = times

    def commit(self, counts: Counts) -> None:
        self._times.setdefault(counts.written, (time.monotonic_ns(), time.thread_time_ns()))

    def ignore(self, *_: object) -> None:
        """Nothing to note."""

    begin_run = begin_epoch = append = step = end_run = ignore


def _watch(path: Path, rows: int, pipe: Connection) -> None:
    seen: list[tuple[int, int]] = []
    asleep: list[int] = []
    while not path.exists():
        time.sleep(0.001)
    with reader.open(path, wait=10) as run:
        pipe.send("open")
        while not seen or seen[-1][0] < rows:
            n = run.refresh()
            if n and (not seen or n > seen[-1][0]):
                run["timestamp"][n - 1]
                seen.append((n, time.monotonic_ns()))
            begin = time.monotonic_ns()
            time.sleep(PAUSE_S)
            asleep.append(time.monotonic_ns() - begin)
    pipe.send((seen, asleep))


def main() -> None:
    """Print rates, ratios and lags."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="part of the rows")
    parser.add_argument("--only", default="", help="cases whose name begins so")
    parser.add_argument("--where", default="/dev/shm" if os.path.isdir("/dev/shm") else None)
    options = parser.parse_args()
    keep_memory()  # as the service does
    print(machine("h5py", "psana"))
    for name, full, codec, producers, n, over_psana, over_tofile in CASES:
        if not name.startswith(options.only):
            continue
        n = max(4096, int(n * options.scale))
        load = rows.load(rows.schema_of(full, codec), n, producers)
        ways = {**rows.WAYS, "ffb through sockets": through_sockets}
        rates: dict[str, list[float]] = {k: [] for k in ways}
        for k in range(options.rounds):
            keys = [*ways]
            for key in keys[k % len(keys) :] + keys[: k % len(keys)]:
                rates[key].append(once(ways[key], load, options.where))
        print(f"\n**{name}** ({load.rows} rows of {sum(load.schema.row_bytes)} bytes)\n")
        print(
            "| | rows/s | ffb / this | ffb through sockets / this | gate |\n|---|---|---|---|---|"
        )
        gates = {"psana SmallData": over_psana, "np.tofile": over_tofile}
        for key, found in rates.items():
            ratios = [
                statistics.median(a / b for a, b in zip(rates[w], found, strict=True))
                for w in ("ffb", "ffb through sockets")
            ]
            gate = f">= {gates[key]}" if gates.get(key) else ""
            middle = statistics.median(found)
            print(f"| {key} | {middle:,.0f} | {ratios[0]:.2f} | {ratios[1]:.2f} | {gate} |")
    load = rows.load(rows.schema_of(full=True), int(12_800 * options.scale), 2)
    print()
    for what, ms in lag(load, options.where).items():
        p50, p99 = np.percentile(ms, [50, 99])
        print(f"{what}: p50 {p50:.1f} ms, p99 {p99:.1f} ms of {ms.size}")


if __name__ == "__main__":
    main()
