"""A producer sends every shot it takes, and counts every one it does not."""

import numpy as np
import pytest

from ffb import config
from ffb.plan import Plan
from ffb.producing.heir import Resume
from ffb.producing.produce import Producer
from ffb.schema import CORE, Schema
from ffb.shot import BeginStep, Idle
from ffb.source import RunInfo
from ffb.testing.listed import ListedRun, ListedShot
from ffb.wire import EndRun
from tests.unit.produced import ENERGY, TOML, Source, Window, run_of, shots


@pytest.fixture
def settings(tmp_path):
    file = tmp_path / "exp.toml"
    file.write_text(TOML)
    return config.load(file)


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


def test_a_run_of_another_experiment_is_refused_with_a_sentence(settings):
    other, again, link = run_of(*shots(3)), run_of(*shots(3)), Window()
    other.info = RunInfo("xpplx1001", 12)
    said = "source.exp: 'tstx00001', but the stream is of 'xpplx1001', run 12"
    with pytest.raises(config.ConfigError, match=said):
        Producer(settings, Source(other), link, "p0").loop()
    assert link.sent == []
    assert Producer(settings, Source(again, other), link, "p0").loop() == 2  # it passes by later
    assert {h.exp for h, _ in link.sent} == {"tstx00001"}
    assert said in link.said[-1]["alarm"]


def test_who_connects_late_is_told_that_a_run_is_prepared(settings):
    class Late(Window):
        """Its aggregator is there at the tenth look, and hears nothing before."""

        looks = 0

        def pump(self, timeout=0.0):
            self.looks += 1
            self.connected = self.looks >= 10

        def status(self, numbers):
            if self.connected:
                self.said.append(numbers["doing"])

    link = Late()
    link.connected = False
    Producer(settings, Source(run_of(*shots(3))), link, "p0").loop()
    assert link.said[0].startswith("preparing run")


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


def balanced(link):
    """Check that every message's losses agree with its counts; returns what was told."""
    told, so_far = [], {}
    for header, _ in link.sent:
        for reason, _, _, n in header.losses:
            so_far[reason] = so_far.get(reason, 0) + n
        told += header.losses
        if header.kind in {"shots", "end_run"}:
            assert header.counts["lost"] == so_far
    rows = sum(b.n for _, b in link.batches())
    assert link.sent[-1][0].counts["read"] == rows + sum(so_far.values())
    return told


def test_every_loss_is_told_with_its_timestamp(settings):
    link = Window(size=2)
    Producer(settings, Source(run_of(*shots(30)), live=True), link, "p0").loop()
    told = balanced(link)
    written = np.concatenate([b.columns["timestamp"] for _, b in link.batches()]).tolist()
    assert [loss[0] for loss in told] == ["backpressure"] * 22
    assert sorted([*written, *(loss[1] for loss in told)]) == [*range(30)]


def test_what_is_kept_says_with_how_many_others_it_was(settings):
    link = Window(size=4)
    Producer(settings, Source(run_of(*shots(400)), live=True), link, "p0").loop()
    balanced(link)
    kept = np.concatenate([b.columns["ffb/kept"] for _, b in link.batches()])
    assert kept.tolist() == sorted(kept, reverse=True)
    assert kept[0] == 1.0
    assert kept[-1] < 0.5
    assert set(kept) <= {0.5**k for k in range(7)}
    link = Window()
    Producer(settings, Source(run_of(*shots(9)), live=False), link, "p0").loop()
    assert {k for _, b in link.batches() for k in b.columns["ffb/kept"]} == {1.0}


def test_what_the_disk_holds_up_is_lost_to_the_disk(settings):
    link = Window(size=1)
    link.held = True
    Producer(settings, Source(run_of(*shots(9)), live=True), link, "p0").loop()
    balanced(link)
    assert link.sent[-1][0].counts["lost"] == {"disk": 5}


class Torn(ListedShot):
    def fill(self, block, row):
        raise ValueError("datagram of 12 bytes, 4096 announced")


