"""The common mode, held to medians by numpy, pixel by pixel; and the medians themselves."""

from pathlib import Path

import numba
import numpy as np
import pytest

from ffb import Area
from ffb.batch import Batch
from ffb.config import parse
from ffb.configuration.calibration_settings import CalibrationConfig, CommonModeConfig
from ffb.configuration.problems import ConfigError
from ffb.loops.fuse import RUN
from ffb.loops.stages import AreaPass
from ffb.plan import Plan
from ffb.reducers import calibration as cal
from ffb.reducers.counting import GROUPS, GUESS, medians, search
from ffb.reducers.roi import Params, roi
from ffb.schema import Schema
from ffb.shot import Input
from ffb.source import Constants
from ffb.testing.listed import ListedRun, ListedShot
from tests.unit.calibrations import bits, calibrated, jungfrau
from tests.unit.passes import member

SHAPE = (2, 8, 36)
BANK = [4, 12]


def camera(shape=SHAPE, seed=4):
    rng = np.random.default_rng(seed)
    gain = rng.normal(16, 0.5, (1, *shape)).astype(np.float32)
    gain[rng.random(gain.shape) < 0.02] = 0
    status = (rng.random((1, *shape)) < 0.02).astype(np.int64)
    status[0, 0, 1, :11] = 1  # hardly a pixel left in one row of a bank
    pedestals = rng.normal(900, 5, (1, *shape)).astype(np.float32)
    pedestals[0, 0, 3, 3] = np.nan
    return Constants("cam", "rayonix", shape, pedestals, gain, None, status)


def frame(c, seed=5):
    """Noise, an offset of each row, photons, and a few pixels that have switched."""
    rng = np.random.default_rng(seed)
    adu = np.nan_to_num(c.pedestals[0], nan=900) + rng.normal(0, 3, c.shape)
    adu += rng.normal(0, 20, (*c.shape[:2], 1)) + rng.poisson(0.1, c.shape) * 100
    raw = np.clip(adu, 0, 0x3FFF).astype(np.uint16)
    switched = (rng.random(c.shape) < 0.03) & (c.dettype == "jungfrau")
    return np.where(switched, raw | np.uint16(0xC000), raw)


