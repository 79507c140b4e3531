"""The aggregator against the simplest thing that could be true: sort everything, lose nothing."""

from __future__ import annotations

import random

import numpy as np
import pytest

from ffb.aggregate import Aggregator
from ffb.schema import CORE, Schema
from ffb.sink import Counts
from ffb.source import RunInfo
from tests.unit.producers import RUN, SCHEMA, Memory, Producer

MS = 1_000_000
HORIZON, COMMIT, END = 100 * MS, 10 * MS, 1000 * MS


class World:
    """An aggregator with a clock that only we move."""

    def __init__(
        self, *sinks: Memory, horizon: int = HORIZON, rows: int = 10_000, producers: int = 1
    ) -> None:
        self.sinks = list(sinks) or [Memory()]
        self.now = 1
        self.made: list[RunInfo] = []
        self.acks: dict[str, int] = {}
        self.aggregator = Aggregator(self.make, horizon, COMMIT, END, rows, producers)

    def make(self, info: RunInfo) -> list[Memory]:
        self.made.append(info)
        return self.sinks if len(self.made) == 1 else [Memory()]

    @property
    def sink(self) -> Memory:
        return self.sinks[0]

    def give(self, *messages) -> None:
        for m in messages:
            self.aggregator.receive(m, self.now)

    def tick(self, ms: float = 11) -> dict[str, int]:
        self.now += int(ms * MS)
        moved = {c.producer: c.seq for c in self.aggregator.tick(self.now)}
        for name, seq in moved.items():
            assert seq > self.acks.get(name, 0), "a watermark goes up"
        self.acks |= moved
        return moved


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
    assert late == 2 == world.sink.books.late


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


@pytest.mark.parametrize("what", ["begin_run", "append", "commit", "end_run", "step"])
@pytest.mark.parametrize("which", [0, 1])
def test_what_a_sink_cannot_do_is_tried_again_and_nothing_is_acknowledged(
    what: str, which: int
) -> None:
    world = World(Memory(), Memory())
    failing = world.sinks[which].failing
    failing.add(what)
    a = Producer("a")
    world.give(a.begin(), a.step(0), a.shots([1, 2]), a.end())
    for _ in range(3):
        world.tick()
        assert world.acks.get("a", 0) <= 1
        assert f"no space left to {what}" in world.aggregator.fault
        assert f"run {RUN.run}" in world.aggregator.fault
    failing.clear()
    world.tick()
    world.tick()
    assert world.aggregator.fault == ""
    assert world.acks == {"a": 4}
    for sink in world.sinks:
        assert sink.rows == [1, 2]
        assert sink.steps == [0]
        assert sink.ended is not None
        assert len(sink.all_books) == 1
    assert len(world.aggregator.closed) == 1


def test_rows_that_came_while_the_disk_was_full_are_committed_when_it_clears() -> None:
    world, a = World(), Producer("a")
    world.give(a.begin(), a.shots([1]))
    world.tick()
    world.sink.failing.add("commit")
    for t in range(2, 9):
        world.give(a.shots([t]))
        world.tick()
    assert world.acks == {"a": 2}
    assert world.aggregator.pending == 6
    world.sink.failing.clear()
    world.tick()
    assert world.sink.rows == [*range(1, 9)]
    assert world.aggregator.pending == 0


def test_other_columns_are_refused_and_counted() -> None:
    world, a, b = World(), Producer("a"), Producer("b")
    other = Schema((*CORE, SCHEMA.columns[-1]))
    world.give(a.begin(), b.begin(other), a.shots([1, 2]), b.shots([3], other))
    world.tick()
    assert world.acks == {"a": 2, "b": 2}
    world.give(a.end(), b.end())
    world.tick()
    counts = world.sink.ended
    assert counts.lost == {"other columns than the run's": 1}
    assert counts.read == counts.written + 1 == 3
    assert world.aggregator.closed[0].problems == []


def test_rows_before_begin_and_after_the_end_are_refused_and_acknowledged() -> None:
    world, a, b = World(), Producer("a"), Producer("b")
    world.give(b.shots([1, 2]))
    assert world.tick() == {"b": 1}
    assert world.aggregator.refused == {"no begin_run came first": 2}
    world.give(a.begin(), a.end())
    world.tick()
    world.give(a.shots([5]), b.begin())
    world.tick()
    assert world.acks == {"a": 3, "b": 2}
    assert world.aggregator.refused["the run is closed"] == 1
    assert world.made == [RUN]


def test_a_step_is_told_once() -> None:
    world, a, b = World(), Producer("a"), Producer("b")
    world.give(a.begin(), b.begin(), a.step(0), b.step(0), a.step(1), b.step(1))
    assert world.tick() == {"a": 3, "b": 3}
    assert world.sink.steps == [0, 1]


