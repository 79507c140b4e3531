"""Arrival time from a raw time-tool trace: reference, matched filter, sub-pixel edge."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb import Feature, Value, Waveform, reducer
from ffb.loops.compile import kernel
from ffb.reducers.quality import limits, polynomial_problems
from ffb.shot import Input

#: What the trace is held against, by its name.
REFERENCES = {"ratio": 0, "difference": 1, "none": 2}


class Params(NamedTuple):
    """How an edge is sought, and which is believed.

    ``region`` [samples, half-open] is searched, the whole trace without it. The filter is a step
    of ``width`` samples on either side, or the array of the .npy file ``weights``; ``rising`` says
    whether the trace steps up. ``reference`` is ``"ratio"`` or ``"difference"`` with the running
    average of shots without x-rays, into which each enters with ``convergence``; ``"none"`` takes
    the trace as it is. ``polynomial`` [ps, ps/pixel, ...] makes a time of the position, constant
    first; ``amplitude`` and ``fwhm`` [samples] are the least and largest of a good edge.
    """

    polynomial: tuple[float, ...]
    region: tuple[int, int] | None = None
    width: int = 50
    weights: Path | None = None
    rising: bool = False
    reference: str = "ratio"
    convergence: float = 0.05
    amplitude: tuple[float, float] | None = None
    fwhm: tuple[float, float] | None = None


class Constants(NamedTuple):
    """The same, checked: ``weights`` (m,) float64 give a maximum where the edge is.

    ``half`` samples on either side of the maximum go into the parabola.
    """

    start: int
    stop: int
    weights: NDArray[np.float64]
    half: int
    reference: int
    convergence: float
    polynomial: NDArray[np.float64]
    limits: NDArray[np.float64]


class Reference(NamedTuple):
    """Running average (n,) of shots without x-rays, their number (1,), and room for a shot."""

    average: NDArray[np.float64]
    shots: NDArray[np.int64]
    signal: NDArray[np.float64]
    filtered: NDArray[np.float64]


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


@kernel
def correlate(signal: Any, weights: Any, out: Any) -> None:
    """Fill ``out`` (n - m + 1,) with the filter's answer at every place where it fits."""
    for k in range(out.size):
        out[k] = 0.0
    for i in range(weights.size):
        w, shifted = weights[i], signal[i : i + out.size]
        for k in range(out.size):
            out[k] += w * shifted[k]


@kernel
def summit(y: Any, at: int, half: int) -> Any:
    """Abscissa of the parabola through ``y`` around its maximum ``at``; NaN where it has none.

    Least squares over ``half`` samples on either side.
    """
    if at < half or at + half >= y.size:
        return np.nan
    s0, s1, s2, n = 0.0, 0.0, 0.0, 2 * half + 1
    x2, x4 = 0.0, 0.0
    for j in range(-half, half + 1):
        v, xx = y[at + j], np.float64(j * j)
        s0 += v
        s1 += j * v
        s2 += xx * v
        x2 += xx
        x4 += xx * xx
    curvature = (n * s2 - x2 * s0) / (n * x4 - x2 * x2)
    shift = -0.5 * (s1 / x2) / curvature if curvature < 0.0 else np.nan
    return at + shift if abs(shift) <= half else np.nan


@kernel
def width_at_half(y: Any, at: int) -> Any:
    """Width of the peak ``at`` at half of its height; NaN where ``y`` does not come down to it."""
    level, left, right = 0.5 * y[at], at, at
    while left > 0 and y[left] > level:
        left -= 1
    while right < y.size - 1 and y[right] > level:
        right += 1
    if y[left] > level or y[right] > level or left == right:
        return np.nan
    low = left + (level - y[left]) / (y[left + 1] - y[left])
    high = right - (level - y[right]) / (y[right - 1] - y[right])
    return high - low


