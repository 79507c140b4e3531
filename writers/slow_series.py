"""Slow-control values of a whole run beside the rows: once, and as a series of their own.

Every shot has a value and its age, so that the updates they came with can be told from the rows:
``epicsOnce/<name>`` is the first value of the run, ``epicsSeries/<name>/time`` (M,) int64 in ns
since 1970 UTC and ``epicsSeries/<name>/value`` (M, ...) are all, an entry for each update that a
shot of the file came after. An update without any shot before the next one is in no row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ffb.schema import TIMESTAMP, VALID, Column
from ffb.shot import EPOCH_1990

ONCE, SERIES = "epicsOnce", "epicsSeries"

#: Behind the name of a slow value: the column of its age.
AGE = "_age"

#: In the field of an age, in place of the interface that values come by.
_FIELD = ".age."

#: Rows that are looked at together.
_ROWS = 1 << 18


def slow_columns(columns: Mapping[str, Column], inputs: Mapping[str, str]) -> list[Column]:
    """Columns whose age is recorded beside them; ``inputs`` gives the fields they are made of.

    Lists have neither first value nor series: their rows are of many lengths.
    """
    aged = (n.removesuffix(AGE) for n, f in inputs.items() if n.endswith(AGE) and _FIELD in f)
    known = [columns[n] for n in aged if n in columns and f"{n}{AGE}" in columns]
    return [c for c in known if not (c.shape and c.length)]


def write(file: h5py.File, columns: Mapping[str, Column], inputs: Mapping[str, str]) -> None:
    """Write what there is of every slow value of ``file``, whose rows are in order of time."""
    for column in slow_columns(columns, inputs):
        name = column.name.rpartition("/")[2]
        times, values = _updates(file, column)
        if not len(times):
            continue
        about = {"unit": column.unit, "doc": column.doc, "source": inputs.get(column.name, "")}
        when = {"unit": "ns", "doc": "time of the update since 1970 UTC, an integer"}
        for path, data, attrs in (
            (f"{ONCE}/{name}", values[0], about | {"doc": f"{column.doc}: first of the run"}),
            (f"{SERIES}/{name}/time", times, when),
            (f"{SERIES}/{name}/value", values, about),
        ):
            made = file.create_dataset(path, data=data)
            for key, value in attrs.items():
                made.attrs[key] = value


def _updates(file: h5py.File, column: Column) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Times and values of the updates that the rows tell, each once, in order."""
    times, values = [], []
    stamps, ages, data = (file[n] for n in (TIMESTAMP.name, f"{column.name}{AGE}", column.name))
    valid = file.get(f"{column.name}{VALID}")
    for begin in range(0, len(ages), _ROWS):
        rows = slice(begin, begin + _ROWS)
        here = np.isfinite(ages[rows])
        here &= valid[rows] if valid is not None else True
        known = data[rows][here]
        shot = _nanoseconds(stamps[rows][here].astype(np.uint64))
        read = shot - np.rint(ages[rows][here] * 1e9).astype(np.int64)
        unique, first = np.unique(read, return_index=True)
        times.append(unique)
        values.append(known[first])
    if not times:
        return np.zeros(0, np.int64), np.zeros((0, *column.shape), column.dtype)
    whole, first = np.unique(np.concatenate(times), return_index=True)
    return whole, np.concatenate(values)[first]


def _nanoseconds(stamps: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Psana's stamps as ns since 1970."""
    seconds = (stamps >> np.uint64(32)).astype(np.int64) + EPOCH_1990
    return seconds * 1_000_000_000 + (stamps & np.uint64(0xFFFF_FFFF)).astype(np.int64)
