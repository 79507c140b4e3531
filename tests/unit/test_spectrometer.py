"""Spectrometers: equal to numpy and scipy, right on made-up lines."""

import re

import numpy as np
import pytest
from scipy.optimize import curve_fit

from ffb.reducers import curved_projection as curved
from ffb.reducers import spectrum as spectra
from ffb.reducers.highest import highest
from ffb.shot import Input
from ffb.testing.check_reducer import features_in_python
from tests.unit.passes import detector, member, reduce
from tests.unit.plans import INPUTS, feed, plan, shot

RNG = np.random.default_rng(23)
SHAPE = (2, 12, 31)


def frames():
    noise = RNG.normal(20, 30, SHAPE)
    holes = np.where(RNG.random(SHAPE) < 0.2, np.nan, noise)
    frames = [noise, holes, np.zeros(SHAPE), np.full(SHAPE, np.nan), np.full(SHAPE, 1e6)]
    return [f.astype(np.float32) for f in frames]


def spans(params):
    """Places along the summed axis and across it, of the segment, and those of the background."""
    boxes = [params.rows or (0, SHAPE[1]), params.cols or (0, SHAPE[2])]
    beside = [*zip(params.background[::2], params.background[1::2], strict=True)]
    return boxes[params.axis], boxes[1 - params.axis], beside


def shared(image, mask, params, constants):
    """Sums, weights and photons of spectrum and background, each bin by bin, pixel by pixel."""
    box, across, beside = spans(params)
    least, largest = params.thresholds or (-np.inf, np.inf)
    out = np.zeros((2, 3, constants.size))
    for role, pairs in enumerate(([box], beside)):
        for p in [p for pair in pairs for p in range(*pair)]:
            for x in range(*across):
                at = (p, x) if params.axis == 0 else (x, p)
                v = float(image[(params.segment, *at)])
                if not mask[(params.segment, *at)] or np.isnan(v):
                    continue
                place = (
                    x
                    - across[0]
                    - sum(k * (p - box[0]) ** n for n, k in enumerate(params.curvature))
                )
                place -= constants.origin
                low = int(np.floor(place))
                inside = least <= v <= largest
                for b, share in ((low, low + 1 - place), (low + 1, place - low)):
                    if share > 0:
                        out[role, :, b] += share * np.array([v * inside, 1, inside])
    return out


