"""The single frame of a snapshot, and captures: what goes in comes out, and lies are refused."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffb.sink import Provenance
from ffb.wire import VERSION, Decoder, EndRun, WireError, pack, unpack
from ffb.writers.capture import CaptureWriter, read_capture
from tests.unit.spoken import messages

GOLDEN = Path(__file__).parent.parent / "golden" / "run.capture"
text = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=40)
numbers = st.one_of(st.integers(-(2**63), 2**63), st.floats(allow_nan=False))
arrays = st.sampled_from(["<f8", "<i4", "|b1", ">u2", "<c16"]).flatmap(
    lambda dtype: st.lists(st.integers(0, 4), max_size=4).map(
        lambda shape: np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    )
)


@given(st.dictionaries(text, numbers | text), st.dictionaries(text, arrays, max_size=4))
def test_a_snapshot_comes_out_as_it_went_in(meta: dict, given: dict) -> None:
    got_meta, got = unpack(pack(meta, given))
    assert got_meta == meta
    assert got.keys() == given.keys()
    for name, array in given.items():
        assert got[name].dtype == array.dtype.newbyteorder("<")
        assert got[name].shape == array.shape
        assert np.array_equal(got[name], array)


def test_a_snapshot_takes_views_and_keeps_alignment() -> None:
    whole = np.arange(24.0).reshape(4, 6)
    frame = pack({}, {"odd": np.zeros(3, np.uint8), "view": whole[::2, 1::2]})
    _, got = unpack(frame)
    assert np.array_equal(got["view"], whole[::2, 1::2])
    start = np.frombuffer(frame, np.uint8).ctypes.data
    assert (got["view"].ctypes.data - start) % 64 == 0


@pytest.mark.parametrize("bad", [np.array(["a"]), np.array([None]), np.zeros(1, "M8[ns]")])
def test_a_snapshot_holds_numbers_only(bad: np.ndarray) -> None:
    with pytest.raises(WireError, match="only numbers"):
        pack({}, {"x": bad})


def snapshot(table: object, data: bytes = bytes(64)) -> bytes:
    head = msgpack.packb({"meta": {}, "arrays": table})
    prefix = struct.pack("<4sII", b"ffbS", VERSION, len(head)) + head
    return prefix + bytes(-len(prefix) % 64) + data


@pytest.mark.parametrize(
    "table",
    [
        [["x", "<f8", [9], 0]],
        [["x", "<f8", [-1], 0]],
        [["x", "<f8", [1], -8]],
        [["x", "<f8", [1], 64]],
        [["x", "O", [1], 0]],
        [["x", "<f8", [2**62, 4], 0]],
        [["x", "<f8", [True], 0]],
        [["x", "<f8", 3, 0]],
        [["x", "<f8", [1]]],
        [[5, "<f8", [1], 0]],
        [[None, None, None, None]],
        {"x": 1},
        5,
        None,
    ],
    ids=str,
)
def test_a_snapshot_that_lies_is_refused(table: object) -> None:
    assert unpack(snapshot([["x", "<f8", [8], 0]]))[1]["x"].shape == (8,)
    with pytest.raises(WireError):
        unpack(snapshot(table))


@pytest.mark.parametrize("seed", range(10))
def test_mutated_snapshots_raise_nothing_but_wire_errors(seed: int) -> None:
    rng, refused = random.Random(seed), 0
    whole = pack({"a": [1, {"b": 2.5}]}, {"x": np.arange(5.0), "y": np.zeros((2, 2), bool)})
    for _ in range(300):
        frame = bytearray(whole[: rng.randint(0, len(whole))] if rng.random() < 0.3 else whole)
        for _ in range(rng.randint(1, 4)):
            if frame:
                frame[rng.randrange(min(len(frame), 120))] = rng.randrange(256)
        try:
            unpack(bytes(frame))
        except WireError:
            refused += 1
    assert refused > 100


def test_a_capture_gives_back_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "a.capture"
    with CaptureWriter(path) as capture:
        for frames in messages():
            capture.write(frames)
    assert [*read_capture(path)] == [[bytes(f) for f in m] for m in messages()]
    with pytest.raises(FileExistsError):
        CaptureWriter(path)


def test_a_torn_capture_is_read_up_to_the_tear(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.capture"
    with CaptureWriter(path) as capture:
        capture.write([b"one", b"two"])
        size = path.stat().st_size
        capture.write([b"three"])
    whole = path.read_bytes()
    for end in range(size + 1, len(whole)):
        path.write_bytes(whole[:end])
        caplog.clear()
        assert [*read_capture(path)] == [[b"one", b"two"]]
        assert f"torn record of {end - size} bytes" in caplog.text


def test_a_damaged_capture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.capture"
    path.write_bytes(b"ffbcapt0")
    with pytest.raises(WireError, match="not a capture"):
        [*read_capture(path)]
    path.unlink()
    with CaptureWriter(path) as capture:
        capture.write([b"payload", b""])
        capture.write([b"more"])
    whole = bytearray(path.read_bytes())
    whole[whole.index(b"payload")] ^= 1
    path.write_bytes(whole)
    with pytest.raises(WireError, match="byte 8: a message is damaged"):
        [*read_capture(path)]


def test_what_was_captured_once_is_understood_for_ever() -> None:
    """The golden capture was made by version 2; see tests/golden/README.md."""
    decoder = Decoder()
    got = [decoder(frames) for frames in read_capture(GOLDEN)]
    assert [m.header.kind for m in got] == [
        "begin_run", "step", "shots", "shots", "step", "shots", "status", "end_run",
    ]  # fmt: skip
    begin, end = got[0], got[-1]
    assert isinstance(begin.body, Provenance)
    assert begin.body.notes == ("golden",)
    assert begin.schema.by_name["det/wave"].unit == "V"
    assert end.body == EndRun("end of run")
    assert end.header.counts == {"read": 32, "lost": {"backpressure": 2}}
    shots = [m.body for m in got if m.header.kind == "shots"]
    stamps = np.concatenate([b.columns["timestamp"] for b in shots])
    assert stamps.tolist() == [(5 << 32) + 8_333_333 * i for i in range(30)]
    wave = np.concatenate([b.columns["det/wave"] for b in shots])
    assert np.array_equal(wave, np.arange(30 * 8, dtype="<f4").reshape(30, 8) / 4)
    assert np.isnan(shots[0].columns["det/area"][3])
    assert [m.header.seq for m in got if m.header.kind != "status"] == [1, 2, 3, 4, 5, 6, 7]
