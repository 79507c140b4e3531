"""Hits of a delay-line anode of three layers (hexanode), from times at its ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb import Feature, Vector, Waveform, reducer
from ffb.loops.compile import kernel
from ffb.reducers.anode import anode_problems
from ffb.shot import Input

U, V, W = range(3)


class Params(NamedTuple):
    """Which times belong together, and what they are in millimetres.

    ``sum_u``, ``sum_v`` and ``sum_w`` [ns] are windows of the time sum of a layer, t1 + t2 - 2 mcp,
    which is the same wherever a particle strikes; ``reach`` [ns] is the largest difference t1 - t2
    of its ends. ``scale_u``, ``scale_v`` and ``scale_w`` [mm/ns] turn differences into positions
    along the layers, and ``offset_w`` [mm] is added to that of w, so that u = v + w for every
    particle; ``tolerance`` [mm] is by how much that may fail. Up to ``capacity`` hits are kept.
    """

    sum_u: tuple[float, float]
    sum_v: tuple[float, float]
    sum_w: tuple[float, float]
    reach: float
    tolerance: float
    scale_u: float = 1.0
    scale_v: float = 1.0
    scale_w: float = 1.0
    offset_w: float = 0.0
    capacity: int = 16


class Constants(NamedTuple):
    """The same, checked: windows (3, 2), scales (3,) and offsets (3,) of the layers u, v, w."""

    windows: NDArray[np.float64]
    scales: NDArray[np.float64]
    offsets: NDArray[np.float64]
    reach: float
    tolerance: float
    capacity: int


class Hits(NamedTuple):
    """Hits in the order of the MCP's times; places beyond the last are NaN, or 0 in ``layers``."""

    n: Annotated[int, Feature("1", "hits with pairs in two layers, also beyond the capacity")]
    incomplete: Annotated[int, Feature("1", "times of the MCP without pairs in two layers")]
    x: Annotated[Vector, Feature("mm", "position along x, which is u", ("hit",), "<f8", length="n")]
    y: Annotated[Vector, Feature("mm", "position along y", ("hit",), "<f8", length="n")]
    time: Annotated[Vector, Feature("ns", "time of the MCP", ("hit",), "<f8", length="n")]
    residual: Annotated[
        Vector,
        Feature(
            "mm", "u - v - w of hits in all layers, NaN of others", ("hit",), "<f8", length="n"
        ),
    ]
    sum_u: Annotated[Vector, Feature("ns", "time sum of the layer u", ("hit",), "<f8", length="n")]
    sum_v: Annotated[Vector, Feature("ns", "time sum of the layer v", ("hit",), "<f8", length="n")]
    sum_w: Annotated[Vector, Feature("ns", "time sum of the layer w", ("hit",), "<f8", length="n")]
    layers: Annotated[
        Vector,
        Feature(
            "1", "layers it is from: 1 for u, 2 for v, 4 for w, added", ("hit",), "<i4", length="n"
        ),
    ]
    overflow: Annotated[bool, Feature("1", "whether there were more hits than the capacity")]


class Pairs(NamedTuple):
    """Pairs of times that may be of one particle, by layer.

    ``n`` (3,) counts them; ``ends`` (3, most, 2) are the places of their times; ``values``
    (3, most, 3) are position [mm], time sum [ns], and the square of how far the sum is off the
    middle of its window, in half widths.
    """

    n: NDArray[np.int64]
    ends: NDArray[np.int64]
    values: NDArray[np.float64]


