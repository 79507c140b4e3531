"""Snapshots are kept now and then and at the end, and what cannot be kept holds up nothing."""

import pytest

from ffb.live.shown import KEEP_NS, Shown
from ffb.live.snapshots import beside, read
from ffb.sink import Counts
from ffb.source import RunInfo
from ffb.wire import unpack
from tests.unit.live_rows import PROVENANCE, SCHEMA, rows
from tests.unit.test_live import STATUS


class Writer:
    """Where a file would be, and what an earlier life left in it."""

    def __init__(self, path, books=None):
        self.path, self.books = path, books or Counts()


@pytest.fixture
def shown(tmp_path):
    out = Shown(Writer(tmp_path / "run.h5"))
    out.begin_run(RunInfo("tstx00001", 7), SCHEMA, PROVENANCE)
    return out


def commit(shown, k, ended=""):
    shown.append(rows(10 * k, 10))
    counts = Counts(k + 1, 10 * (k + 1), 10 * (k + 1), ended=ended)
    shown.commit(counts)
    return counts


def kept(shown):
    path = beside(shown.path)
    return [k.commit for k in read(path)] if path.exists() else []


def test_one_is_kept_every_ten_seconds_and_the_last(shown):
    frame = shown.frame(STATUS)
    shown.keep(0, lambda: frame)
    assert kept(shown) == []  # nothing is committed yet
    for k in range(40):
        counts = commit(shown, k)
        shown.keep(k * KEEP_NS // 10, lambda: shown.frame(STATUS))
    assert kept(shown) == [1, 11, 21, 31]
    shown.end_run(counts)
    for _ in range(3):
        shown.keep(40 * KEEP_NS // 10 + 1, lambda: shown.frame(STATUS))
    assert kept(shown) == [1, 11, 21, 31, 40]
    last = [*read(beside(shown.path))][-1]
    meta, _ = unpack(last.frame)
    assert (meta["commit"], meta["span"], meta["ended"]) == (40, [0, 400], True)


def test_nothing_is_kept_while_the_plots_are_being_filled(tmp_path):
    shown = Shown(Writer(tmp_path / "run.h5", Counts(5, 50, 50)))
    shown.begin_run(RunInfo("tstx00001", 7), SCHEMA, PROVENANCE)
    commit(shown, 5)
    shown.keep(0, lambda: shown.frame(STATUS))
    assert kept(shown) == []
    shown.live.filling = False
    shown.keep(0, lambda: shown.frame(STATUS))
    assert kept(shown) == [6]


def test_what_cannot_be_kept_is_told_and_tried_again(shown, tmp_path):
    blocked = beside(shown.path)
    blocked.mkdir()
    commit(shown, 0)
    shown.keep(0, lambda: shown.frame(STATUS))
    assert shown.not_kept.startswith("snapshots are not kept: ")
    assert shown.fault == ""
    blocked.rmdir()
    shown.keep(KEEP_NS // 2, lambda: shown.frame(STATUS))
    assert shown.not_kept
    shown.keep(KEEP_NS, lambda: shown.frame(STATUS))
    assert (shown.not_kept, kept(shown)) == ("", [1])


def test_a_snapshot_that_cannot_be_made_leaves_the_counts(shown, caplog):
    commit(shown, 0)
    shown.live.strip = None
    meta, _ = unpack(shown.frame(STATUS))
    assert (meta["run"], meta["written"], meta["shown"]) == (7, 10, 0)
    assert "the live model failed" in caplog.text
    commit(shown, 1)
    assert unpack(shown.frame(STATUS))[0]["written"] == 20
    shown.end_run(Counts(2, 20, 20, ended="end of run"))
    assert unpack(shown.frame(STATUS))[0]["ended"]


def test_a_model_that_fails_late_leaves_the_counts_and_the_end(shown, monkeypatch):
    counts = commit(shown, 0)
    shown.end_run(counts)
    monkeypatch.setattr(shown.live, "snapshot", lambda _: 1 / 0)
    meta, _ = unpack(shown.frame(STATUS))
    assert (meta["commit"], meta["ended"], meta["run"]) == (1, True, 7)
