"""Photons are those of a slow reference, written in plain Python from the description."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from scipy import ndimage

from ffb.reducers import photon_counting, speckle
from ffb.reducers.greedy import BRIGHTEST
from ffb.reducers.photons import Params, photons
from tests.unit.passes import detector, member, reduce, repeated
from tests.unit.photon_frames import ENERGY, any_frame, charges

ALL = Params(ENERGY, threshold=4.0, threshold_low=1.0, min_sum=3.0, capacity=4000)
#: Of two segments, so that one compiled pass does for all frames.
SHAPES = [(2, 1, 1), (2, 1, 37), (2, 31, 1), (2, 9, 23), (2, 20, 70)]


def droplets_of(values, p):
    """Droplets of a segment as maps of place to value, in the order of their first pixels."""
    low = p.threshold if p.threshold_low is None else p.threshold_low
    most = min(p.pixel_max, BRIGHTEST * p.photon)
    values = np.where(np.isfinite(values) & (values <= most), values, 0.0)
    seeds = values >= p.threshold
    labels, n = ndimage.label(seeds | (ndimage.binary_dilation(seeds) & (values >= low)))
    found = [{} for _ in range(n)]
    for r, c in np.argwhere(labels):
        found[labels[r, c] - 1][int(r), int(c)] = float(values[r, c])
    return sorted(found, key=min)


def greedy(droplet, n, energy):
    """Where the photons of a droplet are, and the pixels they come from."""
    out, left = [], {}
    for place, value in droplet.items():
        x = value / energy
        whole = min(math.floor(x), n - len(out))
        out += [(*place, place)] * whole
        left[place] = x - whole
    while len(out) < n:
        brightest = max(left, key=left.get)
        r, c = brightest
        beside = [q for q in ((r - 1, c), (r, c - 1), (r, c + 1), (r + 1, c)) if left.get(q, 0) > 0]
        away = 1 - left[brightest]
        left[brightest] = 0.0
        if not beside:
            out.append((r, c, brightest))
            continue
        to = max(beside, key=left.get)
        out.append((r + away * (to[0] - r), c + away * (to[1] - c), brightest))
        left[to] = max(0.0, left[to] - away)
    return out


def closest(droplet, row, col, origin):
    """Pixel of a droplet that is closest; of two, the one the photon comes from."""
    return min(droplet, key=lambda q: (round(math.dist(q, (row, col)), 9), q != origin))


def number_of(total, p):
    """Photons of a droplet, by its sum."""
    edges = p.edges or (0.5 * p.photon,)
    n = sum(total >= e for e in edges)
    return n + math.floor((total - edges[-1]) / p.photon) if n == len(edges) else n


def reference(image, mask, p):
    """Photons, their number by pixel, droplets and giants."""
    listed, held, n_droplets, giant, lost = [], {}, 0, 0, 0
    for s, values in enumerate(np.where(mask, image, 0).astype(np.float64)):
        for droplet in droplets_of(values, p):
            total = sum(droplet.values())
            if len(droplet) > p.max_npix:
                giant += 1
                lost += len(droplet)
                continue
            if total < p.min_sum:
                continue
            n_droplets += 1
            n = number_of(total, p)
            if n == 1:
                com = np.array([(q[0] * v, q[1] * v) for q, v in droplet.items()]).sum(0) / total
                places = [(*com, None)]
            else:
                places = greedy(droplet, n, p.photon)
            for place in places:
                listed.append((*place[:2], s))
                at = (s, *closest(droplet, *place))
                held[at] = held.get(at, 0) + 1
    valid = mask & ~np.isnan(image) & ~(image > min(p.pixel_max, BRIGHTEST * p.photon))
    return listed, list(held.values()), n_droplets, giant, int(valid.sum()) - lost


def agree(got, k, image, mask, p):
    listed, held, n_droplets, giant, valid = reference(image, mask, p)
    have = {f: got[f"photons/{f}"][k] for f in photons.outputs}
    assert (have["n"], have["n_droplets"], have["giant"]) == (len(listed), n_droplets, giant)
    assert have["overflow"] == (len(listed) > p.capacity)
    counts = np.bincount(held, minlength=11)
    counts[0] = valid - len(held)
    with np.errstate(invalid="ignore", divide="ignore"):
        np.testing.assert_allclose(have["prob"], counts[:11] / np.float64(valid), rtol=1e-14)
        np.testing.assert_allclose(have["mean"], len(listed) / np.float64(valid), rtol=1e-14)
    used = min(len(listed), p.capacity)
    for i, f in enumerate(("row", "col", "segment")):
        expected = np.array([x[i] for x in listed[:used]], np.float64)
        np.testing.assert_allclose(have[f][:used], expected, rtol=2e-7, atol=1e-7, err_msg=f)
        assert np.all(have[f][used:] == 0 if f == "segment" else np.isnan(have[f][used:]))
    return len(listed), held, giant


def check(shape, mask, images, p=ALL):
    area = detector(shape, mask)
    got = reduce([member("photons", photons, p, area)], area, images)
    return [agree(got, k, image, mask, p) for k, image in enumerate(images)]


@pytest.mark.parametrize("density", [0.001, 0.01, 0.05, 0.15, 0.5])
def test_charge_clouds_of_every_density(density):
    shape, rng = (2, 30, 70), np.random.default_rng(5)
    mask = rng.random(shape) > 0.02
    image = charges(shape, density, rng)
    holes = np.where(rng.random(shape) < 0.01, np.nan, image).astype(np.float32)
    bright = np.where(rng.random(shape) < 0.005, 250.0, image).astype(np.float32)
    found = check(shape, mask, [image, holes, bright])
    n, held, giant = found[0]
    assert giant or n > 0.8 * density * image.size * mask.mean() or density < 0.01
    assert giant or max(held) > 1 or density < 0.05


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_odd_shapes_and_frames(shape):
    rng = np.random.default_rng(6)
    mask = rng.random(shape) > 0.1
    noise = rng.uniform(0, 14, shape).astype(np.float32)
    holes = np.where(rng.random(shape) < 0.2, np.nan, noise).astype(np.float32)
    ties = rng.choice(np.array([0, 5, 10, 15, 20, 35], np.float32), shape)
    flat = [np.full(shape, v, np.float32) for v in (0.0, -3.0, 8.0, 1e9, np.nan, np.inf)]
    check(shape, mask, [noise, holes, -noise, ties, *flat])
    check(shape, ~mask & mask, [noise])


@pytest.mark.parametrize(
    ("values", "places"),
    [
        ([4.9], []),
        ([5.0], [0.0]),
        ([14.9], [0.0]),
        ([15.0], [0.0, 0.0]),
        ([48.0], [0.0] * 5),
        ([5.0, 5.0], [0.5]),
        ([9.0, 8.0], [0.1, 1.0]),  # 0.9 at 0 takes 0.1 of its neighbour; 0.7 is left alone there
        ([12.0, 9.0], [0.0, 0.9]),  # whole at 0; 0.9 at 1 moves back by 0.1
        ([3.0, 19.0, 3.0], [1.0, 0.9, 2.0]),  # of equal neighbours the first
    ],
)
def test_the_description_by_example(values, places):
    image = np.zeros((2, 1, 12), np.float32)
    image[1, 0, 2 : 2 + len(values)] = values
    area = detector(image.shape)
    got = reduce([member("photons", photons, ALL._replace(min_sum=0.0), area)], area, [image])
    n = got["photons/n"][0]
    np.testing.assert_allclose(got["photons/col"][0][:n] - 2, places, rtol=0, atol=1e-6)
    assert not got["photons/row"][0][:n].any()
    agree(got, 0, image, area.mask, ALL._replace(min_sum=0.0))


def test_giants_are_told_and_not_divided_and_counts_outlast_the_list():
    shape = (2, 30, 70)
    image = charges(shape, 0.1, np.random.default_rng(8))
    image[0, 3:19, 4:24] = 50.0
    mask = np.ones(shape, np.bool_)
    ((_, _, giant),) = check(shape, mask, [image])
    assert giant == 1
    ((n, _, _),) = check(shape, mask, [image], ALL._replace(capacity=11))
    assert n > 11


def test_a_pixel_of_exactly_k_photons_holds_k():
    """A reciprocal in place of the division would make 48 of 49 photons."""
    image = np.zeros((2, 8, 60), np.float32)
    image[:, ::2, ::2] = (np.arange(240).reshape(2, 4, 30) * 49).astype(np.float32)
    p = Params(49.0, threshold=20.0, capacity=40_000)
    (found,) = check(image.shape, np.ones(image.shape, np.bool_), [image], p)
    assert found[0] == sum(range(240))


SMALL = (2, 9, 23)
MASK = np.random.default_rng(91).random(SMALL) > 0.04
CUT = ALL._replace(pixel_max=400.0, max_npix=25, capacity=2000)


@pytest.fixture(scope="module")
def found():
    """Columns of one frame."""
    area = detector(SMALL, MASK)
    return repeated([member("photons", photons, CUT, area)], area)


@settings(max_examples=80, deadline=None)
@given(any_frame(SMALL))
def test_any_frame_has_the_photons_of_the_reference(found, frame):
    agree(found(frame), 0, frame, MASK, CUT)


@pytest.mark.parametrize("edges", [(2.0,), (4.0, 31.0), (4.0, 5.0, 40.0, 40.5)])
def test_edges_say_how_many_photons_a_droplet_holds_and_go_on_beyond_the_last(edges):
    shape = (2, 30, 70)
    image, mask = charges(shape, 0.1, np.random.default_rng(9)), np.ones(shape, np.bool_)
    image[1, 5, 5:7] = 300.0
    p = ALL._replace(edges=edges, max_npix=10_000)
    ((n, held, _),) = check(shape, mask, [image], p)
    assert n > 100
    assert max(held) > 20
    with pytest.raises(ValueError, match=r"edges: \[5\.0, nan\] must ascend from above 0"):
        photons.prepare(ALL._replace(edges=(5.0, np.nan)), detector(shape))


def test_bad_parameters_are_all_told():
    bad = Params(0.0, -1.0, 3.0, np.nan, -2.0, 0, 0)
    with pytest.raises(ValueError, match="photon: 0") as said:
        photons.prepare(bad, detector((1, 4, 4)))
    told = [line.partition(":")[0] for line in str(said.value).splitlines()]
    names = ["photon", "threshold", "threshold_low", "pixel_max", "capacity", "max_npix", "min_sum"]
    assert told == names


@pytest.mark.parametrize(("photon", "unit"), [(9500.0, "keV"), (162.0, "keV"), (9.5, "eV")])
def test_the_value_of_a_photon_is_in_the_unit_of_the_pixels(photon, unit):
    area = detector((1, 4, 4))._replace(unit=unit)
    told = rf"photon: {photon:g} {unit} is no photon .*det are calibrated in {unit}, they are no"
    for made, params in (
        (photons, Params(photon, 3.0)),
        (photon_counting, photon_counting.Params(photon)),
        (speckle, speckle.Params(photon)),
    ):
        reducer_ = getattr(made, "photon_counting", None) or getattr(made, "speckle", made)
        with pytest.raises(ValueError, match=told):
            reducer_.prepare(params, area)
    for unit in ("ADU", "photons"):
        assert photons.prepare(Params(photon, 3.0), area._replace(unit=unit)).worth.photon == photon


def test_without_a_list_there_are_the_counts_alone():
    m = member("photons", photons, ALL._replace(listed=False), detector((2, 3, 4)))
    names = ("n", "n_droplets", "giant", "mean", "prob")
    assert [c.name for c in m.columns] == [f"photons/{f}" for f in names]
