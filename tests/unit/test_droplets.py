"""Droplets are those of scipy.ndimage for the same definition, however dense and however odd."""

import numpy as np
import pytest
from hypothesis import given, settings
from scipy import ndimage

from ffb.reducers.droplets import Params, droplets
from tests.unit.passes import detector, member, reduce, repeated
from tests.unit.photon_frames import any_frame, charges

LISTS = ("sum", "npix", "row", "col", "segment")
#: All of two segments, so that one compiled pass does for all of them.
SHAPES = [(2, 1, 1), (2, 1, 37), (2, 31, 1), (2, 9, 23), (2, 20, 130)]
TWO = Params(threshold=5.0, threshold_low=1.5, min_sum=7.0, pixel_max=1e4, capacity=4000)


def by_scipy(image, mask, p, noise=1.0):
    """Counts, and lists of the droplets that are kept, in the order of their first pixels."""
    low = p.threshold if p.threshold_low is None else p.threshold_low
    n_all, giant, rows = 0, 0, []
    for s, values in enumerate(np.where(mask, image, 0).astype(np.float64)):
        values = np.where(np.isfinite(values) & (values <= p.pixel_max), values, 0)
        level = np.float64(noise if np.ndim(noise) == 0 else noise[s])
        seeds = values >= p.threshold * level
        members = seeds | (ndimage.binary_dilation(seeds) & (values >= low * level))
        labels, number = ndimage.label(members)
        n_all += number
        index = np.arange(1, number + 1)
        place = np.arange(values.size).reshape(values.shape)
        first = ndimage.minimum(place, labels, index) if number else []
        total = ndimage.sum_labels(values, labels, index)
        npix = ndimage.sum_labels(members, labels, index).astype(int)
        com = ndimage.center_of_mass(values, labels, index)
        giant += int((npix > p.max_npix).sum())
        rows += [
            (total[d], npix[d], *com[d], s)
            for d in np.argsort(first)
            if npix[d] <= p.max_npix and total[d] >= p.min_sum
        ]
    lists = np.array(rows, np.float64).reshape(-1, len(LISTS)).T
    return (n_all, len(rows), giant), dict(zip(LISTS, lists, strict=True))


def agree(got, k, image, mask, p, noise=1.0):
    """Hold shot ``k`` of the columns against scipy; what it found, for tests that want some."""
    counts, lists = by_scipy(image, mask, p, noise)
    assert tuple(got[f"droplets/{f}"][k] for f in ("n_all", "n", "giant")) == counts
    assert got["droplets/overflow"][k] == (counts[1] > p.capacity)
    used = min(counts[1], p.capacity)
    for f, values in lists.items():
        have = got[f"droplets/{f}"][k]
        exact = f in {"npix", "segment"}
        np.testing.assert_allclose(
            have[:used], values[:used], rtol=0 if exact else 2e-7, atol=0, err_msg=f
        )
        assert np.all(have[used:] == 0 if exact else np.isnan(have[used:]))
    return counts


def check(shape, mask, images, *params):
    """Each of ``params`` on the same frames in one pass; counts of every shot of each."""
    area = detector(shape, mask)
    out = []
    for p in params:
        got = reduce([member("droplets", droplets, p, area)], area, images)
        out.append([agree(got, k, image, mask, p) for k, image in enumerate(images)])
    return out


