"""Photon counts are those of a slow reference, written in plain Python from the description."""

import numpy as np
import pytest
from hypothesis import given, settings

from ffb.reducers.greedy import BRIGHTEST
from ffb.reducers.photon_counting import Params, photon_counting
from tests.unit.passes import detector, member, reduce, repeated
from tests.unit.photon_frames import ENERGY, any_frame, charges

ALL = Params(ENERGY, threshold=0.5, pixel_max=400.0, capacity=4000)
#: Of two segments, so that one compiled pass does for all frames.
SHAPES = [(2, 1, 1), (2, 1, 64), (2, 31, 1), (2, 9, 23), (2, 20, 130)]
NAMES = ("row", "col", "segment", "photons")


def counted(values, p):
    """Photons by pixel of one segment."""
    rows, cols = values.shape
    good = (
        np.isfinite(values)
        & (values >= p.threshold)
        & (values <= min(p.pixel_max, BRIGHTEST * p.photon))
    )
    x = np.where(good, values, 0.0) / p.photon
    counts = np.floor(x).astype(int)
    rest, left = x - np.floor(x), x - np.floor(x)
    for r in range(rows):
        for c in range(cols):
            around = [(r - 1, c), (r, c - 1), (r, c + 1), (r + 1, c)]
            inside = [q for q in around if 0 <= q[0] < rows and 0 <= q[1] < cols]
            larger = [
                rest[q] > rest[r, c] or (rest[q] == rest[r, c] and q < (r, c)) for q in inside
            ]
            if any(larger) or rest[r, c] < 0.5:
                continue
            to = max(inside, key=lambda q: left[q], default=None)
            if rest[r, c] + (left[to] if to else 0.0) >= p.fraction:
                counts[r, c] += 1
                if to:
                    left[to] = 0.0
    return counts


def agree(got, k, image, mask, p):
    masked = np.where(mask, image, 0).astype(np.float64)
    counts = np.stack([counted(values, p) for values in masked])
    have = {f: got[f"photon_counting/{f}"][k] for f in photon_counting.outputs}
    assert (have["n"], have["npix"]) == (counts.sum(), (counts > 0).sum())
    assert have["overflow"] == ((counts > 0).sum() > p.capacity)
    over = image > min(p.pixel_max, BRIGHTEST * p.photon)
    valid = np.float64((mask & ~np.isnan(image) & ~over).sum())
    held = np.bincount(counts[counts > 0], minlength=11)
    held[0] = valid - (counts > 0).sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        np.testing.assert_allclose(have["prob"], held[:11] / valid, rtol=1e-14)
        np.testing.assert_allclose(have["mean"], counts.sum() / valid, rtol=1e-14)
    segment, row, col = np.nonzero(counts)
    for f, values in zip(NAMES, (row, col, segment, counts[counts > 0]), strict=True):
        used = values[: p.capacity]
        np.testing.assert_array_equal(have[f][: used.size], used, err_msg=f)
        assert not have[f][used.size :].any()
    return counts


def check(shape, mask, images, p=ALL):
    area = detector(shape, mask)
    got = reduce([member("photon_counting", photon_counting, p, area)], area, images)
    return [agree(got, k, image, mask, p) for k, image in enumerate(images)]


@pytest.mark.parametrize("density", [0.001, 0.01, 0.05, 0.15, 0.5])
def test_charge_clouds_of_every_density(density):
    shape, rng = (2, 30, 130), np.random.default_rng(5)
    mask = rng.random(shape) > 0.02
    image = charges(shape, density, rng, width=0.2)
    holes = np.where(rng.random(shape) < 0.01, np.nan, image).astype(np.float32)
    bright = np.where(rng.random(shape) < 0.005, 250.0, image).astype(np.float32)
    counts, *_ = check(shape, mask, [image, holes, bright])
    assert abs(counts.sum() / (density * image.size * mask.mean()) - 1) < 0.5


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_odd_shapes_and_frames(shape):
    rng = np.random.default_rng(6)
    mask = rng.random(shape) > 0.1
    noise = rng.uniform(0, 14, shape).astype(np.float32)
    holes = np.where(rng.random(shape) < 0.2, np.nan, noise).astype(np.float32)
    ties = rng.choice(np.array([0, 5, 10, 15, 4.5, 35], np.float32), shape)
    flat = [np.full(shape, v, np.float32) for v in (0.0, -3.0, 8.0, 9.5, 1e9, np.nan, np.inf)]
    images = [noise, holes, -noise, ties, *flat]
    check(shape, mask, images)
    check(shape, mask, images, Params(ENERGY, fraction=0.4, capacity=7))
    check(shape, ~mask & mask, [noise])


