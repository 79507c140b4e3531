"""Epochs, steps and processes that follow each other within one run."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from ffb.aggregating.attendance import DIED
from ffb.producing.heir import DIED as TOLD_BY_THE_HEIR
from ffb.schema import CORE, Schema
from ffb.sink import WRITTEN, Entry
from ffb.source import RunInfo
from tests.unit.producers import RUN, SCHEMA, Memory, Producer
from tests.unit.test_aggregate import accounted
from tests.unit.world import END, HORIZON, MS, World

OTHER = Schema((*CORE, SCHEMA.columns[-1]))


@pytest.mark.parametrize(("schema", "config"), [(OTHER, "c"), (SCHEMA, "d")])
def test_other_columns_or_parameters_begin_an_epoch_right_after_a_commit(
    schema: Schema, config: str
) -> None:
    world, a = World(), Producer("a")
    world.give(a.begin(), a.shots([1, 2]))
    world.tick()
    world.give(a.begin(schema, config), a.shots([3, 4], schema), a.end())
    world.tick()
    sink = world.sink
    assert sink.rows == [1, 2, 3, 4]
    assert sink.epochs == [(1, 2, config)]
    assert sink.column("ffb/epoch") == [0, 0, 1, 1]
    assert [b.schema.id for b in sink.batches] == [SCHEMA.id, schema.id]
    assert [books.epoch for books in sink.all_books] == [0, 0, 1]
    assert sink.ledger == [Entry(0, WRITTEN, 1, 2, 2, 0), Entry(0, WRITTEN, 3, 4, 2, 2)]
    assert world.aggregator.closed[0].problems == []
    assert world.acks == {"a": 5}


def test_another_host_or_version_is_no_epoch() -> None:
    world, a, b = World(), Producer("a"), Producer("b")
    begin = b.begin()
    object.__setattr__(begin.body, "host", "elsewhere")
    world.give(a.begin(), begin, a.shots([1]), b.shots([2]), a.end(), b.end())
    world.tick()
    assert world.sink.epochs == []
    assert world.sink.column("ffb/epoch") == [0, 0]


def test_epochs_that_overlap_change_once_a_horizon_at_most() -> None:
    world, a, b = World(), Producer("a"), Producer("b")
    world.give(a.begin(), b.begin(config="d"))
    changes: list[int] = []
    for t in range(0, 2000, 2):
        before = len(world.sink.epochs)
        world.give(a.shots([t]), b.shots([t + 1]))
        world.tick()
        if len(world.sink.epochs) > before:
            changes.append(world.now)
    world.give(a.end(), b.end())
    world.tick()
    assert len(changes) > 10
    assert all(y - x >= HORIZON for x, y in pairwise(changes))
    assert sorted(world.sink.rows) == [*range(2000)]
    of, epoch = world.sink.column("ffb/producer"), world.sink.column("ffb/epoch")
    assert all(p == e % 2 for p, e in zip(of, epoch, strict=True))
    assert epoch == sorted(epoch)
    accounted(world.sink, {p.name: p for p in (a, b)})


def test_producers_that_change_one_after_the_other_change_the_epoch_once() -> None:
    world, a, b = World(), Producer("a"), Producer("b")
    world.give(a.begin(), b.begin(), a.shots([1]), b.shots([2]))
    world.tick()
    world.give(a.begin(config="d"), a.shots([3]))
    world.tick()
    assert world.sink.epochs == []
    world.give(b.shots([4]), b.begin(config="d"), b.shots([6]), a.shots([5, 7]))
    world.tick()
    world.tick()
    assert world.sink.rows == [1, 2, 4, 3, 5, 6]
    assert world.sink.column("ffb/epoch") == [0, 0, 0, 1, 1, 1]
    assert len(world.sink.epochs) == 1


def test_an_aggregator_begun_anew_knows_the_epoch_that_it_left() -> None:
    sink, a = Memory(), Producer("a")
    world = World(sink)
    world.give(a.begin(), a.shots([1]))
    world.tick()
    second = a.begin(config="d")
    world.give(second, a.shots([2]))
    world.tick()
    world.tick()
    world = World(sink)
    world.give(second, a.shots([3]))
    world.tick()
    assert sink.column("ffb/epoch") == [0, 1, 1]
    world = World(sink)
    world.give(a.sent[0])
    world.tick()
    world.give(a.begin(config="e"), a.shots([4]), a.end())
    world.tick()
    assert sink.rows == [1, 2, 3, 4]
    assert sink.epochs[0] == (1, 1, "d")
    assert sink.epochs[-1][1:] == (3, "e")
    epochs = [number for number, _, _ in sink.epochs]
    assert epochs == [*range(1, len(epochs) + 1)]
    accounted(sink, {a.name: a})


@pytest.mark.parametrize("seed", range(10))
def test_epochs_and_kills_cost_no_row(seed: int) -> None:
    rng, sink, a = random.Random(seed), Memory(), Producer("a")
    begun = [a.begin()]
    for t in range(1, 120):
        if t % 30 == 0:
            begun.append(a.begin(config=f"c{t // 30 % 3}"))
        if t % 11 == 0:
            a.lose("backpressure", t)
        else:
            a.shots([t])
    a.end()
    world, given, acked = World(sink), 0, 0
    while sink.ended is None:
        upto = min(len(a.sent), given + rng.randint(0, 9))
        world.give(*a.sent[given:upto])
        given = upto
        sink.failing = {"commit", "begin_epoch"} if rng.random() < 0.2 else set()
        acked = world.tick(rng.choice([1, 11, 60])).get("a", acked)
        if rng.random() < 0.1 and sink.ended is None:
            world, given = World(sink), acked
            world.give(*(b for b in begun if b.header.seq <= acked))
    assert sorted(sink.rows) == [t for t in range(1, 120) if t % 11]
    accounted(sink, {a.name: a})


def test_a_step_is_told_before_its_first_row_whatever_waits_and_however_batches_lie() -> None:
    world, a, b = World(), Producer("a"), Producer("b")
    world.give(a.begin(), b.begin(), a.step(0, at=1), b.step(0, at=1))
    world.give(a.shots([2, 4, 12, 14]), a.step(1, at=11), b.shots([3]))
    world.tick()
    assert world.sink.told == [(0, 0)]
    assert world.sink.rows == [2, 3]
    world.give(b.step(1, at=11), b.shots([13, 15]))
    world.tick()
    assert world.sink.rows == [2, 3, 4, 12, 13, 14]
    assert world.sink.told == [(0, 0), (1, 3)]
    assert world.acks == {"a": 4, "b": 4}


def test_steps_that_contradict_each_other_are_said_once_and_the_first_is_kept() -> None:
    world, a, b = World(), Producer("a"), Producer("b")
    world.give(a.begin(), b.begin(), a.step(0), b.step(0, delay=7.0), b.step(0, delay=8.0))
    world.tick(HORIZON / MS)
    (note,) = world.aggregator.notes
    assert note == (
        "step 0: b says {'delay': 7.0}, another producer said {'delay': 0.0} before; that is kept"
    )
    assert world.sink.steps == [0]


def test_steps_are_not_told_again_after_a_restart() -> None:
    sink, a, b = Memory(), Producer("a"), Producer("b")
    world = World(sink)
    world.give(a.begin(), b.begin())
    world.give(*(a.step(k) for k in (0, 1, 3)))
    world.tick(HORIZON / MS)
    world = World(sink)
    world.give(a.sent[0], b.sent[0], *(b.step(k) for k in range(4)))
    world.tick(HORIZON / MS)
    assert sink.steps == [0, 1, 3, 2]


def test_the_dead_are_heard_through_their_heirs() -> None:
    """The heir delivers what was left and ends that part before it begins itself."""
    assert DIED == TOLD_BY_THE_HEIR
    world, a, heir = World(), Producer("a", 1), Producer("a", 2)
    world.give(a.begin(), a.shots([1, 2]))
    world.tick()
    a.lose(DIED, 3, 5, 3)
    world.give(a.end(DIED))
    world.tick()
    assert world.sink.ended is None, "the heir is awaited"
    world.give(heir.begin(), heir.shots([6]), heir.end())
    world.tick()
    ended = world.sink.ended
    assert ended.ended == "end of run"
    assert (ended.read, ended.written, ended.lost) == (6, 3, {DIED: 3})
    assert world.sink.column("ffb/producer") == [0, 0, 1]
    accounted(world.sink, {p.name: p for p in (a, heir)})
    assert world.aggregator.closed[0].problems == []


def test_an_old_process_is_welcome_after_the_new_one_has_joined() -> None:
    world, a, heir = World(), Producer("a", 1), Producer("a", 2)
    world.give(a.begin(), a.shots([1]), heir.begin(), heir.shots([5]), a.shots([2, 3]))
    a.lose(DIED, 4)
    world.give(a.end(DIED))
    world.tick()
    world.tick(HORIZON / MS)
    assert sorted(world.sink.rows) == [1, 2, 3, 5]
    assert world.sink.ended is None
    world.give(heir.end())
    world.tick()
    assert world.sink.ended.lost == {DIED: 1}
    accounted(world.sink, {p.name: p for p in (a, heir)})


def test_a_dead_producer_without_an_heir_ends_the_run_in_the_end() -> None:
    world, a, b = World(), Producer("a"), Producer("b")
    world.give(a.begin(), b.begin(), a.shots([1]), a.end(DIED), b.shots([2]), b.end())
    world.tick(END / MS - 10)
    assert world.sink.ended is None
    world.tick(20)
    assert world.sink.ended.ended == "end of run"
    assert world.sink.rows == [1, 2]


def test_an_heir_that_goes_on_with_the_next_run_leaves_the_last_one() -> None:
    world, a, heir = World(), Producer("a", 1), Producer("a", 2, RunInfo(RUN.exp, 8, 9))
    world.give(a.begin(), a.shots([1]))
    world.tick()
    world.give(heir.begin())
    a.lose(DIED, 2)
    world.give(a.end(DIED))
    world.tick()
    assert world.sink.ended.ended == DIED
    assert world.sink.ended.lost == {DIED: 1}
    assert [*world.aggregator.open] == [heir.run]


def test_a_producer_that_changes_to_and_fro_changes_the_epoch_once_a_horizon() -> None:
    world, a, changes = World(), Producer("a"), []
    for t in range(60):
        before = len(world.sink.epochs)
        world.give(a.begin(config="cd"[t % 2]), a.shots([t]))
        world.tick()
        if len(world.sink.epochs) > before:
            changes.append(world.now)
    world.give(a.end())
    world.tick()
    assert len(changes) > 2
    assert all(y - x >= HORIZON for x, y in pairwise(changes))
    assert sorted(world.sink.rows) == [*range(60)]


def test_a_death_does_not_hurry_those_who_pause() -> None:
    world, a, b = World(), Producer("a"), Producer("b")
    world.give(a.begin(), b.begin(), a.shots([1]), a.end(DIED), b.shots([2]))
    for _ in range(4):
        world.give(b.status())
        world.tick(END / MS / 2)
    assert world.sink.ended is None
