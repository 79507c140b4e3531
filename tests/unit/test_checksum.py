"""Checksums are zlib's, whoever computes them: they lie in files and travel between machines."""

import builtins
import importlib
import zlib

import numpy as np
import pytest

from ffb.messaging import checksum

DATA = np.random.default_rng(1).integers(0, 256, 100_003, np.uint8)


@pytest.fixture(params=["as installed", "without ISA-L"])
def crc32(request, monkeypatch):
    if request.param == "without ISA-L":
        real = builtins.__import__

        def found(name, *args, **kwargs):
            if name.startswith("isal"):
                raise ImportError(name)
            return real(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", found)
        importlib.reload(checksum)
        yield checksum.crc32
        monkeypatch.undo()
        importlib.reload(checksum)
    else:
        yield checksum.crc32


@pytest.mark.parametrize("size", [0, 1, 7, 64, 4097, 100_003])
@pytest.mark.parametrize("start", [0, 1, 0xFFFF_FFFF])
def test_a_checksum_is_the_one_of_zlib(crc32, size, start):
    data = DATA[:size]
    for given in (data.tobytes(), memoryview(data), data):
        assert crc32(given, start) == zlib.crc32(data.tobytes(), start)
    assert crc32(b"123456789") == 0xCBF4_3926


def test_parts_make_the_checksum_of_the_whole(crc32):
    assert crc32(DATA[777:], crc32(DATA[:777])) == zlib.crc32(DATA)
