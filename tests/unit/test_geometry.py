"""Positions to angles, solid angle and polarisation: held to pyFAI and to plain vectors."""

import numpy as np
import pytest
from pyFAI.detectors import Detector
from pyFAI.integrator.azimuthal import AzimuthalIntegrator
from scipy.spatial.transform import Rotation

from ffb.reducers import geometry as geo

SHAPE = (60, 70)
PIXEL = (75e-6, 80e-6)


def integrator(rotations=(0.0, 0.0, 0.0), poni=(0.004, 0.006)):
    return AzimuthalIntegrator(
        dist=0.09,
        poni1=poni[0],
        poni2=poni[1],
        rot1=rotations[0],
        rot2=rotations[1],
        rot3=rotations[2],
        wavelength=1.3e-10,
        detector=Detector(*PIXEL, max_shape=SHAPE),
    )


@pytest.fixture(params=[(0.0, 0.0, 0.0), (0.1, -0.2, 0.3)], ids=["straight", "rotated"])
def theirs(request):
    return integrator(request.param)


@pytest.fixture
def ours(theirs, tmp_path):
    theirs.save(str(tmp_path / "a.poni"))
    return geo.read_poni(tmp_path / "a.poni")


def test_angles_are_those_of_pyfai(theirs, ours):
    where, pixel = ours
    pixels = where.pixels(geo.flat((1, *SHAPE), pixel))
    for mine, unit in (
        (pixels.two_theta, "2th_rad"),
        (pixels.phi, "chi_rad"),
        (where.q(pixels.two_theta), "q_A^-1"),
    ):
        reference = theirs.center_array(SHAPE, unit)
        np.testing.assert_allclose(mine[0], reference, rtol=1e-12, atol=1e-12)


def test_corrections_are_those_of_pyfai(theirs, ours):
    where, pixel = ours
    pixels = where.pixels(geo.flat((1, *SHAPE), pixel))
    d1, d2 = np.indices(SHAPE, float)
    cosine = theirs.cos_incidence(d1, d2, path="numpy")
    np.testing.assert_allclose(pixels.solid_angle[0], cosine**3, rtol=1e-12)
    # The array that pyFAI itself applies went through its own, less exact, code...
    np.testing.assert_allclose(pixels.solid_angle[0], theirs.solidAngleArray(SHAPE), rtol=1e-8)
    # ... and that of the polarisation is float32.
    reference = theirs.polarization(SHAPE, 0.9)
    np.testing.assert_allclose(geo.polarization(pixels, 0.9)[0], reference, rtol=1e-7)


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


def test_the_detector_frame_is_that_of_the_image_psana_assembles():
    rows, cols = np.indices(SHAPE, float)
    x, y = rows * PIXEL[0] * 1e6 - 3000, cols * PIXEL[1] * 1e6 + 500
    xyz = np.stack([x, y, np.full(SHAPE, -1e5)])[:, None]
    np.testing.assert_allclose(
        geo.assembled(xyz, PIXEL), geo.flat((1, *SHAPE), PIXEL), rtol=0, atol=1e-15
    )


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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0.0, 9.5), "millimet|mm"),
        ((100.0, 9500.0), "keV"),
        ((100.0, 9.5, (0, 0), (90, 0)), "tilts"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        geo.Geometry.of(*arguments)


def test_a_poni_file_of_version_1_is_understood(tmp_path):
    path = tmp_path / "old.poni"
    path.write_text(
        "# made by hand\nPixelSize1: 7.5e-05\nPixelSize2: 8e-05\nDistance: 0.09\nPoni1: 0.004\n"
        "Poni2: 0.006\nRot1: 0.1\nRot2: -0.2\nRot3: 0.3\nSplineFile: None\nWavelength: 1.3e-10\n"
    )
    where, pixel = geo.read_poni(path)
    assert pixel == PIXEL
    assert where == geo.Geometry(0.09, (0.004, 0.006), (0.1, -0.2, 0.3), pytest.approx(1.3))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("Rot2: 0", ""), "rot2 is missing"),
        (("Poni1: 0.004", "Poni1: left"), "poni1 is 'left'"),
        (('"pixel2": 8e-05, ', ""), "pixel2 is missing"),
        (('"orientation": 3', '"orientation": 2'), "orientation 2"),
        (('{"pixel1"', "{pixel1"), "not JSON"),
    ],
)
def test_a_broken_poni_file_says_what_is_wrong(tmp_path, change, words):
    path = tmp_path / "a.poni"
    integrator().save(str(path))
    text = path.read_text()
    assert change[0] in text
    path.write_text(text.replace(*change))
    with pytest.raises(ValueError, match=words) as error:
        geo.read_poni(path)
    assert str(path) in str(error.value)


def test_segments_without_geometry_cannot_be_placed():
    with pytest.raises(ValueError, match="2 segments without a geometry"):
        geo.flat((2, 4, 4), PIXEL)
