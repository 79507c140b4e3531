"""Small data that others wrote: what its datasets are, and what is refused."""

import h5py
import numpy as np
import pytest

from ffb import cli
from ffb.reading.foreign import ForeignFile
from ffb.shot import timestamp_of
from tests.unit.smalldata_files import PARTS, part, value, write_file, write_master

N = 30


@pytest.fixture
def master(tmp_path):
    return write_master(tmp_path / "xpplx1234_Run0042.h5", N)


def test_a_master_is_read_through_its_parts(master):
    rows = np.concatenate([np.arange(k, N, PARTS) for k in range(PARTS)])
    with ForeignFile(master) as run:
        assert run.committed == N
        np.testing.assert_array_equal(run.timestamp, value("timestamp", rows))
        assert run.notes == ["timestamp is not in order of time"]
        names = {"spot/sum", "spot/npix", "spot/present", "roi/area", "peaks/var_hits/x"}
        assert {*run.columns} == names
        assert run["roi/area"].shape == (N, 3, 5)
        for key in (
            slice(3, 9),
            4,
            [5, 1],
            rows > 7,
            (..., 2),
            (slice(2, 5), 1),
            slice(None, None, -1),
        ):
            np.testing.assert_array_equal(run["roi/area"][key], value("roi/area", rows)[key])
        lists = run["peaks/var_hits/x"]
        assert (lists.lists, lists.shape) == (True, (N,))
        found = lists.ragged(slice(4, 9))
        assert found.lengths.tolist() == (rows[4:9] % 4).tolist()
        lists_ = [r + 0.25 * np.arange(r % 4) for r in rows[4:9]]
        np.testing.assert_array_equal(found.values, np.concatenate(lists_))
        assert {"Sums/jungfrau_calib", "UserDataCfg/roi/name"} <= {*run.wholes}
        assert "peaks/var_hits/x lists of <f8" in repr(run)


def test_lists_are_no_arrays(master):
    with ForeignFile(master) as run:
        with pytest.raises(TypeError, match=r"run\['peaks/var_hits/x'\].ragged"):
            run["peaks/var_hits/x"][:]
        with pytest.raises(TypeError, match="holds no lists"):
            run["spot/sum"].ragged()


def test_an_unknown_name_is_told_the_nearest(master):
    with ForeignFile(master) as run:
        with pytest.raises(KeyError, match="did you mean 'spot/sum'"):
            run["spot/summ"]
        with pytest.raises(KeyError, match="nothing of single shots"):
            run["Sums/jungfrau_calib"]


def test_a_master_without_one_of_its_parts_is_refused(master):
    master.with_name(f"{master.stem}_part1.h5").unlink()
    with pytest.raises(OSError, match=r"Run0042_part1\.h5, which is not beside it"):
        ForeignFile(master)


def test_event_time_of_the_first_generation_is_told_in_our_stamps(tmp_path):
    ns = [1_600_000_000_000_000_000 + 7 * k for k in range(5)]
    posix = [t // 10**9 << 32 | t % 10**9 for t in ns]
    path = write_file(tmp_path / "old.h5", {"event_time": posix, "ipm2/sum": np.arange(5.0)})
    with ForeignFile(path) as run:
        assert run.timestamp.tolist() == [timestamp_of(t) for t in ns]
        assert run.notes == [
            "event_time counts from 1970; it is converted to timestamps, which count from 1990"
        ]
        assert run.columns == ("ipm2/sum",)


def test_slow_detectors_have_shots_of_their_own(tmp_path):
    fast, slow = value("timestamp", np.arange(12)), value("timestamp", np.arange(2, 12, 3))
    padded = np.r_[slow.astype(np.int64), [-99999] * 8]  # as a join leaves them
    contents = {"timestamp": fast, "x": np.arange(12), "intg/timestamp": padded}
    path = write_file(
        tmp_path / "x.h5", contents | {"intg/andor/count": np.r_[[3] * 4, [-99999] * 8]}
    )
    with ForeignFile(path) as run:
        assert run.columns == ("x",)
        assert run.table_of["intg/andor/count"] == "intg/"
        assert run.tables["intg/"].tolist() == [*slow, *[0] * 8]
        assert run.notes[0] == "8 rows have no intg/timestamp and are left out"


def test_lengths_that_do_not_fit_are_told(tmp_path):
    wrong = part(np.arange(8)) | {"peaks/var_hits_len": np.full(8, 9)}
    with ForeignFile(write_file(tmp_path / "x.h5", wrong)) as run:
        assert "peaks/var_hits/x" not in run
        assert "its lengths say otherwise" in "".join(run.notes)


@pytest.mark.parametrize("contents", [{"x": [1]}, {"timestamp": 7}, {"timestamp": [0.5]}])
def test_what_has_no_shots_is_refused(tmp_path, contents):
    with pytest.raises(ValueError, match="timestamp"):
        ForeignFile(write_file(tmp_path / "x.h5", contents))


def test_links_in_circles_and_to_nowhere(tmp_path):
    path = write_file(tmp_path / "x.h5", {"timestamp": [1], "a/x": [2]})
    with h5py.File(path, "a") as file:
        file["a/up"] = file["/"]
    with ForeignFile(path) as run:
        assert "a/x" in run.columns
    with h5py.File(path, "a") as file:
        file["away"] = h5py.ExternalLink("gone.h5", "/x")
    with pytest.raises(OSError, match="away leads nowhere"):
        ForeignFile(path)


def test_ffb_open_tells_what_is_in_it(master, capsys):
    assert cli.main(["open", str(master)]) == 0
    out = capsys.readouterr().out
    assert f"not written by ffb, {N} rows, 5 columns" in out
    assert "(timestamp is not in order of time)" in out
