"""File segments of a run: when one follows another, what the master shows and the journal says."""

import errno
import io
import json
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

from ffb import reader
from ffb.batch import Batch, compressed
from ffb.reading.contents import EPOCHS, PRODUCERS, TABLES
from ffb.schema import Column, Schema
from ffb.sink import Counts, Entry, Provenance
from ffb.writers import chain, consolidate, journal, layout, segment
from ffb.writers.chain import Rolling
from ffb.writers.history import told
from ffb.writers.master import folder_of
from ffb.writers.small_data import SmallData
from tests.unit.small_data_truth import (
    INFO,
    PROVENANCE,
    SCHEMA,
    assert_true,
    books,
    make_batch,
    truth,
)


def rolling(folder, schema=SCHEMA, rows=1024, seconds=600.0, sync=1.0) -> SmallData:
    sink = SmallData(folder, rolling=Rolling(rows, seconds, sync), merge=None)
    sink.begin_run(INFO, schema, PROVENANCE)
    return sink


def assert_plain(path, rows: int) -> None:
    """What any HDF5 program sees in the master."""
    with h5py.File(path, "r") as file:
        assert file["ffb/committed"][0] == rows
        for c in SCHEMA.columns:
            assert file[c.name].shape == (rows, *c.shape)
            assert file[c.name].attrs["unit"] == c.unit
            np.testing.assert_array_equal(file[c.name][:], truth(c, np.arange(rows)))


