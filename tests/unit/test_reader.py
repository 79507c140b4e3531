"""Reading a small-data file back: columns, commits, numpy and xarray."""

import h5py
import numpy as np
import pytest

from ffb import reader
from ffb.reading import contents
from ffb.reading.told import Step
from ffb.schema import CORE, Column, Schema
from ffb.sink import Counts, Provenance
from ffb.writers.small_data import SmallData
from tests.unit.booked import Told, write_segments
from tests.unit.small_data_truth import (
    BEGAN,
    INFO,
    NAME,
    PROVENANCE,
    SCHEMA,
    Q,
    begun,
    books,
    make_batch,
    truth,
    written,
)

N = 300


@pytest.fixture
def run(tmp_path):
    with reader.open(written(tmp_path, N)) as run:
        yield run


@pytest.mark.parametrize(
    "key",
    [
        slice(None),
        slice(-10, None),
        slice(None, None, -1),
        slice(290, 5, -7),
        slice(5, 290, 7),
        slice(20, 10),
        slice(10, 20, -1),
        slice(250, 9999),
        7,
        -1,
        np.int64(3),
        [5, 1, -1, 5],
        np.array([[1, 2], [3, 299]]),
        [],
        np.arange(N) % 7 == 0,
        np.zeros(N, bool),
        ...,
        (slice(3, 9), 4),
        (slice(3, 9), slice(2, 30, 3)),
        (..., 4),
        (11, 4),
        ([3, 1], slice(2, 5)),
    ],
    ids=str,
)
def test_indexing_is_numpys(run, key):
    for column in (SCHEMA.by_name["azav/I"], SCHEMA.by_name["azav/counts"]):
        expected = truth(column, np.arange(N))
        key = np.array(key, int) if isinstance(key, list) and not key else key
        found = run[column.name][key]
        np.testing.assert_array_equal(found, expected[key])
        assert np.shape(found) == expected[key].shape


def test_scalars_take_the_same_keys(run):
    expected = truth(SCHEMA.by_name["spot/npix"], np.arange(N))
    for key in (3, -1, ..., slice(None), [2, 1]):
        np.testing.assert_array_equal(run["spot/npix"][key], expected[key])
    np.testing.assert_array_equal(np.asarray(run["spot/npix"]), expected)
    assert np.asarray(run["spot/npix"], dtype=float).dtype == float


@pytest.mark.parametrize("key", [N, -N - 1, [0, N]])
def test_rows_that_are_not_there_are_an_error(run, key):
    with pytest.raises(IndexError, match="300 committed rows"):
        run["spot/sum"][key]


def test_a_mask_must_fit(run):
    with pytest.raises(IndexError, match=r"a mask of shape \(3,\) on 300 rows"):
        run["spot/sum"][np.ones(3, bool)]


def test_a_column_knows_what_it_is(run):
    column = run["azav/I"]
    assert (column.shape, column.dtype, len(column)) == ((N, 40), np.float32, N)
    assert (column.unit, column.doc, column.dims) == ("keV", "radial intensity", ("q",))
    assert column.reducer == "azav"
    assert repr(column) == "<azav/I <f4 (300, 40) [keV] radial intensity>"


def test_an_unknown_column_names_its_neighbours(run):
    with pytest.raises(KeyError, match=r"no column 'spot/summ' in .*near it: spot/sum"):
        run["spot/summ"]
    with pytest.raises(KeyError, match=r"near it: .*roi/big"):
        run["big"]
    with pytest.raises(KeyError, match=r"see run\.columns"):
        run["zzzzzzzz"]


def test_a_run_lists_its_columns(run):
    assert run.columns == tuple(c.name for c in SCHEMA.columns) == tuple(run)
    assert "spot/sum" in run
    assert "spot/nothing" not in run
    assert len(run) == len(SCHEMA.columns)
    assert run.schema == SCHEMA
    assert run.schema.id == SCHEMA.id


