"""Derived numbers and filters: their values, what is missing, and what cannot be."""

import math

import numpy as np
import pytest

from ffb import config
from ffb.plan import Plan
from ffb.shot import BeginStep, Input
from ffb.testing.listed import ListedRun, ListedShot
from tests.unit.plans import PULSE

INPUTS = {
    "wf": Input("value", "<i2", (64,), "V"),
    "a": Input("value", "<f8", ()),
    "b": Input("value", "<f4", ()),
    "k": Input("value", "<i4", ()),
    "flag": Input("value", "|b1", ()),
    "line": Input("value", "<f4", (3,)),
    "tt/pos": Input("value", "<f8", (), "px"),
    "tt/ampl": Input("value", "<f8", ()),
    "i0": Input("value", "<f8", (), "mJ"),
    "unrecorded": Input("value", "<f8", ()),
}


def made(derived, filters, shots=64, inputs=INPUTS, **more):
    tables = {n: {"detector": n, "field": "raw", "record": n != "unrecorded"} for n in inputs}
    return config.parse(
        {
            "source": {"kind": "synthetic"},
            "inputs": tables,
            "reducers": {"pulse": PULSE},
            "batch": {"shots": shots},
            "light": {"laser": {"on": [90], "off": [91]}},
            "derived": {n: {"unit": "1", **d} if isinstance(d, dict) else {"expr": d, "unit": "1"}
                        for n, d in derived.items()},
            "filters": {n: {"expr": e} for n, e in filters.items()},
            **more,
        }
    )  # fmt: skip


def plan(derived, filters, **more):
    with np.errstate(all="ignore"):
        return Plan.make(made(derived, filters, **more), ListedRun(INPUTS, (), {}, ("delay",)))


def reduce(p, shots):
    with np.errstate(all="ignore"):
        for k, s in enumerate(shots):
            p.take(s, 1000 + k)
        return {n: c.copy() for n, c in p.close().columns.items()}


def problems(derived, filters, **more):
    with pytest.raises(config.ConfigError) as e:
        plan(derived, filters, **more)
    return list(e.value.problems)


def config_problems(derived, filters):
    source = {"kind": "synthetic"}
    with pytest.raises(config.ConfigError) as e:
        config.parse({"source": source, "derived": derived, "filters": filters})
    return list(e.value.problems)


VALUES = [0.0, -0.0, 1.0, -1.0, 2.5, -2.5, 7.0, math.nan, math.inf, -math.inf]


def shots_of():
    """Shots with all pairs of odd values, then some that lack what they could have."""
    rng = np.random.default_rng(4)
    out = []
    for k, (a, b) in enumerate((a, b) for a in VALUES for b in VALUES[2:]):
        frames = {
            "wf": rng.integers(-100, 100, 64).astype("<i2"),
            "a": a,
            "b": np.float32(b),
            "k": k - 7,
            "flag": k % 3 == 0,
            "line": np.array([k, k / 3, math.nan], "<f4"),
            "tt/pos": 500.0 + k,
            "tt/ampl": 0.01 * k,
            "i0": 1.0 + k,
        }
        for name in (n for n in frames if rng.random() < 0.1):
            frames[name] = None
        codes = (None, (40,), (40, 90), (40, 140, 91), (162, 90, 91), ())[k % 6]
        out.append(ListedShot(1000 + k, frames, codes))
    return out


SHOTS = shots_of()

