"""The transport between real processes, over ipc, while somebody is killed, frozen or hostile."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

import psutil
import pytest
import zmq
import zmq.auth

from ffb.sink import Provenance
from ffb.transport import Delivery, Hub, Link, Publisher, RefusedError, Subscriber
from ffb.wire import Decoder, EndRun, Header, encode
from tests.process import stubs
from tests.process.stubs import SCHEMA, aggregate, batch, linger, produce, records, watch

CONTEXT: ForkServerContext = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([stubs.__name__])
SHOTS = Header("shots", "e", 1, 2)

Start = Callable[..., ForkServerProcess]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a function in a process of its own, and see to it that it ends."""
    started: list[ForkServerProcess] = []

    def go(function: Callable[..., None], *args: object) -> ForkServerProcess:
        process = CONTEXT.Process(target=function, args=args, daemon=True)
        process.start()
        started.append(process)
        return process

    yield go
    for process in started:
        process.kill()
        process.join()
        process.close()


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/sockets/hub"


@pytest.fixture
def hub(address: str) -> Iterator[Hub]:
    hub = Hub(address)
    yield hub
    hub.close()


def until(condition: Callable[[], object], *pumps: Callable[[], object], s: float = 120) -> None:
    """Wait for ``condition``, pumping."""
    end = time.monotonic() + s
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        for pump in pumps:
            pump()


def meet(hub: Hub, link: Link) -> None:
    until(lambda: link.connected, lambda: hub.receive(0.01), lambda: link.pump(0.01))


def take(hub: Hub, link: Link, n: int) -> list[Delivery]:
    got: list[Delivery] = []
    until(lambda: len(got) >= n, lambda: link.pump(0.01), lambda: got.extend(hub.receive(0.01)))
    return got


def test_no_kill_of_the_aggregator_loses_or_repeats_a_message(
    tmp_path: Path, address: str, start: Start
) -> None:
    ledger, rng, kills = tmp_path / "ledger", random.Random(1), 30
    hub, enough = start(aggregate, address, ledger), CONTEXT.Event()
    sent = {name: CONTEXT.Value("q", 0) for name in ("p0", "p1")}
    producers = [start(produce, address, name, enough, n) for name, n in sent.items()]

    def size() -> int:
        return ledger.stat().st_size // stubs.RECORD.size if ledger.exists() else 0

    for _ in range(kills):
        goal = size() + rng.randint(1, 60)
        until(
            lambda goal=goal: size() >= goal,
            lambda: time.sleep(rng.uniform(0, 0.002)),  # so that kills fall anywhere
        )
        hub.kill()
        hub.join()
        hub = start(aggregate, address, ledger)
    enough.set()
    for p in producers:
        p.join()
    assert [p.exitcode for p in producers] == [0, 0]
    for name, value in sent.items():
        n = value.value
        assert n >= kills // 2
        mine = [r for r in records(ledger) if r[0] == name]
        assert len({epoch for _, epoch, _, _ in mine}) == 1
        assert [seq for _, _, seq, _ in mine] == [*range(1, n + 1)]
        assert [value for _, _, _, value in mine] == [*range(n)]


def test_a_frozen_subscriber_slows_nobody_and_costs_no_memory(address: str, start: Start) -> None:
    publisher, me = Publisher(address), psutil.Process()
    listening, seen = CONTEXT.Event(), CONTEXT.Event()
    frozen = start(watch, address, listening, seen)
    awake = Subscriber(address)
    until(listening.is_set, lambda: publisher.send(b"x"), lambda: time.sleep(0.001))
    until(lambda: awake.receive(0.01), lambda: publisher.send(b"x"))
    assert frozen.pid is not None
    os.kill(frozen.pid, signal.SIGSTOP)
    before, frame = me.memory_info().rss, bytes(200_000)
    for i in range(2000):
        publisher.send(i.to_bytes(4, "little") + frame)
    until(lambda: (f := awake.receive(0.01)) and f[:2] == b"ok", lambda: publisher.send(b"ok"))
    assert me.memory_info().rss - before < 100e6
    os.kill(frozen.pid, signal.SIGCONT)
    until(seen.is_set, lambda: publisher.send(b"last"), lambda: time.sleep(0.001))
    awake.close()
    publisher.close()


def test_a_subscriber_gets_the_newest_frame_whole(address: str) -> None:
    publisher, subscriber = Publisher(address), Subscriber(address)
    until(lambda: subscriber.receive(0.01), lambda: publisher.send(b"0"))
    last = bytes(1_000_000) + b"last"
    for i in range(50):
        publisher.send(b"%d" % i)
    got: list[bytes | None] = []
    until(
        lambda: last in got,
        lambda: publisher.send(last),
        lambda: got.append(subscriber.receive(0.01)),
    )
    publisher.close()
    subscriber.close()


def test_a_second_aggregator_is_refused_and_the_first_goes_on(hub: Hub, address: str) -> None:
    with pytest.raises(OSError, match=rf"taken by process {os.getpid()}"):
        Hub(address)
    link = Link(address, "p0")
    link.send(SHOTS, SCHEMA, batch(1))
    assert take(hub, link, 1)[0].seq == 1
    link.close()
    hub.close()
    Hub(address).close()


