"""Runs whose writer is gone: every committed row is found again, whatever it left."""

import logging
import multiprocessing
import os
import shutil
import sys
from collections import Counter
from itertools import chain, repeat
from pathlib import Path

import h5py
import numpy as np
import pytest

from ffb import cli, reader
from ffb.books.audit import audit, verdict
from ffb.reading.contents import FOLDER, LOG
from ffb.writers import examine
from ffb.writers.chain import Rolling
from ffb.writers.journal import read
from ffb.writers.lease import Lease
from ffb.writers.recover import heal, recover_command
from tests.process import written
from tests.process.written import NAME, assert_plain, assert_true, names
from tests.soak import power_loss

ROLLING = Rolling(segment_rows=1024, segment_s=600.0, sync_s=1e9)
ROWS = 2600

#: Children start as forks of a process that has imported everything and opened no file.
SPAWN = multiprocessing.get_context("forkserver")
SPAWN.set_forkserver_preload(["tests.process.test_recover"])


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a writer leaves that was killed in its third segment; to be copied."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    child = SPAWN.Process(target=write_and_die, args=(folder,))
    child.start()
    child.join()
    assert child.exitcode == 9
    return folder


def write_and_die(folder: Path) -> None:
    for row in written.write(folder, ROWS + 1000, ROLLING, "bitshuffle-lz4"):
        if row > ROWS:
            os._exit(9)


@pytest.fixture
def run(killed: Path, tmp_path: Path) -> Path:
    """A copy of the killed run: its master."""
    shutil.copytree(killed, tmp_path / "run")
    return tmp_path / "run" / NAME


def answer_in_fork(requests, _patience):
    """What ``examine`` asks a child, asked of a fork, which starts ten times as fast."""
    ours, theirs = SPAWN.Pipe()
    child = SPAWN.Process(target=send_answers, args=(theirs, requests))
    child.start()
    theirs.close()
    answers = []
    for _ in requests:
        try:
            answers.append(ours.recv() if ours.poll(examine.PATIENCE_S) else None)
        except EOFError:
            answers.append({"wrong": "crashed"})
            break
    child.kill()
    child.join()
    return [a or {"wrong": "hung"} for a in answers]


