"""No reducer changes its numbers unnoticed."""

import json

import numpy as np
import pytest

from ffb.configuration import resolve
from tests.benchmarks.bench_reducers import CASES
from tests.golden.make_reducers import FOLDER, golden, summary

NAMES = resolve.installed()


def test_every_reducer_has_golden_values_and_no_other_has():
    assert sorted(p.stem for p in FOLDER.glob("*.json")) == sorted(NAMES), (
        "python -m tests.golden.make_reducers NAME keeps the values of a new reducer"
    )


def test_every_reducer_has_a_speed_guard():
    assert sorted(CASES) == sorted(NAMES), "tests/benchmarks/bench_reducers.py lacks a case"


@pytest.mark.parametrize("name", NAMES)
def test_a_reducer_gives_what_it_gave(name):
    kept = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    now = golden(name)
    told = (
        f"numbers of {name} changed: if they should, raise its version, tell it under 'Numbers"
        f" changed' and run python -m tests.golden.make_reducers {name}"
    )
    assert now["version"] == kept["version"], told
    assert now["features"].keys() == kept["features"].keys(), told
    for feature, shots in kept["features"].items():
        given = np.array(now["features"][feature], np.float64)
        np.testing.assert_allclose(
            given, np.array(shots, np.float64), rtol=1e-6, atol=1e-9, err_msg=f"{feature}: {told}"
        )


def test_swapped_values_show():
    assert summary(np.array([1.0, 2.0])) != summary(np.array([2.0, 1.0]))
    assert summary(np.array([1.0, np.nan])) != summary(np.array([1.0, 0.0]))
    assert summary(np.int64(2)) != summary(np.int64(3))
