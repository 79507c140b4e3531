"""I(q) held to pyFAI's histogram engine and to float64 brute force."""

from pathlib import Path

import numpy as np
import pytest

from ffb import Area, Tile
from ffb.reducers import geometry as geo
from ffb.reducers.azimuthal import Params, azimuthal
from ffb.reducers.bins import place, table
from ffb.reducers.runs import LONGEST
from tests.unit.passes import member, reduce
from tests.unit.scattered import CENTER, DISTANCE, STANDING, detector, engine, noise, pyfai


@pytest.fixture(scope="module")
def area():
    return detector()


@pytest.fixture(scope="module")
def frames(area):
    return noise(area)


#: Rounding of seven additions in float32, at most.
ROUNDING = 7 * 2.0**-24

SETTINGS = Params(**STANDING, bins=60, limits=(0.1, 0.8), polarization=0.99)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"solid_angle": False, "polarization": None},
        {"unit": "1/nm", "limits": (0.0, 8.5), "bins": 300},
        {"unit": "deg", "limits": (1.0, 9.0), "bins": 17},
        {"tilts": (0.0, 0.0), "polarization": 0.0},
        {"tilts": (11.0, -7.0), "limits": (0.0, 0.8)},
        {"thresholds": (1.5, 4.0)},
        {"thresholds": (-np.inf, 3.0), "errors": "azimuthal", "moments": True},
    ],
    ids=str,
)
def test_the_profile_is_that_of_pyfai(area, frames, change):
    params = SETTINGS._replace(**change)
    out = reduce([member("az", azimuthal, params, area)], area, frames)
    bins = azimuthal.prepare(params, area)
    for row, frame in enumerate(frames):
        low, high = params.thresholds or (-np.inf, np.inf)
        theirs = pyfai(frame, params, area.mask & (frame >= low) & (frame <= high))
        np.testing.assert_allclose(bins.q, theirs.radial, rtol=1e-6)
        # pyFAI rounds towards zero: its first bin also takes pixels up to one bin below it
        own = np.s_[1:] if params.limits[0] > 0 else np.s_[:]
        intensity, npix = out["az/intensity"][row][own], out["az/npix"][row][own]
        np.testing.assert_array_equal(npix, theirs.count[own])
        filled, reference = npix > 0, theirs.intensity[own]
        # a bin whose pixels cancel is known no better than its terms
        terms = np.nanmax(np.abs(frame)) * 1e-7
        np.testing.assert_allclose(intensity[filled], reference[filled], rtol=1e-6, atol=terms)
        assert np.isnan(intensity[~filled]).all()


def test_tilts_turn_about_the_beam():
    where = engine((11.0, -7.0)).getFit2D()
    assert where["directDist"] == pytest.approx(DISTANCE)
    assert (where["centerY"], where["centerX"]) == pytest.approx(CENTER)


def per_pixel(area, params):
    """Return q and weight of every pixel."""
    where = geo.Geometry.of(params.distance, params.energy, params.center)
    pixels = where.pixels(geo.on_detector(area.xyz))
    weight = pixels.solid_angle * geo.polarization(pixels, params.polarization)
    return where.q(pixels.two_theta), weight


def test_errors_are_those_of_pyfai(area, frames):
    frame = np.round(frames[2] * 128) / 128
    good = area.mask & (frame >= 0.5)
    params = SETTINGS._replace(thresholds=(0.5, np.inf), limits=(0.0, 0.8), moments=True)
    poisson = params._replace(errors="poisson", photon=2.5)
    dispersion = params._replace(errors="azimuthal")
    both = [member(n, azimuthal, p, area) for n, p in (("p", poisson), ("a", dispersion))]
    out = reduce(both, area, [frame])
    counted = pyfai(frame * 128, params, good, error_model="poisson")
    spread = pyfai(frame, params, good, error_model="azimuthal")
    several = out["a/npix"][0] > 1
    assert several.sum() > 50
    # pyFAI goes pixel by pixel with a mean that is not yet the final one
    np.testing.assert_allclose(out["a/sem"][0][several], spread.sem[several], rtol=1e-4)
    axis, weight = per_pixel(area, params)
    for b in (1, 7, 58):
        here = good & (np.floor(axis / (0.8 / 60)) == b)
        s, w = frame[here].astype(float), weight[here]
        brute_sem = np.sqrt(((s - s.sum() / w.sum() * w) ** 2).sum()) / w.sum()
        np.testing.assert_allclose(out["a/sem"][0][b], brute_sem, rtol=1e-6)
    assert np.isnan(out["a/sem"][0][~several]).all()
    # pyFAI's pixels are counts: 128 times ours, where one photon leaves 2.5
    expected = (counted.sem / 128 * np.sqrt(2.5 * 128))[several]
    np.testing.assert_allclose(out["p/sem"][0][several], expected, rtol=1e-5)


