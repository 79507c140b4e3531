"""The live model shows committed rows, all of them and nothing else."""

import numpy as np
import pytest

from ffb.dashboards.model import OFF, ON, LiveModel, Snapshot
from ffb.live.model import Live
from ffb.sink import Counts
from ffb.source import RunInfo
from ffb.wire import unpack
from tests.unit.live_rows import PROVENANCE, SCHEMA, rows

STATUS = {
    "producers": {"p0": {"read_hz": 120.0, "reduced_hz": 119.0, "alive": True, "errors": {}}},
    "written_hz": 118.0,
    "latency_ms": [31.0, 55.0],
    "file": {"path": "/scratch/tst_Run0007.h5", "bytes": 2_000_000, "bytes_hz": 1e6},
    "alarms": [],
}


@pytest.fixture
def live():
    live = Live()
    live.begin_run(RunInfo("tstx00001", 7), SCHEMA, PROVENANCE)
    for step in range(4):
        live.step(step, {"lxt": -1.0 + 0.5 * step, "step_value": float(step)}, "")
    return live


def snapshot(live, **status):
    return Snapshot(*unpack(live.snapshot({**STATUS, **status})))


def counted(live):
    return snapshot(live).scan("spot/sum", "", "step")[1].n.sum()


def test_only_committed_rows_are_shown(live):
    live.append(rows(0, 100))
    assert counted(live) == 0
    live.commit(Counts(1, 100, 100))
    assert counted(live) == 86  # every tenth lacks its detector, 4 of the others have no x-rays
    live.append(rows(100, 100))
    assert counted(live) == 86


def test_statistics_equal_brute_force_over_the_rows(live):
    batches = [rows(0, 70), rows(70, 1), rows(71, 129)]
    for k, batch in enumerate(batches):
        live.append(batch)
        live.commit(Counts(k + 1, 200, 200))
    shot = snapshot(live)
    c = {k: np.concatenate([b.columns[k] for b in batches]) for k in SCHEMA.by_name}
    motor, curve = shot.scan("spot/sum", "", "lxt")
    n, (mean, error) = curve.n[0], (v[0] for v in curve.ratio())
    assert motor.tolist() == [-1.0, -0.5, 0.0, 0.5]
    lit = c["lightStatus/xray"] == 1
    for laser, light in ((0, OFF), (1, ON)):
        for step in range(4):
            keep = (c["step"] == step) & (c["lightStatus/laser"] == laser) & c["spot/present"] & lit
            x = c["spot/sum"][keep]
            assert n[light, step] == x.size
            assert mean[light, step] == pytest.approx(x.mean())
            assert error[light, step] == pytest.approx(x.std(ddof=1) / np.sqrt(x.size))
        keep = c["az/present"] & (c["lightStatus/laser"] == laser) & lit
        curve, spread = (part[light] for part in shot.mean("az/intensity"))
        x = c["az/intensity"][keep]
        np.testing.assert_allclose(curve, x.mean(0), rtol=1e-6)
        np.testing.assert_allclose(spread, x.std(0, ddof=1) / np.sqrt(len(x)), rtol=1e-6)
    assert np.isnan(shot.mean("spot/area")[1]).all()  # images have no errors
    edges, counts = shot.histogram("spot/sum")
    want = np.histogram(c["spot/sum"][c["spot/present"] & lit], edges)[0]
    assert counts.sum(0).tolist() == want.tolist()
    assert shot.trend("spot/sum")[0].sum() == want.sum() == 172
    assert shot.meta["light"] == {"unknown": 0, "off": 96, "on": 96, "no x-rays": 8}
    assert shot.meta["present"] == {"spot": [180, 200] * 2, "az": [180, 200] * 2}
    assert shot.axis(shot.columns["az/intensity"])[1] == "q [1/Å]"


def test_absent_integers_do_not_count_as_zero(live):
    live.append(rows(0, 100))
    live.commit(Counts(1, 100, 100))
    curve = snapshot(live).scan("spot/nsat", "", "step")[1]
    n, mean = curve.n[0], curve.mean[0]
    present = np.array([i for i in range(100) if i % 10 != 3 and i % 25 != 7])
    assert n.sum() == present.size
    assert (n * np.nan_to_num(mean)).sum() == pytest.approx((present % 3).sum())


def test_a_large_image_is_reduced_before_it_is_sent(live):
    live.means["spot/area"].__init__((1200, 1030))
    live.means["spot/area"].add(
        np.array([2]), np.array([True]), np.full((1, 1200, 1030), 3.0, np.float32)
    )
    shot = snapshot(live)
    assert shot.arrays["mean:spot/area"].shape == (3, 300, 257)
    assert shot.meta["reduced"] == {"spot/area": 4}
    assert (shot.arrays["mean:spot/area"][ON] == 3.0).all()


def test_steps_at_one_motor_value_are_one_point_in_whatever_order(live):
    batch = rows(0, 200)
    batch.columns["step"][:] = np.arange(200) // 25
    there = np.array([2.0, 1.0, 0.0, -1.0, 0.0, 1.0, 2.0, np.nan])
    batch.columns["scan/lxt"][:] = there[batch.columns["step"]]
    live.steps.clear()  # a restarted aggregator hears of no step that is committed already
    live.append(batch)
    live.commit(Counts(1, 200, 200))
    at, curve = snapshot(live).scan("spot/sum", "", "lxt")
    np.testing.assert_array_equal(at, [-1.0, 0.0, 1.0, 2.0, np.nan])
    c = batch.columns
    mean, error = (v[0] for v in curve.ratio())
    for k, value in enumerate(at[:4]):
        keep = (c["scan/lxt"] == value) & (c["lightStatus/laser"] == 1) & c["spot/present"]
        x = c["spot/sum"][keep & (c["lightStatus/xray"] == 1)]
        assert mean[ON, k] == pytest.approx(x.mean(), rel=1e-12)
        assert error[ON, k] == pytest.approx(x.std(ddof=1) / np.sqrt(x.size), rel=1e-5)


def test_a_broken_snapshot_is_counted_and_the_last_good_one_stays(live):
    model = LiveModel()
    model.push(live.snapshot(STATUS))
    model.push(b"not a snapshot")
    generation, shot = model.latest()
    assert (generation, model.rejected) == (1, 1)
    assert shot.meta["run"] == 7
