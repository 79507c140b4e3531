"""What a file of small data consists of, all of it created before its first row.

Every dataset that grows is chunked, and written by :mod:`ffb.writers.growing`. A file segment and
the plain file of a run that has ended have the same contents; a master has them as virtual datasets
(:mod:`ffb.writers.master`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ffb import contents
from ffb.codec import filter_options
from ffb.schema import Column, Schema
from ffb.sink import Counts, Provenance
from ffb.source import RunInfo

#: The oldest format that can be read while it grows: what newer ones add, older readers refuse.
FORMAT = ("v110", "v110")

#: A chunk holds this many rows at most and about this many bytes, for at every commit the last
#: chunk of each column is written anew.
CHUNK_ROWS, CHUNK_BYTES = 1024, 128 * 1024

#: Attributes of the group ``ffb`` that the end of the run overwrites in place.
AT_END: dict[str, Any] = {
    "ended": np.bytes_(bytes(128)),
    "read": np.int64(0),
    "written": np.int64(0),
    "late": np.int64(0),
    "duplicates": np.int64(0),
    "not_seen": np.int64(0),
    "lost": np.bytes_(bytes(1024)),
    "balanced": np.bool_(False),
}


def chunk_rows(column: Column) -> int:
    """Rows in a chunk of ``column``: a power of two, so that chunks fill a full file segment.

    Compressed columns have chunks of the size in which producers compress them.
    """
    if column.codec:
        return column.chunk
    fitting = CHUNK_BYTES // max(1, column.row_bytes)
    return min(CHUNK_ROWS, 1 << max(0, fitting.bit_length() - 1))


def open_new(path: Path) -> h5py.File:
    """A new file at ``path``, in which new chunks always come at the end."""
    return h5py.File(path, "x", libver=FORMAT, locking=False, fs_strategy="none")


def create(file: h5py.File, info: RunInfo, schema: Schema, provenance: Provenance) -> None:
    """Create everything in ``file``, with nothing left in a cache."""
    if any(c.codec for c in schema.columns):
        import hdf5plugin  # noqa: F401 - HDF5 knows the filter from now on
    for column in schema.columns:
        file.create_dataset(
            column.name,
            (0, *column.shape),
            column.dtype,
            maxshape=(None, *column.shape),
            chunks=(chunk_rows(column), *column.shape),
            fillvalue=column.missing,
            **filter_options(column.codec),
        )
    for name, (dtype, rows) in contents.TABLES.items():
        file.create_dataset(name, (0,), dtype, maxshape=(None,), chunks=(rows,))
    for name in (contents.COMMITTED, contents.COMPLETE):
        create_counter(file, name, 0)
    describe(file, info, schema, provenance)


def describe(file: h5py.File, info: RunInfo, schema: Schema, provenance: Provenance) -> None:
    """Say what everything is: attributes, axes and texts; the columns are there."""
    for column in schema.columns:
        _describe(file[column.name], column, provenance)
    _create_coordinates(file, schema.columns, provenance)
    group = file.require_group(contents.GROUP)
    texts = {
        "config": provenance.config,
        **{k: to_json(getattr(provenance, k)) for k in ("reducers", "constants", "versions")},
        "notes": to_json(provenance.notes),
        "columns": to_json([c._asdict() for c in schema.columns]),
    }
    for name, text in texts.items():
        group.create_dataset(name, data=text, dtype=h5py.string_dtype())
    group.create_dataset("schema", data=np.frombuffer(schema.packed, np.uint8))
    about = {"exp": info.exp, "run": info.run, "began": np.uint64(info.began)}
    about |= {"host": provenance.host, "command": provenance.command, "schema_id": schema.id.hex()}
    for key, value in (about | {"layout": contents.LAYOUT} | AT_END).items():
        group.attrs[key] = value


def _describe(dataset: h5py.Dataset, column: Column, provenance: Provenance) -> None:
    made = provenance.reducers.get(column.reducer, {})
    made = made if isinstance(made, Mapping) else {}
    expression = [("expr", str(made["expr"]))] if "expr" in made else []
    for key, value in (
        *expression,
        ("unit", column.unit),
        ("doc", column.doc),
        ("dims", ["shot", *column.dims]),
        ("reducer", column.reducer),
        ("reducer_version", str(made.get("version", ""))),
    ):
        dataset.attrs[key] = value
    if column.length:
        dataset.attrs["length"] = column.length
    for i, dim in enumerate(["shot", *column.dims]):
        dataset.dims[i].label = dim


def _create_coordinates(file: h5py.File, columns: Iterable[Column], provenance: Provenance) -> None:
    """Write ``<reducer>/<dim>`` for the axes that reducers declare, as dimension scales."""
    for name, made in provenance.reducers.items():
        coords = made.get("coords", {}) if isinstance(made, Mapping) else {}
        for dim, axis in coords.items():
            path = f"{name}/{dim}"
            if path in file:  # a feature of that name is the better axis
                continue
            scale = file.create_dataset(path, data=np.asarray(axis["values"]))
            scale.attrs["unit"] = str(axis.get("unit", "1"))
            scale.make_scale(dim)
            for column in columns:
                for i, its in enumerate(column.dims):
                    if (column.reducer, its, column.shape[i : i + 1]) == (name, dim, scale.shape):
                        file[column.name].dims[i + 1].attach_scale(scale)


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


def set_end(file: h5py.File, counts: Counts) -> None:
    """Write the books where a person looks for them, the attributes of the group ``ffb``."""
    lost = sum(counts.lost.values())
    text = to_json(counts.lost).encode()
    values = {
        "ended": np.bytes_(counts.ended.encode()[:128]),
        "read": np.int64(counts.read),
        "written": np.int64(counts.written),
        "late": np.int64(counts.late),
        "duplicates": np.int64(counts.duplicates),
        "not_seen": np.int64(counts.not_seen),
        "lost": np.bytes_(text if len(text) <= 1024 else b'{"see": "ffb/ledger"}'),
        "balanced": np.bool_(counts.read == counts.written + lost),
    }
    for key, value in values.items():
        file[contents.GROUP].attrs.modify(key, value)


def to_json(data: Any) -> str:
    """Render plain data, with numpy's scalars and arrays, as JSON text."""
    return json.dumps(data, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError(f"{type(value).__name__} is no plain data: {value!r}")
