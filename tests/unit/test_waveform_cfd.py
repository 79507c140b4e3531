"""Hits of the discriminator are those of a slow one in plain numpy."""

import numpy as np
import pytest

from ffb.reducers.discriminator import find, workspace
from ffb.reducers.waveform_cfd import Params, waveform_cfd
from ffb.shot import Input

SIZE = 600
WAVE = Input("value", "<u2", (SIZE,))


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
        if part.size < 2 or (not p.each and (turns < 0).any()):
            continue
        falls = first + 1 + shift + np.flatnonzero(turns < 0)
        rises = first + np.flatnonzero(turns > 0)
        if not p.each and rises.size > 1:
            continue
        for i in rises:
            samples.append(i + shift)
            times.append((i + shift + d[i] / (d[i] - d[i + 1])) * p.dt)
            piece = max([begin, *falls[falls <= i + shift]]), min([end, *falls[falls > i + shift]])
            heights.append(x[slice(*piece)].max())
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
    Params(1.0, threshold=0.5, taps=5, offset=6, each=True),
    Params(1.0, threshold=8.0, relative=False, taps=1, offset=6, multiplier=-1.4, each=True),
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


def test_a_gate_is_a_waveform_of_its_own():
    p = Params(0.5, threshold=1.5, taps=9, offset=8, gate=(130, 431))
    (trace,) = list(traces("<u2", 9, 3))[-1:]
    hits = waveform_cfd(trace, waveform_cfd.constants(p, {"waveform": WAVE}))
    part = Input("value", "<u2", (301,))
    alone = waveform_cfd(
        trace[130:431], waveform_cfd.constants(p._replace(gate=None), {"waveform": part})
    )
    assert hits.n == alone.n > 0
    assert (hits.baseline, hits.noise) == (alone.baseline, alone.noise)
    np.testing.assert_array_equal(hits.sample[: hits.n], alone.sample[: hits.n] + 130)
    np.testing.assert_allclose(hits.time, alone.time + 65.0)
    np.testing.assert_array_equal(hits.amplitude, alone.amplitude)


def test_pulses_that_overlap_are_hits_each_if_asked_for():
    t = np.arange(SIZE)
    trace = sum(h * np.exp(-(((t - at) / 8) ** 2)) for h, at in ((100, 200), (300, 218)))
    p = Params(1.0, threshold=10.0, relative=False, taps=1, offset=8, multiplier=-0.6)
    inputs = {"waveform": Input("value", "<f8", (SIZE,))}
    assert waveform_cfd(trace, waveform_cfd.constants(p, inputs)).n == 0
    hits = waveform_cfd(trace, waveform_cfd.constants(p._replace(each=True), inputs))
    np.testing.assert_allclose(np.diff(hits.time[: hits.n]), [18], atol=1.0)
    np.testing.assert_allclose(hits.amplitude[:2], [trace[195:208].max(), trace.max()])


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
    p = Params(
        0.0, threshold=-1.0, sign=3, taps=4, offset=SIZE, multiplier=0.5, capacity=0, gate=(9, 9)
    )
    with pytest.raises(ValueError, match="odd") as e:
        waveform_cfd.constants(p, {"waveform": Input("value", "<u2", (SIZE,))})
    assert [line.split(":")[0] for line in str(e.value).splitlines()] == [
        "gate", "threshold", "taps", "offset", "multiplier", "sign", "dt", "capacity",
    ]  # fmt: skip
