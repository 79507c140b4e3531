"""What can be asked of any file of shots, ours or of others: cuts, lights, times, tables.

Exports :class:`Shots`, the base of :class:`ffb.reader.RunFile` and
:class:`ffb.reading.foreign.ForeignFile`, and :class:`Light`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ffb.configuration.expression import NO, UNKNOWN, YES
from ffb.reading import align, cuts, frame, labelled
from ffb.reading.cuts import Cut, Truth
from ffb.schema import LASER, STEP, TIMESTAMP, XRAY, Schema

if TYPE_CHECKING:
    import pandas as pd
    import xarray

#: Rows to read: a slice, a cut, a mask, or their numbers.
Chosen = slice | Cut | NDArray[Any] | list[int]

#: A time: datetime64, ISO text such as "2026-11-28T13:00", or whole ns since 1970; all UTC.
Time = np.datetime64 | str | int


class Light:
    """Cuts by the lights of each shot: ``on``, ``off``, ``dark``.

    ``on`` and ``off`` are the states of the laser in shots with x-rays, as on the page; ``dark``
    are shots without x-rays, of whatever laser. Where a state is unknown a shot is in neither.
    """

    def __init__(self, run: Shots) -> None:
        self._run = run

    @cached_property
    def on(self) -> Cut:
        """Shots with laser and x-rays."""
        return Cut(self._run, "light on", lambda rows: self._laser(rows, 1))

    @cached_property
    def off(self) -> Cut:
        """Shots without laser, with x-rays."""
        return Cut(self._run, "light off", lambda rows: self._laser(rows, 0))

    @cached_property
    def dark(self) -> Cut:
        """Shots without x-rays."""
        return Cut(self._run, "dark", lambda rows: _is(self._run[XRAY.name][rows], 0))

    def _laser(self, rows: slice, state: int) -> Truth:
        dark = _is(self._run[XRAY.name][rows], 0)
        return np.where(dark == YES, NO, _is(self._run[LASER.name][rows], state)).astype(np.uint8)


def _is(states: NDArray[Any], state: int) -> Truth:
    """Whether a light is in ``state``; below 0 it is unknown."""
    return np.where(states < 0, UNKNOWN, np.where(states == state, YES, NO)).astype(np.uint8)


class Shots(ABC):
    """Rows of shots in a file, with columns that are read when they are indexed."""

    schema: Schema

    @property
    @abstractmethod
    def committed(self) -> int:
        """Rows that count."""

    @abstractmethod
    def __getitem__(self, name: str) -> Any:
        """A column by its name; ``KeyError`` names its neighbours."""

    @abstractmethod
    def __contains__(self, name: str) -> bool:
        """Whether there is such a column."""

    @property
    def about(self) -> Mapping[str, Any]:
        """Which file this is, in a few facts for the attributes of tables made of it."""
        return {}

    @property
    def axes(self) -> Mapping[str, Any]:
        """By reducer: the coordinates of the axes of its features."""
        return {}

    @property
    def timestamp(self) -> NDArray[np.uint64]:
        """Psana's stamp of every row, the key of its shot; :meth:`times` are easier to plot."""
        return np.asarray(self[TIMESTAMP.name][:])

    def times(self) -> NDArray[np.datetime64]:
        """Time of every row: datetime64[ns], UTC."""
        return align.times(self.timestamp).astype("datetime64[ns]")

    # -- which shots -------------------------------------------------------------------------

    def cut(self, text: str | NDArray[np.bool_]) -> Cut:
        """Shots of which the expression ``text`` is true, or a mask.

        It says what ``[filters]`` of a configuration may say, and may name :attr:`cuts`::

            good = run.cut("tt/ampl > 0.05 and 50 < tt/fwhm < 300") & run.light.on
            run["spot/sum"][good]

        A shot that lacks something is in no cut. Raises ``ValueError`` with all that is wrong.
        """
        if not isinstance(text, str):
            return cuts.of_mask(self, text)
        return cuts.condition(self, text, self.cuts)

    @cached_property
    def cuts(self) -> dict[str, Cut]:
        """Cuts by name, for expressions: ``run.cuts["good"] = run.cut("tt.ampl > 0.05")``."""
        return {}

    @cached_property
    def light(self) -> Light:
        """Cuts by the lights: ``run.light.on``, ``run.light.off``, ``run.light.dark``."""
        return Light(self)

    def during(self, begin: Time | None = None, end: Time | None = None) -> Cut:
        """Shots from ``begin`` on and before ``end``, in UTC."""
        first, last = (None if t is None else _ns(t) for t in (begin, end))

        def judge(rows: slice) -> Truth:
            ns = align.times(self[TIMESTAMP.name][rows])
            inside = np.ones(len(ns), np.bool_)
            inside &= True if first is None else ns >= first
            inside &= True if last is None else ns < last
            return np.where(inside, YES, NO).astype(np.uint8)

        return Cut(self, f"during {begin or ''} to {end or ''}", judge)

    def at(self, *, within: float = 0.0, **values: float) -> Cut:
        """Shots at a step, or at values of motors: ``run.at(step=3)``, ``run.at(lxt=1.5e-12)``.

        Motors are the columns below ``scan/``. A value is met when it is at most ``within`` away.
        """
        names = {k: STEP.name if k == "step" and k in self else f"scan/{k}" for k in values}
        for name in names.values():
            self[name]  # raises where there is none

        def judge(rows: slice) -> Truth:
            out = np.full(rows.stop - rows.start, YES, np.uint8)
            for key, name in names.items():
                found = np.asarray(self[name][rows], np.float64)
                met = np.where(np.abs(found - values[key]) <= within, YES, NO)
                out = np.minimum(out, np.where(np.isnan(found), UNKNOWN, met)).astype(np.uint8)
            return out

        return Cut(self, ", ".join(f"{k} = {v:g}" for k, v in values.items()), judge)

    def align(self, other: Shots | NDArray[Any], within: int = 0) -> align.Pairs:
        """Rows of this file and of ``other`` that belong together, by their timestamps.

        ``other`` is another file, or psana's stamps. With ``within`` = 0 they have to be equal,
        otherwise each row gets its nearest at most so many ns away; see :mod:`ffb.reading.align`::

            mine, theirs = run.align(other)
            run["spot/sum"][mine] - other["ipm/sum"][theirs]
        """
        stamps = other.timestamp if isinstance(other, Shots) else np.asarray(other)
        if stamps.dtype.kind not in "iu":
            raise TypeError(f"timestamps are integers, not {stamps.dtype}: floats lose their ns")
        if within:
            return align.nearest(self.timestamp, stamps, within)
        return align.exact(self.timestamp, stamps)

    # -- tables ------------------------------------------------------------------------------

    def to_numpy(
        self, names: Iterable[str] | None = None, rows: Chosen = slice(None)
    ) -> dict[str, NDArray[Any]]:
        """Columns as arrays (rows, *shape), all of them unless ``names`` are given."""
        return {n: self[n][rows] for n in (self.schema.by_name if names is None else names)}

    def to_xarray(
        self, names: Iterable[str] | None = None, rows: Chosen = slice(None)
    ) -> xarray.Dataset:
        """Columns as an xarray ``Dataset`` over the dimension ``shot``.

        Coordinates: ``timestamp`` (uint64, the key) and ``time`` (datetime64[ns], UTC) of every
        shot, and the axes that reducers declared. An axis name that two reducers use for
        different axes is preceded by the reducer's name.
        """
        chosen = self.schema.by_name if names is None else names
        return labelled.dataset(self, [n for n in chosen if n != TIMESTAMP.name], rows)

    def to_pandas(
        self, names: Iterable[str] | None = None, rows: Chosen = slice(None)
    ) -> pd.DataFrame:
        """Columns with one value a shot as a pandas ``DataFrame``, by timestamp.

        All such columns unless ``names`` are given; ``time`` comes first. Integers and truths that
        may be missing are of pandas' nullable types, and the ``_valid`` columns that say so are
        left out.
        """
        return frame.dataframe(self, names, rows)


def _ns(time: Time) -> int:
    """Whole ns since 1970."""
    if isinstance(time, bool | float):
        raise TypeError(
            f"{time!r} is not a time: write datetime64, ISO text, or whole ns since 1970"
        )
    if isinstance(time, int | np.integer):
        return int(time)
    return int(np.datetime64(time).astype("datetime64[ns]").astype(np.int64))
