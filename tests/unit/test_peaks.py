"""Peaks held to psana's ``peakfinder_8``, used as a black box, and to scipy's labels."""

import numpy as np
import pytest
from scipy import ndimage

from ffb import Area
from ffb.reducers.peaks import Params, peaks
from ffb.sources.standins import import_psana
from tests.unit.passes import member, reduce

SHAPE = (120, 130)
BEAM = (54.3, 62.7)  # pixels
SETTINGS = Params(
    distance=100.0, energy=9.5, adc=10.0, snr=5.0, min_pixels=2, max_pixels=50, capacity=100, hit=5
)


def scene(seed, spots=15):
    """Spots and hot pixels on a background that falls with the radius; frame and mask."""
    rng = np.random.default_rng(seed)
    r, c = np.indices(SHAPE)
    frame = 20 * np.exp(-np.hypot(r - BEAM[0], c - BEAM[1]) / 60) + rng.normal(5, 1, SHAPE)
    for _ in range(spots):
        y, x = (rng.uniform(4, n - 5) for n in SHAPE)
        frame += rng.uniform(10, 300) * np.exp(-((r - y) ** 2 + (c - x) ** 2) / 2)
    frame[rng.integers(0, SHAPE[0], 9), rng.integers(0, SHAPE[1], 9)] += 500
    mask = rng.random(SHAPE) > 0.01
    mask[40:44] = False
    return np.where(mask, frame, 0).astype(np.float32), mask


def detector(mask, segments=1):
    r, c = np.indices(SHAPE)
    xyz = np.stack([(r - BEAM[0]) * 75.0, (c - BEAM[1]) * 75.0, 0.0 * r])
    parts = (segments, SHAPE[0] // segments, SHAPE[1])
    return Area("det", parts, mask.reshape(parts), xyz.reshape(3, *parts), "keV")


def found(frame, mask, params=SETTINGS):
    area = detector(mask)
    out = reduce([member("p", peaks, params, area)], area, [frame[None]])
    n = out["p/n"][0]
    return {k.removeprefix("p/"): v[0][:n] if v.ndim > 1 else v[0] for k, v in out.items()}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_peaks_are_those_of_psana(seed):
    frame, mask = scene(seed)
    r, c = np.indices(SHAPE)
    radius = np.hypot(r - BEAM[0], c - BEAM[1]).astype(np.float32)
    find = import_psana("psana.peakfinder8").peakfinder_8
    theirs = find(
        100, frame, mask.astype(np.int8), radius, SHAPE[1], SHAPE[0], 1, 1, 10.0, 5.0, 2, 50, 3
    )
    x, y, intensity, _, npix, _, _, _ = (np.array(o) for o in theirs)
    ours = found(frame, mask)
    assert ours["n"] == ours["found"] == x.size > 8
    nearest = np.hypot(ours["row"][:, None] - y, ours["col"][:, None] - x).argmin(axis=0)
    assert sorted(nearest) == list(range(x.size))
    np.testing.assert_allclose(ours["row"][nearest], y, atol=0.3)
    np.testing.assert_allclose(ours["col"][nearest], x, atol=0.3)
    np.testing.assert_array_equal(ours["npix"][nearest], npix)
    np.testing.assert_allclose(ours["intensity"][nearest], intensity, rtol=0.05)


def test_peaks_are_the_labels_of_lit_pixels():
    frame, mask = scene(4)
    frame[10, 10:13] = np.nan
    ours = found(frame, mask, SETTINGS._replace(snr=8.0))
    r, c = np.indices(SHAPE)
    ring = np.rint(np.hypot(r - BEAM[0], c - BEAM[1])).astype(int)
    good = mask & ~np.isnan(frame)
    v, low, high = frame.astype(float), -np.inf, np.inf
    for _ in range(5):
        kept = good & (v >= low) & (v <= high)
        n = np.bincount(ring[kept], minlength=ring.max() + 1)
        mean = np.bincount(ring[kept], v[kept], ring.max() + 1) / n
        spread = np.sqrt(np.bincount(ring[kept], v[kept] ** 2, ring.max() + 1) / n - mean**2)
        low, high = (mean - 8 * spread)[ring], np.maximum(mean + 8 * spread, 10)[ring]
    labels, _ = ndimage.label(good & (v > high), np.ones((3, 3)))
    sizes = np.bincount(labels.ravel())[1:]
    assert sorted(ours["npix"]) == sorted(s for s in sizes if 2 <= s <= 50)


def test_what_a_peak_is_told_with():
    frame, mask = np.zeros(SHAPE, np.float32), np.ones(SHAPE, bool)
    frame += np.indices(SHAPE).sum(axis=0) % 2  # mean 0.5, spread 0.5
    frame[20, 30:32] = 100.5
    ours = found(frame, mask)
    assert (ours["n"], ours["hit"], ours["overflow"]) == (1, False, False)
    assert (ours["row"][0], ours["col"][0]) == pytest.approx((20, 30.5))
    assert ours["max"][0] == pytest.approx(100, rel=0.01)
    assert ours["intensity"][0] == pytest.approx(200, rel=0.01)
    assert ours["snr"][0] == pytest.approx(400, rel=0.02)
    theta = np.arctan(np.hypot(20 - BEAM[0], 30 - BEAM[1]) * 0.075 / 100) / 2
    assert ours["q"][0] == pytest.approx(4 * np.pi * 9.5 / 12.39842 * np.sin(theta), rel=1e-3)


def test_more_peaks_than_the_capacity_are_counted_and_flagged():
    frame, mask = scene(1)
    whole, cut = found(frame, mask), found(frame, mask, SETTINGS._replace(capacity=3))
    assert (cut["n"], cut["found"], cut["overflow"]) == (3, whole["n"], True)
    assert whole["hit"]
    assert cut["hit"]
    np.testing.assert_array_equal(cut["row"], whole["row"][:3])


def test_peaks_are_sought_between_two_radii():
    frame, mask = scene(2)
    r, c = np.indices(SHAPE)
    steps = np.rint(np.hypot(r - BEAM[0], c - BEAM[1]))
    ring = mask & (steps >= 12) & (steps <= 45)
    inside, hidden = found(frame, mask, SETTINGS._replace(radius=(12, 45))), found(frame, ring)
    assert 0 < inside["n"] < found(frame, mask)["n"]
    for name, value in hidden.items():
        np.testing.assert_array_equal(inside[name], value, name)
    with pytest.raises(ValueError, match=r"radius: no good pixel is 900 to 950 steps"):
        peaks.prepare(SETTINGS._replace(radius=(900, 950)), detector(mask))


def test_frames_without_anything_have_no_peaks():
    mask = np.ones(SHAPE, bool)
    for level in (0.0, np.nan, 1e6):
        ours = found(np.full(SHAPE, level, np.float32), mask)
        assert (ours["n"], ours["hit"]) == (0, False)


def test_everything_that_cannot_be_meant_is_listed_at_once():
    params = Params(
        adc=np.nan, snr=0.0, min_pixels=9, max_pixels=3, local_radius=0, pixel=0.0, capacity=0,
        hit=0, radius=(9.0, 3.0),
    )  # fmt: skip
    with pytest.raises(ValueError, match="distance: give") as error:
        peaks.prepare(params, detector(np.zeros(SHAPE, bool)))
    names = [line.split(":")[0] for line in str(error.value).splitlines()]
    assert names == [
        *("distance", "adc", "snr", "min_pixels", "local_radius", "pixel", "radius", "capacity"),
        *("hit", "adc"),
    ]
