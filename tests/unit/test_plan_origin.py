"""Reducers and parameters from files of one's own, and what a plan tells of its origin."""

import json

import numpy as np
import pytest

from ffb import config
from ffb.plan import Plan
from ffb.source import Constants
from ffb.testing.listed import ListedRun
from tests.unit.plans import INPUTS, PULSE, SPOT, feed, plan, shot

#: A reducer that adds an offset, with no way to give the offset yet.
SHIFT = '''
from typing import Annotated, NamedTuple
from ffb import Feature, Value, reducer

class Offset(NamedTuple):
    """An offset."""
    by: float

class Shifted(NamedTuple):
    value: Annotated[float, Feature("@", "shifted")]

@reducer(version=2)
def shift(x: Value, offset: Offset) -> Shifted:
    """Adds an offset."""
    return Shifted(float(x) + offset.by)
'''


LOCAL = (
    SHIFT
    + """
def offsets(run):
    return Offset(10.0 * run)
"""
)


READS = (
    SHIFT
    + '''
from pathlib import Path

class Params(NamedTuple):
    """A file with an offset, and others that may be there."""
    file: Path
    other: Path | None = None
    more: tuple[Path, ...] = ()

@shift.prepare
def offset(params: Params, inputs) -> Offset:
    return Offset(float(params.file.read_text()))
'''
)


def moved(folder, source, params):
    """Write a configuration beside the ``source`` of its reducer; returns its path."""
    (folder / "tonight.py").write_text(source)
    path = folder / "exp.toml"
    path.write_text(
        f"""
        [source]
        kind = "synthetic"
        [inputs]
        diode = {{ detector = "diode", field = "raw" }}
        [reducers.moved]
        use = "./tonight.py:shift"
        inputs = "diode"
        params = {params}
        """
    )
    return path


def test_a_local_file_gives_reducers_and_parameters_and_is_kept(tmp_path):
    path = moved(tmp_path, LOCAL, '"./tonight.py:offsets"')
    made = config.load(path)
    p = Plan.make(made, ListedRun(INPUTS))
    assert feed(p, [shot(1)])["moved/value"].tolist() == [11.5]
    told = p.provenance()
    origin = told.reducers["moved"]
    assert origin["source"] == LOCAL
    assert (origin["version"], origin["params"], len(origin["hash"])) == (2, {"by": 10.0}, 64)
    assert told.config == made.text
    (tmp_path / "tonight.py").write_text(LOCAL.replace("+ offset.by", "- offset.by"))
    again = Plan.make(config.load(path), ListedRun(INPUTS))
    assert feed(again, [shot(1)])["moved/value"].tolist() == [-8.5]


def test_provenance_is_plain_data():
    p = plan({"spot": SPOT, "pulse": PULSE})
    told = p.provenance()
    plain = json.loads(json.dumps([dict(told.reducers), dict(told.constants), told.notes]))
    assert plain[0]["spot"]["params"]["rows"] == [2, 7]
    assert plain[0]["spot"]["params"]["saturation"] == "inf"
    assert plain[0]["spot"]["inputs"] == {"image": "jf"}
    assert "source" not in plain[0]["spot"]
    assert {"python", "numpy", "numba", "ffb"} <= set(told.versions)


def test_constants_that_are_not_those_of_the_run_before_are_noted():
    shape = INPUTS["jf"].shape
    pedestals = np.zeros((1, *shape), np.float32)
    ids = {"pedestals": "b (runs 4-end)", "geometry": "g"}
    gain = np.ones((1, *shape), np.float32)
    c = Constants("jf", "opal", shape, pedestals, gain=gain, origin="store", ids=ids)
    p = plan({"spot": SPOT}, constants=c)
    assert p.constants == {"jf": {"origin": "store", **ids}}
    p.compare(3, {"jf": {"origin": "store", **ids}, "gone": {}})
    assert p.notes == []
    p.compare(3, {"jf": {"origin": "store", "pedestals": "a (runs 1-3)", "geometry": "g"}})
    told = "jf: pedestals changed since run 3: a (runs 1-3), now b (runs 4-end)"
    assert p.provenance().notes == (told,)


def test_paths_are_seen_from_the_configuration_and_told(tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    (tmp_path / "by.txt").write_text("0.25")
    path = moved(tmp_path, READS, '{ file = "by.txt", more = ["a/b", "/c"] }')
    p = Plan.make(config.load(path), ListedRun(INPUTS))
    assert feed(p, [shot(1)])["moved/value"].tolist() == [1.75]
    told = p.provenance().reducers["moved"]["params"]
    more = [str(tmp_path / "a/b"), "/c"]
    assert told == {"file": str(tmp_path / "by.txt"), "other": None, "more": more}


def test_a_path_is_spelt_as_a_text(tmp_path):
    path = moved(tmp_path, READS, "{ file = 3 }")
    with pytest.raises(config.ConfigError) as e:
        config.load(path)
    assert e.value.problems == ("reducers.moved.params.file: expected a path, got 3",)
