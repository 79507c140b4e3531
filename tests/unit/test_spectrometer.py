"""Spectrometers and jets: equal to numpy and scipy, right on made-up lines and streaks."""

import re

import numpy as np
import pytest
from scipy.optimize import curve_fit

from ffb.reducers import curved_projection as curved
from ffb.reducers import jet as jets
from ffb.reducers import spectrum as spectra
from ffb.shot import Input
from ffb.testing.check_reducer import features_in_python
from tests.unit.passes import detector, member, reduce

RNG = np.random.default_rng(23)
SHAPE = (2, 12, 31)


def frames():
    noise = RNG.normal(20, 30, SHAPE)
    holes = np.where(RNG.random(SHAPE) < 0.2, np.nan, noise)
    frames = [noise, holes, np.zeros(SHAPE), np.full(SHAPE, np.nan), np.full(SHAPE, 1e6)]
    return [f.astype(np.float32) for f in frames]


def shared(image, mask, params, constants):
    """Bins of one frame, pixel by pixel."""
    sums, npix = np.zeros(constants.size), np.zeros(constants.size)
    rows, cols = params.rows or (0, SHAPE[1]), params.cols or (0, SHAPE[2])
    for r in range(*rows):
        for c in range(*cols):
            v = float(image[params.segment, r, c])
            if not mask[params.segment, r, c] or np.isnan(v):
                continue
            along, across = (r - rows[0], c - cols[0])[:: 1 if params.axis == 0 else -1]
            place = across - sum(k * along**n for n, k in enumerate(params.curvature))
            place -= constants.origin
            low = int(np.floor(place))
            for b, share in ((low, low + 1 - place), (low + 1, place - low)):
                if share > 0:
                    npix[b] += share
                    sums[b] += share * v * (params.low <= v <= params.high)
    return sums, npix


@pytest.mark.parametrize(
    "params",
    [
        curved.Params(0, (0.4, -0.6, 0.11), segment=1, rows=(1, 12), cols=(3, 30), low=5.0),
        curved.Params(1, (2.0, 0.3), high=60.0),
        curved.Params(0),
    ],
)
def test_a_curved_projection_is_that_of_its_pixels(params):
    mask = RNG.random(SHAPE) > 0.2
    area, images = detector(SHAPE, mask), frames()
    one = member("p", curved.curved_projection, params, area)
    got = reduce([one], area, images)
    for k, image in enumerate(images):
        sums, npix = shared(image, mask, params, one.constants)
        np.testing.assert_allclose(got["p/sum"][k], sums, rtol=1e-9, atol=1e-7)
        np.testing.assert_allclose(got["p/npix"][k], npix, rtol=1e-9, atol=1e-9)
    rows, cols = params.rows or (0, SHAPE[1]), params.cols or (0, SHAPE[2])
    box = np.where(mask, images[0], 0.0)[params.segment, slice(*rows), slice(*cols)]
    kept = box[(box >= params.low) & (box <= params.high)].sum(dtype=float)
    np.testing.assert_allclose(got["p/sum"][0].sum(), kept, rtol=1e-9)


def test_a_curved_line_becomes_a_sharp_one_at_its_energy():
    curve = (10.3, 0.8, -0.05)
    rows, cols = np.indices(SHAPE[1:])
    line = np.exp(-0.5 * ((cols - np.polynomial.polynomial.polyval(rows, curve)) / 1.1) ** 2)
    image = np.zeros(SHAPE, np.float32)
    image[0] = line
    params = curved.Params(0, curve, energy=(850.0, 0.5))
    area = detector(SHAPE)
    profile = reduce([member("p", curved.curved_projection, params, area)], area, [image])
    energy = curved.curved_projection.coordinates(
        params, curved.curved_projection.prepare(params, area)
    )["energy"]
    assert energy.unit == "eV"
    total = profile["p/sum"][0]
    mean = (total * energy.values).sum() / total.sum()
    width = np.sqrt((total * (energy.values - mean) ** 2).sum() / total.sum())
    np.testing.assert_allclose(mean, 850.0, atol=0.02)
    np.testing.assert_allclose(width, 0.5 * np.hypot(1.1, 0.4), atol=0.05)


def test_what_no_projection_can_be_is_told():
    wrong = {
        "curvature: []": curved.Params(0, ()),
        "axis: there is no 2": curved.Params(2),
        "high: 1.0 must be above low": curved.Params(0, low=3.0, high=1.0),
        "energy: [nan]": curved.Params(0, energy=(np.nan,)),
        "rows: [3, 90] is off": curved.Params(0, rows=(3, 90)),
        "curvature: the line moves by 1100 pixels": curved.Params(0, (0.0, 100.0)),
    }
    for start, params in wrong.items():
        with pytest.raises(ValueError, match=f"^{re.escape(start)}"):
            curved.curved_projection.prepare(params, detector(SHAPE))


PROFILE = {"profile": Input("value", "<f8", (120,), "ADU")}


def gauss(x, height, centre, sigma, constant):
    return height * np.exp(-0.5 * ((x - centre) / sigma) ** 2) + constant


