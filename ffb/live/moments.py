"""Statistics of values over intervals of shots: how many counted, sum, mean, variance.

Every interval starts from nothing, so what spoils one spoils no other, and sums are in float64
whatever the values are: nothing wraps, and whole numbers are exact up to 2^53.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Values (n, *shape) of shots from .. to, and which of them count, of the same shape.
Values = Callable[[int, int], tuple[Floats, NDArray[np.bool_]]]

#: Bytes of values in memory at once; a longer interval is taken in pieces.
BLOCK = 1 << 24


class Moments(NamedTuple):
    """Of k intervals: ``n`` values counted, their ``sum``, ``mean`` and ``var``, all (k, *shape).

    ``n`` is int64, the others float64, NaN where nothing counted. The variance is that of the
    population, the mean square distance from the mean, so that ``n``, ``sum`` and ``var`` of
    intervals give those of any union of them. It is taken about the mean, in a second pass.
    """

    n: Ints
    sum: Floats
    mean: Floats
    var: Floats

    @property
    def rms(self) -> Floats:
        """Root mean square deviation from the mean, as LCLS uses the word."""
        return np.sqrt(self.var)


def moments(
    values: Values, begin: Ints, end: Ints, shape: tuple[int, ...] = (), block: int = BLOCK
) -> Moments:
    """Statistics over the shots ``begin`` (k,) to ``end`` (k,) of each interval.

    Intervals ascend and do not overlap; empty ones may be among them. The result does not depend
    on ``block``, nor on what intervals follow, as long as none holds more values than fit in it.
    """
    most = max(1, block // (8 * int(np.prod(shape, dtype=np.int64) or 1)))
    n = np.zeros((len(begin), *shape), np.int64)
    total, squares = np.zeros(n.shape), np.zeros(n.shape)
    piece_begin, piece_end, owner = _pieces(begin, end, most)
    if len(owner):
        counts, sums, spreads = (
            np.concatenate(found)
            for found in zip(
                *(
                    _reduce(values, piece_begin[own], piece_end[own])
                    for own in _blocks(piece_begin, piece_end, most)
                ),
                strict=True,
            )
        )
        with np.errstate(all="ignore"):
            first = np.flatnonzero(np.diff(owner, prepend=-1))
            held = owner[first]
            n[held], total[held] = np.add.reduceat(counts, first), np.add.reduceat(sums, first)
            # Chan: squares about the mean of the whole, from those about the means of its pieces.
            shift = sums / counts - (total / n)[owner]
            spreads = spreads + np.where(counts > 0, counts * shift * shift, 0.0)
            squares[held] = np.add.reduceat(spreads, first)
    none = n == 0
    with np.errstate(all="ignore"):
        mean, var = total / n, squares / n
    total[none] = np.nan
    return Moments(n, total, mean, var)


def _pieces(begin: Ints, end: Ints, most: int) -> tuple[Ints, Ints, Ints]:
    """Cut intervals into pieces of at most ``most`` shots; whose piece each is, ascending."""
    times = -(-(end - begin) // most)
    owner = np.repeat(np.arange(len(begin)), times)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(times) - times, times)
    starts = begin[owner] + number * most
    return starts, np.minimum(starts + most, end[owner]), owner


def _blocks(begin: Ints, end: Ints, most: int) -> Iterator[slice]:
    """Slices of pieces that are read together: up to ``most`` shots, or one piece."""
    first = 0
    while first < len(begin):
        last = int(np.searchsorted(end, begin[first] + most, "right"))
        yield slice(first, max(last, first + 1))
        first = max(last, first + 1)


def _reduce(values: Values, begin: Ints, end: Ints) -> tuple[Ints, Floats, Floats]:
    """Count, sum and squares about the mean, of pieces that are read together."""
    low = int(begin[0])
    found, counts = values(low, int(end[-1]))
    length = end - begin
    if (begin[1:] != end[:-1]).any():  # shots between them are in none
        places = np.repeat(begin - low - (np.cumsum(length) - length), length)
        places += np.arange(len(places))
        found, counts = found[places], counts[places]
    first = np.cumsum(length) - length
    found = np.where(counts, found, 0.0)
    n = np.add.reduceat(counts, first, dtype=np.int64)
    with np.errstate(all="ignore"):
        total = np.add.reduceat(found, first)
        away = np.where(counts, found - np.repeat(total / n, length, axis=0), 0.0)
        return n, total, np.add.reduceat(away * away, first)