def send_answers(pipe, requests):
    for answer in examine.answers(requests):
        pipe.send(answer)


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look into files from forks."""
    monkeypatch.setattr(examine, "_ask", answer_in_fork)


def rows_of(master: Path) -> int:
    """Rows that the journal tells of."""
    return [
        r["rows"] for r in read(master.with_suffix(FOLDER) / "journal") if r["kind"] == "commit"
    ][-1]


def assert_healed(master: Path, rows: int) -> None:
    with reader.open(master) as run:
        assert run.committed == rows
        assert_true(run, "bitshuffle-lz4")
        assert len(run.commits) == run.counts.commit
    assert_plain(master, rows, "bitshuffle-lz4")


@pytest.mark.usefixtures("quickly")
def test_a_killed_run_is_closed_as_it_is_and_healing_it_again_changes_nothing(run):
    rows = rows_of(run)
    healed = heal(run)
    assert (healed.rows, healed.number, healed.books.written) == (rows, 3, rows)
    assert not healed.complete
    assert names(run.parent) == ["cfg00000.h5", "journal", "seg0000.h5", "seg0001.h5", "seg0002.h5"]
    assert_healed(run, rows)
    before = {p.name: p.read_bytes() for p in run.with_suffix(FOLDER).iterdir()}
    assert heal(run)._replace(notes=healed.notes) == healed
    assert {p.name: p.read_bytes() for p in run.with_suffix(FOLDER).iterdir()} == before


def scribble(path: Path, begin: int, data: bytes) -> None:
    with path.open("r+b") as f:
        f.seek(begin)
        f.write(data)


@pytest.mark.parametrize(
    ("torn", "where"), [("seg0000", 48), ("seg0002.live", 0), ("seg0002", 600)]
)
def test_a_segment_with_torn_metadata_is_rebuilt_from_its_chunks(run, torn, where):
    rows, folder = rows_of(run), run.with_suffix(FOLDER)
    path = next(folder.glob(f"{torn}*.h5"))
    scribble(path, where, bytes(512))
    if torn == "seg0000":  # what says that it grows would make HDF5 wait, see below
        with pytest.raises(OSError, match=r"seg0000.h5 cannot be read: HDF5 says .*ffb recover"):
            reader.open(run)
    healed = heal(run)
    assert any("was torn" in note and "is rebuilt" in note for note in healed.notes)
    assert not healed.lost
    assert names(run.parent) == ["cfg00000.h5", "journal", "seg0000.h5", "seg0001.h5", "seg0002.h5"]
    assert_healed(run, rows)
    assert heal(run).notes == ()


def test_what_makes_the_library_hang_or_crash_is_rebuilt(run, monkeypatch):
    rows = rows_of(run)
    ways = [
        "import os, time; os.write(1, b'\\xc0'); time.sleep(99)",
        "import os; os.abort()",
    ]
    start, real = examine.subprocess.Popen, examine._ask

    def ask(requests, seconds):
        """Ask a child that hangs, then one that crashes, then one that answers."""
        with monkeypatch.context() as patch:
            if ways:
                words, seconds = [sys.executable, "-c", ways.pop(0)], 0.5
                patch.setattr(examine.subprocess, "Popen", lambda _, **pipes: start(words, **pipes))
            return real(requests, seconds)

    monkeypatch.setattr(examine, "_ask", ask)
    healed = heal(run)
    assert ways == []
    assert rows == healed.rows
    assert_healed(run, rows)


def test_who_is_slow_to_begin_does_not_hang(run, monkeypatch):
    start = examine.subprocess.Popen
    slow = "import os, time; time.sleep(0.5); os.write(1, b'\\xc0\\x81\\xa5wrong\\xa0')"
    words = [sys.executable, "-c", slow]
    monkeypatch.setattr(examine.subprocess, "Popen", lambda _, **pipes: start(words, **pipes))
    monkeypatch.setattr(examine, "PATIENCE_S", 0.1)
    assert examine.ask([examine.whole(run)]) == [{"wrong": ""}]
    monkeypatch.setattr(examine, "START_S", 0.1)
    assert "hung for 0.1 s" in examine.ask([examine.whole(run)])[0]["wrong"]


@pytest.mark.usefixtures("quickly")
def test_rows_that_are_gone_are_named_and_the_others_stay(run, caplog):
    rows, folder = rows_of(run), run.with_suffix(FOLDER)
    for path in folder.glob("seg0000*"):
        path.unlink()
    path = folder / "seg0001.h5"
    os.truncate(path, path.stat().st_size // 2)
    healed = heal(run)
    assert healed.lost[0] == "seg0000.h5 is missing: rows 0 to 1023 of the run are lost"
    assert all(
        s.startswith("seg0001.h5 was damaged: rows 1") for s in healed.lost[1:] if LOG not in s
    )
    assert any("to 2047 of roi/area are lost" in s for s in healed.lost)
    assert "seg0001.h5.torn0" in names(run.parent), "somebody may find more in it"
    report = audit(run)
    assert verdict(report).endswith("what it holds cannot be counted")
    assert any("has lost rows 1," in p.what for p in report.problems)
    with reader.open(run) as file:
        assert file.committed == rows
        last = written.schema("bitshuffle-lz4").by_name["w/trace"]
        np.testing.assert_array_equal(
            file["w/trace"][2048:], written.truth(last, 2048, rows - 2048)
        )
        with pytest.raises(OSError, match=r"seg0000\.h5 is missing"):
            file["w/trace"][0]
    assert heal(run).lost == healed.lost
    said = []
    assert recover_command(run, say=said.append) == 1
    assert any("rows 0 to 1023" in line for line in said)


@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize("how", ["missing", "head", "midst"])
def test_without_a_journal_the_segments_own_counters_count(run, how):
    rows, journal = rows_of(run), run.with_suffix(FOLDER) / "journal"
    if how == "missing":
        journal.unlink()
    else:
        at = 9 if how == "head" else journal.stat().st_size // 2
        scribble(journal, at, bytes([journal.read_bytes()[at] ^ 1]))
    healed = heal(run)
    assert "taken from the segments' own counters" in healed.notes[0]
    assert (healed.rows, healed.books.written) == (rows, rows)
    assert_healed(run, rows)
    assert heal(run).notes == ()


@pytest.mark.usefixtures("quickly")
def test_what_no_journal_and_no_counter_tells_is_refused_and_left_alone(run):
    folder = run.with_suffix(FOLDER)
    (folder / "journal").unlink()
    scribble(folder / "seg0001.h5", 48, bytes(2000))
    before = {p.name: p.read_bytes() for p in folder.iterdir() if "live" not in p.name}
    with pytest.raises(OSError, match="the journal is missing, and a segment cannot be read"):
        heal(run)
    assert {p.name: p.read_bytes() for p in folder.iterdir() if "live" not in p.name} == before


def heal_and_die(master: Path, lines: int) -> None:
    """Heal, and end without a word after so many lines of it."""
    left = lines

    def trace(frame, event, _):
        nonlocal left
        if "/writers/" not in frame.f_code.co_filename:
            return None
        left -= event == "line"
        if left < 0:
            os._exit(9)
        return trace

    logging.disable()
    sys.settrace(trace)
    heal(master)
    os._exit(0)


def test_a_recovery_may_be_killed_anywhere_and_repeated(run, tmp_path):
    rows, rng, died = rows_of(run), np.random.default_rng(), 0
    scribble(run.with_suffix(FOLDER) / "seg0000.h5", 48, bytes(512))
    scribble(next(run.with_suffix(FOLDER).glob("seg0002*")), 48, bytes(512))
    for _ in range(int(os.environ.get("FFB_KILLS", "3"))):
        shutil.copytree(run.parent, tmp_path / "again")
        again = tmp_path / "again" / NAME
        for most in chain([8000], repeat(30000)):  # lines; it takes about 13000 in all
            child = SPAWN.Process(target=heal_and_die, args=(again, int(rng.integers(most))))
            child.start()
            child.join()
            if child.exitcode == 0:
                break
            died += 1
        assert_healed(again, rows)
        assert names(again.parent) == [
            "cfg00000.h5",
            "journal",
            "seg0000.h5",
            "seg0001.h5",
            "seg0002.h5",
        ]
        shutil.rmtree(tmp_path / "again")
    assert died


@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize("sync_s", [0, power_loss.NOW_AND_THEN])
def test_a_power_failure_loses_no_row_acknowledged_before_a_sync(tmp_path, caplog, sync_s):
    caplog.set_level(logging.ERROR)
    rng, done = np.random.default_rng(), Counter()
    images, codec, seed = (
        int(os.environ.get("FFB_IMAGES", "12")),
        "bitshuffle-lz4",
        rng.integers(99),
    )
    recording = power_loss.record(tmp_path / "run", 2500, codec, int(seed), sync_s)
    try:
        for i, cut in enumerate(power_loss.cuts(recording, rng, images)):
            image = tmp_path / f"image{i}"
            done[power_loss.check(recording, image, cut, codec, rng)] += 1
            shutil.rmtree(image)
    finally:
        recording.close()
    assert done["nothing was committed"] < images
    assert sync_s or not done["commits were not synced"]


@pytest.mark.usefixtures("quickly")
def test_a_run_that_ended_is_not_brought_back(run):
    rows, folder = rows_of(run), run.with_suffix(FOLDER)
    kept = run.parent / "kept"
    shutil.copytree(folder, kept)
    for _ in written.write(run.parent, rows, ROLLING, "bitshuffle-lz4", end=True):
        pass
    assert not folder.exists(), "merged"
    kept.rename(folder)
    healed = heal(run)
    assert (healed.complete, healed.merged, healed.rows) == (True, True, rows)
    assert not folder.exists()
    assert_plain(run, rows, "bitshuffle-lz4")


@pytest.mark.usefixtures("quickly")
def test_recover_heals_a_folder_of_runs_and_ends_those_it_is_told_to(run, tmp_path):
    rows, said = rows_of(run), []
    assert recover_command(run.parent, say=said.append) == 0
    assert said[-1] == f"{run}: {rows:,} rows in 3 files, may be continued, or ended with --end"
    assert recover_command(run.parent, end=True, say=said.append) == 0
    assert said[-1].endswith("ended: recovered")
    with reader.open(run) as file:
        assert file.complete
        assert file.counts.ended == "recovered"
        assert file.counts.read == file.counts.written + sum(file.counts.lost.values())
    assert recover_command(run, end=True, say=said.append) == 0
    assert said[-1] == f"{run}: {rows:,} rows in one plain file, complete"
    assert recover_command(tmp_path / "run", say=said.append) == 0
    assert "no run to recover" in said[-1]
    assert recover_command(tmp_path / "none.h5", say=said.append) == 1
    assert said[-1].endswith("no such run: neither the file is there nor its folder none.parts")
    (tmp_path / "text.h5").write_text("no HDF5")
    assert recover_command(tmp_path / "text.h5", say=said.append) == 1
    assert "text.h5: not a whole file of ffb" in said[-1]


def test_a_run_that_somebody_writes_is_left_alone(run):
    said, lease = [], Lease(run)
    assert recover_command(run, say=said.append) == 1
    assert "is being written by process" in said[-1]
    lease.release()


def test_no_command_opens_what_makes_the_library_hang(run, monkeypatch, capsys):
    """One byte of metadata is wrong in a file that says somebody writes it: HDF5 waits for more."""
    path = next(run.with_suffix(FOLDER).glob("seg0002*.h5"))
    with h5py.File(path, "r", swmr=True, locking=False) as file:
        at = h5py.h5o.get_info(file["timestamp"].id).addr
    scribble(path, at + 9, b"\xff")
    monkeypatch.setattr(examine, "PATIENCE_S", 2.0)
    for command in ("audit", "open"):
        assert cli.main([command, str(run)]) == 1
        said = capsys.readouterr().err
        assert f"{path.name} is damaged: the HDF5 library hung for 2 s" in said
        assert f"ffb recover {run}" in said
    rows = rows_of(run)
    assert heal(run).rows == rows
    assert cli.main(["open", str(run)]) == 0
