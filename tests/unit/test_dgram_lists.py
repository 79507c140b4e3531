"""Arrays whose length changes, and texts, become inputs with room; what has no room is counted."""

import numpy as np
import pytest

from ffb import reader
from ffb.config import ConfigError, parse
from ffb.plan import Plan
from ffb.shot import BeginStep, Field, FrameBlock, Idle, Input
from ffb.sources.dgram_run import DgramRun
from ffb.sources.psana import Meaning
from ffb.wire import Decoder, Header, encode
from ffb.writers.small_data import SmallData
from tests.unit.dgrams import data, dgram, names
from tests.unit.small_data_truth import INFO, PROVENANCE, books
from tests.unit.test_dgram_run import Asked, stream

FEE = {
    "at": ("i4", 1), "height": ("f4", 1), "energy": ("f8", 1), "word": ("str", 1), "n": ("u1", 0),
    "image": ("u2", 2),
}  # fmt: skip
PVS = {"label": ("str", 1), "spectrum": ("f4", 1)}
CONFIG = dgram(
    2, 1, names(1, "fee", "raw", FEE), names(2, "epics", "raw", PVS), names(3, "two", "raw", FEE),
    names(4, "two", "raw", FEE, segment=1),
)  # fmt: skip
BEGIN = dgram(4, 2)
LENGTHS = (0, 3, 5, 1, 8)
WORDS = ("", "abc", "0123456789", "äöü€", "abcdefg€", "x\0y")
FIELDS = {n: Field("fee", "raw", n) for n in ("at", "height", "energy", "word")} | {
    "label": Field("epics", "raw", "label"),
    "spectrum": Field("epics", "raw", "spectrum"),
}
ROOMS = {"at": 4, "height": 5, "energy": 2, "word": 8, "label": 6, "spectrum": 3}


def values(i):
    n = LENGTHS[i % len(LENGTHS)]
    return {
        "at": np.arange(n) - i, "height": np.arange(n) + i / 2, "energy": np.arange(n) * i,
        "word": WORDS[i % len(WORDS)], "n": i, "image": [[i]],
    }  # fmt: skip


def shot(i):
    return dgram(12, 10 + i, *(data(1, FEE, values(i)) for _ in range(i != 7)))


def slow(i):
    pvs = {"label": WORDS[i % len(WORDS)], "spectrum": np.arange(i)}
    return dgram(10, 10 + i, data(2, PVS, pvs))


def run_of(meanings=None, n=12):
    moments = [m for i in range(n) for m in ((slow(i), shot(i)) if i % 4 == 2 else (shot(i),))]
    return DgramRun([CONFIG], [BEGIN], stream(moments), meanings)


def room_for(value, room, dtype):
    """A list or text as far as there is room, by plain Python."""
    if isinstance(value, str):
        raw = value.split("\0")[0].encode()
        return np.bytes_(raw[:room].decode(errors="ignore").encode()), len(raw)
    out = np.full(room, np.nan if dtype == "f" else 0)
    out[: len(value)] = value[:room]
    return out, len(value)


def check(rows, inputs):
    assert len(rows) == 12
    last = None
    for i, (row, present) in enumerate(rows):
        last = i if i % 4 == 2 else last
        truth = values(i) if i != 7 else {}
        if last is not None:
            truth |= {"label": WORDS[last % len(WORDS)], "spectrum": np.arange(last)}
        for name in FIELDS:
            there = name in truth
            assert (present[name], present[f"{name}_len"]) == (there, there), (i, name)
            if there:
                want, n = room_for(truth[name], ROOMS[name], np.dtype(inputs[name].dtype).kind)
                np.testing.assert_array_equal(row[name], want, err_msg=f"{i} {name}")
                assert row[f"{name}_len"] == n


def rows_of(run, inputs):
    block, out = FrameBlock(inputs, 1), []
    block.buffer[:] = 0xAA  # what an earlier batch left there
    for item in run:
        if not isinstance(item, BeginStep | Idle):
            item.fill(block, 0)
            row = {n: f[0].copy() for n, f in block.frames.items()}
            out.append((row, dict(zip(block.names, block.present[0].copy(), strict=True))))
    return out


class Spoilt(Asked):
    """psana decodes the run, because it differs from the first shot on."""

    wrong = 0

    @staticmethod
    def spoil(values):
        values[FIELDS["at"]] = values[FIELDS["at"]] + 1 if FIELDS["at"] in values else None


@pytest.mark.parametrize("meanings", [None, pytest.param(Meaning, marks=pytest.mark.psana)])
def test_lists_and_texts_have_what_there_is_room_for_and_are_counted_in_full(meanings):
    run = run_of(meanings)
    inputs, problems = run.bind(FIELDS, {}, ROOMS)
    assert problems == []
    assert inputs["at"] == Input("value", "<i4", (4,), length="at_len")
    assert (inputs["word"].dtype, inputs["word"].shape) == ("|S8", ())
    assert (inputs["word_len"].dtype, inputs["word_len"].shape) == ("<i8", ())
    check(rows_of(run, inputs), inputs)
    assert not any("psana" in n for n in run.notes), run.notes


