"""Who merges a finished run, and what is said when that fails."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from ffb.aggregating.merging import Merging


def run_of(folder: Path, size: int) -> Path:
    path = folder / f"run{size}.h5"
    parts = folder / f"run{size}.parts"
    parts.mkdir()
    (parts / "seg0000.h5").write_bytes(bytes(size))
    return path


def child(code: str, status: int = 0) -> list[str]:
    return [sys.executable, "-c", f"{code}; raise SystemExit({status})"]


def nothing(path: Path) -> None:
    pass


def test_small_runs_are_merged_between_commits_and_large_ones_beside(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    here: list[Path] = []
    cleared: list[Path] = []
    beside = child("import sys; print('merged', sys.argv[1][-8:])")
    merging = Merging(here.append, cleared.append, beside, 100)
    small, large = run_of(tmp_path, 100), run_of(tmp_path, 101)
    merging(small)
    merging(large)
    assert here == merging.alarms == []
    merging.poll()
    assert merging.alarms == cleared == []
    assert here == [small]
    merging.close()
    assert cleared == [small, large]
    assert "merged un101.h5" in caplog.text
    assert merging.alarms == []


def test_what_fails_is_told_and_holds_nothing_up(tmp_path):
    def refuse(path: Path) -> None:
        raise OSError("seg0001.h5 is missing")

    merging = Merging(refuse, nothing, child("print('no room')", 1), 100)
    merging(run_of(tmp_path, 1))
    merging(run_of(tmp_path, 1000))
    merging.close()
    assert merging.alarms == [
        "run1.h5 is left with its segments, and can be read: seg0001.h5 is missing",
        "run1000.h5 is left with its segments, and can be read: no room",
    ]


def test_a_child_that_says_nothing_is_told_too_while_it_is_not_waited_for(tmp_path):
    merging = Merging(nothing, nothing, child("import os; os.kill(os.getpid(), 9)"))
    merging.start([tmp_path / "a.h5"])
    while not merging.alarms:
        merging.poll()
    assert merging.alarms[0].endswith("its process ended with -9")


def test_merges_are_left_to_the_next_start_when_we_are_told_to_leave(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    here: list[Path] = []
    merging = Merging(here.append, nothing, child("import time; time.sleep(600)"), 100)
    merging.start([tmp_path / "a.h5"])
    merging.leave()
    small, large = run_of(tmp_path, 1), run_of(tmp_path, 1000)
    merging(small)
    merging(large)  # is not begun
    merging.close()
    assert sorted(merging.left) == [tmp_path / "a.h5", large]
    assert here == [small], "what takes a moment is done"
    assert "a.h5 is not merged yet: the next start does it" in caplog.text
    assert merging.alarms == []


def test_who_is_told_to_leave_while_a_merge_is_started_does_not_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merging = Merging(nothing, nothing, child("import time; time.sleep(600)"))
    start = subprocess.Popen

    def told_meanwhile(*args: object, **options: object) -> "subprocess.Popen[bytes]":
        merging.leave()
        return start(*args, **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(subprocess, "Popen", told_meanwhile)
    merging.start([tmp_path / "a.h5"])
    merging.close()
    assert merging.left == [tmp_path / "a.h5"]


def test_a_merge_that_fails_is_told_also_when_we_leave(tmp_path: Path) -> None:
    merging = Merging(nothing, nothing, child("print('no room')", 1))
    merging.start([tmp_path / "a.h5"])
    while merging._children[tmp_path / "a.h5"].poll() is None:
        pass
    merging.leave()
    merging.close()
    assert merging.left == []
    assert merging.alarms == ["a.h5 is left with its segments, and can be read: no room"]


def test_segments_stay_for_a_while_for_those_who_read_them(tmp_path: Path) -> None:
    cleared: list[Path] = []
    merging = Merging(nothing, cleared.append, [], linger_s=0.05)
    merging(run_of(tmp_path, 1))
    merging.poll()
    assert cleared == []
    while not cleared:
        merging.poll()
    assert len(cleared) == 1
