"""The median of waveforms is that of numpy, whatever the samples."""

import numpy as np
import pytest

from ffb.reducers.trace import SPAN, median

RNG = np.random.default_rng(7)
DTYPES = ["<u2", "<i4", "<f4"]


def traces(dtype):
    """Few and many values, one value, far outliers, full range, even and odd lengths."""
    kind = np.dtype(dtype)
    whole = kind.kind in "iu"
    least, most = (np.iinfo(kind).min, np.iinfo(kind).max) if whole else (-1e6, 1e6)
    for n in (1, 2, 3, 10, 255, 512):
        level = least / 2 + most / 2
        for width in (0, 3, 40, SPAN):
            noise = RNG.normal(level, width, n).clip(least, most)
            yield noise.astype(kind)
            noise[: n // 4] = most
            yield noise.astype(kind)
        yield RNG.choice([least, most], n).astype(kind)


@pytest.mark.parametrize("dtype", DTYPES)
def test_median_equals_numpy(dtype):
    for values in traces(dtype):
        expected = np.median(values.astype(np.float64))
        assert median(values, np.dtype(dtype).kind in "iu") == expected, values


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_median_of_what_is_no_number_is_nan(bad):
    values = np.arange(20.0)
    values[7] = bad
    assert np.isnan(median(values, False))
    assert np.isnan(median(np.full(20, bad), False))


def test_median_does_not_wrap_around():
    least, most = np.iinfo(np.int64).min, np.iinfo(np.int64).max
    for values in ([most - 3, most - 3], [least, most, most], [least, most, 5, 7]):
        assert median(np.array(values), True) == np.median(np.array(values, np.float64))
