"""``ffb reducers --cost`` times what is there, adds it up, and leaves the plan as it was."""

import re

import numpy as np
import pytest

from ffb import cli, config
from ffb.plan import Plan
from ffb.service import cost
from ffb.sources.synthetic import Synthetic, SyntheticSource

TOML = """
[source]
kind = "synthetic"
shots = 40
shape = [1, 16, 32]

[inputs]
area = { detector = "area", field = "raw" }
wave = { detector = "digitizer", field = "wave" }
energy = { detector = "gasdet", field = "energy", unit = "mJ", record = true }

[reducers.spot]
use = "roi"
inputs = "area"
params = { rows = [2, 12], cols = [3, 20] }

[reducers.pulse]
use = "waveform_integral"
inputs = "wave"
params = { gate = [60, 160], dt = 1.0 }

[derived.normalised]
expr = "spot.sum / energy"
unit = "keV/mJ"

[sums.wave]
"""


@pytest.fixture(autouse=True)
def _briefly(monkeypatch):
    for name, value in (("ROUNDS_S", 0.0), ("LEAST", 2), ("MOST", 2), ("TIMING_S", 1e-4)):
        monkeypatch.setattr(cost, name, value)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "exp.toml"
    path.write_text(TOML)
    return path


def test_every_reducer_has_a_line_and_the_sums_are_right(file, capsys):
    assert cli.main(["reducers", "--cost", str(file)]) == 0
    out = capsys.readouterr().out
    found = re.findall(
        r"^( *)([\w ]+?)  +(-?[\d,.]+) +(-?[\d,.]+|-) +(-?[\d,.]+) to (-?[\d,.]+)  ", out, re.M
    )
    names = [name for _, name, *_ in found]
    assert names == [
        "area", "calibration", "spot", "whole shots", "pulse", "sums", "framework",
        "expressions", "a shot",
    ]  # fmt: skip
    least, most = (
        {name: float(line[k].replace(",", "")) for _, name, *line in found} for k in (2, 3)
    )
    parts = ("area", "whole shots", "sums", "framework")
    assert sum(least[p] for p in parts) <= least["a shot"] + 0.1
    assert sum(most[p] for p in parts) >= most["a shot"] - 0.1
    assert min(least[p] for p in parts) > 0
    assert [
        name for name, (_, alone, *_) in {n: line for _, n, *line in found}.items() if alone != "-"
    ] == ["spot"]
    assert "shots/s per core" in out
    assert re.search(r"the source took [\d.,]+ us a shot", " ".join(out.split()))
    assert "2 rounds of thread CPU time, 40 shots, 8 frames of area" in out


def test_a_plan_goes_on_as_it_was():
    run = next(SyntheticSource(Synthetic(shots=40, shape=(1, 16, 32))).runs())
    made = config.parse({"source": {"kind": "synthetic"}, **_tables()})
    plan = Plan.make(made, run)
    shots = cost.taken(plan, run)
    assert (shots.n, len(shots.areas["area"])) == (40, cost.FRAMES)
    timed = cost.lines(plan, shots)
    us = cost.measured(timed)
    assert [len(u) for u in us] == [2] * len(timed)
    for item in run:
        if hasattr(item, "segments"):
            plan.take(item, 0)
    columns = plan.close().columns
    for name in ("spot/sum", "pulse/area", "normalised"):
        assert np.isfinite(columns[name][:9]).all(), name
    assert not plan.errors
    counted = sum(p.fates.shots for p in plan.close_sums() if p.what == "calib")
    assert counted >= 80  # of this run, of the batch before, and of what was timed


def _tables():
    import tomllib

    return {k: v for k, v in tomllib.loads(TOML).items() if k != "source"}


def test_shared_memory_is_left_alone(tmp_path, capsys):
    path = tmp_path / "exp.toml"
    path.write_text('[source]\nkind = "psana"\nexp = "tstx00001"\nshmem = "tst"\n')
    assert cli.main(["reducers", "--cost", str(path)]) == 1
    assert "shared memory is left alone; name xtc2 files" in capsys.readouterr().err
