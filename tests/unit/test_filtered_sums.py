"""Sums of those shots of which something holds, against plain float64 sums of the same shots."""

from collections import Counter
from typing import Annotated, NamedTuple

import numpy as np
import pytest

from ffb import Area, Feature, Tile, Value, config, reducer, tile_reducer
from ffb.configuration.defaults import Defaults
from ffb.loops.bind import Binder
from ffb.plan import Plan
from ffb.shot import BeginStep, Input
from ffb.sums.piece import Fates
from ffb.sums.words import COUNTS, what_of
from ffb.testing.listed import ListedRun, ListedShot

SHAPE = (2, 4, 7)
INPUTS = {
    "f": Input("area", "<f4", SHAPE),
    "u": Input("area", "<u2", SHAPE),
    "gas": Input("value", "<f8", (), "mJ"),
}
#: Conditions, and what they say of a shot by plain Python: yes, no or None where it is unknown.
WHERES = {
    "early": ("energetic", lambda s: more(s.gas, 1.0)),
    "codes": (
        "lightStatus.laser and not code(162)",
        lambda s: (True, False, None)[("on", "off", "unknown").index(s.laser)],
    ),
    "memory": ("third.before % 3 == 1", lambda s: None if s.before is None else s.before % 3 == 1),
    "stepped": ("scan.delay > 0.5", lambda s: s.step == 1),
    "hit": ("spot.sum > 20", lambda s: more(s.spot, 20.0)),
    "behind": ("twice.value < 0 and energetic", lambda s: both(less(s.spot, 0), more(s.gas, 1.0))),
    "damaged": ("damage.f_state == 2", lambda s: s.there["f"] is not None),
    "ratio": ("spot_per_gas > 5", lambda s: more(s.spot_per_gas, 5.0)),
}
OVER_ALL = [n for n in WHERES if n not in ("hit", "early")]


def more(value, level):
    return None if value is None or np.isnan(value) else bool(value > level)


def less(value, level):
    return None if value is None or np.isnan(value) else bool(value < level)


def both(a, b):
    return False if a is False or b is False else None if None in (a, b) else True


class Seen(NamedTuple):
    """How many shots were seen."""

    count: np.ndarray


class Nothing(NamedTuple):
    """No parameters."""


class Count(NamedTuple):
    before: Annotated[float, Feature("1", "shots seen before this one")]


class Two(NamedTuple):
    value: Annotated[float, Feature("@", "twice the value")]


@reducer(version=1)
def third(x: Value, params: Nothing, seen: Seen) -> Count:
    """Counts the shots that it sees; fails on one."""
    if x == 77.0:
        raise ValueError("77")
    seen.count[0] += 1.0
    return Count(seen.count[0] - 1.0)


@third.memory
def _(constants: Nothing) -> Seen:
    return Seen(np.zeros(1))


class State(NamedTuple):
    sum: np.ndarray


class Sum(NamedTuple):
    sum: Annotated[float, Feature("@", "sum of all pixels")]


@tile_reducer(version=1)
class whole:  # noqa: N801
    """Adds up all pixels."""

    @staticmethod
    def prepare(params: Nothing, area: Area) -> Nothing:
        return params

    @staticmethod
    def allocate(constants: Nothing) -> State:
        return State(np.zeros(1))

    @staticmethod
    def start(constants: Nothing, state: State) -> None:
        state.sum[0] = 0.0

    @staticmethod
    def accumulate(tile: Tile, constants: Nothing, state: State) -> None:
        for i in range(tile.values.size):
            v = np.float64(tile.values[i])
            state.sum[0] += v if v == v else 0.0

    @staticmethod
    def finish(constants: Nothing, state: State) -> Sum:
        return Sum(state.sum[0])


@reducer(version=1)
def doubled(x: Value) -> Two:
    """Twice what a reducer of the frame found."""
    return Two(2.0 * x)


def tables(sums, together=1):
    return {
        "source": {"kind": "synthetic"},
        "inputs": {n: {"detector": n, "field": "raw", "record": n == "gas"} for n in INPUTS},
        "calibration": {n: {"constants": "none", "mask": f"{n}.npy"} for n in ("f", "u")},
        "light": {"laser": {"on": [90], "off": [91]}},
        "batch": {"shots": 5, "together": together},
        "damage": True,
        "reducers": {
            "spot": {"use": f"{__name__}:whole", "inputs": "f"},
            "third": {"use": f"{__name__}:third", "inputs": "gas"},
            "twice": {"use": f"{__name__}:doubled", "inputs": "spot/sum"},
            "idle": {"use": f"{__name__}:doubled", "inputs": "twice/value"},
        },
        "derived": {"spot_per_gas": {"expr": "spot.sum / gas", "unit": "1"}},
        "filters": {"energetic": {"expr": "gas > 1"}},
        "sums": sums,
    }


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("masks"), np.random.default_rng(3)
    masks = {n: rng.random(SHAPE) > 0.2 for n in ("f", "u")}
    for n, m in masks.items():
        np.save(folder / f"{n}.npy", m)
    return folder, masks


