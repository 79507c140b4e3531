"""Tables for the terminal: reducers, the detectors of a run, a small-data file."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import numpy as np

from ffb.configuration import layers, problems, resolve
from ffb.reading import contents
from ffb.reading.contents import SUMS
from ffb.reduce import Reducer, TileReducer
from ffb.service import examples
from ffb.service.terminal import console, table
from ffb.sums.frames import FrameSums, told
from ffb.sums.words import COUNTS

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ffb.integrating.integrated import Integrated
    from ffb.integrating.partners import Choice
    from ffb.reader import RunFile
    from ffb.schema import Column

#: Seconds between two looks at a growing file.
FOLLOW_S = 1.0

#: So many names are listed in a table of many.
FEW = 3

#: What an input of a reducer is, by the number of its axes.
FRAMES = ("a number", "a waveform", "an image", "an area detector")


def columns(of: Iterable[Column]) -> Table:
    """The schema as people read it."""
    rows = [(c.name, _type(c.dtype), "×".join(map(str, c.shape)) or "-", c.unit, c.doc) for c in of]
    return table(("column", "type", "shape", "unit", "what it is"), rows)


def _type(dtype: str) -> str:
    """A column's type in words that need no manual of numpy's codes."""
    kind = np.dtype(dtype)
    return f"text, {kind.itemsize} bytes" if kind.kind == "S" else kind.name


def reducers() -> int:
    """List the installed reducers with the first sentence of what they say of themselves."""
    found = [resolve.reducer(name, Path()) for name in resolve.installed()]
    rows = [(r.name, _takes(_inputs(r).values()), _summary(r.doc)) for r in found]
    console().print(table(("reducer", "takes", "what it does"), rows))
    return 0


def reducer(name: str) -> int:
    """Show one reducer in full, with a table to start from."""
    found = resolve.reducer(name, Path())
    out = console()
    out.print(f"{found.name}, version {found.version}", style="bold")
    out.print(f"{_flowing(found.doc)}\n")
    out.print(table(("input", "what it takes"), _inputs(found).items()))
    if found.params is not None:
        hints, defaults = get_type_hints(found.params), found.params._field_defaults
        rows = [
            (k, problems.spell(hints[k]), _default(defaults[k]) if k in defaults else "needed")
            for k in found.params._fields
        ]
        out.print()
        out.print(table(("parameter", "type", "default"), rows))
        out.print(f"\n{_flowing(inspect.getdoc(found.params) or '')}")
    features = [
        (
            k,
            _type(dtype),
            (", ".join(f.dims) or "-") + (f"; {f.length} of them" if f.length else ""),
            f.unit.replace("@", "the input's"),
            f"{f.doc}{_condition(f.when, found.params)}",
        )
        for k, (dtype, f) in found.outputs.items()
    ]
    out.print()
    out.print(table(("feature", "type", "axes", "unit", "what it is"), features))
    out.print("\nA file that works as it is, on a run made here; put your own source and inputs:\n")
    # an inline table has to stay on its line
    out.print(examples.example(found), end="", soft_wrap=True)
    return 0


def _few(names: Iterable[str]) -> str:
    """The first names, and how many there are."""
    known = [*names]
    return ", ".join(known) if len(known) <= FEW else f"{', '.join(known[:2])}, ... {len(known)}"


def _inputs(found: Reducer[..., Any] | TileReducer) -> dict[str, str]:
    """What each input of a reducer is."""
    return {k: found.meant.get(k) or FRAMES[rank] for k, rank in found.inputs.items()}


def _takes(inputs: Iterable[str]) -> str:
    """What a reducer takes, such as ``"5 waveforms"``."""
    counts = Counter(given.partition(" ")[2] for given in inputs)
    return ", ".join(k if n == 1 else f"{n} {k}s" for k, n in counts.items())


def _summary(doc: str) -> str:
    return _flowing(doc).split("\n")[0]


def _flowing(text: str) -> str:
    """Paragraphs on a line each, for a terminal of any width; indented ones as they are."""
    paragraphs = text.replace("``", "").split("\n\n")
    return "\n\n".join(p if p.startswith((" ", "- ")) else " ".join(p.split()) for p in paragraphs)


def _condition(when: str, params: Any) -> str:
    """For which parameters a feature exists, as an end of the sentence that says what it is."""
    if not when or when in params._fields:
        return when and f" (if {when})"
    said = inspect.getdoc(getattr(params, when)) or when
    return f" ({said[0].lower()}{said[1:].rstrip('.')})"


def _default(value: Any) -> str:
    return "may be left out" if value is None else layers.value(examples.toml(value))


def small_data(path: str, follow: bool) -> int:
    """Say what a file holds; with ``follow`` go on with every commit until the run is over."""
    from ffb.reading import opening
    from ffb.reading.foreign import ForeignFile

    out = console()
    with opening.open(path) as run:
        if isinstance(run, ForeignFile):
            out.print(run)
            return 0
        out.print(f"{run.info.exp} run {run.info.run}", style="bold")
        out.print(columns(run.schema.columns))
        out.print()
        if run.sums:
            out.print(sums(run.sums))
            out.print()
        _state(out, run)
        if follow and not run.complete:
            for rows in run.follow(poll=FOLLOW_S, start=run.committed):
                out.print(f"rows {rows.start:,} to {rows.stop:,}")
            _state(out, run)
    return 0


def sums(of: FrameSums) -> Table:
    """Sums of frames as people read them; counts and steps go with the sum they are of."""
    heads = ("sum", "type", "shape", "unit", "what is in it", "steps")
    shown = [s for s in of.values() if s.steps is None and s.what.of != COUNTS]
    rows = [
        (
            f"{SUMS}/{s.name}",
            s.dtype.name,
            "×".join(map(str, s.shape)),
            s.unit,
            told(s),
            f"{s.name}_steps" if f"{s.name}_steps" in of else "-",
        )
        for s in shown
    ]
    return table(heads, rows)


def _state(out: Console, run: RunFile) -> None:
    counts = run.counts
    lost = ", ".join(f"{n:,} {reason}" for reason, n in counts.lost.items() if n)
    entries = run.ledger
    files = f"1 of {run.committed:,} rows"
    if run.segmented:
        closed = sum(not s.growing for s in run.segments)
        files = f"{closed} closed, {len(run.segments) - closed} growing, behind {run.path.name}"
    rows = [
        ("rows committed", f"{run.committed:,} (commit {counts.commit:,})"),
        ("shots read", f"{counts.read:,}"),
        ("written", f"{counts.written:,}"),
        ("lost", f"{sum(counts.lost.values()):,}" + (f": {lost}" if lost else "")),
        ("late", f"{counts.late:,}"),
        ("duplicates", f"{counts.duplicates:,}"),
        ("not seen", f"about {counts.not_seen:,}, by pulse ids"),
        ("ledger", f"{len(entries):,} entries of {len(run.producers):,} producers' processes"),
        ("epochs", f"{len(run.lines(contents.EPOCHS)):,}"),
        ("steps", f"{len(run.steps):,}"),
        ("files", files),
        ("state", "complete" if run.complete else "growing, or cut off"),
        ("ended", counts.ended or "not yet"),
    ]
    out.print(table(("the books", ""), rows))
    if run.integrating:
        out.print()
        out.print(exposures(run.integrated(name) for name in run.integrating))


def integrating(name: str, choice: Choice) -> str:
    """What an integrating detector will be given, in a sentence."""
    own, partners = _few(c.name for c in choice.own), _few(c.name for c in choice.partners)
    return (
        f"integrating {name}: an exposure ends with each shot that has {own}; gathered over its"
        f" shots: {partners or 'their number'}"
    )


def exposures(of: Iterable[Integrated]) -> Table:
    """Exposures of integrating detectors as people read them."""
    rows = []
    for found in of:
        reasons = ", ".join(f"{n:,} {why}" for why, n in found.reasons().items())
        rows.append(
            (
                found.name,
                f"{found.n:,}",
                f"{found.framed.sum():,}",
                f"{found.n - found.partial.sum():,}",
                reasons or "-",
                _last(found),
            )
        )
    heads = ("detector", "exposures", "with a frame", "whole", "partial", "the last with a frame")
    return table(heads, rows)


def _last(found: Integrated) -> str:
    """Shots of the newest exposure with a frame, and how many there should be."""
    framed = found.framed.nonzero()[0]
    if not len(framed):
        return "no frame came"
    n, missing = int(found.count()[framed[-1]]), int(found.exposures.missing[framed[-1]])
    return f"{n:,} shots" if missing < 0 else f"{n:,} of {n + missing:,} shots"


def detnames(names: Sequence[str]) -> int:
    """List every detector and field of the first run of xtc2 files, a folder, or a tag.

    Raises ``LookupError`` when there is no run.
    """
    from ffb.sources.choose import source_named

    source, out = source_named(names), console()
    try:
        for run in source.runs():
            rows = sorted((f.detector, f"{f.alg}.{f.name}", w) for f, w in run.fields.items())
            out.print(f"{run.info.exp} run {run.info.run}", style="bold")
            out.print(table(("detector", "field", "type"), rows))
            if run.motors:
                out.print(f"\nmotors: {', '.join(run.motors)}")
            return 0
    finally:
        source.close()
    raise LookupError(f"no run in {', '.join(names)}")
