"""Which shots: cuts by expressions, lights, times and steps, on a file that grows or not."""

import numpy as np
import pytest

import ffb
from ffb import reader
from ffb.batch import Batch
from ffb.schema import CORE, Column, Schema
from ffb.shot import timestamp_of
from ffb.sink import Provenance
from ffb.source import RunInfo
from ffb.writers.small_data import SmallData
from tests.unit.small_data_truth import books
from tests.unit.smalldata_files import write_file

N = 240
T0 = 1_700_000_000_000_000_000
STEP_NS = 8_333_333
#: One text for many tests, so that it is compiled once.
TEXT = "tt/ampl > 0.5 and counts/n != 3"

SCHEMA = Schema(
    (
        *CORE,
        Column("scan/lxt", "<f8", unit="ps"),
        Column("tt/ampl", "<f8", doc="amplitude"),
        Column("counts/present", "|b1", reducer="counts"),
        Column("counts/n", "<u2", reducer="counts"),
        Column("trace/y", "<f4", (3,)),
        Column("good", "|b1", reducer="good"),
        Column("good_valid", "|b1", reducer="good"),
    )
)
PROVENANCE = Provenance(reducers={"good": {"use": "filters", "expr": "tt.ampl > 0.25"}})


def columns(first: int, n: int) -> dict[str, np.ndarray]:
    """Known values; xray, laser, amplitude and counter run through all they can be."""
    i = np.arange(first, first + n)
    ampl = np.where(i % 7 == 0, np.nan, (i % 10) / 10)
    return {
        "timestamp": np.array([timestamp_of(T0 + int(k) * STEP_NS) for k in i], np.uint64),
        "pulse_id": i + 1,
        "step": i // 60,
        "lightStatus/xray": np.array([1, 1, 1, 0, -1])[i % 5],
        "lightStatus/laser": np.array([1, 0, -1])[i % 3],
        "lightStatus/xray_valid": i % 5 != 4,
        "lightStatus/laser_valid": i % 3 != 2,
        "scan/lxt": np.where(i < 3, np.nan, 0.5 * (i // 60)),
        "tt/ampl": ampl,
        "counts/present": i % 4 != 1,
        "counts/n": np.where(i % 4 != 1, i % 6, 0),
        "trace/y": i[:, None] + np.arange(3),
        "good": ampl > 0.25,
        "good_valid": np.isfinite(ampl),
    }


def append(sink: SmallData, first: int, n: int, commit: int) -> None:
    batch = Batch(SCHEMA, n)
    for c in SCHEMA.columns:
        batch.columns[c.name][...] = columns(first, n).get(c.name, 0)
    sink.append(batch)
    sink.commit(books(commit, first + n))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    sink = SmallData(tmp_path_factory.mktemp("cuts"))
    sink.begin_run(RunInfo("xpplx1234", 7, 99), SCHEMA, PROVENANCE)
    append(sink, 0, N, 1)
    sink.end_run(books(2, N, ended="end of run"))
    return sink.path


@pytest.fixture
def run(path):
    with ffb.open(path) as run:
        yield run


def expected(n: int = N) -> tuple[np.ndarray, np.ndarray]:
    """``TEXT``, evaluated by hand: yes, and unknown."""
    c = columns(0, n)
    low = c["tt/ampl"] <= 0.5
    three = c["counts/present"] & (c["counts/n"] == 3)
    no = low | three
    unknown = ~no & (np.isnan(c["tt/ampl"]) | ~c["counts/present"])
    return ~no & ~unknown, unknown


def test_a_cut_is_a_mask_of_rows(run):
    yes, unknown = expected()
    cut = run.cut(TEXT)
    assert yes.any()
    assert unknown.any()
    np.testing.assert_array_equal(cut, yes)
    np.testing.assert_array_equal(cut.unknown, unknown)
    np.testing.assert_array_equal(cut.rows, np.flatnonzero(yes))
    np.testing.assert_array_equal(cut[5:20], yes[5:20])
    assert (cut.count, len(cut), [*cut]) == (yes.sum(), N, yes.tolist())
    np.testing.assert_array_equal(run["trace/y"][cut], columns(0, N)["trace/y"][yes])
    assert repr(cut) == f"<cut {TEXT}: {yes.sum()} of {N} shots, unknown of {unknown.sum()}>"


@pytest.mark.parametrize(
    "text", ["tt.ampl > 0.5 and counts.n != 3", "'tt/ampl' > 0.5 and counts / n != 3"]
)
def test_a_column_may_be_written_in_three_ways(run, text):
    np.testing.assert_array_equal(run.cut(text), expected()[0])


def test_a_division_stays_one(path, tmp_path):
    stamps = columns(0, 4)["timestamp"]
    contents = {"timestamp": stamps, "a": [4.0] * 4, "b": [1.0, 2, 3, 4], "c/b": [9.0] * 4}
    with ffb.open(write_file(tmp_path / "x.h5", contents)) as run:
        assert [*run.cut("a/b > 1.5 and c/b > 8")] == [True, True, False, False]


def test_cuts_compose_as_kleene_says(run):
    yes, unknown = expected()
    c = columns(0, N)
    cut, light = run.cut(TEXT), run.light.on
    on = (c["lightStatus/laser"] == 1) & (c["lightStatus/xray"] != 0)
    np.testing.assert_array_equal(light, on)
    np.testing.assert_array_equal(cut & light, yes & on)
    np.testing.assert_array_equal(cut | light, yes | on)
    np.testing.assert_array_equal(~cut, ~yes & ~unknown)
    np.testing.assert_array_equal(~~cut, yes)
    np.testing.assert_array_equal((~cut).unknown, unknown)
    mask = np.arange(N) % 2 == 0
    for joined in (cut & mask, mask & cut):
        np.testing.assert_array_equal(joined, yes & mask)
    np.testing.assert_array_equal(mask | cut, yes | mask)
    with pytest.raises(TypeError, match="instead of and, or, not"):
        bool(cut)
    with pytest.raises(ValueError, match=r"expected a mask of 240 rows, got bool of shape \(3,\)"):
        cut & np.ones(3, bool)


def test_lights(run):
    c = columns(0, N)
    dark = c["lightStatus/xray"] == 0
    for name, state in (("on", 1), ("off", 0)):
        cut = getattr(run.light, name)
        np.testing.assert_array_equal(cut, (c["lightStatus/laser"] == state) & ~dark)
        np.testing.assert_array_equal(cut.unknown, (c["lightStatus/laser"] == -1) & ~dark)
    np.testing.assert_array_equal(run.light.dark, dark)
    both = np.asarray(run.light.on) & np.asarray(run.light.off)
    assert not both.any()


def test_names_are_used_in_expressions(run):
    run.cuts["strong"] = run.cut(TEXT)
    yes, unknown = expected()
    three = np.arange(N) % 3 == 0  # whose pulse id is one more
    cut = run.cut("strong and pulse_id % 3 == 1")
    np.testing.assert_array_equal(cut, yes & three)
    np.testing.assert_array_equal(cut.unknown, unknown & three)
    assert run.cut("strong_valid").count == N - unknown.sum()
    run.cuts["both"] = cut
    assert run.cut("both or not strong").count == (yes & three).sum() + (~yes & ~unknown).sum()


def test_filters_of_the_file_are_cuts(run):
    c = columns(0, N)
    assert [*run.filters] == ["good"]
    cut = run.filters["good"]
    assert cut.text == "tt.ampl > 0.25"
    np.testing.assert_array_equal(cut, c["good"])
    np.testing.assert_array_equal(~cut, ~c["good"] & c["good_valid"])
    np.testing.assert_array_equal(run.cut("not good"), ~cut)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tt.amp > 1", "no column tt.amp; did you mean 'tt.ampl'"),
        ("trace.y > 1", "is an array; name one element, as trace.y"),
        ("tt.ampl >", "cannot be read"),
        ("tt.ampl + 1", "gives a number, not yes or no"),
        ("__import__('os').system('x') == 0", "no function"),
        ("code(40)", r"no event codes \(timing/eventcodes\)"),
        ("-" * 1900 + "1 > 0", "nested|deeply|read"),
    ],
)
def test_what_is_wrong_with_a_cut_is_said(run, text, said):
    with pytest.raises(ValueError, match=rf"(?s)cut .*{said}"):
        run.cut(text)


