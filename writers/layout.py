"""What a file of small data consists of, all of it created before its first row.

Every dataset that grows is chunked, and written by :mod:`ffb.writers.growing`. A file segment and
the plain file of a run that has ended have the same contents; a master has them as virtual datasets
(:mod:`ffb.writers.master`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import h5py
import numpy as np

from ffb.messaging.codec import filter_options
from ffb.reading import contents
from ffb.reading.lists import Flat
from ffb.schema import Column, Schema
from ffb.sink import Provenance
from ffb.source import RunInfo
from ffb.writers.describe import describe

#: The oldest format that can be read while it grows: what newer ones add, older readers refuse.
FORMAT = ("v110", "v110")

#: A chunk holds this many rows at most and about this many bytes, for at every commit the last
#: chunk of each column is written anew.
CHUNK_ROWS, CHUNK_BYTES = 1024, 128 * 1024

#: A chunk of lists that stand end to end holds this many entries at most.
CHUNK_ENTRIES = 1 << 16


def chunk_rows(column: Column) -> int:
    """Rows in a chunk of ``column``: a power of two, so that chunks fill a full file segment.

    Compressed columns have chunks of the size in which producers compress them.
    """
    if column.codec:
        return column.chunk
    return _rows_in(CHUNK_BYTES, column.row_bytes, CHUNK_ROWS)


def _rows_in(size: int, row_bytes: int, most: int) -> int:
    """The power of two of rows that fit into ``size`` bytes, ``most`` of them or less."""
    return min(most, 1 << max(0, (size // max(1, row_bytes)).bit_length() - 1))


def open_new(path: Path) -> h5py.File:
    """A new file at ``path``, in which new chunks always come at the end."""
    return h5py.File(path, "x", libver=FORMAT, locking=False, fs_strategy="none")


def create(
    file: h5py.File,
    info: RunInfo,
    schema: Schema,
    provenance: Provenance,
    flat: Mapping[str, Flat] = MappingProxyType({}),
) -> None:
    """Create everything in ``file``, with nothing left in a cache.

    Columns in ``flat`` are lists that stand there end to end.
    """
    if any(c.codec for c in schema.columns):
        import hdf5plugin  # noqa: F401 - HDF5 knows the filter from now on
    for column in schema.columns:
        name, shape, rows = column.name, column.shape, chunk_rows(column)
        if column.name in flat:
            name, shape = flat[column.name].values, column.shape[1:]
            rows = _rows_in(CHUNK_BYTES, column.row_bytes // column.shape[0], CHUNK_ENTRIES)
        file.create_dataset(
            name,
            (0, *shape),
            contents.stored(column),
            maxshape=(None, *shape),
            chunks=(rows, *shape),
            fillvalue=column.missing,
            **filter_options(column.codec),
        )
    for name in dict.fromkeys(n for f in flat.values() for n in (f.lengths, f.offsets)):
        file.create_dataset(name, (0,), "<i8", maxshape=(None,), chunks=(CHUNK_ROWS,))
    for name, (dtype, rows) in contents.TABLES.items():
        file.create_dataset(name, (0,), dtype, maxshape=(None,), chunks=(rows,))
    for name in (contents.COMMITTED, contents.COMPLETE):
        create_counter(file, name, 0)
    describe(file, info, schema, provenance, flat)


def create_counter(file: h5py.File, name: str, value: int) -> None:
    """Create a (1,) counter."""
    counter = file.create_dataset(name, (1,), "<i8", maxshape=(1,), chunks=(1,))
    set_counter(counter, value)


def set_counter(dataset: h5py.Dataset, value: int) -> None:
    """Write a (1,) counter in one piece, so that a reader sees the old value or the new one."""
    dataset.id.write_direct_chunk((0,), np.array([value], "<i8"))


def overhead(schema: Schema) -> int:
    """Bytes of one chunk of every dataset: what a commit may need beside its rows."""
    columns = sum(chunk_rows(c) * c.row_bytes for c in schema.columns)
    return columns + sum(dtype.itemsize * rows for dtype, rows in contents.TABLES.values())
