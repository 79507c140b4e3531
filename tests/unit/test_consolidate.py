"""One plain file of a run: the rows of all its segments in order, and nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from ffb.reading import contents
from ffb.reading.contents import COMMITTED, EPOCHS, LEDGER, LOG, ORDER, STEPS, TABLES
from ffb.writers import gather, plain_file
from ffb.writers.consolidate import merge, merge_command, unfinished
from ffb.writers.journal import Journal
from ffb.writers.lease import Lease
from ffb.writers.plain_file import PlainFile
from tests.unit.runs_by_hand import AXIS, INFO, SCHEMAS, ByHand, assert_merged


def stamps_with_late(n: int, start: int, rng: np.random.Generator) -> list[int]:
    """Timestamps in order, but for some that came late and some that came twice."""
    stamps = list(range(start, start + 2 * n, 2))
    for _ in range(n // 40):
        i, j = sorted(rng.integers(0, n, 2).tolist())
        stamps.insert(min(j, i + 30), stamps.pop(i))
    for i in rng.integers(1, n, n // 50).tolist():
        stamps[i] = stamps[i - 1]
    return stamps


@pytest.mark.parametrize("seed", range(6))
def test_any_run_is_merged_into_what_its_segments_hold(tmp_path: Path, seed: int) -> None:
    rng, run, start = np.random.default_rng(seed), ByHand(tmp_path), 50
    for k in range(int(rng.integers(1, 6))):
        n = int(rng.choice([1, 7, 16, 64, 1024, 1025, 2048, 333]))
        epoch = int(rng.integers(0, 2)) if seed % 2 else k // 3
        stamps = stamps_with_late(n, start, rng) if seed else list(range(start, start + n))
        start = max(stamps) + int(rng.integers(-20, 3))
        run.segment(stamps, epoch, uncommitted=int(rng.choice([0, 3])), batch=16 if k % 2 else 24)
    stamps = np.array(run.stamps, "<u8")
    done = merge(run.master())
    with assert_merged(run) as file:
        assert done.rows == len(stamps) == len(file["timestamp"])
        assert done.bytes == run.path.stat().st_size
        moved = bool(np.any(stamps[1:] < stamps[:-1]))
        assert (ORDER in file, done.moved > 0) == (moved, moved)
        if moved:  # by which every row is found where it stood
            old = np.empty(len(stamps), "<u8")
            for row, place, rows in file[ORDER][...].tolist():
                old[place : place + rows] = file["timestamp"][row : row + rows]
            assert np.array_equal(old, stamps)
        assert bytes(file[LOG][...]) == run.lines[LOG].tobytes()
        assert done.copied + done.anew == sum(
            file[n].id.get_num_chunks()
            for n in (*run.truth(), *TABLES)
            if n in done_tables(moved) and n in file
        ) + chunks_of_lists(file)


def chunks_of_lists(file: h5py.File) -> int:
    told = json.loads(file[contents.LISTS].asstr()[()])
    names = {f[k] for f in told.values() for k in ("values", "lengths", "offsets")}
    return sum(file[n].id.get_num_chunks() for n in names)


def done_tables(moved: bool) -> set[str]:
    """Datasets that are gathered chunk by chunk; tables that change are written at once."""
    gathered = {*TABLES, *(n for s in SCHEMAS for n in s.by_name)}
    gathered |= {f"{n}_e{k}" for n in set(gathered) for k in (0, 1)}
    return gathered - {LEDGER, STEPS, EPOCHS} if moved else gathered


def test_chunks_of_full_segments_are_copied_as_they_are(tmp_path: Path) -> None:
    run = ByHand(tmp_path)
    run.segment(range(0, 2048))
    run.segment(range(2048, 4096), uncommitted=5)
    run.segment(range(4096, 4100))
    path, stored = run.master(), {}
    with h5py.File(run.folder / "seg0001.h5", "r") as file:
        for name in ("a/packed", "a/noise", "a/x"):
            stored[name] = file[name].id.read_direct_chunk((1024, *[0] * (file[name].ndim - 1)))
    assert stored["a/noise"][0] == 1, "noise stays unpacked"
    assert stored["a/packed"][0] == 0
    done = merge(path)
    with assert_merged(run) as file:
        for name, chunk in stored.items():
            where = (3072, *[0] * (file[name].ndim - 1))
            assert file[name].id.read_direct_chunk(where) == chunk
        assert file["a/packed"].id.get_storage_size() < file["a/packed"].nbytes
        columns = len(SCHEMAS[0].columns)
        anew = done.anew - chunks_of_lists(file)
        assert anew <= columns + len(TABLES), "only the last chunk of each is new, and lists"
        assert done.copied > 20 * columns


def test_tables_speak_of_the_rows_where_they_are_now(tmp_path: Path) -> None:
    run = ByHand(tmp_path)
    # 1001 and 1003, of step 1 and epoch 1, come before the last ones of step 0 and epoch 0.
    entries = [
        (0, b"written", 900, 910, 3, 0, 1),
        (1, b"written", 1001, 1003, 2, 3, 1),
        (0, b"damaged", 905, 905, 1, -1, 1),
    ]
    run.segment([900, 905, 910], epochs=[(0, 0, 1, 0, 0)], steps=[(0, 0, 0, 5)], ledger=entries)
    run.segment([1001, 1003], 1, epochs=[(1, 3, 2, 0, 0)], steps=[(1, 3, 0, 0), (2, 5, 0, 0)])
    run.segment([920, 1000], ledger=[(0, b"written", 920, 1000, 2, 5, 2)])
    merge(run.master())
    with assert_merged(run) as file:
        assert file["timestamp"][...].tolist() == [900, 905, 910, 920, 1000, 1001, 1003]
        assert file[LEDGER]["row"].tolist() == [0, 5, -1, 3]
        assert file[LEDGER]["first"].tolist() == [900, 1001, 905, 920]
        assert file[STEPS]["row"].tolist() == [0, 4, 7]
        assert file[STEPS]["size"].tolist() == [5, 0, 0]
        assert file[EPOCHS]["row"].tolist() == [0, 5]
        assert file[ORDER][...].tolist() == [(0, 0, 3), (3, 5, 2), (5, 3, 2)]


def test_axes_and_attributes_are_those_of_the_master(tmp_path: Path) -> None:
    run = ByHand(tmp_path)
    run.segment(range(20))
    with h5py.File(run.master(), "r") as file:
        wanted = {n: dict(file[n].attrs) for n in ("a/x", "a/packed")}
    merge(run.path)
    with assert_merged(run) as file:
        assert file["a/wave"].dims[1]["q"][...].tolist() == AXIS["values"]
        for name, attrs in wanted.items():
            for key, value in attrs.items():
                assert np.array_equal(file[name].attrs[key], value), (name, key)


@pytest.mark.parametrize("segments", [0, 1, 3])
def test_a_run_without_rows_is_merged_too(tmp_path: Path, segments: int) -> None:
    run = ByHand(tmp_path)
    for _ in range(max(1, segments)):
        run.segment([], uncommitted=2 * (segments == 3))
    assert merge(run.master()).rows == 0
    assert_merged(run).close()


def test_what_still_grows_is_foreign_or_written_is_refused(tmp_path: Path) -> None:
    run = ByHand(tmp_path)
    run.segment(range(10))
    with pytest.raises(ValueError, match="still grows"):
        merge(run.master(complete=False))
    lease = Lease(run.master())
    with pytest.raises(BlockingIOError, match="is being written by process"):
        merge(run.path)
    lease.release()
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["x"] = 1
    with pytest.raises(ValueError, match="not written by ffb"):
        merge(other)
    (run.folder / "seg0000.h5.torn0").touch()
    with pytest.raises(ValueError, match=r"seg0000\.h5\.torn0 in .* may hold rows"):
        merge(run.path)
    assert run.folder.exists()


@pytest.mark.parametrize("damage", ["gone", "cut", "short"])
def test_a_segment_that_is_missing_or_cut_off_is_named(tmp_path: Path, damage: str) -> None:
    run = ByHand(tmp_path)
    for k in range(3):
        run.segment(range(100 * k, 100 * k + 100))
    path, victim = run.master(), run.folder / "seg0001.h5"
    if damage == "gone":
        victim.unlink()
    elif damage == "cut":
        os.truncate(victim, victim.stat().st_size // 2)
    else:
        with h5py.File(victim, "r+") as file:
            file["a/flag"].resize((99,))
    before = path.read_bytes()
    with pytest.raises(OSError, match=r"seg0001\.h5"):
        merge(path)
    assert path.read_bytes() == before
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_without_room_the_run_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ByHand(tmp_path)
    run.segment(range(100))
    monkeypatch.setattr(plain_file, "RESERVE", 1 << 60)
    with pytest.raises(OSError, match="make room, then run 'ffb merge"):
        merge(run.master())
    assert run.folder.exists()


def test_a_full_disk_half_way_is_an_error_that_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, calls = ByHand(tmp_path), []
    run.segment(range(2000, 0, -1))
    room = PlainFile._room

    def full(self: PlainFile, size: int) -> None:
        calls.append(size)
        if len(calls) == 5:
            raise OSError(28, "no room")
        room(self, size)

    monkeypatch.setattr(PlainFile, "_room", full)
    with pytest.raises(OSError, match="no room"):
        merge(run.master())
    merge(run.path)
    assert_merged(run).close()


def test_what_reads_otherwise_than_the_segments_does_not_take_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Damage every dataset of the new file in turn, after it was written and before it counts."""
    run = ByHand(tmp_path)
    run.segment([*range(0, 2048), 5, 3], ledger=[(0, b"written", 0, 3, 2050, 0, 1)])
    path, compare = run.master(), PlainFile._compare
    names = ["timestamp", "a/x", "a/packed", "a/noise", LEDGER, ORDER, LOG, COMMITTED]
    names += ["a/var_a/hit", "a/var_a/box", "a/var_a_len", "a/var_a_offsets"]
    for name in names:

        def spoilt(self: PlainFile, name: str = name) -> None:
            with h5py.File(self.temporary, "r+") as file:
                raw = file[name][...]
                raw.view("u1").reshape(-1)[-1] ^= 1
                file[name][...] = raw
            compare(self)

        monkeypatch.setattr(PlainFile, "_compare", spoilt)
        with pytest.raises(OSError, match=r"reads? back"):
            merge(path)
    monkeypatch.setattr(PlainFile, "_compare", compare)
    merge(path)
    assert_merged(run).close()


