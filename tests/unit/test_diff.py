"""`ffb diff`: what counts as a difference between two files, told shot by shot."""

import re
import shutil

import h5py
import numpy as np
import pytest

from ffb import cli
from ffb.reading import blocks, compare
from ffb.reading.align import Pairs
from ffb.reading.compare import Limits, Result, elements
from ffb.reading.sides import Item
from tests.unit import test_ragged
from tests.unit.booked import Told, write_segments
from tests.unit.small_data_truth import begun, books, make_batch, written
from tests.unit.smalldata_files import part, value, write_file, write_master

N = 90
SHARED = ["--common", "--ignore", "peaks/*"]


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    return written(tmp_path_factory.mktemp("ours"), N)


@pytest.fixture
def theirs(tmp_path):
    """A file of theirs that agrees with ours, as a map from which to make it."""
    contents = part(np.arange(N))
    return lambda **changed: write_file(tmp_path / "theirs.h5", contents | changed)


@pytest.fixture
def diff(capsys, monkeypatch):
    # A child process looks at every file first; see test_recover for that.
    monkeypatch.setattr("ffb.writers.examine.deadly", lambda path, marked: [])

    def _diff(*words):
        status = cli.main(["diff", *map(str, words)])
        out, err = capsys.readouterr()
        return status, out, err

    return _diff


def line(out: str, name: str) -> list[str]:
    """Mark, name, common, only A, only B, equal, apart, relative, then what follows."""
    (found,) = [t.split() for t in out.splitlines() if re.match(rf"[=≠] +{re.escape(name)} ", t)]
    return found


def test_a_file_equals_itself_and_a_copy(ours, tmp_path, diff):
    copy = shutil.copy(ours, tmp_path / "copy.h5")
    status, out, _ = diff(ours, copy)
    assert status == 0
    assert line(out, "azav/I")[:8] == ["=", "azav/I", "90", "0", "0", "90", "0", "0"]
    assert out.splitlines()[-1].startswith("equal: ")
    assert "≠" not in out


def test_one_value_more_or_less_is_found(ours, tmp_path, diff):
    copy = shutil.copy(ours, tmp_path / "copy.h5")
    with h5py.File(copy, "a") as file:
        file["roi/area"][40, 1, 2] += 3
        file["roi/area"][50, 1, 2] += 1
        file["azav/I"][7, 4] = np.nan
        file["roi/mask"][3] = ~file["roi/mask"][3]
        file["ffb/late"][3] = True
    status, out, _ = diff(ours, copy)
    assert status == 1
    area = line(out, "roi/area")
    assert area[:2] + area[2:7] + [area[8]] == [
        *["≠", "roi/area", "90", "0", "0", "88", "3"],
        str(value("timestamp", np.array([40]))[0]),
    ]
    assert line(out, "azav/I")[5:8] == ["89", "nan", "nan"]
    assert line(out, "roi/mask")[5] == "89"
    assert out.index("bookkeeping, which does not count") < out.index("ffb/late")
    assert "different: 3 of" in out
    quiet = diff(ours, copy, "--quiet")[1]
    assert "spot/sum" not in quiet
    assert line(quiet, "roi/area") == area
    assert diff(ours, copy, "--ignore", "roi/*", "--ignore", "azav/I")[0] == 0


def test_tolerances(ours, tmp_path, diff):
    copy = shutil.copy(ours, tmp_path / "copy.h5")
    with h5py.File(copy, "a") as file:
        file["spot/sum"][:] *= 1 + 1e-9
    assert diff(ours, copy)[0] == 1
    assert diff(ours, copy, "--rtol", "1e-8")[0] == 0
    assert diff(ours, copy, "--atol", "1e-6")[0] == 0
    assert diff(ours, copy, "--rtol", "1e-10")[0] == 1


def test_their_file_agrees_with_ours(ours, theirs, diff):
    status, out, _ = diff(theirs(), ours, *SHARED)
    assert status == 0, out
    assert "int64 and bool" in out
    assert line(out, "spot/npix")[2:6] == ["90", "0", "0", "90"]
    status, out, _ = diff(theirs(), ours)
    assert status == 1
    assert "datasets only in A: peaks/var_hits/x" in out