@pytest.mark.parametrize(
    "params",
    [
        curved.Params(
            0, (0.4, -0.6, 0.11), segment=1, rows=(1, 12), cols=(3, 30), thresholds=(5.0, np.inf)
        ),
        curved.Params(1, (2.0, 0.3), thresholds=(-np.inf, 60.0)),
        curved.Params(0),
        curved.Params(0, (0.4, -0.3), 1, (4, 8), (3, 30), (5.0, 50.0), True, (0, 3, 9, 12)),
        curved.Params(
            1, (0.0, 0.2), 0, (1, 12), (9, 20), (8.0, np.inf), photons=True, background=(21, 30)
        ),
        curved.Params(1, rows=(5, 6), cols=(0, 1), background=(30, 31)),
    ],
)
def test_a_curved_projection_is_that_of_its_pixels(params):
    mask = RNG.random(SHAPE) > 0.2
    area, images = detector(SHAPE, mask), frames()
    one = member("p", curved.curved_projection, params, area)
    got = reduce([one], area, images)
    assert ("p/photons" in got, "p/background" in got) == (params.photons, params.background != ())
    for k, image in enumerate(images):
        (sums, npix, photons), (beside, size, _) = shared(image, mask, params, one.constants)
        if params.background:
            with np.errstate(all="ignore"):
                level = np.where(npix > 1e-12, beside / size * npix, 0.0)
            np.testing.assert_allclose(got["p/background"][k], level, rtol=1e-9, atol=1e-7)
            sums = sums - level
        if params.photons:
            np.testing.assert_allclose(got["p/photons"][k], photons, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(got["p/sum"][k], sums, rtol=1e-9, atol=1e-7)
        np.testing.assert_allclose(got["p/npix"][k], npix, rtol=1e-9, atol=1e-9)
    if params.background:
        return
    box, across, _ = spans(params)
    where = (slice(*box), slice(*across))[:: 1 if params.axis == 0 else -1]
    inside = np.where(mask, images[0], 0.0)[params.segment][where]
    least, largest = params.thresholds or (-np.inf, np.inf)
    kept = inside[(inside >= least) & (inside <= largest)].sum(dtype=float)
    np.testing.assert_allclose(got["p/sum"][0].sum(), kept, rtol=1e-9)


def test_what_lies_under_a_line_is_taken_off():
    """A slope along the energies, under a tilted line: the moments are the line's alone."""
    rows, cols = np.indices(SHAPE[1:])
    place = 12.0 + 0.25 * (rows - 4)
    image = np.zeros(SHAPE, np.float32)
    image[0] = 30 + 2 * (cols - 0.25 * (rows - 4))
    image[0, 4:8] += 100 * np.exp(-0.5 * ((cols - place) / 1.5) ** 2)[4:8]
    params = curved.Params(0, (0.0, 0.25), 0, (4, 8), background=(0, 3, 9, 12))
    area = detector(SHAPE)
    got = reduce([member("p", curved.curved_projection, params, area)], area, [image])
    total = got["p/sum"][0]
    at = curved.curved_projection.prepare(params, area).origin + np.arange(total.size)
    inner = (at > 3) & (at < 25)
    np.testing.assert_allclose(total[inner].sum(), 400 * 1.5 * np.sqrt(2 * np.pi), rtol=1e-3)
    mean = (total[inner] * at[inner]).sum() / total[inner].sum()
    np.testing.assert_allclose(mean, 12.0, atol=0.05)


def test_a_curved_line_becomes_a_sharp_one_at_its_energy():
    curve = (10.3, 0.8, -0.05)
    rows, cols = np.indices(SHAPE[1:])
    line = np.exp(-0.5 * ((cols - np.polynomial.polynomial.polyval(rows, curve)) / 1.1) ** 2)
    image = np.zeros(SHAPE, np.float32)
    image[0] = line
    params = curved.Params(0, curve, polynomial=(850.0, 0.5))
    area = detector(SHAPE)
    profile = reduce([member("p", curved.curved_projection, params, area)], area, [image])
    assert profile["p/sum"].shape[1] > SHAPE[2]  # A26: nothing is moved around the ends
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
        "thresholds: [3, 1]; give two": curved.Params(0, thresholds=(3.0, 1.0)),
        "polynomial: [nan]": curved.Params(0, polynomial=(np.nan,)),
        "polynomial: [850.0] are energies of 850 to 850 eV": curved.Params(0, polynomial=(850.0,)),
        "polynomial: [0.5, 7000.0, 850.0]": curved.Params(0, polynomial=(0.5, 7e3, 850.0)),
        "rows: [3, 90] is off": curved.Params(0, rows=(3, 90)),
        "curvature: the line moves by 1100 pixels": curved.Params(0, (0.0, 100.0)),
        "photons: pixels without one": curved.Params(0, photons=True),
        "background: [1] are not ranges": curved.Params(0, rows=(4, 8), background=(1,)),
        "background: [3, 90] are no": curved.Params(0, rows=(4, 8), background=(3, 90)),
        "background: overlaps": curved.Params(0, rows=(4, 8), background=(3, 5)),
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
    energy = np.polynomial.polynomial.polyval(x, params.polynomial)[10:110]
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


NOISE = [
    [45.0, 49.8, 85.9, -42.9, -78.9, 46.3, -73.0, -30.2, 16.2, -5.0, 43.8, 19.6, -19.4, -67.5, -3.2,
     -25.7, -21.9, -54.2, 7.7, 18.9],
    [-10.2, -15.4, 83.8, -42.7, 34.0, -24.5, 22.7, -15.4, 19.9, -47.8, 58.3, 30.4, 65.7, -46.7, 4.7,
     -60.8, 30.0, 45.2, 53.7, -62.8],
]  # fmt: skip


def test_a_fit_does_not_rest_because_its_steps_are_damped():
    """In noise some lead nowhere, and get small without being near to least squares."""
    given = {"profile": Input("value", "<f8", (20,), "ADU")}
    profiles = [{"profile": np.array(noise)} for noise in NOISE]
    params = spectra.Params(reach=np.inf)
    for got in features_in_python(spectra.spectrum, params, given, profiles):
        assert not got["fitted"]
        assert np.isnan(got["peak"])


def test_what_is_missing_of_a_spectrum_is_left_out():
    """Dead columns and what is not finite pull nothing: moments and line are those of the rest."""
    x = np.arange(120.0)
    line = gauss(x, 50, 60.4, 4, 3)
    dead = line.copy()
    dead[[58, 70]] = [-900.0, 1e5]
    holes = np.where(np.isin(x, (5, 58, 61, 90)), np.nan, line)
    holes[[5, 58, 61]] = [np.inf, np.inf, -np.inf]
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


def test_a_line_that_is_too_low_is_not_sought():
    x = np.arange(120.0)
    profiles = [gauss(x, h, 60, 4, 3) for h in (50.0, 20.0)]
    high, low = run(spectra.Params(baseline=(0, 20), height=30.0), profiles)
    assert (bool(high["fitted"]), bool(low["fitted"])) == (True, False)
    np.testing.assert_allclose([high["mean"], low["mean"]], 60.0, rtol=1e-6)


def test_a_saturated_line_is_where_its_middle_is():
    x = np.arange(120.0)
    (got,) = run(spectra.Params(), [np.minimum(gauss(x, 50, 60, 6, 0), 20.0)])
    np.testing.assert_allclose(got["peak"], 60.0, atol=1e-3)
    assert got["fwhm"] > 2.355 * 6


@pytest.mark.parametrize("size", [1, 2, 63, 64, 65, 200])
def test_the_highest_is_that_of_numpy(size):
    rng = np.random.default_rng(size)
    for values in (rng.normal(size=size), rng.integers(0, 3, size).astype(float), np.zeros(size)):
        assert highest(values) == values.argmax()
        holes = np.append(values, [np.nan, -np.inf])
        assert highest(holes) == values.argmax()


def test_without_a_line_there_is_no_peak():
    x = np.arange(120.0)
    beyond, infinite = gauss(x, 50, -4, 4, 3), np.full(120, np.inf)
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
    params = spectra.Params((np.inf,), (100, 130), (5, 5), np.nan, (-1, 120), 0.0, np.nan)
    with pytest.raises(ValueError, match="polynomial") as e:
        spectra.spectrum.constants(params, PROFILE)
    starts = ["polynomial: [inf]", "region: [100, 130]", "baseline: [5, 5]", "without: [-1, 120]"]
    starts += ["threshold: nan", "height: nan", "reach: 0.0"]
    lines = str(e.value).splitlines()
    assert all(line.startswith(s) for line, s in zip(lines, starts, strict=True)), lines


def test_a_spectrum_knows_the_energies_of_its_profile():
    """By the curve's own polynomial, wherever its bins begin."""
    rows, cols = np.indices((9, 23))
    image = np.zeros(INPUTS["jf"].shape, np.uint16)
    image[0] = np.round(1000 * np.exp(-0.5 * ((cols - 9 - 0.5 * (rows - 4)) / 1.5) ** 2))
    curve = {"axis": 0, "curvature": [7.0, 0.5], "polynomial": [850, 0.5]}
    reducers = {
        "line": {"use": "spectrum", "inputs": "xes/sum"},
        "xes": {"use": "curved_projection", "inputs": "jf", "params": curve},
    }
    columns = feed(plan(reducers, inputs=INPUTS), [shot(1, jf=image)])
    np.testing.assert_allclose(columns["line/peak"], 850.0, atol=0.01)
    wide = np.sqrt(1.5**2 + 0.125)  # every other row is shared by two bins
    np.testing.assert_allclose(columns["line/fwhm"], 0.5 * 2.3548 * wide, atol=0.01)


def test_what_is_no_energy_is_none():
    def energy(params, **axis):
        given = {"profile": Input("value", "<f8", (6,), "ADU")._replace(**axis)}
        return spectra.spectrum.constants(params, given).energy.tolist()

    own, pixels = (5.0, 4.0, 3.0, 2.0, 1.0, 0.5), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    cut = spectra.Params(region=(1, 6))
    assert energy(spectra.Params()) == pixels
    assert energy(spectra.Params(), coords=own, coords_unit="1/A") == pixels
    assert energy(cut, coords=own, coords_unit="eV") == list(own[1:])
    for wrong in ((850.0,), (1e-4, 0.25, 1e5)):
        with pytest.raises(ValueError, match="constant \\[eV\\] first, then eV/pixel"):
            energy(spectra.Params(wrong))
    assert energy(spectra.Params((1.0, 2.0)), coords=own, coords_unit="eV")[:2] == [1.0, 3.0]
