"""The files of a run as one: a plain file, or a master's file segments, even while they change.

Exports :class:`Segments`: rows, tables and the log of a run by their numbers in the run, whichever
file they stand in. A master that was replaced is noticed by its inode, which is held so that no
file made later can have the same; files that are open stay so.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ffb.reading import contents, lists
from ffb.reading.contents import COMMITTED, COMPLETE, GROUP, LAYOUT, LISTS, LOG, Shown
from ffb.reading.parts import BrokenFileError, Part, identity, open_h5, patiently
from ffb.schema import Column, Schema
from ffb.source import RunInfo
from ffb.sums.frames import FrameSums, of_file, of_folder
from ffb.sums.log import Folder

if TYPE_CHECKING:
    import h5py

T = TypeVar("T")


class NotOursError(ValueError):
    """An HDF5 file that ffb did not write."""


def columns_of(said: str | list[dict[str, Any]]) -> tuple[Column, ...]:
    """Columns as files have them: a list of maps of their fields, or JSON text of it."""
    maps = json.loads(said) if isinstance(said, str) else said
    made = ({**c, "shape": (*c["shape"],), "dims": (*c["dims"],)} for c in maps)
    return tuple(Column(**c) for c in made)


class Segments:
    """A run's rows, tables and log.

    ``info`` says which run it is, ``attrs`` and ``text`` are attributes and texts of the group
    ``ffb``, ``shown`` the columns by name; ``parts`` are the files that hold rows, in order.
    ``committed`` and ``complete`` are as of the last :meth:`refresh`.
    """

    info: RunInfo
    attrs: Mapping[str, Any]
    text: Mapping[str, str]
    shown: Mapping[str, Shown]

    def __init__(self, path: Path) -> None:
        self.path, self.committed, self.complete = path, 0, False
        self.parts: list[Part] = []
        self.listed = False
        self.generation = 0
        self._held = -1
        self._ended = False
        self._schemas: dict[int, Schema] = {}
        self._moved: NDArray[np.int64] | None = None
        try:
            self._load()
            self.refresh()
        except BaseException:
            self.close()
            raise

    def _load(self) -> None:
        """Take what is at the path now, and hold it until another file is taken."""
        held = os.open(self.path, os.O_RDONLY)  # first: what comes later is another file then
        try:
            self._learn()
        except BaseException:
            os.close(held)
            raise
        self._release()
        self._held = held

    def _release(self) -> None:
        if self._held >= 0:
            os.close(self._held)
            self._held = -1

    def _learn(self) -> None:
        """Read the plain file, or the master, that is at the path now."""
        with open_h5(self.path) as file:
            info = self._identify(file)
            if self.parts and info != self.info:
                now = f"{info.exp} run {info.run} begun at {info.began}"
                raise BrokenFileError(f"{self.path} was replaced by {now}: open it again")
            names = ("config", "columns", "reducers", "constants", "versions", "notes")
            self.text = {k: str(file[GROUP][k].asstr()[()]) for k in names}
            self.text |= {"lists": str(file[LISTS].asstr()[()]) if LISTS in file else "{}"}
            listed = contents.SEGMENTS in file
            listing = json.loads(file[contents.SEGMENTS].asstr()[()]) if listed else []
            self.info, self.attrs = info, dict(file[GROUP].attrs)
            self._ended = bool(file[COMPLETE][0])
            closed = bool(listing) and int(listing[-1]["rows"]) >= 0  # else its end is on the move
            ends = {k: int(file[k].shape[0]) for k in contents.TABLES if closed and k in file}
        merged = self.listed and not listed
        before, self.listed = self.parts, listed
        self.parts = self._parts_of(listing, ends) if listed else [Part(self.path)]
        for part in before:
            if part not in self.parts:
                part.close()
        if listed:
            self.shown = contents.union(self._epochs(listing))
        else:
            columns = columns_of(self.text["columns"])
            self.shown = {c.name: Shown(c, c.name, ()) for c in columns}
            self.parts[0].lists = lists.read(self.text["lists"])
        if merged or self._moved is not None:
            self._moved = self._places()
        self.generation += 1

    def _identify(self, file: h5py.File) -> RunInfo:
        if GROUP not in file or "layout" not in file[GROUP].attrs:
            raise NotOursError(f"{self.path} was not written by ffb: ffb.open may read it")
        attrs = file[GROUP].attrs
        if attrs["layout"] > LAYOUT:
            raise ValueError(
                f"{self.path} has layout {attrs['layout']}, this ffb reads up to {LAYOUT}: "
                "install the version that wrote it"
            )
        return identity(file)

    def _parts_of(self, listing: list[Mapping[str, Any]], ends: Mapping[str, int]) -> list[Part]:
        """Files that the master lists; what is open already stays so, whatever its name is now.

        ``ends`` are the lines of the tables, unless they grow: a file whose writer was killed may
        hold more than were committed.
        """
        known = {_stem(part.path.name): part for part in self.parts}
        place = self.path.resolve()
        folder = place.with_name(f"{place.stem}{contents.FOLDER}")
        out = []
        for i, said in enumerate(listing):
            path, rows = folder / said["file"], int(said["rows"])
            after = listing[i + 1]["tables"] if i + 1 < len(listing) else ends if rows >= 0 else {}
            part = known.get(_stem(path.name)) or Part(
                path, int(said["first"]), int(said["epoch"]), said["tables"]
            )
            part.settle(path, rows, after)
            out.append(part)
        return out

    def _epochs(self, listing: list[Mapping[str, Any]]) -> dict[int, Schema]:
        """Columns of each epoch, by its first file that can be read."""
        for epoch in sorted({int(said["epoch"]) for said in listing} - self._schemas.keys()):
            wrong: list[BrokenFileError] = []
            for part in (p for p in self.parts if p.epoch == epoch):
                try:
                    text = part.text(f"{GROUP}/columns")
                except BrokenFileError as e:
                    wrong.append(e)
                    continue
                self._schemas[epoch] = Schema(columns_of(text))
                break
            else:
                raise self._gone(wrong[0], "its columns")
        return self._schemas

    def refresh(self) -> int:
        """Move on to the newest commit; return the number of committed rows, which never falls."""
        patiently(self._look)
        return self.committed

    def _look(self) -> None:
        self._reload()
        while True:
            newest = self.parts[-1]
            try:
                if newest.rows >= 0:
                    complete, rows = self._ended, newest.first + newest.rows
                else:
                    # Completion first: once it is seen, the count read next is the last one.
                    complete = bool(newest.counter(COMPLETE))
                    rows = max(newest.first, newest.counter(COMMITTED))
                    if self._reload():  # what was full is counted to its end then, mid-commit
                        continue
            except BrokenFileError as e:
                if self._reload():
                    continue
                raise self._gone(e, f"rows from {newest.first:,} on") from e
            self.complete, self.committed = complete, max(self.committed, rows)
            return

    def _reload(self) -> bool:
        """Load anew if another file is at the path; say whether."""
        try:
            stat = os.stat(self.path)
        except FileNotFoundError:  # what is open can still be read
            return False
        if os.path.samestat(stat, os.fstat(self._held)):
            return False
        self._load()
        return True

    def read(self, shown: Shown, rows: slice, rest: list[Any]) -> Any:
        """Rows of a column as numpy has it; ``rows`` has a start, a stop and a positive step."""
        return self._steadily(lambda: self._rows(shown, rows, rest))

    def entries(self, shown: Shown, rows: slice) -> tuple[NDArray[Any], NDArray[np.int64]] | None:
        """Entries of a list in consecutive rows, and how many each has, if one file has them so."""
        if self.listed or self._moved is not None:
            return None
        return self._steadily(lambda: self.parts[0].entries(shown.source, rows))

    def _steadily(self, action: Callable[[], T]) -> T:
        """Repeat ``action`` where a file is gone because another one has taken over."""
        while True:
            try:
                return action()
            except BrokenFileError:
                if not patiently(self._reload):
                    raise

    def _rows(self, shown: Shown, rows: slice, rest: list[Any]) -> Any:
        if self._moved is None:
            return self._join(shown, rows, rest)
        places = self._moved[rows]
        low, high = (int(places.min()), int(places.max()) + 1) if len(places) else (0, 0)
        return self._join(shown, slice(low, high, 1), rest)[places - low]

    def _join(self, shown: Shown, rows: slice, rest: list[Any]) -> Any:
        pieces = []
        for part, own in self._spread(rows):
            if self.listed and part.epoch not in shown.epochs:
                column = shown.column
                empty = np.asarray(column.missing, column.dtype)
                whole = np.broadcast_to(empty, (_length(own), *column.shape))
                pieces.append(np.array(whole[(slice(None), *rest)]))
                continue
            try:
                found = part.read(shown.source, own, rest, self.committed)
                pieces.append(found.view(shown.column.dtype))
            except BrokenFileError as e:
                end = part.first + part.rows if part.rows >= 0 else self.committed
                raise self._gone(e, f"rows {part.first:,} to {end - 1:,}") from e
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _spread(self, rows: slice) -> list[tuple[Part, slice]]:
        """Which rows stand in which file; at least one of them, so that no rows have a shape."""
        out = []
        first = max(0, bisect_right(self.parts, rows.start, key=lambda part: part.first) - 1)
        for part in self.parts[first:]:
            end = part.first + part.rows if part.rows >= 0 else rows.stop
            begin = rows.start + -(-max(0, part.first - rows.start) // rows.step) * rows.step
            if begin < min(end, rows.stop):
                out.append((part, slice(begin, min(end, rows.stop), rows.step)))
        gone = _length(rows) - sum(_length(own) for _, own in out)
        if gone:
            raise BrokenFileError(f"{self.path} lists no file that has {gone:,} of its rows")
        if not out:
            part = self.parts[first]
            out.append((part, slice(part.first, part.first, 1)))
        return out

    def _gone(self, error: BrokenFileError, what: str) -> BrokenFileError:
        return BrokenFileError(
            f"{error}: {what} cannot be read, all others can; bring the file back, or see what"
            f" 'ffb recover {self.path}' can restore"
        )

    def _lines(self, part: Part, name: str) -> NDArray[Any]:
        try:
            return part.table(name)
        except BrokenFileError as e:
            raise self._gone(e, f"lines of {name}") from e

    def table(self, name: str) -> NDArray[Any]:
        """One of ffb's tables as it is now, lines of an unfinished commit included."""
        lines = self._steadily(lambda: np.concatenate([self._lines(p, name) for p in self.parts]))
        if self._moved is not None and name in (contents.LEDGER, contents.STEPS, contents.EPOCHS):
            places = np.argsort(self._moved)
            inside = (lines["row"] >= 0) & (lines["row"] < len(places))
            lines["row"][inside] = places[lines["row"][inside]]
        return lines

    def last_commit(self) -> Any | None:
        """Line of the commit shown, ``None`` before the first one."""
        return self._steadily(self._last_commit)

    def _last_commit(self) -> Any | None:
        for part in reversed(self.parts):
            lines = self._lines(part, contents.COMMITS)
            if len(lines := lines[(lines["rows"] <= self.committed) & (lines["size"] > 0)]):
                return lines[-1]
        return None

    def log(self, begin: int, size: int) -> bytes:
        """Bytes of the log."""

        def action() -> bytes:
            i = bisect_right(self.parts, begin, key=lambda part: part.before.get(LOG, 0)) - 1
            return self.parts[i].log(begin, size)

        return self._steadily(action)

    def sums(self, column: Callable[[str], NDArray[Any]]) -> FrameSums:
        """Sums over shots as they are now; ``column`` reads all rows of a column."""
        return self._steadily(lambda: self._sums(column))

    def _sums(self, column: Callable[[str], NDArray[Any]]) -> FrameSums:
        if not self.listed:
            return of_file(self.parts[0])
        place = self.path.resolve()
        folder = place.with_name(f"{place.stem}{contents.FOLDER}")
        if not folder.is_dir():  # merged, and cleared away
            raise BrokenFileError(f"{folder} is gone, and its sums with it")
        return of_folder(Folder(folder), column)

    def user_data(self, name: str) -> Any:
        """Content of a dataset of ``UserDataCfg``; ``KeyError`` says what there is instead."""
        with open_h5(self.path) as file:
            group = file.get(contents.USER_DATA, {})
            if name not in group or not hasattr(group[name], "dtype"):
                above = name if name in group else name.rpartition("/")[0]
                there = ", ".join(group.get(above, group) if above else group) or "nothing"
                raise KeyError(f"no {name!r} in {contents.USER_DATA} of {self.path.name}: {there}")
            value = group[name][()]
        return value.decode() if isinstance(value, bytes) else value

    def damage(self) -> list[tuple[str, str]]:
        """What is wrong with the files as such: name of a file, and what it is."""
        out = []
        for i, part in enumerate(self.parts):
            rows = part.rows if part.rows >= 0 else self.committed - part.first
            end = self.parts[i + 1].first if i + 1 < len(self.parts) else self.committed
            if part.first + rows != end or (not i and part.first):
                said = f"is listed with rows {part.first:,} to {part.first + rows:,}, not {end:,}"
                out.append((part.path.name, said))
            columns = {
                s.source: s.column
                for s in self.shown.values()
                if not self.listed or part.epoch in s.epochs
            }
            out += [(part.path.name, said) for said in part.faults(columns, rows, self.info)]
        if self.listed:
            known = {_stem(part.path.name) for part in self.parts}
            there = sorted(p.name for p in self.parts[0].path.parent.glob("seg*[0-9].h5"))
            out += [(name, "is not listed") for name in there if _stem(name) not in known]
        return out

    def _places(self) -> NDArray[np.int64]:
        """By number of a row in the order of commits: where it stands in the merged file."""
        places = np.arange(self.parts[0].counter(COMMITTED))
        for line in self.parts[0].table(contents.ORDER):
            row, place, rows = (int(line[k]) for k in ("row", "place", "rows"))
            places[place : place + rows] = np.arange(row, row + rows)
        return places

    def close(self) -> None:
        """Give all files back."""
        self._release()
        for part in self.parts:
            part.close()


def _stem(name: str) -> str:
    """What a file segment is called before and after it is closed."""
    return name.partition(".")[0]


def _length(rows: slice) -> int:
    """Number of rows in a slice with a start, a stop and a step."""
    return len(range(rows.start, rows.stop, rows.step))
