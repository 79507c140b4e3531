"""Arrival times: equal to numpy's, right on made-up edges, NaN where there is none."""

import re

import numpy as np
import pytest
from scipy.special import erf

from ffb.reducers import delay as delays
from ffb.reducers.time_tool import Params as Calibrated
from ffb.reducers.time_tool import time_tool
from ffb.reducers.time_tool_edge import Params, time_tool_edge
from ffb.shot import BeginStep, Input
from ffb.testing.check_reducer import check_reducer, features_in_python
from tests.unit.plans import INPUTS, feed, plan, shot

RNG = np.random.default_rng(17)
SIZE = 400
LIGHT = Input("value", "<i1", ())
TRACE = {"trace": Input("value", "<f8", (SIZE,), "ADU"), "xray": LIGHT, "laser": LIGHT}
LAMP = 500 + 300 * np.sin(np.arange(SIZE) / 60)


def edge(at, height=0.3, noise=0.01, drop=True):
    step = 0.5 * (1 + erf((np.arange(SIZE) - at) / 8))
    return LAMP * (1 + (-1 if drop else 1) * height * step) * (1 + noise * RNG.normal(size=SIZE))


def shots(traces, xray, laser=None):
    lights = zip(traces, xray, laser or [1] * len(xray), strict=True)
    return [{"trace": t, "xray": np.int8(x), "laser": np.int8(y)} for t, x, y in lights]


def run(params, traces, xray, laser=None):
    return features_in_python(time_tool_edge, params, TRACE, shots(traces, xray, laser))


