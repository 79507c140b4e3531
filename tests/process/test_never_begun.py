"""Runs whose writer was stopped before or after it acknowledged anything, and left a ruin."""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ffb import reader
from ffb.reading.contents import FOLDER
from ffb.writers.chain import Rolling
from ffb.writers.journal import read, scan
from ffb.writers.recover import NeverBegunError, heal, recover_command
from tests.process import written
from tests.process.written import NAME, assert_true, names

ROLLING = Rolling(segment_rows=1024, segment_s=600.0, sync_s=1e9)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as it was when the writer had begun and nothing was acknowledged yet."""
    root = tmp_path_factory.mktemp("begun")
    writer = written.write(root / "now", 10, ROLLING)
    next(writer)
    shutil.copytree(root / "now", root / "begun")
    writer.close()
    return root / "begun"


@pytest.fixture
def run(begun: Path, tmp_path: Path) -> Path:
    """Its master, beside a first segment that is cut off and cannot be read."""
    shutil.copytree(begun, tmp_path / "run")
    master = tmp_path / "run" / NAME
    shutil.copy(segment_of(master), master.parent / "whole.h5")
    os.truncate(segment_of(master), 30)
    return master


def segment_of(master: Path) -> Path:
    return master.with_suffix(FOLDER) / "seg0000.live.h5"


def journal_of(master: Path) -> Path:
    return master.with_suffix(FOLDER) / "journal"


def contents_of(folder: Path) -> dict[str, bytes]:
    """Bytes of all files but for the superblock, in which marks of a killed writer are cleared."""
    return {p.name: p.read_bytes()[48:] for p in folder.iterdir()}


def empty(master: Path) -> None:
    os.truncate(journal_of(master), 0)


def torn(master: Path) -> None:
    os.truncate(journal_of(master), 20)


def zeros(master: Path) -> None:
    """Lengths are there and data are not, in the segment behind a good superblock."""
    journal, segment = journal_of(master), segment_of(master)
    journal.write_bytes(bytes(journal.stat().st_size))
    os.truncate(segment, 0)
    shutil.copy(master.parent / "whole.h5", segment)
    os.truncate(segment, 700)


@pytest.mark.parametrize("left", [empty, torn, zeros])
def test_a_ruin_from_before_the_first_acknowledgement_is_kept_aside_and_the_run_begins(
    run: Path, left: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "ffb")
    left(run)
    run.unlink()
    ruin = contents_of(run.with_suffix(FOLDER))
    for _ in written.write(run.parent, 300, ROLLING):
        pass
    kept = run.parent / f"{run.stem}{FOLDER}.aside1"
    assert contents_of(kept) == ruin
    with reader.open(run) as file:
        assert file.committed == 300
        assert_true(file)
        said = [note for note in file.notes if note.endswith(f"left is kept in {kept.name}")]
        assert len(said) == 1


def test_ruins_that_follow_each_other_are_all_kept(run, tmp_path, caplog):
    caplog.set_level(logging.ERROR, "ffb")
    empty(run)
    run.unlink()
    again = tmp_path / "again"
    shutil.copytree(run.parent, again)
    said = []
    assert recover_command(run, say=said.append) == 0
    shutil.copytree(again, run.parent, dirs_exist_ok=True)
    with pytest.raises(NeverBegunError, match=r"parts\.aside2"):
        heal(run)
    assert len(said) == 1
    assert said[0].endswith("is kept in tstx00123_Run0007.parts.aside1")


def a_master(master: Path) -> None:
    """Which stands, synced, before anything is acknowledged."""
    master.write_bytes(b"anything")


def a_closed_segment(master: Path) -> None:
    folder = master.with_suffix(FOLDER)
    (folder / "seg0000.live.h5").rename(folder / "seg0000.h5")


def a_second_segment(master: Path) -> None:
    folder = master.with_suffix(FOLDER)
    shutil.copy(folder / "seg0000.live.h5", folder / "seg0001.live.h5")


def a_missing_journal(master: Path) -> None:
    journal_of(master).unlink()


def a_commit_behind_damage(master: Path) -> None:
    """A journal with a commit, cut out of a run, behind a head that is gone."""
    whole = master.parent / "whole"
    for _ in written.write(whole, 40, ROLLING):
        pass
    journal = journal_of(whole / NAME)
    assert "commit" in [r["kind"] for r in read(journal)]
    data = bytearray(journal.read_bytes())
    data[:512] = bytes(512)
    journal_of(master).write_bytes(data)
    shutil.rmtree(whole)
    assert scan(journal_of(master)).records == 0


@pytest.mark.parametrize(
    "sign",
    [a_master, a_closed_segment, a_second_segment, a_missing_journal, a_commit_behind_damage],
)
def test_what_may_have_been_acknowledged_is_never_given_up(run, sign):
    empty(run)
    run.unlink()
    sign(run)
    before = names(run.parent)
    with pytest.raises(OSError, match="a segment cannot be read") as refused:
        heal(run)
    assert not isinstance(refused.value, FileNotFoundError)
    assert names(run.parent) == before
    with pytest.raises(OSError, match="a segment cannot be read"):
        next(written.write(run.parent, 10, ROLLING))
    assert names(run.parent) == before
