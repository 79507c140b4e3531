"""A waveform without the lines that its digitiser puts on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb import Axis, Feature, Vector, Waveform, reducer
from ffb.reducers.trace import common_problems, gate_problem
from ffb.shot import Input


class Params(NamedTuple):
    """Which lines to remove, where they are seen alone, and what to integrate.

    ``dt`` [ns] is the distance of samples. ``interleave`` is the number of converters that take
    turns, whose levels differ: lines at all multiples of 1 / (interleave dt). ``frequencies``
    [GHz] are lines of their own. They are fitted in the gate ``baseline``, where no pulses should
    be, in the whole waveform if left out. ``gate`` is what ``area`` is of, everything if left out;
    ``waveform`` keeps the corrected waveform.
    """

    dt: float
    interleave: int = 1
    frequencies: tuple[float, ...] = ()
    baseline: tuple[int, int] | None = None
    gate: tuple[int, int] | None = None
    waveform: bool = False


class Constants(NamedTuple):
    """What it takes to fit the lines in ``before`` to ``after`` and subtract them everywhere.

    ``classes`` > 0: samples that many apart come from one converter, and the mean of each is all
    it takes. 0: ``fit`` (lines + 1, after - before) gives the level and the amplitudes of ``lines``
    (lines, samples).
    """

    dt: float
    classes: int
    fit: NDArray[np.float64]
    lines: NDArray[np.float64]
    before: int
    after: int
    start: int
    stop: int


class Notched(NamedTuple):
    """What is left of the waveform; NaN or infinity in the baseline gate makes it NaN."""

    area: Annotated[
        float, Feature("@ ns", "sum of the corrected gate, above the baseline, times dt")
    ]
    baseline: Annotated[float, Feature("@", "level fitted together with the lines")]
    pattern: Annotated[float, Feature("@", "rms of what was subtracted, over the waveform")]
    corrected: Annotated[
        Vector,
        Feature("@", "the waveform without the lines", ("sample",), "<f4", when="waveform"),
    ]


@reducer(version=2)
def waveform_notch(waveform: Waveform, constants: Constants) -> Notched:
    """A waveform without the lines that its digitiser puts on it.

    Lines are fitted by least squares together with a level, which stays. Of a whole waveform with
    lines at bins of its Fourier transform that is the same as to set these bins to 0. In contrast
    to smalldata_tools, which replaces bins by the mean of others a few away, pulses lose nothing
    if the lines are fitted where there are none.
    """
    c, n = constants, waveform.size
    gate, corrected = waveform[c.before : c.after], np.zeros(n)
    level = 0.0
    if c.classes:
        means = np.zeros(c.classes)
        for first in range(0, gate.size, c.classes):
            turn = gate[first : first + c.classes]
            for k in range(turn.size):
                means[k] += np.float64(turn[k])
        rounds, more = gate.size // c.classes, gate.size % c.classes
        for k in range(c.classes):
            means[k] /= rounds + 1 if k < more else rounds
            level += means[k] / c.classes
        for k in range(c.classes):
            means[k] -= level if np.isfinite(level) else np.nan
        lead = c.before % c.classes
        corrected[:lead] = means[c.classes - lead :]
        for first in range(lead, n, c.classes):
            turn = corrected[first : first + c.classes]
            turn[:] = means[: turn.size]
    else:
        amplitudes = np.zeros(c.fit.shape[0])
        for k in range(amplitudes.size):
            weights, product = c.fit[k], 0.0
            for i in range(gate.size):
                product += weights[i] * np.float64(gate[i])
            amplitudes[k] = product
        level = amplitudes[0]
        for k in range(1, amplitudes.size):
            line, amplitude = c.lines[k - 1], amplitudes[k] if np.isfinite(level) else np.nan
            for i in range(n):
                corrected[i] += amplitude * line[i]
    if not np.isfinite(level):
        level = np.nan
    squares, total = 0.0, 0.0
    for i in range(n):  # until here the lines that are subtracted
        squares += corrected[i] * corrected[i]
        corrected[i] = np.float64(waveform[i]) - corrected[i]
    for i in range(c.start, c.stop):
        total += corrected[i] - level
    return Notched(total * c.dt, level, np.sqrt(squares / n), corrected)


def _lines(p: Params, size: int) -> NDArray[np.float64]:
    """Cosine and sine of every line at every sample."""
    harmonics = np.arange(1, p.interleave // 2 + 1) / p.interleave
    cycles = np.concatenate([harmonics, np.array(p.frequencies) * p.dt])
    phase = 2 * np.pi * cycles[:, None] * np.arange(size)
    return np.concatenate([np.cos(phase), np.sin(phase)])


@waveform_notch.prepare
def check(params: Params, inputs: Mapping[str, Input]) -> Constants:
    """Check the parameters against the waveform; ``ValueError`` lists what does not fit."""
    p, (size,) = params, inputs["waveform"].shape
    problems = gate_problem("gate", p.gate, size) + gate_problem("baseline", p.baseline, size)
    problems += common_problems(p.dt, 1)
    if p.interleave < 1:
        problems.append(f"interleave: {p.interleave} converters cannot take turns; 1 for no lines")
    wrong = [f for f in p.frequencies if not 0 < f * p.dt <= 0.5]
    if wrong and p.dt > 0:
        problems.append(
            f"frequencies: {', '.join(map(str, wrong))} GHz; samples {p.dt} ns apart resolve lines"
            f" above 0 and up to {0.5 / p.dt:g} GHz"
        )
    if p.interleave == 1 and not p.frequencies:
        problems.append("interleave: give converters or frequencies; there is nothing to remove")
    before, after = p.baseline or (0, size)
    needed = max(p.interleave, 1) + 2 * len(p.frequencies)
    if not problems and after - before < needed:
        problems.append(
            f"baseline: {after - before} samples do not tell {needed - 1} amplitudes and a level"
        )
    if problems:
        raise ValueError("\n".join(problems))
    classes, lines = p.interleave, np.empty((0, size))
    fit = np.empty((0, after - before))
    if p.frequencies:
        classes, lines = 0, _lines(p, size)
        model = np.concatenate([np.ones((1, after - before)), lines[:, before:after]])
        fit = np.ascontiguousarray(np.linalg.pinv(model.T, rcond=1e-9))
    return Constants(p.dt, classes, fit, lines, before, after, *(p.gate or (0, size)))


@waveform_notch.axes
def axes(params: Params, constants: Constants) -> dict[str, Axis]:
    """Times of the samples of the corrected waveform, if it is kept."""
    if not params.waveform:
        return {}
    size = max(constants.lines.shape[1], constants.stop)
    return {"sample": Axis(np.arange(size) * params.dt, "ns")}


def example() -> tuple[Params, dict[str, Input]]:
    """Parameters, and an input to try them on."""
    params = Params(0.5, 4, (0.4,), baseline=(0, 40), gate=(40, 90), waveform=True)
    return params, {"waveform": Input("value", "<i2", (100,), "V")}
