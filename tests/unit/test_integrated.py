"""What an integrating detector saw: equal to brute force, live and merged, whatever went wrong."""

import h5py
import numpy as np
import pytest

from ffb import reader
from ffb.configuration.integrating_settings import IntegratingConfig
from ffb.integrating.exposures import WHY
from ffb.reading import diff
from ffb.service import show
from ffb.writers.consolidate import merge
from tests.unit.exposed import (
    PARTNERS,
    batch_of,
    begun,
    books,
    expected,
    shots,
    taken,
    write,
)

N = 400


@pytest.fixture(scope="module")
def damaged():
    """Shots of which some, among them one with a frame, never came."""
    d = shots(N)
    keep = np.ones(N, bool)
    keep[[20, 21, 50, 107, 200]] = False  # 107 carries a frame
    return taken(d, np.flatnonzero(keep))


@pytest.fixture(scope="module")
def merged(damaged, tmp_path_factory):
    path = write(tmp_path_factory.mktemp("merged"), damaged)
    with reader.open(path) as run:
        assert run.segmented
        before = {n: {k: run.integrated(n)[k] for k in run.integrated(n)} for n in run.integrating}
    merge(path)
    return path, before


def by_hand(d, present: str) -> list[list[int]]:
    """Rows of each exposure: up to a frame, and what comes after the last."""
    out, now = [], []
    for r, here in enumerate(d[present]):
        now.append(r)
        if np.isfinite(here) and here:
            out.append(now)
            now = []
    return [*out, *([now] if now else [])]


def test_every_number_is_that_of_brute_force(merged, damaged):
    path, _ = merged
    rows = by_hand(damaged, "andor/full_present")
    with h5py.File(path, locking=False) as file:
        andor = file["intg/andor"]
        assert andor["count"][:].tolist() == [len(r) for r in rows]
        for light in ("", "laser_on", "laser_off", "dark"):
            for column in PARTNERS:
                group, slash, field = column.partition("/")
                truth = [expected(damaged, r, column, light) for r in rows]
                made = {
                    s: andor[light or "/intg/andor"][
                        f"{group}_{s}_{field}" if slash else f"{column}_{s}"
                    ]
                    for s in ("n", "sum", "mean", "var", "rms")
                }
                n, total, mean, var = (np.array(k) for k in zip(*truth, strict=True))
                np.testing.assert_array_equal(made["n"], n, err_msg=column)
                np.testing.assert_allclose(made["sum"], total, 1e-13, 0, err_msg=column)
                np.testing.assert_allclose(made["mean"], mean, 1e-13, 0, err_msg=column)
                np.testing.assert_allclose(made["var"], var, 1e-9, 1e-20, err_msg=column)
                np.testing.assert_allclose(made["rms"], np.sqrt(var), 1e-9, 1e-10)
                assert made["n"].dtype == np.int64
                assert made["sum"].dtype == made["var"].dtype == np.float64


def test_the_merge_writes_what_the_reader_computes_live_and_after(merged):
    path, before = merged
    with reader.open(path) as run, h5py.File(path, locking=False) as file:
        assert not run.segmented
        assert [*run.integrating] == ["andor", "vls"]
        for name, live in before.items():
            after, found = run.integrated(name), {}
            file[f"intg/{name}"].visititems(
                lambda k, item, found=found: (
                    found.update({k: item}) if isinstance(item, h5py.Dataset) else None
                )
            )
            assert found.keys() == live.keys() == {*after}
            for key, item in found.items():
                assert item[...].tobytes() == live[key].tobytes() == after[key].tobytes(), key
                assert item.attrs["unit"]
                assert item.attrs["doc"]


def test_the_frame_stands_beside_what_it_saw(merged, damaged):
    path, _ = merged
    frames = np.flatnonzero(damaged["andor/full_present"])
    with h5py.File(path, locking=False) as file:
        andor, rows = file["intg/andor"], by_hand(damaged, "andor/full_present")
        whole = slice(0, len(frames))
        assert andor["framed"][:].tolist() == [True] * len(frames) + [False]
        for name in ("sum", "npix", "spectrum"):
            column = damaged[f"andor/full_{name}"]
            np.testing.assert_array_equal(andor[f"full_{name}"][whole], column[frames])
        assert np.isnan(andor["full_sum"][-1])
        assert andor["full_npix_valid"][:].tolist() == andor["framed"][:].tolist()
        fitted = damaged["andor/fit_present"][frames]
        assert 0 < fitted.sum() < len(frames)
        assert andor["fit_n_valid"][whole].tolist() == fitted.tolist()
        np.testing.assert_array_equal(andor["fit_n"][whole], damaged["andor/fit_n"][frames])
        stamps = damaged["timestamp"].astype(np.int64)
        assert file["intg/timestamp"].dtype == np.int64
        assert file["intg/timestamp"][:].tolist() == [int(stamps[r[-1]]) for r in rows]
        assert andor["timestamp_min"][:].tolist() == [int(stamps[r[0]]) for r in rows]
        assert andor["timestamp_max"][:].tolist() == [int(stamps[r[-1]]) for r in rows]


