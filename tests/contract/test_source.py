"""What every source promises, whatever it reads from."""

import threading

import numpy as np
import pytest

from ffb.batch import Batch
from ffb.schema import CORE, Column, Schema
from ffb.shot import BeginStep, Field, Idle
from ffb.sink import Provenance
from ffb.sources import synthetic as syn
from ffb.sources.files import FilesSource
from ffb.sources.learn import CONFIRM
from ffb.sources.psana import Meaning
from ffb.sources.replay import ReplaySource
from ffb.sources.shmem import ShmemSource
from ffb.testing.fabricate import LiveWriter, RunSpec
from ffb.wire import EndRun, Header, encode
from ffb.writers.capture import CaptureWriter
from tests.contract.readers import Case, Row, read, take

XTC2 = {
    "area": Field("jungfrau", "raw", "raw"),
    "edge": Field("tmo_opal", "ttfex", "fltpos"),
    "i0": Field("gasdet", "raw", "f11ENRC"),
    "wave": Field("w8", "raw", "raw_3"),
    "count": Field("w8", "fex", "integral_2"),
}
SLOW = {"pv": Field("epics", "raw", "lxt_vitara")}


def truth_of(spec, i, slow=True):
    """Shot ``i`` of a fabricated run."""
    values = {
        "area": spec.raw(i) if spec.has_area(i) else None,
        "edge": spec.fltpos(i) if spec.has_time_tool(i) else None,
        "i0": spec.i0(i),
        "wave": spec.wave(i, 3),
        "count": spec.wave_integral(i, 2),
    }
    if slow:
        values["pv"] = spec.pv(spec.slow_index(i))
    codes = set(spec.codes(i))
    return Row(spec.timestamp(i), spec.pulse_id(i), codes, spec.step(i), values)


def xtc2_case(spec, make, slow=True, **more):
    steps = [{"lxt": spec.motor(s), "step_value": float(s)} for s in range(spec.steps)]
    given = {
        "make": make,
        "fields": XTC2 | (SLOW if slow else {}),
        "infos": [(spec.exp, spec.run)],
        "shots": [spec.shots],
        "steps": [steps],
        "row": lambda run, i: truth_of(spec, i, slow),
        "wrong": Field("jungfrau", "raw", "row"),
        "near": "raw.raw",
        "quiet": False,
    }
    return Case(**given | more)


def synthetic_case():
    spec = syn.Synthetic(
        run=5, runs=2, shots=60, steps=3, samples=(32, 16), rate=500.0,
        missing={"timetool": 0.3, "area": 0.2, "timing": 0.1}, shape=(2, 16, 24),
    )  # fmt: skip
    runs = list(syn.SyntheticSource(spec).runs())
    fields = {"area": syn.AREA, "wave": syn.WAVE, "i0": syn.ENERGY, "edge": syn.EDGE}

    def row(r, i):
        run = runs[r]
        timed = not run.missing["timing"][i]
        return Row(
            run.timestamps[i],
            run.pulse_id(i) if timed else 0,
            set(run.codes(i)) if timed else None,
            int(run.step_of[i]),
            {name: run.value(f, i) for name, f in fields.items()},
        )

    delays = [{"delay": d} for d in (-2.0, 0.0, 2.0)]
    return Case(
        make=lambda: syn.SyntheticSource(spec),
        fields=fields,
        infos=[(spec.exp, 5), (spec.exp, 6)],
        shots=[60, 60],
        steps=[delays, delays],
        row=row,
        wrong=Field("timetol", "ttfex", "fltpos"),
        near="timetool",
        quiet=True,
    )


def file_case(request):
    spec, path = request.getfixturevalue("run_spec"), request.getfixturevalue("run_file")
    return xtc2_case(spec, lambda: FilesSource([path]))


def folder_case(request):
    spec, folder = request.getfixturevalue("run_spec"), request.getfixturevalue("experiment_dir")
    return xtc2_case(spec, lambda: FilesSource(folder=folder, exp=spec.exp))


def growing_case(request):
    """A folder that grows by a few shots whenever the source has read what there is."""
    spec = request.getfixturevalue("run_spec")
    folder = request.getfixturevalue("tmp_path_factory").mktemp("growing")
    writers = []

    def close():
        for writer in writers:
            writer.abandon()

    def make():
        writers.insert(0, LiveWriter(folder, spec, inprogress=True))
        writers[0].advance(2)
        return FilesSource(folder=folder, exp=spec.exp, growing=True, settle=0.05)

    def wait():
        if not writers[0].advance(7):
            writers[0].finish()

    return xtc2_case(spec, make, quiet=True, wait=wait, close=close)


