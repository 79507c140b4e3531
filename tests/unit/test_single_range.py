"""Detectors of one gain range, held to ``(raw - pedestal) / gain`` in float64."""

from pathlib import Path

import numpy as np
import pytest

from ffb.configuration.calibration_settings import CalibrationConfig
from ffb.reducers import calibration as cal
from ffb.reducers.masks import Masking
from ffb.shot import Input
from ffb.source import Constants
from tests.unit.calibrations import calibrated

SHAPE = (2, 6, 67)


def camera(kind="opal", shape=SHAPE, **change):
    rng = np.random.default_rng(4)
    planes = (1, *shape)
    gain = rng.normal(16, 0.5, planes).astype(np.float32)
    gain[rng.random(planes) < 0.02] = 0
    given = {
        "pedestals": rng.normal(90, 5, planes).astype(np.float32),
        "gain": gain,
        "status": (rng.random(planes) < 0.02).astype(np.int64) * 4,
    }
    return Constants("cam", kind, shape, **(given | change))


def frame(dtype, shape=SHAPE):
    limits = np.iinfo(dtype)
    return np.random.default_rng(5).integers(limits.min, limits.max, shape, dtype, endpoint=True)


@pytest.mark.parametrize("dtype", ["|u1", "<u2", "<i2"])
@pytest.mark.parametrize("columns", [1, 64, 67])
def test_pixels_of_every_type_and_size(dtype, columns):
    shape = (2, 6, columns)
    c = camera(shape=shape)
    k = cal.make(c, None, Path, Input("area", dtype, shape))
    assert np.dtype(k.dtype) == np.dtype(dtype)
    raw = frame(dtype, shape)
    out, bad = calibrated(k, raw)
    good = (c.status[0] == 0) & (c.gain[0] != 0)
    np.testing.assert_array_equal(k.mask, good)
    with np.errstate(divide="ignore"):
        truth = (raw.astype(np.float64) - c.pedestals[0]) / c.gain[0]
    np.testing.assert_allclose(out[good], truth[good], rtol=3e-7, atol=1e-6)
    assert (out[~good] == 0).all()
    assert bad == 0
    assert k.unit == "keV"


def test_all_sixteen_bits_are_the_value():
    c = camera(gain=None, status=None, pedestals=np.zeros((1, *SHAPE), np.float32))
    raw = frame("<u2") | np.uint16(0xC000)
    np.testing.assert_array_equal(calibrated(cal.calibration_of(c), raw)[0], raw)


@pytest.mark.parametrize(
    ("kind", "factor", "unit"),
    [("epix100", 0.06, "keV"), ("archon", 3.65, "eV"), ("alvium", 1.0, "ADU")],
)
def test_without_gains_the_factor_is_psanas(kind, factor, unit):
    c = camera(kind, gain=None, status=None)
    k = cal.calibration_of(c)
    raw = frame("<u2")
    truth = (raw - c.pedestals[0]) * np.float32(factor)
    np.testing.assert_array_equal(calibrated(k, raw)[0], truth)
    assert k.unit == unit
    told = f"cam: no gains: psana's {factor} {unit}/ADU"
    adu = "cam: no gains: values are ADU above the pedestals"
    assert k.notes[-1] == (adu if kind == "alvium" else told)


@pytest.mark.parametrize("kind", ["opal", "axis", "archon", "piranha4", ""])
def test_a_camera_without_pedestals_keeps_its_adu(kind):
    c = camera(kind, pedestals=None, origin="psana's store")
    k = cal.calibration_of(c, masking=Masking(edges=(1, 1)))
    inside = np.zeros(SHAPE, bool)
    inside[:, 1:-1, 1:-1] = True
    good = (c.status[0] == 0) & inside
    raw = frame("<u2")
    np.testing.assert_array_equal(calibrated(k, raw)[0], np.where(good, raw, 0))
    assert k.unit == "ADU"
    assert k.notes == ("cam: raw ADU: no pedestals (constants: psana's store)",)


def test_an_epix100_without_pedestals_is_refused():
    with pytest.raises(LookupError, match=r'no pedestals .*cam = "none"'):
        cal.calibration_of(camera("epix100", pedestals=None))


@pytest.mark.parametrize("kind", cal.UNKNOWN)
def test_a_detector_that_switches_gain_in_a_way_not_known_is_refused(kind):
    with pytest.raises(LookupError, match=f"type '{kind}', which switch gain, are not") as error:
        cal.calibration_of(camera(kind))
    assert 'cam = "none" in [calibration]' in str(error.value)
    assert 'constants = "none", mask' in str(error.value)


def test_constants_of_more_ranges_are_refused():
    three = np.zeros((3, *SHAPE), np.float32)
    with pytest.raises(ValueError, match=r"pedestals \(3, 2, 6, 67\) instead of \(1, 2, 6, 67\)"):
        cal.calibration_of(camera("zyla", pedestals=three))


def test_settings_that_would_change_nothing_are_refused(tmp_path):
    given = Input("area", "<u2", SHAPE)
    said = "offset: psana's calibration of an opal has none"
    np.save(tmp_path / "a.npy", np.zeros(SHAPE, np.float32))
    with pytest.raises(ValueError, match=said):
        cal.make(camera(), CalibrationConfig(offset="a.npy"), tmp_path.joinpath, given)
    with pytest.raises(LookupError, match=rf"{said}.*\n.*offset from .*: cannot be read"):
        cal.make(camera(), CalibrationConfig(offset="b.npy"), tmp_path.joinpath, given)


@pytest.mark.parametrize("dtype", ["<i4", "<f4", ">u2"])
def test_other_words_are_refused(dtype):
    with pytest.raises(ValueError, match=r"only uint8 and uint16 and int16 .*cam = \"none\""):
        cal.make(camera(), None, Path, Input("area", dtype, SHAPE))


@pytest.mark.parametrize("axes", [2, 3, 4])
def test_files_may_leave_out_axes_of_one(tmp_path, axes):
    c = camera("alvium", (1, 6, 67))
    for name in ("pedestals", "gain", "status"):
        a = getattr(c, name)
        np.save(tmp_path / f"{name}.npy", a.reshape(a.shape[4 - axes :]))
    setting = CalibrationConfig(pedestals="pedestals.npy", gain="gain.npy", status="status.npy")
    bare = Constants("cam", "alvium", (1, 0, 0))
    given = Input("area", "|u1", (1, 6, 67))
    k = cal.make(bare, setting, lambda p: tmp_path / p, given)
    raw = frame("|u1", c.shape)
    same = cal.calibration_of(c)
    np.testing.assert_array_equal(calibrated(k, raw)[0], calibrated(same, raw)[0])
    np.testing.assert_array_equal(k.mask, same.mask)


def test_files_of_several_segments_have_no_axis_of_ranges(tmp_path):
    c = camera("epix100")
    np.save(tmp_path / "pedestals.npy", c.pedestals[0])
    bare = Constants("cam", "epix100", (2, 0, 0))
    setting = CalibrationConfig(pedestals="pedestals.npy")
    k = cal.make(bare, setting, lambda p: tmp_path / p, Input("area", "<u2", SHAPE))
    np.testing.assert_array_equal(k.constants.pedestal, c.pedestals.ravel())
