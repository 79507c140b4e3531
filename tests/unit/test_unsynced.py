"""Commits that a power failure took after they were acknowledged: the books say so, and balance."""

import os
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from ffb import reader
from ffb.batch import Batch
from ffb.books.audit import audit
from ffb.ledger import POWER
from ffb.reading.contents import FOLDER
from ffb.wire import Message
from ffb.writers import chain, examine, recover
from ffb.writers.chain import Rolling
from ffb.writers.journal import Journal, read
from ffb.writers.small_data import SmallData
from tests.unit.producers import RUN, Producer
from tests.unit.world import World

NAME = f"{RUN.exp}_Run{RUN.run:04d}.h5"
EACH = 20  # shots in a message
COMMITS = 8  # of two messages each, one of either producer; number SYNCED is synced
SYNCED = 3


def shots(producer: Producer, first: int) -> Message:
    """Send every second shot from ``first`` on."""
    message = producer.shots(range(first, first + 2 * EACH, 2))
    assert isinstance(message.body, Batch)
    columns = message.body.columns
    columns["ffb/kept"][:], columns["step"][:] = 1, -1
    columns["pulse_id"][:] = columns["timestamp"]
    return message


class Life:
    """An aggregator that writes into a folder; two producers elsewhere that outlive it."""

    def __init__(self, folder: Path, producers: list[Producer] | None = None) -> None:
        self.sink = SmallData(folder, rolling=Rolling(1024, 1e9, 10.0), merge=None)
        self.world = World(self.sink, producers=2)
        self.producers = producers or [Producer(n) for n in "ab"]
        self.master = folder / NAME

    def give(self, number: int) -> None:
        """Take and commit the two messages ``number``."""
        for i, p in enumerate(self.producers):
            self.world.give(shots(p, 2 * EACH * number + i + 1))
        self.world.tick(101)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look into files, whose metadata are whole, without a process for it."""
    monkeypatch.setattr(examine, "_ask", lambda requests, _: [*examine.answers(requests)])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The writer's clock, which stands still."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(chain, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def failed(tmp_path: Path, clock: SimpleNamespace) -> Life:
    """What is on the disk when power fails, all of it; to be spoilt by what was not synced."""
    life = Life(tmp_path / "was")
    for p in life.producers:
        life.world.give(p.begin())
    for number in range(COMMITS):
        clock.now += 10.0 if number + 1 == SYNCED else 0.0
        life.give(number)
    shutil.copytree(tmp_path / "was", tmp_path / "now")
    life.sink.close()
    return Life(tmp_path / "now", life.producers)


def spoil(folder: Path, name: str, rows: slice) -> None:
    """Let rows of a column read as zeros: the disk never got them."""
    path = folder / "seg0000.live.h5"
    with h5py.File(path, "r", locking=False, swmr=True) as file:
        dataset = file[name]
        row = dataset[0].nbytes
        assert rows.stop <= dataset.chunks[0], "all in the first chunk"
        at = dataset.id.get_chunk_info(0).byte_offset + rows.start * row
    with path.open("r+b") as f:
        f.seek(at)
        assert f.read((rows.stop - rows.start) * row).strip(b"\0"), "there is something to lose"
        f.seek(at)
        f.write(bytes((rows.stop - rows.start) * row))


def forget(folder: Path, commits: int) -> None:
    """Cut the last commits off the journal."""
    kinds = [r["kind"] for r in read(folder / "journal")]
    last = [i for i, kind in enumerate(kinds) if kind == "commit"][-commits]
    short = islice(read(folder / "journal"), last)
    made = Journal(folder / "short")
    for record in short:
        made.add(**record)
    made.write()
    made.close()
    os.replace(folder / "short", folder / "journal")


def go_on(life: Life) -> None:
    """Let the producers, who know all of it as safe, send on in the next life, and end."""
    for p in life.producers:
        life.world.give(p.sent[0])  # as reminders do
    for number in (COMMITS, COMMITS + 1):
        life.give(number)
    for p in life.producers:
        life.world.give(p.end())
    life.world.tick()


def assert_books(life: Life, lost_commits: range) -> None:
    """All shots are rows but for those of some commits, which are lost; everything adds up."""
    report = audit(life.master)
    assert report.problems == []
    gone = len(lost_commits) * EACH * 2
    assert report.complete
    assert report.counts.lost == ({POWER: gone} if gone else {})
    assert report.counts.written == (COMMITS + 2) * EACH * 2 - gone
    with reader.open(life.master) as run:
        expected = [
            stamp
            for number in range(COMMITS + 2)
            if number not in lost_commits
            for stamp in range(number * EACH * 2 + 1, (number + 1) * EACH * 2 + 1)
        ]
        np.testing.assert_array_equal(run["timestamp"][:], expected)
        np.testing.assert_array_equal(run["value"][:], np.array(expected) % 97)


@pytest.mark.parametrize("column", ["value", "timestamp", "ffb/log"])
def test_the_first_commit_whose_bytes_are_missing_and_all_later_ones_are_lost(failed, column):
    folder = failed.master.with_suffix(FOLDER)
    if column == "ffb/log":
        begin = int(commits_of(folder)[5]["log"])
        spoil(folder, column, slice(begin, begin + 10))
    else:
        spoil(folder, column, slice(5 * EACH * 2 + 3, 5 * EACH * 2 + 9))
    go_on(failed)
    assert_books(failed, range(5, COMMITS))
    with reader.open(failed.master) as run:
        said = [note for note in run.notes if "not synced" in note]
    assert len(said) == 1
    assert column in said[0]
    assert "120 rows are entered as lost" in said[0]


def commits_of(folder: Path) -> np.ndarray:
    with h5py.File(folder / "seg0000.live.h5", "r", locking=False, swmr=True) as file:
        return file["ffb/commits"][:]


def test_what_is_there_counts_though_it_was_not_synced(failed):
    go_on(failed)
    assert_books(failed, range(0))


def test_commits_that_the_journal_forgot_are_lost_as_well(failed):
    forget(failed.master.with_suffix(FOLDER), 3)
    go_on(failed)
    assert_books(failed, range(5, COMMITS))


def test_what_was_synced_is_not_given_up_whatever_it_reads(failed):
    """It did not go with the power: an audit finds it, and no recovery hides it."""
    spoil(failed.master.with_suffix(FOLDER), "timestamp", slice(5, 9))
    healed = recover.heal(failed.master)
    assert healed.rows == COMMITS * EACH * 2
    assert any("timestamp" in p.what for p in audit(failed.master).problems)


def test_a_recovery_stopped_between_cut_and_commit_goes_on(failed, monkeypatch):
    spoil(failed.master.with_suffix(FOLDER), "value", slice(250, 260))

    def stop(*_: object) -> None:
        raise OSError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(recover, "_pay", stop)
        with pytest.raises(OSError, match="stopped"):
            recover.heal(failed.master)
    healed = recover.heal(failed.master)
    assert healed.books.lost == {POWER: (COMMITS - 6) * EACH * 2}
    assert audit(failed.master).problems == []
    assert recover.heal(failed.master)._replace(notes=healed.notes) == healed
    go_on(failed)
    assert_books(failed, range(6, COMMITS))


def test_a_run_of_which_no_commit_is_left_begins_with_its_losses(tmp_path, clock):
    """Nothing was synced but the beginning of the journal."""
    life = Life(tmp_path / "was")
    for p in life.producers:
        life.world.give(p.begin())
    for number in range(COMMITS):
        life.give(number)
    shutil.copytree(tmp_path / "was", tmp_path / "now")
    life.sink.close()
    after = Life(tmp_path / "now", life.producers)
    spoil(after.master.with_suffix(FOLDER), "value", slice(0, 9))
    go_on(after)
    assert_books(after, range(COMMITS))
