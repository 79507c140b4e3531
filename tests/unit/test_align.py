"""Rows that belong together by their timestamps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffb.reading.align import exact, nearest, times
from ffb.shot import time_of, timestamp_of

T0 = 1_700_000_000_999_999_990

stamps = st.lists(st.integers(0, 30), max_size=20)


def stamped(ns: list[int]) -> np.ndarray:
    """Stamps around the end of a second, where their nanoseconds wrap."""
    return np.array([timestamp_of(T0 + t) for t in ns], np.uint64)


@given(stamps, stamps)
def test_exact_pairs_are_those_of_counting(a, b):
    pairs = exact(stamped(a), stamped(b))
    found = [(a[i], b[j]) for i, j in zip(*pairs, strict=True)]
    assert all(x == y for x, y in found)
    assert [x for x, _ in found] == sorted(
        t for t in {*a} for _ in range(min(a.count(t), b.count(t)))
    )
    for rows in pairs:
        assert len({*rows.tolist()}) == len(rows)
    for t in {*a}:  # the first with the first
        mine = [(i, j) for i, j in zip(*(p.tolist() for p in pairs), strict=True) if a[i] == t]
        assert mine == sorted(mine)


@given(stamps, stamps, st.integers(0, 9))
def test_the_nearest_is_that_of_brute_force(a, b, within):
    pairs = nearest(stamped(a), stamped(b), within)
    found = {a[i]: b[j] for i, j in zip(*pairs, strict=True)}
    for t in {*a}:
        close = [u for u in sorted(b) if abs(u - t) <= within]
        assert found.get(t) == (min(close, key=lambda u: abs(u - t)) if close else None)
    assert len(pairs.left) == sum(t in found for t in a)


@pytest.mark.parametrize("within", [-1, 1.0, True, "3"])
def test_a_tolerance_is_whole_nanoseconds(within):
    with pytest.raises(ValueError, match="whole nanoseconds"):
        nearest(stamped([1]), stamped([1]), within)


def test_times_are_those_of_single_stamps():
    given_ = stamped([0, 9, 10, 5_000_000_000])
    assert times(given_).tolist() == [time_of(int(s)) for s in given_]
    assert times(given_).dtype == np.int64
