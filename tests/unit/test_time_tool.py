"""Arrival times: equal to numpy's, right on made-up edges, NaN where there is none."""

import re

import numpy as np
import pytest
from scipy.special import erf

from ffb.reducers.time_tool import Params as Calibrated
from ffb.reducers.time_tool import time_tool
from ffb.reducers.time_tool_edge import Params, time_tool_edge
from ffb.shot import Input
from ffb.testing.check_reducer import check_reducer, features_in_python
from tests.unit.plans import INPUTS, feed, plan, shot

RNG = np.random.default_rng(17)
SIZE = 400
TRACE = {"trace": Input("value", "<f8", (SIZE,), "ADU"), "xray": Input("value", "<i1", ())}
LAMP = 500 + 300 * np.sin(np.arange(SIZE) / 60)


def edge(at, height=0.3, noise=0.01, drop=True):
    step = 0.5 * (1 + erf((np.arange(SIZE) - at) / 8))
    return LAMP * (1 + (-1 if drop else 1) * height * step) * (1 + noise * RNG.normal(size=SIZE))


def shots(traces, xray):
    return [{"trace": t, "xray": np.int8(x)} for t, x in zip(traces, xray, strict=True)]


def run(params, traces, xray):
    return features_in_python(time_tool_edge, params, TRACE, shots(traces, xray))