def test_the_socket_lies_in_a_directory_of_its_own(hub: Hub, address: str) -> None:
    assert stat.S_IMODE(Path(address.removeprefix("ipc://")).parent.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "address", ["tcp://0.0.0.0:*", "tcp://*:5000", "tcp://10.1.2.3:5000", "tcp://[::]:5000"]
)
def test_other_hosts_need_a_key(address: str) -> None:
    for end in (Hub, Publisher, Subscriber, lambda a: Link(a, "p")):
        with pytest.raises(OSError, match="without a key"):
            end(address)


def test_with_keys_only_those_who_have_them_are_heard(tmp_path: Path) -> None:
    public, secret = map(Path, zmq.auth.create_certificates(tmp_path, "hub"))
    _, foreign = map(Path, zmq.auth.create_certificates(tmp_path, "foreign"))
    secret.chmod(0o644)
    with pytest.raises(PermissionError, match="chmod 600"):
        Hub("tcp://127.0.0.1:*", key=secret)
    for file in (public, secret, foreign):
        file.chmod(0o600)
    with pytest.raises(OSError, match="no secret CURVE key"):
        Hub("tcp://127.0.0.1:*", key=public)
    hub = Hub("tcp://127.0.0.1:*", key=secret)
    good = Link(hub.address, "good", key=public)
    strangers = [Link(hub.address, "foreign", key=foreign), Link(hub.address, "clear")]
    for link in (*strangers, good):
        link.send(SHOTS, SCHEMA, batch(1))
    got: list[Delivery] = []
    until(
        lambda: got and good.connected,
        lambda: got.extend(hub.receive(0.01)),
        *(lambda link=link: link.pump(0.01) for link in (*strangers, good)),
    )
    for _ in range(5):
        got += hub.receive(0.02)
    assert [d.producer for d in got] == ["good"]
    assert not any(link.connected for link in strangers)
    for end in (good, *strangers, hub):
        end.close()


def test_a_second_producer_of_the_same_name_is_refused_while_the_first_lives(
    hub: Hub, address: str, start: Start
) -> None:
    connected = CONTEXT.Event()
    first = start(linger, address, "p0", connected)
    until(connected.is_set, lambda: hub.receive(0.01))
    second = Link(address, "p0")
    second.send(SHOTS, SCHEMA, batch(1))
    with pytest.raises(RefusedError, match="'p0' is already at work"):
        until(lambda: False, lambda: second.pump(0.01), lambda: hub.receive(0.01))
    second.close()
    first.kill()
    first.join()
    delivered: list[Delivery] = []

    def accepted() -> bool:
        link = Link(address, "p0")
        link.send(SHOTS, SCHEMA, batch(7))
        try:
            until(
                lambda: delivered,
                lambda: link.pump(0.01),
                lambda: delivered.extend(hub.receive(0.01)),
            )
        except RefusedError:
            return False
        finally:
            link.close()
        return True

    until(accepted)
    assert [(d.producer, d.seq) for d in delivered] == [("p0", 1)]


def test_hostile_bytes_are_counted_and_hurt_nobody(hub: Hub, address: str) -> None:
    rng = random.Random(3)
    link = Link(address, "p0")
    meet(hub, link)
    context = zmq.Context()
    evil = context.socket(zmq.DEALER)
    evil.setsockopt(zmq.ROUTING_ID, b"evil/1")
    evil.linger = 0
    evil.connect(address)
    prefix = stub_prefix(b"D", 1, 1)
    hostile = [
        [b""],
        [b"x"] * 20,
        [b"ffb1" + bytes(40)],
        [rng.randbytes(21)] * 5,
        [prefix],
        [prefix[:-1], b"", b"", b""],
        [stub_prefix(b"H", 1, 0), b"p0"],
        [stub_prefix(b"H", 1, 0), b"\xff" * 99],
        [stub_prefix(b"Z", 1, 0), b"", b"", b""],
        *([rng.randbytes(rng.randint(0, 60)) for _ in range(rng.randint(1, 6))] for _ in range(50)),
    ]
    for frames in hostile:
        evil.send_multipart(frames)
    got: list[Delivery] = []
    until(lambda: hub.rejected["evil/1"] == len(hostile), lambda: got.extend(hub.receive(0.01)))
    evil.send_multipart([prefix, b"", b"", b""])  # well formed, but it never said hello
    until(lambda: hub.order.gaps == 1, lambda: got.extend(hub.receive(0.01)))
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(address.removeprefix("ipc://"))
        raw.sendall(rng.randbytes(5000))
    link.send(SHOTS, SCHEMA, batch(1))
    assert [d[:3] for d in take(hub, link, 1)] == [("p0", link.epoch, 1)]
    assert got == []
    evil.close()
    context.term()
    link.close()


def stub_prefix(kind: bytes, epoch: int, seq: int) -> bytes:
    return b"ffb1" + kind + epoch.to_bytes(8, "little") + seq.to_bytes(8, "little")