def test_times_and_steps(run):
    c = columns(0, N)
    times = run.times()
    assert times[0] == np.datetime64(T0, "ns")
    begin, end = T0 + 50 * STEP_NS, T0 + 60 * STEP_NS
    inside = np.arange(N) // 10 == 5
    iso = [str(np.datetime64(t, "ns")) for t in (begin, end)]
    for a, b in ((begin, end), (times[50], times[60]), iso):
        np.testing.assert_array_equal(run.during(a, b), inside)
    assert run.during(end=begin).count == 50
    assert run.during(times[50]).count == N - 50
    with pytest.raises(TypeError, match="whole ns"):
        run.during(1.5)
    np.testing.assert_array_equal(run.at(step=2), c["step"] == 2)
    np.testing.assert_array_equal(run.at(lxt=0.5), c["scan/lxt"] == 0.5)
    np.testing.assert_array_equal(run.at(lxt=0.9, within=0.5), np.arange(N) // 60 % 3 > 0)
    assert run.at(step=0, lxt=0).count == 57
    assert run.at(lxt=0).unknown.sum() == 3
    with pytest.raises(KeyError, match="scan/lxt"):
        run.at(lx=1)


def test_a_growing_file_adds_rows_to_a_cut(tmp_path):
    sink = SmallData(tmp_path)
    sink.begin_run(RunInfo("xpplx1234", 7, 99), SCHEMA, PROVENANCE)
    with ffb.open(sink.path) as run:
        cut = run.cut(TEXT) & run.light.on
        assert (cut.count, len(cut)) == (0, 0)
        for commit, first in enumerate(range(0, N, 80), 1):
            append(sink, first, 80, commit)
            assert len(cut) == first
            run.refresh()
            np.testing.assert_array_equal(run.cut(TEXT), expected(first + 80)[0])
            assert run["trace/y"][cut].shape == (cut.count, 3)
            assert len(cut) == len(run["tt/ampl"][:]) == first + 80
        assert len(run.files) == 1
        assert run.files[0].name.endswith(".live.h5")
    sink.close()


def test_rows_are_judged_once_and_in_blocks(run, monkeypatch):
    monkeypatch.setattr("ffb.reading.cuts.BLOCK", 700)
    seen = []
    original = reader.FileColumn.__getitem__
    monkeypatch.setattr(
        reader.FileColumn,
        "__getitem__",
        lambda self, rows: seen.append(rows) or original(self, rows),
    )
    cut = run.cut(TEXT)
    np.testing.assert_array_equal(cut, expected()[0])
    assert max(s.stop - s.start for s in seen) < N / 4
    count = len(seen)
    assert cut.count == expected()[0].sum()
    assert len(seen) == count


def test_runs_are_aligned_by_their_stamps(run, tmp_path):
    c = columns(0, N)
    order = np.random.default_rng(0).permutation(N)[:100]
    slow = {"timestamp": c["timestamp"][order], "x": order.astype(float)}
    with ffb.open(write_file(tmp_path / "x.h5", slow)) as other:
        mine, theirs = run.align(other)
        np.testing.assert_array_equal(mine, np.sort(order))
        np.testing.assert_array_equal(other["x"][theirs], mine)
        mine, theirs = run.align(other, within=STEP_NS)
        assert (np.abs(other["x"][theirs] - mine) <= 1).all()
        assert len(mine) > 100
        with pytest.raises(ValueError, match="cuts of two files"):
            run.light.on & other.cut("x > 3")
    mine, theirs = run.align(c["timestamp"][::2])
    np.testing.assert_array_equal(mine, 2 * theirs)
    with pytest.raises(TypeError, match="floats lose"):
        run.align(c["timestamp"].astype(float))


def test_event_codes_of_a_file(tmp_path):
    codes = np.zeros((6, 288), int)
    codes[[0, 2], 40] = codes[[2, 3], 287] = codes[4, 0] = 1
    codes[5] = -99999
    contents = {"timestamp": columns(0, 6)["timestamp"], "timing/eventcodes": codes}
    with ffb.open(write_file(tmp_path / "x.h5", contents)) as run:
        cut = run.cut("any_code(40, 0) and not code(287)")
        assert cut.rows.tolist() == [0, 4]
        assert np.flatnonzero(cut.unknown).tolist() == [5]


def test_event_codes_that_were_not_there(tmp_path):
    """Where the timing is missing a flag says so: the codes are no zeros then."""
    codes = np.zeros((3, 288), np.uint8)
    codes[0, 40] = 1
    contents = {"timestamp": columns(0, 3)["timestamp"], "timing/eventcodes": codes}
    contents["timing/eventcodes_valid"] = [True, True, False]
    with ffb.open(write_file(tmp_path / "x.h5", contents)) as run:
        cut = run.cut("not code(40)")
        assert cut.rows.tolist() == [1]
        assert np.flatnonzero(cut.unknown).tolist() == [2]


# -- tables --------------------------------------------------------------------------------------


def test_pandas_has_nullable_integers(run):
    c, cut = columns(0, N), run.light.off
    frame = run.to_pandas(rows=cut)
    mask = np.asarray(cut)
    assert frame.index.name == "timestamp"
    np.testing.assert_array_equal(frame.index, c["timestamp"][mask])
    assert frame["time"].iloc[0].value == T0 + int(np.flatnonzero(mask)[0]) * STEP_NS
    assert str(frame["counts/n"].dtype) == "UInt16"
    np.testing.assert_array_equal(frame["counts/n"].isna(), ~c["counts/present"][mask])
    assert frame["counts/n"].sum() == c["counts/n"][mask].sum()
    assert str(frame["good"].dtype) == "boolean"
    assert frame["good"].isna().sum() == np.isnan(c["tt/ampl"][mask]).sum() > 0
    assert (frame["lightStatus/laser"] == 0).all()
    assert frame["lightStatus/xray"].isna().sum() == (c["lightStatus/xray"][mask] == -1).sum() > 0
    assert {"good_valid", "trace/y"}.isdisjoint(frame.columns)
    assert [*run.to_pandas(["tt/ampl", "good_valid"], slice(3))] == [
        "time",
        "tt/ampl",
        "good_valid",
    ]
    with pytest.raises(ValueError, match=r"trace/y has \(3,\) values a shot: use to_xarray"):
        run.to_pandas(["trace/y"])


def test_tables_take_cuts(run):
    mask = np.asarray(run.light.on)
    data = run.to_xarray(["trace/y"], run.light.on)
    np.testing.assert_array_equal(data["trace/y"], columns(0, N)["trace/y"][mask])
    assert data.attrs == {"exp": "xpplx1234", "run": 7, "complete": 1}
    arrays = run.to_numpy(["tt/ampl"], run.light.on)
    np.testing.assert_array_equal(arrays["tt/ampl"], columns(0, N)["tt/ampl"][mask])


@pytest.mark.parametrize("name", ["pandas", "xarray"])
def test_a_library_that_is_absent_is_named(run, monkeypatch, name):
    monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(ImportError, match=f"pip install {name}; or use to_numpy"):
        getattr(run, f"to_{name}")()


def test_files_of_others_answer_alike(tmp_path):
    c = columns(0, N)
    n = np.where(c["counts/present"], c["counts/n"], -99999).astype(int)
    names = ("timestamp", "tt/ampl", "lightStatus/xray", "lightStatus/laser", "trace/y")
    contents = {k: c[k] for k in names} | {"counts/n": n, "spot/var_p/x": np.arange(N * 2.0)}
    contents |= {"spot/var_p_len": np.full(N, 2), "name": ["a"] * N}
    with ffb.open(write_file(tmp_path / "x.h5", contents)) as run:
        yes, unknown = expected()
        cut = run.cut(TEXT)
        np.testing.assert_array_equal(cut, yes)
        np.testing.assert_array_equal(cut.unknown, unknown)
        frame = run.to_pandas(rows=cut)
        assert frame["counts/n"].isna().sum() == 0
        assert run.to_pandas()["counts/n"].isna().sum() == (~c["counts/present"]).sum()
        data = run.to_xarray(rows=run.light.on)
        assert data["trace/y"].shape == (run.light.on.count, 3)
        assert data.attrs == {"file": "x.h5"}


def test_a_file_without_shots_is_refused(tmp_path):
    with pytest.raises(ValueError, match="neither timestamp nor event_time"):
        ffb.open(write_file(tmp_path / "x.h5", {"x": [1.0]}))
