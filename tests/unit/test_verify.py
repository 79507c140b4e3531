"""The plot is the file: what was shown is computed again from the rows, and tampering is found."""

import h5py
import numpy as np
import pytest

from ffb.batch import Batch
from ffb.live.model import Live
from ffb.live.recompute import Compensated
from ffb.live.snapshots import Album, DamagedError, beside, read
from ffb.live.verify import VIEWS, verify, verify_command
from ffb.schema import Column, Schema
from ffb.sink import Counts
from ffb.source import RunInfo
from ffb.wire import pack, unpack
from ffb.writers.small_data import SmallData
from tests.unit.live_rows import PROVENANCE, SCHEMA, rows
from tests.unit.test_live import STATUS

INFO = RunInfo("tstx00001", 7)

#: Of the second epoch: one column less, and an array of another shape.
OTHER = Schema(
    tuple(
        c._replace(shape=(3,)) if c.name == "az/intensity" else c
        for c in SCHEMA.columns
        if c.name != "spot/nsat"
    )
)


class Service:
    """Writer and live model side by side, and a snapshot kept of every commit."""

    def __init__(self, folder):
        self.writer, self.live = SmallData(folder), Live()
        self.sinks = (self.writer, self.live)
        self.tell("begin_run", INFO, SCHEMA, PROVENANCE)
        self.album = Album(beside(self.writer.path))
        self.commits = self.total = 0

    def tell(self, word, *args):
        for sink in self.sinks:
            getattr(sink, word)(*args)

    def commit(self, *batches, epoch=0, late=0):
        for batch in batches:
            batch.columns["ffb/epoch"][:] = epoch
            self.tell("append", batch)
            self.total += batch.n
        self.commits += 1
        counts = Counts(self.commits, self.total + 3, self.total, epoch=epoch, late=late)
        self.tell("commit", counts)
        self.album.add(self.commits, self.live.snapshot(STATUS))
        return counts


def late(first, n):
    """Rows that come after newer ones."""
    batch = rows(first, n)
    batch.columns["ffb/late"][:] = True
    return batch


def in_epoch(first, n):
    """Rows of the second epoch."""
    whole, batch = rows(first, n), Batch(OTHER, n)
    for name, column in batch.columns.items():
        column[...] = whole.columns[name][:, :3] if name == "az/intensity" else whole.columns[name]
    batch.read[:] = whole.read
    return batch


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """A run of two epochs with late rows, ended and merged, and a snapshot of each commit."""
    service = Service(tmp_path_factory.mktemp("run"))
    for step in range(8):
        service.tell("step", step, {"lxt": -1.0 + 0.5 * step}, "")
    service.commit(rows(0, 70))
    service.commit(rows(90, 60))
    service.commit(late(70, 20), rows(150, 30), late=20)
    service.tell("begin_epoch", 1, OTHER, PROVENANCE)
    service.commit(in_epoch(180, 80), epoch=1, late=20)
    counts = service.commit(in_epoch(260, 90), epoch=1, late=20)
    service.tell("end_run", counts)
    return service.writer.path


@pytest.fixture
def copied(ended, tmp_path):
    """A copy that may be spoilt."""
    for source in (ended, beside(ended)):
        (tmp_path / source.name).write_bytes(source.read_bytes())
    return tmp_path / ended.name


@pytest.mark.parametrize("commit", [1, 2, 3, 4, 5])
def test_every_commit_of_a_merged_run_is_what_was_shown(ended, commit):
    assert h5py.is_hdf5(ended)
    assert not ended.with_suffix(".parts").exists()
    verdict = verify(ended, commit=commit)
    wrong = [c for c in verdict.checks if c.wrong]
    assert (wrong, verdict.problems) == ([], [])
    assert verdict.good
    assert {c.view for c in verdict.checks} == set(VIEWS)
    span = [(0, 70), (0, 130), (0, 180), (180, 260), (180, 350)][commit - 1]
    assert (verdict.span, verdict.epoch) == (span, int(commit > 3))
    columns = {c.column for c in verdict.checks if c.view == "scan"}
    assert ("spot/nsat" in columns) == (commit < 4)


def test_a_run_that_is_still_written_is_what_is_shown(tmp_path):
    service = Service(tmp_path)
    for k in range(6):
        service.commit(rows(33 * k, 33))
        verdict = verify(service.writer.path)
        assert verdict.good, verdict
        assert (verdict.commit, verdict.span) == (k + 1, (0, 33 * (k + 1)))
    service.writer.close()


STATISTICS = {"strip", "scan", "ratio", "histogram"}


@pytest.mark.parametrize(
    ("column", "row", "change", "views"),
    [
        ("spot/sum", 20, lambda v: 1.5 * v, STATISTICS),
        ("gas/energy", 21, lambda v: 1.5 * v, STATISTICS),
        ("az/intensity_e0", 22, lambda v: 1.5 * v + 1, {"mean"}),
        ("spot/present", 24, np.logical_not, STATISTICS | {"presence", "mean"}),
        ("lightStatus/laser", 25, lambda v: 1 - v, STATISTICS | {"light", "mean"}),
        ("step", 26, lambda v: v + 1, {"scan", "ratio"}),
        ("timestamp", 27, lambda v: v + np.uint64(1 << 33), {"strip", "light"}),
    ],
)
def test_one_changed_value_in_the_file_is_found(copied, column, row, change, views, capsys):
    with h5py.File(copied, "r+") as file:
        file[column][row] = change(file[column][row])
    verdict = verify(copied, commit=2)
    assert {c.view for c in verdict.checks if c.wrong} == views
    assert verify_command(str(copied), commit=2) == 1
    said = capsys.readouterr().out
    assert "MISMATCH" in said
    assert "THE PLOT IS NOT THE FILE: commit 2, epoch 0, rows 0 to 130" in said


