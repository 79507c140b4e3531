"""Hits of the discriminator are those of a slow one in plain numpy."""

import numpy as np
import pytest

from ffb.reducers.discriminator import find, workspace
from ffb.reducers.waveform_cfd import Params, waveform_cfd
from ffb.shot import Input

SIZE = 600


def slow(trace, p):
    """(samples, times, heights, level, noise) as the definition says it, whole arrays at a time."""
    level, noise = np.median(trace), trace.std()
    x = trace - level
    sign = p.sign or (-1 if -x.min() > x.max() else 1)
    x *= sign
    at = np.arange(p.taps) - p.taps // 2
    gauss = np.exp(-(at**2) / (2 * ((p.taps - 1) / 6) ** 2)) if p.taps > 1 else np.ones(1)
    s = np.convolve(x, gauss / gauss.sum(), "full")[p.taps // 2 :]
    s = np.concatenate([s[: x.size + p.taps // 2], np.zeros(p.offset)])
    d = s[: x.size] + p.multiplier * s[p.offset : p.offset + x.size]
    shift = round(p.offset * (1 + p.multiplier))
    above = np.concatenate([[0], x > p.threshold * (noise if p.relative else 1), [0]])
    edges = np.flatnonzero(np.diff(above)).reshape(-1, 2)
    samples, times, heights = [], [], []
    for begin, end in edges:
        first = max(begin - shift, 0)
        part = d[first : max(end - shift, 0)]
        turns = np.diff((part >= 0).astype(int))
        if (turns != 0).sum() == 1 and turns.sum() == 1:
            i = first + np.flatnonzero(turns)[0]
            samples.append(i + shift)
            times.append((i + shift + d[i] / (d[i] - d[i + 1])) * p.dt)
            heights.append(x[begin:end].max())
    return samples, times, heights, level, noise


def traces(dtype, number, seed):
    """Pulses of all heights, alone, piled up, at the ends and saturated, on noise, up and down."""
    rng = np.random.default_rng(seed)
    t = np.arange(SIZE)[:, None]
    for k in range(number):
        count = k % 9
        centres, widths = rng.uniform(-5, SIZE + 5, count), rng.uniform(2, 40, count)
        pulses = (rng.exponential(400, count) * np.exp(-(((t - centres) / widths) ** 2))).sum(1)
        trace = 2000 + rng.normal(0, rng.choice([0.5, 4]), SIZE) + pulses * (-1) ** (k // 9)
        yield trace.clip(900, 3100).astype(dtype)


SETTINGS = [
    Params(0.5, threshold=1.5),
    Params(0.5, threshold=2.0, taps=9, offset=8),
    Params(0.25, threshold=1.0, taps=1, offset=5, multiplier=-0.5, sign=1, capacity=3),
    Params(2.0, threshold=20.0, relative=False, taps=5, offset=6, multiplier=-1.4, sign=-1),
]


@pytest.mark.parametrize("p", SETTINGS)
@pytest.mark.parametrize(("dtype", "number"), [("<u2", 126), ("<f8", 40)])
def test_hits_equal_those_of_a_slow_discriminator(p, dtype, number):
    constants = waveform_cfd.constants(p, {"waveform": Input("value", dtype, (SIZE,))})
    samples, times, heights = np.zeros(99, np.int64), np.zeros(99), np.zeros(99)
    work = np.empty(workspace(SIZE, constants.discriminator))
    hits = 0
    for k, trace in enumerate(traces(dtype, number, 3)):
        expected = slow(trace.astype(np.float64), p)
        found = find(trace, constants.discriminator, work, samples, times, heights)
        n = found.n
        assert samples[:n].tolist() == expected[0], k
        np.testing.assert_allclose(times[:n] * p.dt, expected[1], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(heights[:n], expected[2], rtol=1e-12)
        np.testing.assert_allclose(found[1:], expected[3:], rtol=1e-9)
        hits += n
    assert hits > number / 2, "the traces try nothing"


def test_hits_fill_their_places_and_say_when_there_were_more():
    inputs = {"waveform": Input("value", "<u2", (SIZE,))}
    trace = np.zeros(SIZE, np.uint16)
    for k in range(5):
        trace[100 * k + 40 : 100 * k + 49] = [1, 9, 40, 90, 100, 90, 40, 9, 1]
    for capacity in (3, 5, 8):
        p = Params(0.5, threshold=20.0, relative=False, taps=3, offset=3, capacity=capacity)
        hits = waveform_cfd(trace, waveform_cfd.constants(p, inputs))
        kept = min(capacity, 5)
        assert (hits.n, hits.overflow) == (5, capacity < 5)
        assert hits.amplitude[:kept].tolist() == [100.0] * kept
        assert np.diff(hits.sample[:kept]).tolist() == [100] * (kept - 1)
        assert np.floor(hits.time[:kept] / 0.5).tolist() == hits.sample[:kept].tolist()
        assert not hits.sample[kept:].any()
        assert np.isnan(hits.time[kept:]).all()
        assert np.isnan(hits.amplitude[kept:]).all()


def test_time_does_not_depend_on_the_height_and_follows_a_shift_within_a_sample():
    inputs = {"waveform": Input("value", "<f8", (SIZE,))}
    constants = waveform_cfd.constants(Params(1.0, taps=9, offset=12), inputs)
    t = np.arange(SIZE)
    times = [
        waveform_cfd(height * np.exp(-(((t - centre) / 10) ** 2)), constants).time[0] - centre
        for height in (1.0, 300.0)
        for centre in (200.0, 200.25, 200.6)
    ]
    assert np.ptp(times) < 0.02


@pytest.mark.parametrize("trace", [np.zeros(SIZE), np.full(SIZE, 7.0)])
def test_an_empty_waveform_has_no_hits(trace):
    inputs = {"waveform": Input("value", "<f8", (SIZE,))}
    constants = waveform_cfd.constants(Params(0.5), inputs)
    hits = waveform_cfd(trace, constants)
    assert (hits.n, hits.overflow, hits.baseline, hits.noise) == (0, False, trace[0], 0.0)
    trace = trace.copy()
    trace[3] = np.nan
    hits = waveform_cfd(trace, constants)
    assert hits.n == 0
    assert np.isnan([hits.baseline, hits.noise]).all()


def test_bad_parameters_are_told_all_at_once():
    p = Params(0.0, threshold=-1.0, sign=3, taps=4, offset=SIZE, multiplier=0.5, capacity=0)
    with pytest.raises(ValueError, match="odd") as e:
        waveform_cfd.constants(p, {"waveform": Input("value", "<u2", (SIZE,))})
    assert [line.split(":")[0] for line in str(e.value).splitlines()] == [
        "threshold", "taps", "offset", "multiplier", "sign", "dt", "capacity",
    ]  # fmt: skip
