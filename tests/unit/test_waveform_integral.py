"""The integral of a waveform equals float64 brute force."""

import numpy as np
import pytest

from ffb.reducers import waveform_integral
from ffb.shot import Input

RNG = np.random.default_rng(7)


@pytest.mark.parametrize("dtype", ["<u2", "<i2", "<f4", "<f8"])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("baseline", [None, (0, 15), (40, 64)])
@pytest.mark.parametrize("level", ["mean", "median"])
def test_waveform_integral_equals_brute_force(dtype, sign, baseline, level):
    inputs = {"waveform": Input("value", dtype, (64,), "V")}
    r = waveform_integral.waveform_integral
    params = waveform_integral.Params((20, 45), 0.5, baseline, sign, level)
    constants = r.constants(params, inputs)
    for scale in (0, 1, 30):
        wf = np.abs(RNG.normal(1000, 100, 64) * scale).astype(dtype)
        of = getattr(np, level)
        base = of(wf[slice(*baseline)].astype(float)) if baseline else 0.0
        gate = sign * (wf[20:45].astype(float) - base)
        expected = gate.sum() * 0.5, base, gate.max(), (20 + gate.argmax()) * 0.5
        np.testing.assert_allclose(r(wf, constants), expected, rtol=1e-9, atol=1e-6)


def test_waveform_integral_by_median_does_not_see_a_pulse_in_the_baseline():
    r = waveform_integral.waveform_integral
    inputs = {"waveform": Input("value", "<u2", (64,))}
    wf = np.full(64, 500, np.uint16)
    wf[3:8] = 9000
    wf[30:34] = 600
    constants = r.constants(waveform_integral.Params((20, 45), 2.0, (0, 15), 1, "median"), inputs)
    assert r(wf, constants) == (800.0, 500.0, 100.0, 60.0)


@pytest.mark.parametrize(("at", "nan"), [(30, [0, 2, 3]), (3, [0, 1, 2, 3]), (60, [])])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("level", ["mean", "median"])
def test_waveform_integral_of_no_number_is_nan_where_it_matters(at, nan, bad, level):
    r = waveform_integral.waveform_integral
    inputs = {"waveform": Input("value", "<f8", (64,))}
    wf = np.ones(64)
    wf[at] = bad
    params = waveform_integral.Params((20, 45), 0.5, (0, 15), level=level)
    constants = r.constants(params, inputs)
    assert np.flatnonzero(np.isnan(r(wf, constants))).tolist() == nan


def test_waveform_integral_refuses_gates_off_the_waveform():
    r = waveform_integral.waveform_integral
    params = waveform_integral.Params((60, 70), 0.0, (5, 5), 2, "mode")
    with pytest.raises(ValueError, match="samples") as e:
        r.constants(params, {"waveform": Input("value", "<f8", (64,))})
    assert [line.split(":")[0] for line in str(e.value).splitlines()] == [
        "gate", "baseline", "sign", "dt", "level",
    ]  # fmt: skip
