"""Slow values: which update a shot shows, how old it is, and what damage the DAQ told."""

import numpy as np
import pytest

from ffb.shot import Field, FrameBlock, timestamp_of
from ffb.sources.psana import Meaning
from tests.unit.dgrams import data, dgram
from tests.unit.test_dgram_run import CAM, DET, FIELDS, PVS, SHAPES, TIME, run_of

SECOND = 1_000_000_000
AGE = Field("epics", "age", "MFX:TEMP:01")


def at(seconds):
    return timestamp_of(1_700_000_000 * SECOND + round(seconds * SECOND))


def slow(seconds, temp, spectrum=(1, 2)):
    values = {"temp": temp, "spectrum": list(spectrum), "label": "cold"}
    return dgram(10, at(seconds), data(6, PVS, values))


def shot(seconds, timing=0, det=0, cam=None, pulse=7):
    blocks = [
        data(2, TIME, {"pulseId": pulse, "sequenceValues": np.arange(18)}, timing),
        data(3, DET, {"x": seconds, "wave": [1, 2, 3]}, det),
    ]
    if cam is not None:
        blocks.append(data(4, CAM, {"image": np.zeros((2, 4))}, cam))
    return dgram(12, at(seconds), *blocks)


def rows_of(run, inputs):
    block = FrameBlock(inputs, 1)
    for item in run:
        item.fill(block, 0)
        yield block


def test_a_shot_shows_the_last_value_before_it_with_its_age():
    """Also one that comes after a newer update, as psana has it."""
    run = run_of(
        shot(1), slow(1.5, 20.0), shot(1.75), slow(2.5, 21.0), shot(2.25), shot(2.500000001),
        shot(90000), *(slow(90001 + k, k) for k in range(20)), shot(2.75),
    )  # fmt: skip
    fields = {"age": AGE, "temp": FIELDS["temp"], "other": Field("epics", "age", "spectrum")}
    inputs, problems = run.bind(fields, {})
    assert problems == []
    assert (inputs["age"].dtype, inputs["age"].shape) == ("<f8", ())
    seen = []
    for block in rows_of(run, inputs):
        assert block.present[0].all() == block.present[0].any()
        there = bool(block.present[0, 0])
        seen.append((block.frames["temp"][0], block.frames["age"][0]) if there else None)
        assert not there or block.frames["other"][0] == block.frames["age"][0]
    assert seen == [
        None, (20.0, 0.25), (20.0, 0.75), (21.0, 1e-9), (21.0, 89997.5), None
    ]  # fmt: skip


def test_a_value_of_another_shape_is_absent_until_it_fits_again():
    run = run_of(slow(1, 1.0), shot(2), slow(3, 2.0, (1, 2, 3)), shot(4), slow(5, 3.0), shot(6))
    inputs, _ = run.bind({"s": Field("epics", "raw", "spectrum")}, {"s": (2,)})
    assert [bool(b.present[0, 0]) for b in rows_of(run, inputs)] == [True, False, True]


def test_an_age_of_nothing_is_refused():
    _, problems = run_of().bind({"age": Field("epics", "age", "MFX:TEMP:02")}, {})
    assert problems == [
        "input age: epics has no field raw.MFX:TEMP:02; nearest is 'raw.MFX:TEMP:01'"
    ]


@pytest.mark.parametrize("differ", [False, True], ids=["in place", "decoded by psana"])
def test_damage_is_told_of_every_input_and_shot(monkeypatch, differ):
    if differ:
        monkeypatch.setattr("ffb.sources.agree.TwoSpeeds._difference", lambda self: "x")
    run = run_of(
        shot(1), shot(2, det=1 << 5), shot(3, timing=1, cam=1 << 6), shot(4, det=1 << 12, cam=0),
        shot(5), meanings=Meaning,
    )  # fmt: skip
    inputs, problems = run.bind(FIELDS, SHAPES)
    assert problems == []
    seen = [dict(zip(b.names, b.damage[0].tolist(), strict=True)) for b in rows_of(run, inputs)]
    told = [{k: v for k, v in row.items() if v} for row in seen]
    assert told == [{}, {"x": 32, "wave": 32}, {"cam": 64}, {"x": 4096, "wave": 4096}, {}]
    assert any("psana decodes" in n for n in run.notes) == differ


def test_the_top_bit_of_a_pulse_id_is_not_part_of_it():
    run = run_of(*(shot(k, pulse=1 << 63 | k) for k in (1, 2)), meanings=Meaning)
    inputs, _ = run.bind({"x": FIELDS["x"]}, {})
    assert [int(b.pulse_id[0]) for b in rows_of(run, inputs)] == [1, 2]
    assert run.notes == []