def test_pulse_ids_of_every_exposure_are_listed(merged, damaged):
    path, _ = merged
    rows = by_hand(damaged, "andor/full_present")
    with h5py.File(path, locking=False) as file:
        andor = file["intg/andor"]
        length, ids = andor["var_shots_len"][:], andor["var_shots/pulse_id"][:]
        ends = np.cumsum(length)
        assert andor["var_shots_offsets"][:].tolist() == [0, *ends]
        for r, end, n in zip(rows, ends, length, strict=True):
            mine = slice(end - n, end)
            assert ids[mine].tolist() == damaged["pulse_id"][r].tolist()
            assert andor["var_shots/timestamp"][mine].tolist() == damaged["timestamp"][r].tolist()
        assert andor["var_shots/pulse_id_valid"][:].all()


def test_partial_exposures_say_why(merged):
    path, _ = merged
    with reader.open(path) as run:
        andor = run.integrated("andor")
        why = [{k for k, (bit, _) in WHY.items() if w & bit} for w in andor["why"]]
        assert andor.partial.tolist() == [bool(w) for w in why]
        assert why[0] == {"first"}
        assert why[1] == why[4] == {"missing"}
        assert why[8] == {"missing", "frame_lost"}  # the frame of shot 107 went with it
        assert why[-1] == {"open"}
        assert andor["missing"].tolist()[:9] == [0, 2, 0, 0, 1, 0, 0, 0, 1]
        assert andor.reasons() == {"first": 1, "open": 1, "missing": 4, "frame_lost": 1}


def test_several_detectors_at_rates_of_their_own(merged, damaged):
    path, _ = merged
    rows = by_hand(damaged, "vls")
    with h5py.File(path, locking=False) as file:
        assert file["intg/vls/count"][:].tolist() == [len(r) for r in rows]
        truth = [expected(damaged, r, "gasdet/f11")[1] for r in rows]
        np.testing.assert_allclose(file["intg/vls/gasdet_sum_f11"][:], truth, 1e-13)
        frames = np.array([expected(damaged, r, "vls")[0] for r in rows])
        assert frames.max() == 1
        assert "vls_sum" not in file["intg/vls"]
        assert len(file["intg/andor/count"]) != len(file["intg/vls/count"])


def test_what_is_a_name_is_not_added_up(merged):
    path, _ = merged
    with h5py.File(path, locking=False) as file:
        names = [*file["intg/andor"]]
        for word in ("pulse_id", "timing", "step_", "ffb", "present", "valid_", "full_sum_"):
            assert not [n for n in names if word in n and not n.endswith("_valid")], word


def test_small_data_analysis_of_today_works(merged):
    """The mean of a partner, and a spectrum by the scanned value, as notebooks make them."""
    path, _ = merged
    with h5py.File(path, locking=False) as file:
        count, scan = file["intg/andor/count"][:], file["intg/andor/scan_sum_x"][:]
        np.testing.assert_allclose(scan / count, 7.25)
        assert len(file["intg/timestamp"]) == len(file["intg/andor/full_spectrum"])


def test_order_of_rows_is_no_matter(damaged, merged, tmp_path):
    """Two producers in any order, late rows, and shots that came twice."""
    rng, n = np.random.default_rng(3), len(damaged["timestamp"])
    rows = np.argsort(np.arange(n) + 40 * rng.random(n), kind="stable")
    far = rng.choice(n, 5, replace=False)
    rows = np.concatenate([np.setdiff1d(rows, far, assume_unique=True), far, far[:2], rows[-3:]])
    path = write(tmp_path, taken(damaged, rows), size=37)
    with reader.open(path) as run:
        for name, truth in merged[1].items():
            found = run.integrated(name)
            for key in found:
                assert found[key].tobytes() == truth[key].tobytes(), key
        merge(path)
        run.refresh()
        again = reader.open(path).integrated("andor")
        for key in again:
            assert again[key].tobytes() == merged[1]["andor"][key].tobytes(), key


