"""PONI files mean here what they mean to pyFAI: positions, angles, corrections and I(q)."""

import re
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyFAI.detectors import Detector
from pyFAI.integrator.azimuthal import AzimuthalIntegrator
from pyFAI.io.ponifile import PoniFile

from ffb import Area
from ffb.reducers import geometry as geo
from ffb.reducers import poni
from ffb.reducers.azimuthal import Params, azimuthal
from ffb.reducers.scattering import UNITS
from tests.unit.passes import member, reduce
from tests.unit.poni_files import FILE, by_hand


class Setup(NamedTuple):
    """A detector before pyFAI, and what to ask of it."""

    engine: AzimuthalIntegrator
    shape: tuple[int, int]
    unit: str
    bins: int
    polarization: float | None
    solid_angle: bool
    seed: int


def angle(most):
    return st.floats(-most, most, allow_subnormal=False)


@st.composite
def setups(draw, smallest=1):
    shape = draw(st.integers(smallest, 9)), draw(st.integers(smallest, 11))
    pixel = draw(st.sampled_from([(75e-6, 75e-6), (1.72e-4, 1.72e-4), (5e-5, 2e-4), (1e-3, 4e-4)]))
    offset = st.floats(-2, 3, allow_subnormal=False)  # in sizes of the detector: on it and off it
    engine = AzimuthalIntegrator(
        dist=draw(st.floats(1e-3, 2.0)),
        poni1=draw(offset) * shape[0] * pixel[0],
        poni2=draw(offset) * shape[1] * pixel[1],
        rot1=draw(angle(0.7)),
        rot2=draw(angle(0.7)),
        rot3=draw(angle(3.1)),
        wavelength=draw(st.floats(0.4e-10, 3e-10)),
        detector=Detector(*pixel, max_shape=shape, orientation=draw(st.integers(1, 4))),
    )
    factor = draw(st.one_of(st.none(), st.floats(-1, 1, allow_subnormal=False)))
    unit, bins = draw(st.sampled_from(sorted(UNITS))), draw(st.integers(2, 40))
    return Setup(engine, shape, unit, bins, factor, draw(st.booleans()), draw(st.integers(0, 99)))


def saved(engine, folder):
    path = folder / "a.poni"
    path.unlink(missing_ok=True)
    engine.save(str(path))
    return path


CASES = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@given(setup=setups())
@CASES
def test_angles_and_corrections_are_those_of_pyfai(setup, tmp_path):
    engine, shape = setup.engine, setup.shape
    file = poni.read(saved(engine, tmp_path))
    pixels = file.geometry.pixels(file.flat((1, *shape)))
    q = file.geometry.q(pixels.two_theta)
    for mine, unit, whole in (
        (pixels.two_theta, "2th_rad", 0.0),
        (pixels.radius * 1e3, "r_mm", 0.0),
        (q, "q_A^-1", 0.0),
        (q * 10, "q_nm^-1", 0.0),
        (np.degrees(pixels.two_theta), "2th_deg", 0.0),
        (pixels.phi, "chi_rad", 2 * np.pi),
    ):
        theirs = engine.center_array(shape, unit)
        apart = np.abs(mine[0] - theirs)
        apart = np.minimum(apart, np.abs(apart - whole)) if whole else apart
        assert (apart <= 1e-7 * np.abs(theirs) + 1e-9).all(), unit
    d1, d2 = np.indices(shape, float)
    cosine = engine.cos_incidence(d1, d2, path="numpy")
    np.testing.assert_allclose(pixels.solid_angle[0], cosine**3, rtol=1e-10)
    # the arrays that pyFAI itself applies are less exact
    np.testing.assert_allclose(pixels.solid_angle[0], engine.solidAngleArray(shape), rtol=1e-6)
    if setup.polarization is not None:
        theirs = engine.polarization(shape, setup.polarization)
        mine = geo.polarization(pixels, setup.polarization)[0]
        np.testing.assert_allclose(mine, theirs, rtol=2e-7, atol=1e-7)


def frame_of(setup):
    """A frame with NaN, a mask with a dark row; one case in ten has no good pixel but one."""
    rng = np.random.default_rng(setup.seed)
    frame = rng.gamma(2.0, 50.0, setup.shape).astype(np.float32)
    frame[rng.random(setup.shape) < 0.1] = np.nan
    mask = rng.random(setup.shape) > 0.15
    mask[rng.integers(setup.shape[0])] = False
    if setup.seed % 10 == 0:
        mask[:] = False
    mask.flat[rng.integers(mask.size)] = True
    return frame, mask


