"""Sums of several producers on their way into the file: merged once, whoever is killed when."""

import dataclasses
import itertools

import h5py
import numpy as np
import pytest

import ffb
from ffb.aggregate import Aggregator
from ffb.books.audit import audit
from ffb.messaging.untrusted import WireError
from ffb.schema import CORE, KEPT, LASER, PULSE_ID, STEP, XRAY, Schema
from ffb.sums.log import Folder, files_in
from ffb.sums.piece import Fates, Parcel, SumPiece, parcel_of
from ffb.sums.words import COUNTS, what_of
from ffb.wire import Decoder, encode
from ffb.writers import sums as sum_files
from ffb.writers.consolidate import merge
from ffb.writers.small_data import SmallData
from tests.unit.producers import Producer, batch

SHAPE = (2, 3, 5)
PIXELS = 30
WHATS = ("calib", "calib_square", "calib_max")
MS = 1_000_000


class Told(Producer):
    """A producer that also sends what it adds to a sum ``s``, by laser and step."""

    def __init__(self, name, epoch=1, form="a" * 16, size=17, where="", others=(0, 0, 0)):
        super().__init__(name, epoch)
        self.form, self.size, self.deltas = form, size, 0
        self.where, self.others = where, others  # shots of a delta that it does not add
        self.frames = {}
        self.rng = np.random.default_rng([ord(c) for c in name] + [epoch])

    def rows(self, stamps, step, laser):
        """Rows of shots, each with a frame that is remembered; every third pixel is masked."""
        rows = batch(stamps, Schema(CORE))
        rows.columns[STEP.name][:], rows.columns[LASER.name][:] = step, laser
        rows.columns[XRAY.name][:] = rows.columns[KEPT.name][:] = 1
        rows.columns[PULSE_ID.name][:] = stamps
        for _ in stamps:
            self.frames.setdefault((step, laser), []).append(
                self.rng.normal(1000, 1, SHAPE).astype(np.float32)
            )
        self.read += len(stamps)
        return self.say("shots", Schema(CORE), rows)

    def delta(self, step, frames):
        """Pieces of a delta with ``frames`` by state of the laser."""
        pieces = []
        for laser, some in frames.items():
            v = np.array(some, np.float64).reshape(len(some), PIXELS)
            counts = np.full(PIXELS, len(some), np.uint8)
            counts[::3] = 0
            v[:, ::3] = 0
            arrays = {
                COUNTS: counts,
                "calib": v.sum(0),
                "calib_square": (v**2).sum(0),
                "calib_max": v.max(0).astype(np.float32),
            }
            light = f"laser_{'on' if laser else 'off'}"
            for what, array in arrays.items():
                for first in range(0, PIXELS, self.size):
                    values = array[first : first + self.size]
                    common = ("s", what, light, step, self.form, "keV", SHAPE, self.deltas, 0, 1)
                    fates = Fates(len(some), *self.others)
                    pieces.append(SumPiece(*common, self.where, fates, first, values))
        self.deltas += 1
        each = [p._replace(piece=k, pieces=len(pieces)) for k, p in enumerate(pieces)]
        return [self.say("sum", None, Parcel(tuple(some))) for some in batched(each, 3)]


def batched(items, n):
    return (items[k : k + n] for k in range(0, len(items), n))


def add(files, process, message):
    for piece in message.body.pieces:
        files.add(process, message.header.seq, piece)


def begun(folder, producers=1, commit_ms=1):
    sink, times = SmallData(folder, merge=None), (MS, commit_ms * MS, 1000 * MS)
    return Aggregator(lambda _: [sink], *times, producers=producers), sink


def wired(message):
    """The message as it comes off the wire."""
    return Decoder()(encode(message.header, message.schema, message.body))


def script(order):
    """All that two producers say in a run of two steps, each in its own order; and frames."""
    a, b = Told("a"), Told("b")
    said = {p: [p.begin(Schema(CORE))] for p in (a, b)}
    stamp = itertools.count(10)
    for step in range(2):
        for p in (a, b):
            mine, said[p] = {}, [*said[p], p.step(step, at=next(stamp))]
            for laser in (0, 1):
                said[p].append(p.rows([next(stamp) for _ in range(3)], step, laser))
                mine[laser] = p.frames[step, laser]
            said[p] += p.delta(step, mine)
    for p in (a, b):
        said[p].append(p.end())
    both = list(itertools.chain(*itertools.zip_longest(*said.values())))
    messages = [m for m in (both if order == "mixed" else [*said[b], *said[a]]) if m]
    frames = {k: a.frames[k] + b.frames[k] for k in a.frames}
    return messages, frames


