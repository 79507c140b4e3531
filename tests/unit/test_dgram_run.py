"""A run over datagrams: what it learns, whom it believes, and which step a shot belongs to."""

import numpy as np
import pytest

from ffb.shot import BeginStep, Field, FrameBlock, Idle
from ffb.sources import agree, learn
from ffb.sources.agree import CHECKED
from ffb.sources.dgram_run import DgramRun
from ffb.sources.dgram_shot import Moment
from ffb.sources.psana import Meaning
from ffb.sources.xtc2 import CORRUPTED, Configure, service, timestamp
from tests.unit.dgrams import data, dgram, names

INFO = {"expt": ("str", 1), "runnum": ("u4", 0)}
TIME = {"pulseId": ("u8", 0), "sequenceValues": ("u2", 1)}
DET = {"x": ("f8", 0), "wave": ("u2", 1)}
CAM = {"image": ("u2", 2)}
SCAN = {"lens": ("f8", 0), "step_value": ("f8", 0), "step_docstring": ("str", 1)}
PVS = {"temp": ("f8", 0), "spectrum": ("f4", 1), "label": ("str", 1)}
ALIAS = {"keys": ("str", 1), "temp": ("str", 1)}

CONFIG = dgram(
    2, 1, names(1, "runinfo", "runinfo", INFO), names(2, "timing", "raw", TIME, dettype="ts"),
    names(3, "det", "raw", DET), names(4, "cam", "raw", CAM, dettype="opal"),
    names(5, "scan", "raw", SCAN), names(6, "epics", "raw", PVS),
    names(7, "epicsinfo", "epicsinfo", ALIAS),
    data(7, ALIAS, {"keys": "epicsname", "temp": "MFX:TEMP:01"}),
)  # fmt: skip
BEGIN = dgram(4, 2, data(1, INFO, {"expt": "tstx00001", "runnum": 9}))
FIELDS = {
    "x": Field("det", "raw", "x"),
    "wave": Field("det", "raw", "wave"),
    "cam": Field("cam", "raw", "image"),
    "temp": Field("epics", "raw", "MFX:TEMP:01"),
}
SHAPES = {"wave": (3,), "cam": (2, 4)}


def shot(t, wave=(1, 2, 3), image=True, damage=0):
    blocks = [
        data(2, TIME, {"pulseId": 1000 + t, "sequenceValues": np.arange(18)}),
        data(3, DET, {"x": t / 8, "wave": list(wave)}),
    ]
    if image:
        blocks.append(data(4, CAM, {"image": t + np.arange(8).reshape(2, 4)}))
    return dgram(12, t, *blocks, damage=damage)


def step(t, lens, docstring="", step_value=0.0):
    values = {"lens": lens, "step_value": step_value, "step_docstring": docstring}
    return dgram(6, t, data(5, SCAN, values))


def slow(t, temp, spectrum=(1, 2)):
    values = {"temp": temp, "spectrum": list(spectrum), "label": "cold"}
    return dgram(10, t, data(6, PVS, values))


def stream(dgrams, why="end of run", log=None):
    for d in dgrams:
        if log is not None:
            log.append(d)
        if d is None:
            yield None
            continue
        memory = np.frombuffer(d, np.uint8).copy()
        memory.flags.writeable = False
        yield Moment(service(d), timestamp(d), (memory,))
        memory.flags.writeable = True
        memory[:] = 0xEE  # given back: it now holds something else
    return why


def run_of(*dgrams, meanings=None, **more):
    return DgramRun([CONFIG], [BEGIN], stream(dgrams, **more), meanings)


def read(run, inputs):
    """Rows as {input: value}, with the step each shot came in."""
    block, now, rows = FrameBlock(inputs, 1), None, []
    for item in run:
        if isinstance(item, BeginStep):
            now = item
        elif not isinstance(item, Idle):
            item.fill(block, 0)
            row = {"t": item.timestamp, "step": now, "pulse": int(block.pulse_id[0])}
            for i, name in enumerate(block.names):
                there = bool(block.present[0, i])
                if block.inputs[name].kind == "area":
                    parts = item.segments(name)
                    assert (parts is not None) == there
                    row[name] = None if parts is None else np.stack(parts).tolist()
                else:
                    row[name] = block.frames[name][0].tolist() if there else None
            rows.append(row)
    return rows


def test_what_a_run_is():
    run = run_of()
    assert (run.info.exp, run.info.run, run.info.began) == ("tstx00001", 9, 2)
    assert run.motors == ("lens", "step_value")
    assert run.fields[Field("det", "raw", "wave")] == "uint16, rank 1"
    assert {f.detector for f in run.fields} == {"timing", "det", "cam", "epics"}
    assert run.ended == ""
    assert list(run) == []
    assert run.ended == "end of run"