def test_a_shot_that_cannot_be_read_is_lost_as_damaged_and_told_now_and_then(settings, caplog):
    items = [*shots(2), *(Torn(2 + k, {}) for k in range(30)), *shots(3, 32)]
    link = Window()
    Producer(settings, Source(run_of(*items), live=False), link, "p0").loop()
    assert balanced(link) == [["damaged", 2 + k, 2 + k, 1] for k in range(30)]
    written = np.concatenate([b.columns["timestamp"] for _, b in link.batches()])
    assert written.tolist() == [0, 1, 32, 33, 34]
    said = [r.message for r in caplog.records if "cannot be read" in r.message]
    assert said == [
        "shot 2 cannot be read (1 so far): datagram of 12 bytes, 4096 announced",
        "shot 11 cannot be read (10 so far): datagram of 12 bytes, 4096 announced",
    ]


def test_what_befell_a_run_is_in_the_log_when_it_ends(settings, caplog):
    run = run_of(*shots(3))

    def items():
        yield from shots(3)
        run.notes.append("input cam: in 2 shots not of shape [4], counted as absent")

    run.notes, run.items = ["no timing system"], items()
    Producer(settings, Source(run, live=False), Window(), "p0").loop()
    said = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert said == ["run 1: input cam: in 2 shots not of shape [4], counted as absent"]


def test_losses_alone_travel_when_they_are_old_and_there_is_room(settings):
    aged = settings.model_copy(update={"batch": settings.batch.model_copy(update={"age_ms": 1e-6})})
    items = [Torn(1, {}), Idle(), Torn(2, {}), Idle()]
    link = Window()
    Producer(aged, Source(run_of(*items), live=False), link, "p0").loop()
    balanced(link)
    messages = [(h.kind, h.losses) for h, _ in link.sent[1:]]
    assert messages == [
        ("shots", [["damaged", 1, 1, 1]]),
        ("shots", [["damaged", 2, 2, 1]]),
        ("end_run", []),
    ]
    assert [b.n for _, b in link.batches()] == [0, 0]
    full = Window(size=0)
    Producer(aged, Source(run_of(*items), live=True), full, "p0").loop()
    balanced(full)
    assert [h.kind for h, _ in full.sent] == ["begin_run", "end_run"]


def test_a_shot_in_hand_when_its_producer_fails_is_in_the_books(settings):
    class Fatal(ListedShot):
        def fill(self, block, row):
            raise RuntimeError("not a matter of this shot")

    link = Window()
    with pytest.raises(RuntimeError):
        Producer(settings, Source(run_of(*shots(2), Fatal(7, {}))), link, "p0").loop()
    assert balanced(link) == [["producer failed", 7, 7, 1]]
    assert link.sent[-1][1] == EndRun("producer failed")


def test_a_stop_while_a_shape_is_looked_for_is_no_fault_and_leaves_the_promise(settings):
    link = Window()
    producer = Producer(settings, Greedy(run_of(*shots(3), inputs={})), link, "p0")
    producer.stop()
    assert producer.loop() == 1
    assert link.sent == []
    assert [header.run for header, *_ in link.promises] == [1]


class Greedy(Source):
    """Takes the shots of a run at once, as one who looks ahead for a shape does."""

    def runs(self):
        for run in self.all:
            for item in run:
                self.note(item.timestamp)
            yield run

    def note(self, timestamp):
        raise AssertionError("nobody listens")


def test_a_first_run_that_ended_before_its_shapes_were_known_passes_by(settings, caplog):
    link, ended = Window(), run_of(inputs={})
    assert ended.ended
    assert Producer(settings, Greedy(ended, run_of(*shots(2))), link, "p0").loop() == 2
    assert [h.kind for h, _ in link.sent] == ["begin_run", "shots", "end_run"]
    assert "0 shots passed by" in caplog.text


