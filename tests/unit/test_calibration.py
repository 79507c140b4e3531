"""Raw ADU to keV, held to psana's formula written out in numpy."""

from pathlib import Path

import numpy as np
import pytest

from ffb.bind import Binder
from ffb.config import parse
from ffb.reducers import calibration as cal
from ffb.reducers.constants import from_files, uncalibrated
from ffb.settings import CalibrationConfig
from ffb.shot import Input
from ffb.source import Constants
from ffb.sources.choose import source_of

JF = (2, 5, 130)
EPIX = (2, 6, 70)


def jungfrau(shape=JF, seed=1, **change):
    rng = np.random.default_rng(seed)
    planes = (3, *shape)
    centre = np.array([2800.0, 14500.0, 14000.0]).reshape(3, 1, 1, 1)
    slope = np.array([40.0, -1.35, -0.1]).reshape(3, 1, 1, 1)
    gain = (slope * rng.normal(1, 0.01, planes)).astype(np.float32)
    gain[rng.random(planes) < 0.02] = 0
    given = {
        "pedestals": rng.normal(centre, 60, planes).astype(np.float32),
        "gain": gain,
        "offset": rng.normal(0, 3, planes).astype(np.float32),
        "status": (rng.random(planes) < 0.02).astype(np.uint64) * 3,
    }
    return Constants("jf", "jungfrau", shape, **(given | change))


def epix10ka(shape=EPIX, seed=2, **change):
    rng = np.random.default_rng(seed)
    planes = (7, *shape)
    slope = np.array([16.4, 5.466, 0.164, 16.4, 5.466, 0.164, 0.164]).reshape(7, 1, 1, 1)
    gain = (slope * rng.normal(1, 0.01, planes)).astype(np.float32)
    gain[rng.random(planes) < 0.02] = 0
    given = {
        "pedestals": rng.normal(3000, 300, planes).astype(np.float32),
        "gain": gain,
        "status": (rng.random(planes) < 0.02).astype(np.uint64),
        "config": rng.choice([0, 4, 8, 12, 16, 24, 28, 31], shape).astype(np.uint8),
    }
    return Constants("ep", "epix10ka", shape, **(given | change))


def ranges_of(c, raw):
    """Gain range of every raw pixel, -1 for none."""
    if c.dettype == "jungfrau":
        return np.array([0, 1, -1, 2])[raw >> 14]
    bits = c.config | (raw >> 9 & 32).astype(np.uint8)
    which = np.full(raw.shape, -1)
    for i, (mask, value) in enumerate(((28, 28), (28, 12), (12, 8), (60, 16), (60, 0), (60, 48))):
        which[bits & mask == value] = i
    which[bits & 60 == 32] = 6
    return which


def expected(c, raw, good):
    """psana's frame, two float32 roundings, and where it comes from no gain range."""
    which = ranges_of(c, raw)
    index = np.maximum(which, 0)[None]
    pedestals = c.pedestals if c.offset is None else c.pedestals + c.offset
    with np.errstate(divide="ignore"):
        factor = np.where(c.gain == 0, np.float32(0), np.float32(1) / c.gain)
    pedestal = np.take_along_axis(pedestals, index, 0)[0]
    factor = np.take_along_axis(factor, index, 0)[0]
    none = np.float32(0 if c.dettype == "jungfrau" else 1)
    pedestal = np.where(which < 0, np.float32(0), pedestal)
    factor = np.where(which < 0, none, factor)
    assert pedestal.dtype == factor.dtype == np.float32
    return ((raw & 0x3FFF).astype(np.float32) - pedestal) * (factor * good.astype(np.float32))


def words(shape, seed=3):
    """Raw frames with every gain code, the second without any switched pixel."""
    rng = np.random.default_rng(seed)
    any_word = rng.integers(0, 2**16, shape, np.uint16)
    some = np.where(rng.random(shape) < 0.01, any_word, any_word & 0x3FFF).astype(np.uint16)
    return [any_word, any_word & 0x3FFF, some, any_word & 0x3FFF | 0xC000]


def calibrated(k, raw):
    out = np.full(raw.shape, -99, np.float32)
    return out, k.calibrate([s.ravel() for s in raw], out)


def bits(a):
    return np.ascontiguousarray(a, np.float32).view(np.uint32)


DETECTORS = pytest.mark.parametrize("make", [jungfrau, epix10ka])


