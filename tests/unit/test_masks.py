"""Masks of status, neighbours, edges and seams, held to distances counted pixel by pixel."""

from pathlib import Path

import numpy as np
import pytest

from ffb.configuration.calibration_settings import CalibrationConfig
from ffb.reducers import calibration as cal
from ffb.reducers.masks import ASICS, Masking, apart, good_pixels, shrunk
from ffb.shot import Input
from ffb.source import Constants
from tests.unit.calibrations import epix10ka, jungfrau

SHAPE = (2, 13, 17)


def far_from(bad, radius, distance):
    """Pixels with no bad one of their segment at up to ``radius``."""
    out = np.ones(bad.shape, bool)
    rows, columns = np.indices(bad.shape[1:])
    for s, r, c in np.argwhere(bad):
        out[s] &= distance(abs(rows - r), abs(columns - c)) > radius
    return out


@pytest.mark.parametrize("radius", [0, 1, 2, 5, 20])
@pytest.mark.parametrize(
    ("neighborhood", "distance"),
    [("rhombus", np.add), ("circle", np.hypot), ("square", np.maximum)],
    ids=["rhombus", "circle", "square"],
)
def test_neighbours_of_bad_pixels_are_bad(neighborhood, distance, radius):
    bad = np.zeros(SHAPE, bool)
    bad[0, [0, 6, 12], [0, 9, 16]] = bad[1, 3, 2] = True
    good = shrunk(~bad, radius, neighborhood)
    np.testing.assert_array_equal(good, far_from(bad, radius, distance))
    assert bad[0, 0, 0]


@pytest.mark.parametrize("bits", [None, 1, 2, 5, 1 << 40])
def test_bits_of_the_status_are_chosen(bits):
    status = np.random.default_rng(2).choice(
        [0, 1, 2, 3, 4, 1 << 40], (3, *SHAPE), p=[0.9] + [0.02] * 5
    )
    c = jungfrau(SHAPE, status=status.astype(np.int64))
    chosen = ((status if bits is None else status & bits) == 0).all(axis=0)
    np.testing.assert_array_equal(good_pixels(c, Masking(bits)), chosen)
    user = np.random.default_rng(3).random(SHAPE) > 0.1
    both = good_pixels(c, Masking(bits, neighbors=1), user)
    np.testing.assert_array_equal(both, far_from(~chosen, 1, np.add) & user)


@pytest.mark.parametrize("bits", [None, 2, 0])
def test_more_of_the_status_masks_pixels_too(bits):
    status, extra = np.random.default_rng(5).choice([0, 1, 2], (2, 3, *SHAPE), p=[0.9, 0.05, 0.05])
    c = jungfrau(SHAPE, status=status, status_extra=extra)
    chosen = ((extra if bits is None else extra & bits) == 0).all(axis=0)
    good = chosen & ((status & 1) == 0).all(axis=0)
    np.testing.assert_array_equal(good_pixels(c, Masking(1, bits)), good)
    setting = CalibrationConfig(status_bits=1, neighbors=2, status_extra_bits=bits)
    near = far_from(~good, 2, np.add)
    np.testing.assert_array_equal(good_pixels(c, Masking.of(setting)), near)
    for short in (extra[0], extra[:, :1]):
        c = jungfrau(SHAPE, status_extra=short)
        if short.ndim == 3:
            assert not (cal.calibration_of(c).mask & (short != 0)).any()
        else:
            with pytest.raises(ValueError, match=r"but status_extra \(3, 1, 13, 17\) instead of"):
                cal.calibration_of(c)


@pytest.mark.parametrize("dettype", ASICS)
def test_pixels_beside_a_seam_are_masked(dettype):
    rows, columns = ASICS[dettype]
    shape = (1, 2 * rows, 3 * columns)
    good = apart(Constants("d", dettype, shape), 2, 1)
    bad_rows = np.isin(np.arange(shape[1]), np.arange(rows - 2, rows + 2))
    seams = [columns - 1, columns, 2 * columns - 1, 2 * columns]
    bad_columns = np.isin(np.arange(shape[2]), seams)
    np.testing.assert_array_equal(~good[0], bad_rows[:, None] | bad_columns)
    assert apart(Constants("d", dettype, shape), 0, 0).all()


def test_the_seams_of_an_unknown_detector_are_refused():
    setting = CalibrationConfig(center=[1, 2])
    camera = Constants("cam", "rayonix", SHAPE, np.zeros((1, *SHAPE), np.float32))
    with pytest.raises(ValueError, match="cam: center: the ASICs of an rayonix are not known"):
        cal.make(camera, setting, Path, Input("area", "<u2", SHAPE))


def test_settings_make_masks():
    setting = CalibrationConfig(status_bits=3, neighbors=2, neighborhood="square", edges=[0, 2])
    c = epix10ka((2, 176, 384))
    k = cal.make(c, setting, Path, Input("area", "<u2", c.shape))
    inner = np.zeros(c.shape, bool)
    inner[:, :, 2:-2] = True
    good = far_from((c.status[:5] & 3).any(axis=0), 2, np.maximum) & inner
    none = cal.calibration_of(epix10ka((2, 176, 384), status=None)).mask
    np.testing.assert_array_equal(k.mask, good & none)
    assert CalibrationConfig(edges=3).edges == (3, 3)
    with pytest.raises(ValueError, match=r"center: expected \[rows, columns\] or a number"):
        CalibrationConfig(center=[1, 2, 3])
    with pytest.raises(ValueError, match="leave out neighbors"):
        CalibrationConfig(constants="none", neighbors=2)
    with pytest.raises(ValueError, match=r"edges = \[0, 9\] leaves no pixel"):
        good_pixels(Constants("d", "", SHAPE), Masking(edges=(0, 9)))
    line = good_pixels(Constants("d", "", (1, 1, 8)), Masking(edges=(0, 3)))
    assert line.sum() == 2


@pytest.mark.parametrize("ranges", [1, 3])
def test_texts_hold_a_row_of_pixels_a_line(tmp_path, ranges):
    c = (
        jungfrau((2, 5, 7))
        if ranges == 3
        else Constants("cam", "rayonix", (2, 5, 7), jungfrau((2, 5, 7)).pedestals[:1])
    )
    mask = np.random.default_rng(1).random(c.shape) > 0.2
    np.savetxt(tmp_path / "ped.txt", c.pedestals.reshape(-1, 7), header="DTYPE float32", fmt="%.9g")
    np.savetxt(tmp_path / "mask.data", mask.reshape(-1, 7), fmt="%d")
    (tmp_path / "no.txt").write_text("a row of pixels")
    setting = CalibrationConfig(pedestals="ped.txt", mask="mask.data")
    given = Input("area", "<u2", c.shape)
    bare = Constants(c.detector, c.dettype, (2, 0, 0))
    k = cal.make(bare, setting, lambda p: tmp_path / p, given)
    same = cal.calibration_of(Constants(c.detector, c.dettype, c.shape, c.pedestals), mask=mask)
    np.testing.assert_array_equal(k.mask, same.mask)
    np.testing.assert_array_equal(k.constants.pedestal, same.constants.pedestal)
    assert k.ids["mask"].startswith("mask.data sha256:")
    with pytest.raises(LookupError, match="no text of numbers"):
        cal.make(bare, CalibrationConfig(mask="no.txt"), lambda p: tmp_path / p, given)
