"""The codec: what goes in comes out, encoded or not, and damage in a chunk costs its column."""

from __future__ import annotations

from zlib import crc32

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffb.batch import Batch, compressed
from ffb.messaging.codec import decode
from ffb.messaging.header import CHUNK
from ffb.schema import CORE, Column, Schema
from ffb.shot import BeginStep
from ffb.sink import Provenance
from ffb.wire import Decoder, EndRun, Header, WireError, encode
from tests.unit.spoken import SCHEMA, filled, messages, reheaded

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
names = st.from_regex(r"[A-Za-z0-9_:-][A-Za-z0-9_.:-]{0,39}", fullmatch=True)
counts = st.fixed_dictionaries(
    {"read": st.integers(0, 2**63 - 1), "lost": st.dictionaries(text, st.integers(0, 2**40))}
)
stamps = st.integers(0, 2**63 - 1)
headers = st.builds(
    Header,
    kind=st.just("shots"),
    exp=names,
    run=st.integers(0, 2**31),
    began=st.integers(0, 2**64 - 1),
    producer=names,
    epoch=st.integers(0, 2**63 - 1),
    seq=st.integers(0, 2**63 - 1),
    counts=counts,
    losses=st.lists(st.tuples(text, stamps, stamps, st.integers(0, 2**40)).map(list), max_size=4),
    encoded=st.just(b""),
)
numbers = st.one_of(st.integers(-(2**63), 2**63), st.floats(allow_nan=False))
columns = st.builds(
    Column,
    name=st.text("abcdefgh_", min_size=1, max_size=9).map(lambda s: f"r/{s}"),
    dtype=st.sampled_from(["<f8", "<f4", "<i2", "<u8", "|b1", "|u1", "<i1", "<c8"]),
    shape=st.lists(st.integers(1, 4), max_size=3).map(tuple),
    dims=st.just(()),
    unit=text,
    doc=text,
    reducer=text,
    codec=st.just(""),
    chunk=st.sampled_from([0, 1, 16]),
    length=st.just(""),
)


def side_by_side(extra: list[Column]) -> bool:
    names = [f"{c.name}/" for c in (*CORE, *extra)]
    below = any(a != b and a.startswith(b) for a in names for b in names)
    return not below and not any(c.name.startswith("ffb/") for c in extra)


several = st.lists(columns, max_size=5, unique_by=lambda c: c.name).filter(side_by_side)


@given(headers, several, st.integers(0, 30))
@settings(max_examples=60, deadline=None)
def test_shots_come_out_as_they_went_in(header: Header, extra: list[Column], n: int) -> None:
    schema = Schema((*CORE, *extra))
    batch = filled(schema, n)
    message = Decoder()([bytes(f) for f in encode(header, schema, batch)])
    assert message.schema == schema
    assert message.header == header._replace(
        n=n, schema=schema.id, read=batch.read.astype("<i8").tobytes()
    )
    assert isinstance(message.body, Batch)
    assert np.array_equal(message.body.buffer, batch.buffer)
    assert np.array_equal(message.body.read, batch.read)
    for c in schema.columns:
        assert message.body.columns[c.name].tobytes() == batch.columns[c.name].tobytes()


PACKED = Schema(
    (
        *CORE,
        Column("a/wave", "<f4", (100,), codec="bitshuffle-lz4", chunk=8),
        Column("a/noise", "<f8", (40,), codec="bitshuffle-lz4", chunk=8),
        Column("a/image", "<u2", (9, 11), codec="bitshuffle-zstd", chunk=8),
        Column("a/plain", "<u2", (7,)),
    )
)


def packable(n: int) -> Batch:
    batch, rng = filled(PACKED, n), np.random.default_rng(n)
    batch.columns["a/wave"][:] = rng.integers(0, 3, (n, 100))
    batch.columns["a/noise"].view("<u8")[:] = rng.integers(0, 1 << 63, (n, 40))
    return batch


