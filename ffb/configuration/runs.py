"""Run ranges, and what holds for which run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

_RANGE = re.compile(r"\s*(\d*)\s*(-?)\s*(\d*)\s*")


class RunRange(NamedTuple):
    """Runs ``first`` to ``last``, both included; ``last`` is ``None`` for an open end."""

    first: int
    last: int | None

    @classmethod
    def parse(cls, text: Any) -> RunRange:
        """Read ``"1-41"``, ``"42-"``, ``"7"``, ``"-5"``, ``"-"`` (all runs) or the integer 7.

        Raises ``ValueError`` with a sentence for anything else, also for ``"9-3"``.
        """
        spelt = str(text) if type(text) is int and text >= 0 else text
        match = _RANGE.fullmatch(spelt) if isinstance(spelt, str) and spelt.isascii() else None
        if match is None or not any(match.groups()):
            raise ValueError(f'cannot read {text!r} as runs; write "1-41", "42-", "7" or "-5"')
        first, dash, last = match.groups()
        begin = int(first or 0)
        end = (int(last) if last else None) if dash else begin
        if end is not None and end < begin:
            raise ValueError(f'runs {text!r} end before they begin; write "{end}-{begin}"')
        return cls(begin, end)

    def __contains__(self, run: object) -> bool:
        """Whether ``run`` lies in the range."""
        return (
            isinstance(run, int) and self.first <= run and (self.last is None or run <= self.last)
        )

    def __str__(self) -> str:
        if self.first == self.last:
            return str(self.first)
        return f"{self.first or ''}-{'' if self.last is None else self.last}"


ALL_RUNS = RunRange(0, None)


def overlaps(ranges: Iterable[RunRange]) -> Iterator[tuple[RunRange, RunRange]]:
    """Pairs of ranges that share a run, by first run; none if and only if all are disjoint."""
    reach: RunRange | None = None  # of those so far, the range that ends last
    for r in sorted(ranges, key=lambda r: r.first):
        if reach is not None and r.first in reach:
            yield reach, r
        if reach is None or (reach.last is not None and (r.last is None or r.last > reach.last)):
            reach = r


def holding(ranges: Sequence[RunRange], run: int) -> int:
    """Index of the first range that holds ``run``; raises ``LookupError`` naming all of them."""
    for i, r in enumerate(ranges):
        if run in r:
            return i
    known = ", ".join(f'"{r}"' for r in sorted(ranges, key=lambda r: r.first))
    raise LookupError(f"nothing is given for run {run}; given are runs {known or 'none'}")


class RunRow(NamedTuple):
    """The values that hold for a range of runs; ``at`` is their path below the whole."""

    runs: RunRange
    values: Mapping[str, Any]
    at: tuple[int, ...]


@dataclass(frozen=True)
class RunTable:
    """Disjoint run ranges, each with its table of values."""

    rows: tuple[RunRow, ...]

    @classmethod
    def parse(cls, value: Any) -> tuple[RunTable, list[tuple[tuple[int | str, ...], str]]]:
        """Read one table (all runs unless it has ``runs``) or a list of tables with ``runs``.

        Returns what could be read, and each problem as (path below ``value``, sentence).
        """
        rows: list[RunRow] = []
        problems: list[tuple[tuple[int | str, ...], str]] = []
        many = isinstance(value, list)
        for i, entry in enumerate(value if many else [value]):
            at = (i,) if many else ()
            if not isinstance(entry, Mapping):
                problems.append((at, f"expected a table, got {entry!r}"))
            elif many and "runs" not in entry:
                problems.append(((*at, "runs"), 'missing: say which runs, such as "42-"'))
            else:
                try:
                    runs = RunRange.parse(entry["runs"]) if "runs" in entry else ALL_RUNS
                except ValueError as e:
                    problems.append(((*at, "runs"), str(e)))
                    continue
                values = {k: v for k, v in entry.items() if k != "runs"}
                rows.append(RunRow(runs, values, at))
        problems += [
            ((), f'runs "{a}" and "{b}" overlap; a run may have one table only')
            for a, b in overlaps(row.runs for row in rows)
        ]
        return cls(tuple(rows)), problems

    def for_run(self, run: int) -> Mapping[str, Any]:
        """Values that hold for ``run``; raises ``LookupError`` naming the ranges there are."""
        return self.rows[holding([row.runs for row in self.rows], run)].values
