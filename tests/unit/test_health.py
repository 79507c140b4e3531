"""Rates, latencies and log lines."""

import logging

import numpy as np
import pytest

from ffb.health import SECOND, KeyValue, Latency, Rate


def test_a_rate_is_what_was_added_over_the_window():
    rate = Rate(window_s=2.0)
    assert rate(0, 0) == 0.0
    assert rate(50, SECOND) == 50.0
    for s in range(2, 20):
        now = rate(50 + 100 * (s - 1), s * SECOND)
    assert now == pytest.approx(100.0)
    for s in range(20, 30):
        now = rate(50 + 100 * 18, s * SECOND)
    assert now == 0.0


def test_the_rate_of_a_new_run_is_not_negative():
    rate = Rate(window_s=2.0)
    assert [rate(n, k * SECOND) for k, n in enumerate((0, 100, 0, 50))] == [0.0, 100.0, 0.0, 50.0]


def test_percentiles_are_those_of_the_newest_delays():
    latency = Latency(keep=100)
    assert np.isnan(latency.percentiles(50, 95)).all()
    latency.add(np.full(1000, 9_000_000_000))
    latency.add(np.arange(100) * 1_000_000)
    assert latency.percentiles(0, 50, 100) == [0.0, 49.5, 99.0]
    latency.add(np.full(50, 7_000_000))
    assert sorted(latency.percentiles(0, 100)) == [7.0, 99.0]


def test_more_delays_than_are_kept_leave_the_newest():
    latency = Latency(keep=10)
    latency.add(np.arange(1000) * 1_000_000)
    assert latency.percentiles(0, 100) == [990.0, 999.0]


def test_a_log_line_ends_with_its_context():
    record = logging.LogRecord("ffb", logging.WARNING, "", 0, "run %d begins", (7,), None)
    line = KeyValue({"exp": "tstx00001", "producer": "p0"}).format(record)
    assert line.endswith("WARNING run 7 begins exp=tstx00001 producer=p0")
