"""Growing files lose nothing: whenever the source idles, the writer writes a little more."""

import shutil
import threading

import pytest

from ffb.shot import Field
from ffb.sources.files import FilesSource
from ffb.sources.xtc2_specs import Service
from ffb.testing.fabricate import LiveWriter, RunSpec, write_experiment, write_run
from tests.contract.readers import take

pytestmark = pytest.mark.psana

EDGE = {"edge": Field("tmo_opal", "ttfex", "fltpos"), "i0": Field("gasdet", "raw", "f11ENRC")}


def stamps(spec, n=None):
    return [spec.timestamp(i) for i in range(spec.shots if n is None else n)]


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