def made(masks, sums, together=1, reducers=None):
    given = tables(sums, together)
    if reducers is not None:
        given |= {"reducers": {}, "derived": {}}
    read = config.parse(given)
    read._path = masks[0] / "exp.toml"
    return Plan.make(read, ListedRun(INPUTS, (), {}, ("delay",)))


def of(names, what, **more):
    return {n: {"input": "f", "what": what, "where": WHERES[n][0], **more} for n in names}


@pytest.fixture(scope="module")
def plan(masks):
    """Sums of either kind, of both detectors, by light and step, beside one of all shots."""
    sums = {
        "all": {"input": "f", "per": "step"},
        **of(OVER_ALL, ["calib"]),
        **of(["hit", "early"], ["calib", "calib_max"], light=["laser"], per="step"),
        "u_hit": {"input": "u", "what": ["raw"], "where": WHERES["hit"][0]},
        "u_early": {"input": "u", "what": ["raw"], "where": WHERES["early"][0]},
    }
    return made(masks, sums)


class Shot(ListedShot):
    """A shot and what is to be known of it."""

    def __init__(self, number, step, rng, masks):
        frame = rng.normal(0, 5, SHAPE).astype(np.float32)
        frame[rng.random(SHAPE) < 0.05] = np.nan
        frame[~masks["f"]] = np.nan
        words = rng.integers(0, 60_000, SHAPE).astype(np.uint16)
        self.gas = [None, np.nan, 77.0, *rng.normal(1, 1, 5)][rng.integers(0, 8)]
        frames = {"f": frame, "u": words, "gas": self.gas}
        for n in ("f", "u"):
            if rng.random() < 0.15:
                frames[n] = None
        self.fits = rng.random() > 0.1
        if not self.fits:
            frames["f"] = frame[:, :3]
        codes = [None, (90,), (91,), ()][rng.integers(0, 4)]
        super().__init__(100 + number, frames, codes)
        self.step = step
        self.spot, self.there = None, {n: frames[n] for n in ("f", "u")}
        if not self.fits:
            self.there["f"] = None
        if self.there["f"] is not None:
            self.spot = float(np.nansum(np.where(masks["f"], frame, 0), dtype=np.float64))
        self.spot_per_gas = None if None in (self.spot, self.gas) else self.spot / self.gas

    @property
    def laser(self):
        """State of the laser."""
        return {None: "unknown", (): "unknown", (90,): "on", (91,): "off"}[self.codes]


