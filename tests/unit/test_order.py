"""Order within a horizon, against the simplest model; and what one wild timestamp may cost."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffb.aggregating.merge import Merge, Release
from ffb.aggregating.order import Front, bulk_end
from tests.unit.producers import batch

MS = 1_000_000
HORIZON = 100 * MS


class Model:
    """Every row by itself: who waits for whom, said in as few words as possible."""

    def __init__(self, names: str, most: int) -> None:
        self.most, self.position = most, dict.fromkeys(names, 0)
        self.moved = dict.fromkeys(names, 0)
        self.waiting: list[tuple[int, int]] = []  # timestamp, since when
        self.highest = 0

    def add(self, name: str, stamps: list[int], now: int) -> None:
        self.waiting += [(t, now) for t in stamps]
        self.position[name], self.moved[name] = max(stamps), now

    def release(self, now: int) -> list[tuple[int, bool]]:
        at_work = [k for k, t in self.moved.items() if now - t < HORIZON]
        mark = min((self.position[k] for k in at_work), default=1 << 64)
        old = [t for t, since in self.waiting if now - since >= HORIZON]
        mark = max([mark, self.highest, *old])
        if len(self.waiting) > self.most:
            mark = max(mark, sorted(t for t, _ in self.waiting)[-self.most - 1])
        out = sorted(t for t, _ in self.waiting if t <= mark)
        self.waiting = [w for w in self.waiting if w[0] > mark]
        before, self.highest = self.highest, max([self.highest, *out])
        return [(t, t < before) for t in out]


def flagged(release: Release | None) -> list[tuple[int, bool]]:
    found = [] if release is None else release.batches
    return [
        (int(t), bool(late))
        for b in found
        for t, late in zip(b.columns["timestamp"], b.columns["ffb/late"], strict=True)
    ]


# A stream: per message its producer, how far each row lies behind the one before, and a pause [ms].
streams = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.lists(st.integers(0, 9), min_size=1, max_size=12),
        st.integers(0, 40),
        st.booleans(),
    ),
    max_size=60,
)


@settings(max_examples=120, deadline=None)
@given(streams, st.integers(1, 60), st.randoms())
def test_rows_come_as_the_model_says(stream: list, most: int, rng) -> None:
    merge, model, now, clock = (
        Merge(HORIZON, most=most),
        Model("abc", most),
        0,
        dict.fromkeys("abc", 1),
    )
    for name in "abc":
        merge.join((name, 1), 0)
    sent = got = 0
    for seq, (name, gaps, pause, tick) in enumerate(stream, 1):
        stamps = (clock[name] + np.cumsum(gaps)).tolist()
        clock[name] = stamps[-1]
        rng.shuffle(stamps)
        merge.add((name, 1), seq, batch(stamps), now, "abc".index(name), "k")
        model.add(name, stamps, now)
        sent += len(stamps)
        now += pause * MS
        if tick:
            found = flagged(merge.release(now, "k", 0))
            assert found == model.release(now)
            got += len(found)
            assert merge.rows == len(model.waiting) == sent - got <= most
    found = flagged(merge.release(now, "k", 0, everything=True))
    assert [t for t, _ in found] == sorted(t for t, _ in model.waiting)
    assert merge.rows == 0


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from([0, 1, 1 << 40, (1 << 63) - 1, (1 << 64) - 1]),
    st.integers(1, 200),
    st.integers(1, 3),
    st.integers(0, 3),
    st.integers(0, 11),
    st.booleans(),
    st.data(),
)
def test_one_wild_timestamp_costs_itself_only(
    wild: int, size: int, producers: int, lag: int, message: int, replaced: bool, data
) -> None:
    """Producers in step, ``lag`` messages behind each other, which take shots in turns."""
    merge, now, out = Merge(HORIZON, expect=producers), 0, []
    names = [("abc"[i], 1) for i in range(producers)]
    for name in names:
        merge.join(name, 0)
    at = data.draw(st.integers(0, size - 1))
    first = 1 << 32
    for k in range(16 + lag * producers):
        for i, name in enumerate(names):
            m = k - lag * i
            if not 0 <= m < 16:
                continue
            begin = first + m * size * producers + i
            stamps = [*range(begin, begin + size * producers, producers)]
            if m == message and i == 0:
                stamps[at : at + replaced] = [wild]
            merge.add(name, m + 1, batch(stamps), now, i, "k")
        now += 10 * MS
        out += flagged(merge.release(now, "k", 0))
        # Nobody waits for a wild one: what everybody has passed is out within a message.
        assert merge.rows <= (2 + lag * producers) * size * producers + 1
    out += flagged(merge.release(now, "k", 0, everything=True))
    good = [(t, late) for t, late in out if t != wild]
    assert len(out) - len(good) == 1
    assert len(good) == 16 * size * producers - replaced
    late = sum(late for _, late in good)
    within = (HORIZON // (10 * MS) + 1) * producers * size
    assert late <= (0 if size > 8 or message > 2 else within)
    assert late or [t for t, _ in good] == sorted(t for t, _ in good)


@pytest.mark.parametrize(
    ("stamps", "end"),
    [
        ([7], 7),
        ([1, 2, 1 << 60], 1 << 60),
        ([*range(8), 1 << 60], 7),
        ([*range(100), 1 << 50, 1 << 60], 99),
        ([0, *range(1000, 1100)], 1099),
        ([*range(20), 5000], 5000),
        ([3] * 50, 3),
    ],
)
def test_the_end_of_the_bulk_is_not_its_maximum(stamps: list[int], end: int) -> None:
    assert bulk_end(np.array(stamps, np.uint64)) == end


def test_producers_that_go_back_for_good_are_followed_after_the_horizon() -> None:
    merge, now, late = Merge(HORIZON), 0, []
    merge.join(("a", 1), 0)
    for k in range(100):
        begin = 10**6 + 10 * k if k < 50 else 10 * k
        now += 5 * MS
        merge.add(("a", 1), k + 1, batch(range(begin, begin + 10)), now, 0, "k")
        late += [f for _, f in flagged(merge.release(now, "k", 0))]
    assert 0 < sum(late) <= 10 * (HORIZON // (5 * MS) + 1)
    assert not any(late[:500])
    assert not any(late[-200:])


def test_who_comes_first_after_a_restart_has_not_gone_back() -> None:
    merge, now, late = Merge(HORIZON), 0, []
    merge.resume(1000, 0, 0)
    merge.join(("b", 1), 0)
    for k in range(60):  # far longer than the horizon, while who released 1000 is yet to come
        now += 10 * MS
        merge.add(("b", 1), k + 1, batch(range(20 * k, 20 * k + 20)), now, 1, "k")
        late += flagged(merge.release(now, "k", 0))
    assert all(f == (t < 1000) for t, f in late)
    assert len(late) > 1100


def test_who_lags_behind_a_producer_that_died_is_late_as_long_as_that_lasts() -> None:
    merge, now = Merge(HORIZON), 0
    merge.join(("a", 1), 0)
    merge.join(("b", 1), 0)
    merge.add(("a", 1), 1, batch(range(1000, 1100)), now, 0, "k")
    late = []
    for k in range(60):
        now += 10 * MS
        merge.add(("b", 1), k + 1, batch(range(20 * k, 20 * k + 20)), now, 1, "k")
        late += flagged(merge.release(now, "k", 0))
    passed = next(i for i, (t, _) in enumerate(late) if t == 1099)
    assert all(f == (t < 1099) for t, f in late[passed + 1 :])
    assert not any(f for _, f in late[: passed + 1])


def test_what_was_released_is_remembered_by_its_timestamps_alone() -> None:
    """A view of them would keep the memory of hundreds of thousands of whole rows."""
    front, rows = Front(), np.arange(40, dtype=np.uint64)
    gone = weakref.ref(rows)
    front.take(rows[:10], furthest=100)
    front.take(rows[5:20], furthest=100)
    front.take(rows[20:30], furthest=25)
    assert (front.late, front.duplicates) == (4, 5)
    del rows
    assert gone() is None
