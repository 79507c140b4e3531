"""Hits above a threshold are those of whole-array numpy."""

import numpy as np
import pytest
from scipy import constants as si

from ffb.reducers.waveform_hits import Params, waveform_hits
from ffb.shot import Input

SIZE = 400
RNG = np.random.default_rng(5)


def slow(trace, p):
    """The same by runs of a boolean array; NaN and gates not at sample 0 as documented."""
    gate = trace[slice(*p.baseline)] if p.baseline else np.zeros(1)
    level = gate.mean()
    limit = p.threshold * gate.std() if p.relative else p.threshold
    x = p.sign * (trace - level)
    start, stop = p.gate or (0, trace.size)
    above = np.concatenate([x[start:stop] > limit, [False]])
    rises = start + 1 + np.flatnonzero(np.diff(above.astype(int)) == 1)
    hits, rejected = [], 0
    for i in rises:
        j = i + np.flatnonzero(~above[i - start :])[0]
        if x[i:j].max() > p.maximum:
            rejected += 1
            continue
        t = i - 1 + np.interp(limit, x[i - 1 : i + 1], [0, 1]) if x[i - 1] == x[i - 1] else i
        e = j - 1
        if j < stop and x[j] == x[j]:
            e += np.interp(-limit, -x[j - 1 : j + 1], [0, 1])
        hits.append((t * p.dt, (e - t) * p.dt, x[i:j].max(), x[i:j].sum() * p.dt))
    return hits, rejected, level


