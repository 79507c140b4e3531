"""A producer whose connection broke at the end hears that all is committed before we go."""

import contextlib
import threading
import time

import pytest

from ffb.wire import EndRun
from tests.process.strangers import DEADLINE_S, FIRST, Honest, Stranger, rows, serve


@pytest.fixture
def service(tmp_path):
    """An aggregator."""
    with contextlib.closing(serve(tmp_path)) as it:
        yield it


@pytest.fixture
def loop(service):
    """Its loop, in a thread, and its farewell; the list gets what the loop returned."""
    returned = []

    def once():
        balanced = service.loop(once=True, grace_s=1)
        service.farewell(3 * DEADLINE_S)
        returned.append(balanced)

    thread = threading.Thread(target=once)
    thread.start()
    yield thread, returned
    service.stop()
    thread.join(4 * DEADLINE_S)


def until(condition, *then):
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "it never came about"
        for act in then:
            act()
        time.sleep(0.001)


def test_the_last_word_reaches_who_comes_back_for_it(service, loop):
    thread, returned = loop
    with contextlib.closing(Stranger(service, "p")) as first:
        first.begin()
        first.shots(rows(FIRST), 3)
        first.say("end_run", None, EndRun(), counts={"read": 3, "lost": {}})
        until(lambda: service.aggregator.closed)
    with contextlib.closing(Stranger(service, "p")) as again:
        again.hello()
        until(lambda: again.acked == first.seq, again.hear)
        assert thread.is_alive()
        again.put(b"B", again.acked)
        thread.join(DEADLINE_S)
    assert returned == [True]


def test_nobody_waits_once_all_have_taken_their_leave(service, loop):
    thread, returned = loop
    it = Honest(service)
    with contextlib.closing(it.link):
        it.shots()
        it.end()
        until(lambda: not it.link.unacked, it.link.pump)
    thread.join(DEADLINE_S)
    assert returned == [True]


def test_who_comes_back_after_a_bye_is_waited_for_again(service):
    with contextlib.closing(Stranger(service, "p")) as it:
        it.hello()
        until(lambda: service.hub.attended, lambda: service.hub.receive(0.01))
        it.put(b"B", 0)
        until(lambda: not service.hub.attended, lambda: service.hub.receive(0.01))
        it.hello()
        until(lambda: service.hub.attended, lambda: service.hub.receive(0.01))
