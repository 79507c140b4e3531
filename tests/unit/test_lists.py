"""A list is a vector that names the column which counts its entries, from feature to file."""

from typing import Annotated, NamedTuple

import h5py
import msgpack
import numpy as np
import pytest

from ffb import Feature, Vector, Waveform, reader, reducer
from ffb.batch import Batch
from ffb.live.model import Live
from ffb.loops.columns import columns_of
from ffb.schema import CORE, Column, Schema
from ffb.shot import Input
from ffb.testing.check_reducer import check_reducer
from ffb.wire import Decoder, Header, WireError, encode
from ffb.writers.history import schema_of
from ffb.writers.small_data import SmallData
from tests.unit.small_data_truth import INFO, PROVENANCE, books, make_batch

ROOM = 4
SCHEMA = Schema(
    (
        *CORE,
        Column("drop/n", "<i8", reducer="drop"),
        Column("drop/sum", "<f4", (ROOM,), ("droplet",), "keV", "", "drop", length="drop/n"),
        Column("drop/box", "<i4", (ROOM, 2), ("droplet", "b"), reducer="drop", length="drop/n"),
        Column("drop/mean", "<f4", (ROOM,), ("k",), reducer="drop"),
    )
)
COUNTS = np.array([2, 0, 9, 4, 1, 0], np.int64)


class Peaks(NamedTuple):
    n: Annotated[int, Feature("1", "samples above 100")]
    height: Annotated[Vector, Feature("@", "their values", ("peak",), "<f8", length="n")]


def listing(rest: float):
    """A reducer that lists, at most five, and leaves ``rest`` in the places after them."""

    @reducer(version=1)
    def peaks(wave: Waveform) -> Peaks:
        n, height = 0, np.full(5, rest)
        for v in wave:
            if v > 100.0:
                if n < 5:
                    height[n] = v
                n += 1
        return Peaks(n, height)

    return peaks


WAVE = {"wave": Input("value", "<f4", (40,), "V")}


def test_a_feature_names_its_count_and_so_does_the_column():
    peaks = listing(np.nan)
    made = columns_of("mine", peaks, None, Peaks(3, np.zeros(5)), "V")
    assert [c.length for c in made] == ["", "mine/n"]
    check_reducer(peaks, None, WAVE)


def test_the_contract_catches_a_list_that_does_not_end_where_its_count_says():
    with pytest.raises(AssertionError, match="after its last entry"):
        check_reducer(listing(0.0), None, WAVE)


@pytest.mark.parametrize("count", ["m", "flag", "height"])
def test_a_count_must_be_a_whole_number(count):
    class Wrong(NamedTuple):
        flag: Annotated[bool, Feature("1")]
        height: Annotated[Vector, Feature("V", "", ("peak",), "<f8", length=count)]

    def peaks(wave: Waveform) -> Wrong:
        return Wrong(True, wave)

    peaks.__annotations__ = {"wave": Waveform, "return": Wrong}
    with pytest.raises(TypeError, match=rf"peaks.height: length='{count}' must name an int"):
        reducer(version=1)(peaks)


def test_a_schema_without_lists_is_packed_as_it_was_and_one_with_them_comes_back():
    plain = Schema((*CORE, Column("x", "<f8")))
    assert {len(row) for row in msgpack.unpackb(plain.packed)} == {9}
    for schema in (plain, SCHEMA):
        assert schema_of(schema.packed) == schema
        sent = encode(Header("shots"), schema, Batch(schema, 1))
        assert Decoder()([bytes(f) for f in sent]).schema == schema


@pytest.mark.parametrize("count", ["drop/m", "drop/sum", "drop/mean", "kept"])
def test_a_length_that_counts_nothing_is_refused(count):
    wrong = SCHEMA.by_name["drop/sum"]._replace(length=count)
    extra = (Column("kept", "<f4"), *SCHEMA.columns[len(CORE) + 1 :])
    schema = Schema((*CORE, *(wrong if c.name == "drop/sum" else c for c in extra)))
    with pytest.raises(WireError, match=f"'{count}' does not count its entries"):
        Decoder()([bytes(f) for f in encode(Header("shots"), schema, Batch(schema, 1))])


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    sink = SmallData(tmp_path_factory.mktemp("lists"))
    sink.begin_run(INFO, SCHEMA, PROVENANCE)
    batch = make_batch(0, len(COUNTS), SCHEMA)
    batch.columns["drop/n"][:] = COUNTS
    sink.append(batch)
    sink.end_run(books(1, len(COUNTS)))
    return sink.path


@pytest.mark.parametrize("rows", [slice(None), slice(1, 4), slice(5, None), slice(3, 3)], ids=str)
@pytest.mark.parametrize("name", ["drop/sum", "drop/box"])
def test_ragged_gives_the_entries_end_to_end(path, rows, name):
    with reader.open(path) as run:
        whole, found = run[name][rows], run[name].ragged(rows)
        lengths = np.minimum(COUNTS[rows], ROOM)
        assert found.lengths.tolist() == lengths.tolist()
        pieces = [row[:n] for row, n in zip(whole, lengths, strict=True)]
        expected = np.concatenate([whole[:0].reshape(0, *whole.shape[2:]), *pieces])
        np.testing.assert_array_equal(found.values, expected)


def test_a_column_without_lists_says_so(path):
    with reader.open(path) as run, pytest.raises(TypeError, match="drop/mean holds no lists"):
        run["drop/mean"].ragged()


def test_the_file_tells_which_count_goes_with_which_list(path):
    names = ("var_drop/sum", "var_drop/box", "mean", "n")
    with h5py.File(path) as file:
        lengths = [file[f"drop/{k}"].attrs.get("length") for k in names]
        assert lengths == ["drop/var_drop_len", "drop/var_drop_len", None, None]
        assert {file[f"drop/{k}"].attrs["offsets"] for k in names[:2]} == {"drop/var_drop_offsets"}
        assert file["drop/var_drop_len"][:].tolist() == np.minimum(COUNTS, ROOM).tolist()
    with reader.open(path) as run:
        assert run.to_xarray(["drop/sum"])["drop/sum"].attrs["length"] == "drop/n"
        assert run["drop/sum"].length == "drop/n"


def test_the_page_shows_no_mean_by_place_of_a_list():
    live = Live()
    live.begin_run(INFO, SCHEMA, PROVENANCE)
    assert [c.name for c in live.arrays] == ["drop/mean"]
    assert "drop/n" in {c.name for c in live.scalars}
