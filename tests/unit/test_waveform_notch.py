"""Lines are removed as an FFT removes them, or as least squares do where there is none."""

import numpy as np
import pytest
from scipy import fft

from ffb.reducers.waveform_notch import Params, waveform_notch
from ffb.shot import Input

SIZE = 320
RNG = np.random.default_rng(9)


def reduce(trace, p):
    constants = waveform_notch.constants(
        p, {"waveform": Input("value", trace.dtype.str, trace.shape)}
    )
    return waveform_notch(trace, constants)


def trace(dtype="<i2"):
    """Noise, a pulse, and the levels of 8 converters."""
    x = RNG.normal(500, 5, SIZE) + np.resize(RNG.normal(0, 30, 8), SIZE)
    x[200:230] += 400
    return x.astype(dtype)


@pytest.mark.parametrize("dtype", ["<u2", "<f4"])
@pytest.mark.parametrize(
    ("interleave", "bins"),
    [(1, (64, 128)), (8, ()), (5, ()), (2, (40,)), (4, (160, 32, 80)), (64, ())],
)
def test_whole_waveforms_lose_bins_of_their_fourier_transform(interleave, bins, dtype):
    x = trace(dtype)
    p = Params(0.5, interleave, tuple(b / SIZE / 0.5 for b in bins), waveform=True)
    spectrum = fft.rfft(x.astype(np.float64))
    notch = [*bins, *np.arange(1, interleave // 2 + 1) * (SIZE // interleave)]
    spectrum[notch] = 0
    expected = fft.irfft(spectrum, SIZE)
    got = reduce(x, p)
    np.testing.assert_allclose(got.corrected, expected, rtol=1e-9, atol=1e-8)
    np.testing.assert_allclose(got.baseline, x.mean(dtype=np.float64), rtol=1e-9)
    np.testing.assert_allclose(got.pattern, (x - expected).std(), rtol=1e-6)
    np.testing.assert_allclose(got.area, (expected - expected.mean()).sum() * 0.5, atol=1e-6)


@pytest.mark.parametrize("interleave", [1, 4, 6])
@pytest.mark.parametrize("frequencies", [(), (0.123,), (0.3, 0.171)])
def test_a_gate_of_any_length_and_lines_anywhere_are_least_squares(interleave, frequencies):
    if interleave == 1 and not frequencies:
        return
    x = trace()
    before, after, dt = 13, 190, 1.25
    p = Params(dt, interleave, frequencies, (before, after), (195, 240), waveform=True)
    i = np.arange(SIZE)
    columns = [(i % interleave == k) - 1 / interleave for k in range(interleave)]
    for f in frequencies:
        columns += [np.cos(2 * np.pi * f * i * dt), np.sin(2 * np.pi * f * i * dt)]
    model = np.array([np.ones(SIZE), *columns]).T
    c = np.linalg.lstsq(model[before:after], x[before:after].astype(float), rcond=None)[0]
    expected = x - model[:, 1:] @ c[1:]
    got = reduce(x, p)
    np.testing.assert_allclose(got.corrected, expected, rtol=1e-9, atol=1e-8)
    np.testing.assert_allclose(got.baseline, c[0], rtol=1e-9)
    np.testing.assert_allclose(got.area, (expected[195:240] - c[0]).sum() * dt, rtol=1e-8)


def test_a_pulse_outside_the_baseline_keeps_its_area():
    pattern = np.resize([0, 7, -3, 12, 5, 5, -20, -6], SIZE)
    pulse = np.zeros(SIZE)
    pulse[200:221] = np.hanning(21) * 1000
    got = reduce(300 + pattern + pulse, Params(2.0, 8, baseline=(0, 150), gate=(180, 260)))
    np.testing.assert_allclose(got.area, pulse.sum() * 2.0, rtol=1e-12)
    np.testing.assert_allclose(got.pattern, pattern.std(), rtol=1e-12)


@pytest.mark.parametrize("nothing", [np.nan, np.inf])
@pytest.mark.parametrize("frequencies", [(), (0.1,)])
def test_nan_stays_where_it_is_unless_it_is_in_the_baseline(frequencies, nothing):
    x = trace("<f8")
    p = Params(1.0, 4, frequencies, (0, 100), (120, 140), waveform=True)
    x[150] = nothing
    got = reduce(x, p)
    assert np.flatnonzero(~np.isfinite(got.corrected)).tolist() == [150]
    assert np.isfinite([got.area, got.baseline, got.pattern]).all()
    x[50] = nothing
    got = reduce(x, p)
    assert np.isnan([got.area, got.baseline, got.pattern, *got.corrected]).all()


def test_bad_parameters_are_told_all_at_once():
    inputs = {"waveform": Input("value", "<u2", (SIZE,))}
    for p, names in (
        (Params(0.0, 0, (), (5, 4), (0, SIZE + 1)), ["gate", "baseline", "dt", "interleave"]),
        (Params(1.0, 1, (0.0, 0.6)), ["frequencies"]),
        (Params(1.0), ["interleave"]),
        (Params(1.0, 8, (0.1, 0.2), (0, 11)), ["baseline"]),
    ):
        with pytest.raises(ValueError, match=":") as e:
            waveform_notch.constants(p, inputs)
        assert [line.split(":")[0] for line in str(e.value).splitlines()] == names
