"""Delta-I(q) of a written file by the recipe of reading.md: laser on minus laser off."""

import numpy as np

from ffb import reader
from ffb.batch import Batch
from ffb.schema import CORE, Column, Schema
from ffb.shot import timestamp_of
from ffb.writers.small_data import SmallData
from tests.unit.small_data_truth import BEGAN, INFO, PROVENANCE, books

SHOTS, MISSING, SPOILT, DARK = 60, 3, 6, 9
#: What every bin scatters without laser, and what the laser adds; the last two are the reference.
SCATTERED, ADDED = np.array([8.0, 5.0, 3.0, 3.0]), np.array([0.5, -0.3, 0.0, 0.0])
SCHEMA = Schema(
    (
        *CORE,
        Column("jf/az_sum", "<f8", (4,), ("q",), reducer="jf/az"),
        Column("jf/az_norm", "<f8", (4,), ("q",), reducer="jf/az"),
        Column("jf/az_reference", "<f8", reducer="jf/az"),
    )
)


def written(folder):
    """Pulses of any intensity, with other bad pixels in each.

    One shot lacks the detector, one has no good pixel in the reference, one is without x-rays.
    """
    rng, i = np.random.default_rng(7), np.arange(SHOTS)
    laser, pulse = i % 2, rng.gamma(4, 0.25, SHOTS)
    norm = rng.uniform(100, 900, (SHOTS, 4))
    norm[SPOILT, 2:] = 0
    total = (SCATTERED + np.outer(laser, ADDED)) * pulse[:, None] * norm
    total[DARK] = -0.1
    with np.errstate(invalid="ignore"):
        reference = total[:, 2:].sum(1) / norm[:, 2:].sum(1)
    for column in (total, norm, reference):
        column[MISSING] = np.nan
    known = {
        "timestamp": [timestamp_of(BEGAN + int(k) * 8_333_333) for k in i],
        "lightStatus/xray": i != DARK,
        "lightStatus/laser": laser,
        "jf/az_sum": total,
        "jf/az_norm": norm,
        "jf/az_reference": reference,
    }
    batch = Batch(SCHEMA, SHOTS)
    for c in SCHEMA.columns:
        batch.columns[c.name][...] = known.get(c.name, 0)
    sink = SmallData(folder)
    sink.begin_run(INFO, SCHEMA, PROVENANCE)
    sink.append(batch)
    sink.end_run(books(1, SHOTS))
    return sink.path


def mean(run, cut):
    """Mean of the shots of a cut, each over its reference: the recipe."""
    reference = run["jf/az_reference"][cut]
    lit = reference > 0
    s, n = run["jf/az_sum"][cut][lit], run["jf/az_norm"][cut][lit]
    return (s / reference[lit, None]).sum(0) / n.sum(0)


def test_laser_on_minus_off_is_what_the_laser_adds(tmp_path):
    with reader.open(written(tmp_path)) as run:
        on, off = run.light.on, run.light.off
        assert [cut[:].sum() for cut in (on, off)] == [SHOTS // 2 - 1, SHOTS // 2]
        delta = mean(run, on) - mean(run, off)
        plain = run["jf/az_sum"][on].sum(0)
    np.testing.assert_allclose(delta, ADDED / SCATTERED[3], rtol=0, atol=1e-12)
    assert np.isnan(plain).all()  # without asking for a reference, one missing shot is all
