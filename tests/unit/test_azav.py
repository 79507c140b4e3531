"""I(q) and I(phi, q) as smalldata_tools defines them, held to its formulas in float64."""

from itertools import pairwise

import numpy as np
import pytest

from ffb.reducers.azimuthal import Params, azimuthal
from ffb.reducers.bins import MOST_BINS
from ffb.reducers.cake import Params as Cake
from ffb.reducers.cake import cake
from ffb.reducers.geometry import Geometry, on_detector
from tests.unit.passes import member, reduce
from tests.unit.scattered import DISTANCE, ENERGY, STANDING, azav_angles, detector, noise

LAMBDA = 12.398419843320026 / ENERGY
QBIN = 0.021


@pytest.fixture(scope="module")
def area():
    return detector()


@pytest.fixture(scope="module")
def frames(area):
    return noise(area)


def azav(area, frame, good, ty, plane, phi_bins=1):
    """Edges, mean of corrected pixels and pixels of each bin (phi, q), pixel by pixel."""
    two_theta, phi, factor = azav_angles(area.xyz, STANDING["center"], DISTANCE, 0.0, ty)
    q = 4 * np.pi / LAMBDA * np.sin(two_theta / 2)
    polarised = (1 - plane) * (1 - (np.sin(phi) * np.sin(two_theta)) ** 2)
    polarised += plane * (1 - (np.cos(phi) * np.sin(two_theta)) ** 2)
    # theirs begin QBIN below, which puts the least pixel on an edge, to one side or the other
    edges = np.arange(q[area.mask].min() - 1.3 * QBIN, q[area.mask].max() + QBIN, QBIN)
    corrected = np.where(good, frame, 0).astype(np.float64) / (factor * polarised)
    # bins of phi are centred: the first lies about 0
    along = np.floor(np.mod(phi / (2 * np.pi) * phi_bins + 0.5, phi_bins)).astype(int)
    at = along * (edges.size - 1) + np.searchsorted(edges, q, "right") - 1
    size = phi_bins * (edges.size - 1)
    npix = np.bincount(at[good], minlength=size)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(at[good], corrected[good], size) / npix
    weight = factor * polarised
    return edges, mean.reshape(phi_bins, -1), npix.reshape(phi_bins, -1), (at, corrected, weight)


def close(mine, theirs, frame):
    np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-7 * np.nanmax(np.abs(frame)))


@pytest.mark.parametrize(("ty", "plane"), [(0.0, 0.0), (0.0, 1.0), (7.0, 0.3)])
def test_the_profile_is_the_mean_of_corrected_pixels(area, frames, ty, plane):
    params = Params(
        **STANDING | {"distance": DISTANCE / np.cos(np.radians(ty))},
        tilts=(0.0, -ty),
        polarization=2 * plane - 1,
        average="corrected",
        thresholds=(-4.0, 5e4),
        moments=True,
        edges=(*azav(area, frames[0], area.mask, ty, plane)[0],),
    )
    out = reduce([member("az", azimuthal, params, area)], area, frames)
    for row, frame in enumerate(frames):
        good = area.mask & (frame >= -4.0) & (frame <= 5e4)
        _, mean, npix, _ = azav(area, frame, good, ty, plane)
        np.testing.assert_array_equal(out["az/npix"][row], npix[0])
        close(out["az/intensity"][row], mean[0], frame)
        np.testing.assert_array_equal(out["az/norm"][row], npix[0])


def test_the_cake_is_the_mean_of_corrected_pixels(area, frames):
    edges = azav(area, frames[0], area.mask, 0.0, 0.0)[0]
    turn = np.arange(9) * 45.0 - 22.5
    shared = {**STANDING, "polarization": -1.0, "average": "corrected", "edges": (*edges,)}
    equal = Cake(**shared, phi_bins=8, phi_limits=(-22.5, 337.5))
    given = Cake(**shared, phi_edges=(*turn,))
    both = [member("equal", cake, equal, area), member("given", cake, given, area)]
    out = reduce(both, area, frames)
    for row, frame in enumerate(frames):
        good = area.mask & ~np.isnan(frame)
        _, mean, npix, _ = azav(area, frame, good, 0.0, 0.0, 8)
        for name in ("equal", "given"):
            np.testing.assert_array_equal(out[f"{name}/npix"][row], npix)
            close(out[f"{name}/intensity"][row], mean, frame)
    np.testing.assert_allclose(cake.prepare(given, area).phi, np.arange(8) * 45.0)


@pytest.mark.parametrize("model", ["poisson", "azimuthal"])
def test_errors_of_the_mean_of_corrected_pixels(area, frames, model):
    frame = np.abs(frames[2])
    edges, mean, npix, (at, corrected, weight) = azav(
        area, frame, area.mask & ~np.isnan(frame), 0.0, 0.0
    )
    params = Params(
        **STANDING,
        polarization=-1.0,
        average="corrected",
        edges=(*edges,),
        errors=model,
        photon=2.5,
    )
    out = reduce([member("az", azimuthal, params, area)], area, [frame])
    for b in np.flatnonzero(npix[0] > 1)[[0, 5, -1]]:
        here = area.mask & ~np.isnan(frame) & (at == b)
        terms = 2.5 * corrected[here] / weight[here]
        if model == "azimuthal":
            terms = (corrected[here] - mean[0, b]) ** 2
            square = out["az/intensity"][0, b] ** 2 + npix[0, b] * out["az/sem"][0, b] ** 2
            np.testing.assert_allclose(square, (corrected[here] ** 2).mean(), rtol=1e-6)
        sem = np.sqrt(terms.sum()) / npix[0, b]
        np.testing.assert_allclose(out["az/sem"][0, b], sem, rtol=1e-6)


