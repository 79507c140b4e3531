"""Statistics of the page against brute force, however the rows are grouped."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ffb.live.accumulate import Histograms, Means, Moments, Presence

VALUES = st.one_of(st.floats(-1e3, 1e3), st.just(np.nan), st.just(np.inf))


@st.composite
def rows(draw, columns=2):
    n = draw(st.integers(1, 40))
    keys = np.array(draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)), np.int64)
    light = np.array(draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)), np.int64)
    values = draw(hnp.arrays(np.float64, (n, columns), elements=VALUES))
    cuts = sorted(draw(st.lists(st.integers(0, n), max_size=4)))
    return keys, light, values, [0, *cuts, n]


@given(rows())
def test_moments_equal_brute_force_for_any_grouping(data):
    keys, light, values, cuts = data
    moments = Moments(2, keep=100)
    for a, b in itertools.pairwise(cuts):
        if b > a:
            moments.add(keys[a:b], light[a:b], values[a:b])
    at, curve = moments.curve()
    n, (mean, error) = curve.n, curve.ratio()
    assert at.tolist() == sorted(set(keys.tolist()))
    for c in range(2):
        for state in range(4):
            for i, key in enumerate(at):
                x = values[(keys == key) & (light == state), c]
                x = x[np.isfinite(x)]
                assert n[c, state, i] == x.size
                if x.size:
                    assert mean[c, state, i] == pytest.approx(x.mean(), rel=1e-9, abs=1e-9)
                else:
                    assert np.isnan(mean[c, state, i])
                if x.size > 1:
                    sem = x.std(ddof=1) / np.sqrt(x.size)
                    assert error[c, state, i] == pytest.approx(sem, rel=1e-6, abs=1e-4)
                else:
                    assert np.isnan(error[c, state, i])


def test_a_small_spread_on_a_large_mean_keeps_its_digits():
    x = 1e9 + np.random.default_rng(1).normal(0, 1e-2, (5000, 1))
    moments = Moments(1, keep=1)
    moments.add(np.zeros(5000, np.int64), np.zeros(5000, np.int64), x)
    mean, error = moments.curve()[1].ratio()
    assert mean[0, 0, 0] - 1e9 == pytest.approx((x - 1e9).mean(), abs=1e-6)
    assert error[0, 0, 0] == pytest.approx((x - 1e9).std(ddof=1) / np.sqrt(5000), rel=1e-4)


def test_moments_forget_the_smallest_key_first():
    moments = Moments(1, keep=2)
    for key in (3, 1, 2):
        moments.add(np.array([key]), np.array([0]), np.ones((1, 1)))
    assert moments.curve()[0].tolist() == [2, 3]
    assert moments.forgotten == 1


@given(rows(), st.lists(st.integers(0, 2), min_size=5, max_size=5))
def test_a_ratio_of_sums_has_the_error_of_its_residuals_and_bins_merge(data, groups):
    keys, light, values, cuts = data
    values[:, 1] = np.where(np.isfinite(values[:, 1]), 10.0 + np.abs(values[:, 1]), np.nan)
    moments = Moments(2, keep=100, norm=1)
    for a, b in itertools.pairwise(cuts):
        if b > a:
            moments.add(keys[a:b], light[a:b], values[a:b])
    at, curve = moments.curve()
    groups = np.array(groups)
    merged = curve.merged(groups[at], 3)
    ratio, error = merged.ratio()
    for state in range(4):
        for g in range(3):
            mine = (groups[keys] == g) & (light == state) & np.isfinite(values).all(1)
            s, w = values[mine].T
            assert merged.n[0, state, g] == s.size
            if not s.size:
                assert np.isnan(ratio[0, state, g])
                continue
            want = s.sum() / w.sum()
            assert ratio[0, state, g] == pytest.approx(want, rel=1e-9, abs=1e-9)
            if s.size > 1:
                sem = (s - want * w).std(ddof=1) / np.sqrt(s.size) / w.mean()
                assert error[0, state, g] == pytest.approx(sem, rel=1e-6, abs=1e-5)


def test_dividing_by_the_pulse_energy_takes_its_jitter_out():
    rng = np.random.default_rng(5)
    energy = 1.0 + 0.3 * rng.random(4000)
    values = np.stack([7.0 * energy + 0.01 * rng.normal(size=4000), energy], axis=1)
    key = np.zeros(4000, np.int64)
    plain, divided = Moments(2, 1), Moments(2, 1, norm=1)
    for m in (plain, divided):
        m.add(key, key, values)
    ratio, error = (v[0, 0, 0] for v in divided.curve()[1].ratio())
    assert ratio == pytest.approx(7.0, abs=4 * error)
    assert error < 0.02 * plain.curve()[1].ratio()[1][0, 0, 0]


def test_presence_is_told_over_the_run_and_of_late():
    presence = Presence(keep=2)
    presence.add(np.array([1, 1, 2]), np.array([True, True, True]))
    presence.add(np.array([3, 3]), np.array([False, False]))
    assert presence.counts == [3, 5, 1, 3]


@given(rows(columns=1))
def test_histograms_count_every_finite_value_in_its_bin(data):
    _, light, values, cuts = data
    h = Histograms(1, bins=16)
    for a, b in itertools.pairwise(cuts):
        if b > a:
            h.add(light[a:b], values[a:b])
    finite = np.isfinite(values[:, 0])
    assert h.not_finite[0] == (~finite).sum()
    for state in range(4):
        x = values[finite & (light == state), 0]
        assert h.counts[0, state].sum() == x.size
        if x.size:
            edges = h.low[0] + h.width[0] * np.arange(17)
            assert edges[0] <= x.min()
            assert x.max() < edges[-1]
            near = np.where(np.abs(x) < 1e-100, 0.0, x)
            assert h.counts[0, state].tolist() == np.histogram(near, edges)[0].tolist()
            mid = 0.5 * (edges[1:] + edges[:-1])
            mean = (h.counts[0, state] * mid).sum() / x.size
            assert abs(mean - x.mean()) <= h.width[0] * 0.51 + 1e-9


@given(
    st.lists(st.floats(-1e199, 1e199), min_size=1, max_size=60),
    st.lists(st.floats(0.5, 2.0), min_size=60, max_size=60),
    st.integers(1, 10),
)
def test_bins_depend_on_the_range_and_not_on_how_it_grew(anchors, factors, at_once):
    x = np.array([a * f for a, f in zip(anchors, factors, strict=False)])
    x = np.where(np.abs(x) < 1e-100, 0.0, x)
    h = Histograms(1, bins=16)
    for begin in range(0, x.size, at_once):
        part = x[begin : begin + at_once]
        h.add(np.zeros(part.size, np.int64), part[:, None])
    edges = h.low[0] + h.width[0] * np.arange(17)
    assert np.frexp(h.width[0])[0] == 0.5  # a power of two
    assert h.counts[0, 0].tolist() == np.histogram(x, edges)[0].tolist()


def test_a_histogram_survives_absurd_values():
    h = Histograms(1, bins=16)
    values = np.array([1.0, 2.0, 1e308, -1e308, 1e150])
    h.add(np.zeros(5, np.int64), values[:, None])
    assert h.counts.sum() == 3
    assert h.not_finite[0] == 2


def test_means_leave_out_nan_and_absent_rows():
    means = Means((2,))
    values = np.array([[1.0, 2.0], [np.nan, 4.0], [100.0, 100.0], [5.0, 6.0]])
    light = np.array([2, 2, 2, 1])
    means.add(light, np.array([True, True, False, True]), values)
    assert means.rows.tolist() == [0, 1, 2, 0]
    np.testing.assert_array_equal(means.mean[2], [1.0, 3.0])
    np.testing.assert_array_equal(means.mean[1], [5.0, 6.0])
    assert np.isnan(means.mean[0]).all()
    np.testing.assert_array_equal(means.last, [5.0, 6.0])


@given(rows(columns=3), st.integers(0, 2**32), st.sampled_from([0.0, 1e9]))
def test_errors_of_means_equal_brute_force_for_any_grouping(data, chosen, offset):
    _, light, values, cuts = data
    values = values + offset
    present = (chosen >> (np.arange(len(light)) % 32)) % 2 == 1
    means = Means((3,), errors=True)
    for a, b in itertools.pairwise(cuts):
        means.add(light[a:b], present[a:b], values[a:b])
    for state, column in itertools.product(range(4), range(3)):
        x = values[present & (light == state), column]
        x = x[np.isfinite(x)]
        want = x.std(ddof=1) / np.sqrt(x.size) if x.size > 1 else np.nan
        close = {"rel": 1e-9, "abs": 1e-14 * (1e3 + offset), "nan_ok": True}
        assert means.error[state, column] == pytest.approx(want, **close)


def test_a_small_spread_on_a_large_mean_keeps_its_digits_shot_by_shot():
    x = 1e6 + np.random.default_rng(5).normal(0, 1e-3, (500, 2))
    x[::7, 0] = np.nan
    means = Means((2,), errors=True)
    light, there = np.array([2]), np.array([True])
    for row in x:
        means.add(light, there, row[None])
    want = np.nanstd(x, axis=0, ddof=1) / np.sqrt(np.isfinite(x).sum(0))
    np.testing.assert_allclose(means.error[2], want, rtol=1e-6)
    assert np.isnan(means.error[:2]).all()


def test_squares_beyond_all_numbers_leave_no_error_and_images_keep_none():
    means = Means((2,), errors=True)
    means.add(np.ones(3, int), np.ones(3, bool), np.array([[1e200, 1.0], [-1e200, 2], [0, 3]]))
    np.testing.assert_allclose(means.error[1], [np.nan, np.sqrt(1 / 3)])
    assert Means((2, 2)).error is None
