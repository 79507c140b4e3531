"""Reading a run over its file segments, while they roll, are merged, or are missing."""

import shutil

import h5py
import numpy as np
import pytest

from ffb import reader
from ffb.reading import contents
from tests.unit.booked import NAME, SCHEMAS, Told, cuts, write_plain, write_segments

TOLD = Told()


def expected(name: str) -> np.ndarray:
    """All rows of a column as the run shows it, in the order of commits."""
    column, source, epochs = contents.union(SCHEMAS)[name]
    values = np.array(TOLD.value(SCHEMAS[epochs[-1]].by_name[source]))
    values[~np.isin(TOLD.columns["ffb/epoch"], epochs)] = column.missing
    return values


def test_columns_are_joined_over_segments_and_epochs(tmp_path):
    with reader.open(write_segments(tmp_path, TOLD)) as run:
        assert set(run) == set(contents.union(SCHEMAS))
        assert {"azav/I", "azav/I_e0", "old/n", "new/x"} <= set(run)
        for name in run:
            whole = expected(name)
            assert run[name].shape == whole.shape
            first = TOLD.epoch_row - 3
            for key in (slice(None), slice(None, None, -7), slice(5, 5), [0, -1, 200], first):
                np.testing.assert_array_equal(run[name][key], whole[key], err_msg=name)
        key = (slice(100, 300, 3), slice(1, 3))
        np.testing.assert_array_equal(run["azav/I_e0"][key], expected("azav/I_e0")[key])
        assert [e.epoch for e in run.epochs] == [0, 1]
        assert run.epochs[1].provenance["config"] == "x = 1"
        assert [c.name for c in run.epochs[0].columns][-1] == "old/n"
        assert [(s.first, s.first + s.rows) for s in run.segments] == cuts(TOLD)
        assert run.counts.ended == "end of run"
        assert [(p.name, p.process) for p in run.producers] == [("p0", 111), ("p1", 222)]
        assert set(run.ledger["state"]) == {"written", "backpressure", "damaged", "producer died"}
        assert set(run.ledger["name"]) == {"p0", "p1"}


def test_a_roll_is_followed_and_then_the_merge_without_a_row_twice(tmp_path):
    spans = cuts(TOLD)
    path = write_segments(tmp_path, TOLD, spans[:2], live=True)
    seen = []
    with reader.open(path) as run:
        follower = run.follow(poll=0, timeout=5)
        rows = next(follower)
        seen.append(run["timestamp"][rows])
        write_segments(tmp_path, TOLD, spans[:3], live=True)
        (tmp_path / f"{path.stem}.parts/seg0001.live.h5").unlink()
        rows = next(follower)
        seen.append(run["timestamp"][rows])
        assert "new/x" in run
        (tmp_path / "merged").mkdir()
        write_plain(tmp_path / "merged", TOLD).replace(path)
        shutil.rmtree(tmp_path / f"{path.stem}.parts")
        np.testing.assert_array_equal(run["spot/sum"][:20], expected("spot/sum")[:20])
        seen += [run["timestamp"][rows] for rows in follower]
        assert run.complete
        np.testing.assert_array_equal(np.concatenate(seen), TOLD.columns["timestamp"])
        np.testing.assert_array_equal(run["spot/sum"][::-1], expected("spot/sum")[::-1])
        written = run.ledger[run.ledger["row"] >= 0]
        np.testing.assert_array_equal(run["timestamp"][written["row"]], written["first"])
    with reader.open(path) as run:
        assert (np.diff(run["timestamp"][:].astype(np.int64)) > 0).all()


@pytest.mark.parametrize("what", ["missing", "cut off"])
def test_a_broken_segment_is_named_and_the_others_are_read(tmp_path, what):
    path = write_segments(tmp_path, TOLD)
    broken = tmp_path / f"{path.stem}.parts/seg0001.h5"
    if what == "missing":
        broken.unlink()
    else:
        broken.write_bytes(broken.read_bytes()[:9000])
    (_, first), (_, end), *_ = cuts(TOLD)
    with reader.open(path) as run:
        np.testing.assert_array_equal(run["spot/sum"][:first], expected("spot/sum")[:first])
        words = f"seg0001.h5 is {what}.*rows {first:,} to {end - 1:,} cannot be read.*ffb recover"
        with pytest.raises(OSError, match=words):
            run["spot/sum"][:]


def test_another_run_at_the_path_is_refused(tmp_path):
    path = write_segments(tmp_path, TOLD)
    with reader.open(path) as run:
        shutil.copy(path, tmp_path / "other.h5")
        with h5py.File(tmp_path / "other.h5", "r+") as file:
            file["ffb"].attrs["run"] = 43
        (tmp_path / "other.h5").replace(path)
        with pytest.raises(OSError, match=f"{NAME} was replaced by mfxx49820 run 43"):
            run.refresh()