@DETECTORS
def test_psanas_frame_bit_by_bit(make):
    c = make()
    k = cal.calibration_of(c, psana=True)
    np.testing.assert_array_equal(k.mask, (c.status[:5] == 0).all(axis=0))
    for raw in words(c.shape):
        out, bad = calibrated(k, raw)
        reference = expected(c, raw, k.mask)
        np.testing.assert_array_equal(out, reference)
        used = reference != 0
        np.testing.assert_array_equal(bits(out)[used], bits(reference)[used])
        assert bad == 0


@DETECTORS
def test_reducers_see_masked_pixels_as_zero_and_undefined_ones_as_nan(make):
    c = make()
    k = cal.calibration_of(c)
    seen = 0
    for raw in words(c.shape):
        out, bad = calibrated(k, raw)
        which = ranges_of(c, raw)
        gain = np.take_along_axis(c.gain, np.maximum(which, 0)[None], 0)[0]
        undefined = k.mask & ((which < 0) | (gain == 0))
        np.testing.assert_array_equal(np.isnan(out), undefined)
        assert bad == undefined.sum()
        assert (out[~k.mask] == 0).all()
        fine = k.mask & ~undefined
        np.testing.assert_array_equal(bits(out)[fine], bits(expected(c, raw, k.mask))[fine])
        seen += bad
    assert seen > 0


@DETECTORS
def test_a_pixel_without_gain_in_its_first_range_is_masked_and_told(make):
    c = make()
    k = cal.calibration_of(c)
    first = np.maximum(ranges_of(c, np.zeros(c.shape, np.uint16)), 0)
    lost = np.take_along_axis(c.gain, first[None], 0)[0] == 0
    lost |= ranges_of(c, np.zeros(c.shape, np.uint16)) < 0
    good = (c.status[:5] == 0).all(axis=0)
    np.testing.assert_array_equal(k.mask, good & ~lost)
    number = int((good & lost).sum())
    assert number > 0
    assert k.notes == (f"{c.detector}: {number} pixels masked: no gain in their first range",)


@pytest.mark.parametrize("psana", [True, False])
@pytest.mark.parametrize("name", ["pedestals", "gain", "offset"])
def test_a_constant_that_is_not_finite_masks_the_pixel(name, psana):
    c = jungfrau()
    array = getattr(c, name)
    array[1, 0, 1, 3] = np.nan
    array[2, 1, 4, 129] = np.inf
    if name == "gain":  # infinite gain is a factor of 0: no gain, but a finite one
        array[2, 1, 4, 129] = np.float32(1e-45)
    c.status[:, [0, 1], [1, 4], [3, 129]] = 0
    c.gain[0, [0, 1], [1, 4], [3, 129]] = 40
    k = cal.calibration_of(c, psana=psana)
    assert not k.mask[0, 1, 3]
    assert not k.mask[1, 4, 129]
    assert k.notes[0] == "jf: 2 pixels masked: constants that are not finite"
    for raw in words(c.shape):
        out, _ = calibrated(k, raw)
        assert out[0, 1, 3] == out[1, 4, 129] == 0


@DETECTORS
@pytest.mark.parametrize("columns", [1, 2, 63, 64, 65, 129])
def test_odd_sizes(make, columns):
    c = make((1, 3, columns))
    k = cal.calibration_of(c, psana=True)
    for raw in words(c.shape):
        np.testing.assert_array_equal(calibrated(k, raw)[0], expected(c, raw, k.mask))


@DETECTORS
def test_raw_may_be_read_only_and_unaligned(make):
    c = make()
    k = cal.calibration_of(c)
    raw = words(c.shape)[0]
    reference, bad = calibrated(k, raw)
    out = np.zeros(c.shape, np.float32)
    segments = [np.frombuffer(b"x" + s.tobytes(), np.uint16, offset=1) for s in raw]
    assert not segments[0].flags.aligned
    assert not segments[0].flags.writeable
    assert k.calibrate(segments, out) == bad
    np.testing.assert_array_equal(out, reference)


