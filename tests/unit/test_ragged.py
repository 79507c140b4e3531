"""Lists of a finished run stand end to end, read as while they had room, and shots keep theirs."""

import json

import h5py
import numpy as np
import pytest

from ffb import reader
from ffb.batch import Batch, compressed
from ffb.books.audit import audit
from ffb.reading import contents
from ffb.reading.lists import group_of
from ffb.schema import CORE, Column, Schema
from ffb.writers.chain import Rolling
from ffb.writers.small_data import SmallData
from tests.unit.small_data_truth import INFO, PROVENANCE, books

ROOM = 5
PACKED = {"codec": "bitshuffle-lz4", "chunk": 64}


def schema_of(codec, room=ROOM):
    """Two kinds of lists of one reducer under its detector, one of them of pairs."""
    packed = PACKED if codec else {}
    about = {"reducer": "jf/drops"}
    mine = {"length": "jf/drops_n", **about, **packed}
    return Schema(
        (
            *CORE,
            Column("jf/drops_present", "|b1", **about),
            Column("jf/drops_n", "<i8", **about),
            Column("jf/drops_sum", "<f4", (room,), ("drop",), "keV", "sums", **mine),
            Column("jf/drops_box", "<i2", (room, 2), ("drop", "b"), **mine),
            Column("jf/drops_m", "<u2", **about),
            Column("jf/drops_edge", "<u1", (3,), length="jf/drops_m", **about),
        )
    )


def rows(schema, stamps, counts):
    """Rows whose lists are known from stamp and place: entry k of shot t is 10 t + k."""
    batch = Batch(schema, len(stamps))
    for c in schema.columns:
        batch.columns[c.name][...] = 0
        if c.length:
            n = counts if c.length == "jf/drops_n" else counts % 4
            place = np.arange(c.shape[0])
            values = 10 * stamps.astype("i8")[:, None] + place
            here = place < n[:, None]
            if len(c.shape) == 2:
                values, here = values[..., None] * [1, 2], here[..., None]
            batch.columns[c.name][...] = np.where(here, values, c.missing).astype(c.dtype)
    batch.columns["timestamp"][:] = stamps
    batch.columns["jf/drops_n"][:], batch.columns["jf/drops_m"][:] = counts, counts % 4
    batch.columns["jf/drops_present"][:] = counts > 0
    return compressed(batch)


def write(folder, schema, pieces, *, ended=True):
    sink = SmallData(folder, rolling=Rolling(segment_rows=1024))
    sink.begin_run(INFO, schema, PROVENANCE)
    n = 0
    for commit, (stamps, counts) in enumerate(pieces):
        sink.append(rows(schema, stamps, counts))
        n += len(stamps)
        sink.commit(books(commit + 1, n))
    if ended:
        sink.end_run(books(len(pieces) + 1, n, ended="end of run"))
    else:
        sink.close()
    return sink.path


def expected(pieces):
    """Stamps and numbers of entries in the order of time."""
    stamps, counts = (np.concatenate(x) for x in zip(*pieces, strict=True))
    order = np.argsort(stamps, kind="stable")
    return stamps[order], counts[order]


def kinds(kind):
    """Batches of shots whose lists are of a kind; some shots come late."""
    rng = np.random.default_rng(3)
    stamps = np.arange(100, 100 + 24 * 64, dtype=np.uint64).reshape(24, 64)
    stamps[[3, 20]] = stamps[[20, 3]]
    most = {"mixed": ROOM + 4, "empty": 1, "full": ROOM + 1}[kind]
    counts = rng.integers(0, most, (24, 64))
    if kind == "full":
        counts[:] = ROOM + 3
    return [*zip(stamps, counts, strict=True)]