@given(setup=setups(smallest=2))
@CASES
def test_the_profile_is_that_of_pyfai(setup, tmp_path):
    frame, mask = frame_of(setup)
    shape = (1, *setup.shape)
    area = Area("det", shape, mask[None], None, "keV")
    own = setup.engine.center_array(setup.shape, UNITS[setup.unit])[mask]
    # some pixels lie above the limits, none below: pyFAI has its own way with those
    low, high = float(own.min()) * 0.9, float(own.min()) + 0.8 * float(np.ptp(own)) + 1e-3
    params = Params(
        poni=saved(setup.engine, tmp_path),
        bins=setup.bins,
        limits=(low, high),
        unit=setup.unit,
        polarization=setup.polarization,
        solid_angle=setup.solid_angle,
    )
    bins = azimuthal.prepare(params, area)
    out = reduce([member("az", azimuthal, params, area)], area, frame[None, None])
    intensity, npix = out["az/intensity"][0], out["az/npix"][0]
    theirs = setup.engine.integrate1d(
        frame,
        setup.bins,
        mask=~mask,
        unit=UNITS[setup.unit],
        radial_range=(low, high / (1 + np.finfo(np.float32).eps)),
        method=("no", "histogram", "cython"),
        correctSolidAngle=setup.solid_angle,
        polarization_factor=setup.polarization,
    )
    np.testing.assert_allclose(bins.q, theirs.radial, rtol=1e-6)
    # pixels within float32 rounding of an edge may fall to either side
    place = (setup.engine.center_array(setup.shape, UNITS[setup.unit]) - low) / (high - low)
    place = place[mask] * setup.bins
    sure = np.ones(setup.bins, bool)
    for p in place[np.abs(place - np.rint(place)) < 1e-4]:
        sure[max(0, int(p) - 1) : int(p) + 2] = False
    np.testing.assert_array_equal(npix[sure], theirs.count[sure])
    filled = sure & (npix > 0)
    np.testing.assert_allclose(intensity[filled], theirs.intensity[filled], rtol=1e-6)
    assert np.isnan(intensity[npix == 0]).all()


def test_a_file_of_version_1_is_understood(tmp_path):
    path = tmp_path / "old.poni"
    path.write_text(
        "# made by hand\nPixelSize1: 7.5e-05\nPixelSize2: 8e-05\nDistance: 0.08\nPoni1: 0.004\n"
        "Poni2: 0.006\nRot1: 0.1\nRot2: -0.2\nRot3: 0.3\nSplineFile: None\nWavelength: 1.3e-10\n"
        "Distance: 0.09\n"
    )
    where, pixel, *_ = poni.read(path)
    assert pixel == (75e-6, 80e-6)
    assert where == geo.Geometry(0.09, (0.004, 0.006), (0.1, -0.2, 0.3), pytest.approx(1.3))


def test_of_several_entries_what_only_an_older_version_knows_does_not_count(tmp_path):
    path = tmp_path / "appended.poni"
    older = "Detector: Eiger4M\nPixelSize1: 1e-4\nPixelSize2: 2e-4\nSplineFile: a.spline\n"
    newer = FILE.format(detector="Pilatus1M", config='{"orientation": 2}') + "Wavelength: 1e-10\n"
    path.write_text(older + "Distance: 3\nWavelength: 2e-10\n# LaB6\n" + newer)
    file, theirs = poni.read(path), PoniFile(str(path))
    assert file.pixel == pytest.approx((theirs.detector.pixel1, theirs.detector.pixel2))
    assert file.pixel == pytest.approx((172e-6, 172e-6))
    assert file.orientation == theirs.detector.orientation == 2
    assert file.geometry.distance == theirs.dist == 0.09
    assert file.geometry.wavelength == pytest.approx(theirs.wavelength * 1e10)
    path.write_text(older + "Distance: 3\n")
    with pytest.raises(ValueError, match="spline"):
        poni.read(path)


def test_comments_may_be_in_any_encoding_and_a_mark_may_come_first(tmp_path):
    path = by_hand(tmp_path, "Eiger4M")
    text = path.read_text().partition("\n")[2]
    path.write_bytes(b"\xef\xbb\xbf" + text.encode() + b"# 1.3 \xc5\r\n")
    assert poni.read(path) == poni.read(by_hand(tmp_path, "Eiger4M"))


