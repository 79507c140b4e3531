"""What lies in a ring outlives its process, whenever that ends; what is damaged is not believed."""

import fcntl
import os
import random
import stat
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffb.producing import ring as rings
from ffb.producing.ringfile import RingError, RingFile, TakenError

SIZE = 10_000


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "rings"


def new(folder, size=SIZE, name="p0"):
    file = RingFile("tstx00001", name, "ipc:///here", folder)
    return file, file.make(size, 77)


def frames(seq, size=100):
    return [b"head %d" % seq, b"", random.Random(seq).randbytes(size)]


def dies(file, ring):
    """As the kernel closes what a killed process held."""
    ring.close()
    os.close(file._fd)
    file._fd = -1


def heir(folder, name="p0"):
    file = RingFile("tstx00001", name, "ipc:///here", folder)
    try:
        return file.read()
    finally:
        file.close(remove=False)


def test_messages_and_shots_not_told_of_outlive_their_process(folder):
    file, ring = new(folder)
    ring.put(1, "begin_run", frames(1), place=40)
    file.install()
    for t in (11, 12, 13):
        ring.note(t)
    ring.put(2, "shots", frames(2), read=3)
    ring.note(14)
    ring.put(3, "step", frames(3), read=3)
    ring.note(15)
    dies(file, ring)
    left = heir(folder)
    assert (left.epoch, left.acked, left.unsent, left.more) == (77, 0, [14, 15], 0)
    assert (left.last, left.damaged) == (13, 0)
    assert [(m.seq, m.kind, m.noted, m.place) for m in left.messages] == [
        (1, "begin_run", 0, 40),
        (2, "shots", 3, 43),
        (3, "step", 3, 43),
    ]
    assert [m.frames for m in left.messages] == [frames(k) for k in (1, 2, 3)]


def test_what_is_let_go_of_is_gone_but_the_newest_stays(folder):
    file, ring = new(folder)
    for k in (1, 2, 3):
        ring.put(k, "shots", frames(k))
    file.install()
    ring.acked(3)
    for k in (1, 2, 3):
        ring.free(k)
    assert ring.bytes == sum(map(len, frames(3)))
    assert ring.high_water == 3 * ring.bytes
    dies(file, ring)
    left = heir(folder)
    assert ([m.seq for m in left.messages], left.acked) == ([3], 3)
    file, ring = new(folder)
    ring.put(1, "shots", frames(1))
    ring.free(1)
    ring.put(2, "shots", frames(2))
    assert ring.bytes == sum(map(len, frames(2)))
    dies(file, ring)


def test_of_many_shots_not_told_of_the_first_and_the_newest_are_known(folder, monkeypatch):
    monkeypatch.setattr(rings, "STAMPS", 8)
    file, ring = new(folder)
    ring.put(1, "begin_run", frames(1))
    file.install()
    for t in range(100, 105):
        ring.note(t)
    ring.put(2, "shots", frames(2), read=5)
    for t in range(200, 220):
        ring.note(t)
    dies(file, ring)
    left = heir(folder)
    assert left.unsent == [*range(200, 207), 219]
    assert left.more == 12
    assert left.last == 0


def test_a_promise_stands_for_a_begin_run_until_that_is_there(folder):
    """Shots taken before the run could be begun are known, and those not told of yet stay so."""
    file, ring = new(folder)
    ring.promise(1, frames(1))
    file.install()
    for t in (11, 12, 13):
        ring.note(t)
    dies(file, ring)
    left = heir(folder)
    assert [(m.seq, m.kind, m.frames) for m in left.messages] == [(1, "begin_run", frames(1))]
    assert (left.unsent, left.acked) == ([11, 12, 13], 0)
    file, ring = new(folder)
    ring.promise(1, frames(1))
    for t in (11, 12, 13):
        ring.note(t)
    ring.put(1, "begin_run", frames(2))
    file.install()
    ring.put(2, "shots", frames(3), read=1)
    assert ring.bytes == sum(map(len, [*frames(2), *frames(3)]))
    dies(file, ring)
    left = heir(folder)
    assert [(m.seq, m.frames) for m in left.messages] == [(1, frames(2)), (2, frames(3))]
    assert left.unsent == [12, 13]


def test_where_both_are_there_the_begin_run_counts(folder, monkeypatch):
    """Killed between putting it and forgetting the promise."""
    file, ring = new(folder)
    ring.promise(1, frames(1))
    file.install()
    ring.note(11)
    monkeypatch.setattr(rings.Ring, "_forget", lambda _: None)
    ring.put(1, "begin_run", frames(2))
    dies(file, ring)
    left = heir(folder)
    assert [m.frames for m in left.messages] == [frames(2)]
    assert left.unsent == [11]


