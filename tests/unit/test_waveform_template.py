"""Fits of templates reach what scipy's least squares reach."""

import numpy as np
import pytest
from scipy.optimize import least_squares

from ffb.reducers.waveform_template import Params, gaussian, waveform_template
from ffb.shot import Input

SIZE = 160
RNG = np.random.default_rng(4)
U = np.arange(40)
SHAPE = (1 - np.exp(-U / 3.0)) * np.exp(-U / 8.0)
PEAK = int(SHAPE.argmax())


def model(p, sign=1, shape=SHAPE):
    """A level and pulses of the template's peak at p[2], p[4], ... in samples."""
    i, u = np.arange(SIZE), np.arange(-1, shape.size + 1)
    out = np.full(SIZE, p[0])
    for a, t in zip(p[1::2], p[2::2], strict=True):
        out += sign * a * np.interp(i - t + shape.argmax(), u, np.pad(shape, 1))
    return out


def constants(tmp_path, dtype="<f8", **settings):
    path = tmp_path / "shape.npy"
    np.save(path, SHAPE)
    p = Params(0.5, path, **settings)
    return waveform_template.constants(p, {"waveform": Input("value", dtype, (SIZE,))})


def cases(pulses):
    """A level, pulses apart and piled up, with times between samples."""
    for gap in (40.3, 12.7, 7.2):
        p = [RNG.uniform(80, 120)]
        for k in range(pulses):
            p += [RNG.uniform(300, 900), 30.37 + k * gap + RNG.uniform(0, 1)]
        yield np.array(p)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("pulses", [1, 2, 3])
def test_fits_reach_the_squares_that_scipy_reaches(tmp_path, pulses, sign):
    c = constants(tmp_path, pulses=pulses, sign=sign, noise=2.0)
    for truth in cases(pulses):
        data = model(truth, sign) + RNG.normal(0, 2, SIZE)
        best = least_squares(lambda p, d=data: model(p, sign) - d, truth, x_scale="jac", xtol=1e-14)
        got = waveform_template(data, c)
        assert got.converged
        freedom = SIZE - 1 - 2 * pulses
        assert got.chi2 * 4 * freedom <= 2 * best.cost * (1 + 1e-6)
        assert got.chi2 < 1.6
        np.testing.assert_allclose(got.amplitude, truth[1::2], atol=12)
        np.testing.assert_allclose(got.time / 0.5, truth[2::2], atol=0.15)
        if got.chi2 * 4 * freedom > 2 * best.cost * (1 - 1e-9):
            np.testing.assert_allclose(got.amplitude, best.x[1::2], rtol=1e-4)
            np.testing.assert_allclose(got.time / 0.5, best.x[2::2], atol=1e-3)


@pytest.mark.parametrize("size", [6, 8, 12])
def test_a_gate_shorter_than_the_template_is_fitted_exactly(tmp_path, size):
    c = constants(tmp_path, gate=(60, 60 + size))
    for time in 60 + size * np.linspace(0.1, 0.9, 9):
        got = waveform_template(model([100.0, 700.0, time]), c)
        np.testing.assert_allclose(
            [got.baseline, got.amplitude[0], got.time[0] / 0.5], [100, 700, time], rtol=1e-4
        )


@pytest.mark.parametrize("dtype", ["<f8", "<i2"])
def test_a_waveform_that_is_the_model_is_fitted_exactly(tmp_path, dtype):
    c = constants(tmp_path, dtype, pulses=2, gate=(5, 150))
    truth = np.array([100.0, 2000.0, 41.6, 700.0, 60.25])
    got = waveform_template(model(truth).astype(dtype), c)
    exact = dtype == "<f8"
    np.testing.assert_allclose(got.amplitude, truth[1::2], rtol=1e-6 if exact else 3e-3)
    np.testing.assert_allclose(got.time, truth[2::2] * 0.5, atol=1e-6 if exact else 0.01)
    np.testing.assert_allclose(got.baseline, 100.0, atol=1e-6 if exact else 0.6)


@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("sign", [1, -1])
def test_saturated_samples_do_not_pull_the_fit_down(tmp_path, one_sided, sign):
    level = 100 + sign * 250
    c = constants(tmp_path, sign=sign, saturation=level, one_sided=one_sided, noise=0.5)
    truth = np.array([100.0, 1500.0, 50.4])
    data = model(truth, sign) + RNG.normal(0, 0.5, SIZE)
    clipped = np.minimum(data, level) if sign > 0 else np.maximum(data, level)
    got = waveform_template(clipped, c)
    assert got.nsat == (clipped == level).sum() > 10
    np.testing.assert_allclose(got.amplitude, 1500.0, rtol=0.01)
    np.testing.assert_allclose(got.time, 50.4 * 0.5, atol=0.05)
    naive = waveform_template(clipped, constants(tmp_path, sign=sign))
    assert naive.amplitude[0] < 1200


def test_what_cannot_be_fitted_is_nan_or_says_that_it_did_not_converge(tmp_path):
    c = constants(tmp_path, saturation=50.0)
    data = model([0.0, 30.0, 60.0])
    assert waveform_template(data, c).converged
    data[3] = np.nan
    for bad, nsat in ((data, 0), (np.full(SIZE, 60.0), SIZE)):
        got = waveform_template(bad, c)
        assert (got.nsat, got.converged) == (nsat, False)
        assert np.isnan([*got.amplitude, *got.time, got.baseline, got.chi2]).all()
    flat = waveform_template(np.full(SIZE, 7.0), c)
    assert (flat.amplitude[0], flat.baseline, flat.chi2) == (0.0, 7.0, 0.0)


def test_a_template_comes_from_files_or_is_a_gaussian(tmp_path):
    inputs = {"waveform": Input("value", "<f8", (SIZE,))}
    np.savez(tmp_path / "shape.npz", template=SHAPE, other=U)
    c = waveform_template.constants(Params(0.5, tmp_path / "shape.npz"), inputs)
    np.testing.assert_array_equal(c.shape, [0, *SHAPE, 0])
    c = waveform_template.constants(Params(0.5, width=5.0), inputs)
    above = np.flatnonzero(c.shape >= 0.5)
    assert np.ptp(above) * 0.5 == 5.0
    np.testing.assert_array_equal(c.shape, [0, *gaussian(10.0), 0])


def test_bad_parameters_are_told_all_at_once(tmp_path):
    inputs = {"waveform": Input("value", "<f8", (SIZE,))}
    np.savez(tmp_path / "a.npz", other=U)
    np.save(tmp_path / "b.npy", -SHAPE)
    np.save(tmp_path / "c.npy", np.zeros((2, 3)))
    for given, text in (
        ({"template": tmp_path / "a.npz"}, "holds other; no template"),
        ({"template": tmp_path / "b.npy"}, "goes up from 0"),
        ({"template": tmp_path / "c.npy"}, "3 or more finite samples"),
        ({"template": tmp_path / "none.npy"}, "template: .*No such file"),
        ({}, "give a file or a width"),
        ({"width": 0.5}, "2 samples or wider"),
    ):
        p = Params(0.5, pulses=0, sign=2, noise=0.0, gate=(9, 9), **given)
        with pytest.raises(ValueError, match=text) as e:
            waveform_template.constants(p, inputs)
        assert len(str(e.value).splitlines()) == 5
