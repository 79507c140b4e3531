"""The aggregator against the simplest thing that could be true: sort everything, lose nothing."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from ffb.sink import WRITTEN, Counts
from tests.unit.producers import Memory, Producer
from tests.unit.world import HORIZON, MS, World


@pytest.mark.parametrize("seed", range(20))
def test_rows_of_three_producers_come_out_sorted_and_whole(seed: int) -> None:
    rng = random.Random(seed)
    world, producers = World(), [Producer(n) for n in "abc"]
    world.give(*(p.begin() for p in producers))
    stamps = list(range(100, 1300))
    shares = {p.name: [] for p in producers}
    for t in stamps:
        shares[rng.choice(producers).name].append(t)
    while any(shares.values()):
        p = rng.choice([p for p in producers if shares[p.name]])
        n = rng.randint(1, 40)
        world.give(p.shots(shares[p.name][:n]))
        del shares[p.name][:n]
        if rng.random() < 0.3:
            world.tick(rng.choice([0, 0.05, 0.5]))
            assert world.sink.rows == sorted(world.sink.rows)
    world.give(*(p.end() for p in producers))
    world.tick()
    assert world.sink.rows == stamps
    ended = world.sink.ended
    assert (ended.read, ended.written, ended.lost, ended.late) == (1200, 1200, {}, 0)
    assert ended.duplicates == 0
    assert ended.ended == "end of run"
    assert world.acks == {p.name[0]: p.seq for p in producers}
    assert world.aggregator.closed[0].problems == []


def test_a_commit_waits_for_its_time_or_for_enough_rows() -> None:
    world, p = World(rows=50), Producer("a")
    world.give(p.begin(), p.shots(range(1, 11)))
    world.tick(5)
    assert world.sink.rows == []
    world.tick(6)
    assert world.sink.rows == [*range(1, 11)]
    world.give(p.shots(range(11, 70)))
    world.tick(0)
    assert world.sink.rows == [*range(1, 70)]


def test_a_batch_is_acknowledged_only_with_its_last_row() -> None:
    world, a, b = World(), Producer("a"), Producer("b")
    world.give(a.begin(), b.begin(), a.shots([1, 2, 9, 10]), b.shots([3, 4]))
    assert world.tick() == {"a": 1, "b": 2}
    assert world.sink.rows == [1, 2, 3, 4]
    assert world.sink.books.producers["a"]["seq"] == 1
    world.give(b.shots([11]))
    assert world.tick() == {"a": 2}
    assert world.sink.rows == [1, 2, 3, 4, 9, 10]
    assert world.sink.books.producers["a"]["seq"] == 2


def test_a_silent_producer_holds_nobody_back_and_its_late_rows_are_written() -> None:
    world, a, b = World(), Producer("a"), Producer("b")
    world.give(a.begin(), b.begin(), a.shots([10, 20]))
    world.tick()
    assert world.sink.rows == []
    world.tick(100)
    assert world.sink.rows == [10, 20]
    world.give(b.shots([5, 15, 25]))
    world.tick()
    assert world.sink.rows == [10, 20, 5, 15, 25]
    assert world.sink.books.late == 2


def test_rows_wait_at_the_beginning_for_producers_that_are_expected() -> None:
    world, a, b = World(producers=2), Producer("a"), Producer("b")
    world.give(a.begin(), a.shots([10, 30, 50]))
    world.tick()
    assert world.sink.rows == []
    world.give(b.begin(), b.shots([20, 40, 60]))
    world.tick()
    assert world.sink.rows == [10, 20, 30, 40, 50]
    assert world.sink.books.late == 0


def test_rows_wait_no_longer_than_the_horizon_for_a_producer_that_never_comes() -> None:
    world, a = World(producers=2), Producer("a")
    world.give(a.begin(), a.shots([10, 30, 50]))
    world.tick(HORIZON / MS + 1)
    assert world.sink.rows == [10, 30, 50]


def test_a_producer_that_never_comes_delays_the_beginning_only() -> None:
    world, a = World(producers=2), Producer("a")
    world.give(a.begin(), a.shots([10]))
    world.tick(HORIZON / MS + 1)
    world.give(a.shots([20]))
    world.tick()
    assert world.sink.rows == [10, 20]


def test_late_rows_do_not_wait_for_a_producer_that_is_later_still() -> None:
    world, a, b, c = World(), Producer("a"), Producer("b"), Producer("c")
    world.give(a.begin(), b.begin(), c.begin(), a.shots([100]))
    world.tick(100)
    assert world.sink.rows == [100]
    world.give(c.shots([1]), b.shots([50]))
    world.tick()
    assert world.sink.rows == [100, 1, 50]


def test_a_slow_producer_at_work_delays_the_others_by_the_horizon_at_most() -> None:
    world, a, b = World(), Producer("a"), Producer("b")
    world.give(a.begin(), b.begin(), a.shots([1000, 1001]))
    for t in range(1, 11):
        world.give(b.shots([t]))
        world.tick(20)
    assert world.sink.rows[-2:] != [1000, 1001]
    assert {1000, 1001} < set(world.sink.rows)
    assert world.sink.books.late > 0


@pytest.mark.parametrize("at", [0, 1, 2])
def test_one_timestamp_from_nowhere_neither_wedges_nor_unsorts_the_rest(at: int) -> None:
    world, a, b = World(), Producer("a"), Producer("b")
    world.give(a.begin(), b.begin())
    first = [10, 12, 14]
    first[at] = 2**63
    world.give(a.shots(first), b.shots([11, 13]))
    world.tick()
    for i in range(20, 200, 4):
        world.give(a.shots([i, i + 2]), b.shots([i + 1, i + 3]))
        world.tick(20)
    rows = [t for t in world.sink.rows if t != 2**63]
    assert 2**63 in world.sink.rows
    assert rows[-100:] == sorted(rows[-100:])
    assert world.sink.books.late <= 2
    world.give(a.end(), b.end())
    world.tick()
    assert len(world.sink.rows) == a.read + b.read


def test_a_single_producer_recovers_from_a_wild_timestamp_within_a_batch() -> None:
    world, a = World(), Producer("a")
    world.give(a.begin(), a.shots([1, 2, 2**62]))
    world.tick()
    world.give(a.shots([3, 4]))
    world.tick()
    late = world.sink.books.late
    for t in range(5, 50):
        world.give(a.shots([t]))
        world.tick()
    assert late == 0 == world.sink.books.late


def test_time_going_backwards_is_late_not_lost() -> None:
    world, a = World(), Producer("a")
    world.give(a.begin(), a.shots([100, 101]))
    world.tick()
    world.give(a.shots([50, 51]))
    world.tick()
    assert world.sink.rows == [100, 101, 50, 51]
    assert world.sink.books.late == 2


def test_the_same_shot_twice_is_counted() -> None:
    world, a, b = World(), Producer("a"), Producer("b")
    world.give(a.begin(), b.begin(), a.shots([1, 2, 3, 4]), b.shots([2, 3, 4]))
    world.tick()
    world.tick(100)
    assert world.sink.books.duplicates == 3
    world.give(a.shots([4, 5]))
    world.tick()
    assert world.sink.books.duplicates == 4


@pytest.mark.parametrize("seed", range(20))
def test_an_aggregator_that_dies_at_any_moment_writes_every_row_once(seed: int) -> None:
    """The sink outlives it; producers say again what was not acknowledged, and remind."""
    rng = random.Random(seed)
    sink, producers = Memory(), [Producer(n) for n in "ab"]
    world = World(sink)
    given = {p.name: 0 for p in producers}
    acked = {p.name[0]: 0 for p in producers}
    for p in producers:
        p.begin()
    for t in range(1, 200):
        p = rng.choice(producers)
        if t % 7 == 0:
            p.lose(rng.choice(["backpressure", "damaged"]), t)
        elif t % 31 == 0:
            p.lose("backpressure", t, t + 4, 3)
        else:
            p.shots([t] if t % 3 else [t, 1000 + t])
    for p in producers:
        p.end()
    while sink.ended is None:
        for p in producers:
            upto = min(len(p.sent), given[p.name] + rng.randint(0, 9))
            world.give(*p.sent[given[p.name] : upto])
            given[p.name] = upto
        sink.failing = {"commit", "append"} if rng.random() < 0.2 else set()
        acked |= {} if rng.random() < 0.5 else world.tick(rng.choice([1, 11]))
        if rng.random() < 0.1 and sink.ended is None:
            world = World(sink)
            for p in producers:
                given[p.name] = acked[p.name[0]]
                if given[p.name]:
                    world.give(p.sent[0])
    expected = sorted(t for p in producers for m in p.sent for t in rows_of(m))
    assert sorted(sink.rows) == expected
    assert sink.ended.written == len(expected)
    assert sink.ended.lost == dict(sum((p.lost for p in producers), Counter()))
    assert sink.ended.read == sink.ended.written + sum(sink.ended.lost.values())
    assert world.aggregator.closed[0].problems == []
    for before, after in pairwise(sink.all_books):
        assert balanced(before)
        assert after.commit == before.commit + 1
    accounted(sink, {p.name: p for p in producers})


def rows_of(message) -> list[int]:
    return message.body.columns["timestamp"].tolist() if message.header.kind == "shots" else []


def accounted(sink: Memory, producers: dict) -> None:
    """Entries, commit by commit, sum up to the books, and they say which rows there are."""
    told: Counter[str] = Counter()
    for books in sink.all_books:
        for entry in books.ledger:
            told[entry.state] += entry.shots
        still = sum(p["open"][2] for p in books.producers.values() if p["open"])
        assert told[WRITTEN] + still == books.written
        assert {k: n for k, n in told.items() if k != WRITTEN and n} == books.lost
    rows = [*zip(sink.column("ffb/producer"), sink.rows, strict=True)]
    for said in sink.ended.producers.values():
        mine = [e for e in sink.ledger if e.producer == said["index"]]
        theirs = producers[said["producer"], said["epoch"]]
        assert sum(e.shots for e in mine) == said["read"] == theirs.read
        for e in mine:
            if e.state == WRITTEN:
                assert rows[e.row] == (e.producer, e.first)
        stamps = Counter(t for index, t in rows if index == said["index"])
        given = Counter(t for m in theirs.sent for t in rows_of(m))
        assert stamps == given


def balanced(counts: Counts) -> bool:
    return counts.written + sum(counts.lost.values()) <= counts.read


def test_large_pieces_move_whole() -> None:
    """One producer in order: columns come out as they came in, whatever their dtype."""
    world, a = World(), Producer("a")
    world.give(a.begin(), a.shots(range(1, 5000)), a.shots(range(5000, 5001)), a.end())
    world.tick()
    np.testing.assert_array_equal(world.sink.rows, np.arange(1, 5001))
