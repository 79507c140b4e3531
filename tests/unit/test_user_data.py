"""Parameters, axes, masks and geometry reach the file, once, and outlive a crash."""

import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest

from ffb import reader
from ffb.messaging.arrays import LARGE, RunArray, check, packed, unpacked
from ffb.sink import Provenance
from ffb.source import Constants
from ffb.wire import Decoder, Header, WireError, encode
from ffb.writers.consolidate import merge
from ffb.writers.master import folder_of
from ffb.writers.recover import heal
from ffb.writers.small_data import SmallData
from tests.unit.plans import SHAPE, SPOT, plan
from tests.unit.small_data_truth import INFO, PROVENANCE, SCHEMA, books, make_batch

RNG = np.random.default_rng(8)
SEGMENTS = (2, 16, 24)


def tilted(shape=SEGMENTS):
    """Pixel positions of panels that are turned and tilted, with a wider row in the midst [um]."""
    s, r, c = shape
    rows = np.where(np.arange(r) < r // 2, 0.0, 100.0) + 75.0 * np.arange(r)
    columns = 75.0 * np.arange(c)
    out = []
    for k in range(s):
        turn = 0.3 + k
        x = np.cos(turn) * columns - np.sin(turn) * rows[:, None] + 1e5 * k
        y = np.sin(turn) * columns + np.cos(turn) * rows[:, None]
        out.append([x, y, 3e-3 * x + 1e5])
    return np.moveaxis(np.array(out), 0, 1)


def arrays(seed=0):
    rng = np.random.default_rng(seed)
    mask = rng.random(SEGMENTS) > 0.1
    made = [RunArray("jf/mask", mask, "1", "1 for good pixels")]
    axes = zip("xyz", tilted(), strict=True)
    made += [RunArray(f"jf/{k}", v, "um", f"{k} of the pixels") for k, v in axes]
    pedestals = rng.normal(2000, 50, (3, *SEGMENTS)).astype("f4")
    return [*made, RunArray("jf/ped", pedestals, "ADU", "pedestals")]


@pytest.mark.parametrize("a", arrays(), ids=lambda a: a.name)
def test_what_is_packed_comes_back(a):
    (one,), left = packed([a])
    assert (left, check([one])) == ([], "")
    back = unpacked(one)
    assert (back.name, back.unit, back.doc) == (a.name, a.unit, a.doc)
    if a.values.dtype == bool:
        np.testing.assert_array_equal(back.values, a.values.astype("u1"))
        assert len(one["data"]) < a.values.size / 8 + 30
    elif a.unit == "um":
        assert one["form"] == "sum"
        assert (back.values == a.values.astype("f4")).mean() > 0.99
        np.testing.assert_allclose(back.values, a.values, atol=0.01)
        assert len(one["data"]) < a.values.nbytes / 8
    else:
        assert back.values.tobytes() == a.values.tobytes()


@pytest.mark.parametrize("spoil", [np.nan, 0.5], ids=["nan", "bent"])
def test_positions_that_are_no_sum_of_rows_and_columns_travel_as_they_are(spoil):
    x = tilted()[0]
    x[1, 7, 9] += spoil
    (one,), _ = packed([RunArray("jf/x", x, "um", "x")])
    assert one["form"] == "plain"
    assert unpacked(one).values.tobytes() == x.tobytes()


def test_what_is_too_large_is_left_out_and_named():
    noise = RNG.random((1, 1024, LARGE // 8192 + 1))
    made, left = packed([RunArray("a/noise", noise, "1", ""), *arrays()])
    assert left == ["a/noise"]
    assert len(made) == 5
    assert packed(arrays(), room=1000)[1][-1] == "jf/ped"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "../x"}, "not a path"),
        ({"name": "jf"}, "not a path"),
        ({"dtype": "|O8"}, "not an array of numbers"),
        ({"shape": [0, 3]}, "not an array of numbers"),
        ({"shape": [1 << 30, 1 << 30]}, "elements together"),
        ({"form": "pickle"}, "unknown way"),
        ({"data": "text"}, "of a wrong type"),
        ({"more": 1}, "nothing else"),
    ],
    ids=str,
)
def test_what_strangers_send_is_refused(change, said):
    made, _ = packed(arrays())
    assert said in check([*made[:-1], {**made[-1], **change}])
    wrong = Provenance(arrays=(*made[:-1], {**made[-1], **change}))
    with pytest.raises(WireError, match="begin_run"):
        Decoder()([bytes(f) for f in encode(Header("begin_run"), SCHEMA, wrong)])