def test_values_areas_and_the_newest_slow_values():
    run = run_of(
        shot(10), slow(11, 20.5), shot(12), shot(13, image=False), slow(14, 21.0), shot(15)
    )
    inputs, problems = run.bind(FIELDS, SHAPES)
    assert problems == []
    rows = read(run, inputs)
    assert [r["temp"] for r in rows] == [None, 20.5, 20.5, 21.0]
    assert [r["x"] for r in rows] == [1.25, 1.5, 1.625, 1.875]
    assert [r["pulse"] for r in rows] == [1010, 1012, 1013, 1015]
    assert rows[2]["cam"] is None
    assert rows[3]["cam"] == [list(range(15, 23))]


def test_shapes_are_learnt_from_shots_which_are_delivered_all_the_same():
    taken = []
    run = run_of(
        None, slow(9, 1.0), shot(10, image=False), None, *(shot(t) for t in range(11, 18)),
        shot(18, wave=(1,)), shot(19), log=taken,
    )  # fmt: skip
    inputs, problems = run.bind(FIELDS | {"pvs": Field("epics", "raw", "spectrum")}, {})
    assert problems == []
    assert inputs["wave"].shape == (3,)
    assert (inputs["cam"].shape, inputs["cam"].kind) == ((1, 2, 4), "area")
    assert inputs["pvs"].shape == (2,)
    assert len(taken) == 11, "no further than needed"
    rows = read(run, inputs)
    assert [r["t"] for r in rows] == list(range(10, 20))
    assert [r["wave"] for r in rows] == [[1, 2, 3]] * 8 + [None, [1, 2, 3]]
    assert [r["temp"] for r in rows] == [1.0] * 10
    assert rows[0]["cam"] is None
    assert "input wave: in 1 shots not of shape [3], counted as absent" in run.notes


def test_a_field_that_was_never_seen_asks_for_its_shape(monkeypatch):
    monkeypatch.setattr(learn, "SHOTS_AHEAD", 3)
    run = run_of(*(shot(t, image=False) for t in range(10, 20)))
    inputs, problems = run.bind(FIELDS, {"wave": (3,)})
    assert problems == [
        "input cam: cam.raw.image was in none of the first 3 shots, so its shape is unknown;"
        " declare shape = [..., ...]"
    ]
    assert [r["t"] for r in read(run, inputs)] == list(range(10, 20))


def test_a_run_that_ends_while_it_is_looked_at():
    run = run_of(shot(10, image=False), why="lost")
    inputs, problems = run.bind(FIELDS, {})
    assert len(problems) == 1
    assert [r["t"] for r in read(run, inputs)] == [10]
    assert run.ended == "lost"


def test_what_cannot_be_an_input_is_said():
    wrong = {
        "a": Field("det", "raw", "y"),
        "b": Field("epics", "raw", "label"),
        "c": Field("scan", "raw", "lens"),
        "d": Field("epics", "raw", "MFX:TEMP:02"),
        "e": Field("runinfo", "runinfo", "runnum"),
    }
    inputs, problems = run_of().bind(wrong, {})
    assert inputs == {}
    assert problems[0].startswith("input a: det has no field raw.y; nearest is")
    assert problems[1].startswith("input b: epics.raw.label is a string; with record = true and")
    assert "belongs to a step" in problems[2]
    assert "nearest is 'raw.MFX:TEMP:01'" in problems[3]
    assert "no detector 'runinfo'" in problems[4]


def test_steps_carry_their_motors_and_the_number_the_daq_gives():
    run = run_of(
        step(5, 1.5),
        shot(6),
        step(7, 2.5, '{"step": 4}'),
        shot(8),
        step(9, 3.5, "not json"),
        shot(10),
    )
    inputs, _ = run.bind({}, {})
    rows = read(run, inputs)
    assert [(r["step"].step, r["step"].values["lens"]) for r in rows] == [
        (0, 1.5), (4, 2.5), (5, 3.5),
    ]  # fmt: skip
    assert rows[0]["step"].timestamp == 5
    assert rows[1]["step"].docstring == '{"step": 4}'


def test_a_late_shot_comes_with_its_own_step():
    run = run_of(step(5, 1.5), shot(6), step(10, 2.5), shot(11), shot(9), shot(12), shot(4))
    rows = read(run, run.bind({}, {})[0])
    assert [(r["t"], r["step"].step) for r in rows[:-1]] == [(6, 0), (11, 1), (9, 0), (12, 1)]
    assert "2 shots came after the step that followed theirs had begun" in run.notes


