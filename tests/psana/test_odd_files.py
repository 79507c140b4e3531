"""What real files hold besides the usual: each oddity by hand, read as psana reads it."""

import numpy as np
import pytest

from ffb.shot import BeginStep, Field, FrameBlock, Idle
from ffb.sources import learn
from ffb.sources.files import FilesSource
from ffb.sources.standins import import_psana
from ffb.sources.streams import CHUNK
from tests.contract.readers import take
from tests.psana.oddities import BARE, T0, experiment, run_dgrams, stream, write
from tests.unit.dgrams import data, dgram, names

pytestmark = pytest.mark.psana

X, AUX = Field("old", "raw", "x"), Field("cam", "raw", "aux")


def leaves(block, prefix=""):
    for name, value in vars(block).items():
        if not name.startswith("_"):
            if hasattr(value, "__dict__") and not isinstance(value, np.ndarray):
                yield from leaves(value, f"{prefix}{name}.")
            else:
                yield prefix + name.removesuffix("value").rstrip(".") or prefix[:-1], value


def theirs_of(event):
    """Psana's values by field: {segment: value}."""
    out = {}
    for (detector, alg), segments in event._det_segments.items():
        for number, block in segments.items():
            for name, value in leaves(block):
                key = Field(detector, alg, name.rstrip("."))
                out.setdefault(key, {})[number] = value
    return out


def agree(ours, theirs, segments):
    """Read both to the end; every field of every shot is the same. Gives the rows compared."""
    wish = {str(f): f for f in ours.fields if f.detector not in ("epics", "beckhoff")}
    inputs, problems = ours.bind(wish, {})
    assert sorted(p.split(":")[0] for p in problems) == [
        "input many.raw.none",
        "input many.raw.word",
    ]
    block, rows = FrameBlock(inputs, 1), 0
    shots = (item for item in ours if not isinstance(item, BeginStep | Idle))
    for shot, event in zip(shots, theirs.events(), strict=True):
        shot.fill(block, 0)
        assert (shot.timestamp, block.timestamp[0]) == (event.timestamp, event.timestamp)
        want = theirs_of(event)
        for name, declared in inputs.items():
            parts = want.get(wish[name], {})
            whole = sorted(parts) == segments.get(wish[name][:2], sorted(parts)) and bool(parts)
            assert bool(block.present[0, block.index[name]]) == whole, (rows, name)
            if not whole:
                continue
            got = (
                block.frames[name][0] if declared.kind == "value" else np.stack(shot.segments(name))
            )
            value = np.stack([np.asarray(parts[k]) for k in sorted(parts)])
            np.testing.assert_array_equal(got.reshape(value.shape), value, err_msg=name)
        rows += 1
    assert not any("psana decodes" in n for n in ours.notes), ours.notes
    return rows


def psana_run(**which):
    psana = import_psana("psana")
    return next(psana.DataSource(skip_calib_load="all", log_level="ERROR", **which).runs())


def test_oddities_in_one_file_are_what_psana_reads(tmp_path):
    path = write(tmp_path / "odd.xtc2")
    ours = next(FilesSource([path]).runs())
    assert (ours.info.exp, ours.info.run) == ("tstx00117", 5)
    assert agree(ours, psana_run(files=str(path)), {("cam", "raw"): [3, 7, 11]}) == 14
    assert ours.ended == "end of run"
    assert any(n.startswith("cam: ") and "marked as damaged" in n for n in ours.notes)
    assert ours.counts["cam"]["missing"] == 3  # shots 2, 4 and 10
    assert ours.counts["many"] == {"misfit": 0, "missing": 2, "damaged": 1}


@pytest.mark.parametrize("turns", [False, True])
def test_a_detector_over_several_streams_is_what_psana_reads(tmp_path, monkeypatch, turns):
    experiment(tmp_path, turns=turns)
    assert len(list(tmp_path.glob("*-c001.xtc2"))) == 2 * turns
    base = import_psana("psana.psexp.ds_base").DataSourceBase
    monkeypatch.setattr(base, "_get_file_info_from_db", lambda self, run: {})
    theirs = psana_run(exp="tstx00117", run=5, dir=str(tmp_path))
    ours = next(FilesSource(folder=tmp_path, exp="tstx00117").runs())
    assert agree(ours, theirs, {("cam", "raw"): [3, 7, 11, 20]}) == 14


def test_bigdata_is_enough_and_a_stream_may_hold_transitions_only(tmp_path):
    paths = experiment(tmp_path)
    for p in (tmp_path / "smalldata").iterdir():
        p.unlink()
    (tmp_path / "smalldata").rmdir()
    kept = [d for d in run_dgrams(1) if d[11] & 15 not in (11, 12)]
    paths[1].write_bytes(stream(1)[0] + b"".join(kept))
    t = take(next(FilesSource(folder=tmp_path, exp="tstx00117").runs()), {"x": X, "cam": AUX})
    assert [row.values["x"] is None for row in t.rows] == [i in (2, 10) for i in range(14)]
    assert (t.problems, {row.values["cam"] is None for row in t.rows}) == ([], {True})
    paths[1].unlink()
    t = take(next(FilesSource(folder=tmp_path, exp="tstx00117").runs()), {"x": X, "cam": AUX})
    assert (len(t.rows), t.problems, t.inputs["cam"].shape) == (14, [], (3, 2))


