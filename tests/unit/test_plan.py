"""A plan reduces shots: every column of its schema, and the right numbers in its rows."""

import numpy as np

from ffb import Value, Waveform, reducer
from ffb.shot import BeginStep, Input
from ffb.source import Constants
from tests.unit.plans import INPUTS, PULSE, SHAPE, SPOT, STRICT, One, feed, plan, shot


@reducer(version=1)
def both(wf: Waveform, x: Value) -> One:
    """Two inputs, no parameters."""
    return One(float(wf[0]) + float(x))


def test_a_batch_holds_every_column_of_the_schema_and_the_right_numbers():
    p = plan({"spot": SPOT, "pulse": PULSE, "diode2": STRICT}, record=("diode", "mode", "line"))
    shots = [shot(k) for k in range(1, 4)]
    columns = feed(p, shots)
    assert list(columns) == [c.name for c in p.schema.columns]
    assert columns["timestamp"].tolist() == [101, 102, 103]
    assert columns["pulse_id"].tolist() == [1000, 1001, 1002]
    box = [s.frames["jf"][1, 2:7, 3:18].astype(float) for s in shots]
    np.testing.assert_allclose(columns["spot/sum"], [b.sum() for b in box])
    gates = [s.frames["wf"][20:45].astype(float).sum() * 0.5 for s in shots]
    np.testing.assert_allclose(columns["pulse/area"], gates)
    assert columns["diode2/value"].tolist() == columns["diode"].tolist() == [1.5, 3.0, 4.5]
    assert columns["line"].tolist() == [[1] * 3, [2] * 3, [3] * 3]
    for name in ("spot", "pulse", "diode2"):
        assert columns[f"{name}/present"].all()
    units = {n: p.schema.by_name[n].unit for n in ("spot/sum", "pulse/area", "diode2/value")}
    assert units == {"spot/sum": "ADU", "pulse/area": "V ns", "diode2/value": "mJ"}


def test_take_says_when_the_batch_is_full_and_batches_are_independent():
    p = plan({"spot": SPOT, "pulse": PULSE}, shots=2)
    shots = [shot(k) for k in range(4)]
    assert [p.take(s, k) for k, s in enumerate(shots[:2])] == [False, True]
    first = p.close()
    kept = {n: c.copy() for n, c in first.columns.items()}
    assert p.close() is None
    p.take(shots[2], 7)
    second = p.close()
    assert (first.n, second.n) == (2, 1)
    assert (first.read.tolist(), second.read.tolist()) == ([0, 1], [7])
    for name, column in first.columns.items():
        np.testing.assert_array_equal(column, kept[name])
    alone = feed(plan({"spot": SPOT, "pulse": PULSE}), [shots[2]])
    for name in ("spot/sum", "pulse/area"):
        assert second.columns[name][0] == alone[name][0]


def test_compressed_are_arrays_worth_it_in_chunks_of_a_batch():
    long = INPUTS | {"wf": Input("value", "<i2", (128,), "V")}
    for codec in ("bitshuffle-lz4", "bitshuffle-zstd"):
        p = plan({"spot": SPOT}, shots=8, record=("wf", "line", "diode"), inputs=long, codec=codec)
        packed = [(c.name, c.codec, c.chunk) for c in p.schema.columns if c.codec or c.chunk]
        assert packed == [("wf", codec, 8)]
    columns = feed(p, [shot(k, wf=np.full(128, k, "<i2")) for k in range(8)])
    assert columns["wf"][:, 5].tolist() == list(range(8))
    assert not any(c.codec for c in plan({}, record=("wf",), inputs=long).schema.columns)


def test_what_would_be_too_large_a_chunk_is_not_compressed_and_said(monkeypatch):
    monkeypatch.setattr("ffb.plan.COMPRESSED_CHUNK", 2047)
    long = INPUTS | {"wf": Input("value", "<i2", (128,), "V")}
    p = plan({}, shots=8, record=("wf",), inputs=long, codec="bitshuffle-lz4")
    assert not p.schema.by_name["wf"].codec
    assert any(n.startswith("wf is not compressed: 8 rows are 0 MB") for n in p.notes)