def test_missing_is_what_they_write_for_it(ours, theirs, diff):
    present = value("spot/present", np.arange(N))
    assert 30 < present.sum() < 60
    (a, b, *_), (c, *_) = np.flatnonzero(~present), np.flatnonzero(present)
    npix = part(np.arange(N))["spot/npix"]
    npix[a], npix[b], npix[c] = 0, 77, -99999
    status, out, _ = diff(ours, theirs(**{"spot/npix": npix}), *SHARED)
    assert status == 1
    found = line(out, "spot/npix")
    assert found[2:6] == ["88", "1", "1", "88"]
    assert "1 missing are 0 in B" in out
    assert found[8] == str(value("timestamp", np.array([min(b, c)]))[0])


def test_a_zero_is_a_value_where_ours_has_one(ours, theirs, diff):
    changed = part(np.arange(N))["spot/sum"]
    row = int(np.flatnonzero(np.isfinite(changed) & (changed != 0))[0])
    changed[row] = 0
    out = diff(ours, theirs(**{"spot/sum": changed}), *SHARED)[1]
    assert line(out, "spot/sum")[2:6] == ["90", "0", "0", "89"]


def test_a_master_in_parts_and_out_of_order(ours, tmp_path, diff, monkeypatch):
    master = write_master(tmp_path / "xpplx1234_Run0042.h5", N)
    status, out, _ = diff(master, ours, *SHARED)
    assert status == 0, out
    assert "90 rows in 3 parts" in out
    assert "not in order of time" in out
    monkeypatch.setattr(blocks, "BLOCK", 600)  # a few rows, so that both are read in pieces
    monkeypatch.setattr(blocks, "GAP", 16)
    assert diff(master, ours, *SHARED)[0] == 0
    plain = write_file(tmp_path / "plain.h5", part(np.arange(N)))
    assert diff(master, plain, "--common")[0] == 0, "lists too"


def test_lists_are_compared_shot_by_shot(tmp_path, diff, monkeypatch):
    contents = part(np.arange(N))
    a = write_file(tmp_path / "a.h5", contents)
    order = np.random.default_rng(0).permutation(N)
    lengths = contents["peaks/var_hits_len"]
    begins = np.cumsum(lengths) - lengths
    x = contents["peaks/var_hits/x"]
    moved = {k: v[order] for k, v in contents.items() if "var_hits/" not in k}
    pieces = [x[begins[i] : begins[i] + lengths[i]] for i in order]
    moved["peaks/var_hits/x"] = np.concatenate(pieces)
    b = write_file(tmp_path / "b.h5", moved)
    for size in (blocks.BLOCK, 100):
        monkeypatch.setattr(blocks, "BLOCK", size)
        assert diff(a, b)[0] == 0
    pieces[3], at = pieces[3] + 1, [k for k in range(N) if lengths[order[k]] == 1][5]
    pieces[at] = np.r_[pieces[at], 5.0]
    changed = lengths[order].copy()
    changed[at] += 1
    moved |= {"peaks/var_hits/x": np.concatenate(pieces), "peaks/var_hits_len": changed}
    out = diff(a, write_file(tmp_path / "c.h5", moved))[1]
    unlike = 1 + (lengths[order[3]] > 0)
    assert line(out, "peaks/var_hits/x")[2:6] == ["90", "0", "0", str(90 - unlike)]


def test_shots_that_one_file_lacks(ours, theirs, diff):
    some = part(np.arange(10, N + 5))
    status, out, _ = diff(ours, theirs(**some), "--ignore", "peaks/*")
    assert status == 1
    assert "80 in both, 10 only in A, 5 only in B" in out
    assert line(out, "spot/sum")[2:6] == ["80", "10", "5", "80"]
    assert "10 shots only in A; 5 shots only in B" in out
    assert diff(ours, theirs(**some), *SHARED)[0] == 0


def test_names_that_differ(ours, tmp_path, diff):
    contents = {k.replace("spot/", "epix/ROI_0_"): v for k, v in part(np.arange(N)).items()}
    other = write_file(
        tmp_path / "x.h5", {k.replace("roi/", "cam/"): v for k, v in contents.items()}
    )
    renamed = ["--map", "epix/ROI_0_sum=spot/sum", "--map", "cam=roi"]
    status, out, _ = diff(other, ours, *SHARED, *renamed)
    assert status == 0
    assert line(out, "spot/sum")[5] == line(out, "roi/area")[5] == "90"
    status, _, err = diff(other, ours, "--map", "cam/areas=roi/area", "--map", "cam=rois")
    assert status == 2
    assert "--map cam/areas=roi/area: " in err
    assert "did you mean 'cam/area'?" in err
    assert "did you mean 'roi'?" in err


