"""Peaks held to psana's ``peakfinder_8``, used as a black box, and to scipy's labels."""

import numpy as np
import pytest
from scipy import ndimage

from ffb import Area
from ffb.reducers import geometry
from ffb.reducers.peaks import Params, peaks
from ffb.sources.standins import import_psana
from tests.unit.passes import member, reduce

SHAPE = (120, 130)
BEAM = (54.3, 62.7)  # pixels
SETTINGS = Params(
    distance=100.0, energy=9.5, adc=10.0, snr=5.0, min_npix=2, max_npix=50, capacity=100, hit=5
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


def rings(seed, saturation):
    """Two rings and spots on eight segments in two columns, some of them across their edges.

    Returns frame, mask and the radius in pixels, each (960, 130): segments one above the other.
    """
    rng = np.random.default_rng(seed)
    s, r, c = np.indices((8, *SHAPE))
    y, x = s // 2 * (SHAPE[0] + 9) + r - 250.3, s % 2 * (SHAPE[1] + 11) + c - 136.2
    radius = np.hypot(y, x)
    frame = 30 * np.exp(-radius / 80) + 4 * np.exp(-((radius - 100) ** 2) / 18)
    frame += 8 * np.exp(-((radius - 61) ** 2) / 8) + rng.normal(2, 1, frame.shape)
    for _ in range(60):
        k, at = rng.integers(8), [rng.uniform(-1, n) for n in SHAPE]
        away = (r[k] - at[0]) ** 2 + (c[k] - at[1]) ** 2
        frame[k] += rng.uniform(8, 500) * np.exp(-away / (2 * rng.uniform(0.6, 1.5) ** 2))
    frame = np.minimum(frame, saturation)
    frame.flat[rng.integers(0, frame.size, 40)] += 1000
    mask = rng.random(frame.shape) > 0.01
    mask[:, 59:61] = mask[:, :, 64:66] = mask[2, 30:50, 30:70] = False
    frame = np.where(mask, frame, 0).astype(np.float32)
    return tuple(a.reshape(-1, SHAPE[1]) for a in (frame, mask, radius, y, x))


def detector(mask, segments=1, yx=None):
    r, c = np.indices(SHAPE) if yx is None else yx
    y, x = (r - BEAM[0], c - BEAM[1]) if yx is None else (r, c)
    xyz = np.stack([y * 75.0, x * 75.0, 0.0 * r])
    parts = (segments, mask.shape[0] // segments, mask.shape[1])
    return Area("det", parts, mask.reshape(parts), xyz.reshape(3, *parts), "keV")


def found(frame, mask, params=SETTINGS, segments=1, yx=None):
    area = detector(mask, segments, yx)
    out = reduce([member("p", peaks, params, area)], area, [frame.reshape(area.shape)])
    n = out["p/n"][0]
    return {k.removeprefix("p/"): v[0][:n] if v.ndim > 1 else v[0] for k, v in out.items()}


def psanas(frame, mask, radius, params, segments=1):
    """Row in the stack of segments, column, sum, pixels, largest and snr of psana's peaks."""
    find = import_psana("psana.peakfinder8").peakfinder_8
    p, (rows, columns) = params, mask.shape
    x, y, total, _, npix, largest, _, snr = (
        np.array(o)
        for o in find(
            *(p.capacity, frame, mask.astype(np.int8), radius.astype(np.float32)),
            *(columns, rows // segments, 1, segments),
            *(p.adc, p.snr, p.min_npix, p.max_npix, p.local_radius),
        )
    )
    return {"row": y, "col": x, "intensity": total, "npix": npix, "max": largest, "snr": snr}


def assert_the_same(ours, theirs, rows=0):
    assert ours["n"] == theirs["row"].size > 8
    ours = ours | {"row": ours["segment"] * rows + ours["row"]}
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=2e-3 if name == "snr" else 1e-4)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_peaks_are_those_of_psana(seed):
    frame, mask = scene(seed)
    r, c = np.indices(SHAPE)
    radius = np.hypot(r - BEAM[0], c - BEAM[1])
    assert_the_same(found(frame, mask), psanas(frame, mask, radius, SETTINGS))


@pytest.mark.parametrize(
    ("change", "saturation"),
    [
        ({}, np.inf),
        ({"snr": 6.0, "adc": 0.0, "min_npix": 1, "max_npix": 20, "local_radius": 2}, np.inf),
        ({"snr": 4.0, "adc": 15.0, "min_npix": 3, "local_radius": 5}, 120.0),
        ({"snr": 8.0, "adc": 5.0, "max_npix": 30}, 120.0),
    ],
    ids=str,
)
def test_peaks_of_eight_segments_with_rings_are_those_of_psana(change, saturation):
    frame, mask, radius, y, x = rings(3, saturation)
    params = SETTINGS._replace(capacity=500, **change)
    ours = found(frame, mask, params, 8, (y, x))
    assert_the_same(ours, psanas(frame, mask, radius, params, 8), SHAPE[0])
    q = geometry.Geometry.of(100.0, 9.5).q(np.arctan(radius * 0.075 / 100.0))
    r = np.rint(ours["segment"] * SHAPE[0] + ours["row"]).astype(int)
    near = q[r, np.rint(ours["col"]).astype(int)]
    np.testing.assert_allclose(ours["q"], near, atol=np.diff(q[:, 0]).max() * 3)


def one(frame, **change):
    mask = np.ones(SHAPE, bool)
    radius = np.full(SHAPE, 5.0)
    theirs = psanas(frame, mask, radius, SETTINGS._replace(**change))
    ours = found(frame, mask, SETTINGS._replace(distance=5e4, pixel=1e6, **change))
    assert ours["n"] == theirs["row"].size
    return ours["n"]


def test_what_decides_at_edges_and_beside_what_is_brighter():
    flat = (np.indices(SHAPE).sum(axis=0) % 2).astype(np.float32)
    for rows, columns, n in (
        ([0, 0], [20, 21], 0),  # all on an edge of the segment
        ([0, 1], [20, 20], 1),
        ([30, 31], [0, 1], 1),
        ([119, 118], [129, 128], 1),
        ([50, 51], [129, 129], 0),
    ):
        frame = flat.copy()
        frame[rows, columns] = 100.0, 60.0
        assert one(frame) == n
    frame = flat.copy()
    frame[40:60, 40:60] = 0.5  # nothing spreads around it
    frame[50, 50:52] = 100.0
    assert one(frame) == 0
    frame[46, 50] = 0.7
    assert one(frame) == 1


def test_psana_joins_peaks_by_a_pixel_that_another_left_in_memory():
    frame = (np.indices(SHAPE).sum(axis=0) % 2).astype(np.float32)
    frame[20, 20:26] = 100.0  # a larger peak, of the first segment
    frame[60 + 10, 40:43] = frame[60 + 21, 23:25] = 100.0  # beside where the fourth of those was
    mask, radius = np.ones(SHAPE, bool), np.full(SHAPE, 5.0)
    theirs = psanas(frame, mask, radius, SETTINGS, 2)
    ours = found(frame, mask, SETTINGS._replace(distance=5e4, pixel=1e6), 2)
    assert theirs["npix"].tolist() == [6, 5]
    assert ours["npix"].tolist() == [6, 3, 2]


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
    assert (cut["n"], cut["overflow"]) == (whole["n"], True)
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
        adc=np.nan, snr=0.0, min_npix=9, max_npix=3, local_radius=0, pixel=0.0, capacity=0,
        hit=0, radius=(9.0, 3.0),
    )  # fmt: skip
    with pytest.raises(ValueError, match="distance: give") as error:
        peaks.prepare(params, detector(np.zeros(SHAPE, bool)))
    names = [line.split(":")[0] for line in str(error.value).splitlines()]
    assert names == [
        *("distance", "adc", "snr", "min_npix", "local_radius", "pixel", "radius", "capacity"),
        *("hit", "adc"),
    ]
