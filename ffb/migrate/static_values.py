"""Values that are read from a Python file without running it, and how they are combined.

Exports :class:`Unread`, :class:`Table`, :data:`RUN`, and the operators, calls and methods that only
make values; all of them are bounded in size.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

#: Entries of a container or characters of a text, digits of a number.
LONGEST, DIGITS = 10_000, 60


class UnreadError(Exception):
    """Something that is not read, at a line of the file."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(f"line {line}: {why}")
        self.line, self.why = line, why


@dataclass(frozen=True)
class Unread:
    """Stands for a value that is not known, and why."""

    line: int
    why: str


class Table(dict[Any, Any]):
    """A dict that knows at which line each of its values stands."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.lines: dict[Any, int] = {}


class Run:
    """The number of a run: it can be compared, and that is all that is known of it."""


RUN = Run()


#: A plain field of a format: a name, and at most two digits of width.
_FIELD = re.compile(r"\{\w*(?::[0-9]{0,2}(?:\.[0-9]{1,2})?[a-z]?)?\}|\{\{")

#: Operators by their node.
OPERATORS: Mapping[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
    ast.Is: lambda a, b: a is b,
    ast.IsNot: lambda a, b: a is not b,
}
#: Numbers of numpy.
NUMPY = {"pi": math.pi, "inf": math.inf, "nan": math.nan, "e": math.e}


def _span(*bounds: Any) -> list[Any]:
    """Bounds of a slice, as regions are given."""
    return list(bounds[:2]) if len(bounds) > 1 else [0, *bounds]


def _even(begin: float, end: float, n: int = 50) -> list[float]:
    return [begin + (end - begin) * i / max(1, n - 1) for i in range(few(n))]


def _steps(begin: float, end: float | None = None, step: float = 1) -> list[float]:
    first, last = (0, begin) if end is None else (begin, end)
    return [first + i * step for i in range(few(max(0, math.ceil((last - first) / step))))]


def few(n: int) -> int:
    """``n``, unless it is more than a configuration has."""
    if n > LONGEST:
        raise ValueError(f"{n} values are more than a configuration has")
    return n


def _counted(values: range) -> list[int]:
    few(len(values))
    return list(values)


def _scalar(value: Any) -> str:
    if isinstance(value, str | int | float):
        return str(value)
    raise ValueError("only a number is made a text")


def _listed(values: Any) -> list[Any]:
    return list(values)


#: Calls that only make values: by their dotted name, numpy's under ``np`` or ``numpy``.
CALLS: Mapping[str, Callable[..., Any]] = {
    **{f.__name__: f for f in (abs, min, max, sum, len, int, float, bool, round, tuple, list)},
    "str": lambda v: _scalar(v),
    "range": lambda *bounds: _counted(range(*bounds)),
    "slice": _span,
    "sorted": lambda v: sorted(v),
    "np.array": _listed,
    "np.asarray": _listed,
    "np.arange": _steps,
    "np.linspace": _even,
    "np.sqrt": math.sqrt,
    "np.append": lambda a, b: [*a, *(b if isinstance(b, list) else [b])],
    "os.path.join": lambda *parts: "/".join(p.rstrip("/") for p in parts),
}
#: Methods of containers and texts that only make values or fill what is written out.
METHODS: Mapping[tuple[type, str], Callable[..., Any]] = {
    (list, "append"): list.append,
    (list, "extend"): lambda a, b: a.extend(b[: few(len(a) + len(b))]),
    (list, "tolist"): list.copy,
    (list, "copy"): list.copy,
    (Table, "copy"): lambda t: _copied(t),
    (Table, "update"): lambda t, other: updated(t, other),
    (Table, "get"): dict.get,
    (Table, "keys"): _listed,
    (Table, "values"): lambda t: list(t.values()),
    (Table, "items"): lambda t: [tuple(i) for i in t.items()],
    (str, "format"): lambda text, *given, **named: _filled(text, given, named),
    (str, "lower"): str.lower,
    (str, "upper"): str.upper,
    (str, "strip"): str.strip,
    (str, "startswith"): str.startswith,
    (str, "endswith"): str.endswith,
}


def _filled(text: str, given: Any, named: Any) -> str:
    """``text.format(...)`` with numbers and texts, of plain fields."""
    if not all(isinstance(v, str | int | float) for v in (*given, *named.values())):
        raise ValueError("only numbers and texts are filled in")
    if _FIELD.sub("", text).count("{"):
        raise ValueError("the format is not read")
    return text.format(*given, **named)


def _copied(table: Table) -> Table:
    out = Table(table)
    out.lines = dict(table.lines)
    return out


def updated(table: Table, other: Mapping[Any, Any]) -> None:
    """Take over what another table has, and where it stands."""
    table.update(other)
    table.lines |= getattr(other, "lines", {})
