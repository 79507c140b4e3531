"""xtc2 files read in place are what psana reads from them, and growing files lose nothing."""

import shutil
import threading

import numpy as np
import pytest

from ffb.shot import BeginStep, Field, FrameBlock, Idle
from ffb.sources.files import FilesSource
from ffb.sources.standins import import_psana
from ffb.sources.xtc2_specs import SPECS, Service, timing_record
from ffb.sources.xtc2_writer import Xtc2Writer
from ffb.testing.fabricate import LiveWriter, RunSpec, write_experiment, write_run
from tests.contract.readers import take

pytestmark = pytest.mark.psana

EDGE = {"edge": Field("tmo_opal", "ttfex", "fltpos"), "i0": Field("gasdet", "raw", "f11ENRC")}
SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def spec():
    return RunSpec(steps=2, shots_per_step=12, segments=2, epix=2, corrupt=10)


def stamps(spec, n=None):
    return [spec.timestamp(i) for i in range(spec.shots if n is None else n)]


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
    [ours] = list_of_one(source)
    fields = {str(f): f for f in ours.fields if f.detector not in ("scan", "epics")}
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


def list_of_one(source):
    return [next(source.runs())]


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


def streams(folder, spec, shots, rates, node=1):
    """Write streams of one detector each; stream k has every ``rates[k]``-th shot."""
    for k, every in enumerate(rates):
        path = folder / f"{spec.exp}-r{spec.run:04d}-s{k:03d}-c000.xtc2"
        writer = Xtc2Writer(path, spec.exp, spec.run, node=k + node)
        name = "timing" if k == 0 else f"enc{k}"
        slot = writer.declare(SPECS["timing" if k == 0 else "hrencoder"], name)
        writer.put(Service.CONFIGURE, spec.t0)
        writer.put(Service.BEGIN_RUN, spec.t0 + SECOND)
        writer.put(Service.ENABLE, spec.t0 + 2 * SECOND)
        for i in range(0, shots, every):
            value = (
                timing_record(i, [40])
                if k == 0
                else {"position": 10 * i + k, "missedTrig_cnt": 0, "error_cnt": 0, "latches": 0}
            )
            writer.put(Service.L1_ACCEPT, spec.t0 + (3 + i) * SECOND, [(slot, value)])
        writer.put(Service.END_RUN, spec.t0 + (3 + shots) * SECOND)
        writer.close()


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


def test_runs_of_a_folder_come_in_order_or_as_asked(spec, tmp_path):
    small = {"steps": 1, "shots_per_step": 3, "groups": ("timing", "beam")}
    for run in (12, 3, 7):
        write_experiment(tmp_path, RunSpec(run=run, **small))

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
    small = {"steps": 1, "shots_per_step": 3, "groups": ("timing", "beam")}
    paths = [write_run(tmp_path / f"{n}.xtc2", RunSpec(run=n, **small)) for n in (4, 5)]
    both = tmp_path / "both.xtc2"
    both.write_bytes(b"".join(p.read_bytes() for p in paths))
    seen = [
        (run.info.run, len(take(run, {}).rows), run.ended)
        for run in FilesSource([both, paths[0]]).runs()
    ]
    assert seen == [(4, 3, "end of run"), (5, 3, "end of run"), (4, 3, "end of run")]


def test_a_run_left_early_does_not_disturb_the_next(tmp_path):
    small = {"steps": 1, "shots_per_step": 3, "groups": ("timing", "beam")}
    paths = [write_run(tmp_path / f"{n}.xtc2", RunSpec(run=n, **small)) for n in (4, 5)]
    both = tmp_path / "both.xtc2"
    both.write_bytes(b"".join(p.read_bytes() for p in paths))
    runs = FilesSource([both]).runs()
    first = next(runs)
    next(iter(first))
    second = next(runs)
    assert second.info.run == 5
    assert len(take(second, {}).rows) == 3


def test_a_run_without_its_end_before_another_begins(tmp_path):
    small = {"steps": 1, "shots_per_step": 3, "groups": ("timing", "beam")}
    paths = [write_run(tmp_path / f"{n}.xtc2", RunSpec(run=n, **small)) for n in (4, 5)]
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


