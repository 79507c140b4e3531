"""The small-data sink: what is appended is in the file, and nothing is ever overwritten."""

import json
import os
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from ffb import reader
from ffb.schema import Column, Schema
from ffb.sink import Counts
from ffb.source import RunInfo
from ffb.writers import chain, h5clear, layout
from ffb.writers.master import folder_of
from ffb.writers.small_data import SmallData
from tests.unit.small_data_truth import (
    INFO,
    NAME,
    PROVENANCE,
    SCHEMA,
    Q,
    assert_true,
    begun,
    books,
    cut,
    make_batch,
    truth,
    written,
)


@pytest.mark.parametrize("size", [1, 7, 100, 1000, 1301])
def test_rows_are_the_truth_whatever_the_batches(tmp_path, size):
    rows, sink = 1301 if size > 1 else 60, begun(tmp_path)
    done = 0
    for i, batch in enumerate(cut(rows, size)):
        sink.append(batch)
        done += batch.n
        if i % 3 == 0:  # commits after one batch and after three
            sink.commit(books(i + 1, done))
    sink.end_run(books(i + 2, rows))
    with reader.open(sink.path) as run:
        assert_true(run, rows)


def test_commits_cut_anywhere_leave_the_same_file(tmp_path):
    rng, sink, done, commit = np.random.default_rng(5), begun(tmp_path), 0, 0
    while done < 1200:
        for n in rng.integers(0, 90, rng.integers(0, 4)):
            sink.append(make_batch(done, int(n)))
            done += int(n)
        commit += 1
        sink.commit(books(commit, done))
        with reader.open(sink.path) as run:
            assert run.committed == done
            last = slice(max(0, done - 200), done)
            for c in SCHEMA.columns:
                expected = truth(c, np.arange(last.start, last.stop))
                np.testing.assert_array_equal(run[c.name][last], expected)
    sink.end_run(books(commit, done))
    with reader.open(sink.path) as run:
        assert_true(run, done)


def test_rows_larger_than_a_chunk_should_be_get_one_each(tmp_path):
    assert layout.chunk_rows(Column("x", "<f8")) == 1024
    assert layout.chunk_rows(Column("x", "<f4", (1000,))) == 32
    assert layout.chunk_rows(Column("x", "<f4", (1024,))) == 32
    assert layout.chunk_rows(Column("x", "|u1", (1 << 20,))) == 1
    schema = Schema((*SCHEMA.columns[:5], Column("camera/image", "<u2", (300, 400))))
    sink = begun(tmp_path, schema=schema)
    for i, n in enumerate((1, 4, 7)):
        sink.append(make_batch((0, 1, 5)[i], n, schema))
        sink.commit(books(i, (1, 5, 12)[i]))
    sink.end_run(books(4, 12))
    with reader.open(sink.path) as run:
        expected = truth(schema.columns[-1], np.arange(12))
        np.testing.assert_array_equal(run["camera/image"][:], expected)


def test_plain_h5py_reads_the_finished_file_with_its_facts(tmp_path):
    sink = begun(tmp_path)
    sink.step(0, {"delay": 1.5}, "a scan")
    sink.append(make_batch(0, 500))
    sink.end_run(Counts(1, 510, 500, {"damaged": 4, "late": 6}, ended="end of run"))
    with h5py.File(sink.path, "r") as file:
        for c in SCHEMA.columns:
            assert file[c.name].shape == (500, *c.shape)
            assert file[c.name].attrs["unit"] == c.unit
            assert file[c.name].attrs["doc"] == (c.doc or c.name)
            assert list(file[c.name].attrs["dims"]) == ["shot", *c.dims]
            np.testing.assert_array_equal(file[c.name][:], truth(c, np.arange(500)))
        assert file["azav/I"].attrs["version"] == "3"
        np.testing.assert_array_equal(file["azav/q"][:], Q)
        assert file["azav/q"].attrs["unit"] == "1/Å"
        assert file["azav/I"].dims[1]["q"] == file["azav/q"]
        about = file["ffb"].attrs
        assert (about["exp"], about["run"], about["began"]) == (INFO.exp, INFO.run, INFO.began)
        assert (about["read"], about["written"], about["balanced"]) == (510, 500, True)
        assert about["ended"] == b"end of run"
        assert json.loads(about["lost"]) == {"damaged": 4, "late": 6}
        assert file["ffb/config"].asstr()[()] == PROVENANCE.config
        assert file["ffb/schema"][:].tobytes() == SCHEMA.packed
        assert file["ffb/committed"][0] == 500
        lines = file["ffb/log"][:].tobytes().decode().splitlines()
        kinds = [next(iter(json.loads(line))) for line in lines]
        assert kinds == ["epoch", "step", *["step"] * 3, "rows"]


