"""I(phi, q) held to pyFAI's two-dimensional histogram engine and to float64 brute force."""

import numpy as np
import pytest

from ffb.reducers import geometry as geo
from ffb.reducers.azimuthal import Params as Profile
from ffb.reducers.azimuthal import azimuthal
from ffb.reducers.cake import Params, cake
from tests.unit.passes import member, reduce
from tests.unit.scattered import STANDING, detector, noise, pyfai

SETTINGS = Params(**STANDING, bins=20, limits=(0.0, 0.8), phi_bins=12, polarization=0.99)


@pytest.fixture(scope="module")
def area():
    return detector()


@pytest.fixture(scope="module")
def frames(area):
    return noise(area)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"solid_angle": False, "polarization": None, "phi_bins": 7},
        {"tilts": (11.0, -7.0), "unit": "deg", "limits": (0.0, 9.0)},
        {"thresholds": (1.5, 4.0)},
    ],
    ids=str,
)
def test_the_cake_is_that_of_pyfai(area, frames, change):
    params = SETTINGS._replace(**change)
    out = reduce([member("c", cake, params, area)], area, frames)
    profile = cake.prepare(params, area)
    low, high = params.thresholds or (-np.inf, np.inf)
    for row, frame in enumerate(frames):
        good = area.mask & (frame >= low) & (frame <= high)
        theirs = pyfai(frame, params, good, params.phi_bins)
        np.testing.assert_allclose(profile.q, theirs.radial, rtol=1e-6)
        np.testing.assert_allclose(profile.phi, theirs.azimuthal, atol=1e-4)
        npix, intensity = out["c/npix"][row], out["c/intensity"][row]
        np.testing.assert_array_equal(npix, theirs.count)
        terms = np.nanmax(np.abs(frame)) * 1e-7
        filled = npix > 0
        np.testing.assert_allclose(
            intensity[filled], theirs.intensity[filled], rtol=1e-6, atol=terms
        )
        assert np.isnan(intensity[~filled]).all()


def test_bins_lie_where_the_azimuth_says(area):
    # 0 along y, the columns of the assembled image; 90 degrees along x, down its rows
    params = SETTINGS._replace(phi_bins=4, phi_limits=(-45.0, 315.0), bins=1)
    x, y = (area.xyz[i] - STANDING["center"][i] for i in (0, 1))
    sides = {0: y > np.abs(x), 1: x > np.abs(y), 2: -y > np.abs(x), 3: -x > np.abs(y)}
    frames = [np.where(side & area.mask, 5.0, 0.0).astype(np.float32) for side in sides.values()]
    out = reduce([member("c", cake, params, area)], area, frames)
    for k in range(4):
        brightest = out["c/intensity"][k][:, 0]
        assert brightest[k] > 4.9
        assert np.delete(brightest, k).max() < 0.1


@pytest.mark.parametrize("limits", [(90.0, 270.0), (-370.0, -200.0), (0.0, 60.0)])
def test_a_range_may_lie_across_the_end_of_the_circle(area, frames, limits):
    params = SETTINGS._replace(phi_limits=limits, phi_bins=3, polarization=None, bins=2)
    out = reduce([member("c", cake, params, area)], area, frames[2:])
    pixels = geo.Geometry.of(60.0, 9.5, STANDING["center"]).pixels(geo.on_detector(area.xyz))
    q = geo.Geometry.of(60.0, 9.5).q(pixels.two_theta)
    phi = (np.degrees(pixels.phi) - limits[0]) % 360
    good = area.mask & ~np.isnan(frames[2])
    width = (limits[1] - limits[0]) / 3
    for i in range(3):
        for j in range(2):
            here = good & (phi // width == i) & (q // 0.4 == j)
            assert out["c/npix"][0, i, j] == here.sum()
            expected = frames[2][here].astype(float).sum() / pixels.solid_angle[here].sum()
            np.testing.assert_allclose(out["c/intensity"][0, i, j], expected, rtol=1e-6)


def test_the_sum_over_phi_is_the_profile(area, frames):
    shared = {**STANDING, "bins": 20, "limits": (0.0, 0.8), "moments": True, "errors": "azimuthal"}
    both = [
        member("c", cake, Params(**shared, reference=(0.2, 0.5)), area),
        member("az", azimuthal, Profile(**shared, reference=(0.2, 0.5)), area),
    ]
    out = reduce(both, area, frames)
    for moment in ("sum", "norm", "npix"):
        total = out[f"c/{moment}"].sum(axis=1)
        within = 1e-6 if moment == "sum" else 1e-9  # float32 adds up neighbours that share a bin
        np.testing.assert_allclose(total, out[f"az/{moment}"], rtol=within)
    np.testing.assert_allclose(out["c/reference"], out["az/reference"], rtol=1e-6)


def test_a_cake_may_have_more_bins_than_16_bits_count(area, frames):
    # the 360 bins that production takes if nothing is said
    params = Params(**STANDING, bins=512, limits=(0.0, 0.9), phi_bins=360)
    out = reduce([member("c", cake, params, area)], area, frames[:1])
    assert out["c/npix"].shape == (1, 360, 512)
    where = geo.Geometry.of(60.0, 9.5, STANDING["center"])
    pixels = where.pixels(geo.on_detector(area.xyz))
    q, phi = where.q(pixels.two_theta)[area.mask], np.degrees(pixels.phi)[area.mask]
    turn = np.linspace(-180, 180, 361), np.linspace(0, 0.9, 513)
    number, *_ = np.histogram2d(phi, q, turn)
    np.testing.assert_array_equal(out["c/npix"][0], number)
    total, *_ = np.histogram2d(phi, q, turn, weights=frames[0][area.mask].astype(float))
    norm, *_ = np.histogram2d(phi, q, turn, weights=pixels.solid_angle[area.mask])
    filled = number > 0
    np.testing.assert_allclose(
        out["c/intensity"][0][filled], total[filled] / norm[filled], rtol=1e-6, atol=1e-6
    )


def test_everything_that_cannot_be_meant_is_listed_at_once(area):
    params = Params(bins=70000, phi_bins=8, phi_limits=(0.0, 361.0), errors="x")
    with pytest.raises(ValueError, match="bins: 70000; give 1 to 65535") as error:
        cake.prepare(params, area)
    names = [line.split(":")[0] for line in str(error.value).splitlines()]
    assert names == ["bins", "phi_limits", "errors", "distance"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"phi_bins": 0}, "phi_bins: 0; give"),
        ({"phi_limits": (np.nan, 0.0)}, "phi_limits: .nan"),
        (
            {"limits": (0.0, 0.013), "phi_limits": (170.0, 171.0)},
            "no good pixel lies within them and",
        ),
    ],
    ids=str,
)
def test_parameters_that_do_not_fit_are_refused(area, change, words):
    with pytest.raises(ValueError, match=words):
        cake.prepare(SETTINGS._replace(**change), area)
