"""Lists in a plain file: entries end to end, how many each shot has, and where they begin.

While a run grows its lists are vectors with room, so that rows lie where arithmetic says. The plain
file holds of each list only its entries, as analysts know it: ``<group>/<field>`` flat, and for all
lists of one count together ``<group>_len`` (shots,) and ``<group>_offsets`` (shots + 1,), both
int64. Shot i has the entries from ``offsets[i]`` to ``offsets[i + 1]``, which is from
``cumsum(len)[i] - len[i]`` to ``cumsum(len)[i]``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.schema import Column
from ffb.shot import length_of


class Flat(NamedTuple):
    """Datasets of a list by their names in the file, and how many entries a shot had room for."""

    values: str
    lengths: str
    offsets: str
    room: int


def flat_of(column: Column, group: str) -> Flat:
    """Where the list ``column`` stands as one of ``group``."""
    field = column.feature if column.reducer else column.name.rpartition("/")[2]
    return Flat(f"{group}/{field}", f"{group}_len", f"{group}_offsets", column.shape[0])


def group_of(column: Column) -> str:
    """Path of the group in which a list stands with all that have the same count.

    It is ``<detector>/var_<function>`` for a reducer ``<detector>/<function>``, and for another
    reducer ``<reducer>/var_<reducer>``; the name of a count that is not ``n`` follows. A list that
    came as it is, such as ``feespec/peaks``, stands in ``feespec/var_peaks``.
    """
    if not column.reducer:
        place, slash, count = column.length.removesuffix(length_of("")).rpartition("/")
        return f"{place}{slash}var_{count}"
    count = column.length[len(column.reducer) + 1 :]
    detector, slash, function = column.reducer.rpartition("/")
    words = [function] if slash or count == "n" else []
    words += [count] if count != "n" else []
    return f"{detector if slash else function}/var_{'_'.join(words)}"


def masked(rows: NDArray[Any], lengths: NDArray[np.int64]) -> NDArray[Any]:
    """Entries of lists ``rows`` (n, room, ...) end to end, ``lengths`` (n,) of each."""
    return np.asarray(rows[np.arange(rows.shape[1]) < lengths[:, None]])


def padded(flat: Flat, dataset: Callable[[str], Any], rows: slice) -> NDArray[Any]:
    """Lists of ``rows`` with a positive step as they were before: (n, room, ...), the rest missing.

    ``dataset`` gives an open one by its name. Raises ``ValueError`` where lengths and entries do
    not fit each other.
    """
    values, lengths = entries(flat, dataset, slice(rows.start, rows.stop))
    missing = dataset(flat.values).fillvalue
    out = np.full((len(lengths), flat.room, *values.shape[1:]), missing, values.dtype)
    here = np.arange(flat.room) < lengths[:, None]
    if (n := int(here.sum())) != len(values):
        raise ValueError(f"{flat.lengths}: {n} entries, {len(values)} by {flat.offsets}")
    out[here] = values
    return out[:: rows.step]


def entries(
    flat: Flat, dataset: Callable[[str], Any], rows: slice
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Entries of consecutive ``rows`` end to end, and how many each row has."""
    lengths = dataset(flat.lengths)[rows]
    bounds = dataset(flat.offsets)[rows.start : rows.stop + 1]
    return dataset(flat.values)[bounds[0] : bounds[-1]], lengths


def written(flat: Mapping[str, Flat]) -> str:
    """Lists of a file by their columns, as text for it."""
    return json.dumps({name: f._asdict() for name, f in flat.items()})


def read(text: str) -> dict[str, Flat]:
    """Undo :func:`written`."""
    return {name: Flat(**facts) for name, facts in json.loads(text).items()}
