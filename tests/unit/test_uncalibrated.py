"""Pixels that are left as they are, but for those that are masked."""

from pathlib import Path

import numpy as np
import pytest

from ffb.config import parse
from ffb.configuration.calibration_settings import CalibrationConfig
from ffb.configuration.defaults import Defaults
from ffb.loops.bind import Binder
from ffb.reducers.constants import uncalibrated
from ffb.shot import Input
from ffb.sources.choose import source_of


@pytest.mark.parametrize("dtype", ["|u1", "<u2", "<i2", "<i4", "<f4"])
def test_pixels_left_alone_can_be_masked(tmp_path, dtype):
    mask = np.random.default_rng(2).random((7, 11)) > 0.2
    np.save(tmp_path / "mask.npy", mask.astype(np.uint8))
    given = Input("area", dtype, (1, 7, 11))
    setting = CalibrationConfig(constants="none", mask="mask.npy", edges=1)
    k, ids = uncalibrated("cam", setting, lambda p: tmp_path / p, given)
    inside = np.zeros((1, 7, 11), bool)
    inside[:, 1:-1, 1:-1] = True
    np.testing.assert_array_equal(k.mask, mask[None] & inside)
    assert list(ids) == ["mask"]
    assert ids["mask"].startswith("mask.npy sha256:")
    raw = np.arange(77).astype(dtype)
    out = np.full(77, -1, np.float32)
    assert k.tile(raw, 0, k.constants, out) == 0
    np.testing.assert_array_equal(out, np.where(k.mask.ravel(), raw.astype(np.float32), 0))


def test_pixels_left_alone_need_no_settings():
    k, ids = uncalibrated("cam", None, Path, Input("area", "<u2", (2, 3, 4)))
    assert k.mask.all()
    assert ids == {}
    assert k.unit == "ADU"


@pytest.mark.parametrize(
    ("shape", "dtype", "words"),
    [
        ((1, 7, 12), "<u2", r"mask \(1, 7, 11\) instead of \(1, 7, 12\)"),
        ((1, 7, 11), ">u2", "pixels are >u2"),
        ((1, 7, 11), "|b1", "pixels are .b1"),
        ((1, 2, 11), "<u2", "edges = 1 leaves no pixel"),
    ],
)
def test_pixels_left_alone_must_fit(tmp_path, shape, dtype, words):
    np.save(tmp_path / "mask.npy", np.ones((7, 11)))
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
