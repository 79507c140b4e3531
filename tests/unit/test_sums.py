"""Frames added up over shots in the fused pass, against plain float64 sums."""

from typing import Annotated, NamedTuple

import numpy as np
import pytest

from ffb import Area, Feature, Tile, config, tile_reducer
from ffb.plan import Plan
from ffb.shot import BeginStep, Input
from ffb.sums.log import key_of
from ffb.sums.words import COUNTS, label_of, what_of
from ffb.testing.listed import ListedRun, ListedShot

SHAPE = (2, 5, 11)
PIXELS = int(np.prod(SHAPE))
WHATS = (
    "calib",
    "calib_square",
    "calib_max",
    "calib_nhits",
    "calib_thresADU0",
    "calib_thresADU-1.5",
    "calib_thresADU-1.5_max",
    "calib_thresADU2_square",
    "calib_thresADU2",
    "calib_thresADU2_nhits",
    "calib_nhits_thresADU-1.5",
)
RAW = ("raw", "raw_square", "raw_max")


class Params(NamedTuple):
    """Trips where a pixel is larger."""

    above: float = 1e9


class Nothing(NamedTuple):
    first: Annotated[float, Feature("@", "the first pixel")]


class State(NamedTuple):
    seen: np.ndarray


@tile_reducer(version=1)
class trips:  # noqa: N801
    """Raises in the midst of a frame, or at its end."""

    @staticmethod
    def prepare(params: Params, area: Area) -> Params:
        return params

    @staticmethod
    def allocate(constants: Params) -> State:
        return State(np.zeros(1))

    @staticmethod
    def start(constants: Params, state: State) -> None:
        state.seen[0] = 0.0

    @staticmethod
    def accumulate(tile: Tile, constants: Params, state: State) -> None:
        if tile.number == 3 and tile.values[0] > constants.above:
            raise ValueError("in the midst")
        if tile.number == 0:
            state.seen[0] = tile.values[0]

    @staticmethod
    def finish(constants: Params, state: State) -> Nothing:
        if state.seen[0] > constants.above:
            raise ValueError("at the end")
        return Nothing(state.seen[0])


def table(**sums):
    return {
        "source": {"kind": "synthetic"},
        "inputs": {n: {"detector": n, "field": "raw"} for n in ("f", "u", "v")},
        "calibration": {n: {"constants": "none", "mask": f"{n}.npy"} for n in ("f", "u", "v")},
        "light": {"xray": {"off": [162]}, "laser": {"on": [90], "off": [91]}},
        "batch": {"shots": 4},
        "sums": sums,
        "reducers": {"odd": {"use": f"{__name__}:trips", "inputs": "f", "params": {"above": 1e4}}},
    }


INPUTS = {
    "f": Input("area", "<f4", SHAPE),
    "u": Input("area", "<u2", SHAPE),
    "v": Input("area", "<u2", SHAPE),
}


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("masks"), np.random.default_rng(3)
    masks = {n: rng.random(SHAPE) > 0.1 for n in INPUTS}
    for n, m in masks.items():
        m[0, :, 0] = True
        np.save(folder / f"{n}.npy", m)
    return folder, masks


@pytest.fixture(scope="module")
def whole(masks):
    """One plan for most tests here: every kind of sum, by light and step."""
    tables = table(
        f={"what": list(WHATS), "light": ["laser", "xray"], "per": "step"},
        u={"what": ["calib", *RAW]},
        again={"input": "f", "what": ["calib"], "light": ["laser"]},
    )
    made = config.parse(tables)
    made._path = masks[0] / "exp.toml"
    with np.errstate(all="ignore"):
        return Plan.make(made, ListedRun(INPUTS, (), {}, ("delay",)))


def frame(rng, masks):
    """A frame with values of both signs, NaN, and rubbish under the mask."""
    out = rng.normal(0, 3, SHAPE).astype(np.float32)
    out[rng.random(SHAPE) < 0.02] = np.nan
    out[~masks["f"]] = rng.choice([1e30, np.nan])
    return out


def shots(seed, masks, n=12):
    rng, out = np.random.default_rng(seed), []
    for k in range(n):
        codes = [(), (90,), (91,), (90, 162), (91, 162)][k % 5]
        words = rng.integers(60_000, 65_536, SHAPE).astype(np.uint16)
        frames = {"f": frame(rng, masks), "u": words, "v": words}
        out.append(ListedShot(100 + k, frames, None if k % 7 == 6 else codes))
    return out


def fed(plan, items):
    """Pieces of the deltas of all items, one delta for each step."""
    deltas = []
    for item in items:
        if isinstance(item, BeginStep):
            plan.close()
            deltas.append(plan.close_sums())
            plan.step(item)
        elif plan.take(item, 1):
            plan.close()
    rows = plan.close()
    return [*deltas, plan.close_sums()], rows