def test_full_batches_travel_encoded_and_arrive_as_they_were() -> None:
    batch = packable(8)
    sent = compressed(batch)
    assert sent.encoded.keys() == {"a/wave", "a/image"}, "noise does not become smaller"
    assert sent.buffer.size < batch.buffer.size
    frames = encode(Header("shots"), PACKED, sent)
    got = Decoder()([bytes(f) for f in frames]).body
    assert {k: bytes(v) for k, v in got.encoded.items()} == {
        k: bytes(v) for k, v in sent.encoded.items()
    }
    assert np.array_equal(got.read, batch.read)
    for name, column in batch.columns.items():
        assert got.columns[name].tobytes() == column.tobytes(), name
        assert sent.columns[name].tobytes() == column.tobytes(), name
    chunk = bytes(got.encoded["a/image"])
    assert decode(chunk, "<u2", (8, 9, 11), "bitshuffle-zstd").tobytes() == (
        batch.columns["a/image"].tobytes()
    )


@pytest.mark.parametrize("n", [0, 1, 7, 9, 16])
def test_other_batches_than_full_ones_travel_as_they_are(n: int) -> None:
    batch = packable(n)
    assert compressed(batch) is batch
    assert compressed(filled(SCHEMA, 8)).encoded == {}


def chunks(frames: list[bytes]) -> np.ndarray:
    return np.frombuffer(msgpack.unpackb(frames[0])["encoded"], CHUNK).copy()


def lying(frames: list[bytes], which: int, size: int) -> list[bytes]:
    """Another size of a column, with the sum of the bytes that then stand for it."""
    told = chunks(frames)
    at = Batch.of(PACKED, 8, frames[2], np.zeros(8, "<i8"), told["size"].tolist())._offsets[which]
    told[which] = size, crc32(frames[2][at : at + size])
    return reheaded(frames, encoded=told.tobytes())


def packed_frames() -> list[bytes]:
    return [bytes(f) for f in encode(Header("shots"), PACKED, compressed(packable(8)))]


def test_a_message_that_lies_about_its_encoded_columns_is_refused() -> None:
    frames = packed_frames()
    told = chunks(frames)
    wave, noise, image, plain = (len(PACKED.columns) - k for k in (4, 3, 2, 1))
    size = told["size"].tolist()
    assert size[noise] == size[plain] == 0
    lies = [
        (wave, size[wave] + 64), (wave, size[wave] - 1), (wave, 0), (image, 0), (plain, 9),
        (wave, 8 * 400), (image, 2**32 - 1), (wave, size[image]), (0, 64), (noise, 64),
    ]  # fmt: skip
    for lie in lies:
        with pytest.raises(WireError):
            Decoder()(lying(frames, *lie))
    for encoded in (b"", b"123", told[:-1].tobytes(), told.tobytes() + bytes(8)):
        with pytest.raises(WireError):
            Decoder()(reheaded(frames, encoded=encoded))
    with pytest.raises(WireError):
        Decoder()(reheaded(messages()[0], encoded=told.tobytes()))


def test_damage_anywhere_in_a_chunk_is_seen_when_it_comes() -> None:
    frames = packed_frames()
    told = chunks(frames)
    at = PACKED.offsets(8)[len(CORE)]
    for k in range(0, int(told["size"][len(CORE)]), 3):
        body = bytearray(frames[2])
        body[at + k] ^= 1 << k % 8
        with pytest.raises(WireError, match=r"a/wave.*damaged"):
            Decoder()([*frames[:2], bytes(body)])


def unsound() -> Batch:
    """Rows that come as they were sent, with a chunk that HDF5 can walk through, of nonsense."""
    frames = packed_frames()
    told, body = chunks(frames), bytearray(frames[2])
    at, size = PACKED.offsets(8)[len(CORE)], int(told["size"][len(CORE)])
    body[at + 16 : at + size] = b"\xff" * (size - 16)
    told["sum"][len(CORE)] = crc32(body[at : at + size])
    got = Decoder()([*reheaded(frames, encoded=told.tobytes())[:2], bytes(body)]).body
    assert isinstance(got, Batch)
    return got