def test_a_corrupted_shot_is_a_row_without_frames_and_counted():
    run = run_of(shot(10), shot(11, damage=CORRUPTED), shot(12, damage=1), meanings=Asked)
    rows = read(run, run.bind(FIELDS, SHAPES)[0])
    assert [r["x"] for r in rows] == [1.25, None, 1.5]
    assert run.notes == ["1 times the DAQ marked data of a shot as corrupted: none of it was read"]


def test_a_shot_that_comes_twice_counts_once():
    run = run_of(shot(10), None, shot(10), shot(11), shot(11), shot(12))
    assert [r["t"] for r in read(run, run.bind({}, {})[0])] == [10, 11, 12]
    assert run.notes == ["2 shots came twice in a row, they count once"]


def test_a_torn_shot_is_a_row_without_frames():
    torn = bytearray(shot(11))
    torn[32:36] = b"\xff\xff\xff\x7f"  # extent of the first block
    run = run_of(shot(10), bytes(torn), shot(12))
    inputs, _ = run.bind(FIELDS, SHAPES)
    rows = read(run, inputs)
    assert [r["t"] for r in rows] == [10, 11, 12]
    assert [r["x"] for r in rows] == [1.25, None, 1.5]
    assert rows[1]["cam"] is None
    assert "1 shots were malformed, all their inputs count as absent" in run.notes


class Asked:
    """Stands for psana: decodes with the plain parser, wrongly from shot ``wrong`` on."""

    def __init__(self, configures, exp, run):
        self.configure, self.who, self.decoded = Configure(configures[0]), (exp, run), []
        Asked.last = self

    wrong, spoil = 1 << 62, staticmethod(lambda values: None)

    def decode(self, *dgrams, only=None):
        (d,) = dgrams
        self.decoded.append(timestamp(d))
        values = {
            Field(det, alg, name): value
            for (det, alg, _), block in self.configure.decode(d).items()
            for name, value in block.items()
        }
        if timestamp(d) >= self.wrong:
            self.spoil(values)
        return values

    def constants(self, detector, geometry="", store=True):
        raise LookupError(f"{detector} {geometry}: none")


def test_the_first_shots_are_read_both_ways():
    run = run_of(*(shot(t) for t in range(10, 30)), meanings=Asked)
    inputs, _ = run.bind(FIELDS, SHAPES)
    assert [r["x"] for r in read(run, inputs)] == [t / 8 for t in range(10, 30)]
    assert Asked.last.decoded == list(range(10, 10 + CHECKED))
    assert Asked.last.who == ("tstx00001", 9)
    assert run.notes == []


@pytest.mark.parametrize(("part", "compared"), [(1e-12, 1), (1e12, CHECKED)])
def test_where_shots_cannot_wait_comparing_takes_a_part_of_the_time(monkeypatch, part, compared):
    monkeypatch.setattr(agree, "PART", part)
    moments = stream([shot(t) for t in range(10, 30)])
    run = DgramRun([CONFIG], [BEGIN], moments, Asked, hurried=True)
    inputs, _ = run.bind(FIELDS, SHAPES)
    assert (Asked.last.who, Asked.last.decoded) == (("tstx00001", 9), []), "asked before shots wait"
    assert len(read(run, inputs)) == 20
    assert Asked.last.decoded == list(range(10, 10 + compared))


def test_what_goes_wrong_is_counted_by_detector():
    bad = dgram(
        12, 12, data(3, DET, {"x": 1.0, "wave": [1]}, damage=2), data(4, CAM, {"image": [[1]]})
    )
    run = run_of(shot(10), shot(11, image=False), bad, shot(13, damage=CORRUPTED))
    read(run, run.bind(FIELDS, SHAPES)[0])
    assert run.counts == {
        "det": {"misfit": 1, "missing": 1, "damaged": 1},
        "cam": {"misfit": 1, "missing": 2, "damaged": 0},
        "epics": {"misfit": 0, "missing": 0, "damaged": 0},
    }
    assert "det: 1 times marked as damaged by the DAQ, used nevertheless" in run.notes


def test_a_begin_run_that_cannot_be_read_is_no_end():
    broken = bytearray(BEGIN)
    broken[32:36] = b"\xff\xff\xff\x7f"
    run = DgramRun([CONFIG], [bytes(broken)], stream([shot(10)]))
    assert (run.info.exp, run.info.run, run.info.began) == ("", 0, 2)
    assert any("BeginRun was malformed" in n for n in run.notes)
    assert len(read(run, run.bind({}, {})[0])) == 1


SPOILS = {
    "x": lambda v: v.update({FIELDS["x"]: 99.0}),
    "wave": lambda v: v.pop(FIELDS["wave"]),
    "cam": lambda v: v.update({FIELDS["cam"]: v[FIELDS["cam"]] + 1}),
    "clock": lambda v: v.update({Field("timing", "raw", "pulseId"): 5}),
}


