"""``ffb diff A B``: do two small-data files hold the same? A table, and a verdict.

Exports :func:`diff_command`. Either file may be ours or of somebody else, finished or growing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.configuration.problems import ConfigError, nearest
from ffb.reading import align, compare, sides
from ffb.reading.align import Pairs
from ffb.reading.compare import Limits, Result
from ffb.reading.contents import GROUP
from ffb.reading.sides import Item, Side
from ffb.service.terminal import console, table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

HEADS = (
    "",
    "dataset",
    "common",
    "only A",
    "only B",
    "equal",
    "max |A-B|",
    "relative",
    "first differing shot",
    "note",
)


@dataclass(frozen=True)
class Options:
    """What is compared, and how."""

    limits: Limits = field(default_factory=Limits)
    ignore: Sequence[str] = ()
    """Patterns of names that do not count, as in a shell."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Datasets or groups of A -> what B calls them."""
    common: bool = False
    """Whether only datasets and shots count that both files have."""
    quiet: bool = False
    """Whether to show only what differs."""


def diff_command(a: str, b: str, options: Options) -> int:
    """Compare two files and print what came of it; 0 equal, 1 different.

    Raises ``ConfigError`` for files that cannot be compared and options that say nothing.
    """
    with contextlib.ExitStack() as handles:
        wrong: list[str] = []
        both: list[Side] = []
        for path in (a, b):
            try:
                both.append(sides.opened(Path(path)))
            except (OSError, ValueError) as e:
                said = str(e)
                wrong.append(said if path in said else f"{path}: {said}")
            else:
                handles.callback(both[-1].close)
        if wrong:
            raise ConfigError(wrong)
        one, two = both
        if wrong := [*_unmapped(one, two, options.names)]:
            raise ConfigError(wrong)
        one.rename(options.names)
        try:
            return _report(one, two, options)
        except OSError as e:  # a segment that is gone, a damaged chunk: that is no difference
            raise ConfigError([f"{a} or {b} cannot be read to its end: {e}"]) from e


def _unmapped(one: Side, two: Side, names: Mapping[str, str]) -> list[str]:
    wrong = []
    for option, name, side in (
        pair for a, b in names.items() for pair in ((f"{a}={b}", a, one), (f"{a}={b}", b, two))
    ):
        groups = {n.rpartition("/")[0] for n in side.items}
        if name not in side.items and not any(f"{g}/".startswith(f"{name}/") for g in groups):
            near = nearest(name, [*side.items, *groups - {""}])
            wrong.append(f"--map {option}: {side.path} has no {name}; {near}")
    return wrong


class _Matched(NamedTuple):
    """Rows of both sides that belong together, and their stamps; rows that have no partner."""

    pairs: Pairs
    stamps: NDArray[np.uint64]
    alone: tuple[int, int]


def _report(one: Side, two: Side, options: Options) -> int:
    out = console()
    for letter, side in (("A", one), ("B", two)):
        out.print(f"{letter}  {side.path}", style="bold")
        out.print(f"   {side.about}")
        for note in side.notes:
            out.print(f"   {note}", style="yellow")
    matched = {t: _match(one.stamps[t], two.stamps[t]) for t in one.stamps if t in two.stamps}
    for prefix, m in matched.items():
        found = f"{len(m.stamps):,} in both, {m.alone[0]:,} only in A, {m.alone[1]:,} only in B"
        out.print(f"{prefix or 'shots'}  {found}\n")
    names = [[n for n in side.items if not _ignored(n, options)] for side in (one, two)]
    results = [_compare(n, one, two, matched, options) for n in names[0] if n in two.items]
    counted = [r for r in results if not _bookkeeping(r.name)]
    if shown := [r for r in counted if not (options.quiet and r.agrees)]:
        out.print(_table(shown))
        out.print()
    if unlike := [r for r in results if _bookkeeping(r.name) and not r.agrees]:
        out.print("bookkeeping, which does not count", style="bold")
        out.print(_table(unlike))
        out.print()
    lacking = [
        [n for n in mine if _lacking(n, side, other)]
        for mine, side, other in zip(names, (one, two), (two, one), strict=True)
    ]
    for letter, missing in zip("AB", lacking, strict=True):
        if missing:
            out.print(f"datasets only in {letter}: {', '.join(missing)}\n")
    return _verdict(out, counted, lacking, matched, options)


