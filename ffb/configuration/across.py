"""Check what one table of a configuration says of another: that names lead somewhere, and fit.

All of it works on plain data, because the models of :mod:`ffb.configuration.settings` may have
refused another part of it; wrong types are theirs to report.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ffb import shot
from ffb.configuration import derive, problems, resolve
from ffb.configuration.detector_settings import kinds, misnamed
from ffb.configuration.photon_settings import unknown
from ffb.configuration.problems import Problem, nearest
from ffb.configuration.runs import RunTable
from ffb.configuration.settings import BatchConfig
from ffb.loops import wiring
from ffb.messaging.codec import CODECS
from ffb.messaging.untrusted import MAX_CHUNK
from ffb.reduce import Reducer, TileReducer
from ffb.schema import column_name
from ffb.sums.piece import NAME

_Any = Reducer[Any, Any] | TileReducer


def check(data: Mapping[str, Any], folder: Path) -> Iterator[Problem]:
    """Everything that does not fit together in ``data``; ``folder`` is where user code is sought.

    A table that is not of the type it ought to be is passed over.
    """
    yield from _check_calibration(data)
    yield from _check_reducers(data, folder)
    yield from _check_compression(data)
    yield from derive.check(data)
    yield from derive.check_light(data)
    for group, kind in misnamed(data):
        yield Problem(
            ("detectors", group, "kind"), f"no kind {kind!r}; {nearest(kind, [*kinds()])}"
        )
    yield from _check_sums(data)
    for name, known in unknown(data):
        yield Problem(("photons", name), f"no input {name!r}; {nearest(name, known)}")


def _check_calibration(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Find detectors that look mistyped; others may be there for the files laid on this one."""
    inputs, calibration = data.get("inputs"), data.get("calibration")
    tables = inputs.values() if isinstance(inputs, Mapping) else ()
    named = [t.get("detector") for t in tables if isinstance(t, Mapping)]
    known = [d for d in named if isinstance(d, str)]
    for name in calibration if isinstance(calibration, Mapping) else ():
        if name not in known and "did you mean" in (near := nearest(name, known)):
            yield Problem(("calibration", name), f"no input is from this detector; {near}")


def _check_compression(data: Mapping[str, Any]) -> Iterator[Problem]:
    """A compressed batch is a chunk of the file, whose chunks of all columns begin together."""
    batch, writer = data.get("batch", {}), data.get("writer", {})
    codec = writer.get("compression", "none") if isinstance(writer, Mapping) else "none"
    shots = batch.get("shots", BatchConfig().shots) if isinstance(batch, Mapping) else 0
    if codec in CODECS and type(shots) is int and (shots > MAX_CHUNK or shots & (shots - 1)):
        yield Problem(
            ("batch", "shots"),
            f'with writer.compression = "{codec}" a power of two up to {MAX_CHUNK} is needed,'
            f" got {shots}",
        )


