"""Pixels that are left as they are, but for those that are masked."""

from pathlib import Path

import numpy as np
import pytest

from ffb.config import parse
from ffb.configuration.calibration_settings import CalibrationConfig
from ffb.configuration.defaults import Defaults
from ffb.loops.bind import Binder
from ffb.loops.uncalibrated import Uncalibrated
from ffb.reducers import roi, threshold
from ffb.reducers.constants import uncalibrated
from ffb.shot import Input
from ffb.sources.choose import source_of
from tests.unit.passes import detector, member, reduce


@pytest.mark.parametrize("dtype", ["|u1", "<u2", "<i2", "<i4", "<f4"])
def test_pixels_left_alone_can_be_masked(tmp_path, dtype):
    mask = np.random.default_rng(2).random((7, 11)) > 0.2
    np.save(tmp_path / "mask.npy", mask.astype(np.uint8))
    given = Input("area", dtype, (1, 7, 11))
    setting = CalibrationConfig(constants="none", mask="mask.npy", edges=1)
    k, constants = uncalibrated("cam", setting, lambda p: tmp_path / p, given)
    inside = np.zeros((1, 7, 11), bool)
    inside[:, 1:-1, 1:-1] = True
    np.testing.assert_array_equal(k.mask, mask[None] & inside)
    assert constants.ids["mask"].startswith("mask.npy sha256:")
    assert dict(constants.ids, mask="") == {"mask": "", "masking": '{"edges": [1, 1]}'}
    assert constants.since == {"mask": (tmp_path / "mask.npy").stat().st_mtime_ns}
    raw = np.arange(1, 78).astype(dtype)
    raw.flags.writeable = False
    for first in range(0, 77, 11):
        row, good = raw[first : first + 11], k.mask.ravel()[first : first + 11]
        out, bad = row_of(k, row, first)
        np.testing.assert_array_equal(out, np.where(good, row.astype(np.float32), 0))
        assert bad == 0


def row_of(k, row, first=0):
    """A row as reducers get it, and how many of its good pixels are NaN."""
    values = np.full(row.size, -1, np.float32)
    if k.lend:
        return k.lend(row, first, k.constants, values)
    return values, k.tile(row, first, k.constants, values)


ROW = np.arange(1, 41, dtype=np.float32)
HIDDEN = np.arange(40) % 13 == 5


@pytest.mark.parametrize("masked", [0.0, -0.0, 3.0, np.nan, np.inf])
@pytest.mark.parametrize("skewed", [False, True])
def test_a_row_is_lent_if_nothing_has_to_change(masked, skewed):
    k = Uncalibrated(~HIDDEN.reshape(1, 1, 40), "<f4")
    memory = np.zeros(40 * 4 + 1, np.uint8)
    row = memory[skewed : skewed + 160].view(np.float32)  # a source may hand over what is unaligned
    row[:] = np.where(HIDDEN, masked, ROW)
    row[[0, 17]] = np.nan
    row.flags.writeable = False
    kept = row.copy()
    out, bad = row_of(k, row)
    assert bad == 2
    assert np.shares_memory(out, memory) == (masked == 0 and not skewed)
    np.testing.assert_array_equal(out, np.where(HIDDEN, 0, kept))
    np.testing.assert_array_equal(row, kept)


@pytest.mark.parametrize("dtype", ["<f4", "<f8"])
def test_infinite_pixels_are_bad_in_this_shot(dtype):
    k = Uncalibrated(~HIDDEN.reshape(1, 1, 40), dtype)
    row = np.where(HIDDEN, 0, ROW).astype(dtype)
    row[[0, 1, 2, 17]] = [np.inf, -np.inf, np.nan, 1e300 if dtype == "<f8" else np.inf]
    with np.errstate(over="ignore"):
        out, bad = row_of(k, row)
    assert bad == 4
    row[[0, 1, 2, 17]] = np.nan
    np.testing.assert_array_equal(out, row)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 5, 37), (3, 1, 130)], ids=str)
def test_lent_rows_reduce_as_copied_ones(shape):
    rng = np.random.default_rng(6)
    mask = rng.random(shape) > 0.2
    mask[0, 0] = True
    area = detector(shape, mask)
    image = rng.normal(0, 3, shape).astype(np.float32)
    image[rng.random(shape) < 0.1] = np.nan
    clean = np.where(mask, image, np.float32(0))
    members = [
        member("spot", roi.roi, roi.Params(area=True), area),
        member("bright", threshold.threshold, threshold.Params((-1.0, 2.0)), area),
    ]
    got = reduce(members, area, [image, clean])
    for name, column in got.items():
        np.testing.assert_array_equal(column[0], column[1], err_msg=name)
    taken = clean[mask & (clean >= -1) & (clean <= 2)].astype(np.float64)
    assert got["bright/npix"][1] == taken.size
    assert got["bright/sum"][1] == pytest.approx(taken.sum(), abs=1e-5 * taken.size)


def test_pixels_left_alone_need_no_settings():
    k, constants = uncalibrated("cam", None, Path, Input("area", "<u2", (2, 3, 4)))
    assert k.mask.all()
    assert constants.ids == {}
    assert k.unit == "ADU"


@pytest.mark.parametrize(
    ("shape", "dtype", "words"),
    [
        ((1, 7, 12), "<u2", r"mask \(1, 7, 11\) instead of \(1, 7, 12\)"),
        ((1, 7, 11), ">u2", "pixels are >u2"),
        ((1, 7, 11), "|b1", "pixels are .b1"),
        ((1, 2, 11), "<u2", "edges = 1 leaves no pixel"),
        ((1, 9, 11), "<u2", "cam: mask: every pixel is 0, which is bad"),
    ],
)
def test_pixels_left_alone_must_fit(tmp_path, shape, dtype, words):
    np.save(tmp_path / "mask.npy", np.full((shape[1], 11), shape[1] < 9))
    setting = CalibrationConfig(constants="none", mask="mask.npy", edges=1)
    with pytest.raises(ValueError, match=words):
        uncalibrated("cam", setting, lambda p: tmp_path / p, Input("area", dtype, shape))


def test_nothing_to_calibrate_takes_no_constants():
    with pytest.raises(ValueError, match="leave out pedestals, status"):
        CalibrationConfig(constants="none", pedestals="a.npy", status="b.npy")


def test_a_table_can_mask_pixels_that_stay_as_they_are(tmp_path):
    np.save(tmp_path / "mask.npy", np.random.default_rng(4).random((2, 64, 128)) > 0.1)
    table = {"constants": "none", "mask": "mask.npy", "edges": 2}
    config = parse(
        {
            "source": {"kind": "synthetic"},
            "inputs": {"area": {"detector": "area", "field": "raw"}},
            "reducers": {"spot": {"use": "roi", "inputs": "area"}},
            "calibration": {"area": table},
        }
    )
    config._path = tmp_path / "here.toml"
    run = next(source_of(config).runs())
    bound = Binder(Defaults.of(config, run), run).bind()
    area, ids = bound.detectors["area"].area, bound.detectors["area"].ids
    inside = np.zeros((2, 64, 128), bool)
    inside[:, 2:-2, 2:-2] = True
    np.testing.assert_array_equal(area.mask, np.load(tmp_path / "mask.npy") & inside)
    assert area.unit == "ADU"
    assert ids["origin"] == "none"
    assert ids["mask"].startswith("mask.npy sha256:")
