"""A small run of rows with known statistics, for tests of the live model and the page."""

import numpy as np

from ffb.batch import Batch
from ffb.schema import CORE, Column, Schema
from ffb.shot import timestamp_of
from ffb.sink import Provenance

SCHEMA = Schema(
    (
        *CORE,
        Column("scan/lxt", "<f8", unit="ps"),
        Column("gas/energy", "<f8", unit="mJ", doc="pulse energy"),
        Column("spot/present", "|b1", reducer="spot"),
        Column("spot/sum", "<f8", unit="keV", doc="summed photon energy", reducer="spot"),
        Column("spot/nsat", "<i8", reducer="spot"),
        Column("az/present", "|b1", reducer="az"),
        Column("az/intensity", "<f8", (8,), ("q",), "keV", "I(q)", "az"),
        Column("spot/area", "<f4", (6, 10), ("row", "column"), "keV", "", "spot"),
    )
)
PROVENANCE = Provenance(
    reducers={"az": {"coords": {"q": {"values": [0.1 * i for i in range(8)], "unit": "1/Å"}}}}
)
T0 = 1_800_000_000_000_000_000


def rows(start, n, seed=1):
    """Batch of shots ``start`` to ``start + n`` at 100 Hz: laser on every other, step every 50."""
    rng = np.random.default_rng(seed + start)
    i = np.arange(start, start + n)
    batch = Batch(SCHEMA, n)
    c = batch.columns
    c["timestamp"][:] = [timestamp_of(T0 + int(k) * 10_000_000) for k in i]
    c["pulse_id"][:] = i
    c["step"][:] = i // 50
    c["lightStatus/xray"][:] = i % 25 != 7
    c["lightStatus/laser"][:] = i % 2
    c["scan/lxt"][:] = -1.0 + 0.5 * (i // 50)
    present = i % 10 != 3
    c["spot/present"][:] = c["az/present"][:] = present
    c["spot/sum"][:] = np.where(present, 100.0 + 10 * (i % 2) + rng.normal(size=n), np.nan)
    c["spot/nsat"][:] = np.where(present, i % 3, 0)
    noise = np.random.default_rng(seed + start).normal(0, 0.3, (n, 8))
    curve = np.arange(8) + (i % 2)[:, None] + noise
    c["az/intensity"][:] = np.where(present[:, None], curve, np.nan)
    c["spot/area"][:] = np.where(present[:, None, None], rng.normal(size=(n, 6, 10)), np.nan)
    c["gas/energy"][:] = np.where(i % 40 == 5, np.nan, 1.0 + 0.2 * rng.random(n))
    batch.read[:] = T0 + i * 10_000_000
    return batch
