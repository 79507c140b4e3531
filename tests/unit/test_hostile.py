"""A hostile message is refused with a sentence, costs little, and the next good one is taken."""

from __future__ import annotations

import logging
import struct
import tracemalloc
from pathlib import Path

import msgpack
import numpy as np
import pytest

from ffb import reader
from ffb.aggregate import Aggregator
from ffb.books.audit import audit
from ffb.books.recount import Problem
from ffb.dashboards.model import LiveModel
from ffb.live.model import Live
from ffb.sink import Provenance
from ffb.wire import VERSION, Decoder, EndRun, Header, WireError, encode, pack
from ffb.writers.small_data import SmallData
from tests.unit.hostile import Frames, corpus, encoded, honest, unsound

CORPUS = corpus()

#: Reading a hostile message may take so much memory beside the message itself [bytes].
MEMORY = 48 << 20


def test_the_corpus_is_large() -> None:
    assert len(CORPUS) >= 120


@pytest.mark.parametrize("frames", CORPUS.values(), ids=CORPUS.keys())
def test_a_hostile_message_is_refused_and_the_next_good_one_taken(frames: Frames) -> None:
    decoder = Decoder()
    tracemalloc.start()
    try:
        with pytest.raises(WireError) as said:
            decoder(frames)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(str(said.value)) > 10
    assert len(str(said.value)) < 1000, "a log line must not be a megabyte"
    assert peak < MEMORY + 2 * sum(map(len, frames))
    for kind in range(5):
        decoder(honest(kind))


def test_nothing_of_a_refused_message_stays() -> None:
    decoder = Decoder()
    for frames in CORPUS.values():
        with pytest.raises(WireError):
            decoder(frames)
    assert len(decoder._schemas) <= 64
    assert len(decoder.unknown) <= 101


def _snapshot(head: object, data: bytes = bytes(64), **prefix: int) -> bytes:
    packed = head if isinstance(head, bytes) else msgpack.packb(head)
    start = struct.pack(
        "<4sII", b"ffbS", prefix.get("version", VERSION), prefix.get("size", len(packed))
    )
    return start + packed + bytes(-(len(start) + len(packed)) % 64) + data


def _arrays(*table: object) -> bytes:
    return _snapshot({"meta": {}, "arrays": [*table]})


SNAPSHOTS = {
    "nothing": b"",
    "one byte": b"f",
    "noise": bytes(range(256)),
    "a message": honest(1)[0],
    "another version": _snapshot({"meta": {}, "arrays": []}, version=99),
    "a head beyond its end": _snapshot({"meta": {}, "arrays": []}, size=2**31),
    "a head of nothing": _snapshot({}, size=0),
    "a head cut short": _snapshot({"meta": {}, "arrays": []}, size=5),
    "a deep head": _snapshot(b"\x91" * 5000),
    "an extension": _snapshot({"meta": msgpack.ExtType(1, b""), "arrays": []}),
    "meta that is a list": _snapshot({"meta": [], "arrays": []}),
    "meta without its keys": _snapshot({"meta": {}, "arrays": []}),
    "a key too many": _snapshot({"meta": {}, "arrays": [], "evil": 1}),
    "an array beyond the frame": _arrays(["x", "<f8", [2**20], 0]),
    "an array beyond 64 bits": _arrays(["x", "<f8", [2**62, 2**62], 0]),
    "an array from before the frame": _arrays(["x", "<f8", [1], -64]),
    "an array of objects": _arrays(["x", "|O", [1], 0]),
    "an array of fractions": _arrays(["x", "<f8", [0.5], 0]),
    "an array with many axes": _arrays(["x", "<f8", [1] * 40, 0]),
    "an array without a name": _arrays([None, "<f8", [1], 0]),
    "an array of too few words": _arrays(["x", "<f8"]),
    "an array that is a number": _arrays(5),
    "scalars that are no columns": pack({"scalars": [1], "arrays": []}, {}),
    "scalars of too few fields": pack({"scalars": [["x"]], "arrays": []}, {}),
    "shapes that are words": pack({"scalars": [["x", "<f8", 5, []]], "arrays": []}, {}),
}


@pytest.mark.parametrize("frame", SNAPSHOTS.values(), ids=SNAPSHOTS.keys())
def test_the_page_counts_a_hostile_snapshot_and_goes_on(frame: bytes) -> None:
    model = LiveModel()
    model.push(frame)
    assert model.rejected == 1
    assert model.latest() == (0, None)