SMALL = (2, 9, 23)
MASK = np.random.default_rng(91).random(SMALL) > 0.04


@pytest.fixture(scope="module")
def found():
    """Columns of one frame."""
    area = detector(SMALL, MASK)
    return repeated([member("photon_counting", photon_counting, ALL, area)], area)


@settings(max_examples=60, deadline=None)
@given(any_frame(SMALL))
def test_any_frame_has_the_photons_of_the_reference(found, frame):
    agree(found(frame), 0, frame, MASK, ALL)


@pytest.mark.parametrize(
    ("values", "counts"),
    [
        ([8.9], [0]),
        ([9.0], [1]),
        ([10.0], [1]),
        ([5.0, 4.0], [1, 0]),
        ([4.0, 5.0], [0, 1]),
        ([5.0, 5.0], [1, 0]),  # of equals the first
        ([5.0, 3.9], [0, 0]),
        ([17.0, 13.0], [2, 1]),  # 0.7 and 0.3 are one more
        ([7.0, 3.0, 7.0], [1, 0, 0]),  # 0.3 goes to one of them only
        ([7.0, 3.0, 6.0, 9.5], [1, 0, 0, 1]),
        ([29.5], [3]),
    ],
)
def test_the_description_by_example(values, counts):
    image = np.zeros((2, 1, 12), np.float32)
    image[1, 0, 2 : 2 + len(values)] = values
    (found,) = check(image.shape, np.ones(image.shape, np.bool_), [image])
    assert found[1, 0, 2 : 2 + len(values)].tolist() == counts
    turned = np.zeros((2, 12, 1), np.float32)
    turned[:] = image.transpose(0, 2, 1)
    check(turned.shape, np.ones(turned.shape, np.bool_), [turned])


def test_a_pixel_of_exactly_k_photons_holds_k():
    """A reciprocal in place of the division would make 48 of 49 photons."""
    image = (np.arange(480).reshape(2, 4, 60) * 49).astype(np.float32)
    p = Params(49.0, capacity=4000)
    (found,) = check(image.shape, np.ones(image.shape, np.bool_), [image], p)
    assert found.sum() == sum(range(480))


def test_the_larger_of_two_holds_half_a_photon():
    image = np.zeros((2, 9, 23), np.float32)
    image[1, 5, 3:12] = [0.45, 0.45, 0, 0.5, 0.4, 0, 1.49, 0.49, 0]
    area = detector(image.shape)
    for fraction in (0.9, 0.6):
        m = member("photon_counting", photon_counting, Params(1.0, fraction), area)
        assert reduce([m], area, [image])["photon_counting/n"][0] == 0 + 1 + 1


def test_bad_parameters_are_all_told():
    bad = Params(np.nan, 1.5, -1.0, -2.0, 0)
    with pytest.raises(ValueError, match="photon: nan") as said:
        photon_counting.prepare(bad, detector((1, 4, 4)))
    told = [line.partition(":")[0] for line in str(said.value).splitlines()]
    assert told == ["photon", "fraction", "threshold", "pixel_max", "capacity"]


def test_without_a_list_there_are_the_counts_alone():
    m = member("photon_counting", photon_counting, ALL._replace(listed=False), detector((2, 3, 4)))
    names = ("n", "npix", "mean", "prob")
    assert [c.name for c in m.columns] == [f"photon_counting/{f}" for f in names]