def test_all_masks_are_anded():
    c = jungfrau()
    user = np.random.default_rng(8).random(JF) > 0.3
    k = cal.calibration_of(c, mask=user.astype(np.uint8) * 7, edges=1, psana=True)
    inside = np.zeros(JF, bool)
    inside[:, 1:-1, 1:-1] = True
    np.testing.assert_array_equal(k.mask, (c.status == 0).all(axis=0) & user & inside)
    out, _ = calibrated(k, words(JF)[0])
    assert (out[~k.mask] == 0).all()
    with pytest.raises(ValueError, match="edges = 3 leaves no pixel"):
        cal.calibration_of(c, edges=3)


def test_status_without_gain_ranges_serves_all_of_them():
    c = jungfrau()
    flat = jungfrau(status=c.status[0])
    k = cal.calibration_of(flat, psana=True)
    np.testing.assert_array_equal(k.mask, c.status[0] == 0)


def test_the_derived_ranges_of_an_epix10ka_mask_nothing():
    status = np.zeros((7, *EPIX), np.int64)
    status[5:] = 1
    assert cal.calibration_of(epix10ka(status=status), psana=True).mask.all()


def test_without_gain_the_unit_is_adu():
    c = jungfrau(gain=None, status=None, offset=None)
    k = cal.calibration_of(c)
    raw = words(JF)[1]
    out, _ = calibrated(k, raw)
    assert k.unit == "ADU"
    np.testing.assert_array_equal(out, raw.astype(np.float32) - c.pedestals[0])
    assert cal.calibration_of(jungfrau()).unit == "keV"


def test_constants_of_another_detector_are_refused_with_both_shapes():
    c = jungfrau(offset=np.zeros((3, 8, 512, 1024), np.float32))
    with pytest.raises(ValueError, match="2 segments of 5 x 130") as error:
        cal.calibration_of(c, mask=np.ones((1, 5, 130)))
    assert "offset (3, 8, 512, 1024) instead of (3, 2, 5, 130)" in str(error.value)
    assert "mask (1, 5, 130) instead of (2, 5, 130)" in str(error.value)


@pytest.mark.parametrize(
    ("c", "message"),
    [
        (jungfrau(pedestals=None), "no pedestals"),
        (epix10ka(config=None), "configuration bits"),
    ],
    ids=["pedestals", "config"],
)
def test_what_cannot_be_calibrated_says_how_to_go_without(c, message):
    with pytest.raises(LookupError, match=message) as error:
        cal.calibration_of(c)
    assert f'{c.detector} = "none"' in str(error.value)


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
    constants, mask = from_files(stored, CalibrationConfig(gain="all.npz"), lambda p: files / p)
    assert mask is None
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
        ({"pedestals": "text.npy"}, LookupError, "no numpy file"),
        ({"pedestals": "empty.npy"}, LookupError, "no numpy file"),
        (
            {"status": "all.npz"},
            LookupError,
            r"no array 'status' in it, only \['pedestals', 'gain'\]",
        ),
        ({"pedestals": "words.npy"}, LookupError, "no numbers"),
        ({"pedestals": "all.npz", "mask": "mask.npy"}, ValueError, r"mask \(2, 5, 65\) instead of"),
        ({"gain": "gain.npy"}, LookupError, "no pedestals"),
    ],
    ids=str,
)
def test_a_file_that_will_not_do_says_so(files, setting, error, message):
    (files / "text.npy").write_text("pedestals: 1, 2, 3")
    (files / "empty.npy").write_text("")
    np.save(files / "words.npy", np.full((3, *JF), "a"))
    with pytest.raises(error, match=message) as raised:
        make(files, **setting)
    assert "jf" in str(raised.value)


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


def test_a_detector_without_calibration_says_what_can_be_done():
    for kind in ("epix100", "opal", "rayonix"):
        with pytest.raises(LookupError, match=f"type '{kind}' are not calibrated yet") as error:
            cal.calibration_of(Constants("cam", kind, (1, 4, 4), pedestals=np.zeros((1, 1, 4, 4))))
        assert 'cam = "none" in [calibration]' in str(error.value)
        assert 'constants = "none", mask' in str(error.value)


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
    bound = Binder(config, next(source_of(config).runs())).bind()
    area, ids = bound.detectors["area"].area, bound.detectors["area"].ids
    inside = np.zeros((2, 64, 128), bool)
    inside[:, 2:-2, 2:-2] = True
    np.testing.assert_array_equal(area.mask, np.load(tmp_path / "mask.npy") & inside)
    assert area.unit == "ADU"
    assert ids["origin"] == "none"
    assert ids["mask"].startswith("mask.npy sha256:")