def test_a_jungfrau_that_pyfai_has_arranged_is_not_the_image_psana_assembles(tmp_path):
    rows, cols = np.indices((512, 1024), float)
    xyz = np.stack([rows * 75, cols * 75, 0 * rows])[:, None]
    xyz = np.concatenate([xyz + np.reshape([0, 82e3 * k, 0], (3, 1, 1, 1)) for k in (0, 1)], axis=1)
    with pytest.raises(ValueError, match=r"image of \(1064, 1030\), but psana assembles .*2117"):
        poni.read(by_hand(tmp_path, "Jungfrau_1M", '{"orientation": 4}')).assembled(xyz)


def named():
    """Every name of pyFAI's that we have a pixel size for."""
    for name, made in sorted(Detector.registry.items()):
        if re.sub(r"[\s_-]", "", name).startswith(tuple(poni.PIXELS)):
            yield name, made()


def test_named_detectors_have_the_pixels_that_pyfai_knows(tmp_path):
    seen = 0
    for name, detector in named():
        file = poni.read(by_hand(tmp_path, name))
        assert file.pixel == pytest.approx((detector.pixel1, detector.pixel2)), name
        assert bool(poni.UNEVEN.match(file.detector)) is not detector.uniform_pixel, name
        seen += 1
    assert seen > 150
    assert poni.read(by_hand(tmp_path, "Rayonix MX340-HS")).pixel[0] == pytest.approx(8.85417e-5)
    assert poni.read(by_hand(tmp_path, "epix10ka")).pixel == pytest.approx((1e-4, 1e-4))
    assert poni.read(by_hand(tmp_path, "Epix100a")).pixel == pytest.approx((5e-5, 5e-5))
    # what the file itself says goes first, as for a binned detector
    given = poni.read(by_hand(tmp_path, "Pilatus1M", '{"pixel1": 3.44e-4, "pixel2": 3.44e-4}'))
    assert given.pixel == (3.44e-4, 3.44e-4)


def test_uneven_detectors_of_pyfai_are_refused_where_only_a_geometry_places_them(tmp_path):
    config = '{"pixel1": 1e-4, "pixel2": 1e-4}'
    for name, made in sorted(Detector.registry.items()):
        detector = made()
        if detector.max_shape is None or (detector.uniform_pixel and detector.IS_FLAT):
            continue
        file = poni.read(by_hand(tmp_path, name, config))
        with pytest.raises(ValueError, match="without a geometry"):
            file.flat((1, *detector.max_shape))


def test_the_corner_is_that_of_the_image_psana_assembles(tmp_path):
    shape, pixel = (60, 70), (75e-6, 80e-6)
    rows, cols = np.indices(shape, float)
    x, y = rows * pixel[0] * 1e6 - 3000, cols * pixel[1] * 1e6 + 500
    xyz = np.stack([x, y, np.full(shape, -1e5)])[:, None]
    for orientation in (1, 2, 3, 4):
        config = f'{{"pixel1": 7.5e-5, "pixel2": 8e-5, "orientation": {orientation}'
        file = poni.read(by_hand(tmp_path, config=config + ', "max_shape": [60, 70]}'))
        if orientation != 3:
            with pytest.raises(ValueError, match="max_shape"):
                poni.read(by_hand(tmp_path, config=config + "}")).assembled(xyz)
        flat, assembled = file.flat((1, *shape)), file.assembled(xyz)
        np.testing.assert_allclose(assembled, flat, rtol=0, atol=1e-15)


