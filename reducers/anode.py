"""What reducers of delay-line anodes share: missing ends, and what they ask of parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ffb.feature import Rank
from ffb.loops.compile import kernel
from ffb.shot import Input

#: Times [ns] of one end or of the MCP in a shot; unused places are NaN.
Times: TypeAlias = Annotated[NDArray[Any], Rank(1, "a time list")]


@kernel
def alone(
    mcp: float, times: NDArray[Any], taken: NDArray[np.bool_], middle: float, reach: float
) -> Any:
    """How many free ``times`` of one end may be of a particle whose other end is missing.

    And the place of the last, and the difference of the ends that it implies, if their time sum is
    in the ``middle`` of its window: t - other = 2 (t - mcp) - middle, at most ``reach`` [ns].
    """
    n, place, implied = 0, -1, np.nan
    for i in range(times.size):
        difference = 2.0 * (times[i] - mcp) - middle
        if np.abs(difference) <= reach and not taken[i]:
            n, place, implied = n + 1, i, difference
    return n, place, implied


def anode_problems(
    windows: Mapping[str, tuple[float, float]],
    reach: float,
    scales: Mapping[str, float],
    capacity: int,
    inputs: Mapping[str, Input],
) -> Iterator[str]:
    """What is wrong with windows of time sums [ns], scales [mm/ns] and inputs, one line each."""
    for name, window in windows.items():
        if not (np.isfinite(window).all() and window[0] < window[1]):
            yield f"{name}: [{window[0]}, {window[1]}] ns is not a window; earliest first"
    if not reach > 0:
        yield f"reach: {reach} ns must be above 0"
    for name, scale in scales.items():
        if scale == 0 or not np.isfinite(scale):
            yield f"{name}: {scale} mm/ns makes no position"
    if capacity < 1:
        yield f"capacity: {capacity} is too small; at least 1"
    for name, given in inputs.items():
        if given.unit != "ns" or np.dtype(given.dtype).kind != "f":
            yield (
                f"inputs.{name}: is {given.dtype} in {given.unit!r}; a list of times is in ns, such"
                " as the feature time of waveform_cfd"
            )
