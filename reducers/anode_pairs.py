"""Pairs of times at the ends of the layers of a hexanode, and which of them are of one particle."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.loops.compile import kernel
from ffb.reducers.anode import alone

#: The layers.
U, V, W = range(3)


class Pairs(NamedTuple):
    """Pairs of times that may be of one particle, by layer.

    ``n`` (3,) counts them; ``ends`` (3, most, 2) are the places of their times, -1 where one is
    missing; ``values`` (3, most, 3) are position [mm], time sum [ns], and the square of how far the
    sum is off the middle of its window, in half widths.
    """

    n: NDArray[np.int64]
    ends: NDArray[np.int64]
    values: NDArray[np.float64]


@kernel
def put_pair(
    pairs: Any,
    layer: int,
    at: int,
    one: int,
    two: int,
    difference: float,
    total: float,
    off: float,
    constants: Any,
) -> None:
    """Put a pair at place ``at`` of a layer's."""
    pairs.ends[layer, at, 0], pairs.ends[layer, at, 1] = one, two
    pairs.values[layer, at, 0] = difference * constants.scales[layer] + constants.offsets[layer]
    pairs.values[layer, at, 1], pairs.values[layer, at, 2] = total, off


@kernel
def find_pairs(
    mcp: float, times: NDArray[Any], taken: NDArray[np.bool_], constants: Any, pairs: Any
) -> Any:
    """Fill ``pairs`` with those of ``times`` (3, 2, places) that are free and in the windows.

    Of more than there is room for, those whose sums are least off stay; returns whether there were.
    """
    most, crowded = pairs.ends.shape[1], False
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
                off, at = (2.0 * total - lo - hi) / (hi - lo), n
                if n == most:
                    crowded, at = True, int(np.argmax(pairs.values[layer, :, 2]))
                    if off * off >= pairs.values[layer, at, 2]:
                        continue
                put_pair(pairs, layer, at, i, j, difference, total, off * off, constants)
                n += n < most
        pairs.n[layer] = n
    return crowded


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


@kernel
def best_with_missing_end(
    mcp: float,
    times: NDArray[Any],
    taken: NDArray[np.bool_],
    constants: Any,
    pairs: Any,
    chosen: NDArray[np.int64],
) -> Any:
    """Choose the pair of the only layer that has any, and rebuild others: their bits, 0 if none.

    A layer is rebuilt from one time if that alone is free and within reach, of those of both of its
    ends; where both are that can be, they have to agree.
    """
    rebuilt, has = 0, 0
    for layer in range(3):
        has += pairs.n[layer] > 0
    if has != 1:
        return 0
    for layer in range(3):
        chosen[layer] = -1
        if pairs.n[layer] > 0:
            chosen[layer] = np.argmin(pairs.values[layer, : pairs.n[layer], 2])
            continue
        middle = 0.5 * (constants.windows[layer, 0] + constants.windows[layer, 1])
        reach, nan = constants.reach, np.nan
        n, i, one = alone(mcp, times[layer, 0], taken[layer, 0], middle, reach)
        m, j, two = alone(mcp, times[layer, 1], taken[layer, 1], middle, reach)
        if n + m == 1:
            difference = one if n else -two
            put_pair(pairs, layer, 0, i, j, difference, nan, nan, constants)
            chosen[layer] = 0
            rebuilt += 1 << layer
    all_three = chosen[U] >= 0 and chosen[V] >= 0 and chosen[W] >= 0
    if all_three and np.abs(position(pairs, chosen)[2]) > constants.tolerance:
        return 0
    return rebuilt