def test_few_files_are_open_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "OPEN_FILES", 2)
    run = ByHand(tmp_path)
    for k in range(5):
        run.segment([*range(100 * k + 100, 100 * k + 130), 100 * k + 50])
    merge(run.master())
    assert_merged(run).close()


KILLED = """
import os, signal, sys
from ffb.writers import consolidate, gather, ragged
path, victim, left = sys.argv[1], sys.argv[2], int(sys.argv[3])
def counted(function):
    def call(*args, **kwargs):
        global left
        left -= function.__name__ == victim
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return call
gather.Joined._put = counted(gather.Joined._put)
gather.Joined.compare = counted(gather.Joined.compare)
ragged.write.__name__, ragged.compare.__name__ = "write_lists", "compare_lists"
ragged.write, ragged.compare = counted(ragged.write), counted(ragged.compare)
consolidate.sync_folder = counted(consolidate.sync_folder)
consolidate.shutil.rmtree = counted(consolidate.shutil.rmtree)
os.replace, os.fsync = counted(os.replace), counted(os.fsync)
consolidate.merge(path)
"""

MOMENTS = [("_put", 9), ("fsync", 1), ("compare", 4), ("write_lists", 2), ("compare_lists", 1),
           ("replace", 1), ("sync_folder", 1), ("rmtree", 1), ("sync_folder", 2)]  # fmt: skip


