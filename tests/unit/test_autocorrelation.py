"""Autocorrelations equal brute force and Fourier's, however many pixels are lit or masked."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.signal import correlate, fftconvolve

from ffb.reducers import autocorrelation as module
from ffb.reducers import fourier
from ffb.reducers.autocorrelation import Params, autocorrelation
from ffb.shot import Input
from ffb.testing.check_reducer import features_in_python

RNG = np.random.default_rng(83)


def reduced(image, params):
    """What the reducer makes of an image."""
    inputs = {"image": Input("value", "<f4", image.shape)}
    return autocorrelation.fn(image, autocorrelation.constants(params, inputs))


def by_pairs(image, reach, photon=0.0):
    """Correlation and number of pairs, pair by pair."""
    (rows, cols), (down, across) = image.shape, reach
    shape = (2 * down + 1, 2 * across + 1)
    out, pairs = np.full(shape, np.nan), np.zeros(shape, np.int64)
    image = np.where(np.isfinite(image), image, np.nan).astype(np.float64)
    for dr in range(-down, down + 1):
        for dc in range(-across, across + 1):
            top, left = max(0, -dr), max(0, -dc)
            here = image[top : min(rows, rows - dr), left : min(cols, cols - dc)]
            there = image[top + dr :, left + dc :][: here.shape[0], : here.shape[1]]
            both = ~np.isnan(here) & ~np.isnan(there)
            a, b = here[both], there[both]
            same = photon * a.sum() if dr == dc == 0 else 0.0
            pairs[down + dr, across + dc] = a.size
            if a.sum() * b.sum() != 0:
                value = a.size * ((a * b).sum() - same) / (a.sum() * b.sum())
                out[down + dr, across + dc] = value
    return out, pairs


def check(image, params, masked=None):
    got = reduced(image, params)
    image = image if masked is None else np.where(masked, np.nan, image)
    expected, pairs = by_pairs(image, params.reach, params.photon)
    np.testing.assert_array_equal(got.pairs, pairs)
    np.testing.assert_allclose(got.correlation, expected, rtol=1e-9, atol=1e-12)
    return got


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.floats(0.001, 0.6),
    st.floats(0, 1),
    st.tuples(st.integers(0, 8), st.integers(0, 8)),
    st.sampled_from([0.0, 1.0]),
    st.integers(0, 1 << 30),
)
def test_small_images_of_any_occupancy_and_mask(shape, lit, lost, reach, photon, seed):
    rng = np.random.default_rng(seed)
    image = (rng.poisson(2, shape) * (rng.random(shape) < lit)).astype(np.float32)
    image[rng.random(shape) < lost] = rng.choice([np.nan, np.inf])
    check(image, Params((min(reach[0], shape[0] - 1), min(reach[1], shape[1] - 1)), photon))


@pytest.mark.parametrize("lost", [0.0, 0.3, 0.7])
@pytest.mark.parametrize("lit", [0.02, 1.0])
def test_by_fourier(lit, lost):
    smooth = fftconvolve(RNG.random((40, 50)), np.ones((3, 5)), "valid")
    image = np.where(RNG.random(smooth.shape) < lit, smooth, 0)
    image = np.where(RNG.random(smooth.shape) < lost, np.nan, image).astype(np.float32)
    got = reduced(image, Params(6))
    mask = np.isfinite(image).astype(float)
    values = np.nan_to_num(image).astype(float)
    parts = [
        fftconvolve(a, b[::-1, ::-1]) for a, b in [(values, values), (mask, mask), (values, mask)]
    ]
    cut = tuple(slice(n - 1 - 6, n - 1 + 7) for n in image.shape)
    both, pairs, first = (p[cut] for p in parts)
    known = first * first[::-1, ::-1] > 1e-6
    expected = both * pairs / np.where(known, first * first[::-1, ::-1], np.nan)
    np.testing.assert_allclose(got.correlation, expected, rtol=1e-8, atol=1e-9)
    np.testing.assert_array_equal(got.pairs, np.round(pairs))
    expected, pairs = by_pairs(image, (6, 6))
    np.testing.assert_allclose(got.correlation, expected, rtol=1e-10)
    assert got.zero == got.correlation[6, 6]


def sums(image, down, across):
    """Sums over pairs by Fourier, and scipy's without."""
    everywhere = np.ones(image.shape, np.bool_)
    values, valid = module._padded(image, everywhere, across, -np.inf, np.inf)
    found = fourier.correlate(values, valid, down, across)
    good = np.isfinite(image).astype(float)
    known = np.nan_to_num(image.astype(float))
    parts = [(known, known), (good, good), (good, known), (known, good)]
    rows, cols = (n - 1 for n in image.shape)
    cut = (slice(rows, rows + down + 1), slice(cols - across, cols + across + 1))
    expected = [correlate(b, a, method="direct")[cut] for b, a in parts]
    return found, fourier.Correlated(*expected)


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(st.integers(1, 14), st.integers(1, 14)),
    st.floats(0, 0.9),
    st.tuples(st.integers(0, 13), st.integers(0, 13)),
    st.sampled_from([1e-30, 1.0, 1e30]),
    st.floats(-2, 2),
    st.integers(0, 1 << 30),
)
def test_fourier_makes_the_sums_of_all_pairs(shape, lost, reach, scale, mean, seed):
    """Of any size, sign and mask: to rounding, and exactly where they are whole or nothing."""
    rng = np.random.default_rng(seed)
    image = (scale * rng.normal(mean, 1, shape)).astype(np.float32)
    image[rng.random(shape) < lost] = np.nan
    image[rng.integers(shape[0]), rng.integers(shape[1])] = scale
    found, expected = sums(image, *(min(r, s - 1) for r, s in zip(reach, shape, strict=True)))
    power, total = np.nansum(image.astype(float) ** 2), np.nansum(np.abs(image.astype(float)))
    np.testing.assert_array_equal(found.pairs, expected.pairs)
    np.testing.assert_allclose(found.both, expected.both, rtol=0, atol=1e-13 * power)
    for one, other in ((found.first, expected.first), (found.second, expected.second)):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12 * total)


