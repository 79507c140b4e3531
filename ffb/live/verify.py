"""Is the plot the file? Compare a snapshot that was kept with what its rows say."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb import reader
from ffb.live import recompute, snapshots
from ffb.live.accumulate import LIGHTS
from ffb.live.recompute import Part, Rows
from ffb.schema import Column
from ffb.service.terminal import console, table
from ffb.wire import unpack

VIEWS = ("books", "light", "presence", "strip", "scan", "ratio", "histogram", "mean")

TOLERANCE = (
    f"floats may be off by {recompute.DOUBLE:g} of themselves, by {recompute.SINGLE:g} where they"
    f" are sent in 4 bytes, and besides by {recompute.OF_RANGE:g} of the range of their column;"
    " all else must be equal"
)

#: At most so many commits are listed when the one asked for is not there.
LISTED = 20


class Check(NamedTuple):
    """How one array of numbers compares: ``wrong`` of ``numbers`` are not what they must be.

    ``worst`` is the largest deviation as a part of what is allowed, 0 where all must be equal.
    """

    view: str
    column: str
    array: str
    numbers: int
    wrong: int
    worst: float
    exact: bool


class Verdict(NamedTuple):
    """All comparisons of one snapshot, and what is wrong beside them."""

    commit: int
    span: tuple[int, int]
    epoch: int
    checks: list[Check]
    problems: list[str]

    @property
    def good(self) -> bool:
        """Whether the plot is the file."""
        return not self.problems and not any(c.wrong for c in self.checks)


def verify(
    file: str | os.PathLike[str],
    view: str = "",
    commit: int | None = None,
    snapshot: str | os.PathLike[str] | None = None,
) -> Verdict:
    """Compare a kept snapshot of the run in ``file`` with its rows.

    ``view`` is one of :data:`VIEWS` or the name of a column, all by default; ``commit`` is the
    newest one kept by default; ``snapshot`` is a file of kept snapshots, or one frame, by default
    what is kept beside ``file``. Raises ``LookupError`` when there is no such view or snapshot.
    """
    where = Path(snapshot) if snapshot is not None else snapshots.beside(Path(file))
    frame, problems = _choose(where, commit)
    meta, arrays = unpack(frame)
    with reader.open(file) as run:
        try:
            (first, end), epoch = meta["span"], int(meta["epoch"])
            problems += _identity(run, meta)
            checks = [*_checks(run, meta, arrays, view)] if not problems else []
        except (KeyError, TypeError, IndexError) as e:
            raise ValueError(f"{where}: not a snapshot that this ffb made: {e!r}") from e
    if not checks and not problems:
        known = ", ".join((*VIEWS, *(c[0] for c in meta["scalars"] + meta["arrays"])))
        raise LookupError(f"no view and no column {view!r}; there are {known}")
    return Verdict(int(meta["commit"]), (int(first), int(end)), epoch, checks, problems)


def verify_command(
    file: str, view: str = "", commit: int | None = None, snapshot: str | None = None
) -> int:
    """Print how a kept snapshot compares with the file; 0 when they agree, 1 when not."""
    verdict, out = verify(file, view, commit, snapshot), console()
    heads = ("VIEW", "NUMBERS", "EQUAL", "WITHIN TOLERANCE", "LARGEST DEVIATION", "VERDICT")
    out.print(table(heads, _lines(verdict)))
    out.print(TOLERANCE)
    for c in [c for c in verdict.checks if c.wrong][:LISTED]:
        what = f"{c.wrong:,} of {c.numbers:,} numbers"
        out.print(f"MISMATCH {c.view} {c.column} {c.array}: {what}")
    for problem in verdict.problems:
        out.print(f"MISMATCH {problem}")
    first, end = verdict.span
    about = f"commit {verdict.commit}, epoch {verdict.epoch}, rows {first:,} to {end:,}"
    said = "the plot is the file" if verdict.good else "THE PLOT IS NOT THE FILE"
    out.print(f"{said}: {about}")
    return 0 if verdict.good else 1


def _choose(where: Path, commit: int | None) -> tuple[bytes, list[str]]:
    """Choose the frame of ``commit``, or the newest; damage that was met on the way is told."""
    if not where.exists():
        raise LookupError(f"no snapshots are kept in {where}: they begin 10 s into a run")
    with where.open("rb") as file:
        if file.read(len(snapshots.MAGIC)) != snapshots.MAGIC:
            return where.read_bytes(), []
    kept: dict[int, bytes] = {}
    problems = []
    try:
        kept.update(snapshots.read(where))
    except snapshots.DamagedError as e:
        problems.append(str(e))
    found = kept.get(max(kept, default=0) if commit is None else commit)
    if found is None:
        there = [*map(str, sorted(kept))]
        left = f" and {len(there) - LISTED} more" if len(there) > LISTED else ""
        listed = ", ".join(there[-LISTED:]) or "none"
        raise LookupError(
            f"{where}: no snapshot of commit {commit}; kept are {listed}{left}"
            + "".join(f"; {p}" for p in problems)
        )
    return found, problems


def _identity(run: reader.RunFile, meta: Mapping[str, Any]) -> list[str]:
    """Say why the snapshot cannot be one of this file."""
    if (meta["exp"], meta["run"]) != (run.info.exp, run.info.run):
        return [f"the snapshot is of {meta['exp']} run {meta['run']}, the file of {run.info}"]
    commits = run.commits
    line = commits[commits["commit"] == meta["commit"]]
    if not len(line):
        return [f"the file knows no commit {meta['commit']}, its last is {run.counts.commit}"]
    if int(line["rows"][-1]) != meta["span"][1]:
        rows = int(line["rows"][-1])
        return [f"commit {meta['commit']} has {rows:,} rows, the snapshot {meta['span'][1]:,}"]
    return []


def _checks(
    run: reader.RunFile, meta: Mapping[str, Any], arrays: Mapping[str, Any], view: str
) -> Iterator[Check]:
    got: dict[str, Any] = dict(arrays)
    got["light"], got["newest"] = [meta["light"][k] for k in LIGHTS], meta["newest"]
    got |= {f"present:{k}": v for k, v in meta["present"].items()}
    got |= {f"rows:{k}": v for k, v in meta["rows"].items()}
    got["books"] = [meta["read"], meta["written"], sum(meta["lost"].values()), meta["late"]]
    for name, part in _parts(run, meta, arrays, view):
        if view in ("", name, part.column):
            yield _compare(part, got)


def _parts(
    run: reader.RunFile, meta: Mapping[str, Any], arrays: Mapping[str, Any], view: str
) -> Iterator[tuple[str, Part]]:
    first, end = meta["span"]
    rows = Rows(run, first, end, meta["epoch"])
    scalars, columns = ([*map(_column, meta[k])] for k in ("scalars", "arrays"))
    steps = {s.step: s.values for s in run.steps}
    low, width = arrays["histogram.low"], arrays["histogram.width"]
    bins = arrays["histogram.counts"].shape[-1]
    makers: dict[str, Callable[[], Iterator[Part]]] = {
        "books": lambda: _books(run, meta["commit"]),
        "light": lambda: recompute.light(rows),
        "presence": lambda: recompute.presence(rows, [*meta["present"]]),
        "strip": lambda: recompute.strip(rows, scalars),
        "scan": lambda: recompute.scan(rows, scalars, meta["motors"], steps),
        "ratio": lambda: recompute.ratio(rows, scalars, meta["normaliser"]),
        "histogram": lambda: recompute.histogram(rows, scalars, low, width, bins),
        "mean": lambda: recompute.mean(rows, columns, meta["reduced"], meta.get("errors", ())),
    }
    for name, make in makers.items():
        if view not in VIEWS or view == name:
            for part in make():
                yield name, part


def _column(fields: list[Any]) -> Column:
    name, dtype, shape, dims, *rest = fields
    return Column(name, dtype, tuple(shape), tuple(dims), *rest)


def _books(run: reader.RunFile, commit: int) -> Iterator[Part]:
    """What the table of commits says of the shots."""
    line = run.commits[run.commits["commit"] == commit][-1]
    want = [int(line[k]) for k in ("read", "written", "lost", "late")]
    yield Part("books", "", "books", None, np.array(want))


def _compare(part: Part, got: Mapping[str, Any]) -> Check:
    """Compare numbers one by one; what is missing or of another shape is wrong altogether."""
    found = got.get(part.array)
    exact, n = part.allowed is None, max(part.want.size, 1)
    label = (part.view, part.column, part.array)
    if found is not None and part.at is not None:
        found = found[part.at] if part.at < len(found) else None
    if found is None or np.shape(found) != part.want.shape:
        return Check(*label, n, n, np.inf, exact)
    have: NDArray[Any] = np.asarray(found)
    same = have == part.want
    if have.dtype.kind == "f":
        same |= np.isnan(have) & np.isnan(part.want.astype(np.float64))
    if part.allowed is None:
        return Check(*label, n, int((~same).sum()), 0.0, exact)
    with np.errstate(divide="ignore", invalid="ignore"):
        off = np.where(same, 0.0, np.abs(have - part.want) / part.allowed)
    off = np.where(np.isnan(off), np.inf, off)
    return Check(*label, n, int((off > 1).sum()), float(off.max(initial=0.0)), exact)


def _lines(verdict: Verdict) -> Iterator[tuple[str, ...]]:
    """How every view compares."""
    for view in VIEWS:
        mine = [c for c in verdict.checks if c.view == view]
        if not mine:
            continue
        exact, close = ([c for c in mine if c.exact == flag] for flag in (True, False))
        right = [sum(c.numbers - c.wrong for c in group) for group in (exact, close)]
        of = [sum(c.numbers for c in group) for group in (exact, close)]
        worst = max((c.worst for c in close), default=0.0)
        yield (
            view,
            f"{sum(of):,}",
            f"{right[0]:,} of {of[0]:,}",
            f"{right[1]:,} of {of[1]:,}" if close else "-",
            f"{worst:.2g} of what is allowed" if close else "-",
            "agrees" if right == of else "DIFFERS",
        )