def test_a_part_of_a_detector_counts_from_the_corner_of_the_whole(tmp_path):
    rows, cols = np.indices((8, 9), float)
    xyz = np.stack([rows * 75 - 300, cols * 75 + 50, 0 * rows])[:, None]
    xyz = np.concatenate([xyz, xyz + np.reshape([800, 900, 0], (3, 1, 1, 1))], axis=1)
    config = '{"pixel1": 7.5e-5, "pixel2": 7.5e-5, "max_shape": [18, 21]}'
    for orientation in (1, 2, 3, 4):
        more = config.replace("{", f'{{"orientation": {orientation}, ')
        path = by_hand(tmp_path, config=more, Wavelength=1e-10)
        whole = poni.read(path).assembled(xyz)
        part = poni.read(path).assembled(xyz[:, 1:], (-300.0, 50.0))
        np.testing.assert_allclose(part, whole[:, 1:], rtol=0, atol=1e-15)
    mask = np.ones((1, 8, 9), bool)
    area = Area("det", mask.shape, mask, xyz[:, 1:], "keV", (-300.0, 50.0))
    whole_area = Area("det", (2, 8, 9), np.stack([~mask[0], mask[0]]), xyz, "keV")
    a, b = (azimuthal.prepare(Params(poni=path, bins=5), d) for d in (area, whole_area))
    np.testing.assert_allclose(a.q, b.q, rtol=1e-12)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((16, 9), r"made for segments one above the other, \(16, 9\), as by LCLSGeom"),
        ((32, 9), "one above the other"),
        ((18, 17), r"made for an image of \(18, 17\), but psana assembles one of \(19, 21\)"),
        ((20, 21), None),
        ((17, 19), None),
    ],
)
def test_a_file_made_for_another_image_is_refused(tmp_path, shape, words):
    rows, cols = np.indices((8, 9), float)
    xyz = np.stack([rows * 75 - 300, cols * 75 + 50, 0 * rows])[:, None]
    xyz = np.concatenate([xyz, xyz + np.reshape([800, 900, 0], (3, 1, 1, 1))], axis=1)
    config = f'{{"pixel1": 7.5e-5, "pixel2": 7.5e-5, "max_shape": {[*shape]}}}'
    file = poni.read(by_hand(tmp_path, "Jungfrau1M", config))
    if words is None:
        file.assembled(xyz)
        return
    with pytest.raises(ValueError, match=words):
        file.assembled(xyz)


def test_segments_that_psana_too_puts_one_above_the_other_are_an_image(tmp_path):
    rows, cols = np.indices((16, 9), float)
    xyz = np.stack([rows * 75, cols * 75, 0 * rows]).reshape(3, 2, 8, 9)
    config = '{"pixel1": 7.5e-5, "pixel2": 7.5e-5, "max_shape": [16, 9]}'
    placed = poni.read(by_hand(tmp_path, config=config)).assembled(xyz)
    np.testing.assert_allclose(placed[0, :, :, 0].ravel(), (np.arange(16) + 0.5) * 75e-6)


def test_a_file_for_frames_of_one_segment_places_them_as_they_are(tmp_path):
    rows, cols = np.indices((8, 9), float)
    # turned by 90 degrees and with a seam: psana's image of it is 9 x 11
    xyz = np.stack([cols * 75, -75 * (rows + 3 * (rows > 3)), 0 * rows])[:, None]
    area = Area("det", (1, 8, 9), np.ones((1, 8, 9), bool), xyz, "keV")
    config = '{"pixel1": 7.5e-5, "pixel2": 7.5e-5, "max_shape": [8, 9]}'
    file = by_hand(tmp_path, config=config, Wavelength=1e-10)
    ours = azimuthal.prepare(Params(poni=file, bins=7), area)
    flat = azimuthal.prepare(Params(poni=file, bins=7), area._replace(xyz=None))
    np.testing.assert_array_equal(ours.q, flat.q)
    of_image = by_hand(tmp_path, config=config.replace("[8, 9]", "[9, 11]"), Wavelength=1e-10)
    other = azimuthal.prepare(Params(poni=of_image, bins=7), area)
    assert np.abs(other.q / flat.q - 1).max() > 1e-3
    with pytest.raises(ValueError, match="as by LCLSGeom"):
        azimuthal.prepare(Params(poni=by_hand(tmp_path, "Jungfrau05M", config)), area)


def test_a_distance_that_the_geometry_knows_is_told(tmp_path):
    _, area = area_of(tmp_path)
    area = area._replace(xyz=np.full((3, *area.shape), -98_765.0))
    with pytest.raises(ValueError, match=r"distance: .*detector \(its geometry says 98\.765\)"):
        azimuthal.prepare(Params(), area)


def area_of(tmp_path, wavelength=None, **change):
    """Parameters for a file of a 5 x 6 detector, and that detector."""
    more = {} if wavelength is None else {"Wavelength": wavelength}
    path = by_hand(tmp_path, config='{"pixel1": 7.5e-5, "pixel2": 8e-5}', **more)
    area = Area("det", (1, 5, 6), np.ones((1, 5, 6), bool), None, "keV")
    return Params(poni=path, bins=4)._replace(**change), area


def test_without_a_wavelength_q_needs_the_energy_and_angles_do_not(tmp_path):
    params, area = area_of(tmp_path)
    with pytest.raises(ValueError, match=r"^energy: q needs the photon energy"):
        azimuthal.prepare(params, area)
    azimuthal.prepare(params._replace(unit="deg"), area)
    given = azimuthal.prepare(params._replace(energy=9.5), area)
    told, _ = area_of(tmp_path, wavelength=geo.HC / 9.5 * 1e-10)
    np.testing.assert_allclose(azimuthal.prepare(told, area).q, given.q, rtol=1e-12)
    # an energy that is given goes before the wavelength of the file
    doubled = azimuthal.prepare(told._replace(energy=19.0), area)
    np.testing.assert_allclose(doubled.q, 2 * given.q, rtol=1e-12)


