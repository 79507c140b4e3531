"""The bar says in words and colours what is good, lost, late, missing, old, dead or full."""

import time

import numpy as np
import pytest

from ffb.dashboards.card import BAD, GOOD, QUIET, WARN
from ffb.dashboards.model import Snapshot
from ffb.dashboards.status import cards, render
from ffb.health import duration, size
from ffb.live.model import Live
from ffb.sink import Counts
from ffb.source import RunInfo
from ffb.wire import unpack
from tests.unit.live_rows import PROVENANCE, SCHEMA, T0, rows
from tests.unit.test_live import STATUS

NEWEST = T0 + 99 * 10_000_000
END = "end of run"


@pytest.fixture(autouse=True)
def _now(monkeypatch):
    """Half a second after the newest of a hundred rows."""
    at(monkeypatch, 0.5)


def at(monkeypatch, seconds):
    now = NEWEST + int(seconds * 1e9)
    monkeypatch.setattr("ffb.dashboards.model.time.time_ns", lambda: now)
    monkeypatch.setattr("ffb.dashboards.service.time.time_ns", lambda: now)


def run(counts=None, batch=None, ended=False):
    live = Live()
    live.begin_run(RunInfo("tstx00001", 7), SCHEMA, PROVENANCE)
    live.append(rows(0, 100) if batch is None else batch)
    live.commit(counts or Counts(1, 100, 100))
    if ended:
        live.end_run(counts)
    return live


def card(live, title, page_ms=(50.0, 60.0), **status):
    shot = Snapshot(*unpack(live.snapshot({**STATUS, **status})))
    return next(c for c in cards(shot, page_ms) if c.title.startswith(title) or c.value == title)


def test_before_a_run_it_says_what_is_waited_for():
    (waiting,) = cards(None)
    assert (waiting.value, waiting.state) == ("waiting", QUIET)
    assert "aggregator" in waiting.detail
    none = card(Live(), "ffb", producers={})
    assert (none.value, none.detail) == ("no run yet", "no producer has reported")
    doing = {"p0": {"doing": "preparing run 8"}, "p1": {"doing": "preparing run 8"}}
    assert card(Live(), "ffb", producers=doing).detail == "preparing run 8"


def test_many_notes_leave_room_for_plots():
    def notes(n):
        told = {"p0": {**STATUS["producers"]["p0"], "notes": [f"no gmd{k}" for k in range(n)]}}
        shot = Snapshot(*unpack(run().snapshot({**STATUS, "producers": told})))
        return [(c.value, c.detail) for c in cards(shot) if c.value.endswith(("note", "notes"))]

    assert notes(3) == [("note", "no gmd0"), ("note", "no gmd1"), ("note", "no gmd2")]
    assert notes(6)[1:] == [("note", "no gmd1"), ("4 more notes", "in the log and in ffb/notes")]


def test_all_is_well():
    for c in cards(Snapshot(*unpack(run().snapshot(STATUS)))):
        if c.title not in ("verdict", "detectors, last 10 s"):  # the rows lack every tenth
            assert c.state in (GOOD, QUIET), c
    assert card(run(), "shots").value == "none lost"
    assert card(run(), "tstx00001").value == "run 7 recording"
    shot = card(run(), "shot to")
    assert (shot.value, shot.detail) == ("31 | 50 ms", "95 % within 55 | 60 ms")


@pytest.mark.parametrize(
    ("counts", "ended", "value", "detail", "state"),
    [
        (Counts(1, 110, 100), False, "none lost", "100 written of 110 read, 10 in flight", GOOD),
        (Counts(2, 110, 100, {"backpressure": 10}), False, "10 lost, 9.1 %", "10 backpress", BAD),
        (Counts(2, 9100, 9099, {"backpressure": 1}), False, "1 lost, 0.011 %", "", WARN),
        (Counts(1, 100, 100, late=3), False, "none lost", "3 late", WARN),
        (Counts(3, 112, 100, {"x": 10}, ended=END), True, "2 UNACCOUNTED", "", BAD),
        (Counts(3, 99, 100), False, "1 UNACCOUNTED", "", BAD),
        (Counts(3, 100, 100, ended=END), True, "none lost", "", GOOD),
    ],
)
def test_the_books(counts, ended, value, detail, state):
    found = card(run(counts, ended=ended), "shots")
    assert (found.value, found.state) == (value, state)
    assert detail in found.detail