@pytest.mark.parametrize("form", ["plain", "bits", "sum"])
def test_data_that_are_a_bomb_or_cut_off_are_refused(form):
    zeros, _ = packed([RunArray("a", np.zeros((2, 1000, 1000), "u1"), "1", "")])
    with pytest.raises(ValueError, match="array a"):
        unpacked({**zeros[0], "form": form, "shape": [1, 2, 3]})
    with pytest.raises(ValueError, match="array a"):
        unpacked({**zeros[0], "form": form, "data": zeros[0]["data"][:-9]})


def about(seed=0, rows=(2, 7)):
    reducers = {
        "jf/ROI_0": {"use": "roi", "version": 2, "params": {
            "rows": rows, "level": 1.5, "area": True, "note": "a", "none": None,
            "ragged": [[1], [2, 3]], "high": "inf",
        }},
        "azav": {"version": 3, "params": {"bins": 4}, "coords": {
            "q": {"values": [0.5, 1.0], "unit": "1/angstrom"}}},
    }  # fmt: skip
    return replace(PROVENANCE, reducers=reducers, arrays=tuple(packed(arrays(seed))[0]))


def assert_all(file, seed=0, rows=(2, 7), top="UserDataCfg"):
    cfg = file[top]
    for a in arrays(seed):
        found = cfg[a.name]
        np.testing.assert_allclose(found[:], a.values, atol=0.01)
        assert (found.attrs["unit"], found.attrs["doc"]) == (a.unit, a.doc)
    stem = "jf/ROI_0__ROI_0_"
    assert cfg[f"{stem}rows"][:].tolist() == list(rows)
    assert cfg[f"{stem}level"][()] == 1.5
    assert cfg[f"{stem}high"][()] == np.inf
    assert cfg[f"{stem}area"][()]
    assert cfg[f"{stem}note"].asstr()[()] == "a"
    assert cfg[f"{stem}none"].asstr()[()] == "null"
    assert cfg[f"{stem}ragged"].asstr()[()] == "[[1], [2, 3]]"
    assert cfg[f"{stem}rows"].attrs["version"] == "2"
    assert cfg["azav/bins"][()] == 4
    assert cfg["azav/q"][:].tolist() == [0.5, 1.0]
    assert cfg["azav/q"].attrs["unit"] == "1/angstrom"
    assert cfg[f"{stem}level"].attrs["unit"] == "the parameter's"  # mm, keV, ...: its docs know
    assert "`ffb reducers roi`" in cfg[f"{stem}level"].attrs["doc"]
    for name in ("jf/mask", f"{stem}level", "azav/q"):
        assert cfg[name].attrs["doc"]


def begun(folder, **more):
    sink = SmallData(folder, merge=None)
    sink.begin_run(INFO, SCHEMA, about(**more))
    sink.append(make_batch(0, 100))
    sink.commit(books(1, 100))
    return sink


def test_the_reader_gives_them_and_says_what_there_is(tmp_path):
    sink = begun(tmp_path)
    sink.close()
    with reader.open(sink.path) as run:
        assert run.user_data("jf/mask").shape == SEGMENTS
        assert run.user_data("jf/ROI_0__ROI_0_note") == "a"
        assert run.user_data("azav/bins") == 4
        for name in ("jf/musk", "jf"):
            with pytest.raises(KeyError, match=f"no '{name}' in UserDataCfg of .*: .*mask, "):
                run.user_data(name)
        for name in ("epix/mask", "epix"):
            with pytest.raises(KeyError, match="azav, jf"):
                run.user_data(name)


def test_they_are_there_from_the_first_row_on_and_in_the_plain_file(tmp_path):
    sink = begun(tmp_path)
    with h5py.File(sink.path, "r", locking=False) as file:
        assert_all(file)
    sink.end_run(books(2, 100, ended="end of run"))
    merge(sink.path)
    assert not folder_of(sink.path).exists()
    with h5py.File(sink.path) as file:
        assert_all(file)
        assert file["UserDataCfg/jf/mask"].dtype == np.uint8


