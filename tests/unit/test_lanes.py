"""What compiled code does with many samples at once is what numpy does."""

import numpy as np
import pytest

from ffb.loops.compile import kernel
from ffb.reducers.lanes import BLOCK, LANES, above, below, correlate, lowest
from ffb.reducers.lit import lit

RNG = np.random.default_rng(41)


@kernel
def compare(values, at, limit):
    return above(values, at, limit), below(values, at, limit)


@kernel
def places(bits):
    out, n = np.zeros(LANES, np.int64), 0
    while bits:
        out[n] = lowest(bits)
        bits &= bits - 1
        n += 1
    return out[:n]


@kernel
def sums(values, weights, at):
    out = np.zeros(LANES)
    correlate(values, weights, at, out)
    return out


@pytest.mark.parametrize("at", [0, 1, 17])
def test_bits_are_those_of_a_comparison(at):
    values = RNG.integers(-3, 4, 64).astype(np.float64)
    values[[0, 5, 20, 48]] = np.nan, np.inf, -np.inf, -0.0
    for limit in (-1.0, 0.0, 2.0, 9.0):
        part, bits = values[at : at + LANES], 1 << np.arange(LANES)
        more, less = compare(values, at, limit)
        assert (more, less) == (bits[part > limit].sum(), bits[part < limit].sum())
        assert places(more).tolist() == np.flatnonzero(part > limit).tolist()


@pytest.mark.parametrize("at", [0, 3, 40, 99])  # of the last two only some are in the row
def test_bits_of_pixels_are_those_of_a_comparison(at):
    plain = getattr(lit, "py_func", lit)  # itself where nothing is compiled
    values = RNG.integers(-3, 4, 100).astype(np.float32)
    values[[0, 5, 20, 48, 66, 99]] = np.nan, np.inf, -np.inf, -0.0, 2.0, 2.0
    for least in np.float32([-1.0, 0.0, 2.0, np.inf]):
        lighted = np.flatnonzero(values[at : at + BLOCK] >= least)
        bits = sum(1 << int(k) for k in lighted)
        assert lit(values, at, least) % 2**64 == plain(values, at, least) == bits


@pytest.mark.parametrize("size", [1, 2, 33, 64])
def test_sums_are_those_of_numpy(size):
    values, weights = RNG.normal(0, 1, LANES + size + 8), RNG.normal(0, 1, size)
    for at in (0, 3):
        expected = [weights @ values[k : k + size] for k in range(at, at + LANES)]
        np.testing.assert_allclose(sums(values, weights, at), expected, rtol=1e-12, atol=1e-12)


@kernel
def finite(x, y):
    return np.isfinite(x + y)


@pytest.mark.parametrize("x", [np.nan, np.inf, -np.inf, 0.0])
def test_compiled_code_knows_whether_a_sum_is_finite(x):
    assert finite(x, 1.0) == (x == 0.0)