def merged(deltas):
    """Arrays by (sum, what, light, step), of all pieces; and shots likewise."""
    out, told = {}, {}
    for p in (p for d in deltas for p in d):
        what, key = what_of(p.what), key_of(p)[1:]
        into = out.setdefault(key, what.begin((PIXELS,)))
        what.merge(into[p.first : p.first + p.values.size], p.values)
        told.setdefault(key, {})[p.delta] = p.fates
    numbers = {k: tuple(map(sum, zip(*v.values(), strict=True))) for k, v in told.items()}
    return {k: v.reshape(SHAPE) for k, v in out.items()}, numbers


def brute(name, frames, good):
    """What the sum is of ``frames``, float64, straight from what its name means."""
    what, out = what_of(name), what_of(name).begin(SHAPE)
    for f in frames:
        v = np.where(good, f, 0).astype(np.float64)
        here = ~np.isnan(v)
        v = v if what.least is None else np.where(v < what.least, 0, v)
        if what.kind == "max":
            out = np.fmax(out, v)
            continue
        added = {"sum": v, "square": v**2, "nhits": v > 0}[what.kind]
        out = out + np.where(here, added, 0)
    return out


def states(shot):
    """X-ray and laser of a shot by its codes."""
    if shot.codes is None:
        return -1, -1
    return int(162 not in shot.codes), 1 if 90 in shot.codes else 0 if 91 in shot.codes else -1


def test_every_kind_of_sum_is_what_float64_says_by_light_and_step(whole, masks):
    good = masks[1]["f"]
    first, second = shots(1, masks[1]), shots(2, masks[1])
    first[4].frames["f"] = None
    items = [BeginStep(0, {"delay": 0.0}), *first, BeginStep(1, {"delay": 1.0}), *second]
    deltas, _ = fed(whole, items)
    found, told = merged(deltas)
    groups = {}
    for step, some in ((0, first), (1, second)):
        for s in some:
            x, laser = states(s)
            groups.setdefault((label_of(("xray", "laser"), (x, laser)), step), []).append(s)
    assert {k[2:] for k in told if k[0] == "f"} == groups.keys()
    for (light, step), some in groups.items():
        frames = [s.frames["f"] for s in some if s.frames["f"] is not None]
        mine = told["f", COUNTS, light, step]
        assert mine == (len(frames), len(some) - len(frames), 0, 0), (light, step)
        counts = sum((good & ~np.isnan(f)).astype(int) for f in frames)
        np.testing.assert_array_equal(found["f", COUNTS, light, step], counts)
        for name in WHATS:
            np.testing.assert_allclose(
                np.where(good, found["f", name, light, step], 0),
                np.where(good, brute(name, frames, good), 0),
                rtol=1e-15,
                err_msg=f"{name} {light} {step}",
            )


def test_whole_numbers_neither_wrap_nor_round(whole, masks):
    words = np.full(SHAPE, 60_000, np.uint16)
    some = [ListedShot(100 + k, {"u": words}) for k in range(70)]
    found, told = merged(fed(whole, some)[0])
    assert told["u", "raw", "", -1] == (70, 0, 0, 0)
    assert (found["u", "raw", "", -1] == 70 * 60_000).all()
    assert (found["u", "raw_square", "", -1] == 70 * 60_000**2).all()
    assert (found["u", "raw_max", "", -1] == 60_000).all()
    good = masks[1]["u"]
    np.testing.assert_array_equal(found["u", "calib", "", -1], np.where(good, 70 * 60_000, 0))


def test_what_a_reducer_raises_adds_no_shot_twice_and_loses_none(whole, masks):
    some = shots(5, masks[1])
    for k, row in ((2, 3), (5, 0), (7, 3)):
        some[k].frames["f"][0, row, 0] = 1e5
    found, told = merged(fed(whole, some)[0])
    assert whole.errors == {
        "odd: ValueError: in the midst": 2,
        "odd: ValueError: at the end": 1,
    }
    frames = [s.frames["f"] for s in some]
    total = sum(v for k, v in found.items() if k[:2] == ("again", "calib"))
    good = masks[1]["f"]
    np.testing.assert_allclose(total[good], brute("calib", frames, good)[good], rtol=1e-14)
    assert sum(n for k, (n, *_) in told.items() if k[:2] == ("again", COUNTS)) == len(some)


