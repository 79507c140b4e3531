"""The file has the names, types and attributes that analysts know, and plain tools read it."""

import h5py
import numpy as np
import pandas as pd
import pytest

from ffb import Value, reader, reducer
from ffb.loops.wiring import owner_of
from ffb.schema import TIMESTAMP, column_name
from ffb.source import RunInfo
from ffb.writers.small_data import SmallData
from tests.unit.plans import SPOT, One, feed, plan, shot
from tests.unit.small_data_truth import books

N = 5
NPIX = 5 * 15


@reducer(version=1)
def twice(x: Value) -> One:
    """Twice a value."""
    return One(2.0 * x)


def as_known(*, record=("diode", "mode")):
    """A plan with the names that analysts know: a detector, its region, what follows from that."""
    return plan(
        {
            "jf/ROI": SPOT,
            "jf/ROI_0": SPOT,
            "jf/ROI_0_twice": {"use": f"{__name__}:twice", "inputs": "jf/ROI_0_sum"},
        },
        shots=N,
        record=record,
        motors=("lxt",),
    )


@pytest.fixture(scope="module", params=["master", "plain"])
def path(request, tmp_path_factory):
    """A run without its camera in the third shot, without ``mode`` in the second."""
    p = as_known()
    shots = [shot(k, **{1: {"mode": None}, 2: {"jf": None}}.get(k, {})) for k in range(N)]
    for k, s in enumerate(shots):
        p.take(s, 1000 + k)
    sink = SmallData(tmp_path_factory.mktemp("layout"))
    sink.begin_run(RunInfo("mfxx49820", 42, 99), p.schema, p.provenance())
    sink.append(p.close())
    sink.commit(books(1, N))
    if request.param == "plain":
        sink.end_run(books(2, N, ended="end of run"))
    sink.close()
    return sink.path


@pytest.fixture
def file(path):
    with h5py.File(path) as opened:
        yield opened


def test_names_of_features_stand_under_their_detector(file):
    assert {"jf/ROI_0_sum", "jf/ROI_0_npix", "jf/ROI_0_present", "jf/ROI_sum"} < {
        f"jf/{k}" for k in file["jf"]
    }
    np.testing.assert_array_equal(file["jf/ROI_0_twice_value"][:], 2 * file["jf/ROI_0_sum"][:])
    assert np.isfinite(file["jf/ROI_0_sum"][:]).tolist() == [True, True, False, True, True]


def test_the_owner_of_a_feature_is_the_reducer_with_the_longest_name():
    reducers = ["jf/ROI", "jf/ROI_0", "spot"]
    assert [owner_of(n, reducers) for n in ("jf/ROI_0_sum", "jf/ROI_sum", "spot/sum", "x")] == [
        "jf/ROI_0", "jf/ROI", "spot", "",
    ]  # fmt: skip
    assert column_name("spot", "sum") == "spot/sum"


def test_what_is_absent_is_nan_or_says_so_beside_it(file):
    assert file["mode_valid"][:].tolist() == [True, False, True, True, True]
    there = file["jf/ROI_0_npix_valid"][:]
    assert there.tolist() == [True, True, False, True, True]
    assert file["jf/ROI_0_npix"][:][there].tolist() == [NPIX] * 4
    assert file["jf/ROI_0_npix"].attrs["valid"] == "jf/ROI_0_present"
    for name, data in columns(file):
        if data.dtype.kind in "iu" and not name.startswith(("ffb/", "step", "light", "timestamp")):
            assert file[f"{name}_valid"].dtype == bool, name


def test_the_key_is_psanas_and_the_pulse_id_has_psanas_name(file):
    stamps = file["timestamp"]
    assert (stamps.dtype, stamps[:].tolist()) == (np.int64, [100, 101, 102, 103, 104])
    assert file["timing/pulseId"][:].tolist() == file["pulse_id"][:].tolist()
    assert file["timing/pulseId_valid"][:].all()
    assert file["scan/lxt"].shape == (N,)


def test_the_reader_gives_stamps_as_it_always_did(path):
    with reader.open(path) as run:
        assert run["timestamp"][:].dtype == np.dtype(TIMESTAMP.dtype)
        assert run["timestamp"][::2].tolist() == [100, 102, 104]
        assert not run.damage()


def columns(file):
    """All datasets by name that have a row for every shot."""
    found = []
    file.visititems(lambda k, d: found.append((k, d)) if isinstance(d, h5py.Dataset) else None)
    return [(k, d) for k, d in found if k in file["ffb/columns"].asstr()[()]]


def test_everything_has_a_unit_and_says_what_it_is(file):
    seen = []

    def check(name, data):
        if isinstance(data, h5py.Dataset):
            seen.append(name)
            assert data.attrs["unit"], name
            assert data.attrs["doc"], name

    file.visititems(check)
    assert {"timestamp", "jf/ROI_0_sum", "diode", "ffb/ledger", "ffb/config"} < {*seen}


def test_columns_say_where_they_come_from(file):
    facts = {
        "jf/ROI_0_sum": ("jf.raw.raw", "jf/ROI_0", "1"),
        "jf/ROI_0_present": ("jf.raw.raw", "jf/ROI_0", "1"),
        "jf/ROI_0_twice_value": ("jf/ROI_0_sum", "jf/ROI_0_twice", "1"),
        "diode": ("diode.raw.raw", "", ""),
        "mode_valid": ("mode.raw.raw", "", ""),
        "timestamp": ("ffb", "", ""),
    }
    for name, fact in facts.items():
        about = file[name].attrs
        assert (about["source"], about["reducer"], about["version"]) == fact, name
    assert file["diode"].attrs["unit"] == "mJ"
    assert file["diode"].attrs["doc"] == "diode.raw.raw, as it came"


def test_pandas_makes_a_table_of_it(file):
    names = ("timestamp", "jf/ROI_0_sum", "jf/ROI_0_npix", "mode", "timing/pulseId")
    frame = pd.DataFrame({n: file[n][:] for n in names}).set_index("timestamp")
    assert frame.shape == (N, 4)
    assert frame["jf/ROI_0_sum"].isna().sum() == 1


def test_a_configured_unit_stands_in_the_schema_and_a_run_that_knows_better_keeps_its_own():
    p = as_known(record=("wf", "line"))
    assert p.schema.by_name["wf"].unit == "V"
    assert feed(p, [shot(1)])["pulse_id_valid"].all()
