"""Statistics of the page against brute force, however the rows are grouped."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ffb.accumulate import Histograms, Means, Moments

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
    at, n, mean, error = moments.curve()
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
    _, _, mean, error = moments.curve()
    assert mean[0, 0, 0] - 1e9 == pytest.approx((x - 1e9).mean(), abs=1e-6)
    assert error[0, 0, 0] == pytest.approx((x - 1e9).std(ddof=1) / np.sqrt(5000), rel=1e-4)


def test_moments_forget_the_smallest_key_first():
    moments = Moments(1, keep=2)
    for key in (3, 1, 2):
        moments.add(np.array([key]), np.array([0]), np.ones((1, 1)))
    assert moments.curve()[0].tolist() == [2, 3]


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
            assert x.max() < edges[-1] or np.isclose(x.max(), edges[-1])
            mid = 0.5 * (edges[1:] + edges[:-1])
            mean = (h.counts[0, state] * mid).sum() / x.size
            assert abs(mean - x.mean()) <= h.width[0] * 0.51 + 1e-9


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
