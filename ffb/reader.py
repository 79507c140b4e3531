"""Read a small-data file, growing or finished: ``run = open(path)``.

    with ffb.open("mfxx49820_Run0042.h5") as run:
        run["spot/sum"][-100:]          # numpy, committed rows only
        run.to_xarray()                 # everything, with coordinates
        good = run.cut("tt/ampl > 0.05") & run.light.on
        run["spot/sum"][good]           # of shots that pass; see ffb.reading.shots
        for rows in run.follow():       # every new slice of rows, while the file grows
            run["spot/sum"][rows]
        run.sums["jungfrau_calib"].mean()  # frames summed over shots

A run in the making is a master over file segments, a finished one is one plain file; names in
either are those of :mod:`ffb.reading.contents`. Segments are read directly, each opened when it is
first needed. What a file tells of its making, commits and books and steps, is in
:mod:`ffb.reading.told`.
"""

from __future__ import annotations

import difflib
import json
import os
import time
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from ffb.configuration.expression import NO, UNKNOWN, YES
from ffb.configuration.problems import nearest
from ffb.reading.columns import FileColumn
from ffb.reading.cuts import Cut, Truth
from ffb.reading.parts import patiently
from ffb.reading.segments import Segments
from ffb.reading.shots import Shots
from ffb.reading.told import Told
from ffb.schema import VALID, Schema
from ffb.sink import Counts
from ffb.source import RunInfo
from ffb.sums.frames import FrameSums

if TYPE_CHECKING:
    from ffb.configuration.integrating_settings import IntegratingConfig
    from ffb.integrating.integrated import Integrated


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
    return patiently(lambda: RunFile(path))


def _nearest_file(path: Path) -> str:
    there = [p.name for p in path.parent.glob("*.h5")] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, there, 3, 0.5)
    return f"; in that directory there are {', '.join(near)}" if near else ""


def ended_books(path: Path, info: RunInfo) -> list[Counts]:
    """Last books of every complete file of a run: ``path``, or one numbered beside it."""
    out = []
    for place in (path, *path.parent.glob(f"{path.stem}_[0-9]*{path.suffix}")):
        try:
            with open(place) as run:
                if run.complete and run.info == info:
                    out.append(run.counts)
        except (OSError, ValueError):  # not there, not ours, or not whole: nothing has ended
            continue
    return out


class RunFile(Told, Shots):
    """A run's file. What it shows is one commit, the newest at the last :meth:`refresh`.

    A row keeps its number for as long as the file is open: rows stand in the order in which they
    were committed, also when the run meanwhile ended and was merged into one plain file, whose rows
    are sorted. Opened anew, that file shows them sorted.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._segments = path, Segments(path)
        self._generation = -1
        self._learn()

    def _learn(self) -> None:
        """Take over what the file says of itself, once for each time it was replaced."""
        found = self._segments
        if found.generation == self._generation:
            return
        self.__dict__.pop("filters", None)
        self._generation, self.info, self.attrs = found.generation, found.info, found.attrs
        self.schema = Schema(tuple(shown.column for shown in found.shown.values()))
        self._columns = {name: FileColumn(found, shown) for name, shown in found.shown.items()}
        self.config: str = found.text["config"]
        self.reducers: dict[str, Any] = json.loads(found.text["reducers"])
        self.constants: dict[str, Any] = json.loads(found.text["constants"])
        self.versions: dict[str, str] = json.loads(found.text["versions"])
        self.notes: tuple[str, ...] = tuple(json.loads(found.text["notes"]))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns, in the order of the newest schema."""
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

    @property
    def about(self) -> Mapping[str, Any]:
        """Experiment, run, and whether it has ended."""
        return {"exp": self.info.exp, "run": self.info.run, "complete": int(self.complete)}

    @property
    def axes(self) -> Mapping[str, Any]:
        """By reducer: the coordinates of the axes of its features."""
        return {name: said.get("coords", {}) for name, said in self.reducers.items()}

    @cached_property
    def filters(self) -> Mapping[str, Cut]:
        """The filters that the run was recorded with, as cuts: ``run.filters["good"]``."""
        said = {n: r["expr"] for n, r in self.reducers.items() if r.get("use") == "filters"}
        return {n: self._filter(n, text) for n, text in said.items() if n in self}

    def _filter(self, name: str, text: str) -> Cut:
        def judge(rows: slice) -> Truth:
            yes, known = self[name][rows], self[f"{name}{VALID}"][rows]
            return np.where(known, np.where(yes, YES, NO), UNKNOWN).astype(np.uint8)

        return Cut(self, text, judge)

    @property
    def files(self) -> list[Path]:
        """Files that hold the rows, in order; more than one while the run grows."""
        return [segment.path for segment in self.segments]

    def refresh(self) -> int:
        """Move on to the newest commit; return the number of committed rows."""
        rows = self._segments.refresh()
        self._learn()
        return rows

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

    def user_data(self, name: str) -> Any:
        """A mask, an array of positions or a parameter: ``"jungfrau/mask"``, ``"spot/rows"``.

        They stand in the group ``UserDataCfg``; ``KeyError`` says what there is instead.
        """
        return self._segments.user_data(name)

    @property
    def integrating(self) -> dict[str, IntegratingConfig]:
        """Detectors with one frame for many shots, as they were configured."""
        from ffb.integrating.integrated import configured

        return configured(self.config)

    def integrated(self, name: str, settings: IntegratingConfig | None = None) -> Integrated:
        """What an integrating detector saw in the rows committed now, exposure by exposure.

        ``settings`` take the place of those that were configured, or are for a detector that was
        not. Raises ``KeyError`` for a detector of which there are none.
        """
        from ffb.integrating.integrated import Integrated

        known = {} if settings else self.integrating
        if settings is None and name not in known:
            raise KeyError(f"no integrating detector {name!r}; {nearest(name, [*known])}")
        columns = self.schema.by_name
        return Integrated(name, settings or known[name], columns, self._read, self.committed)

    def _read(self, name: str, rows: slice) -> NDArray[Any]:
        return np.asarray(self[name][rows])

    @property
    def sums(self) -> FrameSums:
        """Sums of frames over shots by name, as they are now, not as of the commit shown."""
        return self._segments.sums(lambda name: self[name][:])

    def close(self) -> None:
        """Give the files back; columns cannot be read after it."""
        self._segments.close()

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
