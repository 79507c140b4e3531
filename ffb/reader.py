"""Read a small-data file, growing or finished: ``run = open(path)``.

    with ffb.open("mfxx49820_Run0042.h5") as run:
        run["spot/sum"][-100:]          # numpy, committed rows only
        run.to_xarray()                 # everything, with coordinates
        for rows in run.follow():       # every new slice of rows, while the file grows
            run["spot/sum"][rows]

Exports :func:`open`, :class:`RunFile`, :class:`FileColumn`, :class:`Step`, and the names of what
ffb adds to the file, which the writer shares: rows count only up to ``ffb/committed``, however
long a column is.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from ffb.schema import TIMESTAMP, Column, Schema
from ffb.shot import EPOCH_1990
from ffb.sink import Counts
from ffb.source import RunInfo

if TYPE_CHECKING:
    import xarray

T = TypeVar("T")

#: Version of the layout below; a reader refuses what is newer than itself.
LAYOUT = 1

GROUP = "ffb"
#: (1,) int64: rows that are whole and durable.
COMMITTED = "ffb/committed"
#: (1,) int64: 1 once the run has ended and the file is final.
COMPLETE = "ffb/complete"
#: Table of commits: see ``COMMIT_DTYPE``.
COMMITS = "ffb/commits"
#: Table of losses: cumulative shots by reason, one row whenever a reason's count moved.
LOSSES = "ffb/losses"
#: Table of steps.
STEPS = "ffb/steps"
#: JSON lines as bytes: the details of every commit and step, at the offsets the tables give.
LOG = "ffb/log"

TABLES = (COMMITS, LOSSES, STEPS, LOG)

COMMIT_DTYPE = np.dtype(
    [(k, "<i8") for k in ("commit", "rows", "time", "read", "written", "lost", "late")]
    + [("log", "<i8"), ("size", "<i8")]
)
LOSS_DTYPE = np.dtype([("commit", "<i8"), ("reason", "S64"), ("shots", "<i8")])
STEP_DTYPE = np.dtype([("step", "<i8"), ("row", "<i8"), ("log", "<i8"), ("size", "<i8")])


class Step(NamedTuple):
    """A step as the file has it; ``row`` is the number of rows that came before it."""

    step: int
    row: int
    values: Mapping[str, float]
    docstring: str


def open(path: str | os.PathLike[str], *, wait: float = 0.0) -> RunFile:
    """Open a small-data file, also while it grows and after its writer was killed.

    ``wait`` is how long [s] to wait for a file that is not there yet. Raises
    ``FileNotFoundError`` when it does not come, ``OSError`` when it cannot be read, and
    ``ValueError`` when it is not one of ours.
    """
    path, deadline = Path(path), time.monotonic() + wait
    while not path.exists():
        if time.monotonic() >= deadline:
            raise FileNotFoundError(f"no file {path}{_nearest_file(path)}")
        time.sleep(0.02)
    return _patiently(lambda: RunFile(path))


def _nearest_file(path: Path) -> str:
    there = [p.name for p in path.parent.glob("*.h5")] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, there, 3, 0.5)
    return f"; in that directory there are {', '.join(near)}" if near else ""


def _patiently(action: Callable[[], T], wait: float = 1.0) -> T:
    """Repeat ``action`` while a writer is in the middle of something; the last error counts."""
    deadline, pause = time.monotonic() + wait, 0.001
    while True:
        try:
            return action()
        except (OSError, RuntimeError):  # HDF5 calls a torn read by either name
            if time.monotonic() >= deadline:
                raise
        time.sleep(pause)
        pause = min(2 * pause, 0.05)


def _open_h5(path: Path) -> h5py.File:
    """Open for reading without taking a lock that could hinder a writer.

    HDF5 insists that all handles of a file within one process agree on these flags, so where this
    process has the file open already, its way of opening is tried too.
    """
    ways: list[dict[str, Any]] = [{"swmr": True, "locking": False}, {"swmr": True}, {}]
    for way in ways[:-1]:
        with contextlib.suppress(OSError):
            return h5py.File(path, "r", **way)
    return h5py.File(path, "r", **ways[-1])


def _time_of(stamp: NDArray[np.uint64]) -> NDArray[np.datetime64]:
    """Times, as numpy has them, of psana's stamps."""
    seconds = (stamp >> np.uint64(32)).astype(np.int64) + EPOCH_1990
    ns = seconds * 1_000_000_000 + (stamp & np.uint64(0xFFFF_FFFF)).astype(np.int64)
    return ns.astype("datetime64[ns]")


