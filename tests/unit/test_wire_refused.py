"""What nobody sent in good faith is refused with a WireError that says why."""

from __future__ import annotations

import random

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffb.batch import Batch
from ffb.schema import CORE, Schema
from ffb.wire import Decoder, Header, WireError, encode
from tests.unit.spoken import messages, reheaded


@pytest.mark.parametrize("kind", range(5))
@pytest.mark.parametrize(
    "change",
    [
        {"v": 1},
        {"v": "gone"},
        {"kind": "snapshot"},
        {"kind": b"shots"},
        {"kind": ["shots"]},
        {"exp": 5},
        {"exp": "e" * 300},
        {"run": -1},
        {"run": True},
        {"run": 1.0},
        {"seq": "gone"},
        {"n": 1_000_000},
        {"n": 4},
        {"schema": b"12345678"},
        {"schema": "12345678"},
        {"read": b"1"},
        {"counts": {}},
        {"counts": {"read": -1, "lost": {}}},
        {"counts": {"read": 1, "lost": {"x": 0.5}}},
        {"counts": {"read": 1, "lost": []}},
        {"counts": {"read": 1, "lost": {}, "found": 3}},
        {"losses": {}},
        {"losses": [["x", 1, 2]]},
        {"losses": [["x", 1, 2, -3]]},
        {"losses": [["x", 1, 2, 3.0]]},
        {"losses": [["x" * 300, 1, 2, 3]]},
        {"losses": [["x", 1, 3, 1 << 63]]},
        {"encoded": "12345678"},
    ],
    ids=str,
)
def test_a_wrong_header_is_refused(kind: int, change: dict) -> None:
    with pytest.raises(WireError):
        Decoder()(reheaded(messages()[kind], **change))


def test_unknown_fields_are_counted_beside_rows_and_refused_on_the_control_path() -> None:
    decoder = Decoder()
    begin, shots, step, end, status = (reheaded(m, colour="red") for m in messages())
    for data in (shots, status):
        decoder(data)
    assert decoder.unknown == {"colour": 2}
    for control in (begin, step, end):
        with pytest.raises(WireError, match="colour"):
            decoder(control)


def rows(*columns: object) -> bytes:
    return msgpack.packb([*[list(c) for c in CORE], *columns])


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        msgpack.packb([]),
        msgpack.packb({}),
        msgpack.packb([list(CORE[0])]),
        rows(["x", "<f8"]),
        rows(["x", "O", [], [], "1", "", "", "", 0]),
        rows(["x", ">f8", [], [], "1", "", "", "", 0]),
        rows(["x", "float64", [], [], "1", "", "", "", 0]),
        rows(["x", "<f8", [0], [], "1", "", "", "", 0]),
        rows(["x", "<f8", [-1], [], "1", "", "", "", 0]),
        rows(["x", "<f8", [2**40], [], "1", "", "", "", 0]),
        rows(["x", "<f8", [1] * 5, [], "1", "", "", "", 0]),
        rows(["x", "<f8", [2**20] * 4, [], "1", "", "", "", 0]),
        rows(["x", "<f8", [True], [], "1", "", "", "", 0]),
        rows(["x", "<f8", [], [5], "1", "", "", "", 0]),
        rows(["", "<f8", [], [], "1", "", "", "", 0]),
        rows(["/x", "<f8", [], [], "1", "", "", "", 0]),
        rows(["a/../x", "<f8", [], [], "1", "", "", "", 0]),
        rows(["x\n", "<f8", [], [], "1", "", "", "", 0]),
        rows(["x" * 300, "<f8", [], [], "1", "", "", "", 0]),
        rows(["timestamp", "<u8", [], [], "1", "", "", "", 0]),
        rows(*[[f"c{i}", "<f8", [], [], "1", "", "", "", 0] for i in range(20_001)]),
        rows(["x", "<f8", [4], [], "1", "", "", "", 3]),
        rows(["x", "<f8", [4], [], "1", "", "", "", 2048]),
        rows(["x", "<f8", [4], [], "1", "", "", "", -1]),
        rows(["x", "<f8", [4], [], "1", "", "", "gzip", 8]),
        rows(["x", "<f8", [4], [], "1", "", "", "bitshuffle-lz4", 0]),
        rows(["x", "<f8", [], [], "1", "", "", "bitshuffle-lz4", 8]),
        b"\xdd\xff\xff\xff\xff" * 1000,
    ],
)
def test_a_wrong_schema_is_refused(packed: bytes) -> None:
    import hashlib

    name = hashlib.blake2b(packed, digest_size=8).digest()
    head, _, payload = messages()[1]
    with pytest.raises(WireError):
        Decoder()([*reheaded([head], schema=name), packed, payload])