def brute(params, traces, xray):
    """The same with numpy, written from the description."""
    start, stop = params.region or (0, SIZE)
    weights = np.repeat([-1.0, 1.0], params.width) / params.width * (1 if params.rising else -1)
    half, out, average = max(1, weights.size // 10), [], None
    for trace, x in zip(traces, xray, strict=True):
        cut = trace[start:stop]
        if x == 0 and np.isfinite(cut).all():
            step = 1.0 if average is None else params.convergence
            average = cut * step + (0 if average is None else average * (1 - step))
        if x == 0 or average is None or not np.isfinite(cut).all():
            out.append(dict.fromkeys(("position", "amplitude", "fwhm", "next_amplitude"), np.nan))
            continue
        signal = cut / average if params.reference == "ratio" else cut - average
        y = np.correlate(signal, weights, "valid")
        k = int(y.argmax())
        far = np.abs(np.arange(y.size) - k) >= weights.size
        got = {"amplitude": y[k], "next_amplitude": y[far].max() if far.any() else np.nan}
        got["position"] = np.nan
        if half <= k < y.size - half:
            c, b, _ = np.polyfit(np.arange(-half, half + 1), y[k - half : k + half + 1], 2)
            got["position"] = start + k - b / (2 * c) + (weights.size - 1) / 2
        grid = np.linspace(0, y.size - 1, 200 * y.size)
        above = np.interp(grid, np.arange(y.size), y) > y[k] / 2
        at = np.searchsorted(grid, k)
        left = at - above[:at][::-1].argmin()
        right = at + above[at:].argmin()
        got["fwhm"] = grid[right] - grid[left]
        out.append(got)
    return out


@pytest.mark.parametrize(
    "params",
    [
        Params((0.0, 1.0), width=30),
        Params((0.0, 1.0), width=30, reference="difference", convergence=0.3),
        Params((0.0, 1.0), region=(40, 380), width=25),
    ],
)
def test_an_edge_is_that_of_numpy(params):
    places = RNG.uniform(120, 280, 12)
    traces = [edge(a) for a in places]
    traces[1:1] = [edge(1e9), edge(1e9)]
    xray = [0, 0, 0] + [1] * 11
    got, wanted = run(params, traces, xray), brute(params, traces, xray)
    for k, (g, w) in enumerate(zip(got, wanted, strict=True)):
        for f, tolerance in (("position", 1e-8), ("amplitude", 1e-8), ("next_amplitude", 1e-8)):
            np.testing.assert_allclose(g[f], w[f], rtol=tolerance, err_msg=f"{f} of {k}")
        np.testing.assert_allclose(g["fwhm"], w["fwhm"], atol=0.02, err_msg=f"fwhm of {k}")
    assert [g["reference_shots"] for g in got] == [1, 2] + [3] * 12
    np.testing.assert_allclose([g["time"] for g in got[3:]], [g["position"] for g in got[3:]])


@pytest.mark.parametrize("drop", [True, False])
def test_a_made_up_edge_is_found_within_half_a_pixel(drop):
    places = RNG.uniform(100, 300, 40)
    traces = [edge(1e9) for _ in range(30)] + [edge(a, drop=drop) for a in places]
    params = Params((1.0, 0.5), width=40, rising=not drop, amplitude=(0.1, 1.0))
    got = run(params, traces, [0] * 30 + [1] * 40)[30:]
    found = np.array([g["position"] for g in got])
    assert all(g["good"] for g in got)
    assert np.abs(found - places).max() < 1.5
    assert np.sqrt(np.mean((found - places) ** 2)) < 0.5
    np.testing.assert_allclose([g["time"] for g in got], 1.0 + 0.5 * found)


def test_a_step_between_two_samples_lies_between_them():
    trace = np.where(np.arange(SIZE) > 150, 2.0, 1.0)
    (got,) = run(Params((0.0, 1.0), width=30, rising=True, reference="none"), [trace], [1])
    np.testing.assert_allclose(got["position"], 150.5)
    np.testing.assert_allclose(got["amplitude"], 1.0)
    np.testing.assert_allclose(got["fwhm"], 30.0)


def test_without_a_good_edge_there_is_no_time():
    flat, holes = LAMP.copy(), edge(200)
    holes[3] = np.nan
    traces = [edge(200), LAMP, holes, flat, edge(200), edge(8), edge(200)]
    params = Params((0.0, 1.0), width=30, amplitude=(0.1, 1.0))
    got = run(params, traces, [1, 0, 1, 1, 1, 1, -1])
    assert [bool(g["good"]) for g in got] == [False, False, False, False, True, False, True]
    assert [np.isfinite(g["time"]) for g in got] == [bool(g["good"]) for g in got]
    assert [g["reference_shots"] for g in got] == [0, 1, 1, 1, 1, 1, 1]
    assert np.isnan(got[0]["reference"])
    np.testing.assert_allclose(got[1]["reference"], LAMP.mean())


def test_a_dark_pixel_of_the_reference_is_no_edge():
    dead = np.where(np.arange(SIZE) % 100 == 7, 0.0, LAMP)
    got = run(Params((0.0, 1.0), width=30), [dead, dead], [0, 1])
    assert abs(got[1]["amplitude"]) < 1e-12


def test_a_filter_from_a_file(tmp_path):
    np.save(tmp_path / "w.npy", np.repeat([-1.0, 1.0], 30) / 30)
    traces, xray = [LAMP, edge(180)], [0, 1]
    ours = run(Params((0.0, 1.0), width=30), traces, xray)[1]
    theirs = run(Params((0.0, 1.0), weights=tmp_path / "w.npy"), traces, xray)[1]
    assert ours == theirs


def test_the_contract_with_light():
    traces = [LAMP, *(edge(a) for a in (120, 220, 310)), edge(1e9)]
    params = Params((0.0, 1.0), width=30)
    check_reducer(time_tool_edge, params, TRACE, shots(traces, [0, 1, 1, -1, 0]), rtol=1e-9)


def test_every_mistake_is_told(tmp_path):
    np.save(tmp_path / "w.npy", np.zeros((2, 2)))
    wrong = [
        (Params(()), ["polynomial: []"]),
        (Params((0.0,), region=(10, 500)), ["region: [10, 500] is no part of the trace"]),
        (Params((0.0,), region=(10, 100)), ["region: 90 samples are too few for a filter of 100"]),
        (
            Params((np.nan,), width=0, reference="quotient", convergence=0.0, fwhm=(3.0, 1.0)),
            ["polynomial", "width: 0", "reference: there is no 'quotient'", "convergence", "fwhm"],
        ),
        (Params((0.0,), weights=tmp_path / "w.npy"), ["weights: "]),
        (Params((0.0,), weights=tmp_path / "none.npy"), ["weights: "]),
    ]
    for params, starts in wrong:
        with pytest.raises(ValueError, match=re.escape(starts[0])) as e:
            time_tool_edge.constants(params, TRACE)
        lines = str(e.value).splitlines()
        assert [line.startswith(s) for line, s in zip(lines, starts, strict=True)], lines


def test_the_fit_of_the_daq_is_calibrated_and_judged():
    value = Input("value", "<f8", ())
    inputs = dict.fromkeys(("position", "amplitude", "fwhm"), value)
    fits = [(500, 0.1, 90), (0, 0.1, 90), (500, 0.01, 90), (500, 0.1, 400), (np.nan, 0.1, 90)]
    frames = [
        {k: np.float64(v) for k, v in zip(inputs, fit, strict=True)} for fit in [*fits, (40, 1, 60)]
    ]
    params = Calibrated((2.0, 0.01, 1e-5), amplitude=(0.05, 5.0), fwhm=(50.0, 300.0))
    got = features_in_python(time_tool, params, inputs, frames)
    assert [bool(g["good"]) for g in got] == [True, False, False, False, False, True]
    want = [np.polyval([1e-5, 0.01, 2.0], p) for p in (500, 40)]
    np.testing.assert_allclose([g["time"] for g in got if g["good"]], want)
    assert all(np.isnan(g["time"]) for g in got if not g["good"])
    check_reducer(time_tool, params, inputs, frames)
    with pytest.raises(ValueError, match="fwhm: nothing lies between"):
        time_tool.constants(Calibrated((1.0,), fwhm=(5.0, 1.0)), inputs)


def test_a_camera_becomes_a_time_by_projection_and_light():
    rows = {"use": "projection", "inputs": "jf", "params": {"axis": 0}}
    tt = {
        "use": "time_tool_edge",
        "inputs": {"trace": "rows/sum", "xray": "lightStatus/xray"},
        "params": {"polynomial": [0.0, 0.1], "width": 3, "rising": True},
    }
    p = plan({"tt": tt, "rows": rows}, light={"xray": {"off": [162]}}, inputs=INPUTS)
    shape = INPUTS["jf"].shape
    dark = np.full(shape, 100, np.uint16)
    lit = (dark + 50 * (np.arange(shape[2]) > 11)).astype(np.uint16)
    columns = feed(p, [shot(1, jf=dark, codes=(162,)), shot(2, jf=lit)])
    np.testing.assert_allclose(columns["tt/position"], [np.nan, 11.5])
    np.testing.assert_allclose(columns["tt/time"][1], 1.15)
