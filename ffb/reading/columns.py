"""One column of a run's file under numpy's indexing: committed rows, wherever they stand.

Exports :class:`FileColumn` and :class:`Ragged`.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.reading.contents import Shown
from ffb.reading.segments import Segments


class Ragged(NamedTuple):
    """Lists of some rows: ``values`` end to end, ``lengths`` (rows,) int64 of each.

    ``np.split(values, np.cumsum(lengths)[:-1])`` gives them one by one.
    """

    values: NDArray[Any]
    lengths: NDArray[np.int64]


class FileColumn:
    """One column of the file; numpy indexing reads committed rows, nothing is read before."""

    def __init__(self, run: Segments, shown: Shown) -> None:
        column = shown.column
        self._run, self._shown, self._row_shape = run, shown, column.shape
        self.name, self.unit, self.doc = column.name, column.unit, column.doc
        self.dims, self.reducer, self.dtype = column.dims, column.reducer, np.dtype(column.dtype)
        self.codec, self.chunk, self.length = column.codec, column.chunk, column.length

    @property
    def shape(self) -> tuple[int, ...]:
        """Committed rows as of the last refresh, then the shape of one row."""
        return (self._run.committed, *self._row_shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all committed rows in memory."""
        return prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        return self._run.committed

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype=dtype)

    def __getitem__(self, key: Any) -> Any:
        first, *rest = key if isinstance(key, tuple) else (key,)
        if first is Ellipsis:
            first, rest = slice(None), [Ellipsis, *rest] if self._row_shape else rest
        if isinstance(first, slice):
            rows = range(len(self))[first]
            if rows.step > 0:
                return self._read(slice(rows.start, max(rows.start, rows.stop), rows.step), rest)
            rows = rows[::-1]  # HDF5 reads forwards only
            end = min(max(rows.start, rows.stop), len(self))
            return self._read(slice(rows.start, end, rows.step), rest)[::-1]
        index = self._index(first)
        if index.size == 0:
            return self._read(slice(0, 0, 1), rest)
        low, high = int(index.min()), int(index.max())
        # One block and a choice from it: HDF5's own selection of points is far slower.
        return self._read(slice(low, high + 1, 1), rest)[index - low]

    def ragged(self, rows: slice = slice(None)) -> Ragged:
        """Lists of a slice of rows without the places that are not used.

        A list that was longer than there is room for has the entries that there was room for.
        Raises ``TypeError`` for a column that holds no lists.
        """
        if not self.length:
            raise TypeError(f"{self.name} holds no lists, no column counts its entries; index it")
        span = range(len(self))[rows]
        if span.step == 1:
            whole = slice(span.start, max(span.start, span.stop))
            if (found := self._run.entries(self._shown, whole)) is not None:
                return Ragged(*found)
        count = FileColumn(self._run, self._run.shown[self.length])[rows]
        lengths = np.clip(count.astype(np.int64), 0, self._row_shape[0])
        values = self[rows, : int(lengths.max(initial=0))]
        return Ragged(values[np.arange(values.shape[1]) < lengths[:, None]], lengths)

    def _index(self, rows: Any) -> NDArray[Any]:
        n, index = len(self), np.asarray(rows)
        if index.dtype == np.bool_:
            if index.shape != (n,):
                raise IndexError(f"{self.name}: a mask of shape {index.shape} on {n} rows")
            return np.flatnonzero(index)
        index = np.where(index < 0, index + n, index)
        if index.size and (index.min() < 0 or index.max() >= n):
            raise IndexError(f"{self.name}: row {rows} of {n} committed rows")
        return index

    def _read(self, rows: slice, rest: list[Any]) -> Any:
        return self._run.read(self._shown, rows, rest)

    def __repr__(self) -> str:
        return f"<{self.name} {self.dtype.str} {self.shape} [{self.unit}] {self.doc}>"
