"""Plans for shots made by hand, and what is said of those that cannot be."""

from typing import Annotated, NamedTuple

import numpy as np
import pytest

from ffb import Feature, Value, config, reducer
from ffb.plan import Plan
from ffb.shot import Input
from ffb.testing.listed import ListedRun, ListedShot

SHAPE = (2, 9, 23)
RNG = np.random.default_rng(5)
INPUTS = {
    "jf": Input("area", "<u2", SHAPE),
    "wf": Input("value", "<i2", (64,), "V"),
    "diode": Input("value", "<f8", (), "mJ"),
    "mode": Input("value", "<i4", ()),
    "line": Input("value", "<f4", (3,)),
}
TABLES = {n: {"detector": n, "field": "raw"} for n in INPUTS}
SPOT = {"use": "roi", "inputs": "jf", "params": {"rows": [2, 7], "cols": [3, 18], "segment": 1}}
PULSE = {"use": "waveform_integral", "inputs": "wf", "params": {"gate": [20, 45], "dt": 0.5}}


class Low(NamedTuple):
    """A level."""

    level: float


class One(NamedTuple):
    value: Annotated[float, Feature("@", "the value")]


@reducer(version=3)
def strict(x: Value, low: Low) -> One:
    """Refuses what is too low."""
    if x < low.level:
        raise ValueError("too low")
    return One(float(x))


class Cut(NamedTuple):
    samples: Annotated[np.ndarray, Feature("@", "some samples", ("sample",), "<f8")]


STRICT = {"use": f"{__name__}:strict", "inputs": "diode", "params": {"level": -1000.0}}


def plan(
    reducers,
    *,
    shots=4,
    record=(),
    constants=None,
    calibration=None,
    motors=(),
    light=None,
    inputs=INPUTS,
    codec="none",
    integrating=None,
    together=1,
    sums=None,
    filters=None,
):
    tables = {n: {**t, "record": n in record} for n, t in TABLES.items()}
    made = config.parse(
        {
            "source": {"kind": "synthetic"},
            "inputs": tables,
            "calibration": calibration or ({"jf": "none"} if constants is None else {}),
            "batch": {"shots": shots, "together": together},
            "writer": {"compression": codec},
            "light": light or {},
            "integrating": integrating or {},
            "reducers": reducers,
            "sums": sums or {},
            "filters": filters or {},
        }
    )
    known = {"jf": constants} if constants else {}
    with np.errstate(all="ignore"):
        return Plan.make(made, ListedRun(inputs, (), known, motors))


def shot(k=1, **frames):
    full = {
        "jf": RNG.integers(0, 200, SHAPE).astype(np.uint16),
        "wf": RNG.integers(-100, 100, 64).astype(np.int16),
        "diode": 1.5 * k,
        "mode": k,
        "line": np.full(3, k, np.float32),
    }
    codes = frames.pop("codes", ())
    return ListedShot(100 + k, {**full, **frames}, codes)


def feed(p, shots):
    for k, s in enumerate(shots):
        p.take(s, 1000 + k)
    with np.errstate(all="ignore"):
        return p.close().columns


def problems(reducers, **more):
    with pytest.raises(config.ConfigError) as e:
        plan(reducers, **more)
    return list(e.value.problems)
