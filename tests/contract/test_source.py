"""What every source promises, whatever it reads from."""

import threading

import numpy as np
import pytest

from ffb.shot import BeginStep, Idle
from ffb.sources.files import FilesSource
from ffb.sources.learn import CONFIRM
from ffb.sources.replay import ReplaySource
from ffb.testing.fabricate import RunSpec
from tests.contract.readers import read, take
from tests.contract.sources import CASES, ON_PSANA, RECORDED, XTC2, Recorder, recorded_runs

_read = {}


def parametrised():
    return [pytest.param(c, marks=[pytest.mark.psana] * (c in ON_PSANA)) for c in CASES]


@pytest.fixture(params=parametrised())
def case(request):
    made = CASES[request.param](request)
    yield made
    made.close()


@pytest.fixture(params=parametrised())
def both(request):
    """A case and what was read from it, once for all tests."""
    if request.param not in _read:
        made = CASES[request.param](request)
        _read[request.param] = made, read(made)
        made.close()
    return _read[request.param]


def test_runs_come_in_order_and_say_who_they_are(both):
    case, taken = both
    assert [(t.info.exp, t.info.run) for t in taken] == case.infos
    for t in taken:
        assert 0 < t.info.began < t.rows[0].timestamp
        assert t.ended == case.ended


def test_every_shot_comes_once_in_order_and_is_the_truth(both):
    case, taken = both
    for r, t in enumerate(taken):
        assert t.problems == []
        assert set(t.inputs) == set(case.fields)
        assert [row.timestamp for row in t.rows] == [
            case.row(r, i).timestamp for i in range(case.shots[r])
        ]
        for i, row in enumerate(t.rows):
            want = case.row(r, i)
            assert row.pulse_id == want.pulse_id, i
            assert row.codes == want.codes, i
            for name, value in want.values.items():
                got = row.values[name]
                assert (got is None) == (value is None), (i, name)
                if value is not None:
                    np.testing.assert_array_equal(got, value, err_msg=f"shot {i}, {name}")


def test_what_is_missing_is_absent_and_something_is(both):
    case, taken = both
    for name in case.absent:
        there = [row.values[name] is not None for t in taken for row in t.rows]
        assert any(there)
        assert not all(there)


def test_types_are_what_was_declared(both):
    case, taken = both
    for t in taken:
        for name, declared in t.inputs.items():
            value = next(r.values[name] for r in t.rows if r.values[name] is not None)
            assert value.dtype == np.dtype(declared.dtype), name
            assert value.shape == declared.shape, name
            assert declared.kind == ("area" if name in case.areas else "value"), name
            assert declared.kind == "value" or len(declared.shape) == 3, name


def test_steps_carry_their_motors_and_every_shot_is_in_its_step(both):
    case, taken = both
    for r, t in enumerate(taken):
        assert [s.step for s in t.steps] == list(range(len(case.steps[r])))
        assert [dict(s.values) for s in t.steps] == case.steps[r]
        assert [row.step for row in t.rows] == [case.row(r, i).step for i in range(case.shots[r])]


def test_a_quiet_source_idles(both):
    case, taken = both
    assert all((t.idles > 0) == case.quiet for t in taken)


def test_fields_are_listed_and_an_unknown_one_is_answered_with_the_nearest(case):
    source = case.make()
    try:
        run = next(iter(source.runs()))
        assert set(case.fields.values()) <= set(run.fields)
        assert all(isinstance(word, str) and word for word in run.fields.values())
        assert set(run.motors) == set(case.steps[0][0])
        name, field = next(iter(case.fields.items()))
        inputs, problems = run.bind({name: field, "strange": case.wrong}, {})
        assert list(inputs) == [name]
        [problem] = problems
        assert "strange" in problem
        assert case.near in problem
    finally:
        source.close()


def test_nothing_need_be_bound(case):
    source = case.make()
    try:
        t = take(next(iter(source.runs())), {}, case.wait)
        assert len(t.rows) == case.shots[0]
        assert t.rows[3].pulse_id == case.row(0, 3).pulse_id
    finally:
        source.close()


@pytest.mark.parametrize("by", ["signal handler", "thread"])
def test_stop_ends_the_run_and_the_source(case, by):
    source = case.make()
    try:
        runs = iter(source.runs())
        run = next(runs)
        run.bind(case.fields, {})
        shots = 0
        for item in run:
            if isinstance(item, Idle):
                case.wait()
            elif not isinstance(item, BeginStep):
                shots += 1
                if shots == 5 and by == "thread":
                    stopper = threading.Thread(target=source.stop)
                    stopper.start()
                    stopper.join()
                elif shots == 5:
                    source.stop()
        assert 5 <= shots <= CONFIRM, "what was looked at ahead is not thrown away"
        assert run.ended not in ("", "end of run")
        assert next(runs, None) is None
    finally:
        source.close()


def test_a_source_closed_before_it_was_read_has_no_runs(case):
    source = case.make()
    source.close()
    source.close()
    assert list(source.runs()) == []


@pytest.mark.psana
@pytest.mark.parametrize("producers", [1, 3])
def test_producers_share_the_shots_of_files(run_file, run_spec, producers):
    seen = []
    for k in range(producers):
        source = FilesSource([run_file], producer=k, producers=producers)
        [t] = [take(run, {"i0": XTC2["i0"]}) for run in source.runs()]
        assert len(t.steps) == run_spec.steps
        assert len(t.rows) > run_spec.shots // producers // 3
        seen += [row.timestamp for row in t.rows]
    assert sorted(seen) == [run_spec.timestamp(i) for i in range(run_spec.shots)]


@pytest.mark.parametrize("producers", [1, 3])
def test_a_capture_of_several_producers_gives_every_row_once_in_its_step(tmp_path, producers):
    runs = recorded_runs()
    recorder = Recorder(tmp_path / "capture", producers)
    recorder.record(runs[0])
    recorder.writer.close()
    [t] = [take(run, RECORDED) for run in ReplaySource(tmp_path / "capture").runs()]
    rows = {row.timestamp: row for row in t.rows}
    assert len(rows) == len(t.rows) == 60
    for i, stamp in enumerate(runs[0].timestamps.tolist()):
        assert rows[stamp].step == runs[0].step_of[i]
        assert rows[stamp].values["i0"] == runs[0].energy[i]


def test_a_capture_that_breaks_off_says_so(tmp_path, caplog):
    path = tmp_path / "capture"
    recorder = Recorder(path)
    recorder.record(recorded_runs()[0])
    recorder.writer.close()
    data = bytearray(path.read_bytes())
    path.write_bytes(data[: len(data) * 3 // 4])
    [t] = [take(run, RECORDED) for run in ReplaySource(path).runs()]
    assert 20 < len(t.rows) < 60
    assert t.ended.startswith("no end of run")
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    [t] = [take(run, RECORDED) for run in ReplaySource(path).runs()]
    assert 10 < len(t.rows) < 50
    assert "replay ends early" in caplog.text
    path.write_bytes(b"something else")
    with pytest.raises(ValueError, match="not a capture"):
        ReplaySource(path)


@pytest.mark.psana
def test_the_fabricated_run_lacks_detectors(run_spec):
    assert isinstance(run_spec, RunSpec)
    assert not all(run_spec.has_area(i) for i in range(run_spec.shots))