def brute(params, traces, xray):
    """The same with numpy, written from the description."""
    start, stop = params.region or (0, SIZE)
    weights = np.repeat([-1.0, 1.0], params.width) / params.width * (1 if params.rising else -1)
    half, out, average, seen = max(1, weights.size // 10), [], None, 0
    for trace, x in zip(traces, xray, strict=True):
        cut = trace[start:stop]
        if x == 0 and np.isfinite(cut).all():
            seen += 1
            step = max(params.convergence, 1 / seen)
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
        Params((0.0, 1.0), width=30, reference="difference", convergence=0.45),
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


def test_without_a_good_edge_there_is_no_time_and_a_reason():
    holes, infinite = edge(200), edge(200)
    holes[3], infinite[5] = np.nan, np.inf
    cases = [
        (edge(200), 1, 1, 3),
        (holes, 0, 1, 1),
        (edge(200), 0, 0, 1),
        (edge(200), 1, 1, 3),
        (LAMP, 0, 1, 1),
        (holes, 1, 1, 4),
        (infinite, 1, 1, 4),
        (LAMP.copy(), 1, 1, 5),
        (edge(200, 0.05, 0.0), 1, 1, 6),
        (edge(200), 1, 0, 2),
        (edge(200), 0, 0, 1),
        (edge(8, noise=0.0), 1, 1, 5),
        (edge(200), -1, -1, 0),
        (edge(200), 1, 1, 0),
    ]
    traces, xray, laser, reasons = zip(*cases, strict=True)
    params = Params((0.0, 1.0), width=30, amplitude=(0.1, 1.0))
    got = run(params, traces, xray, laser)
    assert [g["reason"] for g in got] == list(reasons)
    assert [bool(g["good"]) for g in got] == [r == 0 for r in reasons]
    assert [np.isfinite(g["time"]) for g in got] == [r == 0 for r in reasons]
    assert [g["reference_shots"] for g in got] == [0] * 4 + [1] * 10
    assert np.isnan(got[0]["reference"])
    np.testing.assert_allclose(got[4]["reference"], LAMP.mean())
    (narrow,) = run(Params((0.0,), width=30, fwhm=(1, 5), reference="none"), [edge(200)], [1])
    assert (narrow["reason"], bool(narrow["good"])) == (7, False)


def test_an_edge_at_the_end_has_a_time_unless_its_width_is_asked_for():
    trace, free = edge(42, noise=0.0) / LAMP, Params((0.0, 1.0), width=30, reference="none")
    ((near,), (judged,)) = (run(free._replace(fwhm=f), [trace], [1]) for f in (None, (1, 99)))
    assert np.isnan(near["fwhm"])
    assert (near["reason"], judged["reason"]) == (0, 7)
    np.testing.assert_allclose([near["time"], judged["position"]], near["position"])
    np.testing.assert_allclose(near["position"], 42, atol=0.3)


def test_the_reference_is_a_mean_at_first_and_then_follows():
    """A drift is followed with the rate that is asked for, and no single shot counts for more."""
    levels = [400.0, 800.0, 300.0, 500.0, 900.0, 900.0]
    params = Params((0.0, 1.0), width=30, convergence=0.25)
    got = run(params, [np.full(SIZE, v) for v in levels], [0] * 6)
    want = [400.0, 600.0, 500.0, 500.0, 600.0, 675.0]
    np.testing.assert_allclose([g["reference"] for g in got], want)


@pytest.mark.parametrize("whole", [True, False])
def test_a_reference_to_begin_with(tmp_path, whole):
    """The first shot has an edge, and shots without x-rays make the reference better."""
    np.save(tmp_path / "r.npy", LAMP if whole else LAMP[40:380])
    params = Params((0.0, 1.0), (40, 380), 30, start=tmp_path / "r.npy", convergence=0.5)
    got = run(params, [edge(180), 3 * LAMP, edge(180)], [1, 0, 1])
    assert [g["reference_shots"] for g in got] == [0, 1, 1]
    assert got[0]["good"]
    np.testing.assert_allclose(got[0]["position"], 180, atol=1.5)
    np.testing.assert_allclose(got[2]["reference"], 2 * LAMP[40:380].mean())


def test_each_producer_learns_from_its_own_shots():
    """Two of them, every other shot each: NaN with a reason before, equal edges after."""
    rng = np.random.default_rng(3)
    traces = [LAMP * (1 + 0.01 * rng.normal(size=SIZE)) for _ in range(40)]
    xray = [0] * 40 + [1] * 20
    places = rng.uniform(120, 280, 20)
    traces += [edge(a) for a in places]
    params = Params((0.0, 1.0), width=30)
    alone = run(params, traces, xray)
    first, second = (run(params, traces[k::2], xray[k::2]) for k in (0, 1))
    assert (alone[-1]["reference_shots"], first[-1]["reference_shots"]) == (40, 20)
    dealt = [g for pair in zip(first, second, strict=True) for g in pair]
    np.testing.assert_allclose(
        [g["position"] for g in dealt[40:]], [g["position"] for g in alone[40:]], atol=0.5
    )
    late = run(params, traces[39:], xray[39:])  # begun again in the middle of a run
    assert (late[0]["reason"], late[1]["reason"], late[1]["reference_shots"]) == (1, 0, 1)
    assert run(params, traces[40:], xray[40:])[0]["reason"] == 3


def test_a_dark_pixel_of_the_reference_is_no_edge():
    dead = np.where(np.arange(SIZE) % 100 == 7, 0.0, LAMP)
    got = run(Params((0.0, 1.0), width=30), [dead, dead], [0, 1])
    assert abs(got[1]["amplitude"]) < 1e-12


def test_a_filter_from_a_file(tmp_path):
    np.save(tmp_path / "w.npy", np.repeat([-1.0, 1.0], 30) / 30)
    traces, xray = [LAMP, edge(180)], [0, 1]
    ours = run(Params((0.0, 1.0), width=30), traces, xray)[1]
    theirs = run(Params((0.0, 1.0), weights=tmp_path / "w.npy"), traces, xray)[1]
    for name, value in ours.items():  # one by sums, one sample by sample
        np.testing.assert_allclose(theirs[name], value, rtol=1e-9, err_msg=name)


@pytest.mark.parametrize("taps", [1, 2, 3, 7, 8])
def test_any_filter_is_laid_over_the_trace_as_it_is(tmp_path, taps):
    weights = np.random.default_rng(taps).normal(size=taps)
    np.save(tmp_path / "w.npy", weights)
    params = Params((0.0, 1.0), weights=tmp_path / "w.npy", reference="none", rising=True)
    trace = edge(180)
    (got,) = run(params, [trace], [1])
    np.testing.assert_allclose(got["amplitude"], np.correlate(trace, weights, "valid").max())


@pytest.mark.parametrize("taps", [11, 15, 24, 36])
def test_a_filter_of_any_length_gives_a_fraction_of_a_pixel(tmp_path, taps):
    """D10: a tenth of the filter's length is a float that slices nothing; A29: no rounding."""
    np.save(tmp_path / "w.npy", np.sign(np.arange(taps) - (taps - 1) / 2))
    params = Params((0.0, 1.0), weights=tmp_path / "w.npy", reference="none", rising=True)
    smooth = [1 + 0.5 * (1 + erf((np.arange(SIZE) - at) / 8)) for at in (180.0, 180.3, 179.6)]
    got = run(params, smooth, [1, 1, 1])
    np.testing.assert_allclose([g["position"] for g in got], [180.0, 180.3, 179.6], atol=5e-3)


def test_the_contract_with_light():
    traces = [LAMP, *(edge(a) for a in (120, 220, 310)), edge(1e9), edge(8, noise=0.0)]
    params = Params((0.0, 1.0), width=30)
    check_reducer(time_tool_edge, params, TRACE, shots(traces, [0, 1, 1, -1, 0, 1]), rtol=1e-9)
    none = params._replace(reference="none")
    check_reducer(time_tool_edge, none, TRACE, shots(traces, [1, 1, 1, -1, 0, 1]), rtol=1e-9)


def test_every_mistake_is_told(tmp_path):
    np.save(tmp_path / "w.npy", np.zeros((2, 2)))
    np.save(tmp_path / "r.npy", np.ones(7))
    wrong = [
        (Params(()), ["polynomial: []"]),
        (Params((0.0,), region=(10, 500)), ["region: [10, 500] is not part of the trace"]),
        (Params((0.0,), region=(10, 100)), ["region: 90 samples are too few for a filter of 100"]),
        (
            Params((np.nan,), width=0, reference="quotient", convergence=0.0, fwhm=(3.0, 1.0)),
            ["polynomial", "width: 0", "reference: there is no 'quotient'", "convergence", "fwhm"],
        ),
        (Params((0.0,), weights=tmp_path / "w.npy"), ["weights: "]),
        (Params((0.0,), weights=tmp_path / "none.npy"), ["weights: "]),
        (Params((0.0,), start=tmp_path / "w.npy"), ["start: "]),
        (
            Params((0.0,), start=tmp_path / "r.npy", region=(5, 405)),
            ["region: [5, 405]", "start: "],
        ),
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
    params = params._replace(position=(-10.0, 600.0))
    frames.append(frames[0] | {"position": np.float64(601.0)})
    got = features_in_python(time_tool, params, inputs, frames)
    assert [bool(g["good"]) for g in got] == [True, False, False, False, False, True, False]
    assert [g["reason"] for g in got] == [0, 1, 3, 4, 1, 0, 2]
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
        "inputs": {
            "trace": "rows/sum",
            "xray": "lightStatus/xray",
            "laser": "lightStatus/laser",
        },
        "params": {"polynomial": [0.0, 0.1], "width": 3, "rising": True},
    }

    def made():
        return plan({"tt": tt, "rows": rows}, light={"xray": {"off": [162]}}, inputs=INPUTS)

    p = made()
    shape = INPUTS["jf"].shape
    dark = np.full(shape, 100, np.uint16)
    lit = (dark + 50 * (np.arange(shape[2]) > 11)).astype(np.uint16)
    columns = feed(p, [shot(1, jf=dark, codes=(162,)), shot(2, jf=lit)])
    np.testing.assert_allclose(columns["tt/position"], [np.nan, 11.5])
    np.testing.assert_allclose(columns["tt/time"][1], 1.15)
    later = feed(p, [shot(3, jf=lit), shot(4, jf=dark, codes=(162,)), shot(5, jf=lit)])
    assert later["tt/reference_shots"].tolist() == [1, 2, 2]  # it goes on from batch to batch
    anew = feed(made(), [shot(6, jf=lit)])  # a run, an epoch, a process: each begins anew
    assert (anew["tt/reason"].tolist(), anew["tt/reference_shots"].tolist()) == ([3], [0])


STAGE = {"stage": Input("value", "<f8", ()), "arrival": Input("value", "<f8", (), "ps")}


def test_a_delay_is_the_stage_and_the_arrival_in_ps():
    def corrected(params, *pairs):
        frames = [{"stage": np.float64(s), "arrival": np.float64(a)} for s, a in pairs]
        return features_in_python(delays.delay, params, STAGE, frames)

    lxt = corrected(delays.Params("s", zero=3e-9), (3e-9, 0.25), (3.002e-9, -0.5), (3e-9, np.nan))
    np.testing.assert_allclose([g["nominal"] for g in lxt], [0.0, 2.0, 0.0], atol=1e-9)
    np.testing.assert_allclose([g["corrected"] for g in lxt], [0.25, 1.5, np.nan], atol=1e-9)
    back = delays.Params("mm", zero=10.0, sign=-1, correction=-1)
    (mm,) = corrected(back, (9.0, 0.1))
    np.testing.assert_allclose(mm["nominal"], 2 * 1e-3 / 299792458 * 1e12)
    np.testing.assert_allclose(mm["nominal"] - mm["corrected"], 0.1)
    frames = [{"stage": np.float64(9.0 + k), "arrival": np.float64(0.1)} for k in range(3)]
    check_reducer(delays.delay, back, STAGE, frames)


def test_what_is_no_delay_is_told():
    wrong = delays.Params("min", np.inf, 0, 2, 0)
    with pytest.raises(ValueError, match=r"unit: there is no 'min'") as e:
        delays.delay.constants(wrong, STAGE)
    starts = ("unit: ", "zero: inf", "sign: 0", "correction: 2", "passes: ")
    lines = str(e.value).splitlines()
    assert [line.startswith(s) for line, s in zip(lines, starts, strict=True)] == [True] * 5


def test_a_corrected_delay_is_a_column_of_scans_and_filters():
    """D6 and Q2: no edge is no delay, and the stage counts once."""
    tt = {
        "use": "time_tool",
        "inputs": {"position": "diode", "amplitude": "diode", "fwhm": "diode"},
        "params": {"polynomial": [0.0, 0.1]},
    }
    delay = {
        "use": "delay",
        "inputs": {"stage": "scan/lxt", "arrival": "tt/time"},
        "params": {"unit": "s"},
    }
    p = plan(
        {"delay": delay, "tt": tt},
        inputs=INPUTS,
        motors=("lxt",),
        filters={"late": {"expr": "delay.corrected > 1.15"}},
    )
    p.step(BeginStep(step=0, timestamp=1, values={"lxt": 1e-12}))
    columns = feed(p, [shot(k, diode=np.float64(v)) for k, v in enumerate((2.0, 0.0, 1.0), 2)])
    np.testing.assert_allclose(columns["delay/nominal"], [1.0, 1.0, 1.0])
    np.testing.assert_allclose(columns["delay/corrected"], [1.2, np.nan, 1.1])
    assert columns["late"].tolist() == [True, False, False]
    assert columns["late_valid"].tolist() == [True, False, True]
