"""A producer's sums leave as deltas: behind their rows, between batches, and never too many."""

import numpy as np
import pytest

from ffb import config
from ffb.batch import Batch
from ffb.producing.produce import Producer
from ffb.shot import BeginStep, Idle, Input
from ffb.sums import held as summing
from ffb.sums import outbox
from ffb.sums.piece import Parcel
from ffb.testing.listed import ListedRun, ListedShot
from tests.unit.produced import Source, Window

SHAPE = (1, 3, 8)
INPUTS = {"jf": Input("area", "<u2", SHAPE)}


class Narrow(Window):
    """A link that takes pieces while ``open``; ``opens`` after so many pumps."""

    def __init__(self, opens=0, **more):
        super().__init__(**more)
        self.opens, self.pumped, self.acked = opens, 0, 0

    def takes(self, size):
        return self.room and self.pumped >= self.opens

    def pump(self, timeout=0.0):
        super().pump(timeout)
        self.pumped += 1

    def pieces(self):
        return [(h, p) for h, b in self.sent if isinstance(b, Parcel) for p in b.pieces]


def settings(per="run", sums_s=1e-6, **more):
    return config.parse(
        {
            "source": {"kind": "synthetic"},
            "inputs": {"jf": {"detector": "jf", "field": "raw"}},
            "calibration": {"jf": "none"},
            "batch": {"shots": 4, "age_ms": 60_000.0, "sums_s": sums_s},
            "sums": {"jf": {"what": ["raw"], "per": per}},
            **more,
        }
    )


def shots(n, start=0):
    return [ListedShot(start + i, {"jf": np.full(SHAPE, start + i, np.uint16)}) for i in range(n)]


def taken(link, *items, live=False, **more):
    producer = Producer(settings(**more), Source(ListedRun(INPUTS, items), live=live), link, "p0")
    producer.loop()
    return producer


def test_a_delta_leaves_behind_its_rows_and_books_never_go_back():
    link = Narrow()
    taken(link, *shots(10), Idle(), *shots(3, 10), Idle())
    rows = summed = 0
    told = {}
    for _, body in link.sent:
        if isinstance(body, Batch):
            rows += body.n
        elif isinstance(body, Parcel):
            told |= {p.delta: p.fates.shots for p in body.pieces}
            summed = sum(told.values())
            assert summed <= rows
    assert summed == rows == 13
    reads = [h.counts["read"] for h, _ in link.sent]
    assert reads == sorted(reads)
    total = sum(b.values.astype(int) for _, b in link.pieces() if b.what == "raw")
    np.testing.assert_array_equal(total, sum(range(13)))


def test_books_do_not_go_back_where_pieces_wait_longer_than_batches(monkeypatch):
    monkeypatch.setattr(summing, "PIECE_BYTES", 64)
    monkeypatch.setattr(outbox, "PIECE_BYTES", 64)
    link = Narrow(opens=4)
    taken(link, *(x for s in shots(30) for x in (s, Idle())))
    late = [k for k, (_, b) in enumerate(link.sent) if isinstance(b, Parcel)]
    assert any(isinstance(b, Batch) for _, b in link.sent[: late[0]])
    assert any(isinstance(b, Batch) for _, b in link.sent[late[0] : late[-1]])
    reads = [h.counts["read"] for h, _ in link.sent]
    assert reads == sorted(reads)
    assert sum({b.delta: b.fates.shots for _, b in link.pieces()}.values()) == 30


def test_steps_have_deltas_of_their_own():
    link = Narrow()
    steps = [BeginStep(k) for k in range(3)]
    items = [steps[0], *shots(3), steps[1], steps[2], *shots(2, 3)]
    taken(link, *items, per="step", sums_s=1000.0)
    assert {(b.step, b.fates.shots) for _, b in link.pieces()} == {(0, 3), (2, 2)}
    assert [h.kind for h, _ in link.sent][-1] == "end_run"


@pytest.mark.parametrize("live", [True, False])
def test_shots_wait_or_are_shed_while_too_many_deltas_wait(monkeypatch, live):
    monkeypatch.setattr(outbox, "SPARE", 0)
    link = Narrow(opens=12)
    items = [x for k in range(8) for x in (BeginStep(k), *shots(3, 3 * k))]
    producer = taken(link, *items, live=live, per="step", sums_s=1000.0)
    lost = sum(producer.losses.total.values())
    rows = sum(b.n for _, b in link.batches())
    assert rows + lost == 24
    assert (lost > 0) == live
    assert sum({b.delta: b.fates.shots for _, b in link.pieces()}.values()) == rows


def test_an_end_does_not_wait_for_ever_for_an_aggregator_that_takes_nothing():
    link = Narrow(opens=1 << 60)
    taken(link, *shots(3), aggregate={"end_timeout_s": 0.01})
    assert not link.pieces()
    assert link.sent[-1][0].kind == "end_run"
