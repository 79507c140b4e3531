"""Derived numbers and filters, from the shots of a run to its file and to the page."""

import json

import h5py
import numpy as np
import pytest
from bokeh.models import FactorRange

import ffb
from ffb import config
from ffb.dashboards.layout import Page
from ffb.dashboards.model import NAMES, OFF, ON, Snapshot
from ffb.dashboards.views.share import share
from ffb.live.model import Live
from ffb.live.snapshots import Album, beside
from ffb.live.verify import verify
from ffb.plan import Plan
from ffb.shot import BeginStep
from ffb.sink import Counts
from ffb.sources.synthetic import Synthetic, SyntheticSource
from ffb.wire import unpack
from ffb.writers.small_data import SmallData
from tests.unit.test_live import STATUS

SHOTS = 120
TOML = {
    "source": {"kind": "synthetic", "shots": SHOTS, "steps": 3},
    "inputs": {
        "energy": {"detector": "gasdet", "field": "energy", "unit": "mJ", "record": True},
        "edge": {"detector": "timetool", "field": "ttfex.fltpos", "record": True},
        "wave": {"detector": "digitizer", "field": "wave", "record": True},
    },
    "light": {"laser": {"on": [90], "off": [91]}, "xray": {"off": "code(162)"}},
    "derived": {
        "delay": {"expr": "scan.delay + 2e-3 * (edge - 512)", "unit": "ps", "doc": "corrected"},
        "normalised": {
            "expr": "ratio(max(wave) - mean(wave[0:10]), energy, 0.5)",
            "unit": "ADU/mJ",
        },
    },
    "filters": {
        "bright": {"expr": "energy > 1"},
        "lasered": {"expr": "code(90)"},
    },
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run, and the last snapshot of it."""
    missing = {"gasdet": 0.2, "timing": 0.1}
    run = next(SyntheticSource(Synthetic(shots=SHOTS, steps=3, missing=missing)).runs())
    plan = Plan.make(config.parse(TOML), run)
    writer, live = SmallData(tmp_path_factory.mktemp("run")), Live()
    for sink in (writer, live):
        sink.begin_run(run.info, plan.schema, plan.provenance())
    album = Album(beside(writer.path))
    for item in run:
        if isinstance(item, BeginStep):
            plan.step(item)
            continue
        plan.take(item, 1_800_000_000_000_000_000)
    batch = plan.close()
    for sink in (writer, live):
        sink.append(batch)
        sink.commit(Counts(1, SHOTS, SHOTS))
    album.add(1, live.snapshot(STATUS))
    writer.end_run(Counts(1, SHOTS, SHOTS, ended="end of run"))
    energy = np.where(run.missing["gasdet"], np.nan, run.energy)
    return writer.path, live.snapshot(STATUS), energy


def test_the_file_has_them_with_units_and_their_text(made):
    path, _, energy = made
    with ffb.open(path) as run:
        assert run["delay"].unit == "ps"
        expected = run["scan/delay"][:] + 2e-3 * (run["edge"][:] - 512)
        np.testing.assert_array_equal(run["delay"][:], expected)
        assert np.isfinite(expected).all()
        assert run["bright"][:].tolist() == (energy > 1).tolist()
        assert run["bright_valid"][:].tolist() == np.isfinite(energy).tolist()
        timed = run["lightStatus/laser"][:] >= 0
        assert run["lasered"][:].tolist() == (run["lightStatus/laser"][:] == 1).tolist()
        assert run["lasered_valid"][:].tolist() == timed.tolist()
        assert 0 < timed.sum() < SHOTS
        assert run.reducers["bright"] == {
            "use": "filters", "expr": "energy > 1", "inputs": ["energy"],
        }  # fmt: skip
    with h5py.File(path) as file:
        assert file["delay"].attrs["expr"] == "scan.delay + 2e-3 * (edge - 512)"
        assert "expr" not in file["edge"].attrs
        assert "[derived.delay]" in file["ffb/config"].asstr()[()]
        assert json.loads(file["ffb/reducers"].asstr()[()])["delay"]["use"] == "derived"


def test_what_is_made_of_a_waveform_and_normalised_is_in_the_file_and_in_cuts(made):
    path, _, energy = made
    with ffb.open(path) as run:
        wave = run["wave"][:].astype(float)
        here = run["wave_valid"][:] if "wave_valid" in run else np.ones(SHOTS, np.bool_)
        height = np.where(here, wave.max(1) - wave[:, :10].mean(1), np.nan)
        with np.errstate(all="ignore"):
            want = np.where(energy > 0.5, height / energy, np.nan)
        np.testing.assert_array_equal(run["normalised"][:], want)
        assert np.isnan(want).any()
        assert np.isfinite(want).any()
        cut = run.cut("sum(wave[60:90]) > 6.5e4")
        high = here & (wave[:, 60:90].sum(1) > 6.5e4)
        np.testing.assert_array_equal(np.asarray(cut), high)
        assert 0 < cut.count < SHOTS
        fine = run.cut("normalised > 990 and sum(wave[60:90]) > 6.5e4")
        expected = (want > 990) & high
        np.testing.assert_array_equal(np.asarray(fine), expected)
        assert 0 < fine.count < SHOTS


def test_the_page_shows_the_share_of_the_shots_that_are_known(made):
    path, frame, energy = made
    shot = Snapshot(*unpack(frame))
    assert {"delay", "normalised", "bright", "lasered"} < shot.scalars.keys()
    assert not any(name.endswith("_valid") for name in shot.scalars)
    with ffb.open(path) as run:
        lit, laser = run["lightStatus/xray"][:] != 0, run["lightStatus/laser"][:]
    view = share(shot.scalars["bright"])
    view.refresh(shot)
    data = view.layout.renderers[0].data_source.data
    for light, state in ((OFF, 0), (ON, 1)):
        known = lit & (laser == state) & np.isfinite(energy)
        want = (energy[known] > 1).mean()
        row = data["light"].index(NAMES[light])
        assert data["share"][row] == pytest.approx(want)
        assert data["said"][row] == f"{100 * want:.1f} %\nof {known.sum()}"
        error = np.sqrt(want * (1 - want) / known.sum())
        assert data["upper"][row] == pytest.approx(want + error)
    page = Page(shot)
    page.tabs.active = 1
    kinds = [v.layout for v in page.views if isinstance(v.layout.x_range, FactorRange)]
    assert len(kinds) == 2  # filters come first


def test_the_plot_of_a_filter_is_its_file(made):
    verdict = verify(made[0], commit=1)
    assert verdict.good, [c for c in verdict.checks if c.wrong]
    assert {"bright", "delay", "normalised"} <= {
        c.column for c in verdict.checks if c.view == "scan"
    }