#: What is computed, and how plain Python does it, one shot at a time; ``None`` is unknown.
DERIVED = {
    "sum": ("a + b - 2 * a", lambda s: s.a + s.b - 2 * s.a),
    "ratio": ("pulse.area / i0", lambda s: s.area / s.i0),
    "by": ("a / b", lambda s: np.divide(s.a, s.b)),
    "floored": ("a // b", lambda s: np.float64(s.a) // np.float64(s.b)),
    "rest": ("a % b", lambda s: np.remainder(s.a, s.b)),
    "int/half": ("k // 2 + k % 3", lambda s: s.k // 2 + s.k % 3),
    "int/part": ("k / 2", lambda s: s.k / 2),
    "power": ("a ** 2 + 2 ** -1", lambda s: s.a**2 + 0.5),
    "sign": ("-a ** 2 + +b", lambda s: -(s.a**2) + s.b),
    "least": ("min(a, b, 3) - max(b, a)", lambda s: np.min([s.a, s.b, 3]) - np.maximum(s.a, s.b)),
    "roots": ("sqrt(a) + log(b) - log10(abs(b))",
              lambda s: np.sqrt(s.a) + np.log(s.b) - np.log10(np.abs(s.b))),
    "rise": ("exp(-abs(a)) + floor(b)", lambda s: np.exp(-np.abs(s.a)) + np.floor(s.b)),
    "delay": ("scan.delay + polyval(tt.pos, [1, -2e-3, 3e-6])",
              lambda s: 2.5 + (1 + (-2e-3 + 3e-6 * s.pos) * s.pos)),
    "chosen": ("where(a > b, a, nan)", lambda s: s.a if s.a > s.b else math.nan),
    "element": ("line[1] + line[2]", lambda s: math.nan),
    "second": ("line[1]", lambda s: s.line[1]),
    "chain": ("delay * 2 + chosen", lambda s: 2 * DERIVED["delay"][1](s) + DERIVED["chosen"][1](s)),
    "passed": ("good + 1", lambda s: number(FILTERS["good"][1](s)) + 1),
    "pulses": ("pulse_id % 7", lambda s: s.pulse_id % 7),
}  # fmt: skip


def number(truth):
    return math.nan if truth is None else float(truth)


def compared(test, *values):
    return None if any(np.isnan(v) for v in values) else bool(test)


def both(*truths):
    return False if False in truths else None if None in truths else True


def either(*truths):
    return True if True in truths else None if None in truths else False


def no(truth):
    return None if truth is None else not truth


FILTERS = {
    "less": ("a < b", lambda s: compared(s.a < s.b, s.a, s.b)),
    "between": ("-1 <= a <= b != 7", lambda s: both(
        compared(s.a >= -1, s.a), compared(s.a <= s.b, s.a, s.b), compared(s.b != 7, s.b))),
    "more": ("a > b or a >= 2.5", lambda s: either(
        compared(s.a > s.b, s.a, s.b), compared(s.a >= 2.5, s.a))),
    "equal": ("not a == b", lambda s: no(compared(s.a == s.b, s.a, s.b))),
    "there": ("isfinite(a) and isfinite(k)", lambda s: bool(np.isfinite(s.a) and np.isfinite(s.k))),
    "good": ("tt.ampl > 0.05 and flag and not any_code(162, 200)", lambda s: both(
        compared(s.ampl > 0.05, s.ampl), s.flag, no(s.code(162)))),
    "coded": ("code(40) and not all_codes(90, 40) or any_code(91, 162)", lambda s: either(
        both(s.code(40), no(both(s.code(90), s.code(40)))), either(s.code(91), s.code(162)))),
    "lit": ("lightStatus.laser and pulse.present", lambda s: both(
        None if s.codes is None else False if 91 in s.codes else True if 90 in s.codes else None,
        not np.isnan(s.area))),
    "one": ("lightStatus.laser == 1", lambda s: None if s.codes is None else
            False if 91 in s.codes else True if 90 in s.codes else None),
    "either": ("where(less, more, good)", lambda s: chosen(
        *(FILTERS[n][1](s) for n in ("less", "more", "good")))),
    "known": ("good_valid and not k_valid", lambda s: both(
        FILTERS["good"][1](s) is not None, bool(np.isnan(s.k)))),
}  # fmt: skip


def chosen(condition, yes, no_):
    if condition is None:
        return yes if yes is no_ else None
    return yes if condition else no_


class Seen:
    """A shot's values as the references want them: what is missing is NaN, ``None`` for truths."""

    def __init__(self, shot, row):
        f = shot.frames
        numbers = {"a": "a", "b": "b", "k": "k", "pos": "tt/pos", "ampl": "tt/ampl", "i0": "i0"}
        for name, frame in numbers.items():
            v = np.float64(math.nan if f[frame] is None else f[frame])
            setattr(self, name, v)
        self.flag = f["flag"]
        self.line = [math.nan] * 3 if f["line"] is None else f["line"].astype(float)
        wf = f["wf"]
        self.area = np.float64(math.nan) if wf is None else wf[20:45].astype(float).sum() * 0.5
        self.codes, self.pulse_id = shot.codes, 1000 + row

    def code(self, c):
        return None if self.codes is None else c in self.codes


@pytest.fixture(scope="module")
def columns():
    p = plan(
        {n: e for n, (e, _) in reversed(DERIVED.items())}, {n: e for n, (e, _) in FILTERS.items()},
        shots=len(SHOTS),
    )  # fmt: skip
    p.step(BeginStep(-1, {"delay": 2.5}))
    return reduce(p, SHOTS)


@pytest.mark.parametrize("name", DERIVED)
def test_a_derived_number_is_what_numpy_says(columns, name):
    with np.errstate(all="ignore"):
        want = [float(DERIVED[name][1](Seen(s, row))) for row, s in enumerate(SHOTS)]
    got = columns[name]
    assert got.dtype == np.float64
    if name in ("roots", "rise"):  # the last bit of a logarithm is the library's
        np.testing.assert_allclose(got, want, rtol=1e-14)
    else:
        np.testing.assert_array_equal(got, want)
    assert np.isnan(got).all() == (name == "element")


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_follows_three_valued_logic(columns, name):
    with np.errstate(all="ignore"):
        want = [FILTERS[name][1](Seen(s, row)) for row, s in enumerate(SHOTS)]
    assert columns[name].dtype == columns[f"{name}_valid"].dtype == np.bool_
    assert columns[f"{name}_valid"].tolist() == [w is not None for w in want]
    assert columns[name].tolist() == [w is True for w in want]
    assert {True, False} <= set(want)


def test_columns_have_units_and_docs_and_provenance_has_the_text():
    p = plan(
        {"delay": {"expr": "tt.pos * 2", "unit": "ps", "doc": "corrected"}, "n/x": "a / i0"},
        {"good": "delay > 1"},
    )
    c = p.schema.by_name
    assert (c["delay"].unit, c["delay"].doc, c["n/x"].doc) == ("ps", "corrected", "a / i0")
    assert (c["delay"].dtype, c["good"].dtype, c["good_valid"].dtype) == ("<f8", "|b1", "|b1")
    assert [*c][-4:] == ["delay", "n/x", "good", "good_valid"]
    told = p.provenance().reducers["delay"]
    assert told == {"use": "derived", "expr": "tt.pos * 2", "inputs": ["tt/pos"]}
    assert p.provenance().reducers["good"]["use"] == "filters"


def test_nothing_compiles_while_shots_are_taken():
    from numba.core import event

    p = plan({"delay": "tt.pos * 2"}, {"good": "delay > 1 and code(40)"})
    with event.install_recorder("numba:compile") as recorder:
        reduce(p, SHOTS[:5])
    assert [e for _, e in recorder.buffer] == []


def test_what_a_run_does_not_have_is_told_with_the_nearest_name():
    assert problems(
        {"d": "pulse.aera + a[0]", "e": "timestamp + ffb.late", "f": "line + line[3]"},
        {"g": "unrecorded > 1 and pulse/area > 1 and line[0, 1] > d", "h": "a and flag"},
    ) == [
        "derived.d.expr: no column pulse.aera; did you mean 'pulse.area'?",
        "derived.d.expr: a is one value a shot; it has no elements",
        "derived.e.expr: timestamp is the key of the shot and no number; use pulse_id",
        "derived.e.expr: ffb.late is known to the aggregator only",
        "derived.f.expr: line is an array; name one element, as line[0]",
        "derived.f.expr: line has the shape (3,); [3] is not in it",
        "filters.g.expr: unrecorded is an input, not a column; record it, or reduce it",
        "filters.g.expr: pulse/area divides; the column is written pulse.area",
        "filters.g.expr: line has 1 axes, not 2",
        "filters.h.expr: a is a number, not yes or no: compare it",
    ]


def test_part_of_a_path_is_answered_with_all_of_one():
    assert problems({}, {"f": "pulse > 1"}) == [
        "filters.f.expr: no column pulse, but pulse.present: paths are written with dots"
    ]


def test_what_is_wrong_without_a_run_is_told_when_the_file_is_read():
    said = config_problems(
        {"m": {"expr": "a"}, "n": {"exp": "a", "unit": "1"}, "x": {"expr": "a > 1", "unit": "1"}},
        {"x": {"expr": "sqrt(a)"}, "u/": {"expr": "a >", "unit": "1"}},
    )
    assert said == [
        'derived.m.unit: missing: unit of the number, "1" if it has none',
        'derived.n.expr: missing: its expression, such as "spot.sum / gasdet.f11"; NaN where'
        " something in it is missing",
        "derived.n.exp: unknown key; did you mean 'expr'?",
        "filters.u/.unit: unknown key; known: doc, expr",
        "filters.u/: a column's name has no empty part",
        "derived.x.expr: gives yes or no, not a number: put it under [filters]",
        "filters.x.expr: gives a number, not yes or no: compare it with something",
        "filters.u/.expr: cannot be read at its end: invalid syntax",
        "filters.x: is a derived number as well; rename either",
    ]


def test_circles_are_refused_with_the_names():
    with pytest.raises(config.ConfigError) as e:
        made({"x": "y + 1", "y": "2 * f", "own": "own / 2"}, {"f": "x > 1", "s": "s_valid"})
    assert len(e.value.problems) == 3
    said = " ".join(e.value.problems)
    assert any(f"depends on itself: {c}" in said for c in (
        "x -> y -> f -> x", "y -> f -> x -> y", "f -> x -> y -> f"))  # fmt: skip
    assert "derived.own.expr: depends on itself: own -> own" in said
    assert "filters.s.expr: depends on itself: s -> s" in said


def test_names_clash_with_nothing():
    said = problems({"pulse": "a", "a": "b"}, {"good": "a > 1", "good_valid": "a > 1"})
    assert said[:3] == [
        "a: there are two columns of this name; rename one of them",
        "good_valid: there are two columns of this name; rename one of them",
        "pulse/present: cannot be a column, because pulse is one; rename either",
    ]


def test_a_file_without_expressions_adds_nothing():
    p = plan({}, {})
    assert p.schema.columns[-1].name.startswith("pulse/")