def test_books_that_do_not_balance_say_so(tmp_path):
    sink = begun(tmp_path)
    sink.append(make_batch(0, 5))
    sink.end_run(Counts(1, 9, 5, {"damaged": 3}))
    with h5py.File(sink.path, "r") as file:
        assert not file["ffb"].attrs["balanced"]


def test_missing_values_pad_what_was_never_written(tmp_path):
    sink = begun(tmp_path)
    for commit, n in enumerate((1000, 31)):  # some columns end in their first chunk, some later
        sink.append(make_batch(1000 * commit, n))
        sink.commit(books(commit, 1000 * commit + n))
    sink.close()
    with h5py.File(folder_of(sink.path) / "seg0000.h5", "r") as file:
        for c in SCHEMA.columns:
            begin = 1031 - 1031 % file[c.name].chunks[0]
            _, chunk = file[c.name].id.read_direct_chunk((begin, *(0,) * len(c.shape)))
            rows = np.frombuffer(chunk, c.dtype).reshape(-1, *c.shape)[1031 - begin :]
            assert np.array_equal(rows, np.full_like(rows, c.missing), equal_nan=True)


def test_what_a_killed_commit_left_does_not_count(tmp_path):
    sink = begun(tmp_path)
    sink.append(make_batch(0, 100))
    sink.commit(books(1, 100))
    late = make_batch(5000, 1000)  # none of these rows may come back
    sink.append(late)
    sink._chain.segment.take([late], late.n)
    sink._chain.segment.write()
    sink.close()
    again = begun(tmp_path)
    assert again.rows == 100
    again.append(make_batch(100, 40))
    again.end_run(books(2, 140))
    with reader.open(again.path) as run:
        assert_true(run, 140)
    with h5py.File(again.path, "r") as file:
        assert {file[c.name].shape[0] for c in SCHEMA.columns} == {140}


def test_a_closed_unfinished_file_is_continued(tmp_path):
    producers = {"p0": {"epoch": 8, "seq": 3}, "p1": {"producer": "p1", "epoch": 9, "seq": 12}}
    sink = begun(tmp_path)
    assert sink.resume() == {}
    sink.append(make_batch(0, 333))
    for step in range(3):
        sink.step(step, {"x": 2.0}, "")
    sink.commit(Counts(7, 340, 333, {"damaged": 7}, 2, producers))
    sink.append(make_batch(333, 50))  # never committed: its producer will send it again
    sink.step(5, {"x": 3.0}, "")
    sink.close()
    with reader.open(sink.path) as run:
        assert_true(run, 333)
    again = begun(tmp_path)
    assert again.path == sink.path
    assert again.rows == 333
    assert again.resume() == {("p0", 8): 3, ("p1", 9): 12}
    assert again.books == Counts(7, 340, 333, {"damaged": 7}, 2, producers)
    again.append(make_batch(333, 700))
    again.end_run(Counts(8, 1040, 1033, {"damaged": 7}, 2, producers))
    with reader.open(again.path) as run:
        assert_true(run, 1033)
        assert [(s.step, s.row) for s in run.steps] == [(k, 150 * k) for k in range(7)]
        assert [s.values for s in run.steps] == [{"x": 2.0}] * 3 + [{}] * 4
        assert list(run.commits["commit"]) == [7, 8]


@pytest.mark.parametrize(
    ("info", "schema", "ended", "why"),
    [
        (INFO, SCHEMA, True, "it is complete"),
        (RunInfo("mfxx49820", 42, 100), SCHEMA, False, "it holds mfxx49820 run 42 begun at 99"),
    ],
)
def test_a_file_of_another_run_is_never_touched(tmp_path, caplog, info, schema, ended, why):
    first = written(tmp_path, 20, ended)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*.h5")}
    for n in (2, 3):
        sink = begun(tmp_path, info, schema)
        assert sink.path == tmp_path / f"mfxx49820_Run0042_{n}.h5"
        assert f"left as it is: {why}" in caplog.text
        sink.append(make_batch(0, 30, schema))
        sink.end_run(books(1, 30))
        with reader.open(sink.path) as run:
            assert any(why in note for note in run.notes)
    assert first in before
    assert all(p.read_bytes() == data for p, data in before.items())


def test_a_file_that_is_no_hdf5_is_never_touched(tmp_path, caplog):
    (tmp_path / NAME).write_text("dear diary")
    sink = begun(tmp_path)
    assert sink.path.name == "mfxx49820_Run0042_2.h5"
    assert "cannot be continued" in caplog.text
    sink.close()
    assert (tmp_path / NAME).read_text() == "dear diary"