@pytest.mark.parametrize("codec", ["", "packed"])
@pytest.mark.parametrize("kind", ["mixed", "empty", "full"])
def test_every_shot_has_its_own_entries_whenever_it_came(tmp_path, kind, codec):
    pieces, schema = kinds(kind), schema_of(codec)
    stamps, counts = expected(pieces)
    with h5py.File(write(tmp_path, schema, pieces)) as file:
        assert file["timestamp"][:].tolist() == stamps.tolist()
        for group, room, n in (("drops", ROOM, counts), ("drops_m", 3, counts % 4)):
            length = file[f"jf/var_{group}_len"][:]
            assert length.tolist() == np.minimum(n, room).tolist()
            assert file[f"jf/var_{group}_offsets"][:].tolist() == [0, *np.cumsum(length).tolist()]
        assert file["jf/drops_n"][:].tolist() == counts.tolist(), "counts are right beyond the room"
        brute = [10 * int(t) + k for t, n in zip(stamps, counts, strict=True)
                 for k in range(min(n, ROOM))]  # fmt: skip
        assert file["jf/var_drops/sum"][:].tolist() == brute
        pairs = (np.array(brute, "i8").reshape(-1, 1) * [1, 2]).astype("i2")
        assert file["jf/var_drops/box"][:].tolist() == pairs.tolist()
        assert bool(file["jf/var_drops/sum"].compression_opts or codec) == bool(codec)
        assert "jf/drops_sum" not in file
        if brute:
            end = np.cumsum(file["jf/var_drops_len"][:])
            k = len(end) // 2
            mine = file["jf/var_drops/sum"][end[k] - file["jf/var_drops_len"][k] : end[k]]
            assert mine.tolist() == [10 * int(stamps[k]) + j for j in range(min(counts[k], ROOM))]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The same run while it has room and when it is finished, its rows in order already."""
    pieces = sorted(kinds("mixed"), key=lambda p: p[0][0])
    folders = [tmp_path_factory.mktemp(n) for n in ("growing", "finished")]
    return [write(f, schema_of(""), pieces, ended=k == 1) for k, f in enumerate(folders)]


@pytest.mark.parametrize(
    "rows",
    [slice(None), slice(3, 900, 7), slice(None, None, -5), slice(9, 9), [5, 2, 1400]],
    ids=str,
)
def test_the_reader_gives_the_same_while_it_grows_and_after(both, rows):
    with reader.open(both[0]) as growing, reader.open(both[1]) as finished:
        assert (growing.segmented, finished.segmented) == (True, False)
        assert growing.columns == finished.columns
        for name in ("jf/drops_sum", "jf/drops_box", "jf/drops_edge", "jf/drops_n"):
            a, b = growing[name][rows], finished[name][rows]
            assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
            if isinstance(rows, slice) and growing[name].length and (rows.step or 1) > 0:
                for x, y in zip(
                    growing[name].ragged(rows), finished[name].ragged(rows), strict=True
                ):
                    assert (x.dtype, x.tolist()) == (y.dtype, y.tolist())
        assert finished["jf/drops_box"][3:5, :2, 1].shape == (2, 2)


def test_what_was_open_goes_on_in_the_order_of_its_commits(tmp_path):
    pieces, schema = kinds("mixed"), schema_of("")
    sink = SmallData(tmp_path, rolling=Rolling(segment_rows=1024))
    sink.begin_run(INFO, schema, PROVENANCE)
    for k, (stamps, counts) in enumerate(pieces):
        sink.append(rows(schema, stamps, counts))
        sink.commit(books(k + 1, 64 * (k + 1)))
    with reader.open(sink.path) as run:
        before = run["jf/drops_sum"][:], run["jf/drops_sum"].ragged(slice(100, 300))
        sink.end_run(books(99, 64 * len(pieces), ended="end of run"))
        run.refresh()
        assert not run.segmented
        np.testing.assert_array_equal(run["jf/drops_sum"][:], before[0])
        for x, y in zip(run["jf/drops_sum"].ragged(slice(100, 300)), before[1], strict=True):
            assert x.tolist() == y.tolist()


def test_an_audit_finds_nothing_and_what_is_cut_off_is_told(both):
    for path in both:  # whose books are made up
        assert not {p.kind for p in audit(path).problems} & {"files", "unreadable"}
    with h5py.File(both[1], "r+") as file:
        values = file["jf/var_drops/sum"]
        kept = values[:]
        values.resize((len(values) - 1,))
    with reader.open(both[1]) as run:
        said = [what for _, what in run.damage()]
        assert any("jf/var_drops/sum does not end where" in what for what in said)
        with pytest.raises(ValueError, match="entries"):
            run["jf/drops_sum"][:]
    with h5py.File(both[1], "r+") as file:
        file["jf/var_drops/sum"].resize(kept.shape)
        file["jf/var_drops/sum"][:] = kept


def test_the_file_says_what_its_lists_are(both):
    with h5py.File(both[1]) as file:
        told = json.loads(file[contents.LISTS].asstr()[()])
        assert told["jf/drops_edge"] == {
            "values": "jf/var_drops_m/edge",
            "lengths": "jf/var_drops_m_len",
            "offsets": "jf/var_drops_m_offsets",
            "room": 3,
        }
        about = file["jf/var_drops/sum"].attrs
        facts = [about[k] for k in ("unit", "doc", "length", "offsets", "reducer")]
        assert facts == ["keV", "sums", "jf/var_drops_len", "jf/var_drops_offsets", "jf/drops"]
        assert [d.label for d in file["jf/var_drops/box"].dims] == ["drop", "b"]
        for name in ("jf/var_drops_len", "jf/var_drops_offsets"):
            assert file[name].attrs["unit"] == "1"
            assert "jf/var_drops" in file[name].attrs["doc"]


@pytest.mark.parametrize(
    ("reducer", "count", "group"),
    [
        ("jf/drops", "jf/drops_n", "jf/var_drops"),
        ("jf/drops", "jf/drops_photons", "jf/var_drops_photons"),
        ("drops", "drops/n", "drops/var_drops"),
        ("drops", "drops/photons", "drops/var_photons"),
        ("", "feespec/peaks", "feespec/var_peaks"),
        ("", "feespec/peakPos_len", "feespec/var_peakPos"),
        ("", "start_len", "var_start"),
        ("", "a/b/trace_len", "a/b/var_trace"),
    ],
)
def test_names_of_groups(reducer, count, group):
    assert group_of(Column("x", "<f4", (2,), reducer=reducer, length=count)) == group