def test_a_run_knows_where_it_comes_from(run):
    assert run.info == INFO
    assert run.config == PROVENANCE.config
    assert run.constants == PROVENANCE.constants
    assert run.versions == PROVENANCE.versions
    assert run.notes == PROVENANCE.notes
    assert run.reducers["azav"]["version"] == 3
    assert run.reducers["azav"]["coords"]["q"]["values"] == list(Q)
    assert (run.attrs["host"], run.attrs["command"]) == (PROVENANCE.host, PROVENANCE.command)
    assert run.attrs["schema_id"] == SCHEMA.id.hex()


def test_repr_is_a_table(run):
    lines = repr(run).splitlines()
    assert (
        lines[0] == f"{NAME}: mfxx49820 run 42, 300 rows, {len(SCHEMA.columns)} columns, complete"
    )
    assert lines[1 + len(CORE)].split() == ["spot/sum", "f8", "keV", "all", "of", "it"]
    assert len(lines) == 1 + len(SCHEMA.columns)


def test_commits_are_followed_and_a_snapshot_stays(tmp_path):
    sink = begun(tmp_path)
    with reader.open(sink.path) as run:
        assert (run.committed, run.complete, run.counts, run.steps) == (0, False, Counts(), [])
        assert run["spot/npix"][:].shape == (0,)
        follower = run.follow(poll=0, timeout=0)
        assert list(follower) == []
        sink.step(0, {"delay": -1.0}, "first")
        sink.append(make_batch(0, 10))
        sink.commit(Counts(1, 12, 10, {"damaged": 2}, 1, {"p0": {"epoch": 1, "seq": 4}}))
        assert run.committed == 0, "nothing moves before refresh"
        assert run.refresh() == 10
        np.testing.assert_array_equal(
            run["spot/npix"][:], truth(SCHEMA.by_name["spot/npix"], np.arange(10))
        )
        assert run.counts == Counts(1, 12, 10, {"damaged": 2}, 1, {"p0": {"epoch": 1, "seq": 4}})
        assert run.steps == [Step(0, 0, {"delay": -1.0}, "first")]
        for k in (2, 1):  # neither has a shot, and the later one is told of first
            sink.step(k, {"delay": float(k)}, "")
        follower = run.follow(poll=0, start=10)
        sink.append(make_batch(10, 15))
        sink.commit(books(2, 25))
        assert next(follower) == slice(10, 25)
        np.testing.assert_array_equal(
            run["azav/I"][10:25], truth(SCHEMA.by_name["azav/I"], np.arange(10, 25))
        )
        sink.append(make_batch(25, 5))
        sink.end_run(books(3, 30, ended="end of run"))
        assert list(follower) == [slice(25, 30)]
        assert run.complete
        assert run.counts.ended == "end of run"
        assert [(s.step, s.row) for s in run.steps] == [(0, 0), (1, -1), (2, -1)]
        assert list(run.commits["rows"]) == [10, 25, 30]
        assert (np.diff(run.commits["time"]) > 0).all()


def test_rows_beyond_the_counter_do_not_exist(tmp_path):
    told = Told(ended=False)
    path = write_segments(tmp_path, told, live=True)
    (live,) = tmp_path.glob("*.parts/*.live.h5")
    with h5py.File(live, "r+") as file:  # a commit that is killed before its last act
        file["ffb/committed"][0] = told.ends[-2] + 3
    n = told.ends[-2] + 3
    with reader.open(path) as run:
        assert run["spot/sum"].shape == (n,)
        assert len(run["spot/sum"][:]) == n
        assert len(run["spot/sum"][-15:]) == 15
        assert len(run["spot/sum"][::-1]) == n
        assert run.counts.commit == len(told.ends) - 1
        assert len(run.commits) == run.counts.commit
        assert run.ledger["commit"].max() <= run.counts.commit


