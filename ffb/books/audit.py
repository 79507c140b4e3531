"""Do the books of a run balance? Everything is counted again from its rows.

Exports :func:`audit` and :func:`audit_command`. The checks are :data:`ffb.books.recount.CHECKS`,
and what can be wrong with the files themselves.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from ffb import reader
from ffb.books.evidence import Evidence, gather, losses
from ffb.books.recount import CHECKS, Problem, limited
from ffb.reader import RunFile
from ffb.service.terminal import console, table
from ffb.sink import Counts
from ffb.source import RunInfo
from ffb.sums.frames import told
from ffb.sums.words import COUNTS


@dataclass(frozen=True)
class Report:
    """What an audit found; ``evidence`` is ``None`` where rows could not be read.

    ``sums`` says of each sum of frames how many of the run's shots are in it.
    """

    path: str
    info: RunInfo
    complete: bool
    counts: Counts
    evidence: Evidence | None
    problems: list[Problem]
    sums: tuple[tuple[str, str], ...] = ()

    @property
    def balanced(self) -> bool:
        """Whether nothing contradicts anything."""
        return not self.problems


def audit(path: str | os.PathLike[str]) -> Report:
    """Count everything in the run at ``path`` again, growing or finished.

    Raises ``OSError`` or ``ValueError`` when it cannot be opened at all.
    """
    with reader.open(path) as run:
        problems = [Problem("files", name, said) for name, said in run.damage()]
        evidence, counts = None, Counts()
        try:
            counts, evidence = run.counts, gather(run)
        except (OSError, KeyError, ValueError) as e:
            problems.append(Problem("unreadable", run.path.name, str(e)))
        if evidence is not None:
            problems += limited(_attributes(run.attrs, run.complete, counts))
            for check in CHECKS:
                problems += limited(check(evidence))
            problems += [*limited(_spoilt(evidence)), *limited(_unreadable(run))]
            problems += limited(_sums(run, evidence))
        sums = _told(run)
        return Report(str(path), run.info, run.complete, counts, evidence, problems, sums)


def _attributes(attrs: Mapping[str, Any], complete: bool, counts: Counts) -> Iterator[Problem]:
    """What a finished file says of itself in its attributes is what its last commit says."""
    if complete != bool(counts.ended):
        ended = f"the books say that it ended with {counts.ended!r}"
        said = "the run is complete" if complete else "the run is not complete"
        yield Problem(
            "complete", "", f"{said}, and {ended if counts.ended else 'not that it ended'}"
        )
    if not complete:
        return
    for key in ("read", "written", "late", "duplicates", "not_seen"):
        if key in attrs and int(attrs[key]) != getattr(counts, key):
            said = f"{int(attrs[key]):,}, in the last commit {getattr(counts, key):,}"
            yield Problem("attributes", f"ffb.attrs[{key!r}]", said)
    if "balanced" in attrs and not attrs["balanced"]:
        yield Problem("attributes", "ffb.attrs['balanced']", "it was closed out of balance")


def _spoilt(e: Evidence) -> Iterator[Problem]:
    """What producers sent could be unpacked when it came."""
    for number, account in e.accounts.items():
        for column, n in account.get("spoilt", {}).items():
            said = f"{n:,} chunks of {column} did not unpack: their rows are missing there, or bad"
            yield Problem("unpack", e.names.get(number, f"producer {number}"), said)


def _unreadable(run: RunFile) -> Iterator[Problem]:
    """Compressed columns can be read: nobody has unpacked what was passed on as it came."""
    for column in (run[name] for name in run.columns):
        spans: list[tuple[int, int]] = []
        for at in range(0, len(column), column.chunk) if column.codec else ():
            end = min(at + column.chunk, len(column))
            try:
                _ = column[at:end]
            except OSError:
                begin = spans.pop()[0] if spans and spans[-1][1] == at else at
                spans.append((begin, end))
        for begin, end in spans:
            yield Problem("unreadable", column.name, f"rows {begin:,} to {end - 1:,}")


def _sums(run: RunFile, e: Evidence) -> Iterator[Problem]:
    """No sum has more shots than rows were sent, and no pixel more values than shots.

    Rows that we lost after they were sent may be in a sum, for both travel on their own.
    """
    sent = sum(sum(a.get("refused", {}).values()) for a in e.accounts.values())
    if not e.complete:
        sent += sum(int(a["read"]) - int(a["written"]) for a in e.accounts.values())
    try:
        for name, s in run.sums.items():
            if s.what.of != COUNTS:
                continue
            over = np.max(s.shots + s.missing + s.excluded + s.unknown - s.rows, initial=0)
            if over > sent:
                yield Problem("sums", name, f"tells of {over:,} shots that have no row")
            most = s[...].reshape(max(1, np.size(s.shots)), -1).max(axis=1, initial=0)
            if (most > s.shots).any():
                yield Problem("sums", name, "a pixel has more values than there are shots")
    except OSError as error:
        yield Problem("sums", "", str(error))


def _told(run: RunFile) -> tuple[tuple[str, str], ...]:
    try:
        whole = [s for s in run.sums.values() if s.what.of == COUNTS]
    except OSError:  # told as a problem
        return ()
    mine = [s for s in whole if not s.light and s.steps is None]
    return tuple((s.name.removesuffix(f"_{COUNTS}"), told(s)) for s in mine)


def audit_command(path: str) -> int:
    """Print an audit, the verdict first; 0 if all is well, 1 if anything is not."""
    report = audit(path)
    out = console()
    out.print(verdict(report), style="bold")
    if report.problems:
        out.print()
        out.print(table(("problem", "where", "what"), report.problems))
    if report.evidence is None:
        return 1
    out.print()
    out.print(_producers(report))
    if report.counts.lost:
        out.print()
        rows = [(f"{n:,}", reason) for reason, n in report.counts.lost.items()]
        out.print(table(("lost", "why"), rows))
    out.print()
    out.print(table(("besides", ""), _facts(report)))
    return 0 if report.balanced else 1


def verdict(report: Report) -> str:
    """The audit in one line."""
    n, run = len(report.problems), f"{report.info.exp} run {report.info.run}"
    said = f"{n} problem{'s' * (n > 1)} found"
    if report.evidence is None:
        return f"NOT BALANCED: {run}: {said}; what it holds cannot be counted"
    c, lost = report.counts, sum(report.counts.lost.values())
    flight = c.read - c.written - lost
    sum_ = f"{c.read:,} read = {c.written:,} written + {lost:,} lost"
    sum_ += f" + {flight:,} in flight" if flight else ""
    state = "complete" if report.complete else f"as of commit {c.commit:,}; growing, or cut off"
    if report.balanced:
        return f"BALANCED: {run}: {sum_} ({state})"
    return f"NOT BALANCED: {run}: {said}; the books say {sum_} ({state})"


def _producers(report: Report) -> Table:
    counts, rows, open_ = report.counts, [], "no word of it" if report.complete else "not yet"
    for name, account in counts.producers.items():
        read, written = int(account.get("read", 0)), int(account.get("written", 0))
        gone = sum(losses(account).values())
        figures = (f"{n:,}" for n in (read, written, gone, read - written - gone))
        rows.append((name, *figures, account.get("ended") or open_))
    heads = ("producer", "read", "written", "lost", "in flight", "ended")
    return table(heads, rows)


def _facts(report: Report) -> list[tuple[str, str]]:
    c, e = report.counts, report.evidence
    facts = [
        ("late", f"{c.late:,} rows came after newer ones were committed"),
        ("not seen", f"about {c.not_seen:,} shots were never offered to us, by their pulse ids"),
    ]
    assert e is not None
    kept = e.columns["ffb/kept"]
    shed = int((kept < 1).sum())
    return [
        *facts,
        ("shed", f"{shed:,} rows were taken while shots around them were shed"),
        ("counted", f"{e.rows:,} rows, {len(e.commits):,} commits, {len(e.ledger):,} entries"),
        ("epochs", f"{len(e.epochs):,}"),
        *((f"sum {name}", said) for name, said in report.sums),
    ]
