"""Tables of which each holds for a range of runs, where one for all runs will do as well."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Discriminator, PlainValidator, Tag, WithJsonSchema

from ffb.configuration import settings
from ffb.configuration.runs import ALL_RUNS, RunRange, holding, overlaps
from ffb.configuration.settings import List, Table

Runs = Annotated[
    RunRange,
    PlainValidator(RunRange.parse),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 0}]}),
]


class ForRuns(Table):
    """A table that may hold for some runs only."""

    runs: Runs = ALL_RUNS
    """Runs it holds for, such as "42-"; each of several tables needs them."""


T = TypeVar("T", bound=ForRuns)


def tag(value: object) -> str:
    """Tell a text, a table and tables from each other."""
    return "<tables>" if isinstance(value, list) else settings.tag(value)


def _one_for_each_run(tables: tuple[T, ...]) -> tuple[T, ...]:
    """Refuse what leaves a run between others without a table, or gives it two."""
    wrong = [] if tables else ["no table in it"]
    for number, table in enumerate(tables, 1):
        if "runs" not in table.model_fields_set:
            wrong.append(f'table {number} of {len(tables)} lacks runs: say which, such as "42-"')
    if not wrong:
        ranges = sorted((t.runs for t in tables), key=lambda r: r.first)
        wrong = [
            f'runs "{a}" and "{b}" overlap; a run may have one table only'
            for a, b in overlaps(ranges)
        ]
    if not wrong:
        wrong = [
            f'no table for runs "{RunRange(a.last + 1, b.first - 1)}", between "{a}" and "{b}":'
            " give them to one of the two, or add one"
            for a, b in pairwise(ranges)
            if a.last is not None and a.last + 1 < b.first
        ]
    if wrong:
        raise ValueError("; ".join(wrong))
    return tables


#: Tables with disjoint `runs`, none of which are left out between the first and the last.
Several = Annotated[List[T], AfterValidator(_one_for_each_run)]

#: One table, or several.
ByRun = Annotated[
    Annotated[T, Tag("<table>")] | Annotated[Several[T], Tag("<tables>")], Discriminator(tag)
]


def for_run(given: T | tuple[T, ...], run: int) -> T:
    """The table that holds for ``run``; raises ``LookupError`` naming the ranges there are."""
    tables = given if isinstance(given, tuple) else (given,)
    return tables[holding([t.runs for t in tables], run)]