def chunked(folder, spec, shots=5, ends=True):
    """Two streams of three files each; the streams turn to the next at different Enables."""
    run = f"{spec.exp}-r{spec.run:04d}"
    for k, name in enumerate(("timing", "enc")):
        sizes, path = [], folder / "all"
        writer = Xtc2Writer(path, spec.exp, spec.run, node=k + 1)
        slot = writer.declare(SPECS["timing" if k == 0 else "hrencoder"], name)
        chunk = writer.declare(SPECS["chunkinfo"], "chunkinfo")
        at, number = spec.t0, 0
        sizes.append(writer.put(Service.CONFIGURE, at))
        sizes.append(writer.put(Service.BEGIN_RUN, at + 1))
        cuts = [0]
        for step in range(4):
            at += SECOND
            turn = step == 1 or step == 2 + k
            number += turn
            told = {"filename": f"{run}-s{k:03d}-c{number:03d}.xtc2", "chunkid": number}
            sizes.append(writer.put(Service.ENABLE, at, [(chunk, told)] if turn else []))
            cuts += [sum(sizes)] if turn else []
            for i in range(step * shots, (step + 1) * shots):
                value = (
                    timing_record(i, [40])
                    if k == 0
                    else {"position": i, "missedTrig_cnt": 0, "error_cnt": 0, "latches": 0}
                )
                stamp = at + 1000 * (1 + i % shots)
                sizes.append(writer.put(Service.L1_ACCEPT, stamp, [(slot, value)]))
            sizes.append(writer.put(Service.DISABLE, at + 1_000_000))
        if ends:
            writer.put(Service.END_RUN, at + 2 * SECOND)
        writer.close()
        data = path.read_bytes()
        for n, (low, high) in enumerate(zip(cuts, [*cuts[1:], len(data)], strict=True)):
            (folder / f"{run}-s{k:03d}-c{n:03d}.xtc2").write_bytes(data[low:high])
        path.unlink()
    return run


ENC = {"enc": Field("enc", "raw", "position")}


def test_a_run_in_chunks_is_one_run(spec, tmp_path):
    chunked(tmp_path, spec)
    [t] = [take(r, ENC) for r in FilesSource(folder=tmp_path, exp=spec.exp).runs()]
    assert [row.pulse_id for row in t.rows] == list(range(20))
    assert [row.values["enc"] for row in t.rows] == list(range(20))
    assert (t.ended, t.notes) == ("end of run", [])


def test_a_chunk_that_appears_later_is_waited_for(spec, tmp_path):
    run = chunked(tmp_path, spec)
    hidden = sorted(p for p in tmp_path.iterdir() if "c000" not in p.name)
    contents = {p: p.read_bytes() for p in hidden}
    for p in hidden:
        p.unlink()

    def wait():
        if contents:
            path, data = contents.popitem()
            path.with_name(path.name + ".inprogress").write_bytes(data)

    source = FilesSource(folder=tmp_path, exp=spec.exp, growing=True, settle=0.0)
    t = take(next(source.runs()), ENC, wait)
    assert [row.values["enc"] for row in t.rows] == list(range(20)), run
    assert (t.ended, t.idles > 2) == ("end of run", True)
    source.close()


def test_a_chunk_that_is_not_there_misses_its_detectors_and_the_run_says_so(spec, tmp_path):
    run = chunked(tmp_path, spec)
    (tmp_path / f"{run}-s001-c001.xtc2").unlink()
    t = take(next(FilesSource(folder=tmp_path, exp=spec.exp).runs()), ENC)
    assert [row.pulse_id for row in t.rows] == list(range(20))
    assert [row.values["enc"] for row in t.rows] == [*range(5), *[None] * 15]
    assert any(f"goes on in {run}-s001-c001.xtc2, which is not there" in n for n in t.notes)


# growing files: whenever the source idles, the writer writes a little more


@pytest.fixture
def growing(tmp_path):
    """Make a source on a growing folder, its writer, and what to do when the source idles."""
    writers = []

    def make(spec, shots=3, inprogress=False, **options):
        writer = LiveWriter(tmp_path, spec, inprogress=inprogress)
        writers.append(writer)
        writer.advance(shots)
        given = {"folder": tmp_path, "exp": spec.exp, "growing": True, "settle": 0.0}
        return FilesSource(**given | options), writer

    yield make
    for writer in writers:
        writer.abandon()


@pytest.mark.parametrize("inprogress", [False, True])
def test_nothing_is_lost_of_growing_files_nor_when_they_are_renamed(growing, spec, inprogress):
    source, writer = growing(spec, inprogress=inprogress)

    def wait():
        if writer.written < spec.shots:
            writer.advance(5)
        else:
            writer.finish()

    t = take(next(source.runs()), EDGE, wait)
    assert [row.timestamp for row in t.rows] == stamps(spec)
    assert t.ended == "end of run"
    assert not any(".xtc2" in note for note in t.notes)


def test_the_tail_written_before_a_rename_is_read_after_it(growing, spec):
    """Everything is written and renamed while the source has seen three shots only."""
    source, writer = growing(spec, inprogress=True)
    t = take(next(source.runs()), EDGE, writer.finish)
    assert [row.timestamp for row in t.rows] == stamps(spec)
    assert t.ended == "end of run"