def test_fourier_knows_where_nothing_is():
    image = np.zeros((21, 25), np.float32)
    image[:3, :4] = RNG.gamma(2, 100, (3, 4))
    found, expected = sums(image, 12, 12)
    for one, other in ((found.first, expected.first), (found.second, expected.second)):
        np.testing.assert_array_equal(one == 0, other == 0)
    assert (found.first == 0).any()


def test_long_distances_are_taken_by_fourier(monkeypatch):
    image = RNG.gamma(2, 3, (40, 37)).astype(np.float32)
    image[RNG.random(image.shape) < 0.2] = np.nan
    rows, cols = image.shape
    assert fourier.cost(rows, cols, 30, 30) < 31 * 61 * rows * cols
    assert fourier.cost(rows, cols, 3, 3) > 7 * 4 * rows * cols
    monkeypatch.setattr(module, "_directly", None)
    check(image, Params(30, 0.5))


@pytest.mark.parametrize("transforms", [False, True])
@pytest.mark.parametrize("reach", [(5, 19), (19, 5), (0, 28), (36, 0), (11, 11)])
def test_a_masked_image_by_either_way(tmp_path, monkeypatch, reach, transforms):
    """However far along rows and columns; sums by Fourier's transforms and without agree."""
    image = RNG.gamma(2, 3, (37, 29)).astype(np.float32)
    image[RNG.random(image.shape) < 0.1] = np.nan
    good = RNG.random(image.shape) < 0.6
    good[:, 20:] = False
    image[20, 25] = 1e30  # behind the mask
    np.save(tmp_path / "mask.npy", good.astype(np.uint8))
    monkeypatch.setattr(fourier, "cost", lambda *_: 0.0 if transforms else np.inf)
    monkeypatch.setattr(*(module, "_directly") if transforms else (fourier, "correlate"), None)
    params = Params(reach, 0.5, mask=tmp_path / "mask.npy")
    got = check(image, params, ~good)
    assert got.correlation.shape == (2 * reach[0] + 1, 2 * reach[1] + 1)
    assert got.zero == got.correlation[reach]
    inputs = {"image": Input("value", "<f4", image.shape)}
    axes = autocorrelation.coordinates(params, autocorrelation.constants(params, inputs))
    assert [len(axes["row"].values), len(axes["col"].values)] == [*got.pairs.shape]


