"""Some room is kept on the disk, and people are told before it comes to that."""

import os
import shutil
from types import SimpleNamespace

import pytest

from ffb import reader
from ffb.service import room
from ffb.service.room import Room
from ffb.writers.chain import Rolling
from ffb.writers.small_data import SmallData
from tests.unit.small_data_truth import INFO, PROVENANCE, SCHEMA, assert_true, books, make_batch

GB = 1_000_000_000


@pytest.fixture
def disk(monkeypatch):
    """A disk with as much room as is said."""
    state = SimpleNamespace(free=100 * GB)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=state.free))
    statvfs = lambda path: SimpleNamespace(f_bavail=state.free // 512, f_frsize=512)  # noqa: E731
    monkeypatch.setattr(os, "statvfs", statvfs)
    monkeypatch.setattr(room, "LOOK_S", -1.0)
    return state


def test_an_alarm_comes_early_and_goes(disk, tmp_path):
    watched = Room(reserve_gb=1.0, warn_gb=10.0)
    assert watched.alarms == []
    watched.watch(tmp_path / "not" / "made" / "yet")
    assert watched.alarms == []
    disk.free = 5 * GB
    (said,) = watched.alarms
    assert "only 5.0 GB free in" in said
    assert "below 1.0 GB no rows are written: make room" in said
    disk.free = 50 * GB
    assert watched.alarms == []


@pytest.mark.parametrize("why", ["is no folder", "we may not write in"])
def test_a_folder_that_cannot_be_written_is_told_before_there_is_anything_to_write(
    disk, tmp_path, monkeypatch, why
):
    folder, kept = tmp_path / "there" / "not" / "yet", Room(reserve_gb=1.0, warn_gb=10.0)
    kept.refuse(folder)
    if why == "is no folder":
        (tmp_path / "there").touch()
    else:
        monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    kept.watch(folder)
    (said,) = kept.alarms
    assert said.startswith(f"{folder}: cannot be written, ")
    assert why in said
    assert "writer.directory" in said
    with pytest.raises(OSError, match=why):
        kept.refuse(folder)


def test_no_run_is_begun_and_no_row_written_where_room_is_kept_and_the_end_may_use_it(
    disk, tmp_path
):
    kept = Room(reserve_gb=2.0, warn_gb=10.0)
    sink = SmallData(tmp_path, rolling=Rolling(reserve=kept.kept), merge=None)
    disk.free = 1 * GB
    with pytest.raises(OSError, match=r"1\.0 GB free, 2\.0 GB are kept free: make room"):
        kept.refuse(tmp_path)
    with pytest.raises(OSError, match=r"1000\.0 MB free, .* and 2,000 MB kept free: make room"):
        sink.begin_run(INFO, SCHEMA, PROVENANCE)
    assert not [*tmp_path.glob("*.h5")]
    disk.free = 3 * GB
    kept.refuse(tmp_path)
    sink.begin_run(INFO, SCHEMA, PROVENANCE)
    sink.append(make_batch(0, 100))
    sink.commit(books(1, 100))
    disk.free = 1 * GB
    sink.append(make_batch(100, 100))
    with pytest.raises(OSError, match="100 rows are safe in the file, 100 wait in memory"):
        sink.commit(books(2, 200))
    kept.spend()
    sink.commit(books(2, 200))
    sink.end_run(books(3, 200, ended="stopped"))
    with reader.open(sink.path) as run:
        assert run.complete
        assert_true(run, 200)


def test_the_last_commit_of_a_run_may_use_what_is_kept(disk, tmp_path):
    sink = SmallData(tmp_path, rolling=Rolling(reserve=Room(2.0, 10.0).kept), merge=None)
    sink.begin_run(INFO, SCHEMA, PROVENANCE)
    disk.free = 1 * GB
    sink.append(make_batch(0, 100))
    sink.end_run(books(1, 100))
    with reader.open(sink.path) as run:
        assert_true(run, 100)
