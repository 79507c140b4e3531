"""Small data that ffb did not write, as psana's SmallData and smalldata_tools leave it.

Exports :class:`ForeignFile` and :class:`ForeignColumn`. Such a file has no schema: what its
datasets are follows from their names and lengths.

- Shots are told by ``timestamp`` (psana's stamp), of LCLS-I by ``event_time``, which counts from
  1970. ``intg/`` has exposures instead, by a ``timestamp`` below it. They are in no order.
- A dataset as long as that holds a value a shot; ``var_NAME/FIELD`` holds lists, end to end, whose
  lengths are in ``var_NAME_len``; all others hold something of the whole run.
- A missing integer is -99999, a missing float NaN; a field that was first seen in the middle of a
  run is 0 before.
- A master shows datasets of its parts, and fill values where a part is not there: that is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ffb.configuration.problems import nearest
from ffb.reading.columns import Ragged
from ffb.reading.contents import GROUP
from ffb.reading.parts import BrokenFileError, open_h5, patiently
from ffb.reading.shots import Shots
from ffb.schema import TIMESTAMP, VALID, Column, Schema
from ffb.shot import EPOCH_1990

#: What SmallData writes for an integer that is missing.
MISSING = -99999

#: Groups in which no dataset holds shots.
WHOLE = ("UserDataCfg", "Sums", "epicsOnce", "epics_archiver")

#: Datasets that may be the key of the shots of the run.
KEYS = ("timestamp", "event_time")

#: Keys of exposures, and what the names begin with that belong to them.
_EXPOSED = re.compile(r"(?P<prefix>intg/(?:[^/]+/)?)timestamp")
_LISTS = re.compile(r"(?P<group>(?:.*/)?var_[^/]+)/[^/]+")


class ForeignColumn:
    """A dataset with a value, an array or a list for every shot, as numpy indexes it."""

    def __init__(self, name: str, data: Any, ends: NDArray[np.int64] | None = None) -> None:
        self.name, self.data, self._ends = name, data, ends
        attrs = data.attrs
        self.unit, self.doc = str(attrs.get("unit", "1")), str(attrs.get("doc", ""))
        self.dtype = np.dtype(data.dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shots, then the shape of one of them; of lists only the shots, whatever their lengths."""
        return tuple(self.data.shape) if self._ends is None else (len(self._ends),)

    @property
    def lists(self) -> bool:
        """Whether every shot has a list; those are read by :meth:`ragged`."""
        return self._ends is not None

    @property
    def nbytes(self) -> int:
        """Bytes of all shots."""
        return int(self.data.nbytes)

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype=dtype)

    def __getitem__(self, key: Any) -> Any:
        if self._ends is not None:
            raise TypeError(f"{self.name} holds lists; read them by run[{self.name!r}].ragged()")
        first, *rest = key if isinstance(key, tuple) else (key,)
        data = self.data.asstr(errors="replace") if self.dtype.kind == "O" else self.data
        if isinstance(first, slice | int | np.integer) or first is Ellipsis:
            if not isinstance(first, slice) or first.step is None or first.step > 0:
                return patiently(lambda: data[key])
            first = np.arange(len(self))[first]  # HDF5 reads forwards only
        return self[:][(np.asarray(first), *rest)]

    def ragged(self, rows: slice = slice(None)) -> Ragged:
        """Lists of a slice of shots; raises ``TypeError`` for a column that holds none."""
        if self._ends is None:
            raise TypeError(f"{self.name} holds no lists; index it")
        begin, end, step = rows.indices(len(self))
        if step != 1:
            raise ValueError(f"{self.name}: lists are read by slices without a step")
        edges = np.concatenate([[0], self._ends])[begin : max(begin, end) + 1]
        return Ragged(patiently(lambda: self.data[edges[0] : edges[-1]]), np.diff(edges))

    def __repr__(self) -> str:
        kind = "lists of " if self.lists else ""
        return (
            f"<{self.name} {kind}{self.dtype.str} {self.shape} [{self.unit}] {self.doc}>".rstrip()
        )


class _Whether:
    """Of an integer column: whether it is there, row by row."""

    def __init__(self, column: ForeignColumn) -> None:
        self.name, self._column = f"{column.name}{VALID}", column
        self.dtype, self.shape = np.dtype(np.bool_), (len(column),)

    def __getitem__(self, rows: Any) -> NDArray[np.bool_]:
        there = np.asarray(self._column[rows]) != MISSING
        return np.asarray(there.reshape(len(there), -1).all(axis=1))


