"""While the disk fails the aggregator stays within its bounds, says so, and can be stopped."""

import errno
import logging
import time

import pytest

from ffb.aggregating import serve
from ffb.aggregating.serve import GULP, Service
from ffb.config import parse
from ffb.health import SECOND
from ffb.sink import Counts
from ffb.transport import Subscriber
from ffb.wire import Header, unpack
from ffb.writers.small_data import SmallData
from tests.process.strangers import RUN, SCHEMA, Honest, rows

FULL = OSError(errno.ENOSPC, "the disk is full, make room")
ROWS = 2000


class Full(SmallData):
    """A writer whose disk has no room until it is told that it has."""

    room = False

    def commit(self, counts):
        if not self.room:
            raise FULL
        super().commit(counts)


@pytest.fixture
def service(tmp_path):
    tables = {
        "source": {"kind": "synthetic", "exp": "tstx00001"},
        "transport": {
            "aggregator": f"ipc://{tmp_path}/a",
            "views": f"ipc://{tmp_path}/v",
            "window_mb": 0.5,
        },
        "run": {"producers": 1},
        "aggregate": {"commit_ms": 1.0, "horizon_ms": 20.0, "end_timeout_s": 60.0},
    }
    made = []

    def writer(config, info):
        made.append(Full(tmp_path / "h5"))
        return made[-1]

    out = Service(parse(tables), writer)
    out.made = made
    yield out
    out.close()


@pytest.fixture
def greedy(service):
    """A producer that minds no window."""
    out = Honest(service)
    until(service, out.link, lambda: out.link.connected)
    out.link._window.most = 1 << 40
    yield out
    out.link.close()


def test_a_snapshot_that_waited_for_the_disk_does_not_delay_the_next(service, monkeypatch):
    """The machine stands still for 15 s while one is made; the page is told of the next commit."""
    sent, clock = [], iter(range(15 * SECOND, 600 * SECOND, 15 * SECOND))
    monkeypatch.setattr(serve.time, "monotonic_ns", lambda: next(clock))
    monkeypatch.setattr(service.publisher, "send", sent.append)
    for commit, now in ((1, 2 * SECOND), (2, 17 * SECOND), (3, 18 * SECOND)):
        service._shown.live.counts = Counts(commit, commit, commit)
        service._publish(now)
    assert len(sent) == 3


def until(service, link, done):
    end = time.monotonic() + 120
    while not done():
        assert time.monotonic() < end
        service.turn()
        link.pump()


def flood(greedy, messages):
    for k in range(messages):
        greedy.read += ROWS
        head = Header("shots", **RUN, counts={"read": greedy.read, "lost": {}})
        greedy.link.send(head, SCHEMA, rows(2**40 + k * ROWS, ROWS))


def test_what_waits_is_bounded_and_goes_on_when_there_is_room(service, greedy):
    size = SCHEMA.offsets(ROWS)[-1]
    flood(greedy, messages := 4 * service.most // size)
    views = Subscriber(service.publisher.address)
    until(service, greedy.link, lambda: service.hub.waiting_bytes > service.most)
    for _ in range(20):
        service.turn()
        greedy.link.pump()
    assert service.hub.waiting_bytes <= service.most + GULP * (size + 8 * ROWS + 10_000)
    assert greedy.link.unacked > messages // 2
    seen = []

    def told():
        if frame := views.receive():
            seen.append(unpack(frame)[0]["status"])
        return seen and seen[-1]["held"]

    until(service, greedy.link, told)
    assert "the disk is full" in seen[-1]["held"]
    assert any("the disk is full" in a for a in seen[-1]["alarms"])
    name, waits, bound, high = seen[-1]["queues"][0]
    assert (name, bound) == ("aggregator", service.most)
    assert high >= waits > bound
    service.made[0].room = True
    until(service, greedy.link, lambda: greedy.link.unacked == 0)
    greedy.end()
    until(service, greedy.link, lambda: not service.aggregator.open)
    assert service.aggregator.closed[-1].counts.written == messages * ROWS
    assert service.hub.waiting_bytes == 0
    views.close()


def test_it_can_be_stopped_though_the_disk_is_full(service, greedy, caplog):
    flood(greedy, 3)
    until(service, greedy.link, lambda: service.aggregator.fault)
    service.stop()
    with caplog.at_level(logging.ERROR):
        assert service.loop(once=False, grace_s=0.1) is False
    assert "stopped with rows not committed: " in caplog.text
    assert "the disk is full, make room" in caplog.text
