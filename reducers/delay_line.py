"""Hits of a delay-line anode: where and when particles struck, from times at its ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb import Feature, Vector, reducer
from ffb.loops.compile import kernel
from ffb.reducers.anode import Times, alone, anode_problems
from ffb.shot import Input


class Params(NamedTuple):
    """Which times belong together, and what they are in millimetres.

    ``sum_x`` and ``sum_y`` [ns] are windows of the time sum of a layer, t1 + t2 - 2 mcp, which is
    the same wherever a particle strikes; ``reach`` [ns] is the largest difference t1 - t2 of its
    ends; ``scale_x`` and ``scale_y`` [mm/ns] turn differences into positions. Up to ``capacity``
    hits are kept. ``rebuild`` takes also hits of which one end of one layer is missing.

    From a parameter file of RoentDek's sorter, as psana's DLDProcessor reads it: a window is
    -offset -/+ half width of the time sum, ``reach`` the runtime, and a scale half of the file's
    scale factor.
    """

    sum_x: tuple[float, float]
    sum_y: tuple[float, float]
    reach: float
    scale_x: float = 1.0
    scale_y: float = 1.0
    capacity: int = 16
    rebuild: bool = False


class Constants(NamedTuple):
    """The same, checked: windows (2, 2) and scales (2,) of the layers x and y."""

    windows: NDArray[np.float64]
    scales: NDArray[np.float64]
    reach: float
    capacity: int
    rebuild: bool


class Hits(NamedTuple):
    """Hits in the order of the MCP's times; places beyond the last are NaN."""

    n: Annotated[int, Feature("1", "hits with a pair in both layers, also beyond the capacity")]
    incomplete: Annotated[int, Feature("1", "times of the MCP without a pair in both layers")]
    x: Annotated[Vector, Feature("mm", "position along x", ("hit",), "<f8", length="n")]
    y: Annotated[Vector, Feature("mm", "position along y", ("hit",), "<f8", length="n")]
    time: Annotated[Vector, Feature("ns", "time of the MCP", ("hit",), "<f8", length="n")]
    sum_x: Annotated[Vector, Feature("ns", "time sum of the layer x", ("hit",), "<f8", length="n")]
    sum_y: Annotated[Vector, Feature("ns", "time sum of the layer y", ("hit",), "<f8", length="n")]
    rebuilt: Annotated[
        Vector,
        Feature(
            "1", "layer of which an end was missing: 1 for x, 2 for y, 0 for none", ("hit",), "<i4",
            length="n", when="rebuild",
        ),
    ]  # fmt: skip
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


@kernel
def other_end(
    mcp: float,
    first: NDArray[Any],
    second: NDArray[Any],
    taken: NDArray[np.bool_],
    window: NDArray[np.float64],
    reach: float,
) -> Any:
    """Find the only free time of two ends that may be of a particle: places, and t1 - t2.

    The place of the missing end is -1; the difference is NaN if there is no such time, or several.
    """
    middle = 0.5 * (window[0] + window[1])
    n, i, one = alone(mcp, first, taken[0], middle, reach)
    m, j, two = alone(mcp, second, taken[1], middle, reach)
    if n + m != 1:
        return -1, -1, np.nan
    return (i, -1, one) if n else (-1, j, -two)


@kernel
def take(taken: NDArray[np.bool_], first: int, second: int) -> None:
    """Mark times at these places as ``taken``, those that are not -1."""
    if first >= 0:
        taken[0, first] = True
    if second >= 0:
        taken[1, second] = True


@reducer(version=1)
def delay_line(
    mcp: Times, x1: Times, x2: Times, y1: Times, y2: Times, constants: Constants
) -> Hits:
    """Hits of a delay-line anode with two layers (quad), from lists of times [ns].

    The lists are those of ``waveform_cfd`` or ``waveform_hits``: unused places are NaN. For every
    time of the MCP, in the order of the list, each layer gives the pair of times of its two ends
    whose sum is in the window and nearest to its middle, of those that no hit before has taken.
    Two pairs make a hit, and only then are they taken. Position is (t1 - t2) scale.

    With ``rebuild``, times of the MCP that are left then take a pair in one layer and one time in
    the other, where exactly one time of either end is free and within ``reach``: the missing one is
    where the time sum is in the middle of its window; ``sum_x`` or ``sum_y`` is NaN.
    """
    c, n, incomplete = constants, 0, 0
    found, lacks = np.full((mcp.size, 5), np.nan), np.full(mcp.size, -1, np.int32)
    of_x = np.zeros((2, max(x1.size, x2.size)), np.bool_)
    of_y = np.zeros((2, max(y1.size, y2.size)), np.bool_)
    for rebuilding in (False, True):
        for at in range(mcp.size if c.rebuild or not rebuilding else 0):
            t = mcp[at]
            if t != t or lacks[at] >= 0:
                continue
            i, j = pair(t, x1, x2, of_x, c.windows[0], c.reach)
            k, m = pair(t, y1, y2, of_y, c.windows[1], c.reach)
            across, along, missing = np.nan, np.nan, -1
            if i >= 0 and k >= 0:
                missing = 0
            elif rebuilding and k >= 0:
                i, j, across = other_end(t, x1, x2, of_x, c.windows[0], c.reach)
                missing = 1 if across == across else -1
            elif rebuilding and i >= 0:
                k, m, along = other_end(t, y1, y2, of_y, c.windows[1], c.reach)
                missing = 2 if along == along else -1
            if missing < 0:
                continue
            take(of_x, i, j)
            take(of_y, k, m)
            if missing != 1:
                across, found[at, 3] = x1[i] - x2[j], x1[i] + x2[j] - 2.0 * t
            if missing != 2:
                along, found[at, 4] = y1[k] - y2[m], y1[k] + y2[m] - 2.0 * t
            found[at, 0], found[at, 1] = across * c.scales[0], along * c.scales[1]
            found[at, 2], lacks[at] = t, missing
    out, rebuilt = np.full((5, c.capacity), np.nan), np.zeros(c.capacity, np.int32)
    for at in range(mcp.size):
        if lacks[at] >= 0 and n < c.capacity:
            out[:, n], rebuilt[n] = found[at], lacks[at]
        n += lacks[at] >= 0
        incomplete += mcp[at] == mcp[at] and lacks[at] < 0
    return Hits(
        n, incomplete, out[0], out[1], out[2], out[3], out[4], rebuilt, n > c.capacity
    )  # fmt: skip


@delay_line.prepare
def check(params: Params, inputs: Mapping[str, Input]) -> Constants:
    """Check windows and scales; ``ValueError`` lists what cannot be."""
    p = params
    sums, scale = {"sum_x": p.sum_x, "sum_y": p.sum_y}, {"scale_x": p.scale_x, "scale_y": p.scale_y}
    problems = list(anode_problems(sums, p.reach, scale, p.capacity, inputs))
    if problems:
        raise ValueError("\n".join(problems))
    windows, scales = np.array([p.sum_x, p.sum_y]), np.array([p.scale_x, p.scale_y])
    return Constants(windows, scales, p.reach, p.capacity, p.rebuild)


def example() -> tuple[Params, dict[str, Input]]:
    """Parameters, and inputs to try them on."""
    times = Input("value", "<f8", (6,), "ns")
    params = Params((-30.0, 60.0), (-50.0, 90.0), 80.0, 0.7, 0.8, capacity=4, rebuild=True)
    return params, dict.fromkeys(("mcp", "x1", "x2", "y1", "y2"), times)
