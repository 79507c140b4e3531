"""Who merges a finished run, and what is said when that fails."""

import logging
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


def test_a_merge_that_takes_too_long_is_left_to_the_next_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    merging = Merging(nothing, nothing, child("import time; time.sleep(600)"))
    merging.start([tmp_path / "a.h5"])
    merging.close(leaving=lambda: True)
    assert "the next start goes on with it" in caplog.text
    assert merging.alarms == []


def test_segments_stay_for_a_while_for_those_who_read_them(tmp_path: Path) -> None:
    cleared: list[Path] = []
    merging = Merging(nothing, cleared.append, [], linger_s=0.05)
    merging(run_of(tmp_path, 1))
    merging.poll()
    assert cleared == []
    while not cleared:
        merging.poll()
    assert len(cleared) == 1
