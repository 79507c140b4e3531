"""Waveforms, small images and features added up over shots, against plain float64 sums."""

from typing import Annotated, NamedTuple

import numpy as np
import pytest

from ffb import Feature, Vector, Waveform, config, reducer
from ffb.configuration.defaults import Defaults
from ffb.loops.bind import Binder
from ffb.plan import Plan
from ffb.shot import BeginStep, Input
from ffb.sums.piece import Fates, Parcel, parcel_of
from ffb.sums.words import COUNTS, label_of, what_of
from ffb.testing.listed import ListedRun, ListedShot

INPUTS = {
    "wave": Input("value", "<f4", (2, 1500), "V"),
    "adc": Input("value", "<u2", (9,), "ADU"),
    "wide": Input("value", "<i4", (3,)),
    "fine": Input("value", "<f8", (2, 3, 2)),
    "gas": Input("value", "<f8", ()),
    "half": Input("value", "<f2", (4,)),
    "hits": Input("value", "<f4", (6,), length="hits_len"),
    "text": Input("value", "|S8", (), length="text_len"),
    "area": Input("area", "<u2", (1, 4, 6)),
}
SUMMED = {n: n for n in ("wave", "adc", "wide", "fine")}
SUMMED |= {"part": "halved/part", "whole": "halved/whole"}
#: What is added of each: everything of one type of values, of others what depends on the type.
WHATS = {
    "wave": (
        "calib",
        "calib_square",
        "calib_max",
        "calib_thresADU1.3",
        "calib_thresADU1.3_nhits",
        "calib_nhits",
    ),
    "fine": ("calib", "calib_thresADU-0.7_max", "calib_thresADU3.00000001_nhits"),
    "adc": ("calib", "calib_square"),
    "wide": ("calib_max",),
    "whole": ("calib_max",),
}
WHATS["part"] = WHATS["fine"]


class Scale(NamedTuple):
    """By how much values are multiplied."""

    by: float = 0.5


class Halved(NamedTuple):
    part: Annotated[Vector, Feature("@", "half of every value", ("sample",), "<f8")]
    whole: Annotated[Vector, Feature("@", "the first values", ("few",), "<i8")]
    listed: Annotated[Vector, Feature("@", "a list", ("entry",), "<f8", length="entries")]
    entries: Annotated[int, Feature("1", "entries of the list")]


@reducer(version=1)
def halved(x: Waveform, params: Scale) -> Halved:
    """Half of a waveform, NaN where it is 8; fails where it begins with 7."""
    if x[0] == 7:
        raise ValueError("7")
    part, whole = np.zeros(x.size), np.zeros(4, np.int64)
    for i in range(x.size):
        part[i] = np.nan if x[i] == 8 else params.by * x[i]
    for i in range(whole.size):
        whole[i] = x[i] - 3
    return Halved(part, whole, part, x.size)


def tables(mask, sums, by=0.5):
    return {
        "source": {"kind": "synthetic"},
        "inputs": {n: {"detector": n, "field": "raw", "record": n == "gas"} for n in INPUTS},
        "calibration": {"area": {"constants": "none", "mask": str(mask)}},
        "light": {"laser": {"on": [90], "off": [91]}},
        "batch": {"shots": 5},
        "reducers": {
            "halved": {"use": f"{__name__}:halved", "inputs": "adc", "params": {"by": by}},
        },
        "filters": {"bright": {"expr": "gas > 1"}},
        "sums": sums,
    }


def with_map(mask, sums, **more):
    """Tables with a reducer of the area detector."""
    made = tables(mask, sums, **more)
    params = {"rows": [0, 3], "cols": [1, 6], "area": True}
    made["reducers"]["map"] = {"use": "roi", "inputs": "area", "params": params}
    return made


@pytest.fixture(scope="module")
def mask(tmp_path_factory):
    path = tmp_path_factory.mktemp("masks") / "mask.npy"
    np.save(path, np.random.default_rng(3).random(INPUTS["area"].shape) > 0.2)
    return path


@pytest.fixture(scope="module")
def plan(mask):
    """Every kind of sum of every array, by light and step, one of them of chosen shots."""
    sums = {n: {"input": i, "what": WHATS[n], "light": ["laser"]} for n, i in SUMMED.items()}
    sums["part"] |= {"per": "step", "where": "bright"}
    return Plan.make(config.parse(tables(mask, sums)), ListedRun(INPUTS, (), {}, ("delay",)))


