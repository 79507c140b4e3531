"""xtc2 files read in place are what psana reads from them, run by run and stream by stream."""

import numpy as np
import pytest

from ffb.shot import BeginStep, Field, FrameBlock, Idle
from ffb.sources.files import FilesSource
from ffb.sources.standins import import_psana
from ffb.testing.fabricate import RunSpec, write_experiment, write_run
from tests.contract.readers import take
from tests.psana.encoders import streams

pytestmark = pytest.mark.psana

SMALL = {"steps": 1, "shots_per_step": 3, "groups": ("timing", "beam")}


def values_of(event):
    """Every field of a psana event by detector, alg and name: {segment: value}."""
    out = {}
    for (detector, alg), segments in event._det_segments.items():
        if alg.startswith("_") or detector in ("scan", "epics"):
            continue
        for number, block in segments.items():
            for name, value in vars(block).items():
                if not name.startswith("_"):
                    out.setdefault(Field(detector, alg, name), {})[number] = value
    return out


def compare(source, psana_source, spec):
    """Bind everything, read both ways, compare field by field; gives the number of values."""
    theirs = next(psana_source.runs())
    ours = next(source.runs())
    written = (f for f in ours.fields if f.detector not in ("scan", "epics", "hsd"))
    fields = {str(f): f for f in written}
    inputs, problems = ours.bind(fields, {})
    assert all("changes from shot to shot" in p for p in problems)
    fields = {name: f for name, f in fields.items() if name in inputs}
    assert (ours.info.exp, ours.info.run) == (theirs.expt, theirs.runnum)
    assert ours.info.began == theirs.timestamp
    block, compared = FrameBlock(inputs, 1), 0
    shots = (item for item in ours if not isinstance(item, BeginStep | Idle))
    for shot, event in zip(shots, theirs.events(), strict=True):
        shot.fill(block, 0)
        assert shot.timestamp == event.timestamp
        want = values_of(event)
        for name, field in fields.items():
            parts = want.get(field, {})
            present = bool(block.present[0, block.index[name]])
            assert present == bool(parts), (event.timestamp, name)
            if not present:
                continue
            if inputs[name].kind == "area":
                got = np.stack(shot.segments(name)).reshape(inputs[name].shape)
            else:
                got = block.frames[name][0]
            stacked = np.stack([np.asarray(parts[k]) for k in sorted(parts)])
            np.testing.assert_array_equal(got.reshape(stacked.shape), stacked, err_msg=name)
            compared += 1
    assert ours.ended == "end of run"
    assert not any("psana decodes" in n for n in ours.notes)
    return compared


def test_a_file_is_what_psana_reads_from_it(spec, tmp_path):
    path = write_run(tmp_path / "run.xtc2", spec)
    psana = import_psana("psana")
    theirs = psana.DataSource(files=str(path), skip_calib_load="all", log_level="ERROR")
    source = FilesSource([path])
    assert compare(source, theirs, spec) > 1000
    source.close()


def test_the_streams_of_an_experiment_are_joined_as_psana_joins_them(spec, tmp_path, monkeypatch):
    folder = write_experiment(tmp_path, spec)
    psana = import_psana("psana")
    base = import_psana("psana.psexp.ds_base").DataSourceBase
    # without an answer from the experiment's logbook psana lists the folder
    monkeypatch.setattr(base, "_get_file_info_from_db", lambda self, run: {})
    theirs = psana.DataSource(
        exp=spec.exp, run=spec.run, dir=str(folder), skip_calib_load="all", log_level="ERROR"
    )
    source = FilesSource(folder=folder, exp=spec.exp, runs=[spec.run])
    assert compare(source, theirs, spec) > 1000
    source.close()


def test_streams_of_different_rates_are_joined_by_timestamp(spec, tmp_path):
    streams(tmp_path, spec, 24, (1, 2, 5))
    fields = {f"enc{k}": Field(f"enc{k}", "raw", "position") for k in (1, 2)}
    t = take(next(FilesSource(folder=tmp_path, exp=spec.exp).runs()), fields)
    assert [row.pulse_id for row in t.rows] == list(range(24))
    for i, row in enumerate(t.rows):
        for k, every in ((1, 2), (2, 5)):
            want = 10 * i + k if i % every == 0 else None
            assert row.values[f"enc{k}"] == want, (i, k)


def test_a_stream_that_holds_nothing_wanted_is_not_waited_for(spec, tmp_path):
    """A slow or dead stream must not hold up what does not need it."""
    streams(tmp_path, spec, 12, (1, 1, 1))
    dead = tmp_path / f"{spec.exp}-r{spec.run:04d}-s002-c000.xtc2"
    whole = dead.read_bytes()
    dead.write_bytes(whole[: len(whole) - 400])
    source = FilesSource(folder=tmp_path, exp=spec.exp, growing=True, settle=0.0, grace=1e9)
    t = take(next(source.runs()), {"enc1": Field("enc1", "raw", "position")})
    assert len(t.rows) == 12
    assert t.ended == "end of run"
    source.close()


