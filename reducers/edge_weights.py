"""A time tool's own edge, found in its recorded traces: the weights of ``time_tool_edge``.

Weights are made once, of some hundred recorded traces with x-rays and laser, and of some without
x-rays, which are the reference::

    import ffb
    from ffb.reducers import edge_weights

    with ffb.open("mfxx49820_Run0042.h5") as run:
        traces, xray = run["rows/sum"][:], run["lightStatus/xray"][:]
    weights = edge_weights.make(traces[xray == 1], traces[xray == 0].mean(axis=0), 100)
    edge_weights.save("weights.npy", weights)
"""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ffb.reducers.edge import summit

#: Fewer edges than this make no mean that is better than a step.
LEAST = 8

#: Rounds of aligning the traces with the mean of the aligned, at most, and the shift [samples] at
#: which it rests. The first few rounds do nearly all of it.
ROUNDS, REST = 10, 1e-3


class _Seen(NamedTuple):
    """Where a filter sees edges [samples from the first] and how high; NaN where it sees none."""

    places: NDArray[np.float64]
    heights: NDArray[np.float64]


def _seek(traces: NDArray[np.float64], weights: NDArray[np.float64]) -> _Seen:
    """Edges as ``time_tool_edge`` finds them."""
    half = max(1, weights.size // 10)
    places, heights = np.full(len(traces), np.nan), np.full(len(traces), np.nan)
    for k, trace in enumerate(traces):
        answer = np.correlate(trace, weights, "valid")
        at = int(answer.argmax())
        places[k] = summit(answer, at, half) + 0.5 * (weights.size - 1)
        heights[k] = answer[at]
    return _Seen(places, heights)


def make(
    traces: ArrayLike,
    reference: ArrayLike | None,
    size: int = 100,
    *,
    ratio: bool = True,
    rising: bool = False,
) -> NDArray[np.float64]:
    """Weights (size,) of the edge that ``traces`` (shots, samples) have in common.

    They are those of a matched filter, which has the least scatter in white noise: the mean edge,
    each trace moved so that they lie over each other, less its level. The trace is taken over its
    ``reference`` (samples,), or minus it without ``ratio``, as it is without one; ``rising`` says
    whether it steps up. All of that has to be the same as the parameters of ``time_tool_edge``. A
    step of ``size`` / 2 samples on either side begins; the weights see edges on average where it
    does, and as high. Left out are traces with NaN, without an edge inside, and with one that is
    less than half as high as usual. They are worth it where the trace recovers behind its edge, or
    overshoots: there a step scatters two or three times as much. For an edge that stays, a step
    does as well, and is faster.

    Raises ``ValueError`` if shapes do not fit, the reference is not finite, the traces step the
    other way, or fewer than 8 edges are left.
    """
    x = np.asarray(traces, np.float64)
    level = np.asarray(np.ones(x.shape[-1:]) if reference is None else reference, np.float64)
    if x.ndim != 2 or level.shape != x.shape[1:]:
        raise ValueError(
            f"traces {x.shape} and reference {level.shape}; (shots, samples) and (samples,) fit"
        )
    if not np.isfinite(level).all():
        raise ValueError("reference: is not finite; were there shots without x-rays for its mean?")
    if size < 2 or size % 2 or size + 2 * max(1, size // 10) > x.shape[1]:
        raise ValueError(
            f"size: {size} weights; an even number that fits into {x.shape[1]} samples"
        )
    if reference is not None:
        with np.errstate(divide="ignore", invalid="ignore"):
            x = np.where(level > 0, x / level, 1.0) if ratio else x - level
    x = x[np.isfinite(x).all(axis=1)] * (1 if rising else -1)
    step = np.repeat([-2.0, 2.0], size // 2) / size
    seen = _seek(x, step)
    if len(x) and np.median(_seek(-x, step).heights) > 2 * np.median(seen.heights):
        raise ValueError(f"rising: is {rising}, but the traces step the other way, twice as high")
    kept = np.isfinite(seen.places) & (seen.heights > 0)
    if kept.any():
        kept &= seen.heights > 0.5 * np.median(seen.heights[kept])
    if kept.sum() < LEAST:
        raise ValueError(f"{kept.sum()} of {len(np.asarray(traces))} traces have an edge inside")
    x, first = x[kept], _Seen(seen.places[kept], seen.heights[kept])
    weights, places, aside = step, first.places, 0.0
    grid, samples = np.arange(size) - 0.5 * (size - 1), np.arange(x.shape[1])
    for _ in range(ROUNDS):
        # Moved to sub-samples on straight lines; weighted by heights, as least squares do.
        at = places + aside
        moved = np.stack([np.interp(p + grid, samples, t) for p, t in zip(at, x, strict=True)])
        mean = first.heights @ (moved - moved.mean(axis=1, keepdims=True))
        weights = mean * (step @ mean) / (mean @ mean)
        found = _seek(x, weights).places
        off = np.nanmedian(found - first.places)
        aside -= off  # of an edge that recovers its filter would see it beside where the step does
        found -= off
        found = np.where(np.abs(found - first.places) < size / 4, found, first.places)
        change, places = max(np.abs(found - places).max(), abs(off)), found
        if change < REST:
            break
    return weights


def save(path: str | os.PathLike[str], weights: ArrayLike) -> None:
    """Write weights as the ``.npy`` file that ``time_tool_edge`` takes."""
    np.save(path, np.asarray(weights, np.float64))