def test_a_known_id_does_not_vouch_for_another_schema() -> None:
    decoder, (head, packed, payload) = Decoder(), messages()[1]
    decoder([head, packed, payload])
    with pytest.raises(WireError, match="does not match"):
        decoder([head, packed[:-1] + b"\xc0", payload])


@pytest.mark.parametrize("kind", [0, 2, 3, 4])
@pytest.mark.parametrize(
    "body", [b"", b"\xc0", b"\x90", b"\xc1", msgpack.packb({"x": msgpack.Timestamp(1)}), b"\x81"]
)
def test_a_wrong_body_is_refused(kind: int, body: bytes) -> None:
    with pytest.raises(WireError):
        Decoder()([*messages()[kind][:2], body])


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (2, {"step": 1, "values": {"x": "fast"}, "docstring": "", "timestamp": 0}),
        (2, {"step": 1.5, "values": {}, "docstring": "", "timestamp": 0}),
        (2, {"step": 1}),
        (3, {"ended": 1}),
        (3, {"ended": "", "really": True}),
        (0, {"config": 1}),
        (4, {"a": [0] * 20_001}),
        (4, {str(i): 0 for i in range(20_001)}),
        (4, {"a": {"b": {"c": [[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]}}}),
    ],
)
def test_a_body_that_means_nothing_or_too_much_is_refused(kind: int, body: dict) -> None:
    with pytest.raises(WireError):
        Decoder()([*messages()[kind][:2], msgpack.packb(body)])


def test_too_large_is_refused_by_both_sides() -> None:
    with pytest.raises(WireError, match="at most 100000"):
        encode(Header("shots"), Schema(CORE), Batch(Schema(CORE), 100_001))
    with pytest.raises(WireError, match="bytes of header"):
        encode(Header("status", exp="x" * (1 << 20)), None, {})
    head, packed, payload = messages()[1]
    with pytest.raises(WireError, match="bytes of header"):
        Decoder()([bytes(1 << 21), packed, payload])
    with pytest.raises(WireError, match="bytes of schema"):
        Decoder()([*reheaded([head], schema=b"another1"), bytes(5 << 20), payload])


@pytest.mark.parametrize("seed", range(40))
def test_mutations_truncations_and_noise_raise_nothing_but_wire_errors(seed: int) -> None:
    rng, decoder, refused = random.Random(seed), Decoder(), 0
    for _ in range(100):
        frames = [bytearray(f) for f in rng.choice(messages())]
        for _ in range(rng.randint(1, 3)):
            frame = rng.choice(frames)
            at = rng.randint(0, len(frame))
            act = rng.randint(0, 4)
            if act == 0 and frame:
                frame[at % len(frame)] = rng.randrange(256)
            elif act == 1:
                del frame[at:]
            elif act == 2:
                frame[at:at] = rng.randbytes(rng.randint(1, 9))
            elif act == 3:
                frame[:] = rng.randbytes(rng.randint(0, 200))
            else:
                rng.shuffle(frames)
        if rng.random() < 0.05:
            frames = frames[: rng.randint(0, 2)]
        try:
            decoder([bytes(f) for f in frames])
        except WireError:
            refused += 1
    assert refused > 50


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_noise_is_refused(frames: list[bytes]) -> None:
    with pytest.raises(WireError):
        Decoder()(frames)
