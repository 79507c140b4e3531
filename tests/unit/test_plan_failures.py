"""A plan outlives reducers that fail and frames that do not fit."""

import numpy as np
import pytest

from ffb import Waveform, reducer
from ffb.loops.guard import PATIENCE
from tests.unit.plans import PULSE, SPOT, STRICT, Cut, feed, plan, shot


@reducer(version=1)
def cut(wf: Waveform) -> Cut:
    """As many samples as the first one says."""
    return Cut(wf[: 2 + abs(wf[0]) % 7].astype(np.float64))


def test_a_failure_costs_one_reducer_one_shot():
    p = plan({"pulse": PULSE, "diode2": {**STRICT, "params": {"level": -5.0}}})
    columns = feed(p, [shot(1), shot(2, diode=-6.0), shot(3)])
    assert columns["diode2/present"].tolist() == [True, False, True]
    np.testing.assert_array_equal(columns["diode2/value"], [1.5, np.nan, 4.5])
    assert columns["pulse/present"].all()
    assert dict(p.errors) == {"diode2: ValueError: too low": 1}
    assert not [n for n in p.notes if "suspended" in n]


def test_a_reducer_that_keeps_failing_is_suspended_and_the_others_go_on():
    p = plan({"pulse": PULSE, "diode2": {**STRICT, "params": {"level": -5.0}}}, shots=50)
    for _ in range(PATIENCE // 50 + 1):
        columns = feed(p, [shot(k, diode=-6.0) for k in range(50)])
        assert columns["pulse/present"].all()
    assert p.errors.total() == PATIENCE
    assert any("diode2 is suspended" in n for n in p.notes)
    columns = feed(p, [shot(1)])
    assert (columns["diode2/present"][0], columns["pulse/present"][0]) == (False, True)
    assert np.isnan(columns["diode2/value"][0])


def test_a_success_between_failures_prevents_suspension():
    p = plan({"diode2": {**STRICT, "params": {"level": -5.0}}}, shots=PATIENCE)
    for _ in range(3):
        feed(p, [shot(k, diode=-6.0) for k in range(PATIENCE - 1)] + [shot(1)])
    assert p.errors.total() == 3 * (PATIENCE - 1)
    assert feed(p, [shot(1)])["diode2/present"][0]


def test_a_feature_may_not_change_its_shape():
    p = plan({"cut": {"use": f"{__name__}:cut", "inputs": "wf"}})
    (size,) = p.schema.by_name["cut/samples"].shape
    fits, longer = np.zeros(64, np.int16), np.zeros(64, np.int16)
    fits[0], longer[0] = size - 2, (size - 1) % 7
    columns = feed(p, [shot(wf=fits), shot(wf=longer)])
    assert columns["cut/present"].tolist() == [True, False]
    assert any("changed its shape" in e for e in p.errors)


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (np.zeros((3, 9, 23), np.uint16), "frame of 3 segments; the run declared 2"),
        (np.zeros((2, 8, 23), np.uint16), "segment uint16 (184,)"),
        (np.zeros((2, 9, 23), np.float32), "segment float32 (207,)"),
    ],
    ids=["segments", "size", "dtype"],
)
def test_a_frame_of_another_shape_is_missing_and_counted(frame, says):
    p = plan({"spot": SPOT})
    columns = feed(p, [shot(1), shot(2, jf=frame), shot(3)])
    if frame.dtype == np.uint16 or not columns["spot/present"][1]:
        assert columns["spot/present"].tolist() == [True, False, True]
        assert next(iter(p.errors)).startswith(f"jf: {says}")
        assert np.isnan(columns["spot/sum"][1])
