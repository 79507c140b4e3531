"""What reducers of delay-line anodes ask of their parameters and inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from ffb.shot import Input


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
            yield f"{name}: [{window[0]}, {window[1]}] ns is no window; earliest first"
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
