"""Tables for the terminal: reducers, the detectors of a run, a small-data file."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from ffb.configuration import layers, problems, resolve
from ffb.reading import contents
from ffb.reading.contents import SUMS
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
    rows = [(c.name, c.dtype, "×".join(map(str, c.shape)) or "-", c.unit, c.doc) for c in of]
    return table(("column", "dtype", "shape", "unit", "what it is"), rows)


def reducers() -> int:
    """List the installed reducers with the first line of what they say of themselves."""
    found = [resolve.reducer(name, Path()) for name in resolve.installed()]
    rows = [(r.name, _few(r.inputs), _few(r.outputs), r.doc.splitlines()[0]) for r in found]
    console().print(table(("reducer", "inputs", "features", "what it does"), rows))
    return 0


def reducer(name: str) -> int:
    """Show one reducer in full, with a table to start from."""
    found = resolve.reducer(name, Path())
    out = console()
    out.print(f"{found.name}, version {found.version}", style="bold")
    out.print(f"{_plain(found.doc)}\n")
    inputs = [(k, FRAMES[rank]) for k, rank in found.inputs.items()]
    out.print(table(("input", "what it takes"), inputs))
    if found.params is not None:
        hints, defaults = get_type_hints(found.params), found.params._field_defaults
        rows = [
            (k, problems.spell(hints[k]), _default(defaults[k]) if k in defaults else "needed")
            for k in found.params._fields
        ]
        out.print()
        out.print(table(("parameter", "type", "default"), rows))
        out.print(f"\n{_plain(inspect.getdoc(found.params) or '')}")
    features = [
        (
            k,
            dtype,
            (", ".join(f.dims) or "-") + (f"; {f.length} of them" if f.length else ""),
            f.unit.replace("@", "the input's"),
            f"{f.doc}, if {f.when}" if f.when else f.doc,
        )
        for k, (dtype, f) in found.outputs.items()
    ]
    out.print()
    out.print(table(("feature", "dtype", "axes", "unit", "what it is"), features))
    out.print("\nIn the file of an experiment:\n")
    out.print(example(found), end="", soft_wrap=True)  # an inline table has to stay on its line
    return 0


def _few(names: Iterable[str]) -> str:
    """The first names, and how many there are."""
    known = [*names]
    return ", ".join(known) if len(known) <= FEW else f"{', '.join(known[:2])}, ... {len(known)}"


def _plain(text: str) -> str:
    return text.replace("``", "")


def _default(value: Any) -> str:
    return "may be left out" if value is None else layers.value(_toml(value))


def _toml(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def example(found: Any) -> str:
    """A table of a reducer at work, whose parameters work on a detector of their own.

    They are those of the ``example()`` of its module, or, without one, all that are needed.
    """
    inputs = {k: f"an input or a column: {FRAMES[r]}" for k, r in found.inputs.items()}
    given: dict[str, Any] = {"use": found.name, "inputs": inputs}
    if found.params is not None:
        given["params"] = {k: _toml(v) for k, v in _example_parameters(found).items()}
    lines = [f"{k} = {layers.value(v)}" for k, v in given.items()]
    return "\n".join([f"[reducers.my_{found.name}]", *lines, ""])


def _example_parameters(found: Any) -> dict[str, Any]:
    defaults = found.params._field_defaults
    if made := getattr(sys.modules.get(found.module), "example", None):
        shown = made()[0]._asdict()
        return {k: v for k, v in shown.items() if k not in defaults or v != defaults[k]}
    hints = get_type_hints(found.params)
    return {k: _sample(hints[k]) for k in found.params._fields if k not in defaults}


def _sample(hint: Any) -> Any:
    if get_origin(hint) is tuple:
        return [_sample(t) for t in get_args(hint) if t is not Ellipsis]
    simple = {int: 0, float: 0.0, bool: False, str: "", Path: ""}
    return simple[hint] if hint in simple else _sample(get_args(hint)[0])


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
    heads = ("sum", "dtype", "shape", "unit", "what is in it", "steps")
    shown = [s for s in of.values() if s.steps is None and s.what.of != COUNTS]
    rows = [
        (
            f"{SUMS}/{s.name}",
            s.dtype.str[1:],
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
    return f"integrating {name}: frames are where {own} hold; gathered are {partners or 'shots'}"


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
