"""Disks that fill, folders that close, files that are held, processes that stop: rows survive."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

import ffb
from ffb.aggregating.serve import Service
from tests.process.strangers import EXP, Honest, serve, serve_until

SIZE = 20 << 20
NOBODY = 65534


@contextlib.contextmanager
def serving(*args, **writer: float) -> Iterator[Service]:
    out = serve(*args, **writer)
    try:
        yield out
    finally:
        out.close()


@contextlib.contextmanager
def producer(service: Service) -> Iterator[Honest]:
    out = Honest(service)
    try:
        out.shots()
        serve_until(service, lambda: out.link.unacked == 0, out)
        yield out
    finally:
        out.link.close()


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """20 MB of disk, mounted here."""
    disk = tmp_path / "disk"
    disk.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(disk)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"NO DISK CAN BE MOUNTED ({done.stderr.strip()}): no full disk is tested")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.fixture
def as_nobody() -> Iterator[Callable[[], Path]]:
    """Go on as a user without rights, in a folder of his: permissions do not bind root."""
    me, home = os.geteuid(), Path(tempfile.mkdtemp(prefix="ffb-nobody-"))

    def become() -> Path:
        if me == 0:
            os.chown(home, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        return home

    yield become
    os.seteuid(me)
    shutil.rmtree(home)


def fault(service: Service) -> str:
    """Why commits are held up, as the page says it."""
    said = service.aggregator.fault
    assert not said or said in service._status(time.monotonic_ns())["alarms"]
    return said


def hold_up(service: Service, good: Honest, *, n: int = 3, most: int = 4000) -> str:
    """Send rows until they are held up; returns the sentence about it."""
    for _ in range(most):
        good.shots(n)
        serve_until(service, lambda: bool(fault(service)) or good.link.unacked == 0, good)
        if fault(service):
            break
    assert good.link.unacked, "nothing was held up"
    return fault(service)


def finish(service: Service, good: Honest, path: Path, *, ended: bool = False) -> None:
    """End the run; every row is there once, in order, and the books balance."""
    if not ended:
        good.end()
    serve_until(service, lambda: not service.aggregator.open, good)
    assert fault(service) == ""
    assert not service.aggregator.closed[-1].problems
    with ffb.open(path) as run:
        assert run.complete
        counts, stamps, x = run.counts, run["timestamp"][:], run["x"][:]
    assert counts.read == counts.written == good.read == len(stamps)
    assert sum(counts.lost.values()) == 0
    assert (np.diff(stamps.astype(np.int64)) > 0).all()
    np.testing.assert_array_equal(x, stamps.astype(float))


def name(folder: Path) -> Path:
    return folder / f"{EXP}_Run0001.h5"


def test_a_disk_that_fills_up_and_is_freed_in_mid_run(tmp_path, small_disk):
    with serving(tmp_path, small_disk) as service, producer(service) as good:
        ballast = small_disk / "ballast"
        free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
        ballast.write_bytes(bytes(free - (256 << 10)))
        said = hold_up(service, good, n=64)
        assert "MB free" in said
        assert EXP in said
        committed = service.aggregator.open
        with ffb.open(name(small_disk)) as run:  # a full disk is no reason not to read
            rows = run.committed
        assert rows == max(c.written for c in committed.values())
        for _ in range(20):  # it goes on taking, and says the same
            good.shots()
            service.turn()
        assert fault(service) == said
        ballast.unlink()
        serve_until(service, lambda: good.link.unacked == 0, good)
        assert fault(service) == ""
        for _ in range(20):
            good.shots()
        serve_until(service, lambda: good.link.unacked == 0, good)
        finish(service, good, name(small_disk))


def test_a_disk_that_is_full_before_the_run_begins(tmp_path, small_disk):
    with serving(tmp_path, small_disk) as service:
        ballast = small_disk / "ballast"
        ballast.write_bytes(bytes(SIZE - (64 << 10)))
        good = Honest(service)
        good.shots()
        serve_until(service, lambda: bool(fault(service)), good)
        assert "MB free" in fault(service)
        ballast.unlink()
        serve_until(service, lambda: good.link.unacked == 0, good)
        finish(service, good, name(small_disk))
        good.link.close()


def test_a_folder_that_loses_its_write_permission_and_gets_it_back(as_nobody, caplog):
    home = as_nobody()
    files = home / "files"
    files.mkdir()

    def send(batches: int) -> None:
        for _ in range(batches):
            good.shots(100)
            serve_until(service, lambda: good.link.unacked == 0, good)

    with serving(home, files, segment_rows=1024) as service, producer(service) as good:
        folders = [files, *(p for p in files.iterdir() if p.is_dir())]
        assert len(folders) == 2
        for folder in folders:
            folder.chmod(0o500)
        send(25)  # two segments would have begun
        assert "no new segment can be begun" in caplog.text
        assert "Permission denied" in caplog.text
        with ffb.open(name(files)) as run:
            assert run.committed == good.read
        for folder in folders:
            folder.chmod(0o700)
        send(25)
        assert "all is well again" in caplog.text
        finish(service, good, name(files))


def test_a_folder_that_has_no_write_permission_when_the_run_ends(as_nobody):
    home = as_nobody()
    files = home / "files"
    files.mkdir()
    with serving(home, files) as service, producer(service) as good:
        files.chmod(0o500)
        good.end()
        serve_until(service, lambda: bool(fault(service)), good)
        assert "Permission denied" in fault(service)
        files.chmod(0o700)
        finish(service, good, name(files), ended=True)


def test_a_run_that_another_process_writes(tmp_path):
    (tmp_path / "h5").mkdir()
    lock = name(tmp_path / "h5").with_suffix(".h5.lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    with serving(tmp_path) as service:
        good = Honest(service)
        good.shots()
        serve_until(service, lambda: bool(fault(service)), good)
        assert "is being written by another process" in fault(service)
        lock.close()
        serve_until(service, lambda: good.link.unacked == 0, good)
        finish(service, good, name(tmp_path / "h5"))
        good.link.close()


def test_readers_that_hold_the_file_while_it_rolls_ends_and_is_merged(tmp_path):
    path = name(tmp_path / "h5")
    with serving(tmp_path, segment_rows=1024) as service, producer(service) as good:
        with (
            ffb.open(path) as run,
            h5py.File(path, "r", libver="latest", swmr=True, locking=False) as plain,
        ):
            seen = [run.committed]
            for _ in range(30):
                good.shots(100)
                serve_until(service, lambda: good.link.unacked == 0, good)
                with ffb.open(path) as other:
                    seen.append(other.committed)
                    assert other["timestamp"][: seen[-1]].size == seen[-1]
            assert seen == sorted(seen)
            assert seen[-1] == good.read
            assert plain["ffb/committed"].shape == (1,)
            good.end()
            serve_until(service, lambda: not service.aggregator.open, good)
            assert run.committed >= seen[0]
        finish_read(path, good.read)


def finish_read(path: Path, rows: int) -> None:
    with h5py.File(path, "r") as f:
        assert f["timestamp"].shape == (rows,)
        assert (np.diff(f["timestamp"][:].astype(np.int64)) > 0).all()


def test_a_clock_that_goes_back_an_hour(tmp_path, monkeypatch):
    now = time.time_ns
    with serving(tmp_path) as service, producer(service) as good:
        monkeypatch.setattr(time, "time_ns", lambda: now() - 3_600_000_000_000)
        for _ in range(5):
            good.shots()
            serve_until(service, lambda: good.link.unacked == 0, good)
        monkeypatch.setattr(time, "time_ns", lambda: 0)
        good.shots()
        serve_until(service, lambda: good.link.unacked == 0, good)
        assert service._snapshot(time.monotonic_ns())
        finish(service, good, name(tmp_path / "h5"))