def traces(dtype, number):
    """Noise and pulses, up and down, some at the ends, some saturated; floats with NaN."""
    t = np.arange(SIZE)[:, None]
    for k in range(number):
        n = k % 8
        where, width = RNG.uniform(-5, SIZE + 5, n), RNG.uniform(1, 6, n)
        pulses = (RNG.exponential(300, n) * np.exp(-(((t - where) / width) ** 2))).sum(1)
        trace = 2000 + RNG.normal(0, 5, SIZE) + pulses * (-1) ** (k // 8)
        if dtype == "<f4" and k % 3 == 0:
            trace[RNG.integers(60, SIZE, 20)] = np.nan
        yield trace.clip(1200, 2800).astype(dtype)


SETTINGS = [
    Params(0.5, 2030.0),
    Params(0.5, 4.0, relative=True, baseline=(0, 50), maximum=600.0, sign=-1, gate=(40, 390)),
    Params(2.0, 1.0, relative=True, baseline=(0, 60), bins=50, limits=(100.0, 700.0), capacity=2),
    Params(2.0, 0.0, baseline=(0, 60), bins=7, limits=(0.0, 800.0), gate=(399, 400)),
]


@pytest.mark.parametrize("p", SETTINGS)
@pytest.mark.parametrize("dtype", ["<u2", "<f4"])
def test_hits_equal_those_of_whole_arrays(p, dtype):
    constants = waveform_hits.constants(p, {"waveform": Input("value", dtype, (SIZE,))})
    found = 0
    for trace in traces(dtype, 60):
        hits, rejected, level = slow(trace.astype(np.float64), p)
        got = waveform_hits(trace, constants)
        kept = min(len(hits), p.capacity)
        assert (got.n, got.rejected, got.overflow) == (len(hits), rejected, len(hits) > kept)
        np.testing.assert_allclose(got.baseline, level if p.baseline else 0.0)
        table = np.stack(got[2:6], axis=1)
        expected = np.array(hits).reshape(-1, 4)
        np.testing.assert_allclose(table[:kept], expected[:kept], rtol=1e-9, atol=1e-9)
        assert np.isnan(table[kept:]).all()
        if p.bins:
            before = expected[expected[:, 0] < p.limits[1], 0]  # numpy's last bin has its end in it
            counts, _ = np.histogram(before, p.bins, p.limits)
            assert got.tof.tolist() == counts.tolist()
        found += got.n
    assert found > 30 or p.gate == (399, 400)


def test_nan_in_the_baseline_leaves_no_hits_and_says_so():
    p = Params(1.0, 3.0, baseline=(0, 10))
    constants = waveform_hits.constants(p, {"waveform": Input("value", "<f8", (64,))})
    trace = np.zeros(64)
    trace[30:34] = 9.0
    assert waveform_hits(trace, constants).n == 1
    trace[3] = np.nan
    got = waveform_hits(trace, constants)
    assert got.n == 0
    assert np.isnan(got.baseline)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("bad", [np.inf, -np.inf])
def test_an_infinite_sample_is_no_hit_and_no_baseline(bad, sign):
    p = Params(1.0, 3.0, baseline=(0, 10), sign=sign)
    constants = waveform_hits.constants(p, {"waveform": Input("value", "<f8", (64,))})
    trace = np.zeros(64)
    trace[30:34], trace[50], trace[60] = sign * 9.0, bad, bad
    got = waveform_hits(trace, constants)
    assert (got.n, got.time[0], got.peak[0]) == (1, 29 + 1 / 3, 9.0)
    trace[3] = bad
    got = waveform_hits(trace, constants)
    assert got.n == 0
    assert np.isnan(got.baseline)


def test_a_time_on_an_edge_belongs_to_the_bin_that_begins_there():
    p = Params(0.1, 1.0, bins=59, limits=(0.2, 0.2 + 59 * 0.1), capacity=64)
    constants = waveform_hits.constants(p, {"waveform": Input("value", "<f8", (64,))})
    trace = np.tile([0.0, 1.0, 2.0, 0.0], 16)  # the threshold is a sample: times are on samples
    got = waveform_hits(trace, constants)
    times = got.time[got.time < p.limits[1]]
    counts, _ = np.histogram(times, np.linspace(*p.limits, 60))
    assert got.tof.tolist() == counts.tolist()


def test_an_axis_has_the_energies_of_electrons_that_fly():
    inputs = {"waveform": Input("value", "<f8", (64,))}
    p = Params(1.0, 3.0, bins=10, limits=(100.0, 300.0), t0=40.0, flight=1.5, retardation=10.0)
    axis = waveform_hits.coordinates(p, waveform_hits.constants(p, inputs))["bin"]
    seconds = (np.arange(110, 300, 20) - 40) * 1e-9
    expected = 10 + si.m_e / 2 * (1.5 / seconds) ** 2 / si.e
    np.testing.assert_allclose(axis.values, expected, rtol=1e-8)
    assert axis.unit == "eV"
    p = p._replace(flight=0.0, polynomial=(1.0, 20.0, 3e6, 1e7))
    axis = waveform_hits.coordinates(p, waveform_hits.constants(p, inputs))["bin"]
    t = seconds * 1e9
    np.testing.assert_allclose(axis.values, 10 + 1 + 20 / t + 3e6 / t**2 + 1e7 / t**3)
    p = p._replace(polynomial=())
    axis = waveform_hits.coordinates(p, waveform_hits.constants(p, inputs))["bin"]
    np.testing.assert_allclose(axis.values, np.arange(110, 300, 20))
    assert axis.unit == "ns"


def test_a_flat_spectrum_of_energies_is_flat():
    """Electrons of 5 to 30 eV, evenly; times as they fly 1.5 m, retarded by 3 eV before."""
    shots, each, retardation, t0, dt = 40, 20, 3.0, 25.0, 0.5
    inputs = {"waveform": Input("value", "<f8", (3700,))}
    energies = 5 + 25 * (np.arange(shots * each) + 0.5) / (shots * each)
    speed = np.sqrt(2 * si.e * (energies - retardation) / si.m_e)
    times = (t0 + 1.5 / speed * 1e9).reshape(each, shots)
    p = Params(dt, 1.0, bins=12, limits=(475.0, 1825.0), t0=t0, flight=1.5, retardation=retardation)
    p = p._replace(density=True, capacity=1)
    c = waveform_hits.constants(p, inputs)
    total, counts = np.zeros(12), 0
    for arrived in times.T / dt:
        trace, at = np.zeros(3700), arrived.astype(int)
        trace[at], trace[at + 1] = 1 - (arrived - at), 2 - (arrived - at)
        hits = waveform_hits(trace, c)
        total += hits.spectrum
        counts += hits.n
    edges = retardation + si.m_e / 2 / si.e * (1.5 / (np.linspace(475, 1825, 13) - t0) * 1e9) ** 2
    inside = (edges[:-1] <= 30) & (edges[1:] >= 5)
    assert counts == shots * each
    assert inside.sum() > 6
    np.testing.assert_allclose(total[inside], shots * each / 25, rtol=0.04)
    covered = ((energies < edges[0]) & (energies >= edges[-1])).sum()
    np.testing.assert_allclose((total * -np.diff(edges)).sum(), covered, rtol=1e-8)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"bins": 0}, "there are no bins"),
        ({"flight": 0.0}, "give the length of flight"),
        ({"limits": (10.0, 60.0)}, "infinite energy"),
        ({"flight": 0.0, "polynomial": (0.0, -1e3, 2e4)}, "one energy at several times"),
    ],
)
def test_a_density_that_cannot_be_is_told(change, problem):
    p = Params(1.0, 3.0, bins=8, limits=(20.0, 60.0), t0=10.0, flight=1.0, density=True)
    with pytest.raises(ValueError, match=f"^density: .*{problem}"):
        waveform_hits.constants(
            p._replace(**change), {"waveform": Input("value", "<f8", (64,), "V")}
        )


def test_bad_parameters_are_told_all_at_once():
    inputs = {"waveform": Input("value", "<u2", (64,))}
    p = Params(0.0, np.nan, True, 0.0, (5, 5), (0, 65), 2, 0, 5, (10.0, 10.0), 20.0, 1.0, (1.0,))
    with pytest.raises(ValueError, match="bins") as e:
        waveform_hits.constants(p, inputs)
    assert [line.split(":")[0] for line in str(e.value).splitlines()] == [
        "gate", "baseline", "sign", "dt", "threshold", "capacity", "limits", "polynomial", "t0",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="relative: needs a baseline gate"):
        waveform_hits.constants(Params(1.0, 3.0, relative=True), inputs)
    with pytest.raises(ValueError, match=r"maximum: 2.0 must be above the threshold, 3.0"):
        waveform_hits.constants(Params(1.0, 3.0, maximum=2.0), inputs)


def test_bins_without_limits_are_told():
    with pytest.raises(ValueError, match=r"^limits: missing: from when to when"):
        waveform_hits.constants(
            Params(1.0, 3.0, bins=5), {"waveform": Input("value", "<u2", (64,))}
        )