class ForeignFile(Shots):
    """A small-data file of somebody else; indexed and cut as one of our own.

    ``tables`` has the timestamps of each table of shots or exposures, by the prefix of its names
    (``""``, ``"intg/"``), ``columns`` the names that have a value a shot of the run, ``wholes``
    everything else. ``notes`` tells what is odd. Raises ``ValueError`` where there is no key of
    shots, and ``OSError`` where a part of the file is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = patiently(lambda: open_h5(path))
        try:
            self._learn()
        except BaseException:
            self.close()
            raise

    def _learn(self) -> None:
        found = dict(walk(self._file))
        self.notes: list[str] = []
        self.parts = _parts(self.path, found.values())
        if absent := [p.name for p in self.parts if not p.exists()]:
            raise BrokenFileError(
                f"{self.path} shows rows of {', '.join(absent)}, which is not beside it: bring it"
                " back, without it HDF5 gives fill values and no error"
            )
        self.tables: dict[str, NDArray[np.uint64]] = {}
        keys = {m["prefix"]: m[0] for m in map(_EXPOSED.fullmatch, found) if m}
        if key := next((k for k in KEYS if k in found), ""):
            keys[""] = key
        for prefix, key in keys.items():
            if found[key].ndim == 1:
                self.tables[prefix] = self._stamps(key, found.pop(key))
        if "" not in self.tables:
            raise ValueError(
                f"{self.path} has neither timestamp nor event_time: not small data of shots"
            )
        self._columns: dict[str, ForeignColumn] = {}
        self._flags: dict[str, _Whether] = {}
        self.table_of: dict[str, str] = {}
        self.wholes: dict[str, Any] = {}
        counts = {f"{m['group']}_len" for m in map(_LISTS.fullmatch, found) if m}
        for name, data in found.items():
            table = max((p for p in self.tables if name.startswith(p)), key=len)
            made = self._column(name, data, found, len(self.tables[table]))
            if made is None:
                self.wholes[name] = data
            elif name not in counts:
                self._columns[name], self.table_of[name] = made, table
        self.schema = Schema((TIMESTAMP, *self._described()))

    def _stamps(self, key: str, data: Any) -> NDArray[np.uint64]:
        """Psana's stamps, 0 for rows that have none."""
        raw = np.asarray(data[:])
        if raw.dtype.kind not in "iu":
            raise ValueError(f"{self.path}: {key} is of {raw.dtype}, which is not a timestamp")
        none = raw <= 0
        stamps = np.where(none, 0, raw).astype(np.uint64)
        if none.any():
            self.notes.append(f"{none.sum():,} rows have no {key} and are left out")
        if key == "event_time":
            self.notes.append(
                "event_time counts from 1970; it is converted to timestamps, which count from 1990"
            )
            stamps[~none] -= np.uint64(EPOCH_1990 << 32)
        if len(stamps) > 1 and (stamps[1:] < stamps[:-1]).any():
            self.notes.append(f"{key} is not in order of time")
        return stamps

    def _column(self, name: str, data: Any, found: Any, rows: int) -> ForeignColumn | None:
        match = _LISTS.fullmatch(name)
        lengths = found.get(f"{match['group']}_len") if match else None
        if lengths is not None and lengths.shape == (rows,) and data.ndim:
            ends = np.cumsum(np.maximum(np.asarray(lengths[:], np.int64), 0))
            if (ends[-1] if rows else 0) == data.shape[0]:
                return ForeignColumn(name, data, ends)
            self.notes.append(f"{name} has {data.shape[0]:,} entries, its lengths say otherwise")
            return None
        whole = name.split("/")[0] in WHOLE or not data.ndim or data.shape[0] != rows
        return None if whole else ForeignColumn(name, data)

    def _described(self) -> Iterator[Column]:
        """Columns of numbers, as a schema has them; integers that may be missing with a flag."""
        for name in self.columns:
            c = self._columns[name]
            if c.lists or c.dtype.kind not in "biuf":
                continue
            yield Column(name, c.dtype.str, c.shape[1:], unit=c.unit, doc=c.doc)
            if c.dtype.kind == "i" and f"{name}{VALID}" not in self._columns:
                self._flags[f"{name}{VALID}"] = _Whether(c)
                yield Column(f"{name}{VALID}", "|b1", doc=f"whether {name} is not {MISSING}")

    @property
    def about(self) -> Mapping[str, Any]:
        """The name of the file."""
        return {"file": self.path.name}

    @property
    def timestamp(self) -> NDArray[np.uint64]:
        """Psana's stamp of every row of the run, 0 where it has none."""
        return self.tables[""]

    @property
    def committed(self) -> int:
        """Rows of the run."""
        return len(self.timestamp)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all that has a value, an array or a list for every shot of the run."""
        return tuple(n for n, table in self.table_of.items() if not table)

    def __getitem__(self, name: str) -> Any:
        if name == TIMESTAMP.name:
            return self.timestamp
        if name in self._flags:
            return self._flags[name]
        if name not in self._columns:
            raise KeyError(f"no column {name!r} in {self.path.name}; {self._near(name)}")
        return self._columns[name]

    def _near(self, name: str) -> str:
        if name in self.wholes:
            return "it holds nothing of single shots, see run.wholes"
        return nearest(name, list(self._columns))

    def __contains__(self, name: str) -> bool:
        return name in self._columns or name in self._flags or name == TIMESTAMP.name

    def close(self) -> None:
        """Give the file back."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        head = f"{self.path.name}: not written by ffb, {self.committed} rows, "
        lines = [f"{head}{len(self.columns)} columns", *(f"  ({note})" for note in self.notes)]
        return "\n".join([*lines, *(f"  {self._columns[n]!r}" for n in self.columns)])


def walk(group: Any, at: str = "", above: tuple[Any, ...] = ()) -> Iterator[tuple[str, Any]]:
    """All datasets below a group, by their paths; raises ``OSError`` for a link to nowhere."""
    for key in group:
        name = f"{at}{key}"
        try:
            item = group[key]
        except KeyError as e:
            raise BrokenFileError(f"{group.file.filename}: {name} leads nowhere: {e}") from e
        if hasattr(item, "keys"):
            if item.id not in (inside := (*above, group.id)):  # else a link leads back up
                yield from walk(item, f"{name}/", inside)
        elif hasattr(item, "shape"):
            yield name, item


def is_ours(path: Path) -> bool:
    """Whether ffb wrote the file; raises ``OSError`` where it cannot be opened."""
    with patiently(lambda: open_h5(path)) as file:
        return GROUP in file and "layout" in file[GROUP].attrs


def _parts(path: Path, found: Iterable[Any]) -> list[Path]:
    """Other files whose datasets a file shows as its own."""
    names = {s.file_name for d in found if d.is_virtual for s in d.virtual_sources()} - {"."}
    return [path.parent / n for n in sorted(names)]
