"""Many values of an array or a list in an expression, functions of numbers, guarded ratios."""

import math

import numpy as np
import pytest

from ffb import config
from ffb.plan import Plan
from ffb.shot import Input
from ffb.testing.listed import ListedRun, ListedShot

INPUTS = {
    "wf": Input("value", "<f4", (24,), "V"),
    "line": Input("value", "<f4", (7,), "V"),
    "map": Input("value", "<i2", (3, 5)),
    "cube": Input("value", "<f8", (2, 3, 4)),
    "flags": Input("value", "|b1", (6,)),
    "a": Input("value", "<f8", ()),
    "b": Input("value", "<f8", ()),
}
HITS = {
    "use": "waveform_hits",
    "inputs": "wf",
    "params": {"dt": 1.0, "threshold": 5.0, "capacity": 4},
}


def shots_of():
    """Random shots, in which some lack an input, some have NaN, one has NaN only."""
    rng, out = np.random.default_rng(8), []
    for k in range(40):
        wf = np.where(rng.random(24) < 0.25, 10.0, 0.0) * (k % 5 > 0)
        frames = {
            "wf": wf.astype("<f4"),
            "line": np.where(rng.random(7) < (1.0 if k == 7 else 0.08), np.nan, rng.normal(size=7)),
            "map": rng.integers(-9, 9, (3, 5)),
            "cube": rng.normal(size=(2, 3, 4)),
            "flags": rng.random(6) > 0.5,
            "a": rng.normal(),
            "b": (0.0, -0.0, 1.0, math.nan, -2.0, 0.05, math.inf)[k % 7],
        }
        for name in (n for n in frames if rng.random() < 0.1):
            frames[name] = None
        out.append(ListedShot(1000 + k, frames, ()))
    return out


SHOTS = shots_of()


def of(name, fn):
    """``fn`` of an input as float64, NaN where that is missing."""

    def value(frames):
        given = frames[name]
        return (
            math.nan if given is None else fn(np.asarray(given, INPUTS[name].dtype).astype("<f8"))
        )

    return value


def held(fn, x):
    """``fn`` of the values that are not NaN, NaN without any."""
    x = x[~np.isnan(x)]
    return fn(x) if x.size else math.nan


def ratio(f, least=0.0):
    a, b = (math.nan if f[n] is None else f[n] for n in "ab")
    return a / b if abs(b) > least else math.nan


DERIVED = {
    "total": ("sum(line)", of("line", np.sum)),
    "part": ("sum(line[2:5]) + 1", of("line", lambda x: x[2:5].sum() + 1)),
    "mean": ("mean(line[:4])", of("line", lambda x: x[:4].mean())),
    "least": ("min(line[1:])", of("line", lambda x: x[1:].min())),
    "most": ("max(line)", of("line", np.max)),
    "nansum": ("nansum(line)", of("line", lambda x: held(np.sum, x))),
    "nanmean": ("nanmean(line)", of("line", lambda x: held(np.mean, x))),
    "spread": ("nanmax(line) - nanmin(line)", of("line", lambda x: held(np.ptp, x))),
    "whole": ("sum(map)", of("map", np.sum)),
    "row": ("mean(map[1])", of("map", lambda x: x[1].mean())),
    "column": ("sum(map[:, 2])", of("map", lambda x: x[:, 2].sum())),
    "block": ("max(map[0:2, 1:4])", of("map", lambda x: x[:2, 1:4].max())),
    "inner": ("sum(cube[1, :, 2:4])", of("cube", lambda x: x[1, :, 2:4].sum())),
    "all": ("mean(cube)", of("cube", np.mean)),
    "up": ("sum(flags)", of("flags", np.sum)),
    "share": ("ratio(a, b)", ratio),
    "safe": ("ratio(a, b, 0.1)", lambda f: ratio(f, 0.1)),
    "angle": ("arctan2(a, 2) + hypot(a, 3)", of("a", lambda a: np.arctan2(a, 2) + np.hypot(a, 3))),
    "wave": ("sin(a) + cos(a) * tan(a / 2)",
             of("a", lambda a: np.sin(a) + np.cos(a) * np.tan(a / 2))),
    "back": ("arcsin(a / 9) + arccos(a / 9) - arctan(a)",
             of("a", lambda a: np.arcsin(a / 9) + np.arccos(a / 9) - np.arctan(a))),
    "steps": ("ceil(a) + 10 * round(a * 2) + 100 * sign(a)",
              of("a", lambda a: np.ceil(a) + 10 * np.rint(2 * a) + 100 * np.sign(a))),
}  # fmt: skip
LISTED = {
    "n": "sum(hits.time) - sum(hits.time) + hits.n",
    "first": "min(hits.time)",
    "heights": "nansum(hits.peak)",
    "pair": "max(hits.time[0:2]) - hits.time[0]",
    "later": "mean(hits.time[1:4])",
}


