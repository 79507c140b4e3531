"""Photon statistics of regions are those of float64 brute force, and of the theory behind them."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from ffb.reducers.photons import MOST
from ffb.reducers.speckle import Params, speckle
from tests.unit.passes import detector, member, reduce

SHAPE = (2, 16, 70)
RNG = np.random.default_rng(71)
MASK = RNG.random(SHAPE) > 0.05


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("labels")
    labels = RNG.integers(0, 5, SHAPE)
    labels[:, 0] = 0
    np.save(out / "labels.npy", labels)
    np.save(out / "floats.npy", labels * 0.5)
    np.save(out / "none.npy", labels * 0)
    np.save(out / "other.npy", labels[:, 1:])
    return out


def placed(area=None):
    """A detector with a geometry: 100 um pixels in one plane, corner at the beam."""
    segment, row, col = np.indices(SHAPE, np.float64)
    xyz = np.stack([100 * (row + SHAPE[1] * segment), 100 * col, 0 * row])
    return (area or detector(SHAPE, MASK))._replace(xyz=xyz)


def whole(value):
    """Photons of a pixel of a map."""
    return max(round(value), 0)


def by_hand(counts):
    """Statistics of a region from photons by pixel; contrasts as exact fractions."""
    n, npix = int(counts.sum()), counts.size
    pairs = sum(int(k) * (int(k) - 1) for k in counts)
    apart = sum(int(a) * int(b) for a, b in [(k, n - k) for k in counts])
    held, nan = Counter(counts.tolist()), float("nan")
    out = {"npix": npix, "photons": n, "pairs": pairs, "mean": n / npix if npix else nan}
    same = Fraction(pairs, npix) if npix else 0
    out["contrast"] = float(same / Fraction(apart, npix * (npix - 1)) - 1) if apart else nan
    out["ratio"] = nan
    if held[1] and held[1] != 2 * held[2]:
        r, m = Fraction(held[2], held[1]), Fraction(n, npix)
        out["ratio"] = float((2 * r - m) / (m * (1 - 2 * r)))
    out["prob"] = [held[k] / npix if npix else nan for k in range(MOST + 1)]
    return out


def check(params, area, images, of, photons):
    """Hold ``speckle`` against brute force; ``photons(values)`` counts those of pixels."""
    got = reduce([member("speckle", speckle, params, area)], area, images)
    for k, image in enumerate(images):
        valid = area.mask & ~np.isnan(image) & ~(image > 1e6 * params.photon)
        for r in range(1, of.max() + 1):
            values = image[valid & (of == r)].astype(np.float64)
            expected = by_hand(np.array([photons(v) for v in values], np.int64))
            for f, value in expected.items():
                have = got[f"speckle/{f}"][k][r - 1]
                np.testing.assert_allclose(have, value, rtol=1e-12, atol=1e-15, err_msg=f)
    return got


def frames(photon=1.0):
    """Photons of few and of many modes, with holes, and frames of one value."""
    counts = stats.nbinom.rvs(2, 2 / 2.6, size=SHAPE, random_state=RNG) * photon
    bright = stats.nbinom.rvs(1, 1 / 7, size=SHAPE, random_state=RNG) * photon
    holes = np.where(RNG.random(SHAPE) < 0.1, np.nan, counts)
    lost = np.where(RNG.random(SHAPE) < 0.05, np.inf, counts)
    flat = [np.full(SHAPE, v) for v in (0.0, -3.0, 2.0 * photon, 1e20, np.nan)]
    one = np.zeros(SHAPE)
    one[0, 5, 5] = photon
    return [f.astype(np.float32) for f in (counts, bright, holes, lost, one, *flat)]


def test_labelled_regions_are_those_of_brute_force(folder):
    labels = np.load(folder / "labels.npy")
    got = check(
        Params(1.0, labels=folder / "labels.npy"), detector(SHAPE, MASK), frames(), labels, whole
    )
    assert got["speckle/contrast"].shape[1] == 4


def test_rings_reach_from_edge_to_edge_and_user_edges_count_photons():
    area, edges = placed(), (0.55, 2.05, 3.05, 9.05)  # no pixel lies on one
    radius = np.hypot(area.xyz[0], area.xyz[1]) / 1000
    of = sum((radius >= e).astype(int) for e in edges)
    of[of == len(edges)] = 0
    levels, photon = [3.0, 19.0], 10.0
    p = Params(photon, tuple(levels), rings=edges, unit="mm", distance=80.0)
    images = [f + RNG.normal(0, 1, SHAPE).astype(np.float32) for f in frames(photon)]

    def photons(v):
        n = sum(v >= e for e in levels)
        return n + int((v - levels[-1]) // photon) if n == len(levels) else n

    check(p, area, images, of, photons)
    axes = speckle.coordinates(p, speckle.prepare(p, area))
    np.testing.assert_allclose(axes["region"].values, [1.3, 2.55, 6.05])
    assert axes["region"].unit == "mm"


def test_one_region_is_that_of_region_and_an_empty_ring_is_nan():
    area = placed()
    p = Params(1.0, segment=1, ring=(4.0, 20.0, 2.0, 7.0))
    rows, cols = np.indices(SHAPE[1:])
    radius = np.hypot(rows - 4, cols - 20)
    of = np.zeros(SHAPE, int)
    of[1] = (radius >= 2) & (radius < 7)
    check(p, area, frames(), of, whole)
    far = Params(1.0, rings=(0.0, 1.0, 1e3, 1e4), unit="mm", distance=80.0)
    got = reduce([member("speckle", speckle, far, area)], area, frames()[:1])
    assert got["speckle/npix"][0].tolist()[2] == 0
    assert np.isnan(got["speckle/contrast"][0][2])


@pytest.mark.parametrize(("modes", "mean"), [(1, 0.05), (4, 0.3), (20, 2.0)])
def test_both_contrasts_are_that_of_the_negative_binomial(modes, mean):
    shape = (2, 200, 300)
    counts = stats.nbinom.rvs(modes, modes / (modes + mean), size=shape, random_state=RNG)
    area = detector(shape)._replace(unit="photons")  # where a photon is 1
    got = reduce([member("speckle", speckle, Params(), area)], area, [counts.astype(np.float32)])
    error = 3 * np.sqrt(2 / counts.size) / mean + 3 * np.sqrt(1 / counts.sum())
    assert abs(got["speckle/contrast"][0][0] - 1 / modes) < 3 * error
    assert abs(got["speckle/ratio"][0][0] - 1 / modes) < 3 * error
    k = np.arange(MOST + 1)
    expected = stats.nbinom.pmf(k, modes, modes / (modes + mean))
    np.testing.assert_allclose(got["speckle/prob"][0][0], expected, atol=5e-3)


def test_sums_over_shots_are_unbiased_where_single_shots_have_few_photons():
    """Of 3000 shots of 60 pixels with 6 photons each; what divides by the mean squared is off."""
    modes, mean, shape = 5, 0.1, (3000, 2, 3, 10)
    counts = stats.nbinom.rvs(modes, modes / (modes + mean), size=shape, random_state=RNG)
    area = detector(shape[1:])
    got = reduce([member("s", speckle, Params(1.0), area)], area, counts.astype(np.float32))
    n, pairs, npix = (got[f"s/{f}"][:, 0] for f in ("photons", "pairs", "npix"))
    expected = ((n**2 - n - pairs) / (npix - 1)).mean()
    assert abs(pairs.mean() / expected - 1 - 1 / modes) < 0.1
    assert abs(pairs.mean() / (n**2 / npix).mean() - 1 - 1 / modes) > 0.1


def test_what_does_not_fit_is_all_told(folder):
    area = placed()
    cases = [
        (Params(edges=(2.0, 1.0)), ["photon: missing; the pixels of det are in keV", "edges: "]),
        (Params(0.0, edges=(2.0, 1.0)), ["photon: 0", "edges: [2.0, 1.0]"]),
        (Params(1.0, labels=folder / "floats.npy"), ["labels: "]),
        (Params(1.0, labels=folder / "none.npy"), ["labels: "]),
        (Params(1.0, labels=folder / "other.npy"), ["labels: "]),
        (Params(1.0, labels=folder / "missing.npy"), ["labels: "]),
        (Params(1.0, rings=(2.0, 1.0), unit="miles"), ["rings: ", "unit: ", "distance: "]),
        (Params(1.0, rings=(1.0,), distance=9.0, unit="mm"), ["rings: "]),
        (Params(1.0, rings=(1e6, 2e6), distance=9.0, unit="mm"), ["region: "]),
        (Params(1.0, ring=(1.0, 2.0, 3.0, 4.0)), ["segment: say which"]),
        (
            Params(1.0, labels=folder / "labels.npy", rings=(0.0, 1.0), distance=9.0, unit="mm"),
            ["labels: regions are"],
        ),
    ]
    for params, starts in cases:
        with pytest.raises(ValueError, match=":") as e:
            speckle.prepare(params, area)
        lines = str(e.value).splitlines()
        assert len(lines) == len(starts), lines
        assert all(a.startswith(b) for a, b in zip(lines, starts, strict=True)), lines