def test_old_data_are_stale_unless_the_run_has_ended(monkeypatch):
    assert card(run(), "data").value == "live, 0.5 s old"
    at(monkeypatch, 9)
    stale = card(run(), "data")
    assert (stale.value, stale.state) == ("STALE 9.0 s", BAD)
    ended = run(Counts(2, 100, 100, ended=END), ended=True)
    assert card(ended, "data").value == "final"
    assert card(ended, "tstx00001").value == "run 7 ended"
    assert card(ended, "tstx00001").state == QUIET
    odd = run(Counts(2, 100, 100, ended="the aggregator was stopped"), ended=True)
    assert card(odd, "tstx00001").state == WARN
    assert "stopped" in card(odd, "tstx00001").detail


def test_plots_of_some_rows_only_and_of_a_new_epoch_are_told():
    found = card(run(Counts(9, 5000, 5000)), "data")
    assert (found.state, found.detail) == (WARN, "plots of 100 of 5,000 rows")
    live = run(Counts(9, 5000, 5000))
    live.filling = True
    assert card(live, "data").detail == "plots are filled from the file: 100 rows so far"
    live = run()
    live.begin_epoch(2, SCHEMA, PROVENANCE)
    live.append(rows(100, 50))
    live.commit(Counts(2, 150, 150, epoch=2))
    found = card(live, "data")
    assert found.detail == "50 rows in the plots since row 100: a new epoch"
    assert card(live, "tstx00001").detail == "commit 2, epoch 2 since row 100"
    assert Snapshot(*unpack(live.snapshot(STATUS))).meta["span"] == [100, 150]


def test_books_that_do_not_balance_for_one_producer_are_told():
    good = {"p0": {"read": 100, "written": 100, "lost": {}, "refused": {}}}
    assert "books balance" in card(run(Counts(1, 100, 100, producers=good)), "shots").detail
    bad = {"p0": {"read": 40, "written": 50}, "p1": {"read": 60, "written": 50}}
    found = card(run(Counts(1, 100, 100, producers=bad)), "shots")
    assert (found.value, found.state) == ("BOOKS DO NOT BALANCE", BAD)
    assert found.detail == "producer p0 has more shots written or lost than it read"


def test_what_was_never_offered_is_an_estimate_and_kept_apart():
    live = run(Counts(1, 100, 100, not_seen=25, duplicates=2))
    found = card(live, "never offered")
    assert (found.value, found.detail) == ("≈ 25, 20 %", "estimated from pulse ids")
    assert card(live, "shots").value == "none lost"
    assert "2 twice" in card(live, "shots").detail


def test_shedding_is_red_and_its_share_is_told_by_laser():
    strata = [[1, 1, 800, 200], [1, 0, 400, 100], [0, 0, 400, 100]]
    busy = {"p0": {"kept": 0.25, "strata": strata}, "p1": {"kept": 0.5}}
    found = card(run(), "SHEDDING", producers=busy)
    assert (found.value, found.state) == ("38 % kept", BAD)
    assert found.detail == "of the run: laser off 25 %, laser on 25 %"
    titles = [c.title for c in cards(Snapshot(*unpack(run().snapshot(STATUS))))]
    assert not any("SHEDDING" in t for t in titles)


@pytest.mark.parametrize(
    ("filled", "state", "value"),
    [(20, GOOD, "flowing, 20 %"), (51, WARN, "filling up, 51 %"), (100, BAD, "FULL, 100 %")],
)
def test_queues_are_shown_with_bytes_bound_and_high_water(filled, state, value):
    waits = [["p0 window", filled * 1_280_000, 128_000_000, 128_000_000]]
    idle = [[f"p{k} ring", 0, 10**9, 64_000] for k in range(1, 12)]
    found = card(run(), "queues", queues=[*idle, *waits])
    assert (found.state, found.value) == (state, value)
    assert found.detail.startswith(f"p0 window {size(filled * 1.28e6)}/128 MB ↑128 MB · p1 ring")
    assert found.detail.endswith(" · 4 more, at most 0 %")


def child(**more):
    base = {"alive": True, "done": False, "gave_up": False, "restarts": 0, "died": 0, "why": ""}
    return {**base, "name": "aggregator", **more}


@pytest.mark.parametrize(
    ("told", "value", "detail", "state"),
    [
        ([child()], "1 of 1 running", "none was restarted", GOOD),
        (
            [child(restarts=2, died=NEWEST - 11_500_000_000, why="signal SIGKILL"), child()],
            "2 of 2 running",
            "aggregator restarted 2x, last: signal SIGKILL 12 s ago",
            WARN,
        ),
        (
            [child(alive=False, gave_up=True, died=NEWEST, why="exit code 1")],
            "0 of 1 running",
            "aggregator given up, last: exit code 1 0.5 s ago",
            BAD,
        ),
        ([child(alive=False, done=True)], "0 of 1 running", "none was restarted", GOOD),
    ],
)
def test_restarts_are_told_with_their_reason(told, value, detail, state):
    found = card(run(), "processes", children=told)
    assert (found.value, found.detail, found.state) == (value, detail, state)