@pytest.mark.parametrize("density", [0.001, 0.01, 0.05, 0.15])
def test_charge_clouds_of_every_density(density):
    shape, rng = (2, 50, 130), np.random.default_rng(5)
    mask = rng.random(shape) > 0.02
    image = charges(shape, density, rng)
    holes = np.where(rng.random(shape) < 0.01, np.nan, image).astype(np.float32)
    bright = np.where(rng.random(shape) < 0.005, 1e6, image).astype(np.float32)
    one = TWO._replace(threshold_low=None, min_sum=0.0)
    two_levels, one_level = check(shape, mask, [image, holes, bright], TWO, one)
    assert two_levels[0][0] > two_levels[0][1] > 0 or density < 0.01
    assert one_level[0][0] == one_level[0][1] > 0


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_odd_shapes_and_frames(shape):
    rng = np.random.default_rng(6)
    mask = rng.random(shape) > 0.1
    noise = rng.uniform(0, 9, shape).astype(np.float32)
    holes = np.where(rng.random(shape) < 0.2, np.nan, noise).astype(np.float32)
    board = np.where(np.indices(shape).sum(0) % 2, 0, 8).astype(np.float32)
    flat = [np.full(shape, v, np.float32) for v in (0.0, -3.0, 8.0, 1e9, np.nan, np.inf)]
    images = [noise, holes, -noise, board, *flat]
    everywhere = np.ones(shape, np.bool_)
    check(shape, mask, images, TWO)
    check(shape, everywhere, images, TWO)
    check(shape, ~everywhere, images, TWO)


def shaped(text):
    drawn = np.array([[float(c) for c in line] for line in text.split()], np.float32)
    return np.stack([np.zeros_like(drawn), drawn])


@pytest.mark.parametrize(
    ("text", "droplets_of"),
    [
        ("99000 09000 00990", [3, 2]),  # corners do not connect
        ("90009 90009 99999", [9]),  # two branches meet below
        ("92000 00000 00000", [2]),  # a low pixel beside a seed
        ("92200 00000 00000", [2]),  # ... and none beside a low one
        ("90200 00000 00000", [1]),  # ... nor one that touches no seed
        ("92290 00000 00000", [4]),  # low pixels of two seeds touch: one droplet
        ("00000 00200 00900", [2]),  # a low pixel above its seed
        ("00900 00200 00900", [3]),
        ("20000 92000 20000", [4]),
        ("95959 50005 95959", [12]),
        ("22222 22222 22222", []),
    ],
)
def test_the_definition_by_example(text, droplets_of):
    image = shaped(text)
    p = Params(threshold=5.0, threshold_low=2.0, capacity=30)
    area = detector(image.shape)
    got = reduce([member("droplets", droplets, p, area)], area, [image])
    assert got["droplets/npix"][0][: got["droplets/n"][0]].tolist() == droplets_of
    agree(got, 0, image, area.mask, p)


def test_thresholds_are_met_as_numbers_not_as_float32():
    image = np.zeros((2, 1, 9), np.float32)
    image[1, 0, ::2] = np.float32(0.1), np.float32(0.3), 7.0, 16777216.0, 0.25
    cases = [(0.1, np.inf, 5), (0.25, 7.0, 3), (0.1, 16777217.0, 5), (0.3, np.inf, 3)]
    for threshold, pixel_max, n in cases:
        p = Params(threshold, pixel_max=pixel_max)
        area = detector(image.shape)
        got = reduce([member("droplets", droplets, p, area)], area, [image])
        assert got["droplets/n"][0] == n, threshold
        agree(got, 0, image, area.mask, p)
    just_above = float(np.float32(0.3)) + 1e-12
    got = reduce([member("droplets", droplets, Params(just_above), area)], area, [image])
    assert got["droplets/n"][0] == 2


def test_counts_are_right_where_the_list_overflows_and_giants_are_told():
    shape, rng = (2, 30, 60), np.random.default_rng(8)
    image = charges(shape, 0.05, rng)
    image[0, 3:9, 4:20] = 50.0
    mask = np.ones(shape, np.bool_)
    few, small = TWO._replace(capacity=7), TWO._replace(max_npix=9)
    (overflown,), (cut,) = check(shape, mask, [image], few, small)
    assert overflown[1] > 7
    assert cut[2] == 1