@reducer(version=1)
def time_tool_edge(trace: Waveform, xray: Value, constants: Constants, memory: Reference) -> Edge:
    """Edge of a time-tool trace by a matched filter, against shots without x-rays.

    ``xray`` is the column ``lightStatus/xray``: shots of 0 make the reference and have no edge
    themselves. The trace over (or minus) the reference is correlated with the filter; a parabola
    through the maximum, fitted over a tenth of the filter's length on either side as in
    smalldata_tools' re-analysis, gives the position to a fraction of a sample. A trace that steps
    between samples i and i + 1 has it at i + 1/2.

    The reference is a memory: each producer learns its own from the shots it gets, starting with
    the first one, and ``reference_shots`` tells how many there were. Until there is one, and with a
    trace that is not finite, features are NaN.
    """
    c, nan = constants, np.nan
    n = c.stop - c.start
    average, signal, filtered = memory.average, memory.signal, memory.filtered
    total = 0.0
    for i in range(n):
        signal[i] = np.float64(trace[c.start + i])
        total += signal[i]
    finite = np.isfinite(total)
    if xray == 0 and finite:
        rate = c.convergence if memory.shots[0] else 1.0
        for i in range(n):
            average[i] += rate * (signal[i] - average[i])
        memory.shots[0] += 1
    known = memory.shots[0]
    level = average.mean() if known else nan
    if xray == 0 or not finite or (c.reference != 2 and known == 0):
        return Edge(nan, nan, nan, nan, nan, level, known, False)
    if c.reference == 0:
        for i in range(n):
            signal[i] = signal[i] / average[i] if average[i] > 0.0 else 1.0
    elif c.reference == 1:
        for i in range(n):
            signal[i] -= average[i]
    correlate(signal, c.weights, filtered)
    at = 0
    for k in range(filtered.size):
        if filtered[k] > filtered[at]:
            at = k
    second, away = nan, c.weights.size
    for k in range(filtered.size):
        if abs(k - at) >= away and not filtered[k] <= second:
            second = filtered[k]
    amplitude = filtered[at]
    fwhm = width_at_half(filtered, at)
    position = c.start + summit(filtered, at, c.half) + 0.5 * (c.weights.size - 1)
    good = np.isfinite(position)
    good &= (amplitude >= c.limits[0, 0]) & (amplitude <= c.limits[0, 1])
    good &= (fwhm >= c.limits[1, 0]) & (fwhm <= c.limits[1, 1])
    time = 0.0
    for k in range(c.polynomial.size - 1, -1, -1):
        time = time * position + c.polynomial[k]
    return Edge(time if good else nan, position, amplitude, second, fwhm, level, known, good)


@time_tool_edge.memory
def unknown(constants: Constants) -> Reference:
    """No reference yet."""
    n = constants.stop - constants.start
    places = n - constants.weights.size + 1
    return Reference(np.zeros(n), np.zeros(1, np.int64), np.zeros(n), np.zeros(places))


def _weights(params: Params) -> NDArray[np.float64]:
    """The filter, with its maximum at an edge."""
    if params.weights is None:
        if params.width < 1:
            raise ValueError(f"width: {params.width} samples make no filter; at least 1")
        step = np.repeat([-1.0, 1.0], params.width) / params.width
    else:
        try:
            step = np.asarray(np.load(params.weights, allow_pickle=False), np.float64)
        except (OSError, ValueError, EOFError) as e:
            raise ValueError(f"weights: {params.weights} cannot be read: {e}") from e
        if step.ndim != 1 or not step.size or not np.isfinite(step).all():
            raise ValueError(
                f"weights: {params.weights} holds an array {step.shape}; a filter is one row of"
                " finite numbers"
            )
    return step if params.rising else -step


@time_tool_edge.prepare
def checked(params: Params, inputs: Mapping[str, Input]) -> Constants:
    """Fit the filter into the trace; ``ValueError`` lists what does not go."""
    (size,) = inputs["trace"].shape
    start, stop = params.region or (0, size)
    problems = polynomial_problems("polynomial", params.polynomial)
    weights, table = np.zeros(1), np.empty((2, 2))
    if not 0 <= start < stop <= size:
        problems.append(f"region: [{start}, {stop}] is no part of the trace, samples 0..{size}")
    try:
        weights = _weights(params)
    except ValueError as e:
        problems.append(str(e))
    half = max(1, weights.size // 10)
    if 0 <= start < stop <= size and weights.size + 2 * half > stop - start:
        problems.append(
            f"region: {stop - start} samples are too few for a filter of {weights.size}; at least"
            f" {weights.size + 2 * half}"
        )
    if params.reference not in REFERENCES:
        known = ", ".join(map(repr, REFERENCES))
        problems.append(f"reference: there is no {params.reference!r}; known: {known}")
    if not 0 < params.convergence <= 1:
        problems.append(f"convergence: {params.convergence} is not above 0 and at most 1")
    for k, name in enumerate(("amplitude", "fwhm")):
        try:
            table[k] = limits(name, getattr(params, name))
        except ValueError as e:
            problems.append(str(e))
    if problems:
        raise ValueError("\n".join(problems))
    return Constants(
        start,
        stop,
        weights,
        half,
        REFERENCES[params.reference],
        params.convergence,
        np.array(params.polynomial, np.float64),
        table,
    )


def example() -> tuple[Params, dict[str, Input]]:
    """Parameters, and inputs to try them on."""
    trace = Input("value", "<f4", (64,), "ADU")
    params = Params((-1.0, 0.05), width=6, reference="difference")
    return params, {"trace": trace, "xray": Input("value", "<i1", ())}