def test_the_verdict_says_where_to_look():
    whole = rows(0, 100)
    whole.columns["spot/present"][:] = whole.columns["az/present"][:] = True
    assert card(run(batch=whole), "verdict").value == "ALL WELL"
    late = card(run(Counts(1, 100, 100, late=3), whole), "verdict")
    assert (late.value, late.detail, late.state) == ("LOOK", "at shots", WARN)
    full = {**STATUS["file"], "free": 1e9}
    found = card(run(batch=whole), "verdict", file=full, alarms=["no space left"])
    assert (found.value, found.detail) == ("BAD", "because of alarm, disk")
    assert card(run(), "file", held="no space left").value == "NOT WRITTEN"


def test_a_page_that_hears_nothing_says_so(monkeypatch):
    then = time.monotonic()
    monkeypatch.setattr("ffb.dashboards.model.time.monotonic", lambda: then)
    shot = Snapshot(*unpack(run().snapshot(STATUS)))
    assert cards(shot)[0].value != "NO WORD"
    monkeypatch.setattr("ffb.dashboards.model.time.monotonic", lambda: then + 60)
    first = cards(shot)[0]
    assert (first.value, first.state) == ("NO WORD", BAD)
    assert first.detail == "from the aggregator for 60 s: all of this is as of then"


def test_segments_and_their_merge_are_told():
    parts = {**STATUS["file"], "segments": 3}
    assert card(run(), "file", file=parts).detail == "2.0 MB, +1.0 MB/s, 3 segments"
    ended = run(Counts(2, 100, 100, ended=END), ended=True)
    assert card(ended, "file", file=parts).detail == "2.0 MB, 3 being merged"


def test_a_detector_that_went_away_is_told_though_the_run_was_fine():
    live = run()
    assert card(live, "detectors").value == "10.0 % MISSING"
    for start in range(100, 1300, 100):
        batch = rows(start, 100)
        batch.columns["spot/present"][:] = False
        live.append(batch)
    live.commit(Counts(2, 1300, 1300))
    found = card(live, "detectors")
    assert (found.value, found.state) == ("100.0 % MISSING", BAD)
    assert found.detail == "least: spot, 6.9 % of the run"


def test_producers_that_are_silent_or_fail():
    dead = {"p0": {"alive": True}, "p1": {"alive": False}}
    found = card(run(), "producers", producers=dead)
    assert (found.value, found.detail, found.state) == ("1 of 2 alive", "silent: p1", BAD)
    failing = {"p0": {"errors": {"spot: ZeroDivisionError": 3}}}
    found = card(run(), "producers", producers=failing)
    assert (found.detail, found.state) == ("3 reducer errors: spot: ZeroDivisionError", WARN)


def test_light_that_nobody_tells():
    batch = rows(0, 100)
    batch.columns["lightStatus/laser"][:] = -1
    assert card(run(batch=batch), "laser").value == "unknown"
    batch = rows(0, 100)
    batch.columns["lightStatus/laser"][:30] = -1
    found = card(run(batch=batch), "laser")
    assert found.state == WARN
    assert "29 unknown" in found.detail


def test_a_slow_way_a_full_disk_and_no_file_are_warned_of():
    assert card(run(), "shot to", latency_ms=[900.0, 1500.0]).state == WARN
    assert card(run(), "shot to", page_ms=(900.0, 1500.0)).state == WARN
    unknown = card(run(), "shot to", latency_ms=[np.nan, np.nan], page_ms=(np.nan, np.nan))
    assert (unknown.value, unknown.state) == ("– | – ms", QUIET)
    full = {**STATUS["file"], "free": 1.8e9}
    found = card(run(), "disk", file=full)
    assert (found.value, found.state) == ("1.8 GB free", BAD)
    assert "lasts 30 min" in found.detail
    assert card(run(), "file", file={**full, "free": 9e12}).value == "tst_Run0007.h5"
    assert card(run(), "file", file={"path": ""}).state == WARN


def test_alarms_come_first_and_what_they_say_is_only_text():
    shot = Snapshot(*unpack(run().snapshot({**STATUS, "alarms": ["disk full <scratch>"]})))
    assert (cards(shot)[0].value, cards(shot)[0].state) == ("ALARM", BAD)
    text = render(shot)
    assert "disk full &lt;scratch&gt;" in text
    assert "✖ ALARM" in text


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.26, "0.3 s"), (42, "42 s"), (600, "10 min"), (9e4, "25.0 h")]
)
def test_durations_are_said_as_people_say_them(seconds, said):
    assert duration(seconds) == said
