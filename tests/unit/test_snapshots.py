"""What the page showed is kept beside the run: whole, bounded, and never in the way."""

import pytest

from ffb.live.snapshots import MAGIC, Album, DamagedError, Kept, beside, read


@pytest.fixture
def path(tmp_path):
    return beside(tmp_path / "tstx00001_Run0007.h5")


def frame(commit, size=1000):
    return bytes([commit % 256]) * size


def test_snapshots_are_kept_in_order_and_another_life_goes_on(path):
    assert path.name == "tstx00001_Run0007.snapshots"
    for life in range(3):
        album = Album(path)
        for commit in (2 * life + 1, 2 * life + 2):
            album.add(commit, frame(commit))
    assert [*read(path)] == [Kept(k, frame(k)) for k in range(1, 7)]


@pytest.mark.parametrize("cut", [1, 500, 1019])
def test_a_torn_record_is_left_out_and_written_over(path, cut):
    album = Album(path)
    album.add(1, frame(1))
    album.add(2, frame(2))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - cut)
    assert [k.commit for k in read(path)] == [1]
    Album(path).add(3, frame(3))
    assert [*read(path)] == [Kept(1, frame(1)), Kept(3, frame(3))]


@pytest.mark.parametrize("at", [9, 18, 25, 500])
def test_a_record_that_was_changed_is_found(path, at):
    album = Album(path)
    album.add(1, frame(1))
    album.add(2, frame(2))
    raw = bytearray(path.read_bytes())
    raw[at + len(MAGIC) + 1020 - 8] ^= 1  # in the second record
    path.write_bytes(raw)
    kept = read(path)
    assert next(kept) == Kept(1, frame(1))
    with pytest.raises((DamagedError, StopIteration)):  # a larger size makes it a torn one
        next(kept)


def test_every_second_one_goes_when_they_get_large_and_the_newest_stays(path):
    album = Album(path, most=20_000)
    for commit in range(1, 101):
        album.add(commit, frame(commit))
        assert path.stat().st_size <= 20_000
    commits = [k.commit for k in read(path)]
    assert commits[-1] == 100
    assert commits == sorted(set(commits))
    assert len(commits) > 8
    assert commits[0] < 50  # old ones are thinned, not cut off
    album.add(101, frame(101, 30_000))
    assert [k.commit for k in read(path)] == commits
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_file_of_another_kind_is_no_album(path):
    path.write_bytes(b"something else")
    with pytest.raises(ValueError, match="no snapshots are kept"):
        next(read(path))
    with pytest.raises(FileExistsError, match="left as it is"):
        Album(path)
    path.write_bytes(MAGIC[:3])  # begun when the machine went down
    Album(path).add(1, frame(1))
    assert [k.commit for k in read(path)] == [1]
