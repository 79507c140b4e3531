"""The synthetic source keeps its word about the truth, also when it misbehaves."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from ffb.shot import BeginStep, FrameBlock, Idle, time_of
from ffb.sources.synthetic import (
    AMPLITUDE,
    AREA,
    EDGE,
    ENERGY,
    WAVE,
    Synthetic,
    SyntheticSource,
)
from ffb.sources.synthetic_area import GAINS, PEDESTALS

FIELDS = {"area": AREA, "wave": WAVE, "energy": ENERGY, "edge": EDGE, "ampl": AMPLITUDE}


def take(spec, fields=FIELDS):
    """Every run of ``spec`` as (run, [(row of a block, area), ...], steps)."""
    out = []
    for run in SyntheticSource(spec).runs():
        inputs, problems = run.bind(fields, {})
        assert not problems
        block = FrameBlock(inputs, 1)
        rows, steps = [], []
        for item in run:
            if isinstance(item, BeginStep):
                steps.append((len(rows), item))
            elif not isinstance(item, Idle):
                item.fill(block, 0)
                present = dict(zip(block.names, block.present[0].tolist(), strict=True))
                values = {k: v[0].copy() for k, v in block.frames.items()}
                rows.append(
                    {
                        "timestamp": int(block.timestamp[0]),
                        "pulse_id": int(block.pulse_id[0]),
                        "timed": bool(block.timed[0]),
                        "codes": block.codes[0].copy(),
                        "present": present,
                        "values": values,
                        "area": item.segments("area") if "area" in fields else None,
                    }
                )
        out.append((run, rows, steps))
    return out


def calibrate(raw):
    """Brute force: each pixel by its gain code."""
    gain = np.array([0, 1, 0, 2])[raw >> 14]
    pedestal, factor = np.array(PEDESTALS)[gain], np.array(GAINS)[gain]
    return ((raw & 0x3FFF) - pedestal) / factor


def codes_in(words):
    return {16 * w + b for w in range(len(words)) for b in range(16) if words[w] >> b & 1}


def test_the_spot_is_where_it_is_said_to_be_with_the_energy_it_is_said_to_have():
    spec = Synthetic(shots=60, noise=0.0, seed=3)
    [(run, rows, _)] = take(spec)
    good = run.constants("area").status[0] == 0
    dark = [i for i in range(60) if not run.xray[i]]
    switched = 0
    for i, row in enumerate(rows):
        raw = np.stack(row["area"]).reshape(spec.shape)
        empty = np.stack(rows[dark[0]]["area"]).reshape(spec.shape)
        excess = np.where(good, calibrate(raw) - calibrate(empty), 0.0)
        s = run.spot(i)
        switched += int((raw[good] >> 14).any())
        # dark frames differ from each other by rounding of the rings only, which is the same
        np.testing.assert_allclose(excess.sum(), s.energy, rtol=0, atol=2.0)
        window = excess[s.segment, s.row - 4 : s.row + 5, s.col - 4 : s.col + 5]
        np.testing.assert_allclose(window.sum(), s.energy, rtol=0, atol=2.0)
    assert dark == list(range(9, 60, 10))
    assert 0 < switched < 60


def test_a_shot_is_the_same_whichever_are_made_with_it():
    """Three producers make blocks of other shots than one does, and a shot alone is no other."""
    spec = Synthetic(shots=500, steps=3, shape=(2, 16, 24), missing={"timing": 0.2, "area": 0.1})
    parts = [take(replace(spec, producer=k, producers=3))[0][1] for k in range(3)]
    [(run, rows, _)] = take(spec)
    for i, row in enumerate(rows):
        other = parts[i % 3][i // 3]
        assert row.keys() == other.keys()
        for name in ("timestamp", "pulse_id", "timed", "present", "values", "codes", "area"):
            np.testing.assert_equal(other[name], row[name])
        if row["area"] is not None:
            np.testing.assert_array_equal(np.stack(row["area"]).ravel(), run.raw(i).ravel())
        height = 1000 * run.energy[i]  # the formula of the waveform once more, sample by sample
        pulse = [height * np.exp(-(((t - 64 - i % 20) / 4) ** 2) / 2) for t in range(256)]
        np.testing.assert_allclose(row["values"]["wave"], 2000 + np.array(pulse), rtol=0, atol=0.5)


def test_equal_seeds_make_equal_shots_and_other_seeds_do_not():
    first, again, other = (take(Synthetic(shots=8, seed=s))[0][1] for s in (5, 5, 6))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a["area"], b["area"])
        assert a["values"]["energy"] == b["values"]["energy"]
    assert any(not np.array_equal(a["area"], b["area"]) for a, b in zip(first, other, strict=True))


def test_values_and_event_codes_are_the_truth():
    [(run, rows, _)] = take(Synthetic(shots=40))
    for i, row in enumerate(rows):
        assert row["values"]["energy"] == run.energy[i]
        assert row["values"]["edge"] == run.edge[i]
        np.testing.assert_array_equal(row["values"]["wave"], run.wave(i))
        assert codes_in(row["codes"]) == set(run.codes(i))
        assert row["pulse_id"] == run.pulse_id(i)
        assert (162 in run.codes(i)) == (run.energy[i] == 0.0)
    assert rows[3]["values"]["wave"].max() > 2000 + 500 * run.energy[3]


def test_the_scan_changes_the_signal_only_with_the_laser_on():
    [(run, _, steps)] = take(Synthetic(shots=3000, steps=3), {"energy": ENERGY})
    assert [s.step for _, s in steps] == [0, 1, 2]
    assert [s.values["delay"] for _, s in steps] == [-2.0, 0.0, 2.0]
    assert [at for at, _ in steps] == [0, 1000, 2000]
    i = np.arange(3000)
    energy = run.area.kev(i).sum((1, 2)) / np.where(run.xray, run.energy, 1)
    for laser, low, high in ((True, 1.35, 1.6), (False, 0.98, 1.02)):
        pick = run.xray & (run.laser == laser)
        ratio = energy[pick & (i >= 2000)].mean() / energy[pick & (i < 1000)].mean()
        assert low < ratio < high


def test_missing_detectors_are_absent_and_those_only():
    missing = {"timetool": 0.5, "area": 0.25, "timing": 0.25}
    [(run, rows, _)] = take(Synthetic(shots=200, missing=missing))
    for i, row in enumerate(rows):
        assert row["present"]["edge"] is row["present"]["ampl"] is not run.missing["timetool"][i]
        assert row["present"]["area"] is (row["area"] is not None) is not run.missing["area"][i]
        assert row["timed"] is not run.missing["timing"][i]
        assert row["present"]["energy"]
        assert row["present"]["wave"]
    assert 60 < sum(not r["present"]["edge"] for r in rows) < 140
    assert all(not r["codes"].any() and r["pulse_id"] == 0 for r in rows if not r["timed"])


def test_a_misspelt_detector_to_be_missing_is_refused():
    with pytest.raises(ValueError, match="timetol"):
        take(Synthetic(shots=1, missing={"timetol": 0.5}))


def test_time_goes_backwards_and_stands_still_on_request():
    [(run, rows, _)] = take(Synthetic(shots=300, backwards=0.1, repeated=0.1))
    stamps = [r["timestamp"] for r in rows]
    assert stamps == run.timestamps.tolist()
    pairs = list(itertools.pairwise(stamps))
    assert sum(b < a for a, b in pairs) > 10
    assert sum(b == a for a, b in pairs) > 10
    [(_, rows, _)] = take(Synthetic(shots=300))
    assert all(a["timestamp"] < b["timestamp"] for a, b in itertools.pairwise(rows))
    assert time_of(rows[1]["timestamp"]) - time_of(rows[0]["timestamp"]) == round(1e9 / 120)


def test_a_cut_run_breaks_off_and_says_so():
    [(run, rows, _)] = take(Synthetic(shots=100, cut=True))
    assert len(rows) == 50
    assert run.ended.startswith("no EndRun")


def test_runs_follow_each_other_and_may_change_shape():
    runs = take(Synthetic(run=7, runs=3, shots=5, samples=(64, 32)), {"wave": WAVE})
    assert [r.info.run for r, _, _ in runs] == [7, 8, 9]
    assert [rows[0]["values"]["wave"].shape for _, rows, _ in runs] == [(64,), (32,), (64,)]
    assert all(r.ended == "end of run" for r, _, _ in runs)
    began = [r.info.began for r, _, _ in runs]
    assert all(r.info.began < rows[0]["timestamp"] for r, rows, _ in runs)
    assert began == sorted(began)


def test_producers_share_the_shots_and_all_see_the_steps():
    whole = take(Synthetic(shots=50, steps=4))[0]
    parts = [take(Synthetic(shots=50, steps=4, producer=k, producers=3))[0] for k in range(3)]
    assert [len(rows) for _, rows, _ in parts] == [17, 17, 16]
    for k, (_, rows, steps) in enumerate(parts):
        assert [s for _, s in steps] == [s for _, s in whole[2]]
        for got, want in zip(rows, whole[1][k::3], strict=True):
            assert got["timestamp"] == want["timestamp"]
            np.testing.assert_array_equal(got["area"], want["area"])


def test_a_paced_run_idles_and_stops_at_once():
    source = SyntheticSource(Synthetic(shots=10_000, rate=5.0, runs=5))
    seen = []
    for run in source.runs():
        run.bind({"energy": ENERGY}, {})
        for item in run:
            seen.append(type(item))
            if len(seen) == 10:
                source.stop()
    assert len(seen) == 10
    assert Idle in seen
    assert run.ended == "stopped"
    assert run.info.run == 1
    source.close()
    source.close()
    assert list(source.runs()) == []


def test_constants_undo_the_detector_and_geometry_centres_it():
    [run] = SyntheticSource(Synthetic(shots=1)).runs()
    c = run.constants("area")
    assert c.dettype == "jungfrau"
    assert c.shape == (2, 64, 128)
    assert c.pedestals.shape == c.gain.shape == c.status.shape == (3, 2, 64, 128)
    assert c.xyz.shape == (3, 2, 64, 128)
    np.testing.assert_allclose(c.xyz[:2].mean((1, 2, 3)), 0, atol=1e-6)
    with pytest.raises(LookupError, match="gasdet"):
        run.constants("gasdet")
    with pytest.raises(LookupError, match=r"my\.geo"):
        run.constants("area", "my.geo")
