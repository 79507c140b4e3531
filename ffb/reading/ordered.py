"""Rows of a run as shots: in the order of their timestamps, each of them once.

While a run grows, rows that came late stand where they were committed; and a shot that two
producers took has two rows, of which the first one counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffb.schema import TIMESTAMP, Column

#: Rows of a column by its name, as they stand in the file.
Read = Callable[[str, slice], NDArray[Any]]

#: Places further apart than so many bytes of a column are read each for itself.
APART = 1 << 16

#: Bytes of a column that are in memory at once.
BLOCK = 1 << 24


class Ordered:
    """Shots of the first ``rows`` rows that ``read`` gives; ``stamps`` (n,) are their keys."""

    def __init__(self, read: Read, rows: int) -> None:
        self._read = read
        stamps = read(TIMESTAMP.name, slice(0, rows)).astype(np.uint64)
        self._rows: NDArray[np.int64] | None = None
        if (stamps[1:] <= stamps[:-1]).any():
            self._rows = np.argsort(stamps, kind="stable")
            ascending = stamps[self._rows]
            once = np.append(True, ascending[1:] != ascending[:-1])
            self._rows, stamps = self._rows[once], ascending[once]
        self.stamps: NDArray[np.uint64] = stamps

    def __len__(self) -> int:
        return len(self.stamps)

    def __call__(self, column: Column, begin: int = 0, end: int | None = None) -> NDArray[Any]:
        """Values of shots from ``begin`` to ``end``."""
        end = len(self) if end is None else end
        if self._rows is None:
            return np.asarray(self._read(column.name, slice(begin, end)))
        return self._gather(column, self._rows[begin:end])

    def blocks(self, column: Column) -> Iterator[tuple[slice, NDArray[Any]]]:
        """All values, so many shots at a time as fit in memory."""
        most = max(1, BLOCK // max(1, column.row_bytes))
        for begin in range(0, len(self), most):
            rows = slice(begin, min(begin + most, len(self)))
            yield rows, self(column, rows.start, rows.stop)

    def take(self, column: Column, shots: NDArray[np.int64]) -> NDArray[Any]:
        """Values of some shots."""
        return self._gather(column, shots if self._rows is None else self._rows[shots])

    def _gather(self, column: Column, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Values of ``rows`` in any order; what lies close together is read at once."""
        out = np.empty((len(rows), *column.shape), column.dtype)
        order = np.argsort(rows, kind="stable")
        ascending = rows[order]
        far = np.diff(ascending) * max(1, column.row_bytes) > APART
        for own in np.split(np.arange(len(rows)), np.flatnonzero(far) + 1):
            if len(own):
                first, last = int(ascending[own[0]]), int(ascending[own[-1]])
                found = self._read(column.name, slice(first, last + 1))
                out[order[own]] = found[ascending[own] - first]
        return out