def test_a_promise_withdrawn_leaves_the_run_before_as_it_was(folder):
    file, ring = new(folder)
    ring.put(1, "begin_run", frames(1))
    file.install()
    ring.note(5)
    ring.put(2, "end_run", frames(2), read=1)
    ring.promise(3, frames(3))
    ring.note(11)
    assert [m.seq for m in rings.read(ring._memory, SIZE).messages] == [1, 2, 3]
    ring.withdraw()
    ring.withdraw()
    dies(file, ring)
    left = heir(folder)
    assert ([m.seq for m in left.messages], left.unsent, left.more) == ([1, 2], [], 0)


def entries(folder):
    """Offsets of the lines of the index in the file that are in use."""
    data = next(folder.glob("*.ring")).read_bytes()
    words = memoryview(data[: rings.DATA_AT]).cast("Q")
    lines = range(rings._INDEX_AT, len(words), rings._LINE)
    return {words[at]: 8 * at for at in lines if words[at]}


def flip(folder, at):
    with next(folder.glob("*.ring")).open("r+b") as f:
        f.seek(at)
        byte = f.read(1)
        f.seek(at)
        f.write(bytes([byte[0] ^ 0x40]))


@pytest.mark.parametrize("where", ["data", "seq", "kind", "begin", "size", "noted", "checksum"])
def test_what_is_damaged_and_what_follows_is_not_believed(folder, where, caplog):
    file, ring = new(folder)
    for k in (1, 2, 3, 4):
        ring.note(10 * k)
        ring.put(k, "shots", frames(k), read=k)
    file.install()
    dies(file, ring)
    line = entries(folder)[3]
    word = {"seq": 1, "kind": 2, "begin": 3, "size": 6, "noted": 7, "checksum": 9}
    flip(folder, rings.DATA_AT + 250 if where == "data" else line + 8 * word[where])
    left = heir(folder)
    assert [m.seq for m in left.messages] == [1, 2]
    assert left.unsent == [30, 40]
    assert left.damaged == 1
    assert "damaged" in caplog.text


def test_a_message_not_wholly_put_does_not_exist(folder):
    """Killed before its line says that it is there."""
    file, ring = new(folder)
    ring.put(1, "begin_run", frames(1))
    file.install()
    ring.note(5)
    ring.put(2, "shots", frames(2), read=1)
    ring._words[ring._lines[2]] = 0
    dies(file, ring)
    left = heir(folder)
    assert ([m.seq for m in left.messages], left.unsent, left.damaged) == ([1], [5], 0)


def test_books_without_their_newest_message_are_no_books(folder):
    """The newest is damaged and what came before is let go of: nothing can be said."""
    file, ring = new(folder)
    ring.put(1, "begin_run", frames(1))
    ring.put(2, "shots", frames(2))
    ring.put(3, "shots", frames(3))
    file.install()
    ring.acked(3)
    ring.free(2)
    ring.free(3)
    dies(file, ring)
    flip(folder, entries(folder)[3] + 8 * 7)
    assert heir(folder) is None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 3500)), max_size=60), st.randoms())
def test_it_uses_its_room_again_stays_within_its_bound_and_tells_what_it_holds(steps, rng):
    """Against a plain list: put what fits, let go of the oldest, look at any time."""
    fd = os.memfd_create("ring")
    ring, kept, seq = rings.Ring(fd, SIZE, 5), [], 0
    for what, size in steps:
        if what and kept:
            acked = kept[rng.randrange(len(kept))]
            ring.acked(acked)
            while kept and kept[0] <= acked:
                ring.free(kept.pop(0))
        else:
            if rng.random() < 0.5:
                ring.note(1000 + seq)
            fits = ring.fits(sum(map(len, frames(seq + 1, size))))
            assert ring.put(seq + 1, "shots", frames(seq + 1, size)) == fits
            if fits:
                seq += 1
                kept.append(seq)
                sizes[seq] = size
        assert ring.bytes <= SIZE
        left = rings.read(ring._memory, SIZE)
        if seq == 0:
            assert left is None
            continue
        expected = kept or [seq]
        assert [m.seq for m in left.messages] == expected
        assert all(m.frames == frames(m.seq, sizes[m.seq]) for m in left.messages)
        assert left.damaged == 0
    ring.close()
    os.close(fd)


sizes: dict[int, int] = {}


def test_a_ring_that_is_empty_has_room_for_its_size_less_what_stays(folder):
    file, ring = new(folder)
    ring.put(1, "begin_run", frames(1, 500))
    n = 1
    while ring.fits(1000):
        n += 1
        assert ring.put(n, "shots", [b"", b"", bytes(1000)])
    assert n == 10
    assert not ring.put(n + 1, "shots", [b"", b"", bytes(1000)])
    ring.acked(n)
    for k in range(2, n + 1):
        ring.free(k)
    assert ring.fits(8000)
    dies(file, ring)


