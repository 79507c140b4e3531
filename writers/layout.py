"""What a small-data file consists of, all of it created before its first row.

Every dataset is chunked and written in whole chunks past HDF5's cache
(:class:`Growing`): a full disk then is an error that can be repeated, where HDF5's cached
writes end in a crash of the process when the cache cannot be written back.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ffb import reader
from ffb.schema import Column, Schema
from ffb.sink import Counts, Provenance
from ffb.source import RunInfo

#: A chunk holds this many rows at most and about this many bytes, for at every commit the last
#: chunk of each column is written anew.
CHUNK_ROWS, CHUNK_BYTES = 1024, 128 * 1024

#: Tables that grow beside the columns: element type and rows in a chunk.
TABLES = {
    reader.COMMITS: (reader.COMMIT_DTYPE, 128),
    reader.LOSSES: (reader.LOSS_DTYPE, 64),
    reader.STEPS: (reader.STEP_DTYPE, 128),
    reader.LOG: (np.dtype("u1"), 16384),
}

#: Attributes of the group ``ffb`` that the end of the run overwrites in place.
AT_END: dict[str, Any] = {
    "ended": np.bytes_(bytes(128)),
    "read": np.int64(0),
    "written": np.int64(0),
    "late": np.int64(0),
    "duplicates": np.int64(0),
    "lost": np.bytes_(bytes(1024)),
    "balanced": np.bool_(False),
}


def chunk_rows(row_bytes: int) -> int:
    """Rows in a chunk of a column with ``row_bytes`` a row."""
    return max(1, min(CHUNK_ROWS, CHUNK_BYTES // max(1, row_bytes)))


class Growing:
    """A dataset that grows at its end; rows wait here until they are written.

    Whole chunks are written once, the last one padded with the missing value and anew whenever
    it got rows. Where writing fails nothing has advanced: call :meth:`write` again.
    """

    def __init__(self, dataset: h5py.Dataset, rows: int = 0) -> None:
        self.dataset, self.rows, self.total = dataset, rows, rows
        self._written, self._extent = rows, int(dataset.shape[0])
        self._id, self._missing = dataset.id, dataset.fillvalue
        self._chunk: int = dataset.chunks[0]
        self._row_shape: tuple[int, ...] = dataset.shape[1:]
        self._origin = (0,) * len(self._row_shape)
        self._waiting: deque[NDArray[Any]] = deque()
        self._tail = np.full(dataset.chunks, self._missing, dataset.dtype)
        begin = rows - rows % self._chunk
        if rows > begin:
            self._tail[: rows - begin] = dataset[begin:rows]

    def append(self, rows: NDArray[Any]) -> None:
        """Take rows (n, *shape), C-contiguous; they must stay as they are until written."""
        self._waiting.append(rows)
        self.total += len(rows)

    def write(self) -> None:
        """Hand all waiting rows to the operating system; ``OSError`` when it has no room."""
        if self._extent < self.total:
            self._id.set_extent((self.total, *self._row_shape))
            self._extent = self.total
        while self._waiting:
            rows = self._waiting[0]
            n = self._take(rows)
            self.rows += n
            if n < len(rows):
                self._waiting[0] = rows[n:]
            else:
                self._waiting.popleft()
        if self._written < self.rows and self.rows % self._chunk:
            self._put(self._tail)
        self._written = self.rows

    def _take(self, rows: NDArray[Any]) -> int:
        """Write the next chunk if ``rows`` fill it, else add them to its image; return how many."""
        at, chunk, tail = self.rows % self._chunk, self._chunk, self._tail
        n = min(chunk - at, len(rows))
        if n == chunk:
            self._put(rows[:n])
            return n
        tail[at : at + n] = rows[:n]
        if at == 0:
            tail[n:] = self._missing
        elif at + n == chunk:
            self._put(tail)
        return n

    def _put(self, chunk: NDArray[Any]) -> None:
        begin = self.rows - self.rows % self._chunk
        try:
            self._id.write_direct_chunk((begin, *self._origin), chunk)
        except (OSError, RuntimeError):
            self._reopen()
            raise

    def _reopen(self) -> None:
        """Make HDF5 forget the chunk that it could not write.

        It keeps the address in mind that it had chosen, and takes it at the next attempt for a
        chunk that the index has already: the data would be written and never found again.
        """
        file, name = self.dataset.file, self.dataset.name
        del self.dataset, self._id
        self.dataset = file[name]
        self._id = self.dataset.id

    def trim(self) -> None:
        """Make the dataset exactly as long as its rows; a killed writer may leave it longer."""
        if self._extent > self.rows:
            self._id.set_extent((self.rows, *self._row_shape))
            self._extent = self.rows


def create(file: h5py.File, info: RunInfo, schema: Schema, provenance: Provenance) -> None:
    """Create everything in ``file``, with nothing left in a cache."""
    for column in schema.columns:
        _create_column(file, column, provenance)
    _create_coordinates(file, schema, provenance)
    group = file.require_group(reader.GROUP)
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
    for key, value in (about | {"layout": reader.LAYOUT} | AT_END).items():
        group.attrs[key] = value
    for name in (reader.COMMITTED, reader.COMPLETE):
        counter = file.create_dataset(name, (1,), "<i8", maxshape=(1,), chunks=(1,))
        set_counter(counter, 0)
    for name, (dtype, rows) in TABLES.items():
        file.create_dataset(name, (0,), dtype, maxshape=(None,), chunks=(rows,))


def _create_column(file: h5py.File, column: Column, provenance: Provenance) -> None:
    dataset = file.create_dataset(
        column.name,
        (0, *column.shape),
        column.dtype,
        maxshape=(None, *column.shape),
        chunks=(chunk_rows(column.row_bytes), *column.shape),
        fillvalue=column.missing,
    )
    made = provenance.reducers.get(column.reducer, {})
    for key, value in (
        ("unit", column.unit),
        ("doc", column.doc),
        ("dims", ["shot", *column.dims]),
        ("reducer", column.reducer),
        ("reducer_version", str(made.get("version", "")) if isinstance(made, Mapping) else ""),
    ):
        dataset.attrs[key] = value
    for i, dim in enumerate(["shot", *column.dims]):
        dataset.dims[i].label = dim


def _create_coordinates(file: h5py.File, schema: Schema, provenance: Provenance) -> None:
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
            for column in schema.columns:
                for i, its in enumerate(column.dims):
                    if (column.reducer, its, column.shape[i : i + 1]) == (name, dim, scale.shape):
                        file[column.name].dims[i + 1].attach_scale(scale)


def table_rows(run: reader.RunFile) -> dict[str, int]:
    """Length of each table as of the last commit; a killed writer may have left more."""
    commits = run.commits
    end = int(commits["log"][-1] + commits["size"][-1]) if len(commits) else 0
    last = int(commits["commit"][-1]) if len(commits) else -1
    steps = run.table(reader.STEPS)
    return {
        reader.COMMITS: len(commits),
        reader.LOSSES: int(np.count_nonzero(run.table(reader.LOSSES)["commit"] <= last)),
        reader.STEPS: int(np.count_nonzero(steps["log"] + steps["size"] <= end)),
        reader.LOG: end,
    }


def overhead(schema: Schema) -> int:
    """Bytes of one chunk of every dataset: what a commit may need beside its rows."""
    columns = sum(chunk_rows(c.row_bytes) * c.row_bytes for c in schema.columns)
    return columns + sum(dtype.itemsize * rows for dtype, rows in TABLES.values())


def set_end(file: h5py.File, counts: Counts) -> None:
    """Write the last books where a person looks for them, the attributes of the group ``ffb``."""
    lost = sum(counts.lost.values())
    text = to_json(counts.lost).encode()
    values = {
        "ended": np.bytes_(counts.ended.encode()[:128]),
        "read": np.int64(counts.read),
        "written": np.int64(counts.written),
        "late": np.int64(counts.late),
        "duplicates": np.int64(counts.duplicates),
        "lost": np.bytes_(text if len(text) <= 1024 else b'{"see": "ffb/losses"}'),
        "balanced": np.bool_(counts.read == counts.written + lost),
    }
    for key, value in values.items():
        file[reader.GROUP].attrs.modify(key, value)


def set_counter(dataset: h5py.Dataset, value: int) -> None:
    """Write a (1,) counter in one piece, so that a reader sees the old value or the new one."""
    dataset.id.write_direct_chunk((0,), np.array([value], "<i8"))


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