def truth(c, raw, k, fit, setting, unbonded=None):
    """The frame as the settings say, in numpy: float32, each correction rounded as it is made.

    And which pixels are corrected; how many groups are not, for too few pixels and for too much.
    """
    pedestal = c.pedestals[0] if c.offset is None else c.pedestals[0] + c.offset[0]
    values = raw.astype(np.float32) - pedestal
    part = fit & np.isfinite(values)
    height, width = setting.bank
    first, last = setting.reference or (0, width)
    within = np.arange(c.shape[2]) % width
    counted = part & (within >= first) & (within < last)
    counted &= k.mask | bool(setting.reference) if unbonded is None else unbonded
    part &= k.mask | counted
    few = much = 0
    limit = np.inf if setting.largest is None else setting.largest
    for over in setting.over:
        tall = {"rows": 1, "columns": height, "banks": height}[over]
        wide = {"rows": width, "columns": 1, "banks": width}[over]
        for s, r, at in np.ndindex(c.shape[0], c.shape[1] // tall, c.shape[2] // wide):
            box = (s, slice(r * tall, (r + 1) * tall), slice(at * wide, (at + 1) * wide))
            here = values[box][counted[box]]
            asked = np.ones(c.shape, bool) if unbonded is None else unbonded
            asked = asked & (within >= first) & (within < last)
            least = max(setting.pixels, setting.fraction * asked[box].sum())
            ever = (counted | (c.dettype == "jungfrau") & k.mask & ~fit & asked)[box].sum() >= least
            if setting.threshold is not None:
                here = here[here < setting.threshold]
            if here.size < least:
                few += ever
                continue
            middle = np.median(here) if setting.by == "median" else np.mean(here, dtype=float)
            if abs(np.float32(middle)) < limit:
                values[box] -= np.float32(middle)
            else:
                much += 1
    return values, part, {k: n for k, n in zip(WHY, (few, much), strict=True) if n}


WHY = ("common mode: too few pixels count", "common mode: too large")
SETTINGS = [
    {"over": "rows"},
    {"over": "columns", "pixels": 3},
    {"over": "banks"},
    {"over": ["banks", "rows", "columns"], "pixels": 3, "largest": 25.0, "threshold": 40.0},
    {"over": "rows", "fraction": 0.8, "pixels": 1, "threshold": 15.0},
    # what smalldata_tools' 45 would be, which fails there (its columns are half a segment high)
    {
        "over": ["columns", "rows"],
        "pixels": 1,
        "fraction": 0.25,
        "threshold": 30.0,
        "largest": 30.0,
    },
    {"over": ["rows", "banks"], "reference": [7, 12], "pixels": 3},
    {"over": ["banks", "rows"], "unbonded": "yes", "pixels": 1, "largest": 19.0},
    {"over": ["columns", "rows"], "unbonded": "yes", "pixels": 1, "fraction": 0.6},
    {"over": ["banks", "columns"], "by": "mean", "threshold": 30.0, "pixels": 3},
]


@pytest.mark.parametrize("table", SETTINGS, ids=str)
@pytest.mark.parametrize("make", [camera, jungfrau])
def test_pixels_lose_the_median_of_those_beside_them(make, table):
    c = make(SHAPE)
    setting = CommonModeConfig(bank=BANK, **({"pixels": 3} | table))
    plain = cal.calibration_of(c)
    few = np.random.default_rng(6).random(SHAPE) < 0.2  # some of them masked
    unbonded = few if setting.unbonded else None
    k = cal.calibration_of(c, common_mode=setting, unbonded=unbonded)
    np.testing.assert_array_equal(k.mask, plain.mask)
    assert k.height == (1 if setting.over == ("rows",) else 4)
    raw = frame(c)
    values, part, skipped = truth(c, raw, k, raw <= 0x3FFF, setting, unbonded)
    factor = plain.constants.factor.reshape(c.shape)
    out, bad = calibrated(k, raw)
    without, worse = calibrated(plain, raw)
    taking = part & k.mask
    assert taking.sum() > k.mask.sum() / 4
    np.testing.assert_array_equal(bits(out)[taking], bits(values * factor)[taking])
    np.testing.assert_array_equal(out[~taking], without[~taking])
    assert bad == worse == np.isnan(out).sum()
    assert (out[~k.mask] == 0).all()
    assert (out[taking] != without[taking]).any()
    assert k.skipped == skipped


def test_a_common_offset_disappears_and_photons_stay():
    c = camera()
    flat = np.full(SHAPE, 900, np.uint16)
    level = Constants("cam", "rayonix", SHAPE, np.full((1, *SHAPE), 900, np.float32))
    k = cal.calibration_of(level, common_mode=CommonModeConfig(over="rows", bank=BANK, pixels=5))
    raw = flat + np.arange(8, dtype=np.uint16)[:, None]
    raw[:, :, 5] += 300
    out, _ = calibrated(k, raw)
    photons = np.zeros(SHAPE)
    photons[:, :, 5] = 300
    np.testing.assert_array_equal(out, photons)
    assert c.shape == SHAPE


@np.errstate(all="ignore")
def test_the_fused_pass_sees_what_a_whole_frame_sees():
    c = camera()
    raws = [frame(c, seed) for seed in (5, 6)]
    for over in ("rows", "columns"):
        setting = CommonModeConfig(over=over, bank=BANK, pixels=3)
        k = cal.calibration_of(c, common_mode=setting)
        area = Area("cam", SHAPE, k.mask, None, "keV")
        members = [member(f"s{s}", roi, Params(segment=s, area=True), area) for s in range(2)]
        schema = Schema(tuple(column for m in members for column in m.all_columns))
        batch = Batch(schema, len(raws))
        run = AreaPass(members, k, area, schema, len(raws))
        for row, raw in enumerate(raws):
            run(tuple(s.ravel() for s in raw), row, batch.buffer, np.full(2, RUN, np.uint8))
            out, _ = calibrated(k, raw)
            for s in range(2):
                image = np.where(k.mask[s], out[s], np.nan)
                np.testing.assert_array_equal(batch.columns[f"s{s}/area"][row], image)
        both, flat = Batch(schema, 2), tuple(s.ravel() for raw in raws for s in raw)
        run = AreaPass(members, k, area, schema, 2, together=2)
        run(flat, np.array([1, 0]), both.buffer, np.full(2, RUN, np.uint8))
        for name, column in batch.columns.items():
            np.testing.assert_array_equal(both.columns[name], column[::-1], err_msg=name)


@np.errstate(all="ignore")
def test_whoever_watches_sees_what_could_not_be_corrected(tmp_path):
    level = Constants("jf", "rayonix", SHAPE, np.full((1, *SHAPE), 900, np.float32))
    unbonded = np.zeros(SHAPE, np.uint8)
    unbonded[:, :-1, ::12] = unbonded[:, :-1, 5::12] = 1  # none in the last row
    np.save(path := tmp_path / "unbonded.npy", unbonded)
    common = {"over": "rows", "bank": BANK, "pixels": 2, "unbonded": str(path)}
    tables = {
        "source": {"kind": "synthetic"},
        "inputs": {"jf": {"detector": "jf", "field": "raw"}},
        "reducers": {"spot": {"use": "roi", "inputs": "jf", "params": {"area": True}}},
        "calibration": {"jf": {"common_mode": {**common, "largest": 20.0, "threshold": 50.0}}},
        "batch": {"shots": 3, "together": 2},
    }
    run = ListedRun({"jf": Input("area", "<u2", SHAPE)}, (), {"jf": level})
    plan = Plan.make(parse(tables), run)
    raw = np.full((3, *SHAPE), 905, np.uint16)
    raw[0, 1, 2, 12:24] += 30  # too much for one group
    raw[2, 0, 3, 0] += 100  # a photon: too few in another
    for k, shot in enumerate(raw):
        plan.take(ListedShot(k, {"jf": shot}), 0)
    area = plan.close().columns["spot/area"]
    left = np.zeros((3, *SHAPE[1:]), bool)
    left[:, -1] = True
    left[2, 3, :12] = True
    np.testing.assert_array_equal(area, np.where(left, raw[:, 0] - 900.0, raw[:, 0] - 905.0))
    assert plan.tallies == {f"jf: {WHY[0]}": 1, f"jf: {WHY[1]}": 1}
    never = "jf: common mode: 6 of 48 rows have too few pixels that count, and are left as they are"
    assert never in plan.notes
    assert plan.constants["jf"]["unbonded"].startswith("unbonded.npy sha256:")


def of(groups, threshold=np.inf, guess=0.0, least=1):
    """Medians of groups (groups, size), and how many of their values count."""
    groups = np.asarray(groups, np.float32)
    out, room = np.zeros(len(groups), np.float32), search()
    room.known[GUESS : GUESS + np.uint64(GROUPS)] = guess
    least = np.full(len(groups), least, np.int32)
    with np.errstate(all="ignore"):
        medians(groups.ravel(), least, np.float32(threshold), room, out)
    return out


def truth_of(groups, threshold=np.inf):
    """The same by numpy, group by group; NaN where nothing counts."""
    with np.errstate(all="ignore"):
        there = [g[g < threshold] for g in np.asarray(groups, np.float32)]
        return np.array([np.median(g) if g.size else np.nan for g in there], np.float32)


@pytest.mark.parametrize("size", [1, 2, 5, 16, 63, 64, 200])
@pytest.mark.parametrize(
    "draw",
    [
        lambda rng, n: rng.normal(3, 2, n),
        lambda rng, n: rng.integers(-2, 3, n),
        lambda rng, n: rng.normal(0, 1, n) * 10.0 ** rng.integers(-37, 37, n),
        lambda rng, n: np.full(n, -7.25),
        lambda rng, n: rng.choice([0.0, -0.0, 1e-45, -1e-45, 1e38, -1e38], n),
        lambda rng, n: np.where(rng.random(n) < 0.5, 1.0, 1e30),
    ],
    ids=["normal", "ties", "scales", "constant", "extremes", "two"],
)
def test_medians_are_those_of_numpy(draw, size):
    rng = np.random.default_rng(size)
    for number in (1, 5, GROUPS):
        groups = np.array([draw(rng, size) for _ in range(number)], np.float32)
        groups[rng.random(groups.shape) < 0.2] = np.nan
        groups[0, :] = np.nan if size % 2 else groups[0]
        for guess in (0.0, 1e6, -1e38):
            np.testing.assert_array_equal(of(groups, guess=guess), truth_of(groups))
        np.testing.assert_array_equal(of(groups, 1.5), truth_of(groups, 1.5))


def test_a_search_goes_on_where_another_ended_and_finds_the_same():
    rng = np.random.default_rng(3)
    groups = rng.normal(0, 3, (200, 4, 96)).astype(np.float32)
    groups[100:] += 700
    groups[::7] = np.round(groups[::7])
    groups[5, 1, 2:] = np.nan
    room, out = search(), np.zeros(4, np.float32)
    for four in groups[:: 20 if numba.config.DISABLE_JIT else 1]:
        with np.errstate(all="ignore"):
            medians(four.ravel(), np.ones(4, np.int32), np.float32(np.inf), room, out)
        np.testing.assert_array_equal(out, truth_of(four))


def test_a_group_of_too_few_has_no_median():
    groups = np.arange(12.0).reshape(3, 4)
    groups[1, 2:] = np.nan
    np.testing.assert_array_equal(of(groups, least=3), [1.5, np.nan, 9.5])
    np.testing.assert_array_equal(of(groups, 9.0, least=3), [1.5, np.nan, np.nan])


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"over": "rows", "bank": [3, 12]}, "bank: 3 x 12 pixels do not divide segments of 8 x 36"),
        ({"over": "rows", "bank": [4, 7]}, "bank: 4 x 7 pixels do not divide"),
        (
            {"over": "rows", "bank": [4, 12], "reference": [9, 13]},
            "reference: ends at 13, a bank at its column 12",
        ),
        (
            {"over": "columns", "bank": [4, 12]},
            "pixels: 11 are never there; 4 count in one of the columns",
        ),
    ],
    ids=str,
)
def test_what_does_not_fit_the_detector_is_refused(table, words):
    setting = CalibrationConfig(common_mode=CommonModeConfig(**table))
    with pytest.raises(ValueError, match=f"common_mode.{words}"):
        cal.make(camera(), setting, Path, Input("area", "<u2", SHAPE))


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"over": []}, ": over: nothing in it; name rows, columns or banks"),
        ({"over": "lines"}, ".over[0]: expected 'rows', 'columns' or 'banks', got 'lines'"),
        ({"over": ["rows", "rows"]}, ": over: rows, rows names one of them twice"),
        ({"over": "rows", "bank": [96]}, ": bank: expected [rows, columns], got [96]"),
        ({"over": "rows", "reference": [8, 4]}, ": reference: expected [first, last], got [8, 4]"),
        ({"over": "columns", "reference": [0, 4]}, ": reference: columns of a bank serve its rows"),
        (
            {"over": "rows", "reference": [0, 4], "unbonded": "a.npy"},
            ": reference and unbonded both say which pixels count",
        ),
        ({"over": "rows", "treshold": 3.0}, ".treshold: unknown key; did you mean 'threshold'?"),
        ({"over": "rows", "threshold": 0.0}, ".threshold: must be greater than 0, got 0.0"),
        ({}, ".over: missing: "),
    ],
    ids=str,
)
def test_a_table_that_makes_no_sense_is_refused(table, words):
    with pytest.raises(ConfigError) as error:
        parse(
            {
                "source": {"kind": "synthetic"},
                "inputs": {"area": {"detector": "area", "field": "raw"}},
                "reducers": {"spot": {"use": "roi", "inputs": "area"}},
                "calibration": {"area": {"common_mode": table}},
            }
        )
    assert any(p.startswith(f"calibration.area.common_mode{words}") for p in error.value.problems)


def test_raw_pixels_have_no_common_mode():
    with pytest.raises(ValueError, match="leave out common_mode"):
        CalibrationConfig(constants="none", common_mode=CommonModeConfig(over="rows"))
