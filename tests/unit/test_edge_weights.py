"""Weights made of recorded edges are those of the edge, and see it better than a step does."""

import re

import numpy as np
import pytest
from scipy.special import erf

from ffb.reducers import edge_weights
from ffb.reducers.time_tool_edge import Params, time_tool_edge
from ffb.shot import Input
from ffb.testing.check_reducer import features_in_python

SIZE, WEIGHTS = 500, 80
T = np.arange(SIZE)
GRID = np.arange(WEIGHTS) - 0.5 * (WEIGHTS - 1)
LAMP = 500 + 300 * np.sin(T / 60)
LIGHT = Input("value", "<i1", ())
TRACE = {"trace": Input("value", "<f8", (SIZE,), "ADU"), "xray": LIGHT, "laser": LIGHT}


def shape(d):
    """An edge that is lost again behind: 0 before, nearly 1 at ``d`` = 8, 0.2 at 40."""
    return 0.5 * (1 + erf(d / 4)) * np.exp(-np.maximum(d, 0) / 25)


def recorded(number, noise, seed, sign=-1):
    """Traces with edges somewhere, of varied height, and where they are."""
    rng = np.random.default_rng(seed)
    places, heights = rng.uniform(120, 380, number), rng.uniform(0.15, 0.35, number)
    signal = 1 + sign * heights[:, None] * shape(T - places[:, None])
    return LAMP * (signal + rng.normal(0, noise, (number, SIZE))), places


def seen(weights):
    """Where weights see the edge, by brute force on a fine grid and time_tool_edge's parabola."""
    fine = np.arange(-20, 20, 0.05)
    answers = np.array([weights @ shape(GRID + d) for d in fine])
    top = np.polynomial.polynomial.Polynomial.fit(fine, answers, 30)
    middle = fine[answers.argmax()]
    c2, c1, _ = np.polyfit(np.arange(-8, 9), top(middle + np.arange(-8, 9)), 2)
    return middle - c1 / (2 * c2)


def test_weights_are_the_edge_less_its_level_and_see_it_where_a_step_does():
    traces, _ = recorded(60, 0.0, 1)
    made = edge_weights.make(traces, LAMP, WEIGHTS)
    step = np.sign(GRID) * 2 / WEIGHTS
    place = seen(step)
    np.testing.assert_allclose(seen(made), place, atol=0.2)
    edges = [shape(GRID + place + aside) for aside in np.arange(-2, 2, 0.02)]
    edges = [e - e.mean() for e in edges]
    far = [np.abs(made / np.linalg.norm(made) - e / np.linalg.norm(e)).max() for e in edges]
    edge = edges[np.argmin(far)]
    assert min(far) < 0.01
    np.testing.assert_allclose(made @ edge / (step @ edge), 1.0, rtol=0.01)
    assert abs(made.sum()) < 1e-12


def test_an_edge_scatters_less_than_with_a_step(tmp_path):
    traces, _ = recorded(100, 0.03, 2)
    path = tmp_path / "weights.npy"
    edge_weights.save(path, edge_weights.make(traces, LAMP, WEIGHTS))
    shots, places = recorded(60, 0.03, 3)
    frames = [{"trace": t, "xray": np.int8(x), "laser": np.int8(1)}
              for t, x in zip([LAMP, *shots], [0] + [1] * 60, strict=True)]  # fmt: skip
    scatter, place, amplitude = {}, {}, {}
    for name, params in {
        "step": Params((0.0, 1.0), width=WEIGHTS // 2),
        "made": Params((0.0, 1.0), weights=path),
    }.items():
        got = features_in_python(time_tool_edge, params, TRACE, frames)[1:]
        assert all(g["good"] for g in got)
        away = np.array([g["position"] for g in got]) - places
        scatter[name], place[name] = away.std(), away.mean()
        amplitude[name] = np.mean([g["amplitude"] for g in got])
    assert scatter["made"] < 0.65 * scatter["step"]
    np.testing.assert_allclose(place["made"], place["step"], atol=0.5)
    np.testing.assert_allclose(amplitude["made"], amplitude["step"], rtol=0.05)


def test_what_is_no_edge_is_left_out():
    traces, _ = recorded(20, 0.0, 4)
    wanted = edge_weights.make(traces, LAMP, WEIGHTS)
    spoilt = np.concatenate([traces, np.full((1, SIZE), np.nan), [LAMP, LAMP * 0.99 ** (T > 200)]])
    np.testing.assert_allclose(edge_weights.make(spoilt, LAMP, WEIGHTS), wanted, atol=1e-9)
    up, _ = recorded(20, 0.0, 4, +1)
    rising = edge_weights.make(up, LAMP, WEIGHTS, rising=True)
    np.testing.assert_allclose(rising, wanted, atol=1e-9)
    bare = edge_weights.make(traces / LAMP, None, WEIGHTS)
    minus = edge_weights.make(traces / LAMP + 3.0, np.full(SIZE, 4.0), WEIGHTS, ratio=False)
    np.testing.assert_allclose(minus, bare, atol=1e-9)
    for wrong, given in {
        "traces (3, 500) and reference (7,)": (traces[:3], np.ones(7), WEIGHTS),
        "size: 81 weights": (traces, LAMP, 81),
        "size: 500 weights": (traces, LAMP, 500),
        "7 of 7 traces have an edge": (traces[:7], LAMP, WEIGHTS),
        "0 of 9 traces have an edge": (np.full((9, SIZE), np.nan), LAMP, WEIGHTS),
        "reference: is not finite": (traces, np.full(SIZE, np.nan), WEIGHTS),
        "rising: is False, but": (LAMP * np.where(T > 200, 1.3, 1.0) + np.zeros((9, 1)), LAMP, 80),
    }.items():
        with pytest.raises(ValueError, match=f"^{re.escape(wrong)}"):
            edge_weights.make(*given)
