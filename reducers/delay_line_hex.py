"""Hits of a delay-line anode of three layers (hexanode), from times at its ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb import Feature, Vector, reducer
from ffb.reducers.anode import Times, anode_problems
from ffb.reducers.anode_pairs import (
    Pairs,
    U,
    V,
    W,
    best_of_three,
    best_of_two,
    best_with_missing_end,
    find_pairs,
    position,
)
from ffb.shot import Input

#: Most pairs of a layer, so that their combinations are some millions and take some milliseconds.
PAIRS = 128


class Params(NamedTuple):
    """Which times belong together, and what they are in millimetres.

    ``sum_u``, ``sum_v`` and ``sum_w`` [ns] are windows of the time sum of a layer, t1 + t2 - 2 mcp,
    which is the same wherever a particle strikes; ``reach`` [ns] is the largest difference t1 - t2
    of its ends. ``scale_u``, ``scale_v`` and ``scale_w`` [mm/ns] turn differences into positions
    along the layers, and ``offset_w`` [mm] is added to that of w, so that u = v + w for every
    particle; ``tolerance`` [mm] is by how much that may fail. Up to ``capacity`` hits are kept.

    Of a layer at most ``pairs`` pairs of times are weighed against those of the others, those whose
    sums are least off. ``rebuild`` takes also hits of which one end is missing in a layer without
    which only one layer would be left.

    From a parameter file of RoentDek's sorter, as psana's DLDProcessor reads it: a window is
    -offset -/+ half width of the time sum, ``reach`` the runtime, a scale half of the file's scale
    factor, and ``offset_w`` [mm] the file's offset of layer w [ns] times ``scale_w``.
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
    pairs: int = 32
    rebuild: bool = False


class Constants(NamedTuple):
    """The same, checked: windows (3, 2), scales (3,) and offsets (3,) of the layers u, v, w."""

    windows: NDArray[np.float64]
    scales: NDArray[np.float64]
    offsets: NDArray[np.float64]
    reach: float
    tolerance: float
    capacity: int
    pairs: int
    rebuild: bool


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
    rebuilt: Annotated[
        Vector,
        Feature(
            "1", "those of these layers of which an end was missing", ("hit",), "<i4",
            length="n", when="rebuild",
        ),
    ]  # fmt: skip
    overflow: Annotated[bool, Feature("1", "whether there were more hits than the capacity")]
    crowded: Annotated[bool, Feature("1", "whether a layer had more pairs than were weighed")]


@reducer(version=1)
def delay_line_hex(
    mcp: Times,
    u1: Times,
    u2: Times,
    v1: Times,
    v2: Times,
    w1: Times,
    w2: Times,
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
    No time is taken twice.

    With ``rebuild``, times of the MCP that are left and have a pair in one layer alone then take
    one time in others, where exactly one time of either end is free and within ``reach``: the
    missing one is where the time sum is in the middle of its window, and that sum is NaN. Two such
    layers have to agree. The time of an MCP that missed the particle is not rebuilt.
    """
    c, room = constants, max(u1.size, u2.size, v1.size, v2.size, w1.size, w2.size)
    times = np.full((3, 2, room), np.nan)
    times[U, 0, : u1.size], times[U, 1, : u2.size] = u1, u2
    times[V, 0, : v1.size], times[V, 1, : v2.size] = v1, v2
    times[W, 0, : w1.size], times[W, 1, : w2.size] = w1, w2
    taken = np.zeros((3, 2, room), np.bool_)
    most = min(room * room, c.pairs)
    pairs = Pairs(np.zeros(3, np.int64), np.zeros((3, most, 2), np.int64), np.zeros((3, most, 3)))
    chosen = np.zeros(3, np.int64)
    found, seen = np.full((mcp.size, 7), np.nan), np.zeros(mcp.size, np.int32)
    lacks, crowded = np.zeros(mcp.size, np.int32), False
    for turn in range(3 if c.rebuild else 2):
        for k in range(mcp.size):
            if mcp[k] != mcp[k] or seen[k] != 0:
                continue
            crowded |= find_pairs(mcp[k], times, taken, c, pairs)
            if turn == 0:
                good = best_of_three(pairs, c.tolerance, chosen)
            elif turn == 1:
                good = best_of_two(pairs, chosen)
            else:
                lacks[k] = best_with_missing_end(mcp[k], times, taken, c, pairs, chosen)
                good = lacks[k] != 0
            if not good:
                continue
            found[k, 0], found[k, 1], found[k, 3] = position(pairs, chosen)
            found[k, 2] = mcp[k]
            for layer in range(3):
                a = chosen[layer]
                if a < 0:
                    continue
                for end in range(2):
                    if pairs.ends[layer, a, end] >= 0:
                        taken[layer, end, pairs.ends[layer, a, end]] = True
                found[k, 4 + layer] = pairs.values[layer, a, 1]
                seen[k] += 1 << layer
    out, whole = np.full((7, c.capacity), np.nan), np.zeros((2, c.capacity), np.int32)
    n, incomplete = 0, 0
    for k in range(mcp.size):
        if seen[k] != 0 and n < c.capacity:
            out[:, n], whole[0, n], whole[1, n] = found[k], seen[k], lacks[k]
        n += seen[k] != 0
        incomplete += mcp[k] == mcp[k] and seen[k] == 0
    return Hits(
        n, incomplete, out[0], out[1], out[2], out[3], out[4], out[5], out[6], whole[0], whole[1],
        n > c.capacity, crowded,
    )  # fmt: skip


@delay_line_hex.prepare
def check(params: Params, inputs: Mapping[str, Input]) -> Constants:
    """Check windows and scales; ``ValueError`` lists what cannot be."""
    p = params
    sums = {"sum_u": p.sum_u, "sum_v": p.sum_v, "sum_w": p.sum_w}
    scales = {"scale_u": p.scale_u, "scale_v": p.scale_v, "scale_w": p.scale_w}
    problems = list(anode_problems(sums, p.reach, scales, p.capacity, inputs))
    if not np.isfinite(p.offset_w):
        problems.append(f"offset_w: {p.offset_w} mm is not an offset")
    if not 0 < p.tolerance < np.inf:
        problems.append(f"tolerance: {p.tolerance} mm must be above 0")
    if not 1 <= p.pairs <= PAIRS:
        problems.append(f"pairs: {p.pairs} of a layer; 1..{PAIRS}, all are weighed against all")
    if problems:
        raise ValueError("\n".join(problems))
    windows, offsets = np.array(list(sums.values())), np.array([0.0, 0.0, p.offset_w])
    by_layer = (windows, np.array(list(scales.values())), offsets)
    return Constants(*by_layer, p.reach, p.tolerance, p.capacity, p.pairs, p.rebuild)


def example() -> tuple[Params, dict[str, Input]]:
    """Parameters, and inputs to try them on."""
    times = Input("value", "<f8", (6,), "ns")
    params = Params(
        (-30.0, 60.0), (-50.0, 90.0), (-40.0, 80.0), 80.0, 30.0, 0.7, 0.8, 0.75, 1.5,
        capacity=4, pairs=8, rebuild=True,
    )  # fmt: skip
    return params, dict.fromkeys(("mcp", "u1", "u2", "v1", "v2", "w1", "w2"), times)