def test_what_a_shot_lacks_is_missing_in_its_row_only():
    p = plan({"spot": SPOT, "pulse": PULSE, "sum": {"use": f"{__name__}:both",
              "inputs": {"wf": "wf", "x": "diode"}}}, record=("diode", "mode"))  # fmt: skip
    shots = [shot(1), shot(2, jf=None), shot(3, wf=None, mode=None), shot(4, diode=None)]
    columns = feed(p, shots)
    present = {n: columns[f"{n}/present"].tolist() for n in ("spot", "pulse", "sum")}
    assert present == {
        "spot": [True, False, True, True],
        "pulse": [True, True, False, True],
        "sum": [True, True, False, False],
    }
    assert np.isnan(columns["spot/mean"]).tolist() == [False, True, False, False]
    assert columns["spot/npix"].tolist() == [75, 0, 75, 75]
    assert np.isnan(columns["diode"]).tolist() == [False, False, False, True]
    assert columns["mode"].tolist() == [1, 2, 0, 4]
    assert columns["mode_valid"].tolist() == [True, True, False, True]


def test_a_new_batch_never_shows_an_old_ones_values():
    p = plan({"spot": SPOT, "pulse": PULSE}, shots=1)
    feed(p, [shot(1)])
    columns = feed(p, [shot(2, jf=None, wf=None)])
    assert np.isnan([columns["spot/sum"][0], columns["pulse/area"][0]]).all()
    assert not columns["spot/present"][0]


def test_steps_and_motors_belong_to_the_shots_after_them():
    p = plan({}, motors=("delay", "angle"))
    p.take(shot(1), 0)
    p.step(BeginStep(0, {"delay": 2.5}))
    p.step(BeginStep(1, {"delay": 3.5, "angle": 1.0}))
    p.take(shot(2), 0)
    p.take(shot(3), 0)
    p.step(BeginStep(2, {"delay": 4.5, "angle": 2.0}))
    columns = p.close().columns
    assert columns["step"].tolist() == [-1, 1, 1]
    np.testing.assert_array_equal(columns["scan/delay"], [np.nan, 3.5, 3.5])
    assert feed(p, [shot(4)])["scan/angle"].tolist() == [2.0]


def test_light_follows_the_event_codes():
    """Shots with: on; off; both; neither; no timing. See test_light.py."""
    p = plan({}, shots=8, light={"laser": {"on": [287], "off": "code(0)"}})
    shots = [shot(codes=c) for c in ((287, 40), (0,), (0, 287), (40,), None)]
    columns = feed(p, shots)
    assert columns["lightStatus/laser"].tolist() == [1, 0, 0, -1, -1]
    assert columns["lightStatus/xray"].tolist() == [-1] * 5


def test_frames_may_be_read_only_and_unaligned():
    p = plan({"spot": SPOT})
    whole = shot(1)
    odd = shot(1, jf=whole.frames["jf"])
    shifted = []
    for s in whole.frames["jf"]:
        raw = np.frombuffer(b"\0" + s.tobytes(), np.uint8)[1:].view(np.uint16)
        assert not raw.flags.writeable
        shifted.append(raw)
    odd.segments = lambda name: shifted
    columns = feed(p, [whole, odd])
    assert columns["spot/sum"][0] == columns["spot/sum"][1]


def test_nothing_compiles_while_shots_are_taken():
    from numba.core import event

    p = plan({"spot": SPOT, "pulse": PULSE, "diode2": STRICT}, record=("mode",))
    with event.install_recorder("numba:compile") as recorder:
        feed(p, [shot(1), shot(2, jf=None, wf=None), shot(3, diode=-2000.0)])
    assert [e for _, e in recorder.buffer] == []


def test_jungfrau_is_calibrated_by_its_constants():
    ranges = (3, *SHAPE)
    constants = Constants(
        "jf",
        "jungfrau",
        SHAPE,
        pedestals=np.full(ranges, 100, np.float32),
        gain=np.full(ranges, 2, np.float32),
        status=np.zeros(ranges, np.uint8),
        origin="tests",
        ids={"pedestals": "made up"},
    )
    constants.status[0, 1, 2, 3] = 1
    p = plan({"spot": SPOT}, constants=constants)
    raw = np.full(SHAPE, 110, np.uint16)
    columns = feed(p, [shot(1, jf=raw)])
    assert columns["spot/npix"][0] == 74
    np.testing.assert_allclose(columns["spot/mean"], [5.0])
    assert p.schema.by_name["spot/sum"].unit == "keV"
    assert p.provenance().constants["jf"]["pedestals"] == "made up"
