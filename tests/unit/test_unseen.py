"""Shots not seen: gaps between pulse ids, whatever the ids look like."""

import json

import numpy as np
import pytest

from ffb.books.unseen import STRETCH, Unseen, estimate

RNG = np.random.default_rng(3)


def beam(n: int, period: int = 7738, first: int = 1_000_000_000, jitter: int = 0) -> np.ndarray:
    """Pulse ids of a beam; with jitter the sum of the periods stays what it is."""
    ids = first + period * np.arange(n)
    return (ids + RNG.integers(-jitter, jitter + 1, n)).astype(np.uint64)


def without(ids: np.ndarray, share: float) -> np.ndarray:
    """All but a share of the shots, at random, never the ends (of these nothing can be known)."""
    keep = RNG.random(len(ids)) >= share
    keep[[0, -1, -2]] = True
    return ids[keep]


@pytest.mark.parametrize("period", [1, 2, 3, 7738, 928_571])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5])
def test_what_is_missing_is_counted(period, share):
    ids = beam(5000, period)
    seen = without(ids, share)
    assert estimate(seen) == len(ids) - len(seen)


def test_what_is_lost_is_no_more_unseen():
    ids = beam(5000)
    seen = without(ids, 0.3)
    gone = len(ids) - len(seen)
    assert estimate(seen, lost=gone - 7) == 7
    assert estimate(seen, lost=gone + 50) == 0


def test_jitter_of_the_mains_is_no_gap():
    ids = beam(5000, jitter=40)
    assert estimate(ids) == 0
    seen = without(ids, 0.1)
    gone = len(ids) - len(seen)
    assert abs(estimate(seen) - gone) <= 0.01 * gone


def test_two_bunches_of_alternating_distance_are_no_gap():
    ids = np.cumsum(np.tile([1, 2], 2000)) + 10
    assert estimate(ids) == 0
    assert estimate(np.delete(ids, [100, 1501, 2002])) == 3


def test_a_run_may_change_its_rate():
    slow, fast = beam(3 * STRETCH, 20), beam(4 * STRETCH, 10, 1_000_000_000 + 3 * STRETCH * 20)
    ids = np.concatenate([slow, fast])
    assert estimate(ids) <= FALSE
    assert estimate(np.concatenate([fast[:1200], slow[:2000] + fast[1200] - slow[0]])) <= FALSE
    kept = np.delete(ids, [100, 200, 201, 3000])
    assert 4 <= estimate(kept) <= 4 + FALSE


#: What one change of rate may wrongly count.
FALSE = 0.3 * STRETCH


def test_a_second_reader_that_takes_every_other_shot_for_a_while_is_noticed():
    ids = beam(4000)
    seen = np.delete(ids, np.arange(1000, 1240, 2))
    assert estimate(seen) == 120


def test_unknown_ids_fill_the_gap_they_are_in():
    ids = beam(3000)
    ids[[5, 700, 701, 702, 2000]] = 0
    assert estimate(ids) == 0
    assert estimate(np.delete(ids, [700, 1234])) == 2
    assert estimate(np.zeros(3000, np.uint64)) == 0
    assert estimate(np.concatenate([np.zeros(50), ids, np.zeros(50)]).astype(np.uint64)) == 0


@pytest.mark.parametrize(
    "garbage", [1, 2**64 - 1, 2**63, 2**62, 1_000_000_000 + 7738 * 9000, 999_999_999]
)
@pytest.mark.parametrize("where", [[1500], [0], [2999], [100, 1000, 2000], [7, 9]])
def test_garbage_moves_nothing(garbage, where):
    ids = beam(3000)
    ids[where] = garbage
    assert estimate(ids) <= 3
    assert estimate(np.delete(ids, [500, 1200])) <= 5


def test_one_garbage_id_inside_is_exactly_nothing():
    ids = beam(3000)
    ids[1500] = 1_000_000_000 + 7738 * 9000
    assert estimate(np.delete(ids, [500, 1200])) == 2


def test_a_counter_that_begins_anew_is_no_gap():
    ids = np.concatenate([beam(1000), beam(1000, first=5000), beam(1000, first=2**60)])
    assert estimate(ids) <= 6


def test_duplicates_are_no_shots():
    ids = np.repeat(beam(2000), 2)
    assert estimate(ids) == 0
    assert estimate(np.repeat(np.delete(beam(2000), [100, 101]), 3)) == 2


def test_pauses_between_steps_are_no_gaps():
    ids = np.concatenate(
        [beam(500), beam(500, first=1_100_000_000), beam(500, first=1_200_000_000)]
    )
    steps = np.repeat([0, 1, 2], 500)
    assert estimate(ids, steps=steps) == 0
    assert estimate(ids) >= 24_000
    gone = [100, 600, 601]
    assert estimate(np.delete(ids, gone), steps=np.delete(steps, gone)) == 3


def test_late_rows_fill_the_gap_they_left_in_whatever_order():
    ids = beam(3000)
    late = np.zeros(3000, bool)
    late[100:130] = True
    gone = [50, 2000]
    assert estimate(np.delete(ids, gone), late=np.delete(late, gone)) == 2
    keep = np.setdiff1d(np.arange(3000), gone)
    order = np.concatenate([keep[~late[keep]][:900], keep[late[keep]], keep[~late[keep]][900:]])
    assert estimate(ids[order], late=late[order]) == 2


@pytest.mark.parametrize("size", [1, 7, 100, 512, 5000])
def test_how_rows_are_cut_up_makes_no_difference_nor_does_a_restart(size):
    ids = without(beam(4000, jitter=9), 0.2)
    ids[RNG.integers(0, len(ids), 30)] = 0
    ids[[9, 800]] = 2**61, 77
    steps = np.sort(RNG.integers(0, 4, len(ids)))
    late = RNG.random(len(ids)) < 0.01
    unseen = Unseen()
    for at in range(0, len(ids), size):
        rows = slice(at, at + size)
        unseen.add(ids[rows], steps[rows], late[rows])
        if size > 50:
            unseen = Unseen(json.loads(json.dumps(unseen.state)))
    assert unseen.estimate() == estimate(ids, steps=steps, late=late) > 500


def test_few_rows_tell_nothing_wrong():
    assert Unseen().estimate() == 0
    for n in range(1, 6):
        assert estimate(beam(n)) == 0
    unseen = Unseen()
    unseen.add([])
    unseen.add(beam(1000))
    assert unseen.period == 7738
    assert len(json.dumps(unseen.state)) < 250