def run(params, profiles):
    return features_in_python(spectra.spectrum, params, PROFILE, [{"profile": p} for p in profiles])


def test_moments_and_fit_are_those_of_numpy_and_scipy():
    x = np.arange(120.0)
    params = spectra.Params((700.0, -0.3, 1e-4), (10, 110), (0, 10), 1.0, reach=np.inf)
    profiles = [
        gauss(x, *p) + RNG.normal(0, 0.5, 120)
        for p in [(50, 60, 4, 3), (20, 30.3, 9, -2), (200, 90, 1.5, 10), (30, 70.7, 15, 0)]
    ]
    energy = np.polynomial.polynomial.polyval(x, params.energy)[10:110]
    for profile, got in zip(profiles, run(params, profiles), strict=True):
        y = profile[10:110] - profile[:10].mean()
        kept = np.where(y >= 1.0, y, 0.0)
        mean = (kept * energy).sum() / kept.sum()
        rms = np.sqrt((kept * (energy - mean) ** 2).sum() / kept.sum())
        np.testing.assert_allclose(got["sum"], kept.sum(), rtol=1e-12)
        np.testing.assert_allclose([got["mean"], got["rms"]], [mean, rms], rtol=1e-9)
        skew = (kept * (energy - mean) ** 3).sum() / kept.sum() / rms**3
        np.testing.assert_allclose(got["skew"], skew, rtol=1e-8)
        assert got["npix"] == 100
        start = (np.ptp(y), y.argmax(), 3.0, y.min())
        best, _ = curve_fit(gauss, np.arange(100.0), y, start)
        assert got["fitted"]
        at = np.interp(best[1], np.arange(100.0), energy)
        step = abs(np.diff(energy)[int(best[1])])
        fwhm = 2 * np.sqrt(2 * np.log(2)) * abs(best[2]) * step
        wanted = [at, best[0], fwhm, best[3]]
        found = [got[f] for f in ("peak", "height", "fwhm", "constant")]
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-4)


def test_a_line_is_fitted_over_its_surroundings():
    """Others do not pull it, and of two equal ones it is the first; scipy agrees on the piece."""
    x = np.arange(120.0)
    both = gauss(x, 50, 40.3, 3, 2) + gauss(x, 50, 90.3, 3, 0)
    tail = gauss(x, 100, 30.6, 2.5, 0) + 0.004 * (120 - x) ** 2 + RNG.normal(0, 0.3, 120)
    near, wide = run(spectra.Params(), [both, tail])
    np.testing.assert_allclose([near["peak"], near["fwhm"]], [40.3, 7.0645], atol=1e-3)
    np.testing.assert_allclose([near["height"], near["constant"]], [50, 2], atol=2e-2)
    for reach in (2.0, 4.0):
        (got,) = run(spectra.Params(reach=reach), [tail])
        span = int(np.ceil(reach * got["fwhm"]))
        fits = []
        for half in range(max(span - 1, 4), 2 * span + 3):  # what was widened is not told
            cut = slice(max(31 - half, 0), 31 + half + 1)
            best, _ = curve_fit(gauss, x[cut], tail[cut], (100, 31, 3, 20))
            fits.append([best[1], best[0], 2 * np.sqrt(2 * np.log(2)) * abs(best[2]), best[3]])
        found = [got[f] for f in ("peak", "height", "fwhm", "constant")]
        off = np.abs(np.array(fits) - found).max(axis=1)
        assert off.min() < 1e-3, (reach, off)
    assert wide["fitted"]


def test_what_is_missing_of_a_spectrum_is_left_out():
    """NaN and dead columns pull nothing: moments and line are those of the pixels that are left."""
    x = np.arange(120.0)
    line = gauss(x, 50, 60.4, 4, 3)
    dead = line.copy()
    dead[[58, 70]] = [-900.0, 1e5]
    holes = np.where(np.isin(x, (5, 58, 61, 90)), np.nan, line)
    plain = spectra.Params(baseline=(0, 20))
    (whole,) = run(plain, [line])
    (left,) = run(plain._replace(without=(58, 70)), [dead])
    (some,) = run(plain, [holes])
    assert (whole["npix"], left["npix"], some["npix"]) == (120, 118, 116)
    for got, out in ((left, (58, 70)), (some, (5, 58, 61, 90))):
        y = np.delete(line - 3.0, out)
        at = np.delete(x, out)
        np.testing.assert_allclose(got["mean"], (y * at).sum() / y.sum(), rtol=1e-9)
        np.testing.assert_allclose([got["peak"], got["fwhm"]], [60.4, 9.4193], atol=1e-3)
    (empty,) = run(plain._replace(baseline=(5, 6)), [holes])
    assert np.isnan([empty[f] for f in ("sum", "mean", "rms", "skew", "peak")]).all()
    assert empty["npix"] == 0


def test_a_saturated_line_is_where_its_middle_is():
    x = np.arange(120.0)
    (got,) = run(spectra.Params(), [np.minimum(gauss(x, 50, 60, 6, 0), 20.0)])
    np.testing.assert_allclose(got["peak"], 60.0, atol=1e-3)
    assert got["fwhm"] > 2.355 * 6