@pytest.mark.parametrize("what", SPOILS)
def test_where_the_two_differ_psana_decodes_the_run(what):
    class Differs(Asked):
        wrong, spoil = 12, staticmethod(SPOILS[what])

    run = run_of(slow(8, 3.5), *(shot(t) for t in range(10, 30)), meanings=Differs)
    inputs, _ = run.bind(FIELDS, SHAPES)
    rows = read(run, inputs)
    assert [r["t"] for r in rows] == list(range(10, 30))
    assert set(range(12, 30)) <= set(Asked.last.decoded)
    assert len(run.notes) == 1
    assert "in shot 12: psana decodes every shot of this run" in run.notes[0]
    assert ("timing system" if what == "clock" else f"input {what} (") in run.notes[0]
    assert {r["temp"] for r in rows} == {3.5}
    late, seen = rows[-1], {"x": 99.0, "wave": None, "cam": [list(range(30, 38))], "clock": 5}
    assert late["pulse" if what == "clock" else what] == seen[what]
    if what != "cam":
        assert late["cam"] == [list(range(29, 37))]


def test_a_torn_shot_is_not_shown_to_psana():
    torn = bytearray(shot(10))
    torn[32:36] = b"\xff\xff\xff\x7f"
    run = run_of(bytes(torn), shot(11), meanings=Asked)
    rows = read(run, run.bind(FIELDS, SHAPES)[0])
    assert [r["x"] for r in rows] == [None, 1.375]
    assert Asked.last.decoded == [11]
    assert "1 shots were malformed, all their inputs count as absent" in run.notes


def test_what_is_malformed_where_nobody_looks_is_no_reason_to_leave_the_fast_way():
    odd = bytearray(shot(10))
    odd[-48:-44] = (9999).to_bytes(4, "little")  # rows of the camera's image
    run = run_of(bytes(odd), shot(11), meanings=Asked)
    rows = read(run, run.bind({"x": FIELDS["x"]}, {})[0])
    assert [r["x"] for r in rows] == [1.25, 1.375]
    assert (Asked.last.decoded, run.notes) == ([11], [])


def test_the_comparison_counts_nothing():
    run = run_of(shot(10, wave=(1,)), shot(11), meanings=Asked)
    read(run, run.bind(FIELDS, SHAPES)[0])
    assert run.notes == ["input wave: in 1 shots not of shape [3], counted as absent"]


def test_without_psana_shots_are_read_and_there_are_no_constants():
    def missing(*args):
        raise ImportError("no psana here")

    run = run_of(shot(10), shot(11), meanings=missing)
    rows = read(run, run.bind(FIELDS, SHAPES)[0])
    assert [r["x"] for r in rows] == [1.25, 1.375]
    assert run.notes == ["psana cannot be asked: no psana here"]
    with pytest.raises(LookupError, match="cam: no constants, psana cannot be asked: no psana"):
        run.constants("cam")
    with pytest.raises(LookupError, match="without psana"):
        run_of().constants("cam")
    with pytest.raises(LookupError, match="cam geo: none"):
        run_of(meanings=Asked).constants("cam", "geo")


@pytest.mark.psana
def test_psana_agrees_with_datagrams_made_by_hand():
    run = run_of(slow(8, 3.5), *(shot(t, image=t % 2) for t in range(10, 30)), meanings=Meaning)
    rows = read(run, run.bind(FIELDS, SHAPES)[0])
    assert run.notes == []
    assert [r["cam"] is None for r in rows] == [True, False] * 10


@pytest.mark.psana
def test_an_enumeration_is_its_number():
    valve = {"state:s": ("enum", 0), "shut:s": ("dict", 0), "open:s": ("dict", 0), "x": ("f4", 0)}
    config = dgram(2, 1, names(1, "valve", "raw", valve))
    shots = [
        dgram(12, t, data(1, valve, {"state:s": t % 2, "shut:s": 0, "open:s": 1, "x": 0.5}))
        for t in range(10, 14)
    ]
    run = DgramRun([config], [dgram(4, 2)], stream(shots), Meaning)
    fields = {n: Field("valve", "raw", n) for n in ("state", "x")}
    inputs, problems = run.bind(fields | {"d": Field("valve", "raw", "open:s")}, {})
    assert len(problems) == 1
    assert (inputs["state"].dtype, inputs["state"].shape) == ("<i4", ())
    rows = read(run, inputs)
    assert [(r["state"], r["x"]) for r in rows] == [(0, 0.5), (1, 0.5), (0, 0.5), (1, 0.5)]
    assert not [n for n in run.notes if "psana" in n]
    assert "no timing system: pulse ids are 0, event codes are unknown" in run.notes