def test_timing_is_found_by_its_type_and_steps_keep_their_numbers(tmp_path):
    path = write(tmp_path / "odd.xtc2")
    run = next(FilesSource([path]).runs())
    assert run.motors == ("lens", "count")
    assert "of each step note are not kept: they are not numbers" in run.notes
    t = take(run, {})
    assert [row.pulse_id for row in t.rows] == [0 if i in (2, 10) else 100 + i for i in range(14)]
    assert t.rows[1].codes == {16 * w + b for w in range(16) for b in range(16) if (w + 1) >> b & 1}
    assert t.rows[2].codes is None
    assert [s.values for s in t.steps] == [{"lens": 0.0, "count": 0}, {"lens": 3.5, "count": 7}]


def test_pulse_ids_without_event_codes(tmp_path):
    config = dgram(2, T0, names(3, "bare", "raw", BARE, dettype="ts"))
    shots = [dgram(12, T0 + i, data(3, BARE, {"pulseId": i, "ebeamPresent": 1})) for i in (5, 6)]
    path = tmp_path / "exp1-r0003-s000-c000.xtc2"
    path.write_bytes(b"".join([config, dgram(4, T0 + 1), *shots]))
    t = take(next(FilesSource([path]).runs()), {"p": Field("bare", "raw", "ebeamPresent")})
    assert [(row.pulse_id, row.codes) for row in t.rows] == [(5, None), (6, None)]
    assert (t.info.exp, t.info.run) == ("exp1", 3)
    assert "the timing system tells no event codes" in t.notes
    assert not any("psana decodes" in n for n in t.notes)
    assert t.ended.startswith("no EndRun: ")


def test_slow_values_of_any_name_and_shape(tmp_path):
    path = write(tmp_path / "odd.xtc2")
    fields = {
        "t": Field("epics", "raw", "MFX:TEMP:01"),
        "u": Field("beckhoff", "raw", "temp"),
        "s": Field("epics", "raw", "spectrum"),
        "late": Field("epics", "raw", "late"),
        "stale": Field("epics", "raw", "stale"),
    }
    run = next(FilesSource([path]).runs())
    t = take(run, fields)
    assert [float(row.values["t"]) for row in t.rows] == [0.0] * 9 + [0.25] * 5
    assert [float(row.values["u"]) for row in t.rows] == [0.0] * 9 + [-1.0] * 5
    assert t.rows[0].values["s"].tolist() == [1, 2]
    assert {float(row.values["stale"]) for row in t.rows} == {2.0}, "one value of two"
    assert [float(row.values["late"]) for row in t.rows] == [0.5] * 9 + [1.5] * 5
    theirs = psana_run(files=str(path))
    det = theirs.Detector("temp")
    assert [det(e) for e in theirs.events()] == [0.0] * 9 + [0.25] * 5


def test_asics_are_segments_of_an_area(tmp_path):
    path = write(tmp_path / "odd.xtc2")
    t = take(next(FilesSource([path]).runs()), {"a": Field("asics", "raw", "raw")})
    assert (t.inputs["a"].kind, t.inputs["a"].shape) == ("area", (4, 3, 5))


def test_an_array_whose_length_changes_is_refused_with_a_sentence(tmp_path):
    ragged, hits = {"chan00": ("u1", 1)}, {"hits": ("f4", 1)}
    config = dgram(
        2, T0, names(1, "hsd", "raw", ragged, version=(3, 0, 0)), names(2, "fex", "raw", hits),
        names(3, "uhr", "raw", {"raw": ("u1", 2)}, dettype="epixuhr"),
    )  # fmt: skip
    shots = [
        dgram(
            12, T0 + 5 + i, data(1, ragged, {"chan00": [0] * i}), data(2, hits, {"hits": [0] * i})
        )
        for i in range(9)
    ]
    path = tmp_path / "run.xtc2"
    path.write_bytes(b"".join([config, dgram(4, T0 + 1), *shots, dgram(5, T0 + 99)]))
    fields = {"h": Field("fex", "raw", "hits"), "w": Field("hsd", "raw", "chan00")}
    t = take(next(FilesSource([path]).runs()), fields | {"u": Field("uhr", "raw", "raw")})
    assert len(t.rows) == 9
    problems = {p.split(":")[0]: p for p in t.problems}
    assert "the shape [1] in one shot and [2] in another" in problems["input h"]
    assert "its length changes from shot to shot; with room = N" in problems["input h"]
    assert "hsd is a digitizer that writes no eventHeader" in problems["input w"]
    assert "packed bits" in problems["input u"]
    run = next(FilesSource([path]).runs())
    inputs, problems = run.bind(fields, {"h": (3,)})
    assert (list(inputs), len(problems)) == (["h"], 1)


