"""A hostile message is refused with a sentence, costs little, and the next good one is taken."""

from __future__ import annotations

import struct
import tracemalloc

import msgpack
import pytest

from ffb.dashboards.model import LiveModel
from ffb.wire import VERSION, Decoder, WireError, pack
from tests.unit.hostile import Frames, corpus, honest

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