def test_another_scale_and_other_segments_in_depth_are_told_apart(area, frames):
    # theirs: D^2 / r^3 over the largest there is; D is the distance of a pixel's own plane
    xyz, center = area.xyz.copy(), (-3e4, 4e4)
    params = Params(**STANDING | {"center": center}, average="corrected", bins=9)
    for depth in (0.0, 400.0):
        xyz[2, 1] -= depth
        d = DISTANCE + (xyz[2].mean() - xyz[2]) / 1e3
        x, y = (xyz[i] / 1e3 - center[i] / 1e3 for i in (0, 1))
        factor = d**2 / (x**2 + y**2 + d**2) ** 1.5
        at = Geometry.of(DISTANCE, ENERGY, center).pixels(on_detector(xyz))
        np.testing.assert_allclose(at.solid_angle, factor * DISTANCE**2 / d, rtol=1e-12)
        if depth == 0:
            out = reduce([member("az", azimuthal, params, area)], area, frames[:1])
            q = Geometry.of(DISTANCE, ENERGY).q(at.two_theta)[area.mask]
            corrected = (frames[0] / (factor / factor.max()))[area.mask]
            total, edges = np.histogram(q, 9, weights=corrected)
            mean = total / np.histogram(q, edges)[0] / at.solid_angle.max()
            np.testing.assert_allclose(out["az/intensity"][0], mean, rtol=1e-6)
            assert at.solid_angle.max() < 0.9


def test_bins_of_one_width(area):
    free = azimuthal.prepare(Params(**STANDING, width=0.05), area)
    np.testing.assert_allclose(np.mod(free.q / 0.05, 1), 0.5)
    assert free.whole[2].sum() == area.mask.sum()
    assert free.whole[2, [0, -1]].min() > 0
    params = Params(**STANDING, width=0.1, limits=(0.03, 0.63))
    np.testing.assert_allclose(azimuthal.prepare(params, area).q, 0.08 + 0.1 * np.arange(6))
    longer = azimuthal.prepare(params._replace(limits=(0.03, 0.65)), area)
    assert longer.q.size == 7
    same = azimuthal.prepare(Params(**STANDING, bins=6, limits=(0.03, 0.63)), area)
    np.testing.assert_array_equal(same.whole[2], azimuthal.prepare(params, area).whole[2])


def test_bins_between_uneven_edges(area, frames):
    edges = (0.05, 0.06, 0.2, 0.21, 0.7)
    params = Params(**STANDING, edges=edges, unit="1/angstrom")
    out = reduce([member("az", azimuthal, params, area)], area, frames[:1])
    for b, (low, high) in enumerate(pairwise(edges)):
        one = Params(**STANDING, bins=1, limits=(low, high))
        alone = reduce([member("az", azimuthal, one, area)], area, frames[:1])
        assert out["az/npix"][0, b] == alone["az/npix"][0, 0]
        np.testing.assert_allclose(
            out["az/intensity"][0, b], alone["az/intensity"][0, 0], rtol=1e-12
        )
    np.testing.assert_allclose(azimuthal.prepare(params, area).q[1], 0.13)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"edges": (0.1,)}, "edges: 1 edges; give 2"),
        ({"edges": (0.1, 0.1)}, "edges: give them in ascending order"),
        ({"edges": (0.1, np.nan)}, "edges: .* finite"),
        ({"edges": (0.1, 0.2), "limits": (0.1, 0.2)}, "edges: they tell limits and width"),
        ({"edges": (7.0, 8.0)}, "no good pixel between 7 and 8"),
        ({"width": 0.0}, "width: 0; give"),
        ({"width": np.nan}, "width: nan; give"),
        ({"width": 1e-7}, f"width: 1e-07 makes .* at most {MOST_BINS - 1}"),
        ({"width": 1e-300}, r"width: 1e-300 makes 9.\d*e\+299 bins; at most"),
        ({"average": "mean"}, "average: 'mean'; known are weighted and corrected"),
    ],
    ids=str,
)
def test_parameters_that_do_not_fit_are_refused(area, change, words):
    with pytest.raises(ValueError, match=words):
        azimuthal.prepare(Params(**STANDING, **change), area)


def test_edges_of_the_azimuth_are_at_most_a_turn(area):
    for edges, words in (((0.0, 361.0), "more than a turn"), ((3.0,), "1 edges")):
        with pytest.raises(ValueError, match=f"phi_edges: {words}"):
            cake.prepare(Cake(**STANDING, phi_edges=edges), area)


def test_a_distance_in_metres_is_told(area):
    with pytest.raises(
        ValueError, match=r"distance: 0\.06 mm; give .* \(or 60, if those are metres"
    ):
        azimuthal.prepare(Params(**STANDING | {"distance": 0.06}), area)


def test_a_distance_in_micrometres_is_told(area):
    with pytest.raises(
        ValueError, match=r"distance: 60000 mm; give .* \(or 60, if those are micrometres"
    ):
        azimuthal.prepare(Params(**STANDING | {"distance": 6e4}), area)


def test_too_many_bins_of_the_azimuth_say_nothing_of_the_others(area):
    with pytest.raises(ValueError, match=r"^phi_bins: 600000; give 1 to 524286$"):
        cake.prepare(Cake(**STANDING, phi_bins=600000), area)
