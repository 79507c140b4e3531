"""The journal keeps whole records, and nothing that is not whole."""

import subprocess
import sys
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffb.writers import journal
from ffb.writers.journal import CHUNK, Journal, read, scan

CHUNKS = np.array([(3, 0, 4096, 800, 0), (4, 7, 1 << 40, 12, 1)], CHUNK).tobytes()
RECORDS = [
    {"kind": "run", "layout": 2, "exp": "mfxx49820", "run": 42, "began": (1 << 64) - 1},
    {"kind": "commit", "commit": 1, "rows": 128, "tables": {"ffb/log": 77}, "chunks": CHUNKS},
    {"kind": "closed", "segment": 0, "rows": 128},
    {"kind": "ended", "counts": {"read": 130, "lost": {"damaged": 2}, "ended": "end of run"}},
]


def write(path, records, together=False):
    log = Journal(path)
    for record in records:
        log.add(**record)
        if not together:
            log.write()
    log.write()
    log.sync()
    log.close()


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from("abcdef"), PLAIN), max_size=8), st.data())
def test_what_is_written_in_any_number_of_openings_is_read(tmp_path_factory, maps, data):
    path = tmp_path_factory.mktemp("journal") / "journal"
    records = [{"kind": f"k{i}", **m} for i, m in enumerate(maps)]
    cut = data.draw(st.integers(0, len(records)))
    write(path, records[:cut], together=data.draw(st.booleans()))
    write(path, records[cut:], together=data.draw(st.booleans()))
    assert list(read(path)) == records
    assert scan(path) == (len(records), path.stat().st_size, path.stat().st_size)


def test_numpy_and_read_only_mappings_are_plain_data(tmp_path):
    log = Journal(tmp_path / "j")
    log.add("a", n=np.int64(3), x=np.float64(0.5), v=np.arange(3), m=MappingProxyType({"k": 1}))
    log.write()
    assert list(read(tmp_path / "j")) == [
        {"kind": "a", "n": 3, "x": 0.5, "v": [0, 1, 2], "m": {"k": 1}}
    ]
    with pytest.raises(TypeError, match="object is not plain data"):
        log.add("b", what=object())
    log.close()


def test_a_tail_torn_at_any_byte_is_cut_off_and_written_anew(tmp_path):
    path, ends = tmp_path / "j", [0]
    for record in RECORDS:
        write(path, [record])
        ends.append(path.stat().st_size)
    whole = path.read_bytes()
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        kept = sum(end <= size for end in ends[1:])
        assert list(read(path)) == RECORDS[:kept]
        assert scan(path) == (kept, ends[kept], size)
        write(path, RECORDS[kept:])
        assert path.read_bytes() == whole


def test_a_flipped_bit_ends_the_journal_before_its_record(tmp_path):
    path, ends = tmp_path / "j", []
    for record in RECORDS:
        write(path, [record])
        ends.append(path.stat().st_size)
    whole = path.read_bytes()
    for bit in range(len(whole) * 8):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        assert list(read(path)) == RECORDS[: sum(end <= bit // 8 for end in ends)]


@pytest.mark.parametrize("tail", [bytes(8), bytes(4096), b"\xff" * 64, b"\0\0\0\0\x1c\xdf\x44\x21"])
def test_what_a_power_failure_may_leave_at_the_end_is_no_record(tmp_path, tail):
    path = tmp_path / "j"
    write(path, RECORDS)
    path.write_bytes(path.read_bytes() + tail)
    assert list(read(path)) == RECORDS
    write(path, RECORDS[:1])
    assert list(read(path)) == [*RECORDS, RECORDS[0]]


def test_a_missing_journal_is_not_an_empty_one(tmp_path):
    with pytest.raises(FileNotFoundError):
        list(read(tmp_path / "none"))


SHORT = """
import resource, signal, sys
from ffb.writers.journal import Journal, read
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = sys.argv[1]
log = Journal(path)
log.add("a", data=bytes(300)); log.write()
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
log.add("b", data=bytes(300)); log.add("c")
for limit in (310, 400, 500, 640):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        log.write()
    except OSError as e:
        print(e.errno, [r["kind"] for r in read(path)])
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
log.write()
log.add("d"); log.write()
print([r["kind"] for r in read(path)])
"""


def test_a_short_write_is_an_error_that_can_be_repeated(tmp_path):
    command = [sys.executable, "-c", SHORT, str(tmp_path / "j")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *refused, last = done.stdout.splitlines()
    assert len(refused) == 4
    assert all(line.endswith("['a']") for line in refused)
    assert last == "['a', 'b', 'c', 'd']"


def test_a_full_disk_is_an_error_that_can_be_repeated(tmp_path, monkeypatch):
    path = tmp_path / "j"
    write(path, RECORDS[:1])
    log = Journal(path)
    log.add(**RECORDS[1])

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as m:
        m.setattr(journal.os, "pwrite", full)
        for _ in range(3):
            with pytest.raises(OSError, match="No space left"):
                log.write()
    assert list(read(path)) == RECORDS[:1]
    log.write()
    log.close()
    assert list(read(path)) == RECORDS[:2]