def test_a_growing_file_shows_exposures_so_far_and_corrects_them(damaged, tmp_path):
    """Each commit's exposures are those of a run that ended there; late rows come in."""
    sink, done = begun(tmp_path), np.zeros(0, int)
    late = np.array([30, 31])
    try:
        for k, rows in enumerate([np.r_[0:30, 32:45], np.r_[45:100], late, np.r_[100:110]]):
            done = np.append(done, rows)
            sink.append(batch_of(taken(damaged, rows)))
            sink.commit(books(k + 1, len(done)))
            so_far = taken(damaged, np.sort(done))
            with reader.open(sink.path) as run:
                andor = run.integrated("andor")
                hand = by_hand(so_far, "andor/full_present")
                assert andor["count"].tolist() == [len(r) for r in hand]
                truth = [expected(so_far, r, "gasdet/f11")[1] for r in hand]
                np.testing.assert_allclose(andor["gasdet_sum_f11"], truth, 1e-13)
                assert andor.partial[-1]
                assert bool(andor["missing"][2]) == (k < 2)
    finally:
        sink.close()


def test_a_writer_that_was_killed_changes_nothing(damaged, tmp_path, merged):
    n = len(damaged["timestamp"])
    sink = begun(tmp_path)
    sink.append(batch_of(taken(damaged, np.arange(150))))
    sink.commit(books(1, 150))
    sink.append(batch_of(taken(damaged, np.arange(150, 170))))  # never committed
    sink.close()
    sink = begun(tmp_path)
    assert sink.books.written == 150
    sink.append(batch_of(taken(damaged, np.arange(150, n))))
    sink.commit(books(2, n))
    sink.end_run(books(3, n, ended="end of run"))
    with reader.open(sink.path) as run:
        for name, truth in merged[1].items():
            found = run.integrated(name)
            assert all(found[key].tobytes() == truth[key].tobytes() for key in found)


def test_other_settings_can_be_asked_for_afterwards(merged, damaged):
    path, _ = merged
    with reader.open(path) as run:
        mine = IntegratingConfig(partners=("gasdet/*",), light=False)
        andor = run.integrated("andor", mine)
        assert [k for k in andor if "gasdet" in k] == [
            f"gasdet_{s}_f11" for s in ("n", "sum", "mean", "var", "rms")
        ]
        assert [*andor.lights] == [""]
        before = run.integrated("andor")["gasdet_n_f11"]
        np.testing.assert_array_equal(andor["gasdet_n_f11"], before)
        with pytest.raises(KeyError, match="did you mean 'gasdet_sum_f11'"):
            andor["gasdet_sum_f1"]
        with pytest.raises(KeyError, match="did you mean 'andor'"):
            run.integrated("andro")


def test_no_frames_and_no_shots(tmp_path, caplog):
    d = shots(60)
    d["andor/full_present"][:] = d["andor/fit_present"][:] = False
    with reader.open(write(tmp_path / "none", d)) as run:
        andor = run.integrated("andor")
        assert (andor.n, andor.framed.tolist(), andor["count"].tolist()) == (1, [False], [60])
        assert andor.reasons() == {"first": 1, "open": 1}
    merge(run.path)
    assert "no frame of andor came in 60 shots" in caplog.text
    path = write(tmp_path / "empty", taken(d, np.arange(0)))
    merge(path)
    with h5py.File(path, locking=False) as file:
        assert file["intg/andor/count"].shape == (0,)
        assert file["intg/andor/fim_sum_wave"].shape == (0, 3)
        assert file["intg/andor/var_shots_offsets"][:].tolist() == [0]


def test_open_shows_exposures(merged, monkeypatch, capsys):
    path, _ = merged
    monkeypatch.setenv("COLUMNS", "200")
    show.small_data(str(path), follow=False)
    lines = capsys.readouterr().out.splitlines()
    (andor,) = (line.split() for line in lines if line.startswith("andor "))
    assert andor[:4] == ["andor", "33", "32", "27"]
    assert " ".join(andor[4:]).endswith("4 missing, 1 frame_lost 12 of 12 shots")


def test_diff_compares_exposures_with_those_of_others(merged, damaged, tmp_path, capsys):
    path, _ = merged
    theirs, rows = tmp_path / "theirs.h5", by_hand(damaged, "andor/full_present")[:-1]
    with h5py.File(theirs, "w") as file:  # in any order, without what came after the last frame
        file["timestamp"] = damaged["timestamp"].astype(np.int64)
        back = [int(damaged["timestamp"][r[-1]]) for r in rows][::-1]
        file["intg/timestamp"] = back
        file["intg/andor/count"] = [len(r) for r in rows][::-1]
        sums = np.array([expected(damaged, r, "lightStatus/laser")[1] for r in rows])
        file["intg/andor/lightStatus_sum_laser"] = sums[::-1]
    options = diff.Options(ignore=["ffb/*"], common=True)
    assert diff.diff_command(str(theirs), str(path), options) == 0, capsys.readouterr().out
    with h5py.File(theirs, "a") as file:
        file["intg/andor/lightStatus_sum_laser"][3] += 1
    assert diff.diff_command(str(theirs), str(path), options) == 1
    assert "lightStatus_sum_laser" in capsys.readouterr().out