def test_a_growing_file_is_compared_up_to_its_last_commit(ours, tmp_path, diff):
    sink = begun(tmp_path)
    sink.append(make_batch(0, 60))
    sink.commit(books(1, 60))
    sink.append(make_batch(60, 10))
    status, out, _ = diff(ours, sink.path)
    sink.close()
    assert status == 1
    assert "60 committed rows, growing or cut off" in out
    assert "60 in both, 30 only in A, 0 only in B" in out
    assert "≠" not in out


def test_lists_of_a_growing_and_of_a_finished_file_and_theirs(tmp_path, diff):
    """Vectors with room, and entries end to end under the names that analysts know."""
    pieces = test_ragged.kinds("mixed")
    schema = test_ragged.schema_of("")
    finished = test_ragged.write(tmp_path / "a", schema, pieces)
    growing = test_ragged.write(tmp_path / "b", schema, pieces, ended=False)
    status, out, _ = diff(growing, finished)
    assert status == 0, out
    assert line(out, "jf/var_drops/sum")[2:6] == ["1,536", "0", "0", "1,536"]
    with h5py.File(finished) as file:
        kept = ("timestamp", "jf/var_drops/sum", "jf/var_drops_len", "pulse_id")
        contents = {name: file[name][()] for name in kept}
    contents["timing/pulseId"] = contents.pop("pulse_id").astype(np.int64)
    contents["jf/var_drops/sum"][17] += 1
    out = diff(finished, write_file(tmp_path / "c.h5", contents), "--common")[1]
    assert line(out, "jf/var_drops/sum")[2:6] == ["1,536", "0", "0", "1,535"]
    assert line(out, "timing/pulseId")[5] == "1,536"


def test_lists_of_which_no_shot_has_an_entry(tmp_path, diff):
    path = test_ragged.write(tmp_path, test_ragged.schema_of(""), test_ragged.kinds("empty")[:2])
    status, out, _ = diff(path, path)
    assert status == 0, out
    assert line(out, "jf/var_drops/box")[2:6] == ["128", "0", "0", "128"]


def test_segments_and_epochs(tmp_path, diff):
    told = Told(ended=False)
    path = write_segments(tmp_path, told, live=True)
    assert diff(path, path)[0] == 0


def test_what_cannot_be_compared_is_different(tmp_path, diff):
    stamps = value("timestamp", np.arange(4))
    a = {"timestamp": stamps, "x": np.zeros((4, 3)), "t": ["a"] * 4, "u": [b"a"] * 4}
    b = {"timestamp": stamps, "x": np.zeros((4, 2)), "t": np.zeros(4), "u": ["a", "a", "a", "é"]}
    a |= {"whole": [1.0, np.nan], "s": "run", "one": np.zeros((4, 1)), "y": np.zeros(4)}
    b |= {"whole": [1.0, np.nan], "s": "Run", "one": np.zeros(4), "y": np.zeros(5)}
    out = diff(write_file(tmp_path / "a.h5", a), write_file(tmp_path / "b.h5", b))[1]
    assert "shapes 3 and 2" in out
    assert "text in A only" in out
    assert "not of the same shots" in out
    assert line(out, "u")[5] == "3"
    assert line(out, "one")[0] == line(out, "whole")[0] == "="
    assert line(out, "s")[0] == "≠"


def test_slow_detectors_are_aligned_by_their_own_key(tmp_path, diff):
    fast, slow = value("timestamp", np.arange(12)), value("timestamp", np.arange(2, 12, 3))
    a = {"timestamp": fast, "intg/timestamp": slow, "intg/cam/sum": np.arange(4.0)}
    b = a | {"intg/timestamp": slow[::-1], "intg/cam/sum": np.arange(4.0)[::-1]}
    status, out, _ = diff(write_file(tmp_path / "a.h5", a), write_file(tmp_path / "b.h5", b))
    assert status == 0
    assert "intg/  4 in both" in out


def test_a_file_on_which_the_library_dies_is_bad_input(ours, diff, monkeypatch):
    monkeypatch.setattr("ffb.writers.examine.deadly", lambda path, marked: [("x.h5", "it died")])
    status, _, err = diff(ours, ours)
    assert status == 2
    assert "x.h5 is damaged: it died when it was read" in err