def test_a_stream_that_lags_is_waited_for(spec, tmp_path):
    streams(tmp_path, spec, 12, (1, 2))
    path = tmp_path / f"{spec.exp}-r{spec.run:04d}-s001-c000.xtc2"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - 400])
    source = FilesSource(folder=tmp_path, exp=spec.exp, growing=True, settle=0.0)
    fields = {"enc1": Field("enc1", "raw", "position")}
    t = take(next(source.runs()), fields, lambda: path.write_bytes(whole))
    assert t.idles > 0
    assert [row.timestamp for row in t.rows] == sorted(row.timestamp for row in t.rows)
    assert [r.values["enc1"] for r in t.rows] == [None if i % 2 else 10 * i + 1 for i in range(12)]
    source.close()


def test_a_stream_cut_short_misses_its_detectors_and_the_run_says_so(spec, tmp_path):
    streams(tmp_path, spec, 12, (1, 1))
    path = tmp_path / f"{spec.exp}-r{spec.run:04d}-s001-c000.xtc2"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - 24 - 3 * 87 - 40])
    t = take(
        next(FilesSource(folder=tmp_path, exp=spec.exp).runs()),
        {"enc1": Field("enc1", "raw", "position")},
    )
    assert len(t.rows) == 12
    there = [row.values["enc1"] is not None for row in t.rows]
    assert there == sorted(there, reverse=True)
    assert 0 < sum(there) < 12
    assert any("s001" in n and "without EndRun" in n and "into a datagram" in n for n in t.notes)
    assert t.ended == "end of run"


def two_runs(folder):
    """Files of runs 4 and 5, three shots each."""
    return [write_run(folder / f"{n}.xtc2", RunSpec(run=n, **SMALL)) for n in (4, 5)]


def test_runs_of_a_folder_come_in_order_or_as_asked(spec, tmp_path):
    for run in (12, 3, 7):
        write_experiment(tmp_path, RunSpec(run=run, **SMALL))

    def runs(**which):
        source = FilesSource(folder=tmp_path, exp=spec.exp, **which)
        return [(run.info.run, len(take(run, {}).rows)) for run in source.runs()]

    assert runs() == [(3, 3), (7, 3), (12, 3)]
    assert runs(runs=[7]) == [(7, 3)]
    with pytest.raises(FileNotFoundError, match=r"8.*\[3, 7, 12\]"):
        runs(runs=[8])
    with pytest.raises(FileNotFoundError, match="xppx00000"):
        list(FilesSource(folder=tmp_path, exp="xppx00000").runs())


def test_several_runs_in_one_file_and_files_one_after_the_other(tmp_path):
    paths = two_runs(tmp_path)
    both = tmp_path / "both.xtc2"
    both.write_bytes(b"".join(p.read_bytes() for p in paths))
    seen = [
        (run.info.run, len(take(run, {}).rows), run.ended)
        for run in FilesSource([both, paths[0]]).runs()
    ]
    assert seen == [(4, 3, "end of run"), (5, 3, "end of run"), (4, 3, "end of run")]


def test_a_run_left_early_does_not_disturb_the_next(tmp_path):
    paths = two_runs(tmp_path)
    both = tmp_path / "both.xtc2"
    both.write_bytes(b"".join(p.read_bytes() for p in paths))
    runs = FilesSource([both]).runs()
    first = next(runs)
    next(iter(first))
    second = next(runs)
    assert second.info.run == 5
    assert len(take(second, {}).rows) == 3


def test_a_run_without_its_end_before_another_begins(tmp_path):
    paths = two_runs(tmp_path)
    data, end = paths[0].read_bytes(), 24
    both = tmp_path / "both.xtc2"
    both.write_bytes(data[: len(data) - end] + paths[1].read_bytes())
    seen = [
        (run.info.run, len(take(run, {}).rows), run.ended) for run in FilesSource([both]).runs()
    ]
    assert seen == [(4, 3, "no EndRun: another run began"), (5, 3, "end of run")]


@pytest.mark.parametrize("damage", ["empty", "noise", "half a Configure"])
def test_a_file_that_is_none_has_no_runs(spec, tmp_path, damage):
    path = write_run(tmp_path / "run.xtc2", spec)
    content = {
        "empty": b"",
        "noise": bytes(np.random.default_rng(1).integers(1, 255, 4000, np.uint8)),
        "half a Configure": path.read_bytes()[:900],
    }
    path.write_bytes(content[damage])
    with pytest.raises(ValueError, match=r"no run can be read from run\.xtc2: run\.xtc2 "):
        next(FilesSource([path]).runs())


def test_damage_in_the_middle_ends_the_run_with_a_sentence(spec, tmp_path):
    path = write_run(tmp_path / "run.xtc2", RunSpec(groups=("timing", "beam")))
    data = bytearray(path.read_bytes())
    data[-2000:] = b"\xff" * 2000
    path.write_bytes(data)
    t = take(next(FilesSource([path]).runs()), {})
    assert 0 < len(t.rows) < 60
    assert t.ended.startswith("no EndRun: run.xtc2 is damaged")
    assert "byte" in t.ended