def test_losses_alone_are_committed() -> None:
    world, a = World(), Producer("a")
    world.give(a.begin())
    world.tick()
    a.read, a.lost["backpressure"] = 7, 7
    world.give(a.shots([]))
    world.tick()
    assert world.sink.books.read == 7
    assert world.sink.books.lost == {"backpressure": 7}


def test_a_run_waits_for_who_still_sends_and_not_for_who_only_breathes() -> None:
    world, a, b = World(), Producer("a"), Producer("b")
    world.give(a.begin(), b.begin(), a.end())
    for t in range(1, 6):
        world.give(b.shots([t]))
        world.tick(900)
        assert world.sink.ended is None
    for _ in range(3):
        world.give(b.status())
        world.tick(400)
    assert world.sink.ended.ended == "no end_run of b"
    assert any("b (epoch 1) vanished" in p for p in world.aggregator.closed[0].problems)


def test_a_pause_of_the_beam_does_not_end_a_run_but_silence_does() -> None:
    world, a = World(), Producer("a")
    world.give(a.begin(), a.shots([1]))
    for _ in range(10):
        world.give(a.status())
        world.tick(900)
    assert world.sink.ended is None
    a.read = 9
    world.tick(1001)
    assert world.sink.ended.ended == "no word of a"


def test_what_a_vanished_producer_is_known_to_have_held_is_lost() -> None:
    world, a = World(), Producer("a")
    world.give(a.begin())
    a.read = 4
    world.give(a.shots([1]))
    world.tick()
    assert world.sink.books.read == 5
    world.tick(1001)
    assert world.sink.ended.lost == {"producer vanished": 4}


def test_a_producer_begun_anew_takes_its_own_place() -> None:
    world, a, again = World(), Producer("a", 1), Producer("a", 2)
    world.give(a.begin(), a.shots([1]), again.begin(), again.shots([2]), again.end())
    world.tick()
    ended = world.sink.ended
    assert world.sink.rows == [1, 2]
    assert ended.ended == "end of run"
    assert ended.producers["a"]["epoch"] == 2
    assert ended.producers["a@1"]["written"] == 1


def test_the_next_run_begins_while_the_last_one_drains() -> None:
    second = RunInfo(RUN.exp, 8, 99)
    world, a, b = World(), Producer("a"), Producer("b")
    world.give(a.begin(), b.begin(), a.shots([1]), a.end())
    a.run, a.read = second, 0
    world.give(a.begin(), a.shots([100, 101]))
    world.tick()
    assert set(world.aggregator.open) == {RUN, second}
    world.give(b.shots([2]), b.end())
    world.tick()
    assert world.sink.rows == [1, 2]
    assert world.sink.ended is not None
    assert world.acks == {"a": 5, "b": 3}
    assert [*world.aggregator.open] == [second]


def test_the_end_can_be_ordered() -> None:
    world, a = World(), Producer("a")
    world.give(a.begin(), a.shots([1]))
    world.aggregator.end("stopped")
    world.tick()
    assert world.sink.rows == [1]
    assert world.sink.ended.ended == "stopped"


def test_a_message_that_could_not_be_decoded_is_missed_in_the_books() -> None:
    world, a = World(), Producer("a")
    world.give(a.begin())
    lost = a.shots([1, 2])
    world.aggregator.skip(*a.name, lost.header.seq)
    world.give(a.shots([3]), a.end())
    world.tick()
    assert world.acks == {"a": 4}
    assert "2 shots are unaccounted for" in world.aggregator.closed[0].problems[0]


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
        rng.choice(producers).shots([t] if t % 3 else [t, 1000 + t])
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
    expected = sorted(t for p in producers for m in p.sent for t in rows(m))
    assert sorted(sink.rows) == expected
    assert sink.ended.read == sink.ended.written == len(expected)
    assert world.aggregator.closed[0].problems == []
    for before, after in zip(sink.all_books, sink.all_books[1:], strict=False):
        assert balanced(before)
        assert after.commit == before.commit + 1


def rows(message) -> list[int]:
    return message.body.columns["timestamp"].tolist() if message.header.kind == "shots" else []


def balanced(counts: Counts) -> bool:
    return counts.written + sum(counts.lost.values()) <= counts.read


def test_large_pieces_move_whole() -> None:
    """One producer in order: columns come out as they came in, whatever their dtype."""
    world, a = World(), Producer("a")
    world.give(a.begin(), a.shots(range(1, 5000)), a.shots(range(5000, 5001)), a.end())
    world.tick()
    np.testing.assert_array_equal(world.sink.rows, np.arange(1, 5001))
