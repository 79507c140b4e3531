"""What ``ffb reducers NAME`` prints works when it is pasted: it is read, bound, and runs."""

import tomllib
from pathlib import Path

import numba
import numpy as np
import pytest

from ffb import config
from ffb.configuration.resolve import installed, reducer
from ffb.plan import Plan
from ffb.service.check import main as check
from ffb.service.examples import example
from ffb.shot import BeginStep, Idle
from ffb.sources.choose import source_of

#: Compiling all of them takes minutes, and the contract compiles each: these, and without the
#: compiler all, are run.
COMPILED = ("roi", "time_tool_edge", "waveform_integral")
NAMES = [n for n in installed() if numba.config.DISABLE_JIT or n in COMPILED]


@pytest.mark.parametrize("name", installed())
def test_an_example_is_a_whole_configuration(name):
    data = tomllib.loads(example(reducer(name, Path())))
    made = config.parse(data)
    mine = made.reducers[f"my_{name}"]
    assert mine.use == name
    known = {*made.inputs, "lightStatus/xray", "lightStatus/laser", "scan/delay"}
    known |= {f"{r}/{f}" for r in made.reducers for f in ("area", "time")}
    assert {*mine.inputs.values()} <= known


@pytest.mark.parametrize("name", NAMES)
def test_an_example_reduces_shots_of_the_run_it_names(name):
    data = tomllib.loads(example(reducer(name, Path())))
    small = [2, 48, 96] if "spot" in data["reducers"] else [2, 16, 24]
    data["source"] |= {"shots": 12, "shape": small}
    with np.errstate(all="ignore"):
        made = config.parse(data)
        run = next(iter(source_of(made).runs()))
        plan = Plan.make(made, run)
        for item in run:
            if isinstance(item, BeginStep):
                plan.step(item)
            elif not isinstance(item, Idle):
                plan.take(item, 0)
        columns = plan.close().columns
    assert not plan.errors
    assert columns[f"my_{name}/present"].all()
    features = [c for c in plan.schema.columns if c.reducer == f"my_{name}"]
    seen = [c.name for c in features if np.isfinite(columns[c.name]).any()]
    assert set(seen) > {f"my_{name}/present"}


def test_the_command_that_checks_a_file_finds_nothing_wrong(tmp_path, capsys):
    file = tmp_path / "pasted.toml"
    file.write_text(example(reducer("roi", Path())))
    assert check(str(file), ["source.shape=[2, 32, 48]"], None, [], False) == 0
    assert "my_roi/sum" in capsys.readouterr().out