def test_exposures_in_our_file_and_in_theirs(ours, tmp_path, diff):
    """Ours have a key for each detector, theirs one for all."""
    slow, n = value("timestamp", np.arange(2, N, 3)), len(range(2, N, 3))
    mine = shutil.copy(ours, tmp_path / "mine.h5")
    with h5py.File(mine, "a") as file:
        file["intg/timestamp"] = file["intg/andor/timestamp"] = slow.astype(np.int64)
        file["intg/andor/gas_sum_x"] = np.arange(float(n))
    fast = value("timestamp", np.arange(N))
    theirs = {"timestamp": fast, "intg/timestamp": slow[::-1]}
    theirs["intg/andor/gas_sum_x"] = np.arange(float(n))[::-1] + (np.arange(n) == 4)
    out = diff(mine, write_file(tmp_path / "theirs.h5", theirs), "--common")[1]
    assert line(out, "intg/andor/gas_sum_x")[2:6] == [str(n), "0", "0", str(n - 1)]
    assert diff(mine, shutil.copy(mine, tmp_path / "copy.h5"))[0] == 0


def test_a_file_that_breaks_off_is_no_difference(ours, diff, monkeypatch):
    def broken(self, values):
        raise OSError("a chunk is damaged")

    monkeypatch.setattr(blocks.Blocks, "values", broken)
    status, _, err = diff(ours, ours)
    assert status == 2
    assert "a chunk is damaged" in err


def test_bad_input_is_told_at_once(tmp_path, ours, diff):
    text = tmp_path / "x.h5"
    text.write_text("no HDF5")
    status, _, err = diff(tmp_path / "gone.h5", text)
    assert status == 2
    assert "gone.h5: no such file" in err
    assert "x.h5 cannot be read: HDF5 says" in err
    assert diff(tmp_path, ours)[0] == 2
    for words in (["--rtol", "-1"], ["--rtol", "inf"], ["--map", "a"]):
        with pytest.raises(SystemExit) as ended:
            diff(ours, ours, *words)
        assert ended.value.code == 2


@pytest.mark.parametrize(
    ("a", "b", "apart"),
    [
        (np.uint64(2**64 - 1), np.uint64(2**64 - 2), 1),
        (np.int64(-1), np.uint64(2**64 - 1), 2.0**64),
        (np.int64(2**62), np.int64(2**62 + 1), 1),
        (True, 1, 0),
        (np.uint8(3), np.uint8(5), 2),
        (np.inf, np.inf, 0),
        (np.inf, -np.inf, np.inf),
        (np.nan, np.nan, 0),
        (np.nan, 1.0, np.nan),
        (1 + 1j, 1 - 1j, 2),
        (-0.0, 0.0, 0),
    ],
)
def test_elements(a, b, apart):
    a, b = np.array([a]), np.array([b])
    for x, y in ((a, b), (b, a)):
        found = elements(x, y, Limits())
        np.testing.assert_equal(found.apart[0], apart)
        assert found.differ[0] == (apart != 0)
    loose = elements(a, b, Limits(relative=2.0))
    assert loose.differ[0] == (not np.isfinite(apart))


class Counting:
    """A dataset without end that says how much of it was asked for at once."""

    def __init__(self, rows: int, size: int) -> None:
        self.shape, self.dtype, self.most = (rows, size), np.dtype(float), 0
        self.nbytes = rows * size * 8

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows):
        found = np.broadcast_to(
            np.arange(rows.start, rows.stop)[:, None], (rows.stop - rows.start, self.shape[1])
        )
        self.most = max(self.most, found.shape[0])
        return found.astype(float)


@pytest.mark.parametrize("scattered", [False, True])
def test_memory_is_bounded(monkeypatch, scattered):
    monkeypatch.setattr(blocks, "BLOCK", 80_000)
    n, size = 2_000, 100
    data = Counting(n, size), Counting(n, size)
    rows = np.random.default_rng(0).permutation(n) if scattered else np.arange(n)
    stamps = np.arange(1, n + 1, dtype=np.uint64)
    both = Item(data[0]), Item(data[1])
    result = compare.shots(Result("x"), both, Pairs(rows, rows), stamps, Limits())
    assert (result.agrees, result.equal) == (True, n)
    assert max(d.most * size * 8 for d in data) <= 2 * blocks.BLOCK
