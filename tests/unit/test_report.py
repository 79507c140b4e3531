"""What processes say is put together, and nothing they may say can break the page."""

import pytest

from ffb.dashboards.model import Snapshot
from ffb.dashboards.status import render
from ffb.live.model import Live
from ffb.service.report import SUPERVISOR, FileState, Queue, Said, checked
from ffb.service.table import line, rows
from ffb.source import RunInfo
from ffb.wire import unpack
from tests.unit.live_rows import PROVENANCE, SCHEMA

SECOND = 10**9
HONEST = {
    "pid": 7,
    "doing": "reducing",
    "read_hz": 60.0,
    "reduced_hz": 59.5,
    "in_flight_bytes": 10,
    "high_water_bytes": 90,
    "window_bytes": 100,
    "ring_bytes": 20,
    "ring_high_water_bytes": 95,
    "ring_size_bytes": 200,
    "kept": 0.5,
    "strata": [[1, 1, 10, 5]],
    "lost": {"backpressure": 5},
    "errors": {"spot: ValueError": 1},
    "notes": ["no geometry"],
}


def status(said, now):
    return {
        "producers": said.producers(now),
        "children": said.children(now),
        "queues": [list(q) for q in said.queues],
        "alarms": said.alarms,
        "written_hz": 0.0,
    }


def test_what_a_producer_says_is_kept_and_its_queues_are_named():
    said = Said()
    said.hear("p0", SECOND)
    said.take("p0", HONEST, SECOND)
    assert said.producers(2 * SECOND) == {"p0": {**HONEST, "alive": True}}
    assert said.producers(5 * SECOND)["p0"]["alive"] is False
    assert said.queues == [Queue("p0 window", 10, 100, 90), Queue("p0 ring", 20, 200, 95)]
    assert said.alarms == []
    said.take("p0", {"doing": "waiting", "alarm": "run 7 is not reduced"}, SECOND)
    assert said.alarms == ["run 7 is not reduced"]
    assert said.queues == []


@pytest.mark.parametrize(
    "odd",
    [
        dict.fromkeys(HONEST, "x"),
        {k: float("nan") for k in HONEST},
        {k: [None, {}] for k in HONEST},
        {k: {1: 2, "a": []} for k in HONEST},
        dict.fromkeys(HONEST, True),
        {1: 2, b"pid": 3, "strata": [[1, 2], "x", [1, 1, "a", 2]], "notes": [1, None] * 1000},
        {"doing": "x" * 10**6, "alarm": "<script>" * 1000, "errors": {"<b>" * 999: 1}},
    ],
)
def test_no_status_breaks_page_or_terminal(odd):
    said = Said()
    for name in ("p0", SUPERVISOR):
        said.hear(name, SECOND)
        said.take(name, odd, SECOND)
    said.take(SUPERVISOR, {"children": [odd, {**odd, "name": 3, "restarts": "x"}, 7]}, SECOND)
    live = Live()
    live.begin_run(RunInfo("tstx00001", 7), SCHEMA, PROVENANCE)
    meta, arrays = unpack(live.snapshot(status(said, SECOND)))
    assert "<script>" not in render(Snapshot(meta, arrays))
    assert rows(meta)
    assert "tstx00001" in line(meta)
    assert len(str(status(said, SECOND))) < 100_000


def test_numbers_of_the_wrong_kind_are_left_out():
    said = checked({"read_hz": True, "pid": 3, "kept": float("inf"), "lost": {"a": 1, "b": "c"}})
    assert said == {"pid": 3, "lost": {"a": 1}}


def test_children_are_told_while_their_supervisor_is_there():
    said = Said()
    child = {"name": "aggregator", "alive": True, "restarts": 2, "died": 5, "why": "SIGKILL"}
    said.take(SUPERVISOR, {"children": [child]}, SECOND)
    assert said.children(2 * SECOND) == [{**child, "done": False, "gave_up": False}]
    assert said.children(9 * SECOND) == []
    assert said.producers(SECOND) == {}
    said.take(SUPERVISOR, {"children": [{**child, "gave_up": True}]}, SECOND)
    assert said.alarms == ["aggregator keeps dying and is left alone (SIGKILL)"]


def test_a_file_is_told_with_its_segments(tmp_path):
    look, path = FileState(), tmp_path / "run.h5"
    assert look(None, 1)["path"] == ""
    assert look(path, 1) == {"path": str(path), "bytes": 0, "bytes_hz": 0.0}
    path.write_bytes(b"x" * 10)
    parts = tmp_path / "run.parts"
    parts.mkdir()
    for name, n in (("seg0000.h5", 100), ("seg0001.live.h5", 1000), ("journal", 5000)):
        (parts / name).write_bytes(b"x" * n)
    (parts / "seg0000.live.h5").hardlink_to(parts / "seg0000.h5")  # a name for who is slow
    said = look(path, 2)
    assert (said["bytes"], said["segments"]) == (1110, 2)
    assert said["free"] > 0
