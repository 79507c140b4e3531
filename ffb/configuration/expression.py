"""Expressions over columns and event codes: read safely, checked, and written as code of our own.

The text is Python's, of which a few pieces are understood; nothing of it is ever run. From the
checked tree come lines of new text, for :func:`ffb.loops.compile.build`, a variable for every step.

An expression is of one of two kinds. A *number* is a float64, computed as IEEE 754 says: division
by zero is infinite, ``//`` and ``%`` are those of Python, and NaN stands for whatever is missing
and makes missing what is computed of it. A *truth* is yes, no or unknown (Kleene's strong logic):
a comparison with NaN is unknown, ``no and unknown`` is no, ``yes or unknown`` is yes, and
``not unknown`` is unknown. So nothing passes because a detector was missing, not even a ``not``.
A truth where a number is needed is 1, 0 or NaN.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping
from enum import Enum
from keyword import iskeyword
from typing import NamedTuple

from ffb.configuration import dialects
from ffb.configuration.functions import ARGUMENTS, CALLS, CODES, FOLDED, ONE, OVER, TWO
from ffb.configuration.syntax import At, Span, path, place, read, whole
from ffb.shot import CODE_WORDS

#: The three values of a truth: *and* is the least, *or* the greatest, *not* is 2 minus it.
NO, UNKNOWN, YES = 0, 1, 2

#: Names that stand for numbers; a column of such a name is written in quotes.
NUMBERS = {"nan": "np.nan", "inf": "np.inf", "pi": "np.pi"}


class Kind(Enum):
    """What an expression gives; ``ANY`` where that is not known yet, or something is wrong."""

    NUMBER = "a number"
    TRUTH = "yes or no"
    ANY = "?"


class Term(NamedTuple):
    """A variable or a literal of the code, and its kind."""

    kind: Kind
    text: str


class Code:
    """Lines of code, made step by step."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._kept: dict[str, Term] = {}

    def keep(self, kind: Kind, text: str) -> Term:
        """A variable with the value of ``text``, the same one for equal steps."""
        if text not in self._kept:
            self._kept[text] = Term(kind, f"t{len(self._kept)}")
            self.lines.append(f"t{len(self._kept) - 1} = {text}")
        return self._kept[text]


#: Finds ``column`` and, of an array, what is ``at`` a place: code for the element, or for what
#: :func:`ffb.loops.over.over` says of all of ``many`` values; else what is wrong with it.
Find = Callable[[str, At, bool], Term | str]

_NOTHING = Term(Kind.ANY, "np.nan")

#: All of them do in numba, on floats, what numpy's do.
_INFIX: Mapping[type[ast.AST], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Pow: "**",
}
_COMPARED: Mapping[type[ast.AST], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}
#: What people write instead, by the node that it is read as.
_INSTEAD: Mapping[type[ast.AST], str] = {
    ast.BitAnd: "write `and`",
    ast.BitOr: "write `or`",
    ast.BitXor: "a power is written **",
    ast.Invert: "write `not`",
    ast.IfExp: "write where(condition, a, b)",
    ast.Is: "write ==",
    ast.IsNot: "write !=",
    ast.In: "write x == 1 or x == 2",
}
_NAMES = ", ".join(CALLS)


def translate(text: str, find: Find, wanted: Kind, code: Code) -> tuple[Term, list[str]]:
    """The value of ``text``, whose steps are added to ``code``, and everything that is wrong.

    The code uses ``words``, the event codes of a shot, ``timed``, whether they are known, and what
    ``find`` gives for columns.
    """
    made = _Translator(find, code)
    try:
        term = made.term(read(text))
    except ValueError as e:
        return _NOTHING, [str(e)]
    except RecursionError:
        return _NOTHING, ["is nested too deeply; name parts of it"]
    if wanted is Kind.TRUTH and term.kind is Kind.NUMBER:
        made.problems.append("gives a number, not yes or no: compare it with something")
    if wanted is Kind.NUMBER and term.kind is Kind.TRUTH:
        made.problems.append("gives yes or no, not a number: put it under [filters]")
    return term, list(dict.fromkeys(made.problems))


