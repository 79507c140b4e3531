"""Shots and transitions arrive by two ways and leave in one order."""

import random

import pytest

from ffb.sources.dgram_shot import Moment
from ffb.sources.shmem import Order

SHOT, STEP, DISABLE, CONFIGURE, END = 12, 6, 9, 2, 5


def moment(service, stamp):
    return Moment(service, stamp, ())


def drain(order, shots, settled=True):
    """What comes out, as (service, timestamp), when all of ``shots`` wait in the queue."""
    out, shots = [], list(shots)
    while True:
        if order.shot is None and shots:
            order.shot = moment(SHOT, shots.pop(0))
        item = order.next(settled)
        if item is None:
            return out
        out.append((item.service, item.timestamp))


def test_a_transition_does_not_overtake_earlier_shots_nor_later_shots_it():
    order = Order()
    for service, stamp in ((DISABLE, 50), (STEP, 60)):
        order.announce(moment(service, stamp))
    got = drain(order, [40, 45, 61, 62])
    assert [t for _, t in got] == [40, 45, 50, 60, 61, 62]


def test_a_transition_waits_until_it_is_settled():
    order = Order()
    order.announce(moment(DISABLE, 50))
    assert order.next(settled=False) is None
    assert order.waiting
    order.shot = moment(SHOT, 49)
    assert order.next(settled=False).timestamp == 49
    assert order.next(settled=False) is None
    order.shot = moment(SHOT, 51)
    assert [order.next(settled=False).timestamp for _ in range(2)] == [50, 51]
    assert not order.waiting


def test_a_shot_at_the_time_of_a_transition_follows_it():
    order = Order()
    order.announce(moment(STEP, 50))
    assert drain(order, [50]) == [(STEP, 50), (SHOT, 50)]


def test_a_replay_goes_back_in_time_with_all_its_shots():
    """The end of one loop and the begin of the next wait together, as do shots of both."""
    order = Order()
    order.announce(moment(STEP, 3))
    assert drain(order, [5, 150]) == [(STEP, 3), (SHOT, 5), (SHOT, 150)]
    for service, stamp in ((DISABLE, 200), (END, 202), (CONFIGURE, 1), (STEP, 3)):
        order.announce(moment(service, stamp))
    got = drain(order, [160, 5, 150])
    assert [t for _, t in got] == [160, 200, 202, 1, 3, 5, 150]
    assert drain(order, [140]) == [(SHOT, 140)], "a shot out of order is delivered all the same"


@pytest.mark.parametrize("seed", range(20))
def test_any_mix_of_arrivals_gives_the_one_order(seed):
    """However the two ways interleave, as long as a shot is queued after what precedes it."""
    rng = random.Random(seed)
    stream = [(STEP if t % 10 == 0 else SHOT, t) for t in range(1, 120)]
    order, queue, out, held = Order(), [], [], list(stream)
    while held or queue or order.waiting or order.shot:
        for _ in range(min(rng.randrange(4), len(held))):
            service, stamp = held.pop(0)
            if service == SHOT:
                queue.append(stamp)
            else:
                order.announce(moment(service, stamp))
        if order.shot is None and queue:
            order.shot = moment(SHOT, queue.pop(0))
        if (item := order.next(settled=not queue)) is not None:
            out.append((item.service, item.timestamp))
    assert out == stream
