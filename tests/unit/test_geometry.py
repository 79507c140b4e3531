"""Positions to angles, solid angle and polarisation: held to plain vectors."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ffb.reducers import geometry as geo
from tests.unit.scattered import azav_angles


def test_the_beam_meets_a_tilted_detector_where_it_is_said_to():
    center, tilts, distance = (1500.0, -700.0), (12.0, -8.0), 80.0
    where = geo.Geometry.of(distance, 9.5, center, tilts)
    rng = np.random.default_rng(1)
    xy = rng.uniform(-40e3, 40e3, (2, 1, 5, 7))
    xyz = np.concatenate([xy, np.zeros((1, 1, 5, 7))])
    pixels = where.pixels(geo.on_detector(xyz))
    # The same by plain vectors: turn the detector about the point where the beam meets it.
    on_plane = np.moveaxis(xyz, 0, -1) - (*center, 0.0)
    turn = Rotation.from_euler("xy", [-tilts[0], -tilts[1]], degrees=True)  # left-handed
    rays = turn.apply(on_plane.reshape(-1, 3))
    rays[:, 2] += distance * 1e3
    cosine = rays[:, 2] / np.linalg.norm(rays, axis=1)
    np.testing.assert_allclose(np.cos(pixels.two_theta).ravel(), cosine, rtol=1e-12)
    np.testing.assert_allclose(pixels.phi.ravel(), np.arctan2(rays[:, 0], rays[:, 1]), atol=1e-12)
    here = where.pixels(geo.on_detector(np.array([*center, 0.0]).reshape(3, 1, 1, 1)))
    assert here.two_theta.item() == pytest.approx(0, abs=1e-9)


def test_a_pixel_nearer_to_the_sample_scatters_wider():
    # psana's z points against the beam: the second segment stands 1 mm nearer.
    xyz = np.zeros((3, 2, 1, 1))
    xyz[0], xyz[2] = 20e3, np.array([-1e5, -0.99e5]).reshape(2, 1, 1)
    pixels = geo.Geometry.of(100.0, 9.5).pixels(geo.on_detector(xyz))
    expected = np.arctan2(20.0, [100.5, 99.5])
    np.testing.assert_allclose(pixels.two_theta.ravel(), expected, rtol=1e-12)
    r2 = 20.0**2 + np.array([100.5, 99.5]) ** 2
    solid = 100.0**2 / r2 * np.array([100.5, 99.5]) / np.sqrt(r2)
    np.testing.assert_allclose(pixels.solid_angle.ravel(), solid, rtol=1e-12)


def test_horizontal_polarisation_takes_from_the_horizontal_plane():
    # Horizontal is psana's y, along the columns of its image.
    xyz = np.zeros((3, 1, 1, 2))
    xyz[0, ..., 0] = xyz[1, ..., 1] = 50e3
    pixels = geo.Geometry.of(50.0, 9.5).pixels(geo.on_detector(xyz))
    np.testing.assert_allclose(geo.polarization(pixels, 1.0).ravel(), [1.0, 0.5], atol=1e-12)
    np.testing.assert_allclose(geo.polarization(pixels, -1.0).ravel(), [0.5, 1.0], atol=1e-12)
    with pytest.raises(ValueError, match="between -1 and 1"):
        geo.polarization(pixels, 1.5)


def test_q_of_a_right_angle_at_one_angstrom():
    where = geo.Geometry.of(100.0, geo.HC)
    assert where.wavelength == 1
    assert where.q(np.array([np.pi / 2])).item() == pytest.approx(4 * np.pi * np.sin(np.pi / 4))


def test_q_needs_an_energy_and_angles_do_not():
    where = geo.Geometry.of(100.0, None)
    pixels = where.pixels(np.full((3, 1, 1, 1), 0.03))
    assert pixels.radius.item() == pytest.approx(0.03 * np.sqrt(2))
    with pytest.raises(ValueError, match="energy: q needs"):
        where.q(pixels.two_theta)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0.0, 9.5), "distance: 0; give the millimet"),
        ((np.nan, 9.5), "distance: nan"),
        ((100.0, 9500.0), "energy: 9500; .* keV"),
        ((100.0, 9.5, (0, np.inf)), "center"),
        ((100.0, 9.5, (0, 0), (90, 0)), "tilts"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        geo.Geometry.of(*arguments)


@pytest.mark.parametrize(("tx", "ty"), [(0, 0), (0, 4), (0, -7), (3, 0), (-6, 0)])
def test_the_conventions_of_smalldata_tools_are_as_documented(tx, ty):
    xy = np.random.default_rng(2).uniform(-40e3, 40e3, (2, 1, 9, 11))
    xyz = np.concatenate([xy, np.full((1, 1, 9, 11), -1e5)])
    center, normal = (1500.0, -700.0), 80.0
    two_theta, phi, factor = azav_angles(xyz, center, normal, tx, ty)
    met = (center[0], center[1] - 2 * normal * 1e3 * np.tan(np.radians(tx)))
    along = normal / np.cos(np.radians(tx)) / np.cos(np.radians(ty))
    pixels = geo.Geometry.of(along, 9.5, met, (tx, -ty)).pixels(geo.on_detector(xyz))
    np.testing.assert_allclose(pixels.two_theta, two_theta, rtol=1e-9)
    np.testing.assert_allclose(np.mod(pixels.phi, 2 * np.pi), phi, atol=1e-6)
    np.testing.assert_allclose(pixels.solid_angle, factor, rtol=1e-12)
    for plane in (0.0, 0.3, 1.0):
        sine = np.sin(two_theta)
        theirs = (1 - plane) * (1 - (np.sin(phi) * sine) ** 2)
        theirs += plane * (1 - (np.cos(phi) * sine) ** 2)
        ours = geo.polarization(pixels, 2 * plane - 1)
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