def test_a_crash_does_not_lose_them_and_who_goes_on_leaves_them(tmp_path):
    folder = tmp_path / "killed"
    sink = begun(tmp_path)
    shutil.copytree(tmp_path, folder)  # as a kill leaves it
    sink.close()
    path = folder / sink.path.name
    path.unlink()  # and the master, too
    healed = heal(path)
    assert healed.rows == 100
    with h5py.File(path, "r", locking=False) as file:
        assert_all(file)
    again = SmallData(folder)
    again.begin_run(INFO, SCHEMA, healed.provenance)  # which has no arrays, as after --end
    again.end_run(books(9, 100, ended="recovered"))
    with h5py.File(path) as file:
        assert_all(file)


def test_epochs_have_their_own_and_equal_arrays_are_stored_once(tmp_path):
    sink = begun(tmp_path)
    for epoch in (1, 2):
        seed = 0 if epoch == 1 else 5
        sink.begin_epoch(epoch, SCHEMA, about(seed, rows=(epoch, 9)))
        sink.append(make_batch(100 * epoch, 100))
        sink.commit(books(1 + epoch, 100 * (epoch + 1)))
    sizes = [p.stat().st_size for p in sorted(folder_of(sink.path).glob("cfg*.h5"))]
    assert sizes[1] < sizes[0] - 2 * 16 * 24 * 4 * 3, "no positions and pedestals of its own"
    for ended in (False, True):
        if ended:
            sink.end_run(books(9, 300, ended="end of run"))
            merge(sink.path)
        with h5py.File(sink.path, "r", locking=False) as file:
            assert_all(file, 5, (2, 9))
            assert_all(file, 0, (1, 9), "UserDataCfg_e1")
            assert_all(file, 0, (2, 7), "UserDataCfg_e0")
            if ended:
                addresses = {h5py.h5o.get_info(file[f"UserDataCfg{e}/jf/x"].id).addr
                             for e in ("", "_e0", "_e1")}  # fmt: skip
                assert len(addresses) == 1


def test_a_damaged_array_is_left_out_and_the_rest_is_there(tmp_path, caplog):
    good = about()
    spoilt = ({**good.arrays[0], "data": b"nothing"}, *good.arrays[1:])
    sink = SmallData(tmp_path, merge=None)
    sink.begin_run(INFO, SCHEMA, replace(good, arrays=spoilt))
    sink.close()
    assert "jf/mask does not unpack" in caplog.text
    with h5py.File(folder_of(sink.path) / "cfg00000.h5") as file:
        assert "mask" not in file["UserDataCfg/jf"]
        assert file["UserDataCfg/jf/x"].shape == SEGMENTS


def test_a_plan_tells_mask_positions_and_constants_of_its_detectors():
    xyz = np.broadcast_to(np.arange(SHAPE[2], dtype=float) * 75, (3, *SHAPE)).copy()
    ped = np.full((1, *SHAPE), 7.0, "f4")
    known = Constants("jf", "opal", SHAPE, pedestals=ped, xyz=xyz, ids={"pedestals": "x"})
    made = {
        a["name"]: unpacked(a) for a in plan({"jf/ROI": SPOT}, constants=known).provenance().arrays
    }
    assert made["jf/mask"].values.shape == SHAPE
    np.testing.assert_allclose(made["jf/x"].values, xyz[0])
    np.testing.assert_array_equal(made["jf/ped"].values, ped)


def test_large_constants_are_named_and_not_kept(monkeypatch):
    monkeypatch.setattr("ffb.loops.calibrated.LARGE", 100)
    known = Constants("jf", "opal", SHAPE, pedestals=np.ones((1, *SHAPE), "f4"))
    p = plan({"jf/ROI": SPOT}, constants=known)
    about = p.provenance()
    assert {a["name"] for a in about.arrays} == {"jf/mask"}
    assert "too large for UserDataCfg: jf/ped; ffb/constants has their ids" in about.notes
    assert p.provenance().notes == about.notes


def test_books_and_journal_carry_no_arrays(tmp_path):
    sink = begun(tmp_path)
    sink.close()
    folder = folder_of(sink.path)
    sizes = sum(len(a["data"]) for a in about().arrays)
    assert (folder / "journal").stat().st_size < sizes