def test_a_frame_that_does_not_fit_is_missing_in_the_sum(whole, masks):
    some = shots(6, masks[1], 4)
    some[1].frames["u"] = some[1].frames["u"][:, :3]
    some[2].frames["u"] = None
    found, told = merged(fed(whole, some)[0])
    assert told["u", "raw", "", -1] == (2, 2, 0, 0)
    total = some[0].frames["u"].astype(int) + some[3].frames["u"]
    np.testing.assert_array_equal(found["u", "raw", "", -1], total)


class Damaged(ListedShot):
    """A shot of which one detector cannot be read."""

    def segments(self, name):
        if name == "u":
            raise ValueError("damaged")
        return super().segments(name)


def test_a_shot_that_cannot_be_read_is_in_no_sum_of_any_detector(whole, masks):
    good, bad = shots(7, masks[1], 2)
    with pytest.raises(ValueError, match="damaged"):
        whole.take(Damaged(bad.timestamp, bad.frames, bad.codes), 1)
    _, told = merged(fed(whole, [good])[0])
    assert set(told.values()) == {(1, 0, 0, 0)}


def test_frames_of_no_shot_make_no_delta(whole):
    assert whole.close_sums() == []


def test_two_producers_in_another_order_make_the_same_sums(whole, masks):
    some = shots(8, masks[1], 20)
    one, _ = merged(fed(whole, some)[0])
    two, _ = merged([*fed(whole, some[1::2][::-1])[0], *fed(whole, some[::2])[0]])
    assert one.keys() == two.keys()
    for key, array in one.items():
        if array.dtype.kind == "i" or what_of(key[1]).kind == "max":
            np.testing.assert_array_equal(array, two[key])
        else:
            most = 20 * 2.0**-53 * brute(key[1], [abs(s.frames["f"]) for s in some], True)
            if key[0] == "f":
                assert (abs(array - two[key]) <= np.nan_to_num(most, nan=1e30)).all(), key


def problems(masks, **sums):
    """What is wrong with a configuration, found when it is read, or with the run."""
    try:
        made = config.parse({**table(**sums), "reducers": {}})
        made._path = masks[0] / "exp.toml"
        Plan.make(made, ListedRun(INPUTS, (), {}))
    except config.ConfigError as e:
        return list(e.problems)
    return []


@pytest.mark.parametrize(
    ("sums", "said"),
    [
        ({"f": {"what": ["calib_img"]}}, "sums.f.what[0]: 'calib_img': 'img' is not used here"),
        ({"f": {"what": ["calib_dropped"]}}, 'with light = ["xray"] there is a sum'),
        ({"f": {"what": ["dark"]}}, 'begins with "calib" or "raw"'),
        ({"f": {"what": ["calib_thresADUx"]}}, "no token 'thresADUx'"),
        ({"f": {"what": ["calib_thresADU1e999"]}}, "no token 'thresADU1e999'"),
        ({"f": {"what": ["calib_max_nhits"]}}, "takes one threshold and one of"),
        ({"f": {"what": ["raw_thresADU5"]}}, "raw words have gain bits"),
        ({"f": {"what": ["counts"]}}, "every sum has its counts beside it"),
        ({"f": {"what": []}}, "sums.f.what"),
        ({"f": {"what": ["calib", "calib"]}}, "named twice"),
        ({"f": {"what": ["calib_square"]}}, "says nothing without its sum; add calib"),
        ({"f": {"light": ["lasre"]}}, "sums.f.light[0]: expected 'xray' or 'laser'"),
        ({"f": {"per": "shot"}}, "sums.f.per: expected 'run' or 'step'"),
        ({"f": {"whta": ["calib"]}}, "sums.f.whta: unknown key; did you mean 'what'?"),
        ({"g": {}}, "sums.g: no input 'g'"),
        ({"f": {"input": "uu"}}, "sums.f.input: no input 'uu'; did you mean 'u'?"),
        ({"1f": {"input": "f"}}, "a name has up to 64 letters"),
        ({"f": {}, "f_calib": {"input": "f"}}, "begins like the datasets of the sum 'f'"),
        ({"f": {"what": ["raw"]}}, "sums.f.what: raw pixels are <f4, not whole numbers"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(masks, sums, said):
    assert any(said in p for p in problems(masks, **sums)), problems(masks, **sums)


def test_a_sum_that_would_take_all_memory_is_refused_and_others_say_what_they_take(whole, masks):
    inputs = {**INPUTS, "v": Input("area", "<u2", (64, 1024, 1024))}
    tables = {**table(v={"light": ["xray", "laser"]}), "reducers": {}, "calibration": {"v": "none"}}
    with pytest.raises(config.ConfigError, match=r"sums\.v: .*MB are allowed in all"):
        Plan.make(config.parse(tables), ListedRun(inputs, (), {}))
    assert any("sums.again takes" in n and "MB in each producer" in n for n in whole.notes)