def test_thresholds_in_units_of_the_noise_of_each_pixel():
    shape, rng = (2, 30, 130), np.random.default_rng(10)
    image, mask = charges(shape, 0.05, rng), rng.random(shape) > 0.02
    noise = rng.uniform(0.3, 2.0, shape).astype(np.float32)
    noise[:, 3:5, 20:40], noise[:, 9, 5], noise[0, 11, 60:70] = np.nan, 0.0, -1.0
    area = detector(shape, mask)._replace(noise=noise)
    p = TWO._replace(in_noise=True)
    holes = np.where(rng.random(shape) < 0.01, np.nan, image).astype(np.float32)
    got = reduce([member("droplets", droplets, p, area)], area, [image, holes])
    known = np.where(noise > 0, noise, np.inf)
    assert agree(got, 0, image, mask, p, known)[1] > 20
    agree(got, 1, holes, mask, p, known)
    with pytest.raises(ValueError, match=r"in_noise: the constants of det hold no noise"):
        droplets.prepare(p, detector(shape))
    with pytest.raises(ValueError, match=r"in_noise: no good pixel of det has a noise above 0"):
        droplets.prepare(p, area._replace(noise=0 * noise))


SMALL = (2, 9, 23)
MASK = np.random.default_rng(91).random(SMALL) > 0.04
CUT = TWO._replace(threshold=4.0, threshold_low=1.0, pixel_max=400.0, max_npix=25, capacity=400)


@pytest.fixture(scope="module")
def found():
    """Columns of one frame."""
    area = detector(SMALL, MASK)
    return repeated([member("droplets", droplets, CUT, area)], area)


@settings(max_examples=80, deadline=None)
@given(any_frame(SMALL))
def test_any_frame_has_the_droplets_of_scipy(found, frame):
    agree(found(frame), 0, frame, MASK, CUT)


@settings(max_examples=20, deadline=None)
@given(any_frame(SMALL))
def test_a_frame_has_the_same_droplets_upside_down(found, frame):
    frame = np.where(MASK & MASK[::-1, ::-1, ::-1], frame, 0)
    there, back = found(frame), found(np.ascontiguousarray(frame[::-1, ::-1, ::-1]))
    for f in ("n_all", "n", "giant"):
        assert there[f"droplets/{f}"][0] == back[f"droplets/{f}"][0]
    sums = [np.sort(c["droplets/sum"][0][: c["droplets/n"][0]]) for c in (there, back)]
    np.testing.assert_allclose(*sums, rtol=1e-6)


def test_without_a_list_there_are_the_counts_alone():
    shape = (2, 8, 70)
    m = member("droplets", droplets, TWO._replace(listed=False), detector(shape))
    assert [c.name for c in m.columns] == [f"droplets/{f}" for f in ("n_all", "n", "giant")]
    assert sum(a.size for a in m.reducer.allocate(m.constants)[3:]) == 0


def test_lists_name_their_count():
    m = member("droplets", droplets, TWO, detector((1, 4, 4)))
    assert {c.name: c.length for c in m.columns if c.shape} == {
        f"droplets/{f}": "droplets/n" for f in LISTS
    }


def test_bad_parameters_are_all_told():
    bad = Params(-1.0, 3.0, np.nan, -2.0, 0, 0)
    with pytest.raises(ValueError, match=r"threshold: -1\.0") as said:
        droplets.prepare(bad, detector((1, 4, 4)))
    told = [line.partition(":")[0] for line in str(said.value).splitlines()]
    assert told == ["threshold", "threshold_low", "pixel_max", "capacity", "max_npix", "min_sum"]
    for alone in (Params(-5.0), Params(np.nan)):  # what is not given is not to blame
        with pytest.raises(ValueError, match=r"^threshold: .* must be a positive number.*$"):
            droplets.prepare(alone, detector((1, 4, 4)))
    for p in (Params(np.nan), Params(np.inf), Params(5.0, 6.0), Params(5.0, np.nan)):
        with pytest.raises(ValueError, match="threshold"):
            droplets.prepare(p, detector((1, 4, 4)))
