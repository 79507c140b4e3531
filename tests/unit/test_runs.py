"""Run ranges, and what holds for which run."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffb.configuration.runs import RunRange, RunTable, overlaps

firsts = st.integers(0, 30)
ranges = st.builds(
    lambda first, length: RunRange(first, None if length is None else first + length),
    firsts,
    st.none() | st.integers(0, 10),
)
RUNS = range(50)


@given(ranges)
def test_a_range_reads_back_from_its_text(r):
    assert RunRange.parse(str(r)) == r


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [("1-41", 1, 41), ("42-", 42, None), ("7", 7, 7), (7, 7, 7), ("-5", 0, 5), (" 3 - 4 ", 3, 4)],
)
def test_ranges_as_people_write_them(text, first, last):
    assert RunRange.parse(text) == (first, last)


@pytest.mark.parametrize("text", ["", "-3-", "x", "1,2", "1--2", None, True, 3.0, -1, [1], "１-２"])
def test_a_range_nobody_can_read_is_refused(text):
    with pytest.raises(ValueError, match='as runs; write "1-41", "42-", "7" or "-5"'):
        RunRange.parse(text)


def test_a_range_that_ends_before_it_begins_is_refused():
    with pytest.raises(ValueError, match="runs '41-1' end before they begin; write \"1-41\""):
        RunRange.parse("41-1")


@given(st.lists(ranges, max_size=6))
def test_overlaps_are_found_if_and_only_if_there_are_any(rs):
    found = list(overlaps(rs))
    brute = any(any(n in a and n in b for n in RUNS) for a, b in combinations(rs, 2))
    assert bool(found) == brute
    for a, b in found:
        assert any(n in a and n in b for n in RUNS)


@given(st.lists(ranges, min_size=1, max_size=6), st.sampled_from(RUNS))
def test_for_run_agrees_with_looking_at_every_range(rs, run):
    table, _ = RunTable.parse([{"runs": str(r), "i": i} for i, r in enumerate(rs)])
    brute = [i for i, r in enumerate(rs) if r.first <= run <= (run if r.last is None else r.last)]
    if brute:
        assert table.for_run(run)["i"] == brute[0]
    else:
        with pytest.raises(LookupError, match=f"nothing is given for run {run}; given are runs "):
            table.for_run(run)


def test_a_table_without_runs_holds_for_all():
    table, problems = RunTable.parse({"a": 1})
    assert problems == []
    assert table.for_run(0) == table.for_run(10**6) == {"a": 1}


def test_a_run_nobody_thought_of_is_told_with_the_ranges_there_are():
    table, _ = RunTable.parse([{"runs": "10-"}, {"runs": "-5"}])
    with pytest.raises(LookupError, match='run 7; given are runs "-5", "10-"'):
        table.for_run(7)
