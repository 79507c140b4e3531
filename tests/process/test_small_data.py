"""The small-data file under other processes' eyes, under kill -9 and on a full disk."""

import contextlib
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import h5py
import numpy as np
import pytest

from ffb import reader
from ffb.batch import Batch
from ffb.schema import CORE, Column, Schema
from ffb.sink import Counts, Provenance
from ffb.source import RunInfo
from ffb.writers.chain import Rolling
from ffb.writers.small_data import SmallData

INFO = RunInfo("tstx00123", 7, 1 << 60)
SCHEMA = Schema(
    (
        *CORE,
        *(Column(f"s/{i}", "<f8", reducer="s") for i in range(6)),
        Column("s/present", "|b1", reducer="s"),
        Column("w/trace", "<f4", (700,), ("t",), reducer="w"),
        Column("roi/area", "<i4", (16, 50), ("y", "x"), reducer="roi"),
    )
)

STEP_ROWS = 400

#: Children start as forks of a process that has imported everything and opened no file.
SPAWN = multiprocessing.get_context("forkserver")
SPAWN.set_forkserver_preload(["tests.process.test_small_data"])


def truth(column: Column, first: int, n: int) -> np.ndarray:
    """What the column holds in rows ``first`` to ``first + n``; no two rows alike."""
    rows = np.arange(first, first + n).reshape(n, *(1,) * len(column.shape))
    pixels = np.arange(np.prod(column.shape, dtype=int)).reshape(column.shape)
    values = rows + 1 + len(column.name) * pixels
    if column.name == "timestamp":  # by which a merge sorts rows
        return values.astype(column.dtype)
    if column.name == "step":
        return (rows // STEP_ROWS).astype(column.dtype)
    return (values % 2 == 1 if column.dtype == "|b1" else values % 101).astype(column.dtype)


def make_batch(first: int, n: int) -> Batch:
    batch = Batch(SCHEMA, n)
    for c in SCHEMA.columns:
        batch.columns[c.name][...] = truth(c, first, n)
    return batch


def assert_true(run: reader.RunFile, rows: slice | None = None) -> None:
    rows = slice(0, run.committed) if rows is None else rows
    for c in SCHEMA.columns:
        expected = truth(c, rows.start, rows.stop - rows.start)
        np.testing.assert_array_equal(run[c.name][rows], expected, err_msg=c.name)


def books(commit: int, rows: int, **more: object) -> Counts:
    producers = {"p0": {"epoch": 5, "seq": rows}}
    return Counts(commit, rows + 2, rows, {"damaged": 2}, producers=producers, **more)


def write(folder: Path, pipe: Connection, seed: int, end: int, pauses: Sequence[int] = ()) -> None:
    """Continue the run to row ``end`` in random batches, report every commit, then end it.

    At each of the ``pauses``, which are rows, it waits until it is told to go on.
    """
    rng, sink = np.random.default_rng(seed), SmallData(folder, rolling=Rolling(1024))
    pipe.send(-1)
    sink.begin_run(INFO, SCHEMA, Provenance(config="[x]"))
    row, commit = sink.rows, sink.books.commit
    assert sink.resume() == ({("p0", 5): row} if commit else {})
    while row < end:
        for _ in range(rng.integers(1, 4)):
            n = int(min(rng.choice([1, 7, 30, 100]), end - row))
            sink.append(make_batch(row, n))
            row += n
        commit += 1
        sink.step(row // STEP_ROWS, {"motor": float(row // STEP_ROWS)}, "scan")  # only once counts
        sink.commit(books(commit, row))
        pipe.send(row)
        if pauses and row >= pauses[0]:
            pauses = pauses[1:]
            assert pipe.recv() == "go on"
    sink.end_run(books(commit + 1, row, ended="end of run"))
    pipe.send(row)


def start(target: object, *args: object) -> tuple[multiprocessing.Process, Connection]:
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=target, args=(args[0], theirs, *args[1:]))
    process.start()
    theirs.close()
    return process, ours


def last_report(pipe: Connection) -> int:
    """Everything the child managed to say, of which the last counts."""
    last = -1
    while True:
        try:
            last = pipe.recv()
        except EOFError:
            return last


def test_kill_at_any_moment_leaves_every_committed_row(tmp_path):
    rng, kills, reported, written = np.random.default_rng(), 0, 0, 0
    path = tmp_path / "tstx00123_Run0007.h5"
    while kills < int(os.environ.get("FFB_KILLS", "16")):
        process, pipe = start(write, tmp_path, int(rng.integers(1 << 30)), 1 << 30)
        assert pipe.recv() == -1
        pipe.poll(rng.uniform(0, 0.012))  # kills while the file is being made or opened as well
        for _ in range(rng.integers(0, 12)):
            reported = max(reported, pipe.recv())
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        kills += 1
        reported = max(reported, last_report(pipe))
        if not path.exists():
            assert reported == 0
            continue
        with reader.open(path) as run:
            assert run.committed >= reported
            assert not run.complete
            assert_true(run, slice(max(0, run.committed - 1000), run.committed))
            written = run.committed
            # in the midst of a roll rows may be seen before the books that tell of them
            assert reported <= run.counts.written <= written
            if run.counts.written:
                assert run.counts.lost == {"damaged": 2}
    end = written + 3000
    process, pipe = start(write, tmp_path, 1, end)
    assert last_report(pipe) == end
    process.join()
    assert process.exitcode == 0
    with reader.open(path) as run:
        assert run.complete
        assert run.committed == end
        assert_true(run)
        assert [s.row for s in run.steps] == [s.step * STEP_ROWS for s in run.steps]
        assert [s.step for s in run.steps] == list(range(-(-end // STEP_ROWS)))
    assert_plain(path, end)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def assert_plain(path: Path, rows: int) -> None:
    """Any HDF5 program sees the finished file, no row more and no row less."""
    with h5py.File(path, "r") as file:
        for c in SCHEMA.columns:
            assert file[c.name].shape == (rows, *c.shape)
            np.testing.assert_array_equal(file[c.name][rows - 50 :], truth(c, rows - 50, 50))
        assert file["ffb"].attrs["written"] == rows
        assert file["ffb"].attrs["read"] == rows + 2
        assert file["ffb"].attrs["balanced"]
        assert file["ffb"].attrs["ended"] == b"end of run"
    if h5ls := shutil.which("h5ls"):
        done = subprocess.run([h5ls, "-r", path], capture_output=True, text=True, check=True)
        assert f"/w/trace                 Dataset {{{rows}" in done.stdout


def test_a_reader_follows_a_growing_file_by_whole_commits(tmp_path):
    end, pauses = 20_000, [*range(500, 20_000, 3000)]
    process, pipe = start(write, tmp_path, 3, end, pauses)
    seen, slices = 0, 0
    with reader.open(tmp_path / "tstx00123_Run0007.h5", wait=120) as run:
        for rows in run.follow(poll=0.001, timeout=120):
            assert rows.start == seen
            assert_true(run, rows)
            counts = run.counts
            assert counts.written == run.committed
            assert counts.read == counts.written + 2
            seen, slices = rows.stop, slices + 1
            with contextlib.suppress(EOFError):
                while pipe.poll():  # or the writer would wait for us
                    pipe.recv()
            if pauses and seen >= pauses[0]:
                pauses = pauses[1:]
                pipe.send("go on")
        assert run.complete
        assert run.counts.ended == "end of run"
    assert seen == end
    assert slices >= 7, "the reader saw the file grow"
    process.join()
    assert process.exitcode == 0


def read_plainly(folder: Path, pipe: Connection, path: Path) -> None:
    """Open, read and refresh with plain h5py again and again; tell what was wrong.

    Whoever asks is told how many rows a whole pass since then has seen.
    """
    wrong, last, asked = Counter(), 0, ""
    while asked != "enough":
        asked = pipe.recv() if pipe.poll() else ""
        with h5py.File(path, "r", swmr=True, locking=False) as file:
            counter = file["ffb/committed"]
            columns = [file[name] for name in ("timestamp", "s/3", "w/trace", "roi/area")]
            for _ in range(4):
                counter.refresh()
                rows = int(counter[0])
                wrong["went back"] += rows < last
                last = rows
                for column in columns:
                    found, name = len(column), column.name[1:]
                    if found < rows:
                        column.refresh()
                        found = len(column)
                    wrong[f"{name} is short"] += found < rows
                    if 0 < rows <= found:
                        row = truth(SCHEMA.by_name[name], rows - 1, 1)[0]
                        wrong[f"{name} is wrong"] += not np.array_equal(column[rows - 1], row)
        if asked:
            pipe.send((last, +wrong))


def test_plain_readers_see_a_run_grow_over_many_segments(tmp_path):
    sink = SmallData(tmp_path, rolling=Rolling(1024), merge=None)
    sink.begin_run(INFO, SCHEMA, Provenance())
    readers = [start(read_plainly, tmp_path, sink.path) for _ in range(2)]
    row, commit = 0, 0

    def look(word: str) -> None:
        for _, pipe in readers:
            pipe.send(word)
        for _, pipe in readers:
            assert pipe.recv() == (row, {})

    while row < 12_000:
        for n in (200, 30):
            sink.append(make_batch(row, n))
            row += n
        commit += 1
        sink.commit(books(commit, row))
        if commit % 10 == 1:  # now and then they catch up, and then are at it again
            look("how far are you?")
    look("enough")
    for process, _ in readers:
        process.join()
    sink.end_run(books(commit + 1, row))
    assert len(list(tmp_path.glob("*.parts/seg????.h5"))) == 12


def fill_up(folder: Path, pipe: Connection, limit: int) -> None:
    """Write against a limit of the file's size until refused, lift it, repeat and finish."""
    sink, row, refused = SmallData(folder), 0, 0
    sink.begin_run(INFO, SCHEMA, Provenance())
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    for commit in range(1, 13):
        sink.append(make_batch(row, 60))
        row, refusal = row + 60, ""
        try:
            sink.commit(books(commit, row))
        except OSError as e:
            refusal, refused = str(e), refused + 1
        pipe.send((sink.rows, refusal))
        pipe.recv()
        if refused == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    sink.end_run(books(13, row, ended="end of run"))
    pipe.send((row, refused))


@pytest.mark.parametrize("limit", [200_000, 555_555, 1_000_000, 2_000_000, 3_000_000])
def test_a_full_disk_refuses_the_commit_and_nothing_else(tmp_path, limit):
    process, pipe = start(fill_up, tmp_path, limit)
    path = tmp_path / "tstx00123_Run0007.h5"
    for _ in range(12):
        rows, refusal = pipe.recv()
        if refusal:
            assert "not written: File too large" in refusal
            assert f"{rows} rows are safe in the file" in refusal
        with reader.open(path) as run:
            assert run.committed == rows
            assert_true(run)
        pipe.send("go on")
    assert pipe.recv() == (720, 3)
    process.join()
    assert process.exitcode == 0
    with reader.open(path) as run:
        assert run.complete
        assert run.counts.written == run.committed == 720
        assert_true(run)
    assert_plain(path, 720)


def try_unprivileged(folder: Path, pipe: Connection) -> None:
    if os.geteuid() == 0:
        os.setuid(65534)
    try:
        SmallData(folder).begin_run(INFO, SCHEMA, Provenance())
    except OSError as e:
        pipe.send((type(e).__name__, str(e)))


def test_a_directory_that_cannot_be_written_is_refused_by_name(tmp_path):
    folder = tmp_path / "readonly"
    folder.mkdir(mode=0o555)
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    process, pipe = start(try_unprivileged, folder)
    name, text = pipe.recv()
    process.join()
    assert name == "PermissionError"
    assert str(folder) in text
    assert list(folder.iterdir()) == []


def hold(folder: Path, pipe: Connection) -> None:
    sink = SmallData(folder)
    sink.begin_run(INFO, SCHEMA, Provenance())
    pipe.send(os.getpid())
    pipe.recv()


def test_a_second_writer_of_a_run_is_refused_and_told_who_has_it(tmp_path):
    process, pipe = start(hold, tmp_path)
    pid = pipe.recv()
    with pytest.raises(BlockingIOError, match=f"is being written by process {pid} on"):
        SmallData(tmp_path).begin_run(INFO, SCHEMA, Provenance())
    pipe.send("go on")
    process.join()
    assert process.exitcode == 0