def test_lists_decoded_by_psana_are_the_same():
    run = run_of(Spoilt)
    inputs, _ = run.bind(FIELDS, {}, ROOMS)
    rows = rows_of(run, inputs)
    assert any("psana decodes every shot" in n for n in run.notes)
    for row, present in rows:
        if present["at"]:
            row["at"][: min(row["at_len"], 4)] -= 1
    check(rows, inputs)


def test_what_is_no_list_is_refused_with_a_sentence():
    wrong = {
        "scalar": Field("fee", "raw", "n"),
        "image": Field("fee", "raw", "image"),
        "several": Field("two", "raw", "at"),
        "text": Field("fee", "raw", "word"),
    }
    inputs, problems = run_of().bind(wrong, {}, dict.fromkeys(("scalar", "image", "several"), 3))
    assert inputs == {}
    assert problems[0] == "input scalar: fee.raw.n is uint8: only an array of rank 1 has room"
    assert "uint16, rank 2: only an array of rank 1" in problems[1]
    assert "int32, rank 1 in 2 segments: only" in problems[2]
    assert "is a string; with record = true and room = N" in problems[3]
    _, [problem] = run_of().bind({"at": FIELDS["at"]}, {})
    assert "its length changes from shot to shot; with room = N it is a list" in problem


def configured(**tables):
    inputs = {
        n: {"detector": f.detector, "field": f"raw.{f.name}", "room": ROOMS[n], "record": True}
        for n, f in FIELDS.items()
    }
    return parse({"source": {"kind": "synthetic"}, "inputs": inputs, **tables})


def test_lists_and_counts_are_arguments_and_mistakes_are_told():
    def reduced(use, inputs, **params):
        return {"line": {"use": use, "inputs": inputs, "params": params}}

    hits = reduced("waveform_hits", "height", dt=1.0, threshold=3.0)
    assert Plan.make(configured(reducers=hits), run_of()).warnings == []
    whole = reduced("waveform_integral", "at", dt=1.0, gate=[0, 4])
    (warning,) = Plan.make(configured(reducers=whole), run_of()).warnings
    assert warning.startswith("reducers.line.inputs.waveform: at is a list of whole numbers")
    assert "0, which waveform_integral takes for samples (at_len counts" in warning
    with pytest.raises(ConfigError) as e:
        Plan.make(configured(reducers={"line": hits["line"] | {"inputs": "word"}}), run_of())
    assert "reducers.line.inputs.waveform: word is a text; waveform_hits takes a waveform" in str(e)
    with pytest.raises(ConfigError) as e:
        configured(reducers=reduced("waveform_hits", "heigth_len", dt=1.0, threshold=3.0))
    assert "no input 'heigth_len'; did you mean 'height_len'?" in str(e)
    with pytest.raises(ConfigError) as e:
        Plan.make(configured(derived={"twice": {"expr": "word * 2", "unit": "1"}}), run_of())
    assert "word is a text; only numbers can be combined" in str(e)
    at = {"detector": "fee", "field": "at", "room": 4}
    with pytest.raises(ConfigError) as e:
        parse({"source": {"kind": "synthetic"}, "inputs": {"a": at, "a_len": at | {"shape": [3]}}})
    assert "inputs.a_len: counts the entries of another input; rename one of them" in str(e)
    assert "inputs.a_len: shape is for frames of one shape, room for lists" in str(e)


def test_recorded_lists_are_columns_with_a_column_that_counts(tmp_path):
    run = run_of()
    config = configured(batch={"shots": 16})
    plan = Plan.make(config, run)
    for item in run:
        if not isinstance(item, BeginStep | Idle):
            plan.take(item, 0)
    batch = plan.close()
    columns = plan.schema.by_name
    assert columns["at"].length == "at_len"
    assert columns["at"].dims == ("entry",)
    assert columns["at_len"].doc == "entries of at; what is beyond 4 was cut off"
    assert columns["word_len"].doc == "bytes of word; what is beyond 8 was cut off"
    assert columns["word"].length == ""
    valid = {n.removesuffix("_valid") for n in columns if n.endswith("_valid")}
    assert plan.provenance().inputs["at_len"] == "fee.raw.at"
    mine = {n for n in valid if not n.startswith(("pulse", "lightStatus"))}
    assert mine == {"at", "word", "label", *(f"{n}_len" for n in FIELDS)}
    for i in range(12):
        got = batch.columns["height"][i]
        n = 0 if i == 7 else len(values(i)["height"])
        assert batch.columns["height_len"][i] == n
        np.testing.assert_array_equal(got[:n], values(i)["height"][:5] if n else [])
        assert np.isnan(got[n:]).all()
        assert batch.columns["at_valid"][i] == batch.columns["height_len_valid"][i] == (i != 7)
    sent = encode(Header("shots", "tstx00001", 1, 0), plan.schema, batch)
    [came] = [Decoder()([bytes(f) for f in sent]).body]
    sink = SmallData(tmp_path)
    sink.begin_run(INFO, plan.schema, PROVENANCE)
    sink.append(came)
    sink.end_run(books(1, 12))
    with reader.open(sink.path) as run:
        assert run["word"].dtype.kind == "S"
        for name in columns:
            assert run[name][:].tobytes() == batch.columns[name].tobytes(), name
    assert batch.columns["word"].tolist()[3:5] == ["äöü".encode(), b"abcdefg"]
    assert (batch.columns["word"][7], batch.columns["word_len"][7]) == (b"", 0)