def test_moments_and_reference_make_the_mean_of_many_shots(area, frames):
    params = SETTINGS._replace(moments=True, reference=(0.4, 0.6), thresholds=(0.0, 1e9))
    out = reduce([member("az", azimuthal, params, area)], area, frames)
    with np.errstate(invalid="ignore"):
        mean = out["az/sum"] / out["az/norm"]
    np.testing.assert_allclose(out["az/intensity"], mean, rtol=1e-12)
    q = azimuthal.prepare(params, area).q
    inside = (q >= 0.4) & (q <= 0.6)
    expected = out["az/sum"][:, inside].sum(axis=1) / out["az/norm"][:, inside].sum(axis=1)
    np.testing.assert_allclose(out["az/reference"], expected, rtol=1e-12)
    whole = SETTINGS._replace(bins=1, limits=(0.4, 0.6 + 1e-9), thresholds=(0.0, 1e9))
    wider = reduce([member("az", azimuthal, whole, area)], area, frames)
    np.testing.assert_allclose(out["az/reference"], wider["az/intensity"][:, 0], rtol=0.05)


def test_a_poni_file_places_the_assembled_image(area, frames, tmp_path):
    engine().save(str(tmp_path / "a.poni"))
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


@pytest.mark.parametrize("shape", [(1, 3, 1), (1, 5, 7), (2, 9, 37), (3, 4, 64), (1, 2, 8192)])
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
    good = np.ones(axis.shape, bool)
    assert place(axis, good, 2, None)[0].tolist() == [[[0, -1, 1, 1, -1]]]
    with pytest.raises(ValueError, match="no good pixel has a place"):
        place(axis * np.nan, good, 2, None)


def test_rows_too_long_to_be_counted_are_refused():
    shape = (1, 1, 2**13 + 1)
    area = Area("det", shape, np.ones(shape, bool), np.zeros((3, *shape)), "keV")
    with pytest.raises(ValueError, match="rows of 8193 pixels"):
        azimuthal.prepare(SETTINGS, area)


def test_runs_of_every_length_are_summed_once():
    lengths = [*range(1, 2 * LONGEST + 2), 50]
    of = np.repeat(np.arange(len(lengths)), lengths)[None, None]
    ones, every = np.ones(of.shape), np.ones(len(lengths), bool)
    bins = table(of, ones, ones > 0, np.arange(len(lengths)) * 1.0, np.zeros(0), every, SETTINGS)
    state = azimuthal.allocate(bins)
    values = np.random.default_rng(6).normal(0, 1, of.size).astype(np.float32)
    within = ROUNDING * np.abs(values).max()
    for bad in (0, 1):  # the fast way and the careful one
        values[-1] = np.nan if bad else values[-1]
        azimuthal.functions["start"](bins, state)
        tile = Tile(values, np.ones(of.size, np.uint8), bad, 0, 0)
        azimuthal.functions["accumulate"](tile, bins, state)
        done = azimuthal.functions["finish"](bins, state)
        parts = np.split(values.astype(float), np.cumsum(lengths)[:-1])
        reference = [np.nanmean(part) for part in parts]
        np.testing.assert_allclose(done.intensity, reference, rtol=1e-12, atol=within)
        np.testing.assert_array_equal(done.npix, [*lengths[:-1], 50 - bad])


def test_sums_of_pixels_on_a_high_pedestal_are_as_exact_as_one_short_run(area):
    # float32 may add up the pixels of a run, at most 8, but no more
    params = SETTINGS._replace(bins=3, moments=True)
    frame = np.random.default_rng(12).normal(1e6, 30, area.shape).astype(np.float32)
    frame[~area.mask] = 0
    out = reduce([member("az", azimuthal, params, area)], area, [frame])
    axis, _ = per_pixel(area, params)
    edges = np.linspace(*params.limits, 4)
    expected, _ = np.histogram(axis[area.mask], edges, weights=frame[area.mask].astype(float))
    np.testing.assert_allclose(out["az/sum"][0], expected, rtol=ROUNDING)


def test_everything_that_cannot_be_meant_is_listed_at_once(area):
    params = Params(
        bins=0, limits=(2.0, 1.0), unit="furlong", polarization=2.0, thresholds=(1.0, 0.5),
        errors="poisson",
    )  # fmt: skip
    with pytest.raises(ValueError, match="bins: 0") as error:
        azimuthal.prepare(params, area._replace(mask=np.zeros(area.shape, bool)))
    names = [line.split(":")[0] for line in str(error.value).splitlines()]
    assert names == [
        *("bins", "limits", "unit", "polarization", "thresholds", "photon", "distance", "limits")
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"limits": (5.0, 6.0)}, "no good pixel between 5 and 6"),
        ({"bins": 2**19 - 1}, "bins: 524287"),
        ({"limits": (0.1, np.inf)}, "limits: .0.1, inf"),
        ({"limits": (np.nan, 1.0)}, "limits: .nan, 1"),
        ({"distance": None}, "distance: give"),
        ({"distance": -3.0}, "distance: -3"),
        ({"energy": None}, "energy: q needs"),
        ({"energy": 9500.0}, r"keV, 0.05 to 200 \(or 9.5, if those are eV\)"),
        ({"errors": "gauss"}, "errors: 'gauss'; known are poisson and azimuthal"),
        ({"errors": "poisson", "photon": 0.0}, "photon: 0"),
        ({"reference": (3.0, 4.0)}, "reference: no bin has its centre between 3 and 4"),
        ({"thresholds": (np.nan, 1.0)}, "thresholds: .nan, 1"),
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
        ("az/reference", "keV", (), ()),
    ]
