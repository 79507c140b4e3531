"""What the terminal says is what the snapshot says."""

import io

from rich.console import Console

from ffb.live.model import Live
from ffb.service.table import line, processes, rows, table
from ffb.sink import Counts
from ffb.source import RunInfo
from ffb.supervise import Child
from ffb.wire import unpack
from tests.unit import live_rows
from tests.unit.live_rows import PROVENANCE, SCHEMA
from tests.unit.test_live import STATUS


def meta(live, **status):
    return unpack(live.snapshot({**STATUS, **status}))[0]


def recording(**counts):
    live = Live()
    live.begin_run(RunInfo("tstx00001", 7), SCHEMA, PROVENANCE)
    live.append(live_rows.rows(0, 100))
    live.commit(Counts(1, 110, 100, {"backpressure": 4}, **counts))
    return live


def test_a_line_before_the_first_run_says_what_is_waited_for():
    assert line(None) == "waiting for the stream"
    assert line(meta(Live(), producers={})) == "waiting for the stream"
    preparing = {"p0": {"doing": "preparing run 7"}}
    assert line(meta(Live(), producers=preparing)) == "p0 preparing run 7"
    wrong = meta(Live(), producers=preparing, alarms=["/out: cannot be written"])
    assert line(wrong) == "p0 preparing run 7  |  /out: cannot be written"
    assert [r.style for r in rows(wrong)] == ["", "red"]


def test_a_line_of_a_run_has_rates_books_and_latency():
    said = line(meta(recording()))
    assert "tstx00001 run 7 recording" in said
    assert "read 120  reduced 119  written 118 Hz" in said
    assert "read 110  written 100  in flight 6" in said
    assert "lost 4 (4 backpressure)" in said
    assert "p50 31 ms  p95 55 ms" in said


def test_the_table_shows_alarms_and_the_page():
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table(meta(recording(), alarms=["disk full"]), [], "http://127.0.0.1:1/", 0.0))
    said = console.export_text()
    assert "disk full" in said
    assert "http://127.0.0.1:1/" in said
    assert "/scratch/tst_Run0007.h5" in said


def test_queues_shedding_and_books_are_told_in_colour():
    queues = [["p0 window", 10, 100, 90], ["p1 window", 60, 100, 60], ["p2 ring", 100, 100, 100]]
    busy = {"p0": {"kept": 0.25}, "p1": {"kept": 0.75}}
    live = recording(not_seen=12, duplicates=3)
    said = {r.heading: r for r in rows(meta(live, queues=queues, producers=busy))}
    assert [said[q[0]].style for q in queues] == ["", "yellow", "red"]
    assert said["p1 window"].value == "0 kB of 0 kB, most 0 kB"
    assert (said["kept"].value, said["kept"].style) == ("50 % of shots: SHEDDING", "red")
    assert said["not offered"].value == "about 12, estimated from pulse ids"
    assert "3 twice" in said["shots"].value
    assert "late" not in said["shots"].value
    text = line(meta(live, queues=queues, producers=busy))
    assert "p0 window" not in text
    assert "p2 ring" in text
    odd = recording(producers={"p1": {"read": 1, "written": 2}})
    books = {r.heading: r for r in rows(meta(odd))}["books"]
    assert books.value.startswith("DO NOT BALANCE: producer p1")


def test_a_death_is_told_with_its_reason(tmp_path, monkeypatch):
    monkeypatch.setattr("ffb.service.table.time.time_ns", lambda: 42_000_000_000)
    dead = Child(
        "aggregator", [], True, tmp_path, restarts=2, died=30 * 10**9, why="signal SIGKILL"
    )
    gone = Child("dashboard", [], True, tmp_path, gave_up=True, died=1, why="exit code 1")
    total, first, second = processes([dead, gone])
    assert total.value == "0 running, 2 restarts"
    assert first.value == "restarted 2x, last: signal SIGKILL 12 s ago"
    assert second.value == "GIVEN UP, last: exit code 1 42 s ago"