def anything(name: str, at: At, many: bool) -> Term:
    """A ``find`` that knows every column, for expressions of which no run is known."""
    return _NOTHING


def elements_in(text: str) -> dict[tuple[str, At], None]:
    """Columns that ``text`` names with the elements of arrays, as far as it can be read."""
    found: dict[tuple[str, At], None] = {}

    def note(name: str, at: At, many: bool) -> Term:
        found[name, at] = None
        return _NOTHING

    translate(text, note, Kind.ANY, Code())
    return found


def names_in(text: str) -> set[str]:
    """Columns that ``text`` names, as far as it can be read."""
    return {name for name, _ in elements_in(text)}


def written(column: str) -> str:
    """How an expression names ``column``: ``spot.sum``, or in quotes where that is no name."""
    parts = column.split("/")
    plain = all(p.isidentifier() and not iskeyword(p) for p in parts)
    return ".".join(parts) if plain and column not in NUMBERS else repr(column)


class _Translator:
    """Walks a tree; every method gives the value of a node and notes what is wrong with it."""

    def __init__(self, find: Find, code: Code) -> None:
        self._find, self._code = find, code
        self.problems: list[str] = []

    def _wrong(self, text: str) -> Term:
        self.problems.append(text)
        return _NOTHING

    def term(self, node: ast.expr) -> Term:
        """The value of ``node``."""
        match node:
            case ast.Name(id=name) if name in NUMBERS:
                return Term(Kind.NUMBER, NUMBERS[name])
            case ast.Constant(value=bool() as value):
                return self._wrong(f"{value} has no place in an expression; write {value:d}")
            case ast.Constant(value=None | bytes() | complex()) | ast.JoinedStr():
                return self._wrong(f"{ast.unparse(node)} has no place in an expression")
            case ast.Constant(value=int() | float() as value):
                return self._number(value)
            case ast.Name() | ast.Attribute() | ast.Constant():
                return self._column(node, ())
            case ast.Subscript(value=value, slice=index):
                return self._element(node, value, index)
            case ast.UnaryOp(op=ast.Not(), operand=x):
                return self._code.keep(Kind.TRUTH, f"2 - {self._truth(x)}")
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as op, operand=x):
                sign = "-" if isinstance(op, ast.USub) else "+"
                return self._code.keep(Kind.NUMBER, f"{sign}{self._value(x)}")
            case ast.BoolOp(op=op, values=values):
                chosen = "min" if isinstance(op, ast.And) else "max"
                return self._joined(chosen, [self._truth(v) for v in values])
            case ast.BinOp(op=op) if type(op) in _INFIX:
                return self._arithmetic(node)
            case ast.Compare():
                return self._comparison(node)
            case ast.Call():
                return self._call(node)
        return self._refuse(node)

    def _refuse(self, node: ast.expr) -> Term:
        kind: type = type(getattr(node, "op", node))
        known = f"known are numbers, columns, + - * / // % **, comparisons, and/or/not, {_NAMES}"
        return self._wrong(f"cannot take {ast.unparse(node)!r}; {_INSTEAD.get(kind, known)}")

    def _number(self, value: float) -> Term:
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            return self._wrong("a number is too large; infinity is written inf")
        return Term(Kind.NUMBER, f"np.float64({number!r})")

    def _column(self, node: ast.expr, at: At, many: bool = False) -> Term:
        name = path(node)
        if name is None:
            return self._wrong(f"cannot take {ast.unparse(node)!r}; a column is a.b, or 'a/b'")
        found = self._find(name, at, many)
        if isinstance(found, Term):
            return found
        return self._wrong(f"{found}{dialects.of_column(name)}")

    def _element(self, node: ast.expr, value: ast.expr, index: ast.expr) -> Term:
        at = place(index)
        if at is None:
            counts = "an index is a whole number, and counts from 0"
            return self._wrong(f"cannot take {ast.unparse(node)!r}; {counts}")
        if any(isinstance(k, Span) for k in at):
            several = "has many values; take one, or their sum, mean, min or max"
            return self._wrong(f"{ast.unparse(node)} {several}")
        return self._column(value, at)

    def _over(self, name: str, node: ast.expr) -> Term:
        """What a function says of many values, NaN where one of them, or all, are missing."""
        value: ast.expr = node
        at: At | None = ()
        if isinstance(node, ast.Subscript):
            value, at = node.value, place(node.slice)
        if at is None:
            instead = "write a place as x[3], x[0:10], x[2, 0:10]"
            return self._wrong(f"cannot take {ast.unparse(node)!r}; {instead}")
        if path(value) is None:
            instead = f"{name} takes the values of a column, as x[0:10]"
            return self._wrong(f"cannot take {ast.unparse(node)!r}; {instead}")
        kind, text = self._column(value, at, many=True)
        if kind is not Kind.ANY or text == _NOTHING.text:
            return Term(Kind.NUMBER, text)
        return self._code.keep(Kind.NUMBER, OVER[name].format(text))

    def _value(self, node: ast.expr) -> str:
        """The value of ``node`` as a number."""
        return self._as_number(self.term(node))

    def _as_number(self, term: Term) -> str:
        if term.kind is not Kind.TRUTH:
            return term.text
        text = f"np.nan if {term.text} == {UNKNOWN} else 0.5 * {term.text}"
        return self._code.keep(Kind.NUMBER, text).text

    def _truth(self, node: ast.expr) -> str:
        """The value of ``node`` as a truth."""
        kind, text = self.term(node)
        if kind is Kind.NUMBER:
            self._wrong(f"{ast.unparse(node)} is a number, not yes or no: compare it")
        return text

    def _joined(self, chosen: str, truths: list[str]) -> Term:
        return self._code.keep(Kind.TRUTH, f"{chosen}({', '.join(truths)})")

    def _arithmetic(self, node: ast.BinOp) -> Term:
        parts = path(node.left), path(node.right)
        if isinstance(node.op, ast.Div) and None not in parts:
            whole = f"{parts[0]}/{parts[1]}"
            apart = [isinstance(self._find(str(p), (), False), str) for p in parts]
            if any(apart) and isinstance(self._find(whole, (), False), Term):
                return self._wrong(f"{whole} divides; the column is written {written(whole)}")
        a, b = self._value(node.left), self._value(node.right)
        return self._code.keep(Kind.NUMBER, f"{a} {_INFIX[type(node.op)]} {b}")

    def _comparison(self, node: ast.Compare) -> Term:
        for op in node.ops:
            if type(op) not in _COMPARED:
                instead = _INSTEAD.get(type(op), "write != for each")
                return self._wrong(f"cannot take {ast.unparse(node)!r}; {instead}")
        compared = (node.left, *node.comparators)
        if any(isinstance(n, ast.Name) and n.id == "nan" for n in compared):
            instead = "write isfinite(x), or not isfinite(x)"
            return self._wrong(f"{ast.unparse(node)} is never known; {instead}")
        sides = [self._value(n) for n in compared]
        truths = []
        for op, a, b in zip(node.ops, sides, sides[1:], strict=False):
            known = f"{YES} if {a} {_COMPARED[type(op)]} {b} else {NO}"
            text = f"{UNKNOWN} if np.isnan({a}) or np.isnan({b}) else {known}"
            truths.append(self._code.keep(Kind.TRUTH, text))
        return truths[0] if len(truths) == 1 else self._joined("min", [t.text for t in truths])

    def _call(self, node: ast.Call) -> Term:
        name = node.func.id if isinstance(node.func, ast.Name) else ast.unparse(node.func)
        if name not in CALLS:
            return self._wrong(f"no function {name!r}; {dialects.of_function(name)}")
        least, most = ARGUMENTS.get(name, (1, 1))
        least = 1 if name in OVER else least
        starred = any(isinstance(a, ast.Starred) for a in node.args)
        if node.keywords or starred or not least <= len(node.args) <= most:
            return self._wrong(f"cannot take {ast.unparse(node)!r}; it is {CALLS[name]}")
        if name in CODES:
            return self._event_codes(node, name)
        if name == "polyval":
            return self._polynomial(node)
        if name == "where":
            return self._choice(node)
        if name in OVER and len(node.args) == 1:
            return self._over(name, node.args[0])
        values = [self._value(a) for a in node.args]
        if name == "isfinite":
            return self._code.keep(Kind.TRUTH, f"{YES} if np.isfinite({values[0]}) else {NO}")
        if name in ONE:
            return self._code.keep(Kind.NUMBER, f"{ONE[name]}({values[0]})")
        if name in TWO:
            return self._code.keep(Kind.NUMBER, f"{TWO[name]}({values[0]}, {values[1]})")
        if name == "ratio":
            a, b, size = (*values, "np.float64(0.0)")[:3]
            return self._code.keep(Kind.NUMBER, f"{a} / {b} if np.abs({b}) > {size} else np.nan")
        best = values[0]
        for b in values[1:]:  # a NaN is the result, whichever it is
            text = f"{best} if {best} {FOLDED[name]} {b} or np.isnan({best}) else {b}"
            best = self._code.keep(Kind.NUMBER, text).text
        return Term(Kind.NUMBER, best)

    def _event_codes(self, node: ast.Call, name: str) -> Term:
        codes = [whole(a) for a in node.args]
        last = 16 * CODE_WORDS - 1
        masks: dict[int, int] = {}
        for c in codes:
            if c is None or c > last:
                known = f"event codes are numbers from 0 to {last}, as in {CALLS[name]}"
                return self._wrong(f"{ast.unparse(node)}: {known}")
            masks[c >> 4] = masks.get(c >> 4, 0) | 1 << (c & 15)
        joint = CODES[name]
        wanted = {"or": "(words[{0}] & {1}) != 0", "and": "(words[{0}] & {1}) == {1}"}[joint]
        tests = f" {joint} ".join(wanted.format(word, mask) for word, mask in masks.items())
        return self._code.keep(Kind.TRUTH, f"({YES} if {tests} else {NO}) if timed else {UNKNOWN}")

    def _polynomial(self, node: ast.Call) -> Term:
        x, coefficients = node.args
        if not isinstance(coefficients, ast.List | ast.Tuple) or not coefficients.elts:
            return self._wrong(f"cannot take {ast.unparse(node)!r}; it is {CALLS['polyval']}")
        at, *terms = self._value(x), *(self._value(c) for c in coefficients.elts)
        value = terms.pop()
        for c in reversed(terms):
            value = self._code.keep(Kind.NUMBER, f"{c} + {value} * {at}").text
        return Term(Kind.NUMBER, value)

    def _choice(self, node: ast.Call) -> Term:
        condition = self._truth(node.args[0])
        a, b = map(self.term, node.args[1:])
        if a.kind is b.kind is Kind.TRUTH:
            unknown = f"{a.text} if {a.text} == {b.text} else {UNKNOWN}"
            kind, yes, no = Kind.TRUTH, a.text, b.text
        else:
            kind = Kind.ANY if Kind.ANY in (a.kind, b.kind) else Kind.NUMBER
            unknown, yes, no = "np.nan", self._as_number(a), self._as_number(b)
        chosen = f"{yes} if {condition} == {YES} else {no}"
        return self._code.keep(kind, f"({unknown}) if {condition} == {UNKNOWN} else {chosen}")
