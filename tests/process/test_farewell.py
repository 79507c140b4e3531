"""A producer whose connection broke at the end hears that all is committed before we go."""

import contextlib
import threading
import time

import pytest

from ffb import serve as served
from ffb.wire import EndRun
from tests.process.strangers import DEADLINE_S, FIRST, Honest, Stranger, rows, serve


@pytest.fixture
def service(tmp_path, monkeypatch):
    """An aggregator that waits for leave to be taken as long as it takes."""
    monkeypatch.setattr(served, "FAREWELL_NS", 10**15)
    it = serve(tmp_path)
    yield it
    it.stop()
    it.close()


@pytest.fixture
def loop(service):
    """Its loop, in a thread, until a run has ended; the list gets what it returns."""
    returned = []
    thread = threading.Thread(target=lambda: returned.append(service.loop(once=True, grace_s=1)))
    thread.start()
    yield thread, returned
    service.stop()
    thread.join(DEADLINE_S)


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