@kernel
def find_pairs(
    mcp: float, times: NDArray[Any], taken: NDArray[np.bool_], constants: Any, pairs: Any
) -> None:
    """Fill ``pairs`` with those of ``times`` (3, 2, places) that are free and in the windows."""
    for layer in range(3):
        lo, hi = constants.windows[layer, 0], constants.windows[layer, 1]
        n = 0
        for i in range(times.shape[2]):
            for j in range(times.shape[2]):
                difference = times[layer, 0, i] - times[layer, 1, j]
                total = times[layer, 0, i] + times[layer, 1, j] - 2.0 * mcp
                fits = lo <= total <= hi and np.abs(difference) <= constants.reach
                if not fits or taken[layer, 0, i] or taken[layer, 1, j]:
                    continue
                off = (2.0 * total - lo - hi) / (hi - lo)
                pairs.ends[layer, n, 0], pairs.ends[layer, n, 1] = i, j
                pairs.values[layer, n, 0] = (
                    difference * constants.scales[layer] + constants.offsets[layer]
                )
                pairs.values[layer, n, 1], pairs.values[layer, n, 2] = total, off * off
                n += 1
        pairs.n[layer] = n


@kernel
def best_of_three(pairs: Any, tolerance: float, chosen: NDArray[np.int64]) -> Any:
    """Choose a pair of every layer that agree best; whether there are any that agree.

    Least is the sum of the squares of how far each sum is off, and u - v - w by ``tolerance``.
    """
    best, values = np.inf, pairs.values
    for a in range(pairs.n[U]):
        for b in range(pairs.n[V]):
            of_two = values[U, a, 2] + values[V, b, 2]
            if of_two >= best:
                continue
            for c in range(pairs.n[W]):
                residual = values[U, a, 0] - values[V, b, 0] - values[W, c, 0]
                off = residual / tolerance
                cost = of_two + values[W, c, 2] + off * off
                if np.abs(residual) <= tolerance and cost < best:
                    best = cost
                    chosen[U], chosen[V], chosen[W] = a, b, c
    return best < np.inf


@kernel
def best_of_two(pairs: Any, chosen: NDArray[np.int64]) -> Any:
    """Choose the pair of every layer whose sum is least off, and leave out the worst layer, -1."""
    worst, most, missing = 0, -1.0, 0
    for layer in range(3):
        least = np.inf
        chosen[layer] = -1
        for a in range(pairs.n[layer]):
            if pairs.values[layer, a, 2] < least:
                least, chosen[layer] = pairs.values[layer, a, 2], a
        missing += pairs.n[layer] == 0
        if least >= most:
            worst, most = layer, least
    chosen[worst] = -1
    return missing < 2


@kernel
def position(pairs: Any, chosen: NDArray[np.int64]) -> Any:
    """Place x, y [mm] of a hit, and its residual u - v - w; of two layers NaN."""
    u = pairs.values[U, chosen[U], 0] if chosen[U] >= 0 else np.nan
    v = pairs.values[V, chosen[V], 0] if chosen[V] >= 0 else np.nan
    w = pairs.values[W, chosen[W], 0] if chosen[W] >= 0 else np.nan
    residual = u - v - w
    if chosen[W] < 0:
        w = u - v
    elif chosen[V] < 0:
        v = u - w
    elif chosen[U] < 0:
        u = v + w
    else:
        u -= residual / 3.0
        v += residual / 3.0
        w += residual / 3.0
    return u, (w - v) / np.sqrt(3.0), residual