def spoil(path, commit, change):
    """Write the snapshots anew, that of ``commit`` changed."""
    kept = [*read(path)]
    path.unlink()
    album = Album(path)
    for k in kept:
        frame = k.frame
        if k.commit == commit:
            meta, arrays = unpack(frame)
            arrays = {name: np.array(values) for name, values in arrays.items()}
            change(meta, arrays)
            frame = pack(meta, arrays)
        album.add(k.commit, frame)


@pytest.mark.parametrize(
    "name",
    [
        "strip.n",
        "strip.mean",
        "scan.m2",
        "scan.lxt",
        "ratio.cross",
        "histogram.counts",
        "mean:spot/area",
        "error:az/intensity",
        "last:az/intensity",
    ],
)
def test_one_changed_number_in_a_snapshot_is_found(copied, name):
    def change(meta, arrays):
        values = arrays[name].reshape(-1)
        at = np.flatnonzero(np.isfinite(values) & (values != 0))[-1]
        values[at] = values[at] * 1.001 if values.dtype.kind == "f" else values[at] + 1

    spoil(beside(copied), 3, change)
    wrong = [c for c in verify(copied, commit=3).checks if c.wrong]
    assert [(c.array, c.wrong) for c in wrong] == [(name, 1)]
    assert verify(copied, commit=2).good


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda m, a: m.update(span=[0, 129]), "commit 2 has 130 rows, the snapshot 129"),
        (lambda m, a: m.update(run=8), "the snapshot is of tstx00001 run 8"),
        (lambda m, a: m.update(commit=77), "the file knows no commit 77"),
    ],
)
def test_a_snapshot_of_something_else_is_told(copied, change, problem):
    spoil(beside(copied), 2, change)
    verdict = verify(copied, commit=2)
    assert not verdict.good
    assert problem in verdict.problems[0]


def test_an_error_left_out_is_found_but_a_snapshot_from_before_they_were_kept_is_read(copied):
    spoil(beside(copied), 2, lambda m, a: a.pop("error:az/intensity"))
    spoil(beside(copied), 3, lambda m, a: (m.pop("errors"), a.pop("error:az/intensity")))
    (wrong,) = [c for c in verify(copied, commit=2).checks if c.wrong]
    assert (wrong.view, wrong.array, wrong.wrong) == ("mean", "error:az/intensity", 24)
    assert verify(copied, commit=3).good


def test_books_that_were_changed_are_found(copied):
    spoil(beside(copied), 2, lambda m, a: m.update(late=1))
    (wrong,) = [c for c in verify(copied, commit=2).checks if c.wrong]
    assert (wrong.view, wrong.wrong) == ("books", 1)


def test_a_damaged_snapshot_is_told(copied):
    path = beside(copied)
    raw = bytearray(path.read_bytes())
    raw[-10] ^= 4
    path.write_bytes(raw)
    with pytest.raises(DamagedError):
        [*read(path)]
    verdict = verify(copied)  # the newest that is whole
    assert (verdict.commit, verdict.good) == (4, False)
    assert "is damaged" in verdict.problems[0]


def test_a_view_or_a_column_can_be_chosen(copied, capsys):
    assert {c.view for c in verify(copied, "mean").checks} == {"mean"}
    assert {c.column for c in verify(copied, "spot/sum").checks} == {"spot/sum"}
    with pytest.raises(LookupError, match=r"no view and no column 'spot/summ'; there are books,"):
        verify(copied, "spot/summ")
    assert verify_command(str(copied)) == 0
    said = capsys.readouterr().out
    assert "the plot is the file: commit 5, epoch 1, rows 180 to 350" in said
    assert "floats may be off by 1e-12" in said


def test_a_commit_without_a_snapshot_names_those_that_have_one(copied, tmp_path):
    with pytest.raises(LookupError, match=r"no snapshot of commit 9; kept are 1, 2, 3, 4, 5$"):
        verify(copied, commit=9)
    one = tmp_path / "one.snapshot"
    one.write_bytes([*read(beside(copied))][1].frame)
    verdict = verify(copied, snapshot=one)
    assert (verdict.commit, verdict.good) == (2, True)
    beside(copied).unlink()
    with pytest.raises(LookupError, match="no snapshots are kept in"):
        verify(copied)


def test_a_large_image_is_compared_as_it_was_sent(tmp_path):
    big = Schema((*SCHEMA.columns, Column("spot/big", "<f4", (1030, 517), (), "1", "", "spot")))
    service = Service.__new__(Service)
    service.writer, service.live = SmallData(tmp_path), Live()
    service.sinks, service.commits, service.total = (service.writer, service.live), 0, 0
    service.tell("begin_run", INFO, big, PROVENANCE)
    service.album = Album(beside(service.writer.path))
    batch, plain = Batch(big, 4), rows(0, 4)
    for name, column in plain.columns.items():
        batch.columns[name][...] = column
    image = np.random.default_rng(3).normal(size=(4, 1030, 517)).astype(np.float32)
    image[:, 100:103, 50:53] = np.nan
    batch.columns["spot/big"][...] = image
    batch.read[:] = plain.read
    service.commit(batch)
    found = [c for c in verify(service.writer.path, "spot/big").checks if c.view == "mean"]
    assert [c.numbers for c in found] == [3, 3 * 257 * 129, 257 * 129]
    assert not any(c.wrong for c in found)
    service.writer.close()


def test_a_compensated_sum_keeps_what_rounding_would_drop():
    total = Compensated((2,))
    for value in (1e16, 1.0, -1e16, 1.0):
        total.add(np.array([value, -value]))
    assert total.total.tolist() == [2.0, -2.0]