def test_a_second_living_producer_of_the_name_is_refused_here_and_no_other(folder):
    first, ring = new(folder)
    with pytest.raises(TakenError, match=rf"'p0' is already at work here \(process {os.getpid()}"):
        RingFile("tstx00001", "p0", "ipc:///here", folder)
    first.install()
    with pytest.raises(TakenError, match=rf"process {os.getpid()}"):
        RingFile("tstx00001", "p0", "ipc:///here", folder)
    for exp, name, address in (("x", "p0", "here"), ("x", "p1", "here"), ("x", "p1", "there")):
        RingFile(exp, name, f"ipc:///{address}", folder).close(remove=True)
    ring.close()
    first.close(remove=True)
    RingFile("tstx00001", "p0", "ipc:///here", folder).close(remove=True)


def test_who_ends_well_leaves_nothing_behind(folder):
    file, ring = new(folder)
    ring.put(1, "begin_run", frames(1))
    file.install()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [stat.S_IMODE(f.stat().st_mode) for f in folder.iterdir()] == [0o600]
    ring.close()
    file.close(remove=True)
    assert list(folder.iterdir()) == []
    file = RingFile("", "p0", "ipc:///here", folder)
    assert file.read() is None
    file.close(remove=False)
    assert list(folder.iterdir()) == []


def test_a_ring_that_is_not_begun_leaves_what_there_was(folder):
    """An heir that is killed before its own first message: the next one finds the same."""
    file, ring = new(folder)
    ring.put(1, "begin_run", frames(1))
    file.install()
    dies(file, ring)
    file, ring = new(folder)
    dies(file, ring)
    assert [m.frames for m in heir(folder).messages] == [frames(1)]


def test_a_folder_of_somebody_else_is_not_used(folder):
    folder.mkdir(mode=0o755)
    with pytest.raises(RingError, match=r"no ring in .*not a folder of yours alone"):
        RingFile("x", "p0", "ipc:///here", folder)


def test_no_memory_for_a_ring_is_said_and_leaves_nothing(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    file = RingFile("x", "p0", "ipc:///here", folder)
    with pytest.raises(RingError, match=r"no ring in .*: No space left on device; free some"):
        file.make(10**9, 1)
    file.close(remove=False)
    assert list(folder.iterdir()) == []


def test_memory_is_taken_as_it_is_needed_and_its_end_is_no_crash(folder, monkeypatch):
    file, ring = new(folder, 100 << 20)
    path = file.path.with_suffix(".new")
    assert path.stat().st_blocks * 512 < 3 << 20
    assert ring.put(1, "begin_run", frames(1, 6 << 20))
    assert 6 << 20 < path.stat().st_blocks * 512 < 12 << 20

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert ring.put(2, "shots", frames(2))
    assert not ring.put(3, "shots", frames(3, 6 << 20))
    dies(file, ring)


def test_what_is_no_ring_is_left_alone(folder):
    RingFile("x", "p0", "ipc:///here", folder).close(remove=True)
    path = Path(folder, "x-p0-0.ring")
    path.write_bytes(bytes(rings.DATA_AT + 100))
    file = RingFile("x", "p0", "ipc:///here", folder)
    path.replace(file.path)
    file.close(remove=False)
    file = RingFile("x", "p0", "ipc:///here", folder)
    assert file.read() is None
    file.close(remove=True)


def test_what_nobody_came_for_in_a_week_is_removed_unless_somebody_holds_it(folder, caplog):
    held, ring = new(folder, name="held")
    ring.put(1, "begin_run", frames(1))
    held.install()
    for name in ("old", "young"):
        file, other = new(folder, name=name)
        other.put(1, "begin_run", frames(1))
        file.install()
        dies(file, other)
    long_ago = time.time_ns() - 8 * 86_400 * 10**9
    for path in folder.glob("*.ring"):
        if "young" not in path.name:
            os.utime(path, ns=(long_ago, long_ago))
    assert heir(folder, "young") is not None
    assert sorted(p.name.split("-")[1] for p in folder.iterdir()) == ["held", "young"]
    assert "not used for 7 days" in caplog.text
    dies(held, ring)


def test_a_file_that_goes_while_we_take_it_is_not_ours(folder, monkeypatch):
    """Its owner ends well between our opening it and locking it."""
    owner = RingFile("tstx00001", "p0", "ipc:///here", folder)
    lock = fcntl.flock

    def at_last(fd, how):
        owner.close(remove=True)
        lock(fd, how)

    monkeypatch.setattr(fcntl, "flock", at_last)
    mine = RingFile("tstx00001", "p0", "ipc:///here", folder)
    monkeypatch.undo()
    with pytest.raises(TakenError):
        RingFile("tstx00001", "p0", "ipc:///here", folder)
    mine.close(remove=True)
