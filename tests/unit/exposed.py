"""A run with a slow camera and fast partners, and its exposures by brute force, shot by shot."""

import math
from pathlib import Path

import numpy as np

from ffb.batch import Batch
from ffb.schema import CORE, PULSE_KNOWN, Column, Schema
from ffb.shot import timestamp_of
from ffb.sink import Provenance
from ffb.source import RunInfo
from ffb.writers.small_data import SmallData
from tests.unit.small_data_truth import books

INFO = RunInfo("rixx49820", 42, 99)
BEGAN = 1_700_000_000_000_000_000
PERIOD = 8_333_333  # ns
PULSES = 7583

CONFIG = '[integrating.andor]\npartners = ["*"]\n[integrating.vls]\nframes = ["vls"]\n'

SCHEMA = Schema(
    (
        *CORE,
        PULSE_KNOWN,
        Column("scan/x", "<f8", unit="mm"),
        Column("gasdet/f11", "<f8", unit="mJ"),
        Column("fim/wave", "<f4", (3,), ("channel",), "V"),
        Column("cnt/n", "<u2", reducer="cnt"),
        Column("cnt/variance", "<f4", reducer="cnt"),
        Column("cnt/present", "|b1", reducer="cnt"),
        Column("timing/destination", "|i1"),
        Column("timing/destination_valid", "|b1"),
        Column("good", "|b1", reducer="good"),
        Column("good_valid", "|b1", reducer="good"),
        Column("normalised", "<f8", unit="1/mJ", reducer="normalised"),
        Column("andor/full_sum", "<f8", unit="keV", reducer="andor/full"),
        Column("andor/full_npix", "<i8", reducer="andor/full"),
        Column("andor/full_spectrum", "<f4", (4,), ("col",), "keV", reducer="andor/full"),
        Column("andor/full_present", "|b1", reducer="andor/full"),
        Column("andor/fit_n", "<i8", reducer="andor/fit"),
        Column("andor/fit_width", "<f8", unit="px", reducer="andor/fit"),
        Column("andor/fit_present", "|b1", reducer="andor/fit"),
        Column("vls", "<f8", unit="V"),
    )
)

#: Partners of the camera, and the column that says where each holds.
PARTNERS = {
    "lightStatus/xray": "",
    "lightStatus/laser": "",
    "scan/x": "",
    "gasdet/f11": "",
    "fim/wave": "",
    "cnt/n": "cnt/present",
    "cnt/variance": "cnt/present",
    "good": "good_valid",
    "normalised": "",
    "vls": "",
}


def shots(n: int, seed: int = 1, every: int = 12) -> dict[str, np.ndarray]:
    """Columns of ``n`` shots in order, with all that may be missing missing somewhere."""
    rng, i = np.random.default_rng(seed), np.arange(n)
    d = {c.name: np.full((n, *c.shape), c.missing, c.dtype) for c in SCHEMA.columns}
    d["timestamp"][:] = [timestamp_of(BEGAN + k * PERIOD) for k in range(n)]
    d["pulse_id"][:] = 1_000_000 + PULSES * i
    d["pulse_id_valid"][:] = True
    d["ffb/kept"][:] = 1
    d["lightStatus/xray"][:] = i % 10 != 9
    d["lightStatus/laser"][:] = np.where(rng.random(n) < 0.05, -1, i % 2)
    d["scan/x"][:] = 7.25
    d["gasdet/f11"][:] = np.where(rng.random(n) < 0.2, np.nan, rng.gamma(20, 0.05, n))
    d["fim/wave"][:] = np.where(rng.random((n, 3)) < 0.1, np.nan, rng.normal(0, 1, (n, 3)))
    d["cnt/present"][:] = rng.random(n) > 0.3
    d["cnt/n"][:] = np.where(d["cnt/present"], 60_000 + i % 7, 0)
    d["cnt/variance"][:] = np.where(d["cnt/present"], rng.random(n), np.nan)
    d["timing/destination"][:], d["timing/destination_valid"][:] = 4, True
    d["good_valid"][:] = rng.random(n) > 0.1
    d["good"][:] = d["good_valid"] & (rng.random(n) > 0.5)
    d["normalised"][:] = np.where(rng.random(n) < 0.05, np.inf, rng.normal(1e6, 1, n))
    frame = i % every == every - 1
    d["andor/full_present"][:] = frame
    d["andor/full_sum"][:] = np.where(frame, i * 0.5, np.nan)
    d["andor/full_npix"][:] = np.where(frame, i, 0)
    d["andor/full_spectrum"][:] = np.where(frame[:, None], i[:, None] + np.arange(4), np.nan)
    fitted = frame & (i % 36 != 11)  # the fit fails for every third frame
    d["andor/fit_present"][:] = fitted
    d["andor/fit_n"][:] = np.where(fitted, i, 0)
    d["andor/fit_width"][:] = np.where(fitted, 2.5, np.nan)
    d["vls"][:] = np.where(i % 5 == 2, i, np.nan)
    return d


def taken(d: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    """Some rows, in the order given."""
    return {k: v[rows] for k, v in d.items()}


def batch_of(d: dict[str, np.ndarray], schema: Schema = SCHEMA) -> Batch:
    batch = Batch(schema, len(d["timestamp"]))
    for name, values in d.items():
        batch.columns[name][...] = values
    return batch


def begun(folder: Path, config: str = CONFIG) -> SmallData:
    sink = SmallData(folder, merge=None)
    sink.begin_run(INFO, SCHEMA, Provenance(config))
    return sink


def write(folder: Path, d: dict[str, np.ndarray], config: str = CONFIG, size: int = 100) -> Path:
    """The file segments of a run that has ended, committed ``size`` rows at a time."""
    sink, n = begun(folder, config), len(d["timestamp"])
    for k, first in enumerate(range(0, n, size)):
        sink.append(batch_of(taken(d, np.arange(first, min(first + size, n)))))
        sink.commit(books(k + 1, min(first + size, n)))
    sink.end_run(books(n, n, ended="end of run"))
    assert sink.path is not None
    return sink.path


def expected(d: dict[str, np.ndarray], rows: list[int], column: str, light: str = ""):
    """Count, sum, mean and variance over the shots ``rows`` of ``d``, one by one."""
    flag, shape = PARTNERS[column], d[column].shape[1:]
    out = [np.zeros(shape)] + [np.full(shape, np.nan) for _ in range(3)]
    for place in np.ndindex(shape):
        values = []
        for r in rows:
            x, dark = float(d[column][(r, *place)]), d["lightStatus/xray"][r] == 0
            laser = d["lightStatus/laser"][r]
            wanted = {
                "": True,
                "laser_on": laser == 1 and not dark,
                "laser_off": laser == 0 and not dark,
                "dark": dark,
            }[light]
            known = d[flag][r] if flag else x != -1 or not column.startswith("lightStatus")
            if wanted and known and math.isfinite(x):
                values.append(x)
        out[0][place] = len(values)
        if values:
            mean = math.fsum(values) / len(values)
            out[1][place], out[2][place] = math.fsum(values), mean
            out[3][place] = math.fsum((v - mean) ** 2 for v in values) / len(values)
    return out
