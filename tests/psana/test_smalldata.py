"""What psana's own SmallData writes of a run, against our file: `ffb diff` finds them equal."""

import contextlib

import h5py
import pytest

from ffb import cli
from ffb.config import parse
from ffb.plan import Plan
from ffb.shot import BeginStep
from ffb.sink import Counts
from ffb.sources.choose import source_named
from ffb.testing.fabricate import write_run
from ffb.testing.truth import RunSpec
from ffb.writers.small_data import SmallData

pytestmark = pytest.mark.psana

SPEC = RunSpec(steps=2, shots_per_step=30, groups=("timing", "time_tool", "beam"))
FIELDS = {
    "gmd/energy": ("gmd", "raw", "energy"),
    "gmd/rmsElectronSum": ("gmd", "raw", "rmsElectronSum"),
    "tt/fltpos": ("tmo_opal", "ttfex", "fltpos"),
    "tt/ampl": ("tmo_opal", "ttfex", "ampl"),
}


@pytest.fixture(scope="module")
def xtc2(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run") / "run.xtc2", SPEC)


@pytest.fixture(scope="module")
def theirs(xtc2):
    """What psana's SmallData writes of the fields, where the shot has them."""
    import psana
    from psana.smalldata import SmallData as Psana

    writer, path = Psana(), xtc2.with_name("theirs.h5")
    writer.setup_parms(filename=str(path), batch_size=7)
    run = next(psana.DataSource(files=str(xtc2), skip_calib_load="all").runs())
    timing = run.Detector("timing")
    found = {name: run.Detector(field[0]) for name, field in FIELDS.items()}
    for event in run.events():
        values = {"timing/pulseId": timing.raw.pulseId(event)}
        for name, (_, alg, field) in FIELDS.items():
            value = getattr(getattr(found[name], alg), field)(event)
            values |= {} if value is None else {name: value}
        writer.event(event, **values)
    writer.done()
    return path


@pytest.fixture(scope="module")
def ours(xtc2):
    inputs = {
        name: {"detector": d, "field": f"{alg}.{field}", "record": True}
        for name, (d, alg, field) in FIELDS.items()
    }
    config = parse({"source": {"kind": "files", "paths": [str(xtc2)]}, "inputs": inputs})
    sink = SmallData(xtc2.parent)
    with contextlib.closing(source_named([str(xtc2)])) as source:
        run = next(source.runs())
        plan = Plan.make(config, run)
        sink.begin_run(run.info, plan.schema, plan.provenance())
        for item in run:
            if isinstance(item, BeginStep):
                plan.step(item)
            elif hasattr(item, "timestamp"):
                plan.take(item, 1_800_000_000_000_000_000)
    batch = plan.close()
    sink.append(batch)
    sink.end_run(Counts(1, batch.n, batch.n, ended="end of run"))
    return sink.path


def test_they_hold_the_same(theirs, ours, capsys):
    assert cli.main(["diff", str(theirs), str(ours), "--common"]) == 0
    out = capsys.readouterr().out
    assert f"{SPEC.shots} in both, 0 only in A, 0 only in B" in out
    assert f"equal: {1 + len(FIELDS)} datasets of {SPEC.shots} shots" in out


def test_a_value_that_is_not_the_same_is_found(theirs, ours, tmp_path, capsys):
    changed = tmp_path / "changed.h5"
    changed.write_bytes(theirs.read_bytes())
    with h5py.File(changed, "a") as file:
        file["gmd/rmsElectronSum"][11] += 1
        stamp = file["timestamp"][11]
    assert cli.main(["diff", str(changed), str(ours), "--common", "--rtol", "1e-9"]) == 1
    out = capsys.readouterr().out
    assert "different: 1 of" in out
    assert str(stamp) in out