def shots(masks, seed, n=40):
    """Shots of two steps, of which ``third`` sees those with a gas detector."""
    rng, out, seen = np.random.default_rng(seed), [], 0
    for k in range(n):
        out.append(Shot(k, k >= n // 2, rng, masks))
        sees = out[-1].gas not in (None, 77.0)
        out[-1].before = seen if sees else None
        seen += sees
    return out


def fed(plan, some):
    """Pieces of the deltas, one for each step, and all rows."""
    deltas, rows = [], []
    for k, s in enumerate(some):
        if k == 0 or s.step != some[k - 1].step:
            rows.append(plan.close())
            deltas.append(plan.close_sums())
            plan.step(BeginStep(int(s.step), {"delay": float(s.step)}))
        if plan.take(s, 1):
            rows.append(plan.close())
    rows.append(plan.close())
    deltas.append(plan.close_sums())
    return [p for d in deltas for p in d], [r for r in rows if r]


def merged(pieces):
    """Arrays by (sum, what, light, step), and what became of shots likewise."""
    out, told = {}, {}
    for p in pieces:
        what, key = what_of(p.what), (p.sum, p.what, p.light, p.step)
        into = out.setdefault(key, what.begin((int(np.prod(SHAPE)),)))
        what.merge(into[p.first : p.first + p.values.size], p.values)
        told.setdefault(key, {})[p.delta] = p.fates
    fates = {k: Fates(*map(sum, zip(*v.values(), strict=True))) for k, v in told.items()}
    return {k: v.reshape(SHAPE) for k, v in out.items()}, fates


def expected(where, some, area, good, kind):
    """The sum, its counts and its fates, straight from the condition's plain form."""
    total, counts, fates = np.zeros(SHAPE), np.zeros(SHAPE, np.int64), Counter()
    total += -np.inf if kind == "calib_max" else 0
    for s in some:
        said, frame = where(s), s.there[area]
        if said is not True:
            fates["unknown" if said is None else "excluded"] += 1
        elif frame is None:
            fates["missing"] += 1
        else:
            fates["shots"] += 1
            v = np.where(good, frame, 0).astype(np.float64)
            here = good & ~np.isnan(v) if kind != "raw" else good
            v = frame.astype(np.float64) if kind == "raw" else v
            total = np.fmax(total, v) if kind == "calib_max" else total + np.nan_to_num(v)
            counts += here
    return total, counts, Fates(**fates)


def check(found, told, name, some, area, masks, kind, key=("", -1)):
    total, counts, fates = expected(
        WHERES[name.removeprefix("u_")][1], some, area, masks[area], kind
    )
    assert told[(name, COUNTS, *key)] == told[(name, kind, *key)] == fates, (name, key)
    assert sum(fates) == len(some)
    np.testing.assert_array_equal(found[(name, COUNTS, *key)], counts, err_msg=name)
    np.testing.assert_allclose(found[(name, kind, *key)], total, rtol=1e-14, atol=1e-13)
    return fates


def test_what_a_condition_says_of_every_shot_decides_whether_it_is_added(plan, masks):
    some = shots(masks[1], 1)
    pieces, rows = fed(plan, some)
    found, told = merged(pieces)
    seen = Counter()
    for name in OVER_ALL:
        seen.update(check(found, told, name, some, "f", masks[1], "calib")._asdict())
    assert all(seen[f] > 10 for f in Fates._fields), seen
    for name in ("hit", "early"):
        for step in (0, 1):
            for laser in ("on", "off", "unknown"):
                mine = [s for s in some if (s.step, s.laser) == (step, laser)]
                for kind in ("calib", "calib_max"):
                    check(found, told, name, mine, "f", masks[1], kind, (f"laser_{laser}", step))
        check(found, told, f"u_{name}", some, "u", masks[1], "raw")
    assert sum(told["all", COUNTS, "", k].shots for k in (0, 1)) == sum(
        s.there["f"] is not None for s in some
    )
    columns = {n: np.concatenate([r.columns[n] for r in rows]) for n in rows[0].columns}
    counted = columns["third/before"][columns["third/present"]]
    np.testing.assert_array_equal(counted, np.arange(counted.size))
    assert plan.errors["third: ValueError: 77"] == sum(s.gas == 77.0 for s in some)
    assert sum(n for k, n in plan.errors.items() if k.startswith("f: segment")) == sum(
        not s.fits for s in some
    )
    here = columns["spot/present"]
    np.testing.assert_array_equal(columns["idle/value"][here], 4 * columns["spot/sum"][here])
    assert columns["step"].tolist() == [s.step for s in some]


def test_frames_taken_together_are_added_by_what_is_known_of_each(masks):
    sums = {"u_early": {"input": "u", "what": ["raw"], "where": WHERES["early"][0]}}
    three = made(masks, sums, together=3, reducers=())
    some = shots(masks[1], 2, 23)
    found, told = merged(fed(three, some)[0])
    assert three.areas[0].together == 3
    assert check(found, told, "u_early", some, "u", masks[1], "raw").shots >= 5


def form(masks, where="energetic", low=1.0, more=1.0):
    given = tables({"f": {"where": where}})
    given["filters"]["energetic"]["expr"] = f"gas > {more}"
    given["reducers"]["spot"] = {
        "use": "threshold",
        "inputs": "f",
        "params": {"thresholds": [low, float("inf")]},
    }
    read = config.parse(given)
    read._path = masks[0] / "exp.toml"
    run = ListedRun(INPUTS, (), {}, ("delay",))
    return Binder(Defaults.of(read, run), run).bind().sums["f"][0].form


def test_a_condition_that_means_something_else_begins_a_sum_anew(masks):
    assert form(masks) == form(masks, low=2.0) != form(masks, more=2.0)
    assert form(masks, "spot_per_gas > 1") != form(masks, "spot_per_gas > 1", low=2.0)
    assert form(masks, "twice.value > 1") != form(masks, "twice.value > 1", low=2.0)


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("energetik", "sums.f.where: no column energetik; did you mean 'energetic'?"),
        ("gas", "sums.f.where: gives a number, not yes or no: compare it with something"),
        ("gas > ", "sums.f.where: "),
        ("gas > 1 & spot.sum > 2", "write `and`"),
        ("u > 1", "sums.f.where: u is an input, not a column; record it, or reduce it"),
        ("gas > 1" + " or gas > 2" * 50, "sums.f.where: "),
        (5, "sums.f.where: expected a text, got 5"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_condition_is_told(masks, where, said):
    with pytest.raises(config.ConfigError) as wrong:
        made(masks, {"f": {"where": where}})
    assert any(said in p for p in wrong.value.problems), wrong.value.problems
