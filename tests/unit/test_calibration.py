"""Raw ADU to keV, held to psana's formula written out in numpy."""

import numpy as np
import pytest

from ffb.reducers import calibration as cal
from ffb.reducers.masks import Masking
from tests.unit.calibrations import (
    EPIX,
    JF,
    bits,
    calibrated,
    epix10ka,
    expected,
    jungfrau,
    ranges_of,
    words,
)

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
def test_noise_is_the_rms_over_the_gain_of_the_first_range(make):
    c = make()
    assert cal.calibration_of(c).noise is None
    made_of = np.random.default_rng(3).uniform(1, 9, c.pedestals.shape).astype(np.float32)
    made = cal.calibration_of(make(rms=made_of))
    first = np.maximum(ranges_of(c, np.zeros(c.shape, np.uint16)), 0)[None]
    rms, gain = (np.take_along_axis(a, first, 0)[0].astype(float) for a in (made_of, c.gain))
    good = made.mask
    np.testing.assert_allclose(made.noise[good], rms[good] / np.abs(gain[good]), rtol=3e-7)
    turned = cal.calibration_of(make(rms=made_of, gain=-c.gain))  # noise has no sign
    np.testing.assert_array_equal(turned.noise, made.noise)
    with pytest.raises(ValueError, match=r"rms \(1, 1\) instead of"):
        cal.calibration_of(make(rms=np.ones((1, 1), np.float32)))


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
    k = cal.calibration_of(
        c, mask=user.astype(np.uint8) * 7, masking=Masking(edges=(1, 1)), psana=True
    )
    inside = np.zeros(JF, bool)
    inside[:, 1:-1, 1:-1] = True
    np.testing.assert_array_equal(k.mask, (c.status == 0).all(axis=0) & user & inside)
    out, _ = calibrated(k, words(JF)[0])
    assert (out[~k.mask] == 0).all()
    with pytest.raises(ValueError, match="edges = 3 leaves no pixel"):
        cal.calibration_of(c, masking=Masking(edges=(3, 3)))


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


@DETECTORS
def test_every_pixel_in_the_dark_is_dark_in_whatever_range_it_is(make):
    """Also where its bits hold it in one: smalldata_tools' 0 takes the first range's pedestal."""
    c = make(gain=None, offset=None, status=None)
    k = cal.calibration_of(c)
    for code in (0, 1, 3):
        raw = np.full(c.shape, code << 14, np.uint16)
        which = ranges_of(c, raw)
        dark = np.take_along_axis(np.round(c.pedestals), np.maximum(which, 0)[None], 0)[0]
        raw |= dark.astype(np.uint16)
        out, bad = calibrated(k, raw)
        known = which >= 0
        assert (abs(out[known]) <= 0.5).all()
        assert known.any()
        assert bad == 0