def shmem_case(request):
    """The run from shared memory, slower than it is read."""
    spec, path = request.getfixturevalue("run_spec"), request.getfixturevalue("run_file")
    serve, tag = request.getfixturevalue("shmem_server"), request.getfixturevalue("tag")

    def make():
        serve(path, "--rate", 100)
        return ShmemSource(tag, meanings=Meaning)

    return xtc2_case(spec, make, slow=False, quiet=True)


class Recorder:
    """Puts the rows of synthetic runs into a capture, as one producer's or several's."""

    COLUMNS = (
        Column("i0", "<f8", unit="mJ", reducer="beam"),
        Column("edge", "<f8", unit="px", reducer="timing"),
        Column("timing/present", "|b1", reducer="timing"),
        Column("wave", "<u2", (32,), ("sample",), "ADU", reducer="beam"),
        Column("scan/delay", "<f8", unit="ps"),
    )

    def __init__(self, path, producers=1):
        self.schema = Schema((*CORE, *self.COLUMNS))
        self.writer, self.producers = CaptureWriter(path), producers
        self.seq = dict.fromkeys(range(producers), 0)

    def send(self, run, kind, body, producer=0, schema=None, times=1):
        self.seq[producer] += 1
        header = Header(kind, run.info.exp, run.info.run, run.info.began, f"p{producer}", 1)
        for _ in range(times):
            header = header._replace(seq=self.seq[producer])
            self.writer.write(encode(header, schema, body))

    def record(self, run):
        for k in range(self.producers):
            self.send(run, "begin_run", Provenance(), k, self.schema)
            self.send(run, "status", {"read": 0}, k)
        for step, delay in enumerate(run.delays):
            for k in range(self.producers):
                begun = BeginStep(step, {"delay": float(delay)}, f"step {step}")
                self.send(run, "step", begun, k, times=2)
                mine = [i for i in np.flatnonzero(run.step_of == step) if i % self.producers == k]
                for at in range(0, len(mine), 7):
                    batch = self.batch(run, mine[at : at + 7])
                    self.send(run, "shots", batch, k, self.schema, times=1 + at % 2)
        for k in range(self.producers):
            self.send(run, "end_run", EndRun(), k)

    def batch(self, run, shots):
        batch = Batch(self.schema, len(shots))
        for row, i in enumerate(shots):
            there = not run.missing["timetool"][i]
            values = {
                "timestamp": run.timestamps[i], "pulse_id": run.pulse_id(i),
                "step": run.step_of[i], "lightStatus/xray": run.xray[i],
                "lightStatus/laser": run.laser[i], "i0": run.energy[i],
                "edge": run.edge[i] if there else np.nan, "timing/present": there,
                "wave": run.wave(i), "scan/delay": run.delays[run.step_of[i]],
            }  # fmt: skip
            for name, value in values.items():
                batch.columns[name][row] = value
        return batch


RECORDED = {
    "i0": Field("", "", "i0"),
    "edge": Field("", "", "edge"),
    "wave": Field("", "", "wave"),
    "laser": Field("", "", "lightStatus/laser"),
}


def recorded_runs():
    spec = syn.Synthetic(
        run=8, runs=2, shots=60, steps=3, samples=(32,), missing={"timetool": 0.3}, shape=(1, 9, 9)
    )
    return list(syn.SyntheticSource(spec).runs())


def replay_case(request):
    runs = recorded_runs()
    path = request.getfixturevalue("tmp_path_factory").mktemp("replay") / "capture"
    recorder = Recorder(path)
    for run in runs:
        recorder.record(run)
    recorder.writer.close()

    def row(r, i):
        run = runs[r]
        values = {
            "i0": run.energy[i],
            "edge": None if run.missing["timetool"][i] else run.edge[i],
            "wave": run.wave(i),
            "laser": run.laser[i],
        }
        return Row(run.timestamps[i], run.pulse_id(i), None, int(run.step_of[i]), values)

    delays = [{"delay": d} for d in (-2.0, 0.0, 2.0)]
    return Case(
        make=lambda: ReplaySource(path),
        fields=RECORDED,
        infos=[(r.info.exp, r.info.run) for r in runs],
        shots=[60, 60],
        steps=[delays, delays],
        row=row,
        wrong=Field("", "", "egde"),
        near="edge",
        quiet=False,
        areas=(),
        absent=("edge",),
    )


CASES = {
    "replay": replay_case,
    "synthetic": lambda request: synthetic_case(),
    "file": file_case,
    "folder": folder_case,
    "growing": growing_case,
    "shmem": shmem_case,
}
ON_PSANA = {"file", "folder", "growing", "shmem"}
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
    for i, stamp in enumerate(runs[0].timestamps):
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