def check(run, frames):
    """Every sum is that of the frames, as float64 says."""
    lasers = {"": (0, 1), "_laser_off": (0,), "_laser_on": (1,)}
    for tail, chosen in lasers.items():
        by_step = [[f for x in chosen for f in frames[step, x]] for step in (0, 1)]
        s = run.sums[f"s_calib{tail}"]
        assert (s.shots, s.missing, s.rows) == (12 * len(chosen), 0, 12 * len(chosen))
        assert (s.unit, s.dims, s.dtype) == ("keV", ("segment", "row", "col"), np.float64)
        good = np.arange(PIXELS).reshape(SHAPE) % 3 != 0
        every = np.array([*by_step[0], *by_step[1]], np.float64)
        np.testing.assert_allclose(s[...], np.where(good, every.sum(0), 0), rtol=1e-15)
        np.testing.assert_array_equal(s.counts, np.where(good, len(every), 0))
        np.testing.assert_allclose(s.mean(), np.where(good, every.mean(0), np.nan), rtol=1e-14)
        variance = np.where(good, every.var(0, ddof=1), np.nan)
        np.testing.assert_allclose(s.variance(), variance, rtol=1e-8)
        largest = np.where(good, every.max(0), np.nan)
        np.testing.assert_array_equal(run.sums[f"s_calib_max{tail}"][...], largest)
        steps = run.sums[f"s_calib{tail}_steps"]
        assert (steps.steps, steps.dims[0], steps.shape) == ((0, 1), "step", (2, *SHAPE))
        expected = [np.where(good, np.sum(some, 0, np.float64), 0) for some in by_step]
        np.testing.assert_allclose(steps[...], expected, rtol=1e-15)
        np.testing.assert_array_equal(steps.shots, [6 * len(chosen)] * 2)
        np.testing.assert_array_equal(steps.rows, steps.shots)
        np.testing.assert_array_equal(steps[1, 0], expected[1][0])


def drive(aggregator, messages, now=1):
    for m in messages:
        aggregator.receive(wired(m), now)
        now += MS
        aggregator.tick(now)
    while aggregator.open and now < 10**10:
        now += MS
        aggregator.tick(now)
    return now


@pytest.mark.parametrize("order", ["mixed", "one after the other"])
def test_two_producers_in_either_order_and_the_merged_file_reads_as_the_growing_one(
    tmp_path, order
):
    messages, frames = script(order)
    aggregator, sink = begun(tmp_path, 2)
    drive(aggregator, messages)
    with ffb.open(sink.path) as run:
        check(run, frames)
        growing = {k: (s[...].tobytes(), s.counts.tobytes()) for k, s in run.sums.items()}
        said = {k: repr(dataclasses.replace(s, read=None)) for k, s in run.sums.items()}
        held = run.sums["s_calib"]
        merge(sink.path)
        with pytest.raises(OSError, match=r"take it from run\.sums again"):
            held[...]
        check(run, frames)
    assert audit(sink.path).balanced
    with ffb.open(sink.path) as run:
        check(run, frames)
        assert {k: (s[...].tobytes(), s.counts.tobytes()) for k, s in run.sums.items()} == growing
        assert {k: repr(dataclasses.replace(s, read=None)) for k, s in run.sums.items()} == said
        assert "24 of 24 shots" in repr(run.sums)
    with h5py.File(sink.path) as plain:
        made = plain["Sums/s_calib"]
        assert made.shape == SHAPE
        assert (made.attrs["unit"], made.attrs["shots"], made.attrs["rows"]) == ("keV", 24, 24)
        assert made.attrs["counts"] == "s_counts"


@pytest.mark.parametrize("folding", [False, True])
def test_an_aggregator_that_dies_anywhere_merges_everything_once(tmp_path, monkeypatch, folding):
    messages, frames = script("mixed")
    if folding:
        monkeypatch.setattr(sum_files, "FOLD_BYTES", 0)
        monkeypatch.setattr(sum_files, "FOLD_TIMES", 1)
    now, seen = 1, 0
    for end in (*range(11, len(messages), 25), len(messages)):
        aggregator, sink = begun(tmp_path, 2, commit_ms=9)  # so that pieces are there uncommitted
        begins = [m for m in messages[:seen] if m.header.kind == "begin_run"]
        # Nobody was told that anything is safe, so that all comes again.
        for m in [*begins, *messages[:end]]:
            aggregator.receive(wired(m), now)
            now += MS
            aggregator.tick(now)
        if end < len(messages):
            sink._lease.release()  # the process is gone, its files stay as they are
            sink._chain._journal.close()
        seen = end
    drive(aggregator, [], now)
    merge(sink.path)
    with ffb.open(sink.path) as run:
        check(run, frames)
    assert audit(sink.path).balanced


