"""Runs whose aggregator was killed when all producers had been told that all is committed."""

import sys

import pytest

import ffb
from ffb.aggregating.orphans import Orphans
from ffb.sink import Counts
from ffb.supervise import command
from ffb.writers.small_data import SmallData
from tests.unit.small_data_truth import INFO, PROVENANCE, SCHEMA, make_batch

END = command("recover", "--end")


def left(folder, ended):
    """A run that was cut off, one of whose producers said why it ended, or not."""
    sink = SmallData(folder)
    sink.begin_run(INFO, SCHEMA, PROVENANCE)
    sink.append(make_batch(0, 5))
    told = {"producer": "p0", "epoch": 5, "seq": 9, "index": 0, "read": 5, "written": 5}
    told |= {"lost": {}, "refused": {}, "partial": [], "ended": ended, "heard": 9, "open": None}
    sink.commit(Counts(1, 5, 5, producers={"p0": told}))
    sink.close()
    return sink.path


def never():
    return False


def test_a_run_that_nobody_comes_back_to_is_ended(tmp_path):
    path = left(tmp_path, "end of run")
    orphans = Orphans(0.0, END)
    orphans.look(tmp_path)
    orphans.poll([])
    orphans.finish(never)
    assert orphans.alarms == []
    with ffb.open(path) as run:
        assert run.complete
        assert run.committed == 5
        assert run.counts.ended == "recovered"


@pytest.mark.parametrize(
    ("ended", "busy", "hurried"),
    [("", [], False), ("end of run", [INFO], False), ("end of run", [], True)],
    ids=["its producer may go on", "somebody goes on with it", "no time"],
)
def test_other_runs_are_left_as_they_are(tmp_path, ended, busy, hurried):
    path = left(tmp_path, ended)
    orphans = Orphans(0.0 if busy else 60.0, END)
    orphans.look(tmp_path)
    orphans.poll(busy)
    orphans.finish(lambda: hurried)
    with ffb.open(path) as run:
        assert not run.complete


def test_what_cannot_be_ended_is_an_alarm(tmp_path):
    path = left(tmp_path, "end of run")
    orphans = Orphans(60.0, [sys.executable, "-c", "print('no room'); raise SystemExit(1)"])
    orphans.look(tmp_path)
    orphans.finish(never)
    assert orphans.alarms == [f"{path.name} was left open and cannot be ended: no room"]