def shots(seed, n=43):
    """Shots with values of both signs, NaN, extremes, and some that lack each of them."""
    rng, out = np.random.default_rng(seed), []
    for k in range(n):
        wave = rng.normal(0, 3, INPUTS["wave"].shape).astype("f4")
        wave[rng.random(wave.shape) < 0.05] = np.nan
        wave[1, 7] = np.nan
        fine = rng.normal(1e9, 1, INPUTS["fine"].shape)
        fine[0] = rng.normal(3, 1e-8, (3, 2))
        frames = {
            "wave": wave,
            "adc": rng.choice([7, 8, 9, 65_535], INPUTS["adc"].shape).astype("u2"),
            "wide": rng.integers(-(2**31), 2**31, 3).astype("i4"),
            "fine": fine,
            "gas": [None, np.nan, 0.5, 2.0, 3.0][rng.integers(5)],
        }
        for name in frames:
            frames[name] = None if rng.random() < 0.15 else frames[name]
        out.append(ListedShot(100 + k, frames, [None, (90,), (91,), ()][k % 4]))
    return out


def fed(plan, steps):
    """Pieces of the deltas of all steps, as the aggregator has them, and all columns."""
    pieces, rows = [], []

    def close():
        batch = plan.close()
        rows.extend([] if batch is None else [batch.columns])

    for k, some in enumerate(steps):
        plan.step(BeginStep(k, {"delay": float(k)}))
        for shot in some:
            if plan.take(shot, 1):
                close()
        close()
        pieces += parcel_of(*Parcel(tuple(plan.close_sums())).plain).pieces
    return pieces, {n: np.concatenate([r[n] for r in rows]) for n in rows[0]}


def merged(pieces):
    """Arrays by (sum, what, light, step), and what became of shots likewise."""
    out, told = {}, {}
    for p in pieces:
        what, key = what_of(p.what), (p.sum, p.what, p.light, p.step)
        into = out.setdefault(key, what.begin(p.shape))
        what.merge(into.reshape(-1)[p.first : p.first + p.values.size], p.values)
        told.setdefault(key, {})[p.delta] = p.fates
    return out, {k: Fates(*map(sum, zip(*v.values(), strict=True))) for k, v in told.items()}


def brute(name, values):
    """What the sum of ``values`` (shots, ...) is, float64, straight from what its name means."""
    what = what_of(name)
    v = np.asarray(values, np.float64)
    here = ~np.isnan(v)
    v = v if what.least is None else np.where(v < what.least, 0, v)
    if what.kind == "max":
        return np.fmax.reduce(v, initial=-np.inf)
    return np.where(here, {"sum": v, "square": v**2, "nhits": v > 0}[what.kind], 0).sum(0)


def check(found, told, key, values, fates):
    name, light, step = key
    assert told[name, COUNTS, light, step] == told[name, WHATS[name][0], light, step] == fates, key
    np.testing.assert_array_equal(found[name, COUNTS, light, step], (values == values).sum(0))
    for what in WHATS[name]:
        have, want = found[name, what, light, step], brute(what, values)
        exact = what_of(what).kind in {"max", "nhits"}
        np.testing.assert_allclose(
            have, want, 0 if exact else 1e-14, 1e-13, err_msg=f"{key} {what}"
        )