def test_what_a_killed_producer_did_not_send_is_left_out_whole_and_told(tmp_path):
    aggregator, sink = begun(tmp_path)
    p = Told("a")
    said = [p.begin(Schema(CORE)), p.step(0, at=9), p.rows([10, 11, 12], 0, 1)]
    first = p.delta(0, {1: p.frames[0, 1]})
    said += [*first, p.rows([13, 14], 0, 1)]
    half = p.delta(0, {1: p.frames[0, 1][3:]})
    drive(aggregator, [*said, *half[:-1], p.end("producer died")])
    for look in (lambda: None, lambda: merge(sink.path)):
        look()
        with ffb.open(sink.path) as run:
            s = run.sums["s_calib"]
            assert (s.shots, s.rows) == (3, 5)
            assert "3 of 5 shots, 2 are not in it" in repr(run.sums)
            good = np.arange(PIXELS).reshape(SHAPE) % 3 != 0
            expected = np.where(good, np.sum(p.frames[0, 1][:3], 0, np.float64), 0)
            np.testing.assert_allclose(s[...], expected, rtol=1e-15)
    report = audit(sink.path)
    assert report.balanced
    assert dict(report.sums)["s"] == "3 of 5 shots, 2 are not in it"


def test_what_a_condition_kept_out_is_told_growing_and_merged(tmp_path):
    aggregator, sink = begun(tmp_path)
    p = Told("a", where="hit and tt.ampl > 1", others=(1, 4, 2))
    said = [p.begin(Schema(CORE)), p.step(0, at=9)]
    for first in (10, 20):
        said += [p.rows(range(first, first + 10), 0, 1)]
        said += p.delta(0, {1: p.frames[0, 1][-3:]})
    drive(aggregator, [*said, p.rows([30, 31], 0, 1), p.end("producer died")])
    for look in (lambda: None, lambda: merge(sink.path)):
        look()
        with ffb.open(sink.path) as run:
            s, steps = run.sums["s_calib"], run.sums["s_calib_laser_on_steps"]
            assert (s.where, s.rows) == ("hit and tt.ampl > 1", 22)
            assert (s.shots, s.missing, s.excluded, s.unknown) == (6, 2, 8, 4)
            assert (steps.shots, steps.excluded, steps.unknown) == ([6], [8], [4])
            text = "6 of 22 shots where hit and tt.ampl > 1, 8 not, 4 unknown, 2 had no frame"
            assert f"{text}, 2 are not in it" in repr(run.sums)
    assert audit(sink.path).balanced
    with h5py.File(sink.path) as plain:
        attrs = plain["Sums/s_calib"].attrs
        assert (attrs["where"], attrs["excluded"]) == ("hit and tt.ampl > 1", 8)


@pytest.mark.parametrize(("times", "others"), [(2, (0, 0, 0)), (1, (0, 2, 0)), (1, (0, 0, 2))])
def test_a_sum_with_more_shots_than_rows_is_found(tmp_path, times, others):
    aggregator, sink = begun(tmp_path)
    p = Told("a", others=others)
    said = [p.begin(Schema(CORE)), p.rows([10, 11], 0, 1)]
    said += p.delta(0, {1: p.frames[0, 1] * times})
    drive(aggregator, [*said, p.end()])
    assert "tells of 2 shots that have no row" in str(audit(sink.path).problems)


def test_other_parameters_begin_a_sum_anew(tmp_path):
    aggregator, sink = begun(tmp_path)
    old, new = Told("a"), Told("a", 2, form="b" * 16)
    said = [old.begin(Schema(CORE)), old.rows([10], 0, 1), *old.delta(0, {1: old.frames[0, 1]})]
    said += [old.end("producer died"), new.begin(Schema(CORE), config="other")]
    said += [new.rows([11], 0, 1), *new.delta(0, {1: new.frames[0, 1]}), new.end()]
    drive(aggregator, said)
    merge(sink.path)
    good = np.arange(PIXELS).reshape(SHAPE) % 3 != 0
    with ffb.open(sink.path) as run:
        for name, p in (("s_calib", new), ("s_before0_calib", old)):
            assert run.sums[name].shots == 1
            np.testing.assert_array_equal(run.sums[name][...], p.frames[0, 1][0] * good)
        with pytest.raises(KeyError, match="s_calib"):
            run.sums["s_calip"]