@reducer(version=1)
def delay_line_hex(
    mcp: Waveform,
    u1: Waveform,
    u2: Waveform,
    v1: Waveform,
    v2: Waveform,
    w1: Waveform,
    w2: Waveform,
    constants: Constants,
) -> Hits:
    """Hits of a delay-line anode with three layers (hex), from lists of times [ns].

    The lists are those of ``waveform_cfd`` or ``waveform_hits``: unused places are NaN. Layers are
    turned by 60 degrees: x = u and y = (w - v) / sqrt(3), with u = v + w, so that any two tell the
    position: (u - 2 v) / sqrt(3), (2 w - u) / sqrt(3) and x = v + w (Jagutzki et al., IEEE Trans.
    Nucl. Sci. 49, 2477, 2002). First every time of the MCP, in the order of the list, gets the
    pairs of all three layers that agree best, by their time sums and by u - v - w; position is the
    mean of those of any two layers, which is the least-squares one. Times that are left then serve
    where only two layers agree, or have seen the particle: those whose time sums are least off.
    No time is taken twice. Narrow windows keep it quick: all combinations of pairs are weighed.
    """
    c, room = constants, max(u1.size, u2.size, v1.size, v2.size, w1.size, w2.size)
    times = np.full((3, 2, room), np.nan)
    times[U, 0, : u1.size], times[U, 1, : u2.size] = u1, u2
    times[V, 0, : v1.size], times[V, 1, : v2.size] = v1, v2
    times[W, 0, : w1.size], times[W, 1, : w2.size] = w1, w2
    taken = np.zeros((3, 2, room), np.bool_)
    most = room * room
    pairs = Pairs(np.zeros(3, np.int64), np.zeros((3, most, 2), np.int64), np.zeros((3, most, 3)))
    chosen = np.zeros(3, np.int64)
    found, seen = np.full((mcp.size, 7), np.nan), np.zeros(mcp.size, np.int32)
    for together in (True, False):
        for k in range(mcp.size):
            if mcp[k] != mcp[k] or seen[k] != 0:
                continue
            find_pairs(mcp[k], times, taken, c, pairs)
            if not (
                best_of_three(pairs, c.tolerance, chosen)
                if together
                else best_of_two(pairs, chosen)
            ):
                continue
            found[k, 0], found[k, 1], found[k, 3] = position(pairs, chosen)
            found[k, 2] = mcp[k]
            for layer in range(3):
                if chosen[layer] >= 0:
                    a = chosen[layer]
                    taken[layer, 0, pairs.ends[layer, a, 0]] = True
                    taken[layer, 1, pairs.ends[layer, a, 1]] = True
                    found[k, 4 + layer] = pairs.values[layer, a, 1]
                    seen[k] += 1 << layer
    out, layers = np.full((7, c.capacity), np.nan), np.zeros(c.capacity, np.int32)
    n, incomplete = 0, 0
    for k in range(mcp.size):
        if seen[k] != 0 and n < c.capacity:
            out[:, n], layers[n] = found[k], seen[k]
        n += seen[k] != 0
        incomplete += mcp[k] == mcp[k] and seen[k] == 0
    return Hits(
        n, incomplete, out[0], out[1], out[2], out[3], out[4], out[5], out[6], layers,
        n > c.capacity,
    )  # fmt: skip


@delay_line_hex.prepare
def check(params: Params, inputs: Mapping[str, Input]) -> Constants:
    """Check windows and scales; ``ValueError`` lists what cannot be."""
    p = params
    sums = {"sum_u": p.sum_u, "sum_v": p.sum_v, "sum_w": p.sum_w}
    scales = {"scale_u": p.scale_u, "scale_v": p.scale_v, "scale_w": p.scale_w}
    problems = list(anode_problems(sums, p.reach, scales, p.capacity, inputs))
    if not np.isfinite(p.offset_w):
        problems.append(f"offset_w: {p.offset_w} mm is no offset")
    if not 0 < p.tolerance < np.inf:
        problems.append(f"tolerance: {p.tolerance} mm must be above 0")
    if problems:
        raise ValueError("\n".join(problems))
    windows, offsets = np.array(list(sums.values())), np.array([0.0, 0.0, p.offset_w])
    by_layer = (windows, np.array(list(scales.values())), offsets)
    return Constants(*by_layer, p.reach, p.tolerance, p.capacity)


def example() -> tuple[Params, dict[str, Input]]:
    """Parameters, and inputs to try them on."""
    times = Input("value", "<f8", (6,), "ns")
    params = Params(
        (-30.0, 60.0), (-50.0, 90.0), (-40.0, 80.0), 80.0, 30.0, 0.7, 0.8, 0.75, 1.5, capacity=4
    )
    return params, dict.fromkeys(("mcp", "u1", "u2", "v1", "v2", "w1", "w2"), times)
