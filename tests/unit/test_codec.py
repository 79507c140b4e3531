"""The codec speaks the filter's language, both ways, and believes nobody."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401 - registers the filter
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffb.messaging import codec

DTYPES = ("|b1", "|u1", "|i1", "<i2", "<u4", "<f4", "<f8", "<u8", "<c8", "<c16")
dtypes = st.sampled_from(DTYPES)
codecs = st.sampled_from(sorted(codec.CODECS))
#: Around the ends of groups (8 elements) and blocks (8192 elements), and some.
sizes = st.one_of(
    st.integers(1, 40), st.sampled_from([512, 1025, 8191, 8192, 8193, 8200, 16_384, 20_001])
)


def values(dtype: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    made = rng.poisson(3, shape).astype(dtype)
    if made.dtype.kind in "fc":
        made.flat[:: max(1, made.size // 5)] = np.nan
    return made


@given(dtypes, sizes, codecs)
@settings(max_examples=150, deadline=None)
def test_what_is_encoded_is_decoded(dtype: str, size: int, name: str) -> None:
    a = values(dtype, (size,), size)
    b = codec.decode(codec.encode(a, name), dtype, a.shape, name)
    assert b.dtype == a.dtype
    assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("name", codec.CODECS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("row", [(3,), (1000,), (33, 65)])
def test_hdf5_reads_what_we_encode_and_we_read_what_it_wrote(
    tmp_path: Path, name: str, dtype: str, row: tuple[int, ...]
) -> None:
    a = values(dtype, (32, *row))
    with h5py.File(tmp_path / "a.h5", "w") as f:
        made = {
            k: f.create_dataset(k, a.shape, dtype, chunks=(16, *row), **codec.filter_options(name))
            for k in ("ours", "theirs")
        }
        made["theirs"][...] = a
        for first in (0, 16):
            chunk = codec.encode(a[first : first + 16], name)
            made["ours"].id.write_direct_chunk((first, *[0] * len(row)), chunk)
            mask, theirs = made["theirs"].id.read_direct_chunk((first, *[0] * len(row)))
            assert mask == 0
            assert theirs == chunk
    with h5py.File(tmp_path / "a.h5") as f:
        assert f["ours"][...].tobytes() == a.tobytes()
        _, theirs = f["theirs"].id.read_direct_chunk((16, *[0] * len(row)))
        assert codec.decode(theirs, dtype, (16, *row), name).tobytes() == a[16:].tobytes()


def test_strided_and_empty_arrays_are_encoded_too() -> None:
    a = np.arange(4000, dtype="<i4").reshape(40, 100)[::2, 1::3]
    assert np.array_equal(
        codec.decode(codec.encode(a, "bitshuffle-lz4"), a.dtype, a.shape, "bitshuffle-lz4"), a
    )
    none = np.empty((0, 7), "<f4")
    name = "bitshuffle-zstd"
    assert codec.decode(codec.encode(none, name), "<f4", (0, 7), name).shape == (0, 7)


def test_an_unknown_codec_is_named() -> None:
    with pytest.raises(LookupError, match="no codec 'gzip'; known: bitshuffle-lz4"):
        codec.encode(np.zeros(8), "gzip")


def test_without_the_library_the_message_tells_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(codec, "find_spec", lambda name: None)
    codec._library.cache_clear()
    with pytest.raises(LookupError, match="pip install hdf5plugin"):
        codec._library()
    codec._library.cache_clear()


@pytest.mark.parametrize("name", codec.CODECS)
def test_every_truncation_and_every_longer_chunk_is_refused(name: str) -> None:
    a = values("<i2", (9001,))
    whole = codec.encode(a, name)
    for end in [*range(64), *range(64, len(whole), 97), len(whole) - 1]:
        with pytest.raises(ValueError, match="chunk"):
            codec.decode(whole[:end], "<i2", a.shape, name)
    with pytest.raises(ValueError, match="chunk"):
        codec.decode(whole + b"\0", "<i2", a.shape, name)


@pytest.mark.parametrize("name", codec.CODECS)
@pytest.mark.parametrize(
    ("at", "form", "lie"),
    [
        (0, ">Q", 1 << 62),
        (0, ">Q", 0),
        (0, ">Q", 18_000),
        (8, ">I", 0),
        (8, ">I", 8191),
        (8, ">I", 16),
        (8, ">I", 1 << 31),
        (8, ">I", 0xFFFF_FFF0),
        (12, ">I", 0),
        (12, ">I", 0xFFFF_FFFF),
        (12, ">I", 0x7FFF_FFFF),
        (12, ">I", 1),
    ],
)
def test_a_lie_about_a_size_is_refused(name: str, at: int, form: str, lie: int) -> None:
    a = values("<i2", (9001,))
    chunk = bytearray(codec.encode(a, name))
    struct.pack_into(form, chunk, at, lie)
    with pytest.raises(ValueError, match="chunk"):
        codec.decode(chunk, "<i2", a.shape, name)


@pytest.mark.parametrize("name", codec.CODECS)
def test_a_chunk_of_another_size_than_expected_takes_no_memory(name: str) -> None:
    """A shape from a stranger is taken only when the chunk agrees."""
    with pytest.raises(ValueError, match="a chunk says it holds 80 bytes"):
        codec.decode(codec.encode(np.zeros(10), name), "<f8", (1 << 50,), name)


@pytest.mark.parametrize("name", codec.CODECS)
def test_damage_raises_nothing_but_value_errors(name: str) -> None:
    rng, refused = random.Random(3), 0
    a = values("<f4", (64, 100))
    whole = codec.encode(a, name)
    for _ in range(2000):
        chunk = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            chunk[rng.randrange(len(chunk))] = rng.randrange(256)
        try:
            assert codec.decode(chunk, "<f4", a.shape, name).shape == a.shape
        except ValueError:
            refused += 1
    assert refused > 100
