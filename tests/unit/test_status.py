"""The bar says in words and colours what is good, lost, late, missing, old, dead or full."""

import numpy as np
import pytest

from ffb.dashboards.model import Snapshot
from ffb.dashboards.status import BAD, GOOD, QUIET, WARN, cards, duration, render
from ffb.live import Live
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


def test_all_is_well():
    for c in cards(Snapshot(*unpack(run().snapshot(STATUS)))):
        if c.title not in ("detectors, last 10 s",):  # the rows lack every tenth
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


def test_after_a_restart_the_plots_are_not_all_of_the_file():
    found = card(run(Counts(9, 5000, 5000)), "data")
    assert found.state == WARN
    assert found.detail == "plots since a restart: 100 of 5,000 rows"


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
