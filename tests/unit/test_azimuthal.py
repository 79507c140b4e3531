"""I(q) held to pyFAI's histogram engine and to float64 brute force."""

from pathlib import Path

import numpy as np
import pytest
from pyFAI.detectors import Detector
from pyFAI.integrator.azimuthal import AzimuthalIntegrator

from ffb import Area, Tile
from ffb.reducers import geometry as geo
from ffb.reducers.azimuthal import LONGEST, Params, assign, azimuthal
from tests.unit.passes import member, reduce

PIXEL = 75e-6
#: Rows and columns where the segments sit in the assembled image, which has gaps.
PLACES = ((0, 0), (0, 140), (75, 3), (75, 143))
SEGMENT = (70, 133)
IMAGE = (150, 280)
CENTER = (71.3, 139.6)  # pixels
DISTANCE, ENERGY = 60.0, 9.5


def scattered(image):
    """Segments (4, 70, 133) of an assembled image."""
    return np.stack([image[r : r + SEGMENT[0], c : c + SEGMENT[1]] for r, c in PLACES])


@pytest.fixture(scope="module")
def area():
    x, y = (np.indices(IMAGE) + 0.5) * PIXEL * 1e6
    xyz = np.stack([scattered(x), scattered(y), np.full((4, *SEGMENT), -6e4)])
    rng = np.random.default_rng(3)
    mask = rng.random((4, *SEGMENT)) > 0.05
    mask[1, :, -1] = mask[2, :, 0] = mask[3, 10] = False
    return Area("jungfrau", (4, *SEGMENT), mask, xyz, "keV")


@pytest.fixture(scope="module")
def frames(area):
    rng = np.random.default_rng(4)
    out = rng.normal(3, 2, (3, *area.shape)).astype(np.float32)
    out[1] *= 1e4
    out[:, ~area.mask] = 0
    return out


def pyfai(frame, area, params, good, **options):
    """Integrate with pyFAI's histogram engine, no pixel splitting, between the same edges."""
    detector = Detector(PIXEL, PIXEL, max_shape=IMAGE)
    engine = AzimuthalIntegrator(
        dist=DISTANCE * 1e-3,
        poni1=CENTER[0] * PIXEL,
        poni2=CENTER[1] * PIXEL,
        wavelength=geo.HC / ENERGY * 1e-10,
        detector=detector,
    )
    image, masked = np.zeros(IMAGE, np.float32), np.ones(IMAGE, np.int8)
    for s, (r, c) in enumerate(PLACES):
        where = np.s_[r : r + SEGMENT[0], c : c + SEGMENT[1]]
        image[where], masked[where] = frame[s], ~good[s]
    low, high = params.limits
    return engine.integrate1d(
        image,
        params.bins,
        mask=masked,
        unit={"1/angstrom": "q_A^-1", "1/nm": "q_nm^-1", "deg": "2th_deg"}[params.unit],
        radial_range=(low, high / (1 + np.finfo(np.float32).eps)),  # it adds this to the end
        method=("no", "histogram", "cython"),
        correctSolidAngle=params.solid_angle,
        polarization_factor=params.polarization,
        **options,
    )


SETTINGS = Params(
    distance=DISTANCE,
    energy=ENERGY,
    center=(CENTER[0] * PIXEL * 1e6, CENTER[1] * PIXEL * 1e6),
    bins=60,
    limits=(0.1, 0.8),
    polarization=0.99,
)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"solid_angle": False, "polarization": None},
        {"unit": "1/nm", "limits": (0.0, 8.5), "bins": 300},
        {"unit": "deg", "limits": (1.0, 9.0), "bins": 17},
        {"tilts": (0.0, 0.0), "polarization": 0.0},
    ],
    ids=str,
)
def test_the_profile_is_that_of_pyfai(area, frames, change):
    params = SETTINGS._replace(**change)
    out = reduce([member("az", azimuthal, params, area)], area, frames)
    bins = azimuthal.prepare(params, area)
    for row, frame in enumerate(frames):
        theirs = pyfai(frame, area, params, area.mask)
        np.testing.assert_allclose(bins.q, theirs.radial, rtol=1e-6)
        # pyFAI rounds towards zero: its first bin also takes pixels up to one bin below it
        own = np.s_[1:] if params.limits[0] > 0 else np.s_[:]
        intensity, npix = out["az/intensity"][row][own], out["az/npix"][row][own]
        np.testing.assert_array_equal(npix, theirs.count[own])
        filled, reference = npix > 0, theirs.intensity[own]
        # a bin whose pixels cancel is known no better than its terms
        terms = np.abs(frame).max() * 1e-7
        np.testing.assert_allclose(intensity[filled], reference[filled], rtol=1e-6, atol=terms)
        assert np.isnan(intensity[~filled]).all()


