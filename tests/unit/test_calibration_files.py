"""Constants from files: named with their hash, by segment, and refused where they do not fit."""

from pathlib import Path

import numpy as np
import pytest

from ffb.configuration.calibration_settings import CalibrationConfig
from ffb.reducers import calibration as cal
from ffb.reducers.constants import from_files
from ffb.shot import Input
from ffb.source import Constants
from tests.unit.calibrations import EPIX, JF, calibrated, epix10ka, jungfrau, words


@pytest.fixture
def files(tmp_path):
    c = jungfrau()
    for name in ("pedestals", "gain", "offset", "status"):
        np.save(tmp_path / f"{name}.npy", getattr(c, name))
    np.savez(tmp_path / "all.npz", pedestals=c.pedestals, gain=c.gain)
    np.save(tmp_path / "mask.npy", np.arange(10 * 65).reshape(2, 5, 65) % 7)
    return tmp_path


def make(files: Path, constants=None, given=None, **setting):
    bare = constants or Constants("jf", "jungfrau", (2, 0, 0), origin="none")
    setting = CalibrationConfig(**setting)
    return cal.make(bare, setting, lambda p: files / p, given or Input("area", "<u2", JF))


def test_constants_from_files_are_named_with_their_hash(files):
    c = jungfrau()
    k = make(files, pedestals="pedestals.npy", gain="gain.npy", offset="offset.npy",
             status="status.npy", unit="photons")  # fmt: skip
    same = cal.calibration_of(c)
    for raw in words(JF):
        np.testing.assert_array_equal(calibrated(k, raw)[0], calibrated(same, raw)[0])
    assert k.unit == "photons"
    assert k.origin == "files"
    assert set(k.ids) == {"pedestals", "gain", "offset", "status"}
    name, digest = k.ids["gain"].split(" sha256:")
    assert name == "gain.npy"
    assert len(digest) == 12
    assert digest != k.ids["offset"].split(" sha256:")[1]


def test_files_replace_what_the_store_has_and_leave_the_rest(files):
    stored = jungfrau(seed=9)
    stored = Constants(
        **(vars(stored) | {"origin": "psana's store", "ids": {"gain": "a", "offset": "b"}})
    )
    constants, masks = from_files(stored, CalibrationConfig(gain="all.npz"), lambda p: files / p)
    assert masks == {}
    np.testing.assert_array_equal(constants.gain, jungfrau().gain)
    np.testing.assert_array_equal(constants.pedestals, stored.pedestals)
    assert constants.origin == "files; psana's store"
    assert constants.ids["gain"].startswith("all.npz sha256:")
    assert constants.ids["offset"] == "b"


def test_a_single_segment_needs_no_axis_of_its_own(files):
    one = jungfrau((1, 5, 130))
    np.save(files / "p1.npy", one.pedestals[:, 0])
    np.save(files / "m1.npy", np.ones((5, 130), bool))
    given = Input("area", "<u2", one.shape)
    bare = Constants("jf", "jungfrau", (1, 0, 0))
    k = make(files, bare, given, pedestals="p1.npy", mask="m1.npy")
    assert k.mask.shape == one.shape
    np.testing.assert_array_equal(k.constants.pedestal, one.pedestals[0].ravel())


@pytest.mark.parametrize(
    ("setting", "error", "message"),
    [
        ({"pedestals": "no.npy"}, LookupError, "no.npy: cannot be read: No such file"),
        ({"pedestals": "text.npy"}, LookupError, "cannot be read: it is no .npy or .npz file"),
        ({"pedestals": "empty.npy"}, LookupError, "cannot be read: it is no .npy or .npz file"),
        (
            {"status": "all.npz"},
            LookupError,
            r"no array 'status' in it, only \['pedestals', 'gain'\]",
        ),
        ({"pedestals": "words.npy"}, LookupError, "no numbers"),
        ({"pedestals": "all.npz", "mask": "nan.npy"}, LookupError, "mask has 1 NaN, neither good"),
        ({"pedestals": "all.npz", "mask": "none.npy"}, ValueError, "mask: every pixel is 0, which"),
        ({"pedestals": "all.npz", "mask": "mask.npy"}, ValueError, r"mask \(2, 5, 65\) instead of"),
        ({"gain": "gain.npy"}, LookupError, "no pedestals"),
    ],
    ids=str,
)
def test_a_file_that_will_not_do_says_so(files, setting, error, message):
    (files / "text.npy").write_text("pedestals: 1, 2, 3")
    (files / "empty.npy").write_text("")
    np.save(files / "words.npy", np.full((3, *JF), "a"))
    np.save(files / "nan.npy", np.where(np.arange(1300).reshape(JF) == 7, np.nan, 1))
    np.save(files / "none.npy", np.zeros(JF, bool))
    with pytest.raises(error, match=message) as raised:
        make(files, **setting)
    assert "jf" in str(raised.value)