@pytest.mark.parametrize("name", list(UNITS))
def test_pyfais_names_of_units_are_understood(tmp_path, name):
    ours, area = area_of(tmp_path, wavelength=1e-10, unit=name)
    theirs = ours._replace(unit=UNITS[name])
    a, b = azimuthal.prepare(ours, area), azimuthal.prepare(theirs, area)
    np.testing.assert_array_equal(a.q, b.q)


@pytest.mark.parametrize(
    ("config", "more", "words"),
    [
        ('{"pixel1": 7.5e-5}', {}, "pixel2 is missing"),
        ("{}", {}, "pixel1 is missing"),
        ('{"pixel1": 7.5e-5, "pixel2": 0.0}', {}, "pixel2 is missing"),
        ('{"pixel1": 7.5e-5, "pixel2": -1}', {}, "pixel2 is -1, no size"),
        ('{"pixel1": 1e-4, "pixel2": 1e-4, "orientation": 7}', {}, "orientation 7"),
        ('{"pixel1": 1e-4, "pixel2": 1e-4, "splineFile": "a.spline"}', {}, "spline"),
        ('{"pixel1": 1e-4, "pixel2": 1e-4}', {"Parallax": "True"}, "parallax"),
        ('{"pixel1": 1e-4, "pixel2": 1e-4}', {"Rot2": "left"}, "rot2 is 'left', no number"),
        ('{"pixel1": 1e-4, "pixel2": 1e-4}', {"Distance": "0"}, "distance is '0', no size"),
        ('{"pixel1": 1e-4, "pixel2": 1e-4}', {"Wavelength": "nan"}, "wavelength is 'nan'"),
        ('{"x_offset_file": "a.cbf", "pixel1": 1e-4, "pixel2": 1e-4}', {}, "x_offset_file a.cbf"),
        ('{"filename": "a.h5", "pixel1": 1e-4, "pixel2": 1e-4}', {}, "filename a.h5 moves pixels"),
        ("{}", {"Detector": "/cal/Jungfrau.h5"}, "/cal/Jungfrau.h5 moves pixels one by one"),
        ('{"max_shape": [5], "pixel1": 1e-4, "pixel2": 1e-4}', {}, r"max_shape \[5\] is no image"),
        ('{"max_shape": 5, "pixel1": 1e-4, "pixel2": 1e-4}', {}, "max_shape 5 is no image"),
        ('{"pixel1": 75, "pixel2": 75}', {}, r"pixel1 is 75 m; write metres \(7.5e-05, if those"),
        ('{"pixel1": 1e-4, "pixel2": 1e-4}', {"Distance": 90}, r"90 m; .* \(0.09, if .*milli"),
        ('{"pixel1": 1e-4, "pixel2": 1e-4}', {"Wavelength": 1.3}, r"\(1.3e-10, if .* angstrom\)"),
        ("{pixel1", {}, "not JSON"),
        ("[1, 2]", {}, "a table of keys"),
        ('{"pixel1": 1e-4, "pixel2": 1e-4, "max_shape": [7, 6]}', {}, r"image of \(7, 6\)"),
    ],
    ids=str,
)
def test_a_file_that_will_not_do_says_why_and_where(tmp_path, config, more, words):
    path = by_hand(tmp_path, config=config, **more)
    area = Area("det", (1, 5, 6), np.ones((1, 5, 6), bool), None, "keV")
    with pytest.raises(ValueError, match=words) as error:
        azimuthal.prepare(Params(poni=path, energy=9.5), area)
    assert all(line.startswith("poni: ") for line in str(error.value).splitlines())
    assert str(path) in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    params, area = area_of(tmp_path, poni=tmp_path / "no.poni")
    with pytest.raises(ValueError, match=r"poni: cannot read .*no\.poni: No such file"):
        azimuthal.prepare(params, area)


def test_several_segments_need_a_geometry(tmp_path):
    params, area = area_of(tmp_path, energy=9.5)
    with pytest.raises(ValueError, match=r"poni: .*2 segments without a geometry"):
        azimuthal.prepare(params, area._replace(shape=(2, 5, 6)))