def test_a_torn_file_of_sums_counts_up_to_its_last_whole_record(tmp_path):
    p = Told("a", size=PIXELS)
    pieces = [m for k in range(3) for m in p.delta(-1, {1: [np.full(SHAPE, k + 1.0)]})]
    files = sum_files.SumFiles(tmp_path)
    for m in pieces:
        add(files, ("a", 1), m)
    every = {path.read_bytes() for path in files_in(tmp_path)}
    key = next(k for k in Folder(tmp_path).files if k.what == "calib")
    path = Folder(tmp_path).files[key].path
    good = np.arange(PIXELS).reshape(SHAPE) % 3 != 0
    whole = path.read_bytes()
    size = len(whole) // 3
    for cut in (1, size - 1, size, size + 1, 2 * size + 40, 3 * size - 1):
        path.write_bytes(whole[:cut])
        deltas = cut // size
        folder = Folder(tmp_path)
        assert len(folder.complete) == deltas
        if deltas:
            assert folder.fates(key) == (deltas, 0, 0, 0)
            total = deltas * (deltas + 1) / 2
            np.testing.assert_array_equal(folder.fold(key), total * good)
        again = sum_files.SumFiles(tmp_path)
        for m in pieces:
            add(again, ("a", 1), m)
        assert {f.read_bytes() for f in files_in(tmp_path)} == every
        path = Folder(tmp_path).files[key].path  # one that was torn to nothing was begun anew


def test_folding_keeps_sums_small_and_what_is_incomplete_for_later(tmp_path, monkeypatch):
    monkeypatch.setattr(sum_files, "FOLD_BYTES", 2000)
    monkeypatch.setattr(sum_files, "FOLD_TIMES", 0)
    p, files = Told("a", size=7), sum_files.SumFiles(tmp_path)
    left = p.delta(-1, {1: [np.full(SHAPE, 1000.0)]})
    for m in left[:-1]:
        add(files, ("dead", 1), m)
    for k in range(1, 20):
        for m in p.delta(-1, {1: [np.full(SHAPE, float(k))]}):
            add(files, ("a", 1), m)
    assert max(f.stat().st_size for f in files_in(tmp_path)) < 12_000
    key = next(k for k in Folder(tmp_path).files if k.what == "calib")
    good = np.arange(PIXELS).reshape(SHAPE) % 3 != 0
    assert Folder(tmp_path).unfinished == 1
    np.testing.assert_array_equal(Folder(tmp_path).fold(key), 19 * 20 / 2 * good)
    assert Folder(tmp_path).fates(key) == (19, 0, 0, 0)
    add(sum_files.SumFiles(tmp_path), ("dead", 1), left[-1])
    np.testing.assert_array_equal(Folder(tmp_path).fold(key), (19 * 20 / 2 + 1000) * good)


COMMON = ("s", "calib", "", -1, "0" * 16, "keV", (2, 3), 0, 0, 1)
PIECE = SumPiece(*COMMON, "hit", Fates(1), 0, np.zeros(6))


@pytest.mark.parametrize(
    "wrong",
    [
        {"sum": "a/b"},
        {"sum": ""},
        {"what": "calib_img"},
        {"light": "laser_dim"},
        {"form": "x"},
        {"step": -2},
        {"shape": [2, 3, 4, 5]},
        {"shape": [0]},
        {"shape": [1 << 13, 1 << 13]},
        {"shape": [2.0, 3]},
        {"piece": 1},
        {"pieces": 0},
        {"fates": [-1, 0, 0, 0]},
        {"fates": [True, 0, 0, 0]},
        {"fates": [1, 0, 0]},
        {"fates": 1},
        {"where": 5},
        {"first": 1},
        {"values": np.zeros(7)},
        {"values": np.zeros((2, 3))},
        {"values": np.zeros(6, np.float32)},
        {"values": np.zeros(6, np.int64)},
        {"more": 1},
        {"unit": "x" * 300},
    ],
    ids=str,
)
def test_a_piece_that_cannot_be_right_is_refused(wrong):
    meta = {**PIECE.meta, **{k: v for k, v in wrong.items() if k != "values"}}
    with pytest.raises(WireError):
        parcel_of({"pieces": [meta]}, {"0": wrong.get("values", PIECE.values)})


def test_a_piece_comes_off_the_wire_as_it_went(tmp_path):
    p = Producer("a")
    other = PIECE._replace(what="calib_max", values=np.arange(6, dtype=np.float32))
    back = wired(p.say("sum", None, Parcel((PIECE._replace(values=np.arange(6.0)), other))))
    assert [b.meta for b in back.body.pieces] == [PIECE.meta, other.meta]
    for b in back.body.pieces:
        np.testing.assert_array_equal(b.values, np.arange(6.0))
    assert what_of("calib_thresADU5_nhits").least == 5
