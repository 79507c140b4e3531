"""What a configuration says in expressions: checked when it is read, and put in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

from ffb.configuration.expression import (
    Code,
    Kind,
    Term,
    anything,
    names_in,
    translate,
    written,
)
from ffb.configuration.problems import Problem, nearest
from ffb.configuration.syntax import At
from ffb.schema import Column

#: Sections of the configuration, and what their expressions give.
SECTIONS = {"derived": Kind.NUMBER, "filters": Kind.TRUTH}


class Entry(NamedTuple):
    """An expression of the configuration and its place there."""

    section: str
    name: str
    expr: str
    unit: str = "1"
    doc: str = ""

    @property
    def kind(self) -> Kind:
        """What it has to give."""
        return SECTIONS[self.section]

    @property
    def columns(self) -> tuple[Column, ...]:
        """Its column, and the one that says where it is known."""
        doc = self.doc or self.expr
        if self.kind is Kind.NUMBER:
            return (Column(self.name, "<f8", unit=self.unit, doc=doc, reducer=self.name),)
        known = f"whether {self.name} is known"
        return (
            Column(self.name, "|b1", doc=doc, reducer=self.name),
            Column(f"{self.name}_valid", "|b1", doc=known, reducer=self.name),
        )


def check(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Check the expressions of a configuration, plain data, as far as that goes without a run."""
    entries = []
    for section in SECTIONS:
        tables = data.get(section)
        for name, table in tables.items() if isinstance(tables, Mapping) else ():
            if "" in str(name).split("/"):
                yield Problem((section, name), "a column's name has no empty part")
            expr = table.get("expr") if isinstance(table, Mapping) else None
            if isinstance(expr, str) and expr:
                entries.append(Entry(section, name, expr))
    for e in entries:
        for text in translate(e.expr, anything, e.kind, Code())[1]:
            yield Problem((e.section, e.name, "expr"), text)
    yield from _check_computed(data)
    yield from _check_wheres(data)
    names = [e.name for e in entries]
    for e in entries:
        if e.section == "filters" and names.count(e.name) > 1:
            yield Problem(("filters", e.name), "is a derived number as well; rename either")
    yield from in_order(entries)[1]


def _check_computed(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Check the expressions of detectors, whose columns only a run tells."""
    detectors = data.get("detectors")
    for group, detector in detectors.items() if isinstance(detectors, Mapping) else ():
        tables = detector.get("computed") if isinstance(detector, Mapping) else None
        for name, table in tables.items() if isinstance(tables, Mapping) else ():
            expr = table.get("expr") if isinstance(table, Mapping) else None
            if isinstance(expr, str) and expr:
                for text in translate(expr, anything, Kind.NUMBER, Code())[1]:
                    yield Problem(("detectors", group, "computed", name, "expr"), text)


def _check_wheres(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Check the conditions of sums over shots."""
    sums = data.get("sums")
    for name, table in sums.items() if isinstance(sums, Mapping) else ():
        text = table.get("where") if isinstance(table, Mapping) else None
        if isinstance(text, str) and text:
            for wrong in translate(text, anything, Kind.TRUTH, Code())[1]:
                yield Problem(("sums", name, "where"), wrong)


def made_of(text: str, known: Mapping[str, str]) -> tuple[dict[str, str], set[str]]:
    """Those of the ``known`` expressions that ``text`` is made of, and the columns that they read.

    Expressions that name themselves in a circle are refused before.
    """
    used, columns = dict[str, str](), set[str]()
    for name in sorted(names_in(text)):
        own = name if name in known else name.removesuffix("_valid")
        if own not in known:
            columns.add(name)
        elif own not in used:
            inner = made_of(known[own], known)
            used |= {own: known[own], **inner[0]}
            columns |= inner[1]
    return used, columns


def in_order(entries: Sequence[Entry]) -> tuple[list[Entry], list[Problem]]:
    """Entries such that each comes after those it names; a problem for every circle of them."""
    by_name = {e.name: e for e in entries}
    named = {
        e.name: {entry_of(n, by_name) for n in names_in(e.expr)} & by_name.keys() for e in entries
    }
    problems = []
    while True:
        try:
            order = [*TopologicalSorter(named).static_order()]
        except CycleError as error:
            circle = error.args[1][::-1]
            first = by_name[circle[0]]
            said = " -> ".join(map(written, circle))
            problems.append(
                Problem((first.section, first.name, "expr"), f"depends on itself: {said}")
            )
            named = {k: v - {*circle} for k, v in named.items() if k not in circle}
        else:
            return [by_name[n] for n in order], problems


def entry_of(name: str, known: Mapping[str, Entry]) -> str:
    """The entry whose column ``name`` is, where it is one's."""
    whole = name.removesuffix("_valid")
    filtered = whole in known and known[whole].kind is Kind.TRUTH
    return whole if filtered and name not in known else name


def check_light(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Check the expressions of the lights in a configuration, plain data.

    Beside event codes they know inputs, those of default detectors by the name of the group.
    """
    inputs, detectors = (data.get(k) for k in ("inputs", "detectors"))
    known = [*inputs] if isinstance(inputs, Mapping) else []
    groups = [*detectors] if isinstance(detectors, Mapping) else []

    def find(name: str, at: At, many: bool) -> Term | str:
        if many:
            return f"a light is told from single values, as {written(name)}[3]"
        if name in known or name.partition("/")[0] in groups:
            return anything(name, at, many)
        near = nearest(name, [*known, *(f"{g}/..." for g in groups)])
        return (
            f"a light is told from event codes and inputs, and {written(name)} is neither; {near}"
        )

    for name, key, text in _light_texts(data):
        for wrong in translate(text, find, Kind.TRUTH, Code())[1]:
            yield Problem(("light", name, key), wrong)


def _light_texts(data: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    lights = data.get("light")
    for name, table in lights.items() if isinstance(lights, Mapping) else ():
        for key, text in table.items() if isinstance(table, Mapping) else ():
            if key in ("on", "off") and isinstance(text, str) and text:
                yield name, key, text
