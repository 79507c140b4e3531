"""How runs begin and end, and what is done with what does not belong to them."""

from __future__ import annotations

import pytest

from ffb.aggregate import NS, Aggregator, Committed
from ffb.schema import CORE, Schema
from ffb.sink import Entry
from ffb.source import RunInfo
from tests.unit.producers import RUN, SCHEMA, Memory, Producer
from tests.unit.world import END, HORIZON, MS, World


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


def test_columns_other_than_begun_with_are_refused_and_counted() -> None:
    world, a = World(), Producer("a")
    other = Schema((*CORE, SCHEMA.columns[-1]))
    world.give(a.begin(), a.shots([1, 2]), a.shots([3], other))
    world.tick()
    assert world.acks == {"a": 3}
    world.give(a.end())
    world.tick()
    counts = world.sink.ended
    assert counts.lost == {"not the columns it began with": 1}
    assert counts.read == counts.written + 1 == 3
    assert Entry(0, "not the columns it began with", 3, 3, 1) in world.sink.ledger
    assert world.aggregator.closed[0].problems == []


def test_rows_before_begin_and_after_the_end_are_refused_and_acknowledged() -> None:
    world, a, b = World(), Producer("a"), Producer("b")
    world.give(b.shots([1, 2]))
    assert world.tick() == {"b": 1}
    assert world.aggregator.refused == {"no begin_run came first": 2}
    world.give(a.begin(), a.end())
    world.tick()
    world.give(a.shots([5]))
    world.tick()
    assert world.acks == {"a": 3, "b": 1}
    assert world.aggregator.refused["the run is closed"] == 1
    assert world.made == [RUN]


def test_who_comes_when_the_run_is_closed_begins_it_anew_with_books_of_its_own() -> None:
    world, a, b = World(), Producer("a"), Producer("b")
    world.give(a.begin(), a.shots([1]), a.end())
    world.tick()
    world.give(b.begin(), b.shots([2, 3]), a.shots([5]), b.end())
    world.tick()
    assert world.acks == {"a": 4, "b": 3}
    assert world.made == [RUN, RUN]
    first, second = world.aggregator.closed
    assert (first.counts.read, second.counts.read) == (1, 2)
    assert (first.counts.written, second.counts.written) == (1, 2)
    assert [p["producer"] for p in second.counts.producers.values()] == ["b"]
    assert first.problems == second.problems == []
    assert world.aggregator.refused["the run is closed"] == 1


def test_a_step_is_told_once() -> None:
    world, a, b = World(), Producer("a"), Producer("b")
    world.give(a.begin(), b.begin(), a.step(0), b.step(0), a.step(1), b.step(1))
    assert world.tick() == {"a": 1, "b": 1}
    assert world.tick(HORIZON / MS) == {"a": 3, "b": 3}
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


def test_the_rows_of_a_message_that_could_not_be_decoded_are_lost() -> None:
    world, a = World(), Producer("a")
    world.give(a.begin())
    lost = a.shots([1, 2])
    world.aggregator.skip(*a.name, lost.header.seq)
    world.give(a.shots([3]), a.end())
    world.tick()
    assert world.acks == {"a": 4}
    assert world.aggregator.closed[0].problems == []
    assert world.sink.ended.lost == {"message unreadable": 2}
    assert Entry(0, "message unreadable", 0, 0, 2) in world.sink.ledger


def test_a_run_that_an_earlier_life_ended_is_not_begun_again() -> None:
    """It was killed after the last commit, before producers knew: they are told, no row comes."""
    first, p = Aggregator(lambda _: [Memory()]), Producer("p0")
    said = [p.begin(), p.shots([1, 2]), p.end()]
    for message in said:
        first.receive(message, 0)
    first.tick(NS)
    books = first.closed[0].counts
    opened: list[RunInfo] = []

    def sinks(info: RunInfo) -> list[Memory]:
        opened.append(info)
        return [Memory()]

    second = Aggregator(sinks, ended=lambda info: [books] if info == p.run else [])
    for message in said:
        second.receive(message, 0)
    assert second.tick(NS) == [Committed("p0", 1, 3)]
    assert not opened
    assert not second.refused
    assert second.closed[0].recalled
    again = Producer("p0", epoch=2)  # a process of which those books know nothing: another reading
    second = Aggregator(sinks, ended=lambda info: [books])
    second.receive(again.begin(), 0)
    assert opened == [p.run]


def test_a_run_does_not_end_before_a_producer_that_is_slow_to_come() -> None:
    """One that was quick has read its part and ended before the other one has begun."""
    world, a, b = World(producers=2), Producer("a"), Producer("b")
    world.give(a.begin(), a.shots([1, 2]), a.end())
    world.tick()
    assert world.aggregator.open
    world.give(b.begin(), b.shots([3]), b.end())
    world.tick()
    assert world.acks == {"a": 3, "b": 3}
    assert world.sink.ended.written == 3
    assert not world.aggregator.refused


def test_a_run_ends_without_a_producer_that_never_comes_or_has_gone_elsewhere() -> None:
    world, a = World(producers=2), Producer("a")
    world.give(a.begin(), a.end())
    world.tick()
    assert world.aggregator.open
    world.tick(END // MS + 1)
    assert world.sink.ended.ended == "end of run"
    world, a = World(producers=2), Producer("a")
    b = Producer("b", run=RunInfo("xpptest01", 8, 1))
    world.give(a.begin(), b.begin(), a.end())
    world.tick()
    assert [c.info for c in world.aggregator.closed] == [a.run]


def test_the_books_of_a_recalled_run_are_looked_at() -> None:
    first, p = Aggregator(lambda _: [Memory()]), Producer("p0")
    for message in (p.begin(), p.shots([1, 2]), p.end()):
        first.receive(message, 0)
    first.tick(NS)
    books = first.closed[0].counts
    books.producers["p0"]["read"] = 1
    second = Aggregator(lambda _: [Memory()], ended=lambda info: [books])
    second.receive(p.begin(), 0)
    assert second.closed[0].problems