def test_all_that_is_wrong_with_files_is_told_at_once(files):
    (files / "text.npy").write_text("pedestals: 1, 2, 3")
    asked = {"pedestals": "no.npy", "gain": "text.npy", "mask": "not.npy", "unit": "keV"}
    with pytest.raises(LookupError) as raised:
        make(files, **asked, common_mode={"over": "rows", "unbonded": "none.npy"})
    told = str(raised.value).splitlines()
    assert [line.split()[1] for line in told] == ["pedestals", "gain", "mask", "unbonded"]
    with pytest.raises(LookupError) as raised:
        make(files, pedestals="no.npy", unit="photons")
    assert [line.split()[0] for line in str(raised.value).splitlines()] == ["unit:", "jf:"]


def test_a_mask_that_hides_most_pixels_is_noted(files):
    np.save(files / "few.npy", np.arange(1300).reshape(JF) % 10 == 0)
    k = make(files, pedestals="pedestals.npy", mask="few.npy")
    assert "jf: mask: 90% of the pixels are 0, which is bad" in k.notes


def test_raw_pixels_of_another_type_are_refused(files):
    with pytest.raises(ValueError, match="<f4"):
        make(files, given=Input("area", "<f4", JF), pedestals="pedestals.npy")


def test_the_stores_constants_serve_as_they_are():
    c = jungfrau()
    k = cal.make(c, None, Path, Input("area", "<u2", JF))
    np.testing.assert_array_equal(k.mask, cal.calibration_of(c).mask)
    with pytest.raises(ValueError, match="3 segments"):
        cal.make(c, None, Path, Input("area", "<u2", (3, 5, 130)))


def test_files_of_all_segments_serve_a_run_that_leaves_out_some(tmp_path):
    whole = jungfrau((8, 5, 130))
    for name in ("pedestals", "gain", "offset"):
        np.save(tmp_path / f"{name}.npy", getattr(whole, name))
    np.save(tmp_path / "status.npy", whole.status[0])
    mask = np.random.default_rng(1).random((8, 5, 130)) > 0.1
    np.save(tmp_path / "mask.npy", mask)
    setting = {f: f"{f}.npy" for f in ("pedestals", "gain", "offset", "status", "mask")}
    numbers = (2, 5)
    bare = Constants("jf", "jungfrau", (2, 0, 0), segments=numbers)
    k = make(tmp_path, bare, **setting)
    part = {f: getattr(whole, f)[:, numbers] for f in ("pedestals", "gain", "offset")}
    part["status"] = whole.status[0][list(numbers)]
    same = cal.calibration_of(Constants("jf", "jungfrau", JF, **part), mask=mask[list(numbers)])
    np.testing.assert_array_equal(k.mask, same.mask)
    for raw in words(JF):
        np.testing.assert_array_equal(calibrated(k, raw)[0], calibrated(same, raw)[0])
    assert all(text.endswith(", segments 2, 5 of 8") for text in k.ids.values())


@pytest.mark.parametrize("numbers", [(), (0, 1), (2, 9)])
def test_files_of_a_larger_detector_are_refused(tmp_path, numbers):
    np.save(tmp_path / "pedestals.npy", jungfrau((8, 5, 130)).pedestals)
    bare = Constants("jf", "jungfrau", (2, 0, 0), segments=numbers)
    with pytest.raises(ValueError, match=r"pedestals \(3, 8, 5, 130\) instead of \(3, 2, 5, 130\)"):
        make(tmp_path, bare, pedestals="pedestals.npy")


def test_settings_that_say_what_is_not_so_are_refused(files):
    with pytest.raises(ValueError, match="unit: psana's gains are in ADU/keV; for 'photons'"):
        make(files, jungfrau(), pedestals="pedestals.npy", unit="photons")
    given = Input("area", "<u2", EPIX)
    with pytest.raises(ValueError, match="offset: psana's calibration of an epix10ka has none"):
        make(files, epix10ka(), given, offset="offset.npy")