def assert_journal_knows_every_chunk(path) -> None:
    """Addresses in the journal are those that HDF5 finds, one by one."""
    history = told(journal.read(folder_of(path) / "journal"))
    for told_ in history.segments:
        with h5py.File(folder_of(path) / told_.file, "r") as file:
            for i, name in enumerate(told_.datasets):
                found = []
                file[name].id.chunk_iter(found.append)
                per = file[name].chunks[0]
                there = {
                    (f.chunk_offset[0] // per, f.byte_offset, f.size, f.filter_mask) for f in found
                }
                mine = told_.chunks[told_.chunks["dataset"] == i]
                assert {tuple(c)[1:] for c in mine.tolist()} == there, (told_.file, name)


def test_segments_are_filled_to_the_row_and_shown_as_one(tmp_path):
    rng, sink, done, commit = np.random.default_rng(3), rolling(tmp_path), 0, 0
    while done < 5000:
        for n in rng.integers(0, 900, rng.integers(0, 5)):
            sink.append(make_batch(done, int(n)))
            done += int(n)
        commit += 1
        sink.commit(books(commit, done))
        with reader.open(sink.path) as run:
            assert_true(run, done)
    sink.end_run(books(commit + 1, done, ended="end of run"))
    with h5py.File(sink.path, "r") as file:
        listed = json.loads(file["ffb/segments"].asstr()[()])
    assert [s["rows"] for s in listed[:-1]] == [1024] * (done // 1024)
    assert [s["first"] for s in listed] == [1024 * i for i in range(len(listed))]
    assert_plain(sink.path, done)
    assert_journal_knows_every_chunk(sink.path)
    elsewhere = tmp_path / "elsewhere 100%b"
    elsewhere.mkdir()
    for place in (sink.path, folder_of(sink.path)):
        place.rename(elsewhere / place.name)
    assert_plain(elsewhere / sink.path.name, done)


def test_one_commit_may_fill_several_segments_at_once(tmp_path):
    sink = rolling(tmp_path)
    sink.append(make_batch(0, 4000))
    sink.commit(books(1, 4000))
    sink.append(make_batch(4000, 96))
    sink.commit(books(2, 4096))
    records = [r for r in journal.read(folder_of(sink.path) / "journal") if r["kind"] == "commit"]
    assert [f["rows"] for f in records[0]["filled"]] == [1024, 2048, 3072]
    assert [len(f["filled"]) for f in (records[1],)] == [0], "full, and nothing followed yet"
    sink.end_run(books(3, 4096))
    assert len(list(folder_of(sink.path).glob("seg????.h5"))) == 4
    assert_plain(sink.path, 4096)


def test_a_segment_ends_where_chunks_do_after_its_time(tmp_path):
    sink = rolling(tmp_path, rows=4096, seconds=1e-9)
    for i in range(4):
        sink.append(make_batch(700 * i, 700))
        sink.commit(books(i + 1, 700 * (i + 1)))
    sink.commit(books(5, 2800))
    sink.end_run(books(6, 2800))
    with h5py.File(sink.path, "r") as file:
        listed = json.loads(file["ffb/segments"].asstr()[()])
    assert [s["rows"] for s in listed] == [1024, 1024, 752]
    assert_plain(sink.path, 2800)
    whole = sum(2800 // layout.chunk_rows(c) for c in SCHEMA.columns)
    assert consolidate.merge(sink.path).copied >= whole, "no chunk of a column is written anew"


def test_segments_end_where_chunks_of_compressed_columns_do(tmp_path):
    packed = [
        c._replace(codec="bitshuffle-lz4", chunk=96) if c.shape else c for c in SCHEMA.columns
    ]
    sink = rolling(tmp_path, Schema(tuple(packed)))
    room = sink._chain.segment.room
    assert (room(3072), room(4096), room(8192)) == (3072, 3072, 6144)
    assert room(1024) == 1024, "they would not fit"
    sink.close()


def test_where_no_segment_can_follow_the_old_one_goes_on(tmp_path, monkeypatch, caplog):
    sink = rolling(tmp_path)

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(segment.layout, "open_new", refuse)
        for i in range(3):
            sink.append(make_batch(700 * i, 700))
            sink.commit(books(i + 1, 700 * (i + 1)))
    assert caplog.text.count("no new segment can be begun, seg0000.live.h5 goes on") == 1
    sink.append(make_batch(2100, 1000))
    sink.commit(books(4, 3100))
    sink.end_run(books(5, 3100))
    with h5py.File(sink.path, "r") as file:
        listed = json.loads(file["ffb/segments"].asstr()[()])
    assert [s["rows"] for s in listed] == [3072, 28], "it ends where its chunks end"
    assert_plain(sink.path, 3100)
    assert_journal_knows_every_chunk(sink.path)


def test_rows_that_cannot_be_shown_are_safe_and_shown_later(tmp_path, monkeypatch, caplog):
    sink = rolling(tmp_path)

    def refuse(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(chain, "write_master", refuse)
        for i in range(2):
            sink.append(make_batch(1500 * i, 1500))
            sink.commit(books(i + 1, 1500 * (i + 1)))
        assert sink.rows == 3000
        with reader.open(sink.path) as run:
            assert_true(run, 0)  # whole commits only
    assert caplog.text.count("cannot be shown to readers yet") == 1
    sink.commit(books(3, 3000))
    with reader.open(sink.path) as run:
        assert_true(run, 3000)
    sink.close()


@pytest.mark.parametrize("breaks", ["write", "sync"])
def test_a_journal_that_refuses_refuses_the_commit(tmp_path, monkeypatch, breaks):
    sink = rolling(tmp_path, sync=0)
    sink.append(make_batch(0, 100))
    sink.commit(books(1, 100))

    def refuse(*_):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    sink.append(make_batch(100, 2000))
    with monkeypatch.context() as patch:
        patch.setattr(journal.Journal, breaks, refuse)
        for _ in range(2):
            with pytest.raises(OSError, match="Disk quota exceeded; 100 rows are safe"):
                sink.commit(books(2, 2100))
        with reader.open(sink.path) as run:
            assert_true(run, 100)
    sink.commit(books(2, 2100))
    sink.end_run(books(3, 2100))
    assert_plain(sink.path, 2100)
    assert_journal_knows_every_chunk(sink.path)
    with reader.open(sink.path) as run:
        assert list(run.commits["commit"]) == [1, 2, 3]


@pytest.mark.parametrize(
    ("sync", "kinds"), [(0.0, "sync record sync count"), (1e9, "record count")]
)
def test_what_counts_is_in_the_journal_before_and_synced_before_that(
    tmp_path, monkeypatch, sync, kinds
):
    sink, seen = rolling(tmp_path, sync=sync), []
    for place, name, word in (
        (os, "fdatasync", "sync"),
        (journal.Journal, "write", "record"),
        (segment.Segment, "show", "count"),
    ):
        real = getattr(place, name)
        monkeypatch.setattr(place, name, lambda *a, r=real, w=word: (seen.append(w), r(*a))[1])
    sink.append(make_batch(0, 10))
    sink.commit(books(1, 10))
    assert " ".join(seen) == kinds
    sink.close()


def test_a_run_has_ended_when_its_master_says_so_and_not_before(tmp_path, monkeypatch):
    """A writer that dies between the two is played by an error, and a lease given back."""

    def die(*_):
        raise OSError(errno.EIO, "Input/output error")

    def add(self, kind, real=journal.Journal.add, **fields):
        die() if kind == "ended" else real(self, kind, **fields)

    sink = rolling(tmp_path)
    sink.append(make_batch(0, 1500))
    with monkeypatch.context() as patch:
        patch.setattr(chain, "write_master", die)
        with pytest.raises(OSError, match="1500 rows are safe"):
            sink.end_run(books(1, 1500))
    sink._lease.release()
    again = rolling(tmp_path)
    assert (again.path, again.rows, again.books.written) == (sink.path, 1500, 1500)
    with monkeypatch.context() as patch:
        patch.setattr(journal.Journal, "add", add)
        with pytest.raises(OSError, match="1500 rows are safe"):
            again.end_run(books(2, 1500))
    again._lease.release()
    with reader.open(sink.path) as run:
        assert run.complete
    other = rolling(tmp_path)
    assert other.path.name == "mfxx49820_Run0042_2.h5"
    other.close()
    assert_plain(sink.path, 1500)
    with reader.open(sink.path) as run:
        assert run.complete


def test_epochs_with_other_columns_show_as_one_run(tmp_path):
    kept = [c for c in SCHEMA.columns if c.name != "spot/npix"]
    changed = [c._replace(shape=(8,)) if c.name == "azav/I" else c for c in kept]
    other = Schema((*changed, Column("new/value", "<f8"), Column("new/flag", "|b1")))
    sink = rolling(tmp_path)
    sink.append(make_batch(0, 300))
    sink.commit(books(1, 300))
    sink.begin_epoch(1, other, Provenance(config="[y]"))
    batch = make_batch(300, 200, other)
    sink.append(batch)
    sink.commit(books(2, 500, epoch=1))
    with pytest.raises(ValueError, match="begin_epoch comes first"):
        sink.append(make_batch(500, 1))
    sink.end_run(books(3, 500, epoch=1))
    with h5py.File(sink.path, "r") as file:
        assert file["azav/I"].shape == (500, 8)
        assert np.isnan(file["azav/I"][:300]).all()
        np.testing.assert_array_equal(file["azav/I"][300:], batch.columns["azav/I"])
        old = SCHEMA.by_name["azav/I"]
        np.testing.assert_array_equal(file["azav/I_e0"][:300], truth(old, np.arange(300)))
        assert np.isnan(file["azav/I_e0"][300:]).all()
        assert (file["spot/npix"][300:] == 0).all()
        assert np.isnan(file["new/value"][:300]).all()
        assert not file["new/flag"][:300].any()
        assert file["ffb/config"].asstr()[()] == "[y]"
        assert [tuple(e)[:3] for e in file[EPOCHS][:].tolist()] == [(0, 0, 1), (1, 300, 2)]
        log = file["ffb/log"][:].tobytes()
        says = [json.loads(log[e["log"] :][: e["size"]]) for e in file[EPOCHS][:]]
        assert [s["provenance"]["config"] for s in says] == [PROVENANCE.config, "[y]"]


def test_a_run_that_goes_on_with_other_columns_is_one_run(tmp_path):
    sink = rolling(tmp_path)
    sink.append(make_batch(0, 30))
    sink.commit(books(1, 30))
    sink.close()
    other = Schema((*SCHEMA.columns, Column("new/value", "<f8")))
    again = rolling(tmp_path, other)
    assert again.path == sink.path
    again.begin_epoch(1, other, PROVENANCE)
    again.append(make_batch(30, 12, other))
    again.end_run(books(2, 42, epoch=1))
    with h5py.File(again.path, "r") as file:
        assert [s["epoch"] for s in json.loads(file["ffb/segments"].asstr()[()])] == [0, 1]
        assert np.isnan(file["new/value"][:30]).all()
        assert len(file["timestamp"]) == 42
    assert not list(folder_of(again.path).glob(".*"))


def test_steps_are_entered_with_their_first_row_whichever_comes_first(tmp_path):
    sink = rolling(tmp_path)
    sink.step(0, {"x": 0.0}, "early")
    sink.commit(books(1, 0))
    sink.append(make_batch(0, 400))
    sink.commit(books(2, 400))
    with reader.open(sink.path) as run:
        assert [(s.step, s.row) for s in run.steps] == [(0, 0)]
    sink.close()  # the rows of steps 1 and 2 are known, their values are not
    again = rolling(tmp_path)
    again.step(1, {"x": 1.0}, "late")
    again.step(0, {"x": 9.0}, "said already")
    again.step(7, {"x": 7.0}, "no row of it will come")
    again.end_run(books(3, 400))
    with reader.open(again.path) as run:
        found = {s.step: (s.row, dict(s.values)) for s in run.steps}
    assert found == {0: (0, {"x": 0.0}), 1: (150, {"x": 1.0}), 2: (300, {}), 7: (-1, {"x": 7.0})}


def test_entries_and_producers_are_entered_once(tmp_path):
    sink = rolling(tmp_path)
    p0 = {"producer": "p0", "epoch": 5, "seq": 1, "index": 0}
    p1 = {"producer": "p1", "epoch": 6, "seq": 1, "index": 1}
    sink.append(make_batch(0, 10))
    lost = Entry(0, "backpressure", 3, 4, 2)
    sink.commit(Counts(1, 12, 10, {"backpressure": 2}, producers={"p0": p0}, ledger=(lost,)))
    sink.append(make_batch(10, 2000))
    sink.commit(Counts(2, 2012, 2010, {"backpressure": 2}, producers={"p1": p1, "p0": p0}))
    sink.close()
    again = rolling(tmp_path)
    assert again.books.producers == {"p1": p1, "p0": p0}
    written = Entry(0, "written", 1, 9, 2010, 0)
    again.end_run(Counts(3, 2012, 2010, producers={"p0": p0, "p1": p1}, ledger=(written,)))
    with h5py.File(again.path, "r") as file:
        assert file[PRODUCERS][:].tolist() == [(0, b"p0", 5), (1, b"p1", 6)]
        assert file["ffb/ledger"][:].tolist() == [
            (0, b"backpressure", 3, 4, 2, -1, 1),
            (0, b"written", 1, 9, 2010, 0, 3),
        ]
        assert set(TABLES) <= {f"ffb/{name}" for name in file["ffb"]}


def read_elsewhere(path, schema, rows) -> None:
    """Check the growing file in another process: in ours HDF5 mistakes chunks written past it."""
    code = (
        "import io, sys, numpy as np, ffb\n"
        "np.savez(out := io.BytesIO(), **ffb.open(sys.argv[1]).to_numpy())\n"
        "sys.stdout.buffer.write(out.getvalue())"
    )
    done = subprocess.run([sys.executable, "-c", code, path], check=True, capture_output=True)
    with np.load(io.BytesIO(done.stdout)) as found:
        for c in schema.columns:
            np.testing.assert_array_equal(found[c.name], truth(c, np.arange(rows)))


PACKED = Schema(
    (
        *SCHEMA.columns[:9],
        Column("w/trace", "<i2", (300,), ("t",), codec="bitshuffle-lz4", chunk=64),
        Column("w/noise", "<f8", (20,), codec="bitshuffle-zstd", chunk=64),
    )
)


@pytest.mark.parametrize("sizes", [(64,) * 20, (64, 64, 13, 64, 64, 51, 64, 500)])
def test_compressed_columns_hold_what_came_wherever_it_stands(tmp_path, sizes):
    sink, done = rolling(tmp_path, PACKED), 0
    for commit, n in enumerate(sizes, 1):
        batch = make_batch(done, n, PACKED)
        packed = compressed(batch)
        whole = Batch.of(PACKED, n, packed.buffer.tobytes(), packed.read, packed.sizes)
        assert bool(whole.encoded) == (n == 64)
        sink.append(whole)
        done += n
        sink.commit(books(commit, done))
        if commit == 6:
            read_elsewhere(sink.path, PACKED, done)
    sink.end_run(books(99, done))
    with reader.open(sink.path) as run:
        for c in PACKED.columns:
            np.testing.assert_array_equal(run[c.name][:], truth(c, np.arange(done)))
    assert_journal_knows_every_chunk(sink.path)
    with h5py.File(folder_of(sink.path) / "seg0000.h5", "r") as file:
        found = []
        file["w/trace"].id.chunk_iter(found.append)
        assert all(f.filter_mask == 0 and f.size < 300 * 64 * 2 for f in found[:-1])
