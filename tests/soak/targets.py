"""What is fuzzed: each target takes a generator and says what became of one case.

A target returns a word to count by. What it raises is a failure: bytes from outside may be
refused, and nothing else.
"""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ffb.aggregate import NS, Aggregator
from ffb.aggregating.beside import Contained
from ffb.batch import Batch
from ffb.dashboards.model import LiveModel
from ffb.live.model import Live
from ffb.live.snapshots import MAGIC, Album
from ffb.messaging.codec import CODECS, decode, encode
from ffb.sink import Provenance
from ffb.source import RunInfo
from ffb.wire import Decoder, Header, Message, WireError, pack, unpack
from ffb.writers import journal
from ffb.writers.small_data import SmallData
from tests.soak.mutate import repacked, spoil
from tests.unit.hostile import corpus, encoded, honest, unsound
from tests.unit.producers import Producer

Case = Callable[[random.Random], str]


def _seeds() -> list[list[bytes]]:
    return [*(honest(k) for k in range(5)), encoded(), unsound()]


def message(folder: Path) -> Case:
    """The decoder, and the columns of what it takes."""
    seeds, decoder = _seeds(), Decoder()
    others = [f for frames in (*seeds, *corpus().values()) for f in frames if 0 < len(f) < 4096]

    def case(rng: random.Random) -> str:
        frames = _spoilt(rng, rng.choice(seeds), others)
        try:
            got = decoder(frames)
        except WireError:
            return "refused"
        if isinstance(got.body, Batch):
            got.body.forgive(lambda *_: None)
            _ = [c.tobytes() for c in got.body.columns.values()]
        return "taken"

    return case


def _spoilt(rng: random.Random, seed: list[bytes], others: list[bytes]) -> list[bytes]:
    frames = [*seed]
    if rng.random() < 0.5:
        frames = repacked(rng, frames)
    if rng.random() < 0.6:
        for _ in range(rng.choice((1, 1, 2))):
            k = rng.randrange(len(frames))
            frames[k] = spoil(rng, frames[k], others)
    if rng.random() < 0.02:
        rng.shuffle(frames)
    if rng.random() < 0.02:
        frames = frames[: rng.randrange(3)]
    return frames


def snapshot(folder: Path) -> Case:
    """What the page reads."""
    live, sink_rows = Live(), Producer("p")
    begun, rows = sink_rows.begin(), sink_rows.shots(range(1, 40))
    assert begun.schema is not None
    assert isinstance(begun.body, Provenance)
    assert isinstance(rows.body, Batch)
    live.begin_run(RunInfo("e", 1), begun.schema, begun.body)
    live.append(rows.body)
    seeds = [pack({"a": 1}, {"x": np.arange(9.0)}), live.snapshot({"producers": {}})]
    model = LiveModel()

    def case(rng: random.Random) -> str:
        frame = spoil(rng, rng.choice(seeds), seeds)
        model.push(frame)
        try:
            unpack(frame)
        except WireError:
            return "refused"
        return "taken"

    return case


def records(folder: Path) -> Case:
    """The journal, read after damage and then continued."""
    path = folder / "journal"
    whole = journal.Journal(path)
    for k in range(20):
        chunks = np.zeros(k, journal.CHUNK).tobytes()
        whole.add("commit", commit=k, segment=0, rows=9 * k, tables={}, counts={}, chunks=chunks)
    whole.write()
    whole.close()
    seed, good = path.read_bytes(), [*journal.read(path)]

    def case(rng: random.Random) -> str:
        path.write_bytes(spoil(rng, seed, [seed]))
        before = [*journal.read(path)]
        again = journal.Journal(path)
        again.add("ended", counts={})
        again.write()
        again.close()
        after = [*journal.read(path)]
        if after != [*before, {"kind": "ended", "counts": {}}]:
            raise AssertionError(f"{len(before)} records before, {len(after)} after one more")
        for k, record in enumerate(before):
            if record not in good:  # a splice may bring a whole one again
                raise AssertionError(f"record {k} is {str(record)[:80]}")
        return "whole" if len(before) == 20 else "cut"

    return case


def album(folder: Path) -> Case:
    """Kept snapshots, read after damage and then continued."""
    path = folder / "x.snapshots"
    whole = Album(path)
    for k in range(10):
        whole.add(k, bytes([k]) * 40)
    seed = path.read_bytes()

    def case(rng: random.Random) -> str:
        path.write_bytes(spoil(rng, seed, [seed]))
        try:
            Album(path).add(99, b"x")
        except FileExistsError:  # what was not ours is left alone
            return "refused"
        assert path.read_bytes().startswith(MAGIC)
        return "continued"

    return case


def chunk(folder: Path) -> Case:
    """Compressed chunks: native code on bytes of anybody."""
    rng = np.random.default_rng(1)
    wanted = [("<f4", (16, 64)), ("<u2", (128, 100)), ("<f8", (128,)), ("|u1", (5, 3))]
    seeds = [
        (encode((rng.random(shape) * 9).astype(dtype), codec), dtype, shape, codec)
        for dtype, shape in wanted
        for codec in CODECS
    ]
    others = [s[0] for s in seeds]

    def case(rng: random.Random) -> str:
        data, dtype, shape, codec = rng.choice(seeds)
        try:
            decode(spoil(rng, data, others), dtype, shape, codec)
        except ValueError:
            return "refused"
        return "taken"

    return case


def aggregator(folder: Path) -> Case:
    """Messages that were taken, in an aggregator with a file and a page: a run each case."""
    seeds, others = _seeds(), [f for frames in _seeds() for f in frames]
    numbers = itertools.count()

    def case(rng: random.Random) -> str:
        here, decoder, faults = folder / str(next(numbers)), Decoder(), []
        shown = Contained(Live())
        agg = Aggregator(lambda info: [SmallData(here), shown], 0, 0, NS)
        sent, seq, now = 0, 0, 1
        for frames in _session(rng, seeds, others):
            try:
                got = decoder(frames)
            except WireError:
                continue
            seq += got.header.kind != "status"
            agg.receive(_numbered(got, seq), now)
            sent, now = sent + 1, now + NS // 100
            agg.tick(now)
            faults += [agg.fault] if agg.fault else []
        agg.end("over")
        agg.tick(now + NS)
        shutil.rmtree(here, ignore_errors=True)
        if shown.fault:
            raise AssertionError(shown.fault)
        return f"{'faults, ' if faults else ''}{min(sent, 4)}+ taken"

    return case


def _session(
    rng: random.Random, seeds: list[list[bytes]], others: list[bytes]
) -> list[list[bytes]]:
    """A beginning, some good and some spoilt messages, and perhaps an end."""
    body = rng.choices(seeds, k=rng.randint(1, 6))
    spoilt = [repacked(rng, f) if rng.random() < 0.7 else f for f in body]
    return [seeds[0] if rng.random() < 0.7 else repacked(rng, seeds[0]), *spoilt, seeds[3]]


def _numbered(message: Message, seq: int) -> Message:
    header: Header = message.header._replace(seq=seq, producer="p", epoch=3)
    return message._replace(header=header)


TARGETS: dict[str, Callable[[Path], Case]] = {
    "message": message,
    "snapshot": snapshot,
    "journal": records,
    "album": album,
    "chunk": chunk,
    "aggregator": aggregator,
}
