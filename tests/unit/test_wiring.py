"""Reducers may take what stands in the batch: ffb's columns, features of other reducers, memory."""

from typing import NamedTuple

import numpy as np
import pytest

from ffb import Image, Value, Waveform, reducer
from ffb.config import ConfigError, parse
from ffb.loops.wiring import in_order
from ffb.shot import BeginStep, Input
from ffb.testing.check_reducer import check_reducer
from tests.unit.plans import PULSE, SPOT, STRICT, One, feed, plan, problems, shot

LIGHT = {"laser": {"on": [183]}, "xray": {"on": [137]}}
PROFILE = {**SPOT, "use": "projection", "params": {**SPOT["params"], "axis": 0}}


@reducer(version=1)
def largest(profile: Waveform) -> One:
    """The largest sample."""
    return One(float(profile.max()))


@reducer(version=1)
def added(a: Value, b: Value) -> One:
    """The sum of two values."""
    return One(float(a) + float(b))


@reducer(version=1)
def of_value(frame: Value) -> One:
    """The value itself."""
    return One(float(frame))


@reducer(version=1)
def of_shape(frame: Image) -> One:
    """The number of pixels."""
    return One(float(frame.shape[0] * frame.shape[1]))


class Sum(NamedTuple):
    """What came so far."""

    total: np.ndarray


class Weight(NamedTuple):
    """How much each counts."""

    weight: float = 1.0


@reducer(version=1)
def running(x: Value, xray: Value, params: Weight, memory: Sum) -> One:
    """The sum of what came with x-rays."""
    if xray == 1:
        memory.total[0] += params.weight * x
    return One(memory.total[0])


@running.memory
def nothing(params: Weight) -> Sum:
    """Nothing came so far."""
    return Sum(np.zeros(1))


def use(name, **inputs):
    return {"use": f"{__name__}:{name}", "inputs": inputs}


def test_features_of_tile_and_whole_shot_reducers_are_inputs_in_whatever_order():
    p = plan(
        {
            "twice": use("added", a="sum/value", b="top/value"),
            "sum": use("added", a="top/value", b="diode"),
            "top": use("largest", profile="profile/sum"),
            "profile": PROFILE,
        }
    )
    shots = [shot(k) for k in (1, 2)]
    columns = feed(p, shots)
    top = [s.frames["jf"][1, 2:7, 3:18].astype(float).sum(axis=0).max() for s in shots]
    np.testing.assert_array_equal(columns["top/value"], top)
    np.testing.assert_array_equal(columns["sum/value"], np.add(top, [1.5, 3.0]))
    np.testing.assert_array_equal(columns["twice/value"], np.add(2 * np.array(top), [1.5, 3.0]))
    assert p.schema.by_name["top/value"].unit == "ADU"


def test_what_is_absent_makes_what_takes_it_absent():
    p = plan(
        {
            "low": STRICT | {"params": {"level": 2.0}},
            "sum": use("added", a="low/value", b="mode"),
            "top": use("largest", profile="profile/sum"),
            "profile": PROFILE,
        }
    )
    columns = feed(p, [shot(1), shot(2), shot(3, jf=None)])
    assert columns["low/present"].tolist() == columns["sum/present"].tolist() == [False, True, True]
    assert np.isnan(columns["sum/value"][0])
    assert columns["sum/value"][1:].tolist() == [5.0, 7.5]
    assert columns["top/present"].tolist() == [True, True, False]


def test_light_steps_and_motors_are_inputs():
    p = plan(
        {
            "x": use("added", a="lightStatus/xray", b="lightStatus/laser"),
            "m": use("added", a="scan/lxt", b="step"),
        },
        motors=("lxt",),
        light=LIGHT,
    )
    p.step(BeginStep(4, {"lxt": 0.25}))
    columns = feed(p, [shot(1, codes=(137,)), shot(2, codes=(137, 183)), shot(3)])
    assert columns["x/value"].tolist() == [1.0, 2.0, 0.0]
    assert columns["m/value"].tolist() == [4.25] * 3


