"""Arrival time from a raw time-tool trace: reference, matched filter, sub-pixel edge."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb import Feature, Value, Waveform, reducer
from ffb.reducers.checks import noted
from ffb.reducers.edge import correlate, correlate_step, summit, width_at_half
from ffb.reducers.highest import highest
from ffb.reducers.numpy_file import read
from ffb.reducers.quality import limits, polynomial_problems
from ffb.shot import Input

#: What the trace is held against, by its name.
REFERENCES = {"ratio": 0, "difference": 1, "none": 2}

#: Why there is no time, as ``reason`` has it; 0 where there is one.
DARK, NO_LASER, UNREFERENCED, NOT_FINITE, NO_EDGE, AMPLITUDE, WIDTH = range(1, 8)


class Params(NamedTuple):
    """How an edge is sought, and which is believed.

    ``region`` [samples, half-open] is searched, the whole trace without it. The filter is a step
    of ``width`` samples on either side, or the array of the .npy file ``weights``, which is laid
    over the trace as it is (``edge_weights`` makes them of recorded traces; weights that are
    convolved with it, as the DAQ's, are given in reverse order); ``rising`` says whether the trace
    steps up, of which the weights know nothing. ``reference`` is ``"ratio"`` or
    ``"difference"`` with the running average of shots without x-rays, into which each enters with
    ``convergence``; ``"none"`` takes the trace as it is. ``start``, a .npy file of as many numbers
    as the region or the trace has samples, is the reference before the first such shot.
    ``polynomial`` [ps, ps/pixel, ...] makes a time of the position, constant first; ``amplitude``
    and ``fwhm`` [samples] are the least and largest of a good edge. Amplitudes of smalldata_tools'
    re-analysis, and the limits that were found with it, are half of these with a step.
    """

    polynomial: tuple[float, ...]
    region: tuple[int, int] | None = None
    width: int = 50
    weights: Path | None = None
    rising: bool = False
    reference: str = "ratio"
    convergence: float = 0.05
    start: Path | None = None
    amplitude: tuple[float, float] | None = None
    fwhm: tuple[float, float] | None = None


class Constants(NamedTuple):
    """The same, checked: ``weights`` (m,) float64 give a maximum where the edge is.

    They are a step of ``width`` samples unless that is 0. ``half`` samples on either side of the
    maximum go into the parabola. ``average`` (n,) is the reference to begin with, if ``begun``.
    ``judged``: the width has limits, and one that is not known is not within them.
    """

    start: int
    stop: int
    weights: NDArray[np.float64]
    width: int
    half: int
    reference: int
    convergence: float
    average: NDArray[np.float64]
    begun: bool
    polynomial: NDArray[np.float64]
    limits: NDArray[np.float64]
    judged: bool


class Reference(NamedTuple):
    """Running average (n,) of shots without x-rays, its mean (1,), their number (1,), and room."""

    average: NDArray[np.float64]
    level: NDArray[np.float64]
    shots: NDArray[np.int64]
    signal: NDArray[np.float64]
    filtered: NDArray[np.float64]
    sums: NDArray[np.float64]


class Edge(NamedTuple):
    """The edge of one shot; NaN where none could be looked for or none lies inside."""

    time: Annotated[float, Feature("ps", "arrival time, NaN unless the edge is good")]
    position: Annotated[float, Feature("pixel", "where the edge is, from the first sample")]
    amplitude: Annotated[
        float, Feature("1", "largest filtered value, in units of the trace unless divided")
    ]
    next_amplitude: Annotated[
        float, Feature("1", "the same, a filter's length or more away from the largest")
    ]
    fwhm: Annotated[float, Feature("pixel", "full width at half maximum of the filtered trace")]
    reference: Annotated[float, Feature("@", "mean of the reference over the region")]
    reference_shots: Annotated[
        int, Feature("1", "shots without x-rays that the reference rests on")
    ]
    good: Annotated[bool, Feature("1", "whether an edge was found and is within all limits")]
    reason: Annotated[
        int,
        Feature(
            "1",
            "why there is no time: 0 there is, 1 no x-rays, 2 no laser, 3 no reference yet,"
            " 4 trace not finite, 5 no edge inside, 6 amplitude or 7 fwhm beyond its limits",
        ),
    ]


@reducer(version=4)
def time_tool_edge(
    trace: Waveform, xray: Value, laser: Value, constants: Constants, memory: Reference
) -> Edge:
    """Edge of a time-tool trace by a matched filter, against shots without x-rays.

    ``xray`` and ``laser`` are the columns ``lightStatus/xray`` and ``lightStatus/laser``: shots of
    0 x-rays make the reference and have no edge themselves, those of 0 laser, in which the time
    tool sees nothing, do neither; of an unknown light (-1) both are taken to be there. The trace
    over (or minus) the reference is correlated with the filter; a parabola through the maximum,
    fitted over a tenth of the filter's length on either side as in smalldata_tools' re-analysis,
    gives the position to a fraction of a sample. A trace that steps between samples i and i + 1 has
    it at i + 1/2 (smalldata_tools: at i + 0.95). ``reason`` tells why there is no time. Of a
    camera, the trace is the ``sum`` of ``projection``, or of ``curved_projection``, which
    straightens a tilted edge and takes off a ``background``, what smalldata_tools calls a sideband.

    The reference is a memory. It is the mean of the first 1/``convergence`` shots without x-rays,
    and then follows them exponentially. Each producer learns its own from the shots that it gets:
    of N producers, or ranks, each follows a drift N times as slowly in time, and they agree as
    well as the means of so many shots do. A new run, other parameters and a producer that was
    started again begin anew, with ``start`` if it is given; a shot before there is any reference
    has ``reason`` 3, and ``reference_shots`` says what each stands on.
    """
    c, nan = constants, np.nan
    n = c.stop - c.start
    average, signal, filtered = memory.average, memory.signal, memory.filtered
    part, total = trace[c.start : c.stop], 0.0
    for i in range(n):
        signal[i] = np.float64(part[i])
        total += signal[i]
    finite = np.isfinite(total)
    if xray == 0 and laser != 0 and finite:
        rate = c.convergence if c.begun else max(c.convergence, 1.0 / (memory.shots[0] + 1))
        level = 0.0
        for i in range(n):
            average[i] += rate * (signal[i] - average[i])
            level += average[i]
        memory.level[0] = level / n
        memory.shots[0] += 1
    known, level = memory.shots[0], memory.level[0]
    reason = 0
    if xray == 0:
        reason = DARK
    elif laser == 0:
        reason = NO_LASER
    elif c.reference != 2 and not (known or c.begun):
        reason = UNREFERENCED
    elif not finite:
        reason = NOT_FINITE
    if reason:
        return Edge(nan, nan, nan, nan, nan, level, known, False, reason)
    if c.reference == 0:
        for i in range(n):
            signal[i] = signal[i] / average[i] if average[i] > 0.0 else 1.0
    elif c.reference == 1:
        for i in range(n):
            signal[i] -= average[i]
    if c.width:
        correlate_step(signal, c.width, np.sign(c.weights[-1]), memory.sums, filtered)
    else:
        correlate(signal, c.weights, filtered)
    at, away, second = highest(filtered), c.weights.size, nan
    for part in (filtered[: max(at - away + 1, 0)], filtered[at + away :]):
        if part.size and not part[highest(part)] <= second:
            second = part[highest(part)]
    amplitude = filtered[at]
    fwhm = width_at_half(filtered, at)
    position = c.start + summit(filtered, at, c.half) + 0.5 * (c.weights.size - 1)
    if not np.isfinite(position):
        reason = NO_EDGE
    elif not (amplitude >= c.limits[0, 0] and amplitude <= c.limits[0, 1]):
        reason = AMPLITUDE
    elif c.judged and not (fwhm >= c.limits[1, 0] and fwhm <= c.limits[1, 1]):
        reason = WIDTH
    good, time = reason == 0, 0.0
    for k in range(c.polynomial.size - 1, -1, -1):
        time = time * position + c.polynomial[k]
    found = time if good else nan
    return Edge(found, position, amplitude, second, fwhm, level, known, good, reason)


@time_tool_edge.memory
def unknown(constants: Constants) -> Reference:
    """Nothing seen yet: the reference is the one to begin with."""
    n = constants.stop - constants.start
    places = n - constants.weights.size + 1
    level = constants.average.mean() if constants.begun else np.nan
    return Reference(
        constants.average.copy(), np.full(1, level), np.zeros(1, np.int64), np.zeros(n),
        np.zeros(places), np.zeros(n + 1),
    )  # fmt: skip


def _row(name: str, path: Path) -> NDArray[np.float64]:
    """Numbers of a .npy file; ``ValueError`` says what it holds instead."""
    try:
        (row,) = read(path, name)
    except ValueError as e:
        raise ValueError(f"{name}: {e}") from e
    if row.ndim != 1 or not row.size or not np.isfinite(row).all():
        raise ValueError(
            f"{name}: {path} holds an array {row.shape}; one row of finite numbers is needed"
        )
    return row.astype(np.float64)


def _begin(path: Path, start: int, stop: int, size: int) -> NDArray[np.float64]:
    """The reference to begin with, of the region or of the whole trace."""
    row = _row("start", path)
    if row.size == size:
        return row[start:stop]
    if row.size == stop - start:
        return row
    raise ValueError(
        f"start: {path} holds {row.size} numbers; the region has {stop - start} samples, the trace"
        f" {size}"
    )


def _weights(params: Params) -> NDArray[np.float64]:
    """The filter, with its maximum at an edge."""
    if params.weights is not None:
        rising = _row("weights", params.weights)
    elif params.width < 1:
        raise ValueError(f"width: {params.width} samples make no filter; at least 1")
    else:
        rising = np.repeat([-1.0, 1.0], params.width) / params.width
    return rising if params.rising else -rising


@time_tool_edge.prepare
def checked(params: Params, inputs: Mapping[str, Input]) -> Constants:
    """Fit the filter into the trace; ``ValueError`` lists what does not go."""
    (size,) = inputs["trace"].shape
    start, stop = params.region or (0, size)
    problems = polynomial_problems("polynomial", params.polynomial)
    weights, table = np.zeros(1), np.empty((2, 2))
    average = np.zeros(max(stop - start, 0))
    if not 0 <= start < stop <= size:
        problems.append(f"region: [{start}, {stop}] is not part of the trace, samples 0..{size}")
    with noted(problems):
        weights = _weights(params)
    half = max(1, weights.size // 10)
    if 0 <= start < stop <= size and weights.size + 2 * half > stop - start:
        problems.append(
            f"region: {stop - start} samples are too few for a filter of {weights.size}; at least"
            f" {weights.size + 2 * half}"
        )
    if params.reference not in REFERENCES:
        known = ", ".join(map(repr, REFERENCES))
        problems.append(f"reference: there is no {params.reference!r}; known: {known}")
    if params.start is not None:
        with noted(problems):
            average = _begin(params.start, start, stop, size)
    if not 0 < params.convergence <= 1:
        problems.append(f"convergence: {params.convergence} is not above 0 and at most 1")
    for k, name in enumerate(("amplitude", "fwhm")):
        with noted(problems):
            table[k] = limits(name, getattr(params, name))
    if problems:
        raise ValueError("\n".join(problems))
    return Constants(
        start,
        stop,
        weights,
        params.width if params.weights is None else 0,
        half,
        REFERENCES[params.reference],
        params.convergence,
        average,
        params.start is not None,
        np.array(params.polynomial, np.float64),
        table,
        params.fwhm is not None,
    )


def example() -> tuple[Params, dict[str, Input]]:
    """Parameters, and inputs to try them on."""
    trace = Input("value", "<f4", (64,), "ADU")
    params = Params((-1.0, 0.05), width=6, reference="difference")
    return params, {"trace": trace, **dict.fromkeys(("xray", "laser"), Input("value", "<i1", ()))}