def test_a_chunk_that_does_not_unpack_costs_its_column_alone_and_is_told_once() -> None:
    with pytest.raises(ValueError, match="column a/wave of 8 rows does not unpack"):
        unsound().unpack()
    got, told, sent = unsound(), [], packable(8)
    assert got.encoded.keys() == {"a/wave", "a/image"}
    got.forgive(lambda name, why: told.append((name, why)))
    for name in [*got.columns, *got.columns]:
        if name == "a/wave":
            assert np.isnan(got.columns[name]).all()
            assert got.columns[name].shape == (8, 100)
        else:
            assert got.columns[name].tobytes() == sent.columns[name].tobytes(), name
    assert [name for name, _ in told] == ["a/wave"]
    assert "damaged" in told[0][1]
    assert got.encoded.keys() == {"a/image"}, "it must not get into a file any more"


def test_encoded_columns_are_decoded_when_they_are_first_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[int] = []
    monkeypatch.setattr(
        "ffb.batch.decode", lambda data, *a: made.append(len(data)) or decode(data, *a)
    )
    got = Decoder()(packed_frames()).body
    assert isinstance(got, Batch)
    assert [*got.columns] == [c.name for c in PACKED.columns]
    assert len(got.columns) == len(PACKED.columns)
    assert "a/wave" in got.columns
    assert "a/b" not in got.columns
    _ = got.columns["timestamp"], got.columns["a/noise"]
    assert made == []
    _ = got.columns["a/image"], got.columns["a/image"]
    assert made == [len(got.encoded["a/image"])]
    got.columns["a/image"] = got.columns["a/image"] + 1
    assert got.encoded.keys() == {"a/wave"}, "what was set is not what was sent"
    with pytest.raises(KeyError):
        _ = got.columns["a/b"]


@given(
    st.builds(
        Provenance,
        config=text,
        reducers=st.dictionaries(text, st.recursive(numbers | text, st.lists, max_leaves=5)),
        versions=st.dictionaries(text, text),
        notes=st.lists(text).map(tuple),
    )
)
def test_begin_run_comes_out_as_it_went_in(provenance: Provenance) -> None:
    message = Decoder()(encode(Header("begin_run", "e"), SCHEMA, provenance))
    assert message.schema == SCHEMA
    assert message.body == provenance


@given(st.integers(0, 2**31 - 1), st.dictionaries(text, numbers), text)
def test_step_and_end_come_out_as_they_went_in(step: int, values: dict, words: str) -> None:
    begun = BeginStep(step, values, words, 7)
    assert Decoder()(encode(Header("step"), None, begun)).body == begun
    assert Decoder()(encode(Header("end_run"), None, EndRun(words))).body == EndRun(words)


def test_the_payload_is_the_memory_of_the_batch_on_both_sides() -> None:
    batch = filled(SCHEMA, 8)
    frames = encode(Header("shots"), SCHEMA, batch)
    assert np.shares_memory(np.frombuffer(frames[2], np.uint8), batch.buffer)
    message = Decoder()(frames)
    assert np.shares_memory(message.body.columns["n"], batch.buffer)


def test_a_schema_is_parsed_once() -> None:
    decoder = Decoder()
    first, second = (decoder(messages()[1]).schema for _ in range(2))
    assert first is second


def test_strangers_cannot_fill_the_memory_with_schemas() -> None:
    decoder = Decoder()
    for i in range(200):
        schema = Schema((*CORE, Column(f"c{i}", "<f8")))
        decoder(encode(Header("shots"), schema, filled(schema, 1)))
    assert len(decoder._schemas) <= 64