class FileColumn:
    """One column of the file; numpy indexing reads committed rows, nothing is read before."""

    def __init__(self, run: RunFile, column: Column, dataset: h5py.Dataset) -> None:
        self._run, self._dataset, self._seen = run, dataset, -1
        self.name, self.unit, self.doc = column.name, column.unit, column.doc
        self.dims, self.reducer, self.dtype = column.dims, column.reducer, np.dtype(column.dtype)
        self._row_shape = column.shape

    @property
    def shape(self) -> tuple[int, ...]:
        """Committed rows as of the last refresh, then the shape of one row."""
        return (self._run.committed, *self._row_shape)

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
            return self._read(slice(rows.start, max(rows.start, rows.stop), rows.step), rest)[::-1]
        index = self._index(first)
        if index.size == 0:
            return self._read(slice(0, 0), rest)
        low, high = int(index.min()), int(index.max())
        # One block and a choice from it: HDF5's own selection of points is far slower.
        return self._read(slice(low, high + 1), rest)[index - low]

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
        def attempt() -> Any:
            # The cached extent and the cached last chunk are those of an earlier commit.
            if self._seen != self._run.committed:
                self._dataset.refresh()
                self._seen = self._run.committed
            return self._dataset[(rows, *rest)]

        return _patiently(attempt)

    def __repr__(self) -> str:
        return f"<{self.name} {self.dtype.str} {self.shape} [{self.unit}] {self.doc}>"


