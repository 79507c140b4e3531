"""Area and peak of a waveform inside a gate, above its baseline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, NamedTuple

import numpy as np

from ffb import Feature, Waveform, reducer
from ffb.reducers.trace import common_problems, extremes, gate_problem, median
from ffb.shot import Input


class Params(NamedTuple):
    """Gates are half-open ranges of samples.

    ``gate`` holds the pulse; ``dt`` [ns] is the distance of samples; ``baseline`` is the gate
    whose level is subtracted, nothing is if it is left out; ``sign`` is -1 for pulses that go down,
    which then count as positive; ``level`` is ``"mean"`` or ``"median"``, which a few pulses in
    the baseline's gate do not move (that of smalldata_tools).
    """

    gate: tuple[int, int]
    dt: float
    baseline: tuple[int, int] | None = None
    sign: int = 1
    level: str = "mean"


class Constants(NamedTuple):
    """The same, checked; an empty baseline gate stands for none.

    ``whole`` says that samples are integers.
    """

    start: int
    stop: int
    before: int
    after: int
    dt: float
    sign: float
    by_median: bool
    whole: bool


class Integral(NamedTuple):
    """What the pulse amounts to; NaN or infinity in the gate or baseline makes it NaN."""

    area: Annotated[float, Feature("@ ns", "sum over the gate, above the baseline, times dt")]
    baseline: Annotated[float, Feature("@", "level of the baseline gate, 0 without one")]
    peak: Annotated[float, Feature("@", "largest sample of the gate, above the baseline")]
    peak_position: Annotated[float, Feature("ns", "time of the peak from the first sample")]


@reducer(version=2)
def waveform_integral(waveform: Waveform, constants: Constants) -> Integral:
    """Area and peak of a waveform inside a gate, above its baseline.

    smalldata_tools' sum over samples is ``area`` with ``dt`` = 1 and ``level`` = "median"; of a
    detector with several channels it takes one reducer for each.
    """
    c, nan = constants, np.nan
    gate, before = waveform[c.start : c.stop], waveform[c.before : c.after]
    baseline = 0.0
    if c.by_median:
        baseline = median(before, c.whole)
    else:
        for i in range(before.size):
            baseline += np.float64(before[i])
        baseline = baseline / max(before.size, 1) if np.isfinite(baseline) else nan
    total = 0.0
    for i in range(gate.size):
        total += c.sign * (np.float64(gate[i]) - baseline)
    lo, hi = extremes(gate)
    best, at = (hi if c.sign > 0 else lo), 0
    while gate[at] != best and at < gate.size - 1:
        at += 1
    peak = c.sign * (np.float64(best) - baseline)
    if not np.isfinite(total):
        return Integral(nan, baseline, nan, nan)
    return Integral(total * c.dt, baseline, peak, (c.start + at) * c.dt)


@waveform_integral.prepare
def gates(params: Params, inputs: Mapping[str, Input]) -> Constants:
    """Check the gates against the waveform; ``ValueError`` lists what does not fit."""
    given = inputs["waveform"]
    problems = gate_problem("gate", params.gate, given.shape[0])
    problems += gate_problem("baseline", params.baseline, given.shape[0])
    problems += common_problems(params.dt, params.sign)
    if params.level not in ("mean", "median"):
        problems.append(f'level: {params.level!r} is neither "mean" nor "median"')
    if problems:
        raise ValueError("\n".join(problems))
    before, after = params.baseline or (0, 0)
    by_median = params.level == "median" and before < after
    whole = np.dtype(given.dtype).kind in "iu"
    return Constants(*params.gate, before, after, params.dt, float(params.sign), by_median, whole)


def example() -> tuple[Params, dict[str, Input]]:
    """Parameters, and an input to try them on."""
    return Params((20, 45), 0.5, (0, 15), -1), {"waveform": Input("value", "<u2", (64,), "V")}
