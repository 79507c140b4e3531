"""After a restart the page shows all rows of its epoch again, new ones and old ones."""

import numpy as np
import pytest

from ffb.dashboards.model import Snapshot
from ffb.live import refill
from ffb.live.model import Live
from ffb.live.refill import in_order
from ffb.live.shown import Shown
from ffb.schema import Schema
from ffb.sink import Counts
from ffb.source import RunInfo
from ffb.wire import unpack
from ffb.writers.small_data import SmallData
from tests.unit.live_rows import PROVENANCE, SCHEMA, rows
from tests.unit.test_live import STATUS

INFO = RunInfo("tstx00001", 7)


class Life:
    """A writer and what is shown beside it, as the aggregator tells them."""

    def __init__(self, folder):
        self.writer = SmallData(folder)
        self.shown = Shown(self.writer)
        self.sinks = (self.writer, self.shown)

    def begin(self, schema=SCHEMA):
        for sink in self.sinks:
            sink.begin_run(INFO, schema, PROVENANCE)
        return self

    def epoch(self, number, schema=SCHEMA):
        for sink in self.sinks:
            sink.begin_epoch(number, schema, PROVENANCE)

    def rows(self, commit, first, n, epoch=0):
        batch = rows(first, n)
        batch.columns["ffb/epoch"][:] = epoch
        counts = Counts(commit, first + n, first + n, epoch=epoch)
        for sink in self.sinks:
            sink.append(batch)
        for sink in self.sinks:
            sink.commit(counts)

    def step(self, k):
        for sink in self.sinks:
            sink.step(k, {"lxt": -1.0 + 0.5 * k}, "")

    def close(self):
        self.writer.close()


@pytest.fixture
def life(tmp_path):
    lives = []

    def begin():
        lives.append(Life(tmp_path))
        return lives[-1]

    yield begin
    for each in lives:
        each.close()


def snapshot(shown):
    live = shown.live if isinstance(shown, Shown) else shown
    return Snapshot(*unpack(live.snapshot(STATUS)))


def without_restart(first, end):
    live = Live()
    live.begin_run(INFO, SCHEMA, PROVENANCE)
    live.append(rows(0, 100))
    live.append(rows(100, 60))
    live.commit(Counts(2, end, end))
    return snapshot(live)


def test_a_restarted_model_is_that_of_one_that_never_stopped(life, monkeypatch):
    monkeypatch.setattr(refill, "BLOCK_ROWS", 17)
    one = life().begin()
    one.step(0)
    one.rows(1, 0, 100)
    one.close()
    two = life().begin()
    assert snapshot(two.shown).meta["filling"]
    assert not two.shown.fill()
    two.rows(2, 100, 60)  # new rows come while old ones are being read
    turns = 1
    while not two.shown.fill():
        turns += 1
    assert turns == 5
    assert two.shown.fault == ""
    found, want = snapshot(two.shown), without_restart(0, 160)
    assert not found.meta["filling"]
    assert found.meta["span"] == want.meta["span"] == [0, 160]
    for key in ("shown", "light", "present", "rows", "newest"):
        assert found.meta[key] == want.meta[key], key
    for name, values in want.arrays.items():
        if name.startswith("histogram"):  # their ranges depend on which rows came first
            continue
        np.testing.assert_allclose(found.arrays[name], values, rtol=1e-6, atol=1e-9, err_msg=name)
    totals = [s.histogram("spot/sum")[1].sum() for s in (found, want)]
    assert totals == [137, 137]
    two.rows(3, 160, 10)
    assert snapshot(two.shown).meta["shown"] == 170


def test_only_rows_of_the_newest_epoch_are_filled_in(life):
    one = life().begin()
    one.rows(1, 0, 100)
    one.epoch(1)
    one.rows(2, 100, 60, epoch=1)
    one.close()
    two = life().begin()
    assert two.shown.fill()
    meta = snapshot(two.shown).meta
    assert (meta["span"], meta["epoch"]) == ([100, 160], 1)


def test_other_columns_after_the_restart_begin_from_nothing(life):
    one = life().begin()
    one.rows(1, 0, 100)
    one.close()
    two = life()
    fewer = Schema(tuple(c for c in SCHEMA.columns if c.name != "spot/nsat"))
    for sink in two.sinks:
        sink.begin_run(INFO, fewer, PROVENANCE)
    two.epoch(1, fewer)
    assert two.shown.fill()
    meta = snapshot(two.shown).meta
    assert (meta["span"], meta["epoch"], meta["filling"]) == ([100, 100], 1, False)


def test_a_file_that_cannot_be_read_costs_the_plots_and_nothing_else(life, monkeypatch, caplog):
    one = life().begin()
    one.rows(1, 0, 100)
    one.close()
    two = life().begin()

    def broken(*_):
        raise OSError("the disk is gone")

    monkeypatch.setattr(refill.reader, "open", broken)
    assert two.shown.fill()
    assert "the disk is gone" in two.shown.fault
    assert "the live model failed" in caplog.text
    two.rows(2, 100, 60)
    meta = snapshot(two.shown).meta
    assert (meta["written"], meta["shown"], meta["filling"]) == (160, 0, False)


def test_rows_that_a_merge_has_moved_are_found_by_their_place():
    class Merged:
        order = np.array([(0, 2, 1), (1, 0, 2)])

    assert in_order(Merged(), 0, 5).tolist() == [1, 2, 0, 3, 4]
    assert in_order(Merged(), 1, 3).tolist() == [2, 0]
    assert in_order(Merged(), 3, 5).tolist() == [3, 4]
