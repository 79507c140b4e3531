"""Slow values of a run beside its rows: the first of each, and all of them at their own times."""

import h5py
import numpy as np
import pytest

from ffb.batch import Batch
from ffb.schema import CORE, Column, Schema
from ffb.shot import timestamp_of
from ffb.sink import Counts, Provenance
from ffb.source import RunInfo
from ffb.writers import slow_series
from ffb.writers.consolidate import merge
from ffb.writers.small_data import SmallData

INFO = RunInfo("mfxx49820", 42, 99)
AGES = [Column(f"epicsUser/{n}_age", "<f8", unit="s") for n in ("lxt", "count", "never")]
SCHEMA = Schema(
    (
        *CORE,
        Column("epicsUser/lxt", "<f8", unit="ps", doc="time of the laser"),
        Column("epicsUser/count", "<i4", (2,)),
        Column("epicsUser/count_valid", "|b1"),
        Column("epicsUser/never", "<f8"),
        *AGES,
        Column("bottle/wine_age", "<f8", unit="s"),
        Column("bottle/wine", "<f8"),
    )
)
INPUTS = {
    **{f"epicsUser/{n}": f"epics.raw.LAS:{n}" for n in ("lxt", "count", "never")},
    **{f"epicsUser/{n}_age": f"epics.age.LAS:{n}" for n in ("lxt", "count", "never")},
    "bottle/wine_age": "bottle.raw.age",
}
BEGAN = 1_700_000_000_000_000_000
#: Updates in ns since BEGAN: one before all shots, one that no shot came after, one far away.
UPDATES = [-5_000_000_001, 33, 1_000_000_007, 1_000_000_008, 3_600_000_000_001]
SHOTS = [-6 * 10**9, *range(-4 * 10**9, 2 * 10**9, 10**8), 5 * 10**12]
VALUES = np.array([20.0, 20.5, -1.0, 21.0, 20.0])


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A merged run whose rows came in another order than that of time."""
    monkeypatch.setattr(slow_series, "_ROWS", 7)
    stamps = np.array([timestamp_of(BEGAN + s) for s in SHOTS], np.uint64)
    last = np.searchsorted(UPDATES, SHOTS, "right") - 1
    there = last >= 0
    age = np.where(there, (np.array(SHOTS) - np.array(UPDATES)[last]) / 1e9, np.nan)
    sink = SmallData(tmp_path)
    sink.begin_run(INFO, SCHEMA, Provenance("text", inputs=INPUTS))
    order = [*range(20, len(SHOTS)), *range(20)]
    batch = Batch(SCHEMA, len(SHOTS))
    for c in SCHEMA.columns:
        batch.columns[c.name][...] = np.zeros((), c.dtype)
    columns = batch.columns
    columns["timestamp"][...] = stamps[order]
    columns["epicsUser/lxt"][...] = np.where(there, VALUES[last], np.nan)[order]
    columns["epicsUser/count"][...] = np.stack([last, 10 * last], 1)[order] * there[order, None]
    columns["epicsUser/count_valid"][...] = there[order]
    columns["epicsUser/never"][...] = columns["epicsUser/never_age"][...] = np.nan
    for name in ("lxt", "count"):
        columns[f"epicsUser/{name}_age"][...] = age[order]
    sink.append(batch)
    sink.commit(Counts(1, len(SHOTS), len(SHOTS)))
    sink.end_run(Counts(2, len(SHOTS), len(SHOTS), ended="end of run"))
    merge(sink.path)
    with h5py.File(sink.path) as file:
        yield file


def test_every_update_that_a_shot_came_after_is_there_once_at_its_time(run):
    seen = [0, 1, 3, 4]
    times = run["epicsSeries/lxt/time"]
    assert times.dtype == np.int64
    assert times[:].tolist() == [BEGAN + UPDATES[k] for k in seen]
    assert run["epicsSeries/lxt/value"][:].tolist() == VALUES[seen].tolist()
    assert run["epicsSeries/count/value"][:].tolist() == [[k, 10 * k] for k in seen]
    assert times.attrs["unit"] == "ns"
    about = run["epicsSeries/lxt/value"].attrs
    assert (about["unit"], about["doc"]) == ("ps", "time of the laser")
    assert about["source"] == "epics.raw.LAS:lxt"


def test_the_first_value_of_the_run_is_there_once(run):
    assert run["epicsOnce/lxt"][()] == 20.0
    assert run["epicsOnce/lxt"].attrs["unit"] == "ps"
    assert run["epicsOnce/count"][()].tolist() == [0, 0]


def test_what_never_came_or_is_no_slow_value_has_none(run):
    assert {*run["epicsOnce"]} == {*run["epicsSeries"]} == {"lxt", "count"}