def _match(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> _Matched:
    rows = [np.flatnonzero(s) for s in (a, b)]  # a stamp of 0 is none
    found = align.exact(a[rows[0]], b[rows[1]])
    pairs = Pairs(rows[0][found.left], rows[1][found.right])
    alone = len(rows[0]) - len(found.left), len(rows[1]) - len(found.right)
    return _Matched(pairs, a[pairs.left], alone)


def _compare(
    name: str, one: Side, two: Side, matched: Mapping[str, _Matched], options: Options
) -> Result:
    a, b = one.items[name], two.items[name]
    result = Result(name)
    kinds = [_kind(i) for i in (a, b)]
    if kinds[0] != kinds[1]:
        result.notes.append(" and ".join(kinds))
    if a.table is None and b.table is None:
        return compare.wholes(result, (a, b), options.limits)
    if a.table is None or b.table is None or bool(a.table) != bool(b.table):
        return result.refuse("not of the same shots in A and B")
    m = matched.get(a.table) if a.table == b.table else None
    m = m or _match(one.stamps[a.table], two.stamps[b.table])
    result.only = (0, 0) if options.common else m.alone
    return compare.shots(result, (a, b), m.pairs, m.stamps, options.limits)


def _kind(item: Item) -> str:
    dtype = np.dtype(item.data.dtype)
    return "text" if dtype.kind in compare.TEXT else dtype.name


def _lacking(name: str, side: Side, other: Side) -> bool:
    """Whether the other side ought to have a dataset that it has not."""
    item = side.items[name]
    excused = item.alias or _bookkeeping(name) or (item.table is None and other.growing)
    return name not in other.items and not excused


def _bookkeeping(name: str) -> bool:
    return name.startswith(f"{GROUP}/")


def _ignored(name: str, options: Options) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in options.ignore)


def _table(results: Sequence[Result]) -> Table:
    made = table(HEADS, ())
    for i in range(2, len(HEADS) - 2):
        made.columns[i].justify = "right"
    for r in results:
        counts = [f"{r.common:,}", *(f"{n:,}" for n in r.only), f"{r.equal:,}"]
        if not r.shots:
            counts[1:3] = "", ""
        first = f"{r.first}" if r.first is not None else ""
        apart = (_number(r.apart), _number(r.relative))
        mark = "=" if r.agrees else "≠"
        style = "" if r.agrees else "bold red"
        made.add_row(mark, r.name, *counts, *apart, first, "; ".join(r.notes), style=style)
    return made


def _number(value: float) -> str:
    return "0" if value == 0 else f"{value:.3g}"


def _verdict(
    out: Console,
    results: Sequence[Result],
    lacking: Sequence[Sequence[str]],
    matched: Mapping[str, _Matched],
    options: Options,
) -> int:
    unlike = [r.name for r in results if not r.agrees]
    why = [f"{len(unlike):,} of {len(results):,} datasets"] if unlike else []
    if not options.common:
        for prefix, m in matched.items():
            what = f"shots of {prefix}" if prefix else "shots"
            why += [f"{n:,} {what} only in {s}" for n, s in zip(m.alone, "AB", strict=True) if n]
        why += [f"{len(n):,} datasets only in {s}" for n, s in zip(lacking, "AB", strict=True) if n]
    if not results:
        why.append("no dataset in common; name those that are the same with --map A=B")
    if why:
        out.print(f"different: {'; '.join(why)}", style="bold red")
        return 1
    shots = len(matched[""].stamps)
    limits = f"relative {options.limits.relative:g}, absolute {options.limits.absolute:g}"
    said = f"equal: {len(results):,} datasets of {shots:,} shots, tolerance {limits}"
    out.print(said, style="bold green")
    return 0
