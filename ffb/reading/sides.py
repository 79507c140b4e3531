"""The two files of a comparison, each as the datasets it has, whoever wrote it.

Exports :class:`Side`, :class:`Item` and :func:`opened`. Nothing is read here but timestamps.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb import reader
from ffb.reading import contents, foreign
from ffb.reading.frame import flag_of
from ffb.reading.lists import flat_of, group_of
from ffb.schema import LASER, TIMESTAMP, VALID, XRAY

#: Flags of unknown light are below 0.
_LIGHTS = (XRAY.name, LASER.name)


class Item(NamedTuple):
    """A dataset of a file.

    ``table`` is the prefix of the shots it has rows of, ``None`` where it holds something of the
    whole run. ``data`` is read by slices of rows, lists by ``data.ragged``. ``present`` says of an
    integer, in a dataset of its own, in which rows it is there. ``filled`` says that missing values
    may be -99999 or 0, ``unknown`` that what is below 0 is unknown, ``alias`` that it has another
    name as well.
    """

    data: Any
    table: str | None = ""
    lists: bool = False
    present: Any = None
    filled: bool = False
    unknown: bool = False
    alias: bool = False


class Side:
    """One of the files compared: ``stamps`` of the rows of each table, and ``items`` by name.

    ``about`` says in a few words what kind of file it is, ``notes`` what is odd about it; of a
    ``growing`` one there are only shots.
    """

    def __init__(self, path: Path, about: str, handles: contextlib.ExitStack) -> None:
        self.path, self.about, self.growing = path, about, False
        self.notes: list[str] = []
        self.stamps: dict[str, NDArray[np.uint64]] = {}
        self.items: dict[str, Item] = {}
        self.close = handles.close

    def rename(self, names: Mapping[str, str]) -> None:
        """Give datasets, or all those below a group, the names that the other file has."""
        for old, new in names.items():
            moved = {
                n: f"{new}{n[len(old) :]}" for n in self.items if f"{n}/".startswith(f"{old}/")
            }
            self.items = {moved.get(n, n): item for n, item in self.items.items()}


def opened(path: Path) -> Side:
    """Open one side; ``OSError`` and ``ValueError`` say what is wrong with it."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}")
    with contextlib.ExitStack() as handles:
        side = _own(path, handles) if foreign.is_ours(path) else _foreign(path, handles)
        side.close = handles.pop_all().close
    return side


def _own(path: Path, handles: contextlib.ExitStack) -> Side:
    run = handles.enter_context(reader.open(path))
    what = f"{run.info.exp} run {run.info.run}"
    side = Side(path, f"ffb, {what}, {run.committed:,} committed rows", handles)
    if not run.complete:
        side.about += ", growing or cut off"
    side.stamps[""] = run[TIMESTAMP.name][:]
    flat: set[str] = set()
    for name in run.columns:
        if name != TIMESTAMP.name:
            column = run.schema.by_name[name]
            flag = "" if run[name].dtype.kind == "f" else flag_of(run, column)
            present = run[flag] if flag else None
            item = Item(run[name], "", bool(column.length), present, unknown=name in _LIGHTS)
            place = name
            if column.length:  # named as it is in a finished file, also while it grows
                place, *beside = flat_of(column, group_of(column))[:3]
                flat |= {place, *beside}
            side.items[place] = item
    for alias, name in contents.LINKS.items():
        if name in side.items:
            side.items[alias] = side.items[name]._replace(alias=True)
    if run.segmented:
        side.growing = True
        side.notes.append("data of the run as a whole is compared once it has ended")
    else:
        rest = handles.enter_context(foreign.ForeignFile(path))
        side.stamps |= {table: stamps for table, stamps in rest.tables.items() if table}
        known = {*run.columns, *flat, *side.items}
        for name, table in rest.table_of.items():
            if table:
                side.items[name] = Item(rest[name], table, rest[name].lists)
            elif not _known(name, known):
                side.items[name] = Item(rest[name].data, None)  # an axis, of equal length by chance
        for name, data in rest.wholes.items():
            if not _known(name, known):
                side.items[name] = Item(data, None)
    return side


def _known(name: str, known: set[str]) -> bool:
    """Whether a dataset of ours is one of shots, says which are there, or is bookkeeping."""
    return name in known or name.endswith(VALID) or name.startswith(f"{contents.GROUP}/")


def _foreign(path: Path, handles: contextlib.ExitStack) -> Side:
    file = handles.enter_context(foreign.ForeignFile(path))
    parts = f" in {len(file.parts)} parts" if file.parts else ""
    side = Side(path, f"not written by ffb, {file.committed:,} rows{parts}", handles)
    side.notes, side.stamps = file.notes, dict(file.tables)
    for name, table in file.table_of.items():
        column = file[name]
        side.items[name] = Item(column, table, column.lists, filled=True)
    for name, data in file.wholes.items():
        side.items[name] = Item(data, None)
    return side