def test_shots_taken_before_the_run_begins_are_noted_then_and_once(settings):
    run, link = run_of(*shots(6)), Window()
    producer = Producer(settings, source := Greedy(run), link, "p0")
    listening, source.note = source.note, lambda t: link.sent or listening(t)
    producer.loop()
    assert link.noted == [0, 1, 2, 3, 4, 5]
    ((header, schema, body, sent),) = link.promises
    assert (header.kind, header.run, sent) == ("begin_run", run.info.run, 0)
    assert schema == Schema(CORE)
    assert body.config == settings.text
    balanced(link)


def test_shots_of_a_run_that_passes_by_are_not_noted(settings):
    fits, misfit = run_of(*shots(2)), run_of(*shots(3), inputs={})
    link = Window()
    source = Greedy(fits, misfit)
    producer = Producer(settings, source, link, "p0")
    refuse, noted = producer._refuse, []
    producer._refuse = lambda *a: (refuse(*a), source.note(99), noted.extend(link.noted))
    assert producer.loop() == 2
    assert link.promises[-1] == "withdrawn"
    assert 99 not in noted


def test_a_run_that_can_be_read_again_goes_on_where_a_killed_one_had_sent(settings):
    run = run_of(BeginStep(0, {"lxt": 1.0}), *shots(4), BeginStep(1, {"lxt": 2.0}), *shots(5, 4))
    link = Window()
    resume = Resume(run.info, 6, 5)
    Producer(settings, Source(run, live=False), link, "p0", resume).loop()
    balanced(link)
    assert link.place == 6
    assert link.noted == [6, 7, 8]
    assert link.sent[-1][0].counts == {"read": 3, "lost": {}}
    columns = [b.columns for _, b in link.batches()]
    assert np.concatenate([c["timestamp"] for c in columns]).tolist() == [6, 7, 8]
    assert {s for c in columns for s in c["step"]} == {1}
    assert [b.step for h, b in link.sent if h.kind == "step"] == [0, 1]


def test_a_run_with_other_constants_than_the_one_before_says_so(settings, monkeypatch):
    runs = run_of(*shots(1)), run_of(*shots(1))
    names = property(lambda plan: {"jf": {"gain": "b" if plan._run is runs[1] else "a"}})
    monkeypatch.setattr(Plan, "constants", names)
    link = Window()
    Producer(settings, Source(*runs, live=False), link, "p0").loop()
    notes = [body.notes for head, body in link.sent if head.kind == "begin_run"]
    assert notes == [(), ("jf: gain changed since run 1: a, now b",)]


def test_another_run_than_the_one_left_is_read_from_its_beginning(settings):
    run = run_of(*shots(3))
    link = Window()
    resume = Resume(RunInfo(run.info.exp, 2), 2, 1)
    Producer(settings, Source(run, live=False), link, "p0", resume).loop()
    assert (link.place, link.noted) == (0, [0, 1, 2])


def test_a_step_tells_the_books_as_of_the_last_batch(settings):
    items = [*shots(6), BeginStep(1, {"lxt": 2.0}), *shots(2, 6)]
    link = Window()
    Producer(settings, Source(run_of(*items), live=False), link, "p0").loop()
    assert [h.counts["read"] for h, _ in link.sent] == [0, 4, 4, 8, 8]
    assert [h.kind for h, _ in link.sent] == ["begin_run", "shots", "step", "shots", "end_run"]


def test_a_step_waits_while_too_much_is_under_way(settings):
    class Busy(Window):
        def pump(self, timeout=0.0):
            self.pumped = getattr(self, "pumped", 0) + 1
            self.burst = self.pumped < 5

        def send(self, header, *more):
            assert not self.burst
            super().send(header, *more)

    link = Busy()
    link.burst = True
    Producer(settings, Source(run_of(BeginStep(0, {}), *shots(1))), link, "p0").loop()
    assert [h.kind for h, _ in link.sent] == ["begin_run", "step", "shots", "end_run"]