@pytest.mark.parametrize(("victim", "nth"), MOMENTS)
def test_killed_at_any_moment_it_is_merged_by_the_next(
    tmp_path: Path, victim: str, nth: int
) -> None:
    run = ByHand(tmp_path)
    for k in (0, 100):
        run.segment([*range(k + 100, k + 140), k + 70], k // 100)
    command = [sys.executable, "-c", KILLED, str(run.master()), victim, str(nth)]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with h5py.File(run.path, "r") as file:  # whatever happened, all rows can be read
        assert sorted(file["timestamp"][...]) == sorted(run.stamps)
    merge(run.path)
    assert_merged(run).close()


def test_segments_may_stay_until_nobody_needs_them(tmp_path: Path) -> None:
    run = ByHand(tmp_path)
    run.segment(range(50))
    with h5py.File(run.master(), "r") as early:  # opens the segments when it reads, not before
        merge(run.path, clear=False)
        assert early["a/packed"][...].tobytes() == run.truth()["a/packed"].tobytes()
    assert unfinished(tmp_path) == [run.path]
    merge(run.path, clear=False)
    assert_merged(run).close()


def test_the_command_says_what_was_done(tmp_path: Path) -> None:
    run, said = ByHand(tmp_path), []
    run.segment(range(3000, 5048))
    run.segment([10])
    assert merge_command(run.master(complete=False), said.append) == 1
    assert "still grows" in said.pop()
    assert unfinished(tmp_path) == []
    run.master()
    assert unfinished(tmp_path) == [run.path]
    assert merge_command(run.path, said.append) == 0
    assert "2,049 rows in one file" in said[-1]
    assert "2,049 rows put in order" in said[-1]
    assert merge_command(run.path, said.append) == 0
    assert said[-1].endswith("is one plain file already")
    assert unfinished(tmp_path) == []
    run.folder.mkdir()  # as a merge leaves it that is killed between its last two steps
    assert unfinished(tmp_path) == [run.path]
    assert merge_command(run.path, said.append) == 0
    assert not run.folder.exists()


def test_the_folder_of_another_run_is_not_removed(tmp_path: Path) -> None:
    run = ByHand(tmp_path)
    run.segment(range(5))
    merge(run.master())
    run.folder.mkdir()
    journal = Journal(run.folder / "journal")
    journal.add("run", layout=2, exp=INFO.exp, run=INFO.run, began=INFO.began + 1)
    journal.write()
    journal.close()
    with pytest.raises(ValueError, match="is of a run begun at 100"):
        merge(run.path)
    assert (run.folder / "journal").exists()