def test_every_kind_of_sum_is_what_float64_says_by_light_and_step(plan):
    steps = [shots(1), shots(2)]
    pieces, columns = fed(plan, steps)
    found, told = merged(pieces)
    every, light = [s for some in steps for s in some], columns["lightStatus/laser"]
    step = np.repeat([0, 1], [len(some) for some in steps])
    scaled = [s.frames["adc"] for s in every]
    failed = sum(x is not None and x[0] == 7 for x in scaled)
    assert plan.errors == {"halved: ValueError: 7": failed > 0 and failed}
    scaled = [None if x is None or x[0] == 7 else x.astype(float) for x in scaled]
    frames = {n: [s.frames[n] for s in every] for n in SUMMED if n in INPUTS}
    frames["part"] = [None if x is None else np.where(x == 8, np.nan, x / 2) for x in scaled]
    frames["whole"] = [None if x is None else x[:4] - 3 for x in scaled]
    for name, per in ((n, k) for n in SUMMED for k in ((0, 1) if n == "part" else (-1,))):
        for state in (-1, 0, 1):
            mine = np.flatnonzero((light == state) & ((per < 0) | (step == per)))
            chosen = np.ones(len(every), bool) if name != "part" else columns["bright"]
            known = chosen | (name != "part") | columns["bright_valid"]
            values = [frames[name][k] for k in mine if chosen[k]]
            there = [v for v in values if v is not None]
            rest = len(values) - len(there), sum(known[mine] & ~chosen[mine]), sum(~known[mine])
            key = (name, label_of(("laser",), (state,)), per)
            check(found, told, key, np.stack(there), Fates(len(there), *rest))
    assert {p.unit for p in pieces if p.sum == "wave"} == {"V"}
    assert {p.unit for p in pieces if p.sum == "part"} == {"ADU"}


def test_an_array_that_no_shot_has_is_missing_in_all(plan):
    lacking = [ListedShot(k, {"gas": 2.0}, (90,)) for k in range(3)]
    pieces, _ = fed(plan, [lacking])
    assert {p.fates for p in pieces} == {Fates(0, 3)}
    assert {p.values.size for p in pieces} == {0}
    assert plan.close_sums() == []


def forms(mask, **more):
    sums = {n: {"input": i} for n, i in SUMMED.items()} | {"map": {"input": "map/area"}}
    run, read = ListedRun(INPUTS), config.parse(with_map(mask, sums, **more))
    bound = Binder(Defaults.of(read, run), run).bind()
    return {s.name: s.form for sums in bound.sums.values() for s in sums}


def test_other_parameters_or_constants_begin_the_sum_of_a_feature_anew(mask, tmp_path):
    other = tmp_path / "other.npy"
    np.save(other, np.ones(INPUTS["area"].shape, bool))
    before = forms(mask)
    assert before == forms(mask)
    assert {n for n, form in forms(mask, by=2.0).items() if form != before[n]} == {"part", "whole"}
    assert {n for n, form in forms(other).items() if form != before[n]} == {"map"}


@pytest.mark.parametrize(
    ("sums", "said"),
    [
        (
            {"wave": {"what": ["raw"]}},
            "sums.wave.what: raw is for area detectors; wave is",
        ),
        ({"gas": {}}, "sums.gas.input: gas has the shape (); arrays of up to 3 axes are added up"),
        ({"s": {"input": "map/sum"}}, "sums.s.input: map/sum has the shape ()"),
        ({"half": {}}, "sums.half.input: half holds float16; whole numbers, float32 and float64"),
        ({"hits": {}}, "sums.hits.input: hits is a list, whose entries are different"),
        ({"s": {"input": "halved/listed"}}, "sums.s.input: halved/listed is a list, whose entries"),
        ({"text": {}}, "sums.text.input: text"),
        (
            {"s": {"input": "halved/prt"}},
            "'halved/prt' with its parameters; did you mean 'halved/pa",
        ),
        (
            {"s": {"input": "halvd/part"}},
            "sums.s.input: no input 'halvd/part'; did you mean 'halved/",
        ),
        ({"s": {"input": "wav"}}, "sums.s.input: no input 'wav'; did you mean 'wave'?"),
    ],
    ids=str,
)
def test_what_cannot_be_added_up_is_told_before_the_first_shot(mask, sums, said):
    with pytest.raises(config.ConfigError) as wrong:
        Plan.make(config.parse(with_map(mask, sums)), ListedRun(INPUTS))
    assert any(said in p for p in wrong.value.problems), wrong.value.problems


def test_a_waveform_that_would_take_all_memory_is_refused(mask):
    inputs = INPUTS | {"wave": Input("value", "<f4", (1 << 27,))}
    sums = {"wave": {"what": ["calib", "calib_max"], "light": ["laser"]}}
    with pytest.raises(config.ConfigError, match=r"sums\.wave: 2,147 MB in each producer for each"):
        Plan.make(config.parse(tables(mask, sums)), ListedRun(inputs))
