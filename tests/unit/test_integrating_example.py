"""The example of a slow camera, by two producers that know nothing of each other's shots."""

from pathlib import Path

import numpy as np
import pytest

from ffb import reader
from ffb.config import load
from ffb.plan import Plan
from ffb.service import check
from ffb.shot import BeginStep, Idle
from ffb.sources.choose import source_of
from ffb.writers.small_data import SmallData
from tests.unit.small_data_truth import books

EXAMPLE = Path(__file__).parents[2] / "deploy/examples/integrating.toml"
SHOTS = 600


def batches(producer: int):
    """What one of two producers sends of the run, with the plan that made it."""
    more = [f"source.shots={SHOTS}", "source.rate=0", "batch.shots=64"]
    config = load(EXAMPLE, more)
    run = next(source_of(config, producer, 2).runs())
    plan = Plan.make(config, run)
    for item in run:
        if isinstance(item, BeginStep):
            plan.step(item)
        elif not isinstance(item, Idle) and plan.take(item, 0):
            yield plan, run, plan.close()
    yield plan, run, plan.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    sink, n = SmallData(tmp_path_factory.mktemp("example")), 0
    first, second = [*batches(0)], [*batches(1)]
    plan, run, _ = first[0]
    sink.begin_run(run.info, plan.schema, plan.provenance())
    for _, _, batch in [*second[:2], *first, *second[2:]]:  # the aggregator orders better
        for name in ("ffb/producer", "ffb/epoch", "ffb/late"):
            batch.columns[name][:] = 0
        sink.append(batch)
        n += batch.n
        sink.commit(books(n, n))
    sink.end_run(books(n + 1, n, ended="end of run"))
    assert n == SHOTS
    return sink.path, run


def test_the_spectrum_is_that_of_the_light_that_made_it(file):
    path, truth = file
    with reader.open(path) as run:
        andor = run.integrated("andor")
        ends = np.flatnonzero(~truth.missing["andor"])
        assert andor["count"][andor.framed].tolist() == np.diff(ends, prepend=-1).tolist()
        energies = np.split(truth.energy, ends + 1)
        there = np.split(~truth.missing["gasdet"], ends + 1)
        n = [int(t.sum()) for t in there if len(t)]
        sums = [e[t].sum() for e, t in zip(energies, there, strict=True) if len(t)]
        assert andor["gasdet_n_energy"].tolist() == n
        np.testing.assert_allclose(andor["gasdet_sum_energy"], sums, 1e-13)
        complete = (andor["gasdet_n_energy"] == 12) & ~andor.partial
        ratio = (andor["line_area"] / andor["gasdet_sum_energy"])[complete]
        assert len(ratio) > 10
        np.testing.assert_allclose(ratio, ratio[0], 1e-5)
        longer = int(np.sum(np.diff(ends) > 12))
        assert longer
        assert andor.reasons() == {"first": 1, "frame_lost": longer}


def test_lights_are_apart_and_dark_shots_are_in_neither(file):
    path, truth = file
    with reader.open(path) as run:
        andor = run.integrated("andor")
        on, off, dark = (andor[f"{k}/count"] for k in ("laser_on", "laser_off", "dark"))
        assert (on + off + dark).tolist() == andor["count"].tolist()
        assert on.sum() == np.sum(truth.laser & truth.xray)
        assert dark.sum() == np.sum(~truth.xray)


def test_check_says_what_will_be_gathered(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal: what takes long is told meanwhile
    assert check.main(str(EXAMPLE), [], None, [], attach=False) == 0
    told = "an exposure ends with each shot that has andor/line_present, andor/line_area, ... 5;"
    out = capsys.readouterr().out
    assert f"integrating andor: {told} gathered over its shots: gasdet/energy, tt/fltpos" in out
    assert "compiling what was not compiled" in out
