"""A producer sends every shot it takes, and counts every one it does not."""

import numpy as np
import pytest

from ffb import config
from ffb.batch import Batch
from ffb.produce import Producer
from ffb.shot import BeginStep, Idle, Input
from ffb.testing.listed import ListedRun, ListedShot
from ffb.wire import EndRun

TOML = """
[source]
kind = "synthetic"

[inputs]
energy = { detector = "gasdet", field = "energy", record = true }

[batch]
shots = 4
age_ms = 60000
"""
ENERGY = {"energy": Input("value", "<f8", ())}


class Window:
    """A link whose aggregator acknowledges when told to; ``size`` messages fit."""

    def __init__(self, size=1000, acks=False):
        self.size, self.acks = size, acks
        self.sent, self.waiting, self.said = [], 0, []
        self.in_flight_bytes = self.high_water = self.resent = 0

    @property
    def room(self):
        return self.waiting < self.size

    def send(self, header, schema, body):
        self.sent.append((header, body))
        self.waiting += isinstance(body, Batch)

    def pump(self, timeout=0.0):
        if self.acks:
            self.waiting = 0

    def status(self, numbers):
        self.said.append(numbers)

    def batches(self):
        return [(h, b) for h, b in self.sent if isinstance(b, Batch)]


class Source:
    def __init__(self, *runs, live=True):
        self.all, self.live, self.stopped = runs, live, False

    def runs(self):
        yield from self.all

    def stop(self):
        self.stopped = True


@pytest.fixture
def settings(tmp_path):
    file = tmp_path / "exp.toml"
    file.write_text(TOML)
    return config.load(file)


def shots(n, start=0):
    return [ListedShot(start + i, {"energy": float(start + i)}) for i in range(n)]


def run_of(*items, inputs=ENERGY):
    return ListedRun(inputs, items, motors=("lxt",))


def test_every_shot_is_sent_in_order_with_its_step_and_the_books_close(settings):
    first, second = BeginStep(0, {"lxt": -1.0}), BeginStep(1, {"lxt": 2.0})
    run = run_of(first, *shots(3), Idle(), second, *shots(7, 3))
    link = Window()
    assert Producer(settings, Source(run), link, "p0").loop() == 1
    kinds = [h.kind for h, _ in link.sent]
    assert kinds == ["begin_run", "step", "step", "shots", "shots", "shots", "end_run"]
    columns = [b.columns for _, b in link.batches()]
    assert np.concatenate([c["timestamp"] for c in columns]).tolist() == list(range(10))
    assert np.concatenate([c["energy"] for c in columns]).tolist() == [float(i) for i in range(10)]
    assert np.concatenate([c["step"] for c in columns]).tolist() == [0] * 3 + [1] * 7
    assert np.concatenate([c["scan/lxt"] for c in columns]).tolist() == [-1.0] * 3 + [2.0] * 7
    header, body = link.sent[-1]
    assert body == EndRun("end of run")
    assert header.counts == {"read": 10, "lost": {}}
    assert [h.counts["read"] for h, _ in link.batches()] == [4, 8, 10]


def test_shots_that_cannot_wait_are_lost_whole_and_counted(settings):
    link = Window(size=2)
    Producer(settings, Source(run_of(*shots(30)), live=True), link, "p0").loop()
    assert sum(b.n for _, b in link.batches()) == 8
    assert link.sent[-1][0].counts == {"read": 30, "lost": {"backpressure": 22}}


def test_shots_that_can_wait_are_never_lost(settings):
    link = Window(size=1, acks=True)
    Producer(settings, Source(run_of(*shots(30)), live=False), link, "p0").loop()
    assert sum(b.n for _, b in link.batches()) == 30
    assert link.sent[-1][0].counts == {"read": 30, "lost": {}}


def test_a_batch_goes_when_it_is_old_although_it_is_not_full(settings):
    aged = settings.model_copy(update={"batch": settings.batch.model_copy(update={"age_ms": 1e-6})})
    link = Window()
    Producer(aged, Source(run_of(*shots(3))), link, "p0").loop()
    assert [b.n for _, b in link.batches()] == [2, 1]


def test_a_run_that_fails_in_the_middle_sends_what_it_took_and_says_so(settings):
    class Broken(ListedRun):
        def __iter__(self):
            yield from shots(2)
            raise ConnectionError("the server is gone")

    link = Window()
    with pytest.raises(ConnectionError):
        Producer(settings, Source(Broken(ENERGY)), link, "p0").loop()
    assert [b.n for _, b in link.batches()] == [2]
    assert link.sent[-1][1] == EndRun("producer failed")


def test_stopping_ends_the_run_with_the_reason(settings):
    class Endless(ListedRun):
        ended = ""

        def __iter__(self):
            yield from shots(2)
            producer.stop()

    source, link = Source(Endless(ENERGY), run_of(*shots(5))), Window()
    producer = Producer(settings, source, link, "p0")
    assert producer.loop() == 1
    assert source.stopped
    assert link.sent[-1][1] == EndRun("stopped")


def test_the_first_run_must_fit_and_a_later_one_may_pass_by(settings, caplog):
    fits, misfit = run_of(*shots(2)), run_of(*shots(3), inputs={})
    with pytest.raises(config.ConfigError, match="the run has no gasdet"):
        Producer(settings, Source(misfit), Window(), "p0").loop()
    link = Window()
    source = Source(run_of(*shots(2)), run_of(*shots(3), inputs={}), fits)
    assert Producer(settings, source, link, "p0").loop() == 3
    assert [h.kind for h, _ in link.sent].count("begin_run") == 2
    alarms = [s["alarm"] for s in link.said if "alarm" in s]
    assert "run 1 is not reduced: inputs.energy: the run has no gasdet.raw.energy" in alarms[0]
    assert "3 shots passed by" in caplog.text