def made(derived, filters=(), reducers=()):
    tables = {n: {"detector": n, "field": "raw", "record": True} for n in INPUTS}
    return config.parse(
        {
            "source": {"kind": "synthetic"},
            "inputs": tables,
            "batch": {"shots": 64},
            "reducers": dict(reducers),
            "derived": {n: {"expr": e, "unit": "1"} for n, e in derived.items()},
            "filters": {n: {"expr": e} for n, e in dict(filters).items()},
        }
    )


def plan(*given):
    with np.errstate(all="ignore"):
        return Plan.make(made(*given), ListedRun(INPUTS, (), {}, ()))


@pytest.fixture(scope="module")
def columns():
    texts = {n: e for n, (e, _) in DERIVED.items()} | LISTED
    p = plan(texts, {"rich": "sum(map) > 0 and max(hits.time) > 3"}, {"hits": HITS})
    with np.errstate(all="ignore"):
        for k, s in enumerate(SHOTS):
            p.take(s, k)
        return {n: c.copy() for n, c in p.close().columns.items()}


@pytest.mark.parametrize("name", DERIVED)
def test_a_number_of_many_is_what_numpy_says(columns, name):
    with np.errstate(all="ignore"):
        want = np.array([float(DERIVED[name][1](s.frames)) for s in SHOTS])
    np.testing.assert_allclose(columns[name], want, rtol=1e-13, atol=1e-13)
    assert np.isnan(want).any()
    assert np.isfinite(want).any()


def test_of_a_list_there_are_as_many_values_as_it_has_entries(columns):
    n, here = columns["hits/n"], columns["hits/present"]
    kept = np.minimum(n, 4)
    assert set(n[here]) >= {0, 1, 2, 3}
    assert (~here).any()
    rows = [*zip(columns["hits/time"], columns["hits/peak"], kept, strict=True)]
    want = {
        "n": n,
        "first": [t[:m].min() if m else math.nan for t, _, m in rows],
        "heights": [p[:m].sum() if m else math.nan for _, p, m in rows],
        "pair": [t[: min(m, 2)].max() - t[0] if m else math.nan for t, _, m in rows],
        "later": [t[1:m].mean() if m > 1 else math.nan for t, _, m in rows],
    }
    for name, values in want.items():
        np.testing.assert_allclose(
            columns[name], np.where(here, values, math.nan), rtol=1e-13, err_msg=name
        )


def test_a_filter_over_many_values_is_unknown_where_they_are_missing(columns):
    lacking = np.array([s.frames["map"] is None for s in SHOTS])
    first = np.array([columns["hits/n"] > 0, columns["hits/present"]]).all(0)
    total = np.array([np.sum(s.frames["map"]) if s.frames["map"] is not None else 0 for s in SHOTS])
    known = columns["rich_valid"]
    assert not known[lacking & first].all()
    assert (columns["rich"] <= known).all()
    no = ~lacking & (total <= 0)
    assert known[no].all()
    assert not columns["rich"][no].any()
    assert columns["rich"].any()


def test_what_is_not_in_an_array_is_told():
    with pytest.raises(config.ConfigError) as e:
        plan(
            {
                "d": "sum(a)",
                "e": "sum(line[3:9])",
                "f": "mean(map[0, 0, 0:1])",
                "g": "max(line[5:5])",
                "h": "linee + sum(timestamp) + sum(d)",
            }
        )
    assert list(e.value.problems) == [
        "derived.d.expr: a is one value a shot; there is nothing to add up",
        "derived.e.expr: line has the shape (7,); [3:9] is empty, or not all in it",
        "derived.f.expr: map has 2 axes, not 3",
        "derived.g.expr: line has the shape (7,); [5:5] is empty, or not all in it",
        "derived.h.expr: no column linee; did you mean 'line'?",
        "derived.h.expr: timestamp is the key of the shot and no number; use pulse_id",
        "derived.h.expr: d is one value a shot and has no index",
    ]


def test_a_light_is_told_from_single_values():
    with pytest.raises(config.ConfigError, match="single values, as line") as e:
        config.parse(
            {
                "source": {"kind": "synthetic"},
                "inputs": {"line": {"detector": "line", "field": "raw"}},
                "light": {"xray": {"on": "sum(line) > 1"}},
            }
        )
    assert len(e.value.problems) == 1