def test_without_a_line_there_is_no_peak():
    x = np.arange(120.0)
    beyond, infinite = gauss(x, 50, -4, 4, 3), gauss(x, 50, 60, 4, 3)
    infinite[50] = np.inf
    nothing, equal, none = np.zeros(120), np.full(120, 7.0), np.full(120, np.nan)
    flat, same, void, broken, outside, first = run(
        spectra.Params(), [nothing, equal, none, infinite, beyond, gauss(x, 50, 0.3, 4, 3)]
    )
    assert not any(got["fitted"] for got in (flat, same, void, broken, outside))
    assert np.isnan([flat["peak"], flat["mean"], flat["rms"], flat["skew"]]).all()
    np.testing.assert_allclose([same["sum"], same["mean"], same["skew"]], [840, 59.5, 0], atol=1e-9)
    assert flat["sum"] == 0.0
    for got in (void, broken):
        assert np.isnan([got[f] for f in ("sum", "mean", "peak", "fwhm")]).all()
    np.testing.assert_allclose(first["peak"], 0.3, atol=1e-3)


def test_ranges_off_the_profile_are_told():
    params = spectra.Params((np.inf,), (100, 130), (5, 5), np.nan, (-1, 120), 0.0)
    with pytest.raises(ValueError, match="energy") as e:
        spectra.spectrum.constants(params, PROFILE)
    starts = ["energy: [inf]", "region: [100, 130]", "baseline: [5, 5]", "without: [-1, 120]"]
    starts += ["threshold: nan", "reach: 0.0"]
    lines = str(e.value).splitlines()
    assert all(line.startswith(s) for line, s in zip(lines, starts, strict=True)), lines


def streak(at, degrees, shape=(1, 60, 80), level=100.0):
    rows, cols = np.indices(shape[1:])
    distance = (cols - at - np.tan(np.radians(degrees)) * (rows - 29.5)) * np.cos(
        np.radians(degrees)
    )
    return (level * np.exp(-0.5 * (distance / 1.5) ** 2))[None].astype(np.float32)


@pytest.mark.parametrize(("at", "degrees"), [(40.0, 0.0), (33.3, 12.0), (50.0, -20.0)])
def test_a_jet_is_found_where_it_is(at, degrees):
    area = detector((1, 60, 80))
    params = jets.Params(threshold=5.0, cols=(5, 78))
    got = reduce([member("j", jets.jet, params, area)], area, [streak(at, degrees)])
    np.testing.assert_allclose(got["j/position"], at, atol=0.05)
    np.testing.assert_allclose(got["j/angle"], degrees, atol=0.3)
    np.testing.assert_allclose(got["j/width"], 1.35, atol=0.1)


def test_a_jet_is_the_first_principal_axis():
    mask = RNG.random((1, 60, 80)) > 0.1
    area = detector((1, 60, 80), mask)
    images = [streak(30, 8) + RNG.normal(0, 5, mask.shape).astype(np.float32) for _ in range(3)]
    images[1][RNG.random(mask.shape) < 0.05] = np.nan
    params = jets.Params(threshold=20.0, rows=(4, 55), cols=(6, 70), row=10.0)
    got = reduce([member("j", jets.jet, params, area)], area, images)
    for k, image in enumerate(images):
        rows, cols = np.indices(mask.shape[1:])
        inside = mask[0] & (rows >= 4) & (rows < 55) & (cols >= 6) & (cols < 70)
        with np.errstate(invalid="ignore"):
            inside &= image[0] >= 20.0
        w = image[0][inside].astype(float) - 20.0
        points = np.stack([rows[inside], cols[inside]]).astype(float)
        values, vectors = np.linalg.eigh(np.cov(points, aweights=w, ddof=0))
        slope = vectors[1, 1] / vectors[0, 1]
        centre = np.average(points, axis=1, weights=w)
        np.testing.assert_allclose(got["j/angle"][k], np.degrees(np.arctan(slope)), rtol=1e-7)
        np.testing.assert_allclose(
            got["j/position"][k], centre[1] + slope * (10.0 - centre[0]), rtol=1e-7
        )
        np.testing.assert_allclose(got["j/width"][k], np.sqrt(values[0]), rtol=1e-6)
        np.testing.assert_allclose(got["j/sum"][k], w.sum(), rtol=1e-9)
        assert got["j/npix"][k] == inside.sum()


def test_without_a_jet_there_is_no_axis():
    area = detector((1, 60, 80))
    images = [np.zeros((1, 60, 80), np.float32), np.full((1, 60, 80), np.nan, np.float32)]
    got = reduce([member("j", jets.jet, jets.Params(5.0), area)], area, images)
    assert np.isnan(got["j/position"]).all()
    assert got["j/npix"].tolist() == [0, 0]
    for start, params in {
        "threshold: nan": jets.Params(np.nan),
        "least: 1": jets.Params(1.0, least=1),
        "cols: [5, 100] is off": jets.Params(1.0, cols=(5, 100)),
        "row: inf": jets.Params(1.0, row=np.inf),
    }.items():
        with pytest.raises(ValueError, match=f"^{re.escape(start)}"):
            jets.jet.prepare(params, area)
