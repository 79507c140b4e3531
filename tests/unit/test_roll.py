"""Ranks that die are not waited for, and what they left undone stands in the books."""

import threading

import pytest

from ffb.config import parse
from ffb.producing.heir import DIED
from ffb.service import roll
from ffb.service.roll import RankService
from ffb.sink import Provenance
from ffb.transport import Link
from ffb.wire import EndRun, Header
from tests.unit.producers import RUN, SCHEMA, Memory, batch

HEAD = Header("begin_run", RUN.exp, RUN.run, RUN.began)


class File(Memory):
    path = None


class World:
    """Three ranks and the aggregator, in one thread."""

    def __init__(self, folder, patience_s):
        config = parse(
            {
                "source": {"kind": "synthetic", "exp": RUN.exp},
                "aggregate": {"horizon_ms": 3.6e6, "end_timeout_s": 600.0},
                "transport": {"aggregator": f"ipc://{folder}/a", "views": f"ipc://{folder}/v"},
                "run": {"producers": 3},
            }
        )
        self.file, self.said = File(), []
        make = lambda *_: self.file  # noqa: E731
        self.service = RankService(config, make, 3, patience_s, lambda: 0.5, self.said.append)
        self.links = {}
        self.address = config.transport.aggregator

    def begin(self, name):
        self.links[name] = Link(self.address, name)
        self.links[name].send(HEAD, SCHEMA, Provenance())

    def send(self, name, kind, body, read):
        head = HEAD._replace(kind=kind, counts={"read": read, "lost": {}})
        self.links[name].send(head, SCHEMA if kind == "shots" else None, body)

    def until(self, happened):
        for _ in range(5000):
            for link in self.links.values():
                link.pump()
            self.service.turn()
            if happened():
                return
        raise AssertionError("it did not happen")

    def close(self):
        for link in self.links.values():
            link.close()
        self.service.close()


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setattr(roll, "GONE_S", 0.0)
    monkeypatch.setattr(roll, "LOOK_S", 0.0)
    worlds = []

    def make(patience_s):
        worlds.append(World(tmp_path, patience_s))
        return worlds[-1]

    yield make
    for w in worlds:
        w.close()


def test_the_share_of_a_rank_that_died_is_lost_from_its_last_word_on(world):
    w = world(600.0)
    for name in ("p0", "p1", "p2"):
        w.begin(name)
    w.send("p0", "shots", batch([1, 4, 7, 10]), 4)
    w.send("p1", "shots", batch([2, 5]), 2)
    w.send("p2", "shots", batch([3, 6, 9, 12]), 4)
    w.send("p2", "end_run", EndRun(), 4)
    w.until(lambda: not w.links["p1"].unacked)
    assert w.service.waiting == ("p1",)
    assert w.file.rows == [1, 2, 3, 4, 5]  # others wait for what p1 may still bring
    w.links.pop("p1").close()
    w.until(lambda: w.service.dead)
    assert w.service.dead == ("p1",)
    assert w.said == ["p1 died: go on without"]
    w.until(lambda: w.file.rows == [1, 2, 3, 4, 5, 6, 7, 9, 10])
    done = w.service.miss("p1", [2, 5, 8, 11])
    w.until(done.done)
    assert done.result() == 2
    w.send("p0", "end_run", EndRun(), 4)
    w.until(lambda: w.file.ended)
    assert w.file.rows == [1, 2, 3, 4, 5, 6, 7, 9, 10, 12]
    ended = w.file.ended
    assert (ended.read, ended.written, ended.lost) == (12, 10, {DIED: 2})
    lost = [(e.first, e.last, e.shots) for e in w.file.ledger if e.state == DIED]
    assert lost == [(8, 11, 2)]
    assert w.service.aggregator.closed[0].problems == []


def test_a_rank_that_never_came_is_not_waited_for_and_loses_its_share(world):
    w = world(0.0)
    w.begin("p0")
    w.send("p0", "shots", batch([1, 4, 7, 10]), 4)
    w.until(lambda: len(w.service.dead) == 2 and not w.links["p0"].unacked)
    for name, stamps in (("p1", [2, 5]), ("p2", [3])):
        done = w.service.miss(name, stamps)
        w.until(done.done)
    w.send("p0", "end_run", EndRun(), 4)
    w.until(lambda: w.file.ended)
    assert w.file.rows == [1, 4, 7, 10]
    assert (w.file.ended.read, w.file.ended.lost) == (7, {DIED: 3})
    assert w.service.aggregator.closed[0].problems == []


def test_a_farewell_lasts_until_producers_know_and_have_taken_leave(world, monkeypatch):
    w, begun = world(600.0), threading.Event()
    for name in ("p0", "p1", "p2"):
        w.begin(name)
        w.send(name, "end_run", EndRun(), 0)
    w.until(lambda: w.file.ended)
    leaving, receive = [], w.service.hub.receive

    def serve(timeout_s):
        begun.set()
        return receive(timeout_s)

    def leave():
        begun.wait(60)
        for link in w.links.values():
            leaving.append(link.drain(60))
            link.close()
        w.links.clear()

    thread = threading.Thread(target=leave)
    thread.start()
    monkeypatch.setattr(w.service.hub, "receive", serve)
    w.service.farewell(60.0)
    assert begun.is_set()
    thread.join()
    assert leaving == [True, True, True]
    assert not w.service.hub.attended