def test_numpy_takes_names_and_rows(run):
    arrays = run.to_numpy(["spot/sum", "azav/I"], slice(10, 20))
    assert list(arrays) == ["spot/sum", "azav/I"]
    for name, found in arrays.items():
        np.testing.assert_array_equal(found, truth(SCHEMA.by_name[name], np.arange(10, 20)))
    assert set(run.to_numpy()) == set(run.columns)


def test_xarray_has_coordinates_and_units(run):
    data = run.to_xarray()
    assert dict(data["azav/I"].sizes) == {"shot": N, "q": 40}
    np.testing.assert_array_equal(data["q"], Q)
    assert data["q"].attrs["unit"] == "1/Å"
    assert data["azav/I"].attrs["unit"] == "keV"
    assert data["roi/area"].dims == ("shot", "y", "x")
    assert data["roi/mask"].dims == ("shot", "roi_y"), "another y, of another length"
    assert data["roi/big"].dims == ("shot", "roi/big_dim0", "roi/big_dim1")
    stamps = truth(SCHEMA.columns[0], np.arange(N))
    np.testing.assert_array_equal(data["timestamp"], stamps)
    times = BEGAN + np.arange(N) * 8_333_333
    np.testing.assert_array_equal(data["time"], times.astype("datetime64[ns]"))
    np.testing.assert_array_equal(data["spot/sum"], truth(SCHEMA.by_name["spot/sum"], np.arange(N)))
    assert data.attrs["run"] == 42
    some = run.to_xarray(["spot/sum"], slice(-5, None))
    assert dict(some.sizes) == {"shot": 5}


def test_two_reducers_with_axes_of_one_name_keep_them_apart(tmp_path):
    schema = Schema(
        (
            *CORE,
            Column("a/I", "<f4", (3,), ("q",), reducer="a"),
            Column("b/I", "<f4", (3,), ("q",), reducer="b"),
            Column("b/n", "<f4", (3,), ("q",), reducer="b"),
        )
    )
    coords = {"a": [1.0, 2.0, 3.0], "b": [4.0, 5.0, 6.0]}
    reducers = {
        k: {"version": 1, "coords": {"q": {"values": v, "unit": "1/Å"}}} for k, v in coords.items()
    }
    sink = SmallData(tmp_path)
    sink.begin_run(INFO, schema, Provenance(reducers=reducers))
    sink.append(make_batch(0, 2, schema))
    sink.end_run(books(1, 2))
    with reader.open(sink.path) as run:
        data = run.to_xarray()
    assert [data[k].dims[1] for k in ("a/I", "b/I", "b/n")] == ["q", "b_q", "b_q"]
    np.testing.assert_array_equal(data["q"], coords["a"])
    np.testing.assert_array_equal(data["b_q"], coords["b"])


def test_a_missing_file_names_its_neighbours(tmp_path):
    written(tmp_path, 3)
    with pytest.raises(FileNotFoundError, match=f"Run0043.h5; .* there are {NAME}"):
        reader.open(tmp_path / "mfxx49820_Run0043.h5")
    with pytest.raises(FileNotFoundError, match="no file"):
        reader.open(tmp_path / "nowhere" / "x.h5", wait=0.05)


def test_a_file_of_somebody_else_is_refused_with_advice(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(ValueError, match=r"not written by ffb: ffb\.open may read it"):
        reader.open(tmp_path / "other.h5")
    (tmp_path / "text.h5").write_text("dear diary")
    with pytest.raises(OSError, match="signature"):
        reader.open(tmp_path / "text.h5")


def test_a_layout_of_the_future_is_refused(tmp_path):
    path = written(tmp_path, 3)
    with h5py.File(path, "r+") as file:
        file["ffb"].attrs["layout"] = contents.LAYOUT + 1
    with pytest.raises(ValueError, match="install the version that wrote it"):
        reader.open(path)


def test_a_plain_handle_in_the_same_process_is_no_obstacle(tmp_path):
    path = written(tmp_path, 3)
    with h5py.File(path, "r") as plain, reader.open(path) as run:
        assert run["spot/npix"].shape == plain["spot/npix"].shape
