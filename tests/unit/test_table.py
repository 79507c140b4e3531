"""What the terminal says is what the snapshot says."""

import io

from rich.console import Console

from ffb.live import Live
from ffb.sink import Counts
from ffb.source import RunInfo
from ffb.table import line, table
from ffb.wire import unpack
from tests.unit.live_rows import PROVENANCE, SCHEMA, rows
from tests.unit.test_live import STATUS


def meta(live, **status):
    return unpack(live.snapshot({**STATUS, **status}))[0]


def recording():
    live = Live()
    live.begin_run(RunInfo("tstx00001", 7), SCHEMA, PROVENANCE)
    live.append(rows(0, 100))
    live.commit(Counts(1, 110, 100, {"backpressure": 4}))
    return live


def test_a_line_before_the_first_run_says_what_is_waited_for():
    assert line(None) == "waiting for the stream"
    assert line(meta(Live(), producers={})) == "waiting for the stream"
    preparing = {"p0": {"doing": "preparing run 7"}}
    assert line(meta(Live(), producers=preparing)) == "p0 preparing run 7"


def test_a_line_of_a_run_has_rates_books_and_latency():
    said = line(meta(recording()))
    assert "tstx00001 run 7 recording" in said
    assert "read 120  reduced 119  written 118 Hz" in said
    assert "read 110  written 100  in flight 6" in said
    assert "4 (4 backpressure)" in said
    assert "p50 31 ms  p95 55 ms" in said


def test_the_table_shows_alarms_and_the_page():
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table(meta(recording(), alarms=["disk full"]), [], "http://127.0.0.1:1/", 0.0))
    said = console.export_text()
    assert "disk full" in said
    assert "http://127.0.0.1:1/" in said
    assert "/scratch/tst_Run0007.h5" in said