def _served(folder: Path, shots: list[Frames], live: Live) -> Aggregator:
    """A run of these messages of shots, of 16 rows each with their own timestamps."""
    sinks = [SmallData(folder), live]
    took, decode = Aggregator(lambda info: sinks, 1000, 100, 10**6), Decoder()
    schema = decode(shots[0]).schema
    head = Header("begin_run", "e", 1, 2, "p", 3, 1)
    took.receive(decode(encode(head, schema, Provenance())), 0)
    for seq, frames in enumerate(shots, 2):
        took.receive(decode(restamped(frames, seq)), 0)
    took.tick(10_000)
    end = head._replace(kind="end_run", seq=2 + len(shots), counts=_counts(16 * len(shots)))
    took.receive(decode(encode(end, None, EndRun())), 10_000)
    now = 10_000
    while not took.closed:
        took.tick(now := now + 1000)
    return took


def _unpacking(folder: Path) -> list[Problem]:
    """What an audit says of chunks; the rest of these rows is noise."""
    problems = audit(folder / "e_Run0001.h5").problems
    return [p for p in problems if p.kind in {"unpack", "unreadable"}]


def _counts(read: int) -> dict:
    return {"read": read, "lost": {}}


def restamped(frames: Frames, seq: int, every: int = 1, first: int | None = None) -> Frames:
    """Those shots as message ``seq``, of rows that come after those of the ones before."""
    head = msgpack.unpackb(frames[0]) | {"seq": seq, "counts": _counts(16 * (seq - 1))}
    stamps = np.arange(16, dtype="<u8") * every + (1000 * seq if first is None else first)
    zeros = bytes(16 * 8)  # pulse ids
    payload = stamps.tobytes() + zeros + frames[2][256:]
    return [msgpack.packb(head), frames[1], payload]


def test_a_chunk_that_does_not_unpack_costs_no_other_row_and_does_not_stay_hidden(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "ffb.aggregating.merge.SMALL", 0
    )  # chunks are placed as they came, and shown later
    with caplog.at_level(logging.ERROR):
        took = _served(tmp_path, [encoded(), unsound(), unsound(), encoded()], live := Live())
    assert took.closed[0].problems == []
    assert took.closed[0].counts.written == 64
    said = [r.getMessage() for r in caplog.records]
    assert len(said) == 1
    assert "producer=p column wave of 16 rows did not unpack" in said[0]
    assert live.shown == 64
    assert _unpacking(tmp_path) == [
        ("unpack", "p", "2 chunks of wave did not unpack: their rows are missing there, or bad"),
        ("unreadable", "wave", "rows 16 to 47"),
    ]
    with reader.open(tmp_path / "e_Run0001.h5") as run:
        assert np.array_equal(run["wave"][:16], run["wave"][48:])
        assert run["timestamp"][63] == 5015


def test_a_chunk_that_does_not_unpack_where_rows_are_interleaved_reads_as_missing(
    tmp_path: Path,
) -> None:
    schema = Decoder()(encoded()).schema
    assert schema is not None
    sinks = [SmallData(tmp_path)]
    took, decode = Aggregator(lambda info: sinks, 1000, 100, 10**6), Decoder()
    for name, frames in (("p", encoded()), ("q", unsound(producer="q"))):
        head = Header("begin_run", "e", 1, 2, name, 3, 1)
        took.receive(decode(encode(head, schema, Provenance())), 0)
        took.receive(decode(restamped(frames, 2, every=2, first=100 + (name == "q"))), 0)
    took.tick(10_000)
    took.tick(20_000)
    assert took.notes == [
        "q: 1 chunks did not unpack, the first of wave; their rows are missing, or cannot be"
        " read: see ffb audit"
    ]
    for name in "pq":
        end = Header("end_run", "e", 1, 2, name, 3, 3, counts=_counts(16))
        took.receive(decode(encode(end, None, EndRun())), 20_000)
    now = 20_000
    while not took.closed:
        took.tick(now := now + 1000)
    assert took.closed[0].problems == []
    with reader.open(tmp_path / "e_Run0001.h5") as run:
        wave = run["wave"][:]
        assert np.isnan(wave[1::2]).all()
        good = Decoder()(encoded()).body.columns["wave"]
        assert np.array_equal(wave[::2], good, equal_nan=True)
    assert _unpacking(tmp_path) == [
        ("unpack", "q", "1 chunks of wave did not unpack: their rows are missing there, or bad"),
    ]