def test_a_leftover_of_a_killed_creation_is_replaced(tmp_path):
    (tmp_path / f".{NAME}.part").write_text("half a file")
    sink = begun(tmp_path)
    sink.append(make_batch(0, 9))
    sink.end_run(books(1, 9))
    assert [p.name for p in tmp_path.iterdir()] == [NAME]


def test_no_room_refuses_before_the_file_is_touched(tmp_path, monkeypatch):
    sink = begun(tmp_path)
    sink.append(make_batch(0, 100))
    sink.commit(books(1, 100))
    segment = folder_of(sink.path) / "seg0000.live.h5"
    size = segment.stat().st_size
    full = SimpleNamespace(f_bavail=100, f_frsize=4096)
    with monkeypatch.context() as patch:
        patch.setattr(os, "statvfs", lambda _: full)
        sink.append(make_batch(100, 100))
        for _ in range(3):
            with pytest.raises(OSError, match=r"0\.4 MB free, .* MB needed") as caught:
                sink.commit(books(2, 200))
        assert "100 rows are safe in the file, 100 wait in memory" in str(caught.value)
        assert segment.stat().st_size == size
        with pytest.raises(OSError, match="make room"):
            begun(tmp_path, RunInfo("mfxx49820", 43))
    assert not (tmp_path / "mfxx49820_Run0043.h5").exists()
    sink.append(make_batch(200, 50))
    sink.end_run(books(2, 250))
    with reader.open(sink.path) as run:
        assert_true(run, 250)
        assert list(run.commits["rows"]) == [100, 250]


def test_a_failed_end_can_be_repeated(tmp_path, monkeypatch):
    sink = begun(tmp_path)
    sink.append(make_batch(0, 100))

    def broken(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(chain, "write_master", broken)
        with pytest.raises(OSError, match="100 rows are safe in the file, 0 wait"):
            sink.end_run(books(1, 100))
    sink.end_run(books(1, 100))
    sink.end_run(books(1, 100))
    with reader.open(sink.path) as run:
        assert run.complete
        assert_true(run, 100)


def test_a_file_removed_under_the_writer_is_noticed(tmp_path):
    sink = begun(tmp_path)
    sink.append(make_batch(0, 10))
    sink.path.unlink()
    with pytest.raises(FileNotFoundError, match="removed or replaced"):
        sink.commit(books(1, 10))
    sink.close()


def test_a_batch_of_other_columns_is_refused(tmp_path):
    sink, other = begun(tmp_path), Schema((*SCHEMA.columns, Column("new", "<f8")))
    with pytest.raises(ValueError, match="begin_epoch comes first"):
        sink.append(make_batch(0, 1, other))
    sink.close()


def test_calls_out_of_order_are_refused(tmp_path):
    sink = SmallData(tmp_path)
    for call in (
        lambda: sink.append(make_batch(0, 1)),
        lambda: sink.commit(Counts()),
        lambda: sink.step(0, {}, ""),
        lambda: sink.end_run(Counts()),
    ):
        with pytest.raises(RuntimeError, match="begin_run comes first"):
            call()
    sink.begin_run(INFO, SCHEMA, PROVENANCE)
    with pytest.raises(RuntimeError, match="is still open"):
        sink.begin_run(INFO, SCHEMA, PROVENANCE)
    sink.close()
    sink.close()


def test_a_directory_that_is_a_file_is_refused_by_name(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(OSError, match="taken/deep: cannot be written: Not a directory"):
        begun(tmp_path / "taken" / "deep")


def test_lookup3_is_jenkins_own():
    # from the self-test of lookup3.c, driver5, with both seeds zero
    assert h5clear.lookup3(b"") == 0xDEADBEEF
    assert h5clear.lookup3(b"Four score and seven years ago") == 0x17770551


def test_flags_are_cleared_as_hdf5_itself_would(tmp_path):
    path = written(tmp_path, 10)
    clean = path.read_bytes()
    assert not h5clear.clear(path)
    block = bytearray(clean[:48])
    block[h5clear.FLAGS] = 5
    block[44:48] = h5clear.lookup3(bytes(block[:44])).to_bytes(4, "little")
    path.write_bytes(bytes(block) + clean[48:])
    with pytest.raises(OSError, match="already open"):
        h5py.File(path, "r", locking=False)
    assert h5clear.clear(path)
    assert path.read_bytes() == clean
    path.write_bytes(bytes(block) + clean[48:] + bytes(1000))
    assert h5clear.clear(path)
    end = int.from_bytes(path.read_bytes()[28:36], "little")
    assert end == path.stat().st_size, "or a writer going on would allocate what is in use"
    with h5py.File(path, "r") as file:
        assert len(file["timestamp"]) == 10
    path.write_bytes(clean[:20] + b"\x55" + clean[21:])
    with pytest.raises(OSError, match="superblock is damaged"):
        h5clear.clear(path)