def test_a_mask_is_of_the_image(tmp_path):
    np.save(tmp_path / "stack.npy", np.ones((2, 5, 6)))
    np.save(tmp_path / "none.npy", np.zeros((5, 6)))
    inputs = {"image": Input("value", "<f4", (5, 6))}
    for name, said in (
        ("stack", r"holds an array \(2, 5, 6\); the image has \(1, 5, 6\)"),
        ("none", "leaves no pixel of the image"),
        ("lost", "lost.npy"),
    ):
        with pytest.raises(ValueError, match=f"mask: .*{said}"):
            autocorrelation.constants(Params(2, mask=tmp_path / f"{name}.npy"), inputs)


def test_pixels_outside_the_levels_count_as_0():
    image = RNG.normal(1, 3, (9, 12)).astype(np.float32)
    image[2, 3] = np.nan
    within = np.where((image < 0.5) | (image > 4), np.float32(0), image)
    got = reduced(image, Params(3, thresholds=(0.5, 4.0)))
    for one, other in zip(got, check(within, Params(3)), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (5, 4), (30, 16), (48, 45)])
def test_transforms_are_numpys(shape):
    re, im = RNG.normal(size=(2, *shape))
    half, out = np.zeros((2, *shape[::-1])), np.zeros((2, *shape))
    work = np.empty((4, max(shape) * fourier.COLUMNS))
    fourier._along(re, im, shape[1], *half, work)
    fourier._along(*half, shape[0], *out, work)
    np.testing.assert_allclose(out[0] + 1j * out[1], np.fft.fft2(re + 1j * im), atol=1e-12)
    assert [fourier.good_size(n) for n in (1, 7, 562, 641)] == [1, 8, 576, 648]


def test_distance_0_of_photons_is_without_shot_noise():
    """Of uncorrelated light it is 1, of speckles as large as a pixel 1 + beta."""
    flat = RNG.poisson(0.2, (150, 150)).astype(np.float32)
    speckles = stats.nbinom.rvs(2, 2 / 2.2, size=(150, 150), random_state=RNG).astype(np.float32)
    plain_, without, bunched = (
        reduced(image, Params(2, photon))
        for image, photon in ((flat, 0.0), (flat, 1.0), (speckles, 1.0))
    )
    k = flat.astype(float)
    n = k.sum()
    assert plain_.zero > 5
    np.testing.assert_allclose(without.zero, (k * (k - 1)).mean() / k.mean() ** 2)
    assert abs(without.zero - 1) < 5 * np.sqrt(2 * 150 * 150) / n
    assert abs(bunched.zero - 1.5) < 0.2
    off = np.delete(without.correlation.ravel(), 12)
    np.testing.assert_array_equal(off, np.delete(plain_.correlation.ravel(), 12))
    assert np.abs(off - 1).max() < 0.12


def test_an_image_without_pixels_has_no_autocorrelation():
    inputs = {"image": Input("value", "<f4", (5, 6))}
    frames = [
        {"image": np.full((5, 6), np.nan, np.float32)},
        {"image": np.zeros((5, 6), np.float32)},
    ]
    for got in features_in_python(autocorrelation, Params(2), inputs, frames):
        assert np.isnan(got["correlation"]).all()
    with pytest.raises(ValueError, match="lag: 5 pixels; the image allows 0 to 4") as e:
        autocorrelation.constants(Params(5, -1.0), inputs)
    assert "photon: -1.0 is not the value" in str(e.value)
    with pytest.raises(ValueError, match="lag: 6 columns; the image allows 0 to 5"):
        autocorrelation.constants(Params((4, 6)), inputs)
    with pytest.raises(ValueError, match=r"thresholds: \[2, 1\]; give two values"):
        autocorrelation.constants(Params(2, 0.0, (2.0, 1.0)), inputs)