def test_bytes_may_come_in_any_pieces(spec, tmp_path):
    """A datagram is there once all of it is: the file grows by odd numbers of bytes."""
    small = RunSpec(steps=1, shots_per_step=6, groups=("timing", "beam"))
    data = write_run(tmp_path / "whole", small).read_bytes()
    path = tmp_path / f"{small.exp}-r{small.run:04d}-s000-c000.xtc2"
    ready = 0
    while data[ready + 11] & 15 != Service.L1_ACCEPT:
        ready += 12 + int.from_bytes(data[ready + 20 : ready + 24], "little")
    path.write_bytes(data[:ready])
    left = memoryview(data)[ready:]

    def wait():
        nonlocal left
        with path.open("ab") as f:
            f.write(left[:97])
        left = left[97:]

    source = FilesSource(folder=tmp_path, exp=small.exp, growing=True, settle=0.0)
    t = take(next(source.runs()), {"i0": EDGE["i0"]}, wait)
    assert [row.timestamp for row in t.rows] == stamps(small)
    assert [float(r.values["i0"]) for r in t.rows] == [small.i0(i) for i in range(6)]
    assert t.idles >= (len(data) - ready) // 97


def test_a_stall_is_not_the_end(growing, spec):
    source, writer = growing(spec)
    idles = []

    def wait():
        idles.append(None)
        if len(idles) > 20:
            writer.finish()

    t = take(next(source.runs()), EDGE, wait)
    assert len(idles) > 20
    assert [row.timestamp for row in t.rows] == stamps(spec)


def test_a_pause_between_steps_is_waited_for_beyond_the_grace(growing, spec):
    source, writer = growing(spec, shots=spec.shots_per_step, grace=0.05)
    for _ in range(2):
        writer._put(next(writer._marks))  # Disable, EndStep: the DAQ pauses
    idles = []

    def wait():
        idles.append(None)
        if len(idles) > 20:  # 10 ms each
            writer.finish()

    t = take(next(source.runs()), EDGE, wait)
    assert t.ended == "end of run"
    assert [row.timestamp for row in t.rows] == stamps(spec)


def test_a_run_that_dies_while_shots_are_taken_ends_after_the_grace(growing, spec):
    source, writer = growing(spec, shots=7, grace=0.05)
    writer.abandon()
    t = take(next(source.runs()), EDGE)
    assert [row.timestamp for row in t.rows] == stamps(spec, 7)
    assert t.ended.startswith("no EndRun: ")
    assert "did not grow for 0.05 s" in t.ended


def test_a_renamed_file_without_end_run_ends_after_the_grace(growing, spec, tmp_path):
    source, writer = growing(spec, shots=spec.shots_per_step, grace=0.05, inprogress=True)
    for _ in range(2):
        writer._put(next(writer._marks))
    writer.abandon()

    def wait():
        for path in tmp_path.glob("*.inprogress"):
            path.rename(path.with_suffix(""))

    t = take(next(source.runs()), EDGE, wait)
    assert [row.timestamp for row in t.rows] == stamps(spec, spec.shots_per_step)
    assert t.ended.startswith("no EndRun: ")


def test_a_later_run_ends_one_that_was_left_in_a_pause(growing, spec):
    source, writer = growing(spec, shots=spec.shots_per_step, grace=0.05)
    for _ in range(2):
        writer._put(next(writer._marks))
    writer.abandon()
    later = RunSpec(run=spec.run + 1, steps=1, shots_per_step=4, groups=("timing", "beam"))
    following = []

    def wait():
        if not following:
            following.append(growing(later, shots=4)[1])

    runs = source.runs()
    t = take(next(runs), EDGE, wait)
    assert t.ended.startswith("no EndRun: ")
    t = take(next(runs), {"i0": EDGE["i0"]}, following[0].finish)
    assert (t.info.run, len(t.rows), t.ended) == (later.run, 4, "end of run")
    source.stop()
    assert next(runs, None) is None


def test_a_growing_folder_begins_with_its_newest_run(growing, spec, tmp_path):
    for run in (2, 3):
        old = RunSpec(run=run, steps=1, shots_per_step=2, groups=("timing",))
        write_experiment(tmp_path, old)
    source, _ = growing(spec)
    assert next(source.runs()).info.run == spec.run
    source.close()


def test_streams_that_appear_one_by_one_are_all_taken(spec, tmp_path, monkeypatch):
    """Each look at the folder finds a little more: a name, a second name, then content."""
    whole, folder = write_experiment(tmp_path / "whole", spec), tmp_path / "growing"
    folder.mkdir()
    files = sorted(whole.glob("*.xtc2"))
    todo = [lambda: None] * 3
    for path in files:
        todo += [(folder / path.name).touch, lambda: None]
    todo += [lambda p=p: shutil.copy(p, folder / p.name) for p in files]
    source = FilesSource(folder=folder, exp=spec.exp, growing=True, settle=0.5)
    look = source._found

    def found():
        if todo:
            todo.pop(0)()
        return look()

    monkeypatch.setattr(source, "_found", found)
    t = take(next(source.runs()), EDGE)
    assert not todo
    assert [row.timestamp for row in t.rows] == stamps(spec)
    assert all(r.values["i0"] is not None for i, r in enumerate(t.rows) if not spec.corrupted(i))


def test_a_folder_without_files_is_waited_for_until_stopped(spec, tmp_path):
    source = FilesSource(folder=tmp_path, exp=spec.exp, growing=True)
    threading.Timer(0.05, source.stop).start()
    assert list(source.runs()) == []
