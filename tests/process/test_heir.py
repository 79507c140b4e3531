"""What a killed producer left goes out under its own number, once, whoever dies on the way."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ffb.batch import Batch
from ffb.messaging import link as links
from ffb.messaging.link import Link, RefusedError
from ffb.producing.heir import DIED, Resume, deliver
from ffb.producing.ringfile import RingFile
from ffb.schema import CORE, Schema
from ffb.shot import BeginStep, Idle
from ffb.sink import Provenance
from ffb.source import RunInfo
from ffb.testing.listed import ListedRun, ListedShot
from ffb.transport import Hub
from ffb.wire import Decoder, EndRun, Header, Message
from tests.process.stubs import ROWS, SCHEMA, batch

RUN = Header("begin_run", "tstx00001", 3, 2)


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/sockets/hub"


@pytest.fixture
def file_of(tmp_path: Path, address: str) -> Callable[[], RingFile]:
    return lambda: RingFile("tstx00001", "p0", address, tmp_path / "rings")


@pytest.fixture
def hub(address: str) -> Iterator[Hub]:
    hub = Hub(address)
    yield hub
    hub.close()


def until(condition: Callable[[], object], *pumps: Callable[[], object]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        for pump in pumps:
            pump()


class Fate:
    """A producer with a ring, and its sudden end."""

    def __init__(self, address: str, file: RingFile) -> None:
        self.file = file
        self.counts: dict[str, Any] = {"read": 0, "lost": {}}
        self.link = Link(address, "p0", 1 << 20, file=file)

    def begin(self, place: int = 0) -> None:
        self.link.send(RUN, SCHEMA, Provenance(), place)

    def shots(self, value: int) -> None:
        for k in range(ROWS):
            self.link.note(1000 * value + k)
        self.counts = {"read": self.counts["read"] + ROWS, "lost": {"damaged": 0}}
        self.link.send(RUN._replace(kind="shots", counts=self.counts), SCHEMA, batch(value))

    def is_killed(self) -> None:
        self.link.close()
        os.close(self.file._fd)
        self.file._fd = -1


def taken(hub: Hub, *links: Link, n: int) -> list[Message]:
    out: list[Message] = []
    decode = Decoder()
    until(
        lambda: len(out) >= n,
        *(lambda k=k: k.pump(0.01) for k in links),
        lambda: out.extend(decode(d.frames) for d in hub.receive(0.01)),
    )
    return out


class Aggregate:
    """Acknowledges as it goes, whenever the heir looks whether it has to stop."""

    def __init__(self, hub: Hub, acks: bool = True) -> None:
        self.hub, self.acks, self.got, self._decode = hub, acks, list[Message](), Decoder()

    def __call__(self) -> bool:
        for d in self.hub.receive(0.01):
            self.got.append(self._decode(d.frames))
            if self.acks and d.seq:
                self.hub.ack(d.producer, d.epoch, d.seq)
        return not self.acks and bool(self.got)


def inherit(
    file: RingFile, address: str, stopping: Callable[[], bool], live: bool
) -> Resume | None:
    left = file.read()
    assert left is not None
    link = Link(address, "p0", epoch=left.epoch)
    try:
        return deliver(left, link, live=live, patience_s=120, stopping=stopping)
    finally:
        link.close()


@pytest.mark.parametrize("live", [True, False])
def test_everything_under_way_goes_out_and_the_part_of_the_run_is_ended(
    hub: Hub, address: str, file_of: Callable[[], RingFile], live: bool
) -> None:
    dead = Fate(address, file_of())
    dead.begin(place=50)
    for value in (1, 2, 3):
        dead.shots(value)
    assert len(taken(hub, dead.link, n=4)) == 4
    hub.ack("p0", dead.link.epoch, 2)
    until(lambda: dead.link.unacked == 2, lambda: dead.link.pump(0.01))
    dead.link.send(RUN._replace(kind="step", counts=dead.counts), None, BeginStep(1))
    for stamp in (7, 8, 9):
        dead.link.note(stamp)
    dead.is_killed()
    hub.close()
    again = Hub(address)
    aggregate = Aggregate(again)
    resume = inherit(file_of(), address, aggregate, live)
    heads = [m.header for m in aggregate.got]
    assert {h.epoch for h in heads} == {dead.link.epoch}
    assert [(h.kind, h.seq) for h in heads if h.kind != "status"] == [
        ("begin_run", 1),  # a reminder: this aggregator knows nothing
        ("shots", 3),
        ("shots", 4),
        ("step", 5),
        ("end_run", 6),
    ]
    for value, m in zip(
        (2, 3), [m for m in aggregate.got if isinstance(m.body, Batch)], strict=True
    ):
        assert isinstance(m.body, Batch)
        assert (m.body.columns["x"][:] == batch(value).columns["x"]).all()
    assert aggregate.got[-1].body == EndRun(DIED)
    if live:
        assert resume is None
        assert heads[-1].losses == [[DIED, t, t, 1] for t in (7, 8, 9)]
        lost = {"damaged": 0, DIED: 3}
        assert heads[-1].counts == {"read": 3 * ROWS + 3, "lost": lost}
    else:
        assert resume == Resume(RunInfo("tstx00001", 3, 2), 50 + 3 * ROWS, 3000 + ROWS - 1)
        assert list(heads[-1].losses) == []
        assert heads[-1].counts == {"read": 3 * ROWS, "lost": {"damaged": 0}}
    again.close()


def test_an_heir_that_is_killed_too_leaves_the_same_to_the_next(
    hub: Hub, address: str, file_of: Callable[[], RingFile]
) -> None:
    dead = Fate(address, file_of())
    dead.begin()
    dead.shots(1)
    dead.link.note(5)
    dead.is_killed()
    first, second = Aggregate(hub, acks=False), Aggregate(hub)
    file = file_of()
    with pytest.raises(TimeoutError, match="3 messages of a killed producer were not taken"):
        inherit(file, address, first, live=True)
    file.close(remove=False)
    until(lambda: len(first.got) >= 3, first)
    for m in first.got:
        hub.ack("p0", m.header.epoch, m.header.seq)  # nobody is there to hear it
    inherit(file_of(), address, second, live=True)
    assert [m.header.seq for m in first.got if m.header.seq] == [1, 2, 3]
    assert [m for m in second.got if m.header.kind not in {"begin_run", "status"}] == []
    last = first.got[-1].header
    assert (last.kind, last.losses) == ("end_run", [[DIED, 5, 5, 1]])


def test_who_ended_its_run_is_not_ended_again(
    hub: Hub, address: str, file_of: Callable[[], RingFile]
) -> None:
    dead = Fate(address, file_of())
    dead.begin()
    dead.link.send(RUN._replace(kind="end_run"), None, EndRun())
    dead.is_killed()
    aggregate = Aggregate(hub)
    assert inherit(file_of(), address, aggregate, live=False) is None
    assert [m.header.kind for m in aggregate.got if m.header.kind != "status"] == [
        "begin_run",
        "end_run",
    ]
    assert aggregate.got[-1].body == EndRun()


def test_an_heir_is_let_in_although_the_dead_one_seems_to_stand(hub: Hub, address: str) -> None:
    old = Link(address, "p0")
    until(lambda: old.connected, lambda: hub.receive(0.01), lambda: old.pump(0.01))
    stranger = Link(address, "p0")
    with pytest.raises(RefusedError, match="already at work"):
        until(lambda: False, lambda: hub.receive(0.01), lambda: stranger.pump(0.01))
    stranger.close()
    heir = Link(address, "p0", after=old.epoch)
    assert heir.epoch > old.epoch
    until(lambda: heir.connected, lambda: hub.receive(0.01), lambda: heir.pump(0.01))
    heir.close()
    old.close()


def test_without_memory_messages_go_on_and_it_is_said(
    hub: Hub, address: str, file_of: Callable[[], RingFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    file = file_of()
    link = Link(address, "p0", file=file)
    link.send(RUN, SCHEMA, Provenance())
    link.note(4)
    link.send(RUN._replace(kind="shots"), SCHEMA, batch(1))
    assert [m.header.kind for m in taken(hub, link, n=2)] == ["begin_run", "shots"]
    assert "would be lost with it: no ring in" in link.alarm
    assert "ring_bytes" not in link.gauges
    assert list(file.path.parent.iterdir()) == []
    link.close()


def test_batches_that_no_ring_can_hold_go_without(
    address: str, file_of: Callable[[], RingFile]
) -> None:
    link = Link(address, "p0", 1 << 20, file=file_of())
    link.expect(20 << 20)
    assert "batches of 21 MB do not fit into a ring of 18 MB" in link.alarm
    assert link.room
    link.close()


def test_a_batch_is_begun_only_when_the_ring_has_room_for_it(
    hub: Hub, address: str, file_of: Callable[[], RingFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    size = batch(0).buffer.nbytes
    monkeypatch.setattr(links, "SPARE", 2 * size)
    link = Link(address, "p0", 10 * size, file=file_of())
    link.expect(int(3.2 * size))
    link.send(RUN, SCHEMA, Provenance())
    n = 0
    while link.room:
        n += 1
        link.send(RUN._replace(kind="shots"), SCHEMA, batch(n))
    assert n == 9  # the window alone would take ten
    gauges = link.gauges
    assert 9 * size < gauges["ring_bytes"] <= gauges["ring_high_water_bytes"]
    assert gauges["ring_high_water_bytes"] < gauges["ring_size_bytes"] == 12 * size
    link.send(RUN._replace(kind="end_run"), None, EndRun())
    for m in taken(hub, link, n=11):
        hub.ack("p0", link.epoch, m.header.seq)
    until(lambda: link.room and not link.unacked, lambda: link.pump(0.01))
    assert link.alarm == ""
    assert link.gauges["ring_bytes"] < 1000, "the end of the run is left, its beginning is not"
    link.close()


def test_a_run_is_resumed_behind_what_is_done(caplog: pytest.LogCaptureFixture) -> None:
    items = [BeginStep(0), ListedShot(1, {}), ListedShot(2, {}), BeginStep(1), ListedShot(3, {})]
    run = ListedRun({}, items)
    got = [*Resume(run.info, 2, 2).items(run)]
    assert got == [items[0], Idle(), Idle(), items[3], items[4]]
    assert caplog.text == ""
    got = [*Resume(run.info, 1, 9).items(run)]
    assert got[1:] == [Idle(), *items[2:]]
    assert "the source has another order now" in caplog.text


def test_shots_taken_while_a_run_was_prepared_are_told_with_the_run_begun_for_it(
    hub: Hub, address: str, file_of: Callable[[], RingFile]
) -> None:
    """Killed before it knew its columns: its begin_run has none but those that every run has."""
    dead = Fate(address, file_of())
    dead.link.promise(RUN, Schema(CORE), Provenance("the configuration"))
    for stamp in (7, 8, 9):
        dead.link.note(stamp)
    assert dead.link.promised
    assert dead.link.unacked == 0
    dead.is_killed()
    aggregate, file = Aggregate(hub), file_of()
    inherit(file, address, aggregate, live=True)
    begin, end = (m for m in aggregate.got if m.header.seq)
    assert begin.schema == Schema(CORE)
    assert begin.body == Provenance("the configuration")
    assert end.body == EndRun(DIED)
    assert end.header.counts == {"read": 3, "lost": {DIED: 3}}
    assert [loss[1] for loss in end.header.losses] == [7, 8, 9]
    file.close(remove=True)


def test_a_promise_is_kept_by_the_begin_run_or_withdrawn(
    address: str, file_of: Callable[[], RingFile]
) -> None:
    dead = Fate(address, file_of())
    dead.link.promise(RUN, Schema(CORE), Provenance())
    dead.begin()
    assert not dead.link.promised
    dead.link.promise(RUN._replace(run=4), Schema(CORE), Provenance())
    dead.link.withdraw()
    assert not dead.link.promised
    dead.is_killed()
    file = file_of()
    left = file.read()
    assert left is not None
    ((header, schema, _),) = (Decoder()(m.frames) for m in left.messages)
    assert (header.run, schema) == (3, SCHEMA)
    file.close(remove=True)