def test_a_poni_file_places_the_assembled_image(area, frames, tmp_path):
    engine = AzimuthalIntegrator(
        dist=DISTANCE * 1e-3,
        poni1=CENTER[0] * PIXEL,
        poni2=CENTER[1] * PIXEL,
        wavelength=geo.HC / ENERGY * 1e-10,
        detector=Detector(PIXEL, PIXEL, max_shape=IMAGE),
    )
    engine.save(str(tmp_path / "a.poni"))
    by_file = SETTINGS._replace(distance=None, energy=None, center=None, poni=tmp_path / "a.poni")
    both = [member("file", azimuthal, by_file, area), member("table", azimuthal, SETTINGS, area)]
    out = reduce(both, area, frames)
    np.testing.assert_array_equal(out["file/npix"], out["table/npix"])
    np.testing.assert_allclose(out["file/intensity"], out["table/intensity"], rtol=1e-7)


def brute(frame, good, axis, weight, edges):
    """Profile and pixels per bin in float64, pixel by pixel."""
    intensity, npix = np.full(edges.size - 1, np.nan), np.zeros(edges.size - 1, int)
    for b in range(edges.size - 1):
        last = b == edges.size - 2
        upper = (axis <= edges[b + 1]) if last else (axis < edges[b + 1])
        here = good & (axis >= edges[b]) & upper
        npix[b] = here.sum()
        if npix[b]:
            intensity[b] = frame[here].astype(float).sum() / weight[here].sum()
    return intensity, npix


@pytest.mark.parametrize("shape", [(1, 3, 1), (1, 5, 7), (2, 9, 37), (3, 4, 64), (1, 2, 1000)])
@pytest.mark.parametrize("bins", [1, 6, 40])
def test_bad_and_masked_pixels_leave_sum_norm_and_number(shape, bins):
    rng = np.random.default_rng(5)
    # steps of 1/8 that add up exactly, so that the reference decides edges as the reducer does
    xyz = rng.integers(0, 8 * 60, (3, *shape)) * 125.0
    mask = rng.random(shape) > 0.2
    mask.flat[0] = True
    area = Area("det", shape, mask, xyz, "keV")
    params = Params(distance=50.0, energy=9.5, bins=bins, polarization=1.0)
    table = azimuthal.prepare(params, area)
    frames = rng.normal(10, 3, (3, *shape)).astype(np.float32)
    frames[1][rng.random(shape) < 0.3] = np.nan
    frames[2] = np.nan
    frames[:, ~mask] = 0
    out = reduce([member("az", azimuthal, params, area)], area, frames)
    where = geo.Geometry.of(50.0, 9.5)
    pixels = where.pixels(geo.on_detector(xyz))
    axis = where.q(pixels.two_theta)
    weight = pixels.solid_angle * geo.polarization(pixels, 1.0)
    half = (table.q[-1] - table.q[0]) / (bins - 1) / 2 if bins > 1 else 0
    edges = np.append(table.q - half, table.q[-1] + half)
    if bins == 1:
        edges = np.array([axis[mask].min(), axis[mask].max()])
    edges[0], edges[-1] = axis[mask].min(), axis[mask].max()
    for row, frame in enumerate(frames):
        intensity, npix = brute(frame, mask & ~np.isnan(frame), axis, weight, edges)
        np.testing.assert_array_equal(out["az/npix"][row], npix)
        np.testing.assert_allclose(out["az/intensity"][row], intensity, rtol=1e-6)
    assert (out["az/npix"][2] == 0).all()
    assert np.isnan(out["az/intensity"][2]).all()


