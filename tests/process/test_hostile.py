"""Whatever a stranger sends, the rows of others are written and the books of their run balance."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import ffb
from ffb.aggregating.serve import Service
from ffb.schema import CORE, Column, Schema
from ffb.shot import BeginStep
from ffb.sink import Provenance
from ffb.wire import EndRun
from tests.process.strangers import EXP, FIRST, SCHEMA, Honest, Stranger, rows, serve, serve_until
from tests.unit.hostile import corpus

BIG = 2**64 - 1
FOREIGN = Schema((*CORE, Column("y", "<i2", (2, 2), ("a", "b"))))
CORPUS = corpus()

Conduct = Callable[[Stranger], None]


@pytest.fixture
def service(tmp_path) -> Iterator[Service]:
    out = serve(tmp_path)
    yield out
    out.close()


@pytest.fixture
def good(service) -> Iterator[Honest]:
    out = Honest(service)
    out.shots()
    serve_until(service, lambda: out.link.unacked == 0, out)
    yield out
    out.link.close()


@pytest.fixture
def evil(service) -> Iterator[Stranger]:
    out = Stranger(service)
    yield out
    out.close()


def refused(service: Service) -> int:
    """Messages not understood, rows refused, messages out of turn: whatever was counted."""
    order, rejected = service.hub.order, service.hub.rejected
    counted = rejected.total() + service.aggregator.refused.total()
    return counted + order.gaps + order.repeated


def finish(service: Service, good: Honest, *strangers: Stranger) -> None:
    """Some more good rows, the end, and the file as it must be."""
    good.shots()
    serve_until(service, lambda: good.link.unacked == 0, good, *strangers)
    good.end()
    for run in service.aggregator._runs.values():  # strangers never end
        assert run.attendance.patience_ns
        run.attendance.patience_ns = 0
    serve_until(service, lambda: not service.aggregator.open, good, *strangers)
    assert not [p for closed in service.aggregator.closed for p in closed.problems if "good" in p]
    folder = Path(service.hub.address.removeprefix("ipc://")).parent
    with ffb.open(folder / "h5" / f"{EXP}_Run0001.h5") as run:
        assert run.complete
        assert run.counts.producers["good"]["written"] == len(good.stamps)
        stamps, values = run["timestamp"][:], run["x"][:]
    mine = np.isin(stamps, np.array(good.stamps, np.uint64))
    assert set(stamps[mine].tolist()) == {*good.stamps}
    np.testing.assert_array_equal(values[mine], stamps[mine].astype(float))


def join(evil: Stranger) -> None:
    evil.begin()


REFUSED: dict[str, Conduct] = {
    "no prefix": lambda e: e.raw(b"hello"),
    "an empty frame": lambda e: e.raw(b""),
    "a web browser": lambda e: e.raw(b"GET / HTTP/1.1\r\n\r\n"),
    "another magic": lambda e: e.put(b"H", 0, b"evil", magic=b"ffb9"),
    "a type that is none": lambda e: e.put(b"?", 0, b"evil"),
    "a Hello without a name": lambda e: e.put(b"H", 0),
    "a Hello without a heritage": lambda e: e.put(b"H", 0, b"evil"),
    "a Hello with too short a heritage": lambda e: e.put(b"H", 0, b"evil", b"\0"),
    "a Hello with too long a heritage": lambda e: e.put(b"H", 0, b"evil", bytes(9)),
    "a Hello by another name": lambda e: e.hello("good"),
    "a Hello by no name": lambda e: e.hello(""),
    "a Hello by a path": lambda e: e.hello("../x"),
    "rows before a Hello": lambda e: e.shots(rows(2**41), 3),
    "a frame too few": lambda e: (e.hello(), e.data(b"", b"")),
    "a frame too many": lambda e: (e.hello(), e.data(b"", b"", b"", b"")),
    "rows of a run never begun": lambda e: (e.hello(), e.shots(rows(2**41), 3)),
    "rows of another run": lambda e: (join(e), e.shots(rows(2**41), 3, run=99)),
    "rows of another experiment": lambda e: (join(e), e.shots(rows(2**41), 3, exp="other0001")),
    "a run of another experiment": lambda e: e.begin(exp="other0001"),
    "a run of no experiment": lambda e: e.begin(exp=""),
    "rows in another's name": lambda e: (join(e), e.shots(rows(2**41), 3, producer="good")),
    "rows of another process": lambda e: (join(e), e.shots(rows(2**41), 3, epoch=8)),
    "rows with another number": lambda e: (join(e), e.shots(rows(2**41), 3, seq=77)),
    "a message sent again": lambda e: (join(e), e.put(b"D", 1, b"", b"", b"")),
    "a message ahead of its turn": lambda e: (join(e), e.put(b"D", 9, b"", b"", b"")),
    "a message at the end of numbers": lambda e: (join(e), e.put(b"D", BIG, b"", b"", b"")),
    "a step without a number": lambda e: (e.hello(), e.put(b"T", 0, *CORPUS["a step of NaN"])),
    "rows for a status": lambda e: (e.hello(), e.put(b"T", 0, *CORPUS["rows as a fraction"])),
    "a status of a megabyte": lambda e: (
        e.hello(),
        e.put(b"T", 0, *CORPUS["a status of a megabyte"]),
    ),
}


@pytest.mark.parametrize("conduct", REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_is_counted_and_costs_the_others_nothing(conduct, service, good, evil):
    before = refused(service)
    conduct(evil)
    serve_until(service, lambda: refused(service) > before, good, evil)
    finish(service, good, evil)


def test_the_whole_corpus_in_one_connection(service, good, evil):
    evil.begin()
    for frames in CORPUS.values():
        if len(frames) == 3:
            evil.data(*frames)
    sent = evil.seq - 1
    serve_until(service, lambda: service.hub.rejected["evil"] == sent, good, evil)
    serve_until(service, lambda: evil.acked == evil.seq, good, evil)
    finish(service, good, evil)


TAKEN: dict[str, Conduct] = {
    "timestamps from nowhere": lambda e: e.shots(rows(1, timestamp=[0, BIG, 2**63]), 3),
    "timestamps all the same": lambda e: e.shots(rows(1, timestamp=FIRST, x=FIRST), 3),
    "timestamps of the others": lambda e: e.shots(rows(FIRST), 3),
    "no rows at all": lambda e: e.shots(rows(2**41, 0), 0),
    "a light that is none": lambda e: e.shots(rows(2**41, **{"lightStatus/laser": 100}), 3),
    "a light below all": lambda e: e.shots(rows(2**41, **{"lightStatus/xray": -128}), 3),
    "a step from nowhere": lambda e: e.shots(rows(2**41, step=2**31 - 1), 3),
    "a step below all": lambda e: e.shots(rows(2**41, step=-(2**31)), 3),
    "numbers that are none": lambda e: e.shots(rows(2**41, x=[np.nan, np.inf, -np.inf]), 3),
    "numbers beyond all": lambda e: e.shots(rows(2**41, x=[1.7e308, -1.7e308, 5e-324]), 3),
    "read before time": lambda e: e.shots(rows(2**41, read=[-(2**63), 0, 2**63 - 1]), 3),
    "kept more than all": lambda e: e.shots(rows(2**41, **{"ffb/kept": np.nan}), 3),
    "what only the aggregator knows": lambda e: e.shots(
        rows(2**41, **{"ffb/producer": 65535, "ffb/epoch": 65535, "ffb/late": True}), 3
    ),
    "fewer read than sent": lambda e: e.shots(rows(2**41), 1),
    "more lost than read": lambda e: e.shots(rows(2**41), 3, {"x": 10**15}),
    "a loss of what is written": lambda e: e.shots(
        rows(2**41), 4, {"x": 1}, losses=[["x", 2**41, 2**41 + 2, 1]]
    ),
    "a loss of shots backwards": lambda e: e.shots(
        rows(2**41), 4, {"x": 1}, losses=[["x", 2**50, 1, 1]]
    ),
    "losses that are not in the counts": lambda e: e.shots(
        rows(2**41), 3, {}, losses=[["x", 1, 2, 2**62]]
    ),
    "counts that go back": lambda e: (e.shots(rows(2**41), 300), e.shots(rows(2**41 + 9), 2)),
    "a reason that is none": lambda e: e.shots(rows(2**41), 4, {"\n\u202eforged \x1b[31m": 1}),
    "a hundred reasons": lambda e: e.shots(rows(2**41), 103, {f"r{i}": 1 for i in range(100)}),
    "other columns in mid-run": lambda e: e.shots(rows(2**41, schema=FOREIGN), 3),
    "steps at random": lambda e: [
        e.say("step", None, BeginStep(s, {"lxt": float("nan")}, "\n", 0)) for s in (9, 2**31 - 1, 0)
    ],
    "an end, and then rows": lambda e: (
        e.say("end_run", None, EndRun()),
        e.shots(rows(2**41), 3),
    ),
    "an end without end": lambda e: [e.say("end_run", None, EndRun("x" * 60000)) for _ in range(9)],
    "the beginning again": lambda e: e.say("begin_run", SCHEMA, _provenance(), seq=2),
}


def _provenance():
    return Provenance("other", {"r": {"params": {"x": float("nan")}}}, {}, {}, "h" * 9999, "", ())


@pytest.mark.parametrize("conduct", TAKEN.values(), ids=TAKEN.keys())
def test_what_could_be_is_taken_and_costs_the_others_nothing(conduct, service, good, evil):
    evil.begin()
    conduct(evil)
    serve_until(service, lambda: evil.acked == evil.seq, good, evil)
    finish(service, good, evil)
    assert not service._shown.fault
    assert service._snapshot(time.monotonic_ns())


def test_a_second_process_of_a_name_is_refused_with_a_sentence(service, good):
    other = Stranger(service, "good", 2**62)
    other.hello()
    serve_until(service, lambda: bool(other.said), good, other)
    assert b"'good' is already at work" in other.said
    finish(service, good, other)
    other.close()


def test_strangers_with_a_thousand_names_do_not_fill_the_memory(service, good):
    for k in range(300):
        other = Stranger(service, f"x{k}")
        other.hello()
        other.put(b"?", 0)
        serve_until(service, lambda k=k: service.hub.rejected.total() > k, good, other)
        other.close()
    assert len(service.hub.rejected) <= 101
    finish(service, good)
