"""Hits of a delay-line anode: where and when particles struck, from times at its ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb import Feature, Vector, Waveform, reducer
from ffb.loops.compile import kernel
from ffb.reducers.anode import anode_problems
from ffb.shot import Input


class Params(NamedTuple):
    """Which times belong together, and what they are in millimetres.

    ``sum_x`` and ``sum_y`` [ns] are windows of the time sum of a layer, t1 + t2 - 2 mcp, which is
    the same wherever a particle strikes; ``reach`` [ns] is the largest difference t1 - t2 of its
    ends; ``scale_x`` and ``scale_y`` [mm/ns] turn differences into positions. Up to ``capacity``
    hits are kept.
    """

    sum_x: tuple[float, float]
    sum_y: tuple[float, float]
    reach: float
    scale_x: float = 1.0
    scale_y: float = 1.0
    capacity: int = 16


class Constants(NamedTuple):
    """The same, checked: windows (2, 2) and scales (2,) of the layers x and y."""

    windows: NDArray[np.float64]
    scales: NDArray[np.float64]
    reach: float
    capacity: int


class Hits(NamedTuple):
    """Hits in the order of the MCP's times; places beyond the last are NaN."""

    n: Annotated[int, Feature("1", "hits with a pair in both layers, also beyond the capacity")]
    incomplete: Annotated[int, Feature("1", "times of the MCP without a pair in both layers")]
    x: Annotated[Vector, Feature("mm", "position along x", ("hit",), "<f8", length="n")]
    y: Annotated[Vector, Feature("mm", "position along y", ("hit",), "<f8", length="n")]
    time: Annotated[Vector, Feature("ns", "time of the MCP", ("hit",), "<f8", length="n")]
    sum_x: Annotated[Vector, Feature("ns", "time sum of the layer x", ("hit",), "<f8", length="n")]
    sum_y: Annotated[Vector, Feature("ns", "time sum of the layer y", ("hit",), "<f8", length="n")]
    overflow: Annotated[bool, Feature("1", "whether there were more hits than the capacity")]


@kernel
def pair(
    mcp: float,
    first: NDArray[Any],
    second: NDArray[Any],
    taken: NDArray[np.bool_],
    window: NDArray[np.float64],
    reach: float,
) -> Any:
    """Find the free times of two ends whose sum is nearest to the middle of the window.

    ``taken`` (2, n) says which times of either end are used. Gives their places, -1 without a
    pair; of equals it is the earliest place.
    """
    middle, best = 0.5 * (window[0] + window[1]), np.inf
    a, b = -1, -1
    for i in range(first.size):
        for j in range(second.size):
            total = first[i] + second[j] - 2.0 * mcp
            inside = window[0] <= total <= window[1] and np.abs(first[i] - second[j]) <= reach
            off = np.abs(total - middle)
            if inside and not taken[0, i] and not taken[1, j] and off < best:
                best, a, b = off, i, j
    return a, b


@reducer(version=1)
def delay_line(
    mcp: Waveform, x1: Waveform, x2: Waveform, y1: Waveform, y2: Waveform, constants: Constants
) -> Hits:
    """Hits of a delay-line anode with two layers (quad), from lists of times [ns].

    The lists are those of ``waveform_cfd`` or ``waveform_hits``: unused places are NaN. For every
    time of the MCP, in the order of the list, each layer gives the pair of times of its two ends
    whose sum is in the window and nearest to its middle, of those that no hit before has taken.
    Two pairs make a hit, and only then are they taken. Position is (t1 - t2) scale.
    """
    c, n, incomplete = constants, 0, 0
    out = np.full((5, c.capacity), np.nan)
    of_x = np.zeros((2, max(x1.size, x2.size)), np.bool_)
    of_y = np.zeros((2, max(y1.size, y2.size)), np.bool_)
    for t in mcp:
        if t != t:
            continue
        i, j = pair(t, x1, x2, of_x, c.windows[0], c.reach)
        k, m = pair(t, y1, y2, of_y, c.windows[1], c.reach)
        if i < 0 or k < 0:
            incomplete += 1
            continue
        of_x[0, i], of_x[1, j], of_y[0, k], of_y[1, m] = True, True, True, True
        if n < c.capacity:
            out[0, n] = (x1[i] - x2[j]) * c.scales[0]
            out[1, n] = (y1[k] - y2[m]) * c.scales[1]
            out[2, n] = t
            out[3, n] = x1[i] + x2[j] - 2.0 * t
            out[4, n] = y1[k] + y2[m] - 2.0 * t
        n += 1
    return Hits(n, incomplete, out[0], out[1], out[2], out[3], out[4], n > c.capacity)


@delay_line.prepare
def check(params: Params, inputs: Mapping[str, Input]) -> Constants:
    """Check windows and scales; ``ValueError`` lists what cannot be."""
    p = params
    sums, scale = {"sum_x": p.sum_x, "sum_y": p.sum_y}, {"scale_x": p.scale_x, "scale_y": p.scale_y}
    problems = list(anode_problems(sums, p.reach, scale, p.capacity, inputs))
    if problems:
        raise ValueError("\n".join(problems))
    windows, scales = np.array([p.sum_x, p.sum_y]), np.array([p.scale_x, p.scale_y])
    return Constants(windows, scales, p.reach, p.capacity)


def example() -> tuple[Params, dict[str, Input]]:
    """Parameters, and inputs to try them on."""
    times = Input("value", "<f8", (6,), "ns")
    params = Params((-30.0, 60.0), (-50.0, 90.0), 80.0, 0.7, 0.8, capacity=4)
    return params, dict.fromkeys(("mcp", "x1", "x2", "y1", "y2"), times)