def test_memory_lasts_from_batch_to_batch():
    total = use("running", x="diode", xray="lightStatus/xray") | {"params": {"weight": 2.0}}
    p = plan({"total": total}, light=LIGHT)
    codes = [(137,), (), (137,)]
    first = feed(p, [shot(k, codes=c) for k, c in enumerate(codes, 1)])["total/value"].tolist()
    then = feed(p, [shot(4, codes=(137,))])["total/value"].tolist()
    assert (first, then) == ([3.0, 3.0, 12.0], [24.0])


def test_a_reducer_with_memory_keeps_the_contract():
    inputs = {"x": Input("value", "<f8", ()), "xray": Input("value", "<i1", ())}
    frames = [{"x": np.float64(k), "xray": np.int8(k != 2)} for k in range(5)]
    check_reducer(running, Weight(), inputs, frames)


@reducer(version=1)
def forgetful(x: Value, params: Weight, memory: Sum) -> One:
    """Takes a memory that nothing makes."""
    return One(memory.total[0])


def test_a_feature_that_no_reducer_has_is_told():
    (told,) = problems({"profile": PROFILE, "a": use("largest", profile="profile/summ")})
    assert told.startswith("reducers.a.inputs.profile: no input 'profile/summ'; did you mean")


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("later", "'later' is derived, which happens after all reducers have run"),
        ("tt/fltpos", "'tt/fltpos' is recorded with the detector 'tt', and no reducer takes it so"),
        ("tt", "no input 'tt'"),
    ],
)
def test_a_column_that_no_reducer_can_take_is_told(name, start):
    with pytest.raises(ConfigError) as e:
        parse(
            {
                "source": {"kind": "synthetic"},
                "detectors": {"tt": {"kind": "timetool"}},
                "derived": {"later": {"expr": "1 + 1", "unit": "1"}},
                "reducers": {"a": use("largest", profile=name)},
            }
        )
    (told,) = e.value.problems
    assert told.startswith(f"reducers.a.inputs.profile: {start}")


def test_what_only_the_run_tells_is_told():
    told = problems(
        {
            "profile": PROFILE,
            "spot": SPOT,
            "b": use("largest", profile="spot/sum"),
            "c": use("largest", profile="spot/area"),
            "d": {**SPOT, "inputs": "profile/sum"},
            "e": use("largest", profile="scan/lxt"),
            "f": {"use": f"{__name__}:forgetful", "inputs": {"x": "diode"}},
        }
    )
    starts = [
        "reducers.e.inputs.profile: this run has no 'scan/lxt'",
        "reducers.f: forgetful: takes a memory; register",
        "reducers.b.inputs.profile: spot/sum is a number; largest takes a waveform",
        "reducers.c.inputs.profile: spot has no feature 'spot/area' with its parameters",
        "reducers.d.inputs.image: profile/sum is a waveform; roi takes an area detector",
    ]
    assert sorted(t[:30] for t in told) == sorted(s[:30] for s in starts), told
    for start in starts:
        assert any(t.startswith(start) for t in told), (start, told)


def test_a_circle_is_told():
    told = problems(
        {
            "a": use("added", a="b/value", b="diode"),
            "b": use("added", a="a/value", b="diode"),
            "pulse": PULSE,
        }
    )
    assert told[0].startswith("reducers: take each other's features")
    assert "a <- b" in told[0] or "b <- a" in told[0]


def test_order_is_that_of_the_configuration_where_nothing_is_taken():
    names = [f"r{k}" for k in (3, 1, 2)]
    assert in_order({n: {"x": "diode"} for n in names}, ["diode"]) == (names, "")
    taken = {"z": {"x": "a/value"}, "a": {"x": "diode"}, "b": {"x": "z/value"}}
    assert in_order(taken, ["diode"]) == (["a", "z", "b"], "")
    assert in_order({"z": {"x": "a/value"}, "a": {"x": "q"}}, ["a/value", "q"])[0] == ["z", "a"]


@pytest.mark.parametrize("name", ["area", "sum"])
def test_a_feature_that_parameters_choose_is_taken(name):
    spot = {**SPOT, "params": {**SPOT["params"], "area": True}}
    told = {"area": "shape", "sum": "value"}[name]
    p = plan({"spot": spot, "one": use(f"of_{told}", frame=f"spot/{name}")})
    columns = feed(p, [shot(1)])
    assert columns["one/value"][0] == {"area": 75.0, "sum": columns["spot/sum"][0]}[name]
