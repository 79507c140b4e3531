"""Rows of a dataset in any order, a block at a time, in memory that does not grow with the file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffb.reading.align import Rows
from ffb.reading.columns import Ragged
from ffb.reading.foreign import MISSING
from ffb.reading.sides import Item

#: Bytes of a dataset in memory at a time, about; one that is smaller is read at once. The arrays
#: that a comparison makes of them are several times as large, and should stay in the cache.
BLOCK = 4 << 20
#: Rows in between that are not wanted are read too, up to so many bytes: seeking costs more.
GAP = 64 << 10

Mask = NDArray[np.bool_]


class Blocks:
    """Chosen ``rows`` of a dataset; ``fitting`` of them are a block."""

    def __init__(self, item: Item, rows: Rows) -> None:
        self._item, self._rows = item, rows
        size = item.data.nbytes
        self._row_bytes = max(1, size // max(1, len(item.data)))
        self.fitting = max(1, BLOCK // self._row_bytes)
        self._whole = item.data[:] if size <= BLOCK and not item.lists else None
        self._flags = None if item.present is None else np.asarray(item.present[:], np.bool_)

    def values(self, block: slice) -> NDArray[Any]:
        """Values of a block of rows, (n, elements)."""
        rows = self._rows[block]
        if self._whole is not None:
            return np.asarray(self._whole[rows]).reshape(len(rows), -1)
        order = np.argsort(rows, kind="stable")
        pieces = [
            np.asarray(self._item.data[int(s[0]) : int(s[-1]) + 1])[s - s[0]]
            for s in self._stretches(rows[order])
        ]
        found = np.concatenate(pieces).reshape(len(rows), -1)
        return found[np.argsort(order)]

    def lists(self, block: slice) -> Ragged:
        """Lists of a block of rows."""
        rows = self._rows[block]
        order = np.argsort(rows, kind="stable")
        values, lengths = [], []
        for s in self._stretches(rows[order]):
            found = self._item.data.ragged(slice(int(s[0]), int(s[-1]) + 1))
            wanted = np.isin(np.arange(s[0], s[-1] + 1), s)
            values.append(found.values[np.repeat(wanted, found.lengths)])
            lengths.append(found.lengths[wanted])
        return _reordered(Ragged(np.concatenate(values), np.concatenate(lengths)), order)

    def absent(self, block: slice, values: NDArray[Any]) -> Mask:
        """Which rows of a block have no value."""
        item, out = self._item, np.zeros(len(values), np.bool_)
        if self._flags is not None:
            out = ~self._flags[self._rows[block]]
        elif item.unknown:
            out = np.all(values < 0, axis=1)
        elif not values.shape[1]:
            pass  # an empty array is there
        elif values.dtype.kind in "fc":
            out = np.all(np.isnan(values), axis=1)
        elif item.filled and values.dtype.kind == "i":
            out = np.all(values == MISSING, axis=1)
        return np.asarray(out)

    def _stretches(self, rows: Rows) -> Iterator[Rows]:
        """Cut sorted rows where reading on would cost more than beginning anew, or too much."""
        where = (rows - rows[0]) * self._row_bytes // BLOCK
        cut = (np.diff(rows) * self._row_bytes > GAP + self._row_bytes) | (np.diff(where) != 0)
        yield from np.split(rows, np.flatnonzero(cut) + 1)


def _reordered(found: Ragged, order: Rows) -> Ragged:
    """Lists that were read in ``order``, as they were asked for."""
    back = np.argsort(order)
    if (back == np.arange(len(back))).all():
        return found
    begins = np.cumsum(found.lengths) - found.lengths
    lengths = found.lengths[back]
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return Ragged(found.values[np.repeat(begins[back], lengths) + within], lengths)