def _check_sums(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Sums have inputs, and names of which no two make equal names in the file.

    Whether a reducer has a feature, the run tells.
    """
    inputs, reducers, sums = (data.get(k) for k in ("inputs", "reducers", "sums"))
    known = list(inputs) if isinstance(inputs, Mapping) else []
    makers = list(reducers) if isinstance(reducers, Mapping) else []
    names = list(sums) if isinstance(sums, Mapping) else []
    for name in names:
        table = sums[name] if isinstance(sums, Mapping) else {}
        given = table.get("input", "") if isinstance(table, Mapping) else ""
        if not NAME.fullmatch(name):
            yield Problem(("sums", name), "a name has up to 64 letters, digits and _")
        if isinstance(given, str) and (of := given or name) not in known:
            at = ("sums", name, "input") if given else ("sums", name)
            near = [f"{m}/..." for m in makers] if "/" in of else known
            if not wiring.owner_of(of, makers):
                yield Problem(at, f"no input {of!r}; {nearest(of, near)}")
        for other in names:
            if name.startswith(f"{other}_"):
                text = f"begins like the datasets of the sum {other!r}: choose another name"
                yield Problem(("sums", name), text)


def _check_reducers(data: Mapping[str, Any], folder: Path) -> Iterator[Problem]:
    """Arguments name inputs or columns that there are, and parameters fit what they are for."""
    inputs, reducers = data.get("inputs"), data.get("reducers")
    tables = {
        n: t
        for n, t in (reducers.items() if isinstance(reducers, Mapping) else ())
        if isinstance(t, Mapping)
    }
    found = {n: _resolved(t, folder) for n, t in tables.items()}
    columns = [c.name for c in wiring.FILLED]
    for name, r in found.items():
        columns += [column_name(name, f) for f in (() if isinstance(r, str) else r.outputs)]
    given = inputs if isinstance(inputs, Mapping) else {}
    lists = [shot.length_of(n) for n, t in given.items() if isinstance(t, Mapping) and "room" in t]
    for name in (n for n in lists if n in given):
        yield Problem(("inputs", name), "counts the entries of another input; rename one of them")
    names = _Names([*given, *lists], columns, data)
    for name, table in tables.items():
        for at, text in _check_reducer(table, names, found[name], folder):
            yield Problem(("reducers", name, *at), text)


def _resolved(table: Mapping[str, Any], folder: Path) -> _Any | str:
    """The reducer that a table uses, or what is wrong; nothing if its name is not a text."""
    if not isinstance(table.get("use"), str):
        return ""
    try:
        return resolve.reducer(table["use"], folder)
    except LookupError as e:
        return str(e)


class _Names(NamedTuple):
    """What arguments of reducers may name; which motors there are, only the run knows."""

    inputs: list[str]
    columns: list[str]
    data: Mapping[str, Any]

    def problem(self, name: str) -> str:
        """What is wrong with a name, if anything."""
        if name in self.inputs or name in self.columns or name.startswith("scan/"):
            return ""
        if text := wiring.elsewhere(name, self.data):
            return text
        return f"no input {name!r}; {nearest(name, self.columns if '/' in name else self.inputs)}"


def _check_reducer(
    table: Mapping[str, Any], names: _Names, resolved: _Any | str, folder: Path
) -> Iterator[Problem]:
    found = None if isinstance(resolved, str) else resolved
    if isinstance(resolved, str) and resolved:
        yield Problem(("use",), resolved)
    given = table.get("inputs", {})
    if isinstance(given, str):
        yield from _check_input(given, names, found)
    elif isinstance(given, Mapping):
        yield from _check_inputs(given, names, found)
    params = table.get("params", {})
    if isinstance(params, str):
        yield from _check_function(params, folder)
    elif isinstance(params, Mapping | list):
        yield from _check_params(params, found)


def _check_input(given: str, names: _Names, found: _Any | None) -> Iterator[Problem]:
    if wrong := names.problem(given):
        yield Problem(("inputs",), wrong)
    if found is not None and len(found.inputs) != 1:
        table = ", ".join(f'{a} = "..."' for a in found.inputs)
        yield Problem(("inputs",), f"{found.name} takes several; write {{ {table} }}")


def _check_inputs(given: Mapping[str, Any], names: _Names, found: _Any | None) -> Iterator[Problem]:
    for argument, name in given.items():
        if found is not None and argument not in found.inputs:
            near = nearest(argument, list(found.inputs))
            yield Problem(("inputs", argument), f"no argument of {found.name}; {near}")
        if isinstance(name, str) and (wrong := names.problem(name)):
            yield Problem(("inputs", argument), wrong)
    if found is not None:
        for argument in found.inputs:
            if argument not in given:
                yield Problem(("inputs", argument), f"missing: which input {found.name} gets")


def _check_function(given: str, folder: Path) -> Iterator[Problem]:
    try:
        if not callable(resolve.function(given, folder)):
            yield Problem(("params",), f"{given} is not a function of the run")
    except LookupError as e:
        yield Problem(("params",), str(e))


def _check_params(given: Any, found: _Any | None) -> Iterator[Problem]:
    table, wrong = RunTable.parse(given)
    for at, text in wrong:
        yield Problem(("params", *at), text)
    if found is not None:
        for row in table.rows:
            for p in problems.of_parameters(found.params, row.values):
                yield Problem(("params", *row.at, *p.path), p.text)