def test_a_bin_that_loses_all_but_one_pixel_keeps_its_weight():
    # what bad pixels take away must be what they brought, to the last bit
    rng = np.random.default_rng(8)
    shape = (1, 50, 400)
    xyz = rng.uniform(0, 4e4, (3, *shape))
    xyz[2] = 0
    area = Area("det", shape, np.ones(shape, bool), xyz, "keV")
    params = Params(distance=20.0, energy=9.5, bins=3, polarization=0.9)
    frame = np.full(shape, np.nan, np.float32)
    left = [(0, 3, 7), (0, 20, 100), (0, 49, 399)]
    for at in left:
        frame[at] = 5.0
    out = reduce([member("az", azimuthal, params, area)], area, [frame])
    pixels = geo.Geometry.of(20.0, 9.5).pixels(geo.on_detector(xyz))
    weight = pixels.solid_angle * geo.polarization(pixels, 0.9)
    where = geo.Geometry.of(20.0, 9.5).q(pixels.two_theta)
    low, high = where.min(), where.max()
    expected = np.zeros((2, 3))
    for at in left:
        b = min(int((where[at] - low) / (high - low) * 3), 2)
        expected[:, b] += 5.0, weight[at]
    with np.errstate(invalid="ignore"):
        reference = expected[0] / expected[1]
    np.testing.assert_allclose(out["az/intensity"][0], reference, rtol=1e-6)


def test_pixels_without_a_place_belong_to_no_bin():
    axis = np.array([[[0.0, np.nan, 1.0, 2.0, np.nan]]])
    ones, good = np.ones(axis.shape), np.ones(axis.shape, bool)
    assert assign(axis, ones, good, 2, None).number.tolist() == [1, 2]
    with pytest.raises(ValueError, match="no good pixel has a place"):
        assign(axis * np.nan, ones, good, 2, None)


def test_rows_too_long_to_be_counted_are_refused():
    shape = (1, 1, 2**16 + 1)
    area = Area("det", shape, np.ones(shape, bool), np.zeros((3, *shape)), "keV")
    with pytest.raises(ValueError, match="rows of 65537 pixels"):
        azimuthal.prepare(SETTINGS, area)


def test_runs_of_every_length_are_summed_once():
    lengths = [*range(1, 2 * LONGEST + 2), 50]
    axis = np.repeat(np.arange(len(lengths), dtype=float), lengths)[None, None]
    table = assign(axis, np.ones(axis.shape), np.ones(axis.shape, bool), len(lengths), None)
    area = Area("det", axis.shape, np.ones(axis.shape, bool), None, "keV")
    state = azimuthal.allocate(table)
    values = np.random.default_rng(6).normal(0, 1, axis.size).astype(np.float32)
    for bad in (0, 1):  # the fast way and the careful one
        azimuthal.functions["start"](table, state)
        tile = Tile(values, area.mask.ravel().view(np.uint8), bad, 0, 0)
        azimuthal.functions["accumulate"](tile, table, state)
        done = azimuthal.functions["finish"](table, state)
        reference = [
            part.astype(float).mean() for part in np.split(values, np.cumsum(lengths)[:-1])
        ]
        np.testing.assert_allclose(done.intensity, reference, rtol=1e-12)
        np.testing.assert_array_equal(done.npix, lengths)


def test_everything_that_cannot_be_meant_is_listed_at_once(area):
    params = Params(bins=0, limits=(2.0, 1.0), unit="furlong", polarization=2.0)
    with pytest.raises(ValueError, match="bins: 0") as error:
        azimuthal.prepare(params, area._replace(mask=np.zeros(area.shape, bool)))
    names = [line.split(":")[0] for line in str(error.value).splitlines()]
    assert names == ["bins", "limits", "unit", "polarization", "distance", "limits"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"limits": (5.0, 6.0)}, "no good pixel between 5 and 6"),
        ({"bins": 2**16 - 1}, "bins: 65535"),
        ({"limits": (0.1, np.inf)}, "limits: .0.1, inf"),
        ({"limits": (np.nan, 1.0)}, "limits: .nan, 1"),
        ({"distance": None}, "distance: give"),
        ({"distance": -3.0}, "distance: -3"),
        ({"energy": None}, "energy: q needs"),
        ({"energy": 9500.0}, "keV"),
        ({"poni": Path("x.poni")}, "poni: the file tells distance, center; leave out either"),
    ],
    ids=str,
)
def test_parameters_that_do_not_fit_are_refused(area, change, words):
    with pytest.raises(ValueError, match=words):
        azimuthal.prepare(SETTINGS._replace(**change), area)


def test_without_geometry_it_says_what_to_name(area):
    with pytest.raises(ValueError, match=r"calibration\.jungfrau\.geometry"):
        azimuthal.prepare(SETTINGS, area._replace(xyz=None))


def test_the_profile_has_the_unit_of_the_pixels(area):
    columns = member("az", azimuthal, SETTINGS, area).columns
    assert [(c.name, c.unit, c.dims, c.shape) for c in columns] == [
        ("az/intensity", "keV", ("q",), (60,)),
        ("az/npix", "1", ("q",), (60,)),
    ]