def test_several_runs_a_second_configure_and_no_ends(tmp_path):
    path = tmp_path / "runs.xtc2"
    config = stream(0)[0]
    first = run_dgrams(0, 3, end=False)
    second = run_dgrams(0, 4, runnum=6, at=T0 + (1 << 32), end=False)
    path.write_bytes(b"".join([config, *first, config, *second]))
    seen = [(r.info.run, len(take(r, {}).rows), r.ended[:9]) for r in FilesSource([path]).runs()]
    assert seen == [(5, 3, "no EndRun"), (6, 4, "no EndRun")]


@pytest.mark.parametrize("garbage", [b"\0" * 500, b"\xff" * 500, bytes(range(1, 200)) * 2])
def test_garbage_behind_the_end_is_not_read(tmp_path, garbage):
    path = write(tmp_path / "run.xtc2")
    path.write_bytes(path.read_bytes() + garbage)
    [t] = [take(r, {"x": X}) for r in FilesSource([path]).runs()]
    assert (len(t.rows), t.ended) == (14, "end of run")


def test_a_file_cut_off_gives_all_whole_shots_and_says_so(tmp_path):
    dgrams = list(run_dgrams(0))
    path = tmp_path / "cut.xtc2"
    whole = stream(0)[0] + b"".join(dgrams[:-3])
    path.write_bytes(whole + dgrams[-4][:100])
    t = take(next(FilesSource([path]).runs()), {"x": X})
    assert len(t.rows) == 14
    assert t.ended == "no EndRun: cut.xtc2 ends without EndRun, 100 bytes into a datagram"
    shots = list(psana_run(files=str(path)).events())
    assert len(shots) == 14


def test_a_datagram_larger_than_any_read(tmp_path):
    big, n = {"image": ("u1", 2)}, 3 * CHUNK
    config = dgram(2, T0, names(1, "cam", "raw", big, dettype="camera"))
    pixels = np.arange(n, dtype=np.uint8).reshape(-1, 1024)
    shots = [dgram(12, T0 + 5 + i, data(1, big, {"image": pixels + i})) for i in range(3)]
    path = tmp_path / "run.xtc2"
    path.write_bytes(b"".join([config, dgram(4, T0 + 1), *shots, dgram(5, T0 + 99)]))
    t = take(next(FilesSource([path]).runs()), {"cam": Field("cam", "raw", "image")})
    assert [int(row.values["cam"][0, 7, 3]) for row in t.rows] == [3, 4, 5]


@pytest.mark.parametrize("producers", [2, 3])
def test_producers_read_their_shots_and_headers_of_others(tmp_path, producers, monkeypatch):
    for name, size in {"LARGE": 0, "CHUNK": 64, "PAGE": 32}.items():
        monkeypatch.setattr(f"ffb.sources.streams.{name}", size)
    experiment(tmp_path, shots=60)  # more than one read takes in
    fields = {"x": X, "e": Field("many", "raw", "e")}
    whole = take(next(FilesSource(folder=tmp_path, exp="tstx00117").runs()), fields)
    rows = []
    for k in range(producers):
        source = FilesSource(folder=tmp_path, exp="tstx00117", producer=k, producers=producers)
        t = take(next(source.runs()), fields)
        assert (t.steps, t.ended) == (whole.steps, "end of run")
        rows += t.rows
    assert len(rows) == len(whole.rows)
    for got, want in zip(sorted(rows), whole.rows, strict=True):
        assert (got.timestamp, got.pulse_id, got.codes) == want[:3]
        for name in want.values:
            np.testing.assert_array_equal(got.values[name], want.values[name])


def test_learning_can_be_stopped(tmp_path, monkeypatch):
    """Without a shot it waits as long as the run lasts, and no longer than the source."""
    path = tmp_path / "tstx00117-r0005-s000-c000.xtc2"
    path.write_bytes(stream(0)[0] + b"".join(list(run_dgrams(0))[:2]))
    source = FilesSource(folder=tmp_path, exp="tstx00117", growing=True, settle=0.0)
    run = next(source.runs())
    look, looks = source._merge.take, []

    def take_it():
        looks.append(None)
        if len(looks) == 5:
            source.stop()
        return look()

    monkeypatch.setattr(source._merge, "take", take_it)
    inputs, [problem] = run.bind({"a": AUX}, {})
    assert inputs == {}
    assert "no shot came, so its shape is unknown" in problem
    assert [item for item in run if not isinstance(item, BeginStep)] == []
    assert run.ended == "stopped"


def test_learning_ends_some_time_after_the_first_shot(tmp_path, monkeypatch):
    path = tmp_path / "tstx00117-r0005-s000-c000.xtc2"
    path.write_bytes(stream(0)[0] + b"".join(list(run_dgrams(0))[:5]))
    monkeypatch.setattr(learn, "SECONDS_AHEAD", 0.05)
    source = FilesSource(folder=tmp_path, exp="tstx00117", growing=True, settle=0.0)
    inputs, [problem] = next(source.runs()).bind({"none": Field("many", "raw", "none")}, {})
    assert inputs == {}
    assert "in none of the first 1 shots" in problem
    source.close()