class RunFile:
    """A run's file. What it shows is one commit, the newest at the last :meth:`refresh`."""

    def __init__(self, path: Path) -> None:
        self.path, self._file = path, _open_h5(path)
        try:
            self._read_header()
            self.refresh()
        except BaseException:
            self._file.close()
            raise

    def _read_header(self) -> None:
        if GROUP not in self._file or "layout" not in self._file[GROUP].attrs:
            raise ValueError(f"{self.path} was not written by ffb: open it with h5py")
        group = self._file[GROUP]
        attrs = self.attrs = dict(group.attrs)
        if attrs["layout"] > LAYOUT:
            raise ValueError(
                f"{self.path} has layout {attrs['layout']}, this ffb reads up to {LAYOUT}: "
                "install the version that wrote it"
            )
        self.info = RunInfo(str(attrs["exp"]), int(attrs["run"]), int(attrs["began"]))
        text = {k: group[k].asstr()[()] for k in ("config", "reducers", "constants", "versions")}
        self.config: str = text["config"]
        self.reducers: dict[str, Any] = json.loads(text["reducers"])
        self.constants: dict[str, Any] = json.loads(text["constants"])
        self.versions: dict[str, str] = json.loads(text["versions"])
        self.notes: tuple[str, ...] = tuple(json.loads(group["notes"].asstr()[()]))
        columns = json.loads(group["columns"].asstr()[()])
        self.schema = Schema(
            tuple(Column(**{**c, "shape": (*c["shape"],), "dims": (*c["dims"],)}) for c in columns)
        )
        self._columns = {
            c.name: FileColumn(self, c, self._file[c.name]) for c in self.schema.columns
        }
        self._tables = {k: self._file[k] for k in (COMMITTED, COMPLETE, *TABLES)}
        self.committed, self.complete = 0, False

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns, in the order of the schema."""
        return tuple(self._columns)

    def __getitem__(self, name: str) -> FileColumn:
        if name in self._columns:
            return self._columns[name]
        near = difflib.get_close_matches(name, self._columns, 3, 0.4)
        near += [n for n in self._columns if n.endswith(f"/{name}") and n not in near]
        hint = f"; near it: {', '.join(near)}" if near else "; see run.columns"
        raise KeyError(f"no column {name!r} in {self.path.name}{hint}")

    def __contains__(self, name: str) -> bool:
        return name in self._columns

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def refresh(self) -> int:
        """Move on to the newest commit; return the number of committed rows."""
        # Completion first: once it is seen, the count that is read next is the last one.
        self.complete = bool(self.table(COMPLETE)[0])
        self.committed = int(self.table(COMMITTED)[0])
        return self.committed

    def table(self, name: str) -> NDArray[Any]:
        """One of ffb's tables as it is now, rows of an unfinished commit included."""

        def attempt() -> NDArray[Any]:
            self._tables[name].refresh()
            return np.asarray(self._tables[name][()])

        return _patiently(attempt)

    def follow(
        self, poll: float = 0.1, timeout: float | None = None, start: int = 0
    ) -> Iterator[slice]:
        """Yield slices of newly committed rows, from row ``start`` on, until the run is complete.

        ``poll`` is the time between looks [s]; after ``timeout`` [s] without a new row the
        iteration ends as well, and ``complete`` tells the two apart.
        """
        last = time.monotonic()
        while True:
            if self.refresh() > start:
                yield slice(start, self.committed)
                start, last = self.committed, time.monotonic()
                continue
            late = timeout is not None and time.monotonic() - last >= timeout
            if self.complete or late:
                return
            time.sleep(poll)

    @property
    def commits(self) -> NDArray[Any]:
        """Table of commits up to the rows shown: dtype ``COMMIT_DTYPE``, times in ns since 1970."""
        table = self.table(COMMITS)
        return table[table["rows"] <= self.committed]

    @property
    def counts(self) -> Counts:
        """The books at the commit shown, without its entries, for which see the ledger."""
        table = self.commits
        if not len(table):
            return Counts()
        known = {f.name for f in fields(Counts)} - {"ledger"}
        return Counts(**{k: v for k, v in json.loads(self._log(table[-1])).items() if k in known})

    @property
    def steps(self) -> list[Step]:
        """Steps so far, with the values of their motors."""
        table = self.table(STEPS)
        lines = [json.loads(self._log(row)) for row in table]
        return [
            Step(int(row["step"]), int(row["row"]), line["values"], line["docstring"])
            for row, line in zip(table, lines, strict=True)
        ]

    def _log(self, row: Any) -> bytes:
        begin, size = int(row["log"]), int(row["size"])

        def attempt() -> bytes:
            self._tables[LOG].refresh()
            return bytes(self._tables[LOG][begin : begin + size])

        return _patiently(attempt)

    def to_numpy(
        self, names: Iterable[str] | None = None, rows: slice = slice(None)
    ) -> dict[str, NDArray[Any]]:
        """Columns as arrays (rows, *shape), all of them unless ``names`` are given."""
        return {n: self[n][rows] for n in (self.columns if names is None else names)}

    def to_xarray(
        self, names: Iterable[str] | None = None, rows: slice = slice(None)
    ) -> xarray.Dataset:
        """Columns as an xarray ``Dataset`` over the dimension ``shot``.

        Coordinates: ``timestamp`` (uint64, the key) and ``time`` (datetime64[ns], UTC) of every
        shot, and the axes that reducers declared. An axis name that two reducers use for
        different axes is preceded by the reducer's name.
        """
        import xarray as xr

        chosen = [n for n in (self.columns if names is None else names) if n != TIMESTAMP.name]
        stamp = self[TIMESTAMP.name][rows]
        coords: dict[str, Any] = {
            "timestamp": ("shot", stamp, {"doc": TIMESTAMP.doc}),
            "time": ("shot", _time_of(stamp)),
        }
        data: dict[str, Any] = {}
        sizes: dict[str, tuple[int, bytes | None]] = {}
        for name in chosen:
            column = self.schema.by_name[name]
            dims = column.dims or tuple(f"{name}_dim{i}" for i in range(len(column.shape)))
            axes = []
            for dim, size in zip(dims, column.shape, strict=True):
                values = self._coordinate(column.reducer, dim)
                fits = values is not None and values.shape == (size,)
                mine = (size, values.tobytes() if values is not None and fits else None)
                axis = dim if sizes.setdefault(dim, mine) == mine else f"{column.reducer}_{dim}"
                axes.append(axis)
                if fits:
                    coords[axis] = (axis, values, self._coordinate_attrs(column.reducer, dim))
            attrs = {"unit": column.unit, "doc": column.doc, "reducer": column.reducer}
            data[name] = (("shot", *axes), self[name][rows], attrs)
        about = {"exp": self.info.exp, "run": self.info.run, "complete": int(self.complete)}
        return xr.Dataset(data, coords, about)

    def _coordinate(self, reducer: str, dim: str) -> NDArray[Any] | None:
        path = f"{reducer}/{dim}"
        if path in self._columns or path not in self._file:
            return None
        return np.asarray(self._file[path][()])

    def _coordinate_attrs(self, reducer: str, dim: str) -> dict[str, str]:
        return {"unit": str(self._file[f"{reducer}/{dim}"].attrs["unit"])}

    def close(self) -> None:
        """Give the file back; columns cannot be read after it."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "complete" if self.complete else "growing"
        lines = [f"{self.path.name}: {self.info.exp} run {self.info.run}, {self.committed} rows, "]
        lines[0] += f"{len(self._columns)} columns, {state}"
        width = max((len(n) for n in self._columns), default=0)
        for c in self.schema.columns:
            kind = c.dtype.lstrip("<|") + (str(list(c.shape)) if c.shape else "")
            lines.append(f"  {c.name:{width}}  {kind:12} {c.unit:8} {c.doc}".rstrip())
        return "\n".join(lines)
