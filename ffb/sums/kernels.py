"""Add a row of values to sums over shots: compiled into the fused pass, while the row is in cache.

Pixels are float32; other values are taken as they are. Sums are float64 from the first shot on:
memory moves twice the bytes of float32 then, and nothing has to be said about how many shots may be
added, or how far pixels may be from their mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffb.sums.words import What


def level_of(what: What, value: str) -> Any:
    """The least float that passes the threshold; of hits, the least that is above 0, too.

    It is the smallest float that holds all of type ``value``: a float32 is below a float32 exactly
    where it is below the threshold as float64, and comparing float32 is several times as fast.
    """
    kind = np.promote_types(value, "<f4").type
    least = -np.inf if what.least is None else what.least
    with np.errstate(over="ignore"):
        level = kind(least)
    if level < least:
        level = np.nextafter(level, kind(np.inf))
    tiny = np.nextafter(kind(0), kind(1))
    return max(level, tiny) if what.kind == "nhits" else level


def _add(values: Any, level: Any, out: Any) -> None:
    """Add values; one that is NaN adds nothing."""
    for i in range(values.size):
        v = values[i]
        out[i] += np.float64(v if v == v else np.float32(0))


def _add_above(values: Any, level: Any, out: Any) -> None:
    """Add values of at least ``level``."""
    for i in range(values.size):
        v = values[i]
        out[i] += np.float64(v if v >= level else np.float32(0))


def _square(values: Any, level: Any, out: Any) -> None:
    """Add squares."""
    for i in range(values.size):
        v = values[i]
        x = np.float64(v if v == v else np.float32(0))
        out[i] += x * x


def _square_above(values: Any, level: Any, out: Any) -> None:
    """Add squares of values of at least ``level``."""
    for i in range(values.size):
        v = values[i]
        x = np.float64(v if v >= level else np.float32(0))
        out[i] += x * x


def _max(values: Any, level: Any, out: Any) -> None:
    """Keep the larger one; NaN is larger than nothing."""
    for i in range(values.size):
        out[i] = values[i] if values[i] > out[i] else out[i]


def _max_above(values: Any, level: Any, out: Any) -> None:
    """Keep the larger one, where values below ``level`` count as 0."""
    for i in range(values.size):
        v = np.float32(0) if values[i] < level else values[i]
        out[i] = v if v > out[i] else out[i]


def _hits(values: Any, level: Any, out: Any) -> None:
    """Count values of at least ``level``."""
    for i in range(values.size):
        out[i] += np.uint32(1) if values[i] >= level else np.uint32(0)


def _raw(words: Any, level: Any, out: Any) -> None:
    """Add whole numbers."""
    for i in range(words.size):
        out[i] += np.int64(words[i])


def _raw_square(words: Any, level: Any, out: Any) -> None:
    """Add squares of whole numbers."""
    for i in range(words.size):
        v = np.int64(words[i])
        out[i] += v * v


def _raw_max(words: Any, level: Any, out: Any) -> None:
    """Keep the larger whole number."""
    for i in range(words.size):
        v = np.int64(words[i])
        out[i] = v if v > out[i] else out[i]


def count_missed(values: NDArray[Any], missed: NDArray[np.int32]) -> None:
    """Count pixels that are bad in this shot only."""
    for i in range(values.size):
        missed[i] += np.int32(values[i] != values[i])


_KERNELS: dict[tuple[str, str, bool], Callable[..., None]] = {
    ("calib", "sum", False): _add,
    ("calib", "sum", True): _add_above,
    ("calib", "square", False): _square,
    ("calib", "square", True): _square_above,
    ("calib", "max", False): _max,
    ("calib", "max", True): _max_above,
    ("calib", "nhits", False): _hits,
    ("calib", "nhits", True): _hits,
    ("raw", "sum", False): _raw,
    ("raw", "square", False): _raw_square,
    ("raw", "max", False): _raw_max,
}


def kernel_of(what: What) -> Callable[..., None]:
    """Function of a row, its level and the row's place in the sum, in plain Python."""
    return _KERNELS[what.of, what.kind, what.least is not None]