def test_senders_are_counted_without_end(hub: Hub) -> None:
    for i in range(1000):
        hub.reject(f"stranger {i}")
    assert len(hub.rejected) <= 101
    assert hub.rejected.total() == 1000


def test_the_window_bounds_what_is_in_flight(hub: Hub, address: str) -> None:
    size = sum(len(f) for f in encode(SHOTS, SCHEMA, batch(0)))
    link = Link(address, "p0", window_bytes=3 * size)
    for i in range(3):
        assert link.room
        link.send(SHOTS, SCHEMA, batch(i))
    assert not link.room
    link.send(Header("end_run"), None, EndRun())
    for i in range(3):
        link.send(SHOTS, SCHEMA, batch(i))
    with pytest.raises(BufferError, match="ask for `room`"):
        link.send(SHOTS, SCHEMA, batch(9))
    waiting, most = link.unacked, link.in_flight_bytes
    assert most <= 7.1 * size
    for d in take(hub, link, waiting):
        hub.ack(d.producer, d.epoch, d.seq)
    until(lambda: link.room and not link.unacked, lambda: link.pump(0.01))
    assert (link.in_flight_bytes, link.high_water) == (0, most)
    assert link.drain(0)
    link.close()


def test_nothing_is_forgotten_before_it_is_acknowledged(address: str) -> None:
    """An aggregator comes back without memory: it hears all that was not acknowledged, in order,
    and is reminded of the run that goes on."""
    link, decode = Link(address, "p0"), Decoder()
    link.send(Header("begin_run", "e", 1, 2), SCHEMA, Provenance(config="c"))
    for i in range(4):
        link.send(SHOTS, SCHEMA, batch(i))
    first = Hub(address)
    assert [d.seq for d in take(first, link, 5)] == [1, 2, 3, 4, 5]
    first.ack("p0", link.epoch, 3)
    until(lambda: link.unacked == 2, lambda: link.pump(0.01))
    assert not link.drain(0.01)
    first.close()
    second = Hub(address)
    got = take(second, link, 3)
    kinds = [decode(d.frames).header.kind for d in got]
    assert kinds == ["begin_run", "shots", "shots"]
    assert [d.seq for d in got] == [0, 4, 5]
    assert link.resent == 2
    link.send(Header("end_run", "e", 1, 2), None, EndRun())
    second.ack("p0", link.epoch, take(second, link, 1)[0].seq)
    until(lambda: not link.unacked, lambda: link.pump(0.01))
    second.close()
    third = Hub(address)
    until(lambda: not link.connected, lambda: link.pump(0.01))
    meet(third, link)
    assert third.receive(0.01) == []
    third.close()
    link.close()


def test_an_aggregator_that_was_busy_is_not_told_everything_several_times(
    hub: Hub, address: str
) -> None:
    link = Link(address, "p0")
    for i in range(5):
        link.send(SHOTS, SCHEMA, batch(i))
    assert link._socket.poll(10_000, zmq.POLLOUT), "connected, and not yet welcome"
    for _ in range(5):
        link._hello()
    assert [d.seq for d in take(hub, link, 5)] == [1, 2, 3, 4, 5]
    link.send(SHOTS, SCHEMA, batch(5))
    assert [d.seq for d in take(hub, link, 1)] == [6]
    assert (link.resent, hub.order.repeated) == (0, 0)
    link.close()


def test_status_passes_by_and_is_not_kept(hub: Hub, address: str) -> None:
    link = Link(address, "p0")
    link.status({"hz": 1})  # nobody there: not kept
    meet(hub, link)
    link.status({"hz": 120.0})
    (delivery,) = take(hub, link, 1)
    assert delivery.seq == 0
    message = Decoder()(delivery.frames)
    assert (message.header.producer, message.header.epoch) == ("p0", link.epoch)
    assert message.body == {"hz": 120.0}
    assert link.unacked == 0
    link.close()


def test_producers_are_told_that_the_disk_holds_up_commits(hub: Hub, address: str) -> None:
    links = [Link(address, "p0"), Link(address, "p1")]
    for link in links:
        meet(hub, link)
    for held in (True, False):
        hub.held = held
        until(
            lambda held=held: [k.held for k in links] == [held, held],
            lambda: hub.receive(0.01),
            *(lambda k=k: k.pump(0.01) for k in links),
        )
        assert ("cannot write" if held else "has not committed") in links[0].silence
    for link in links:
        link.close()


def test_what_waits_for_a_commit_is_counted_in_bytes(hub: Hub, address: str) -> None:
    link = Link(address, "p0")
    for i in range(3):
        link.send(SHOTS, SCHEMA, batch(i))
    take(hub, link, 3)
    assert hub.waiting_bytes == hub.high_water == link.in_flight_bytes > 3 * batch(0).buffer.nbytes
    hub.ack("p0", link.epoch, 2)
    assert 3 * hub.waiting_bytes == hub.high_water
    hub.ack("p0", link.epoch, 3)
    assert hub.waiting_bytes == 0
    link.close()
