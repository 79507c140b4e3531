"""What a Python file says without running it: constants, and what functions of a run would return.

Exports :class:`Module` and :class:`Reading`. The tree of the file is walked by a few
rules of our own: literals, arithmetic, containers, conditions on the run, loops over what is
written out, helpers of the same file. Everything else, and what depends on it, is :class:`Unread`
and says why; no name of the file is ever imported, called or evaluated.

A function of a run is read once for each interval of runs on which it takes one way: conditions
compare the run with numbers, and those are where intervals end.
"""

from __future__ import annotations

import ast
import re
import warnings
from typing import Any, NamedTuple

from ffb.migrate.static_values import Unread
from ffb.migrate.static_walk import Walker

#: How a statement at the top of a file begins.
_BEGINS = r"(?!(?:else|elif|except|finally)\b)[A-Za-z_@]"

#: Intervals of runs for one function.
INTERVALS = 200


class Reading(NamedTuple):
    """What a function returns for runs ``first`` to ``last`` (``None``: all after), and its line.

    ``unread`` are statements that were passed over.
    """

    first: int
    last: int | None
    value: Any
    unread: tuple[Unread, ...]


class Module:
    """A configuration's text, read; ``ValueError`` where it is no Python.

    ``constants`` are the values of its names, ``functions`` its functions by name, ``unread`` what
    was passed over at its top.
    """

    def __init__(self, text: str) -> None:
        try:
            self._tree, left = _parsed(text)
        except (SyntaxError, ValueError) as e:
            line = getattr(e, "lineno", None)
            where = f"line {line}: " if line else ""
            raise ValueError(f"{where}no Python: {getattr(e, 'msg', e)}") from e
        except (RecursionError, MemoryError) as e:
            raise ValueError("is nested too deeply to be a configuration") from e
        self.functions = {n.name: n for n in self._tree.body if isinstance(n, ast.FunctionDef)}
        self.lines: dict[str, int] = {}
        self.constants: dict[str, Any] = {}
        walker = Walker(self.functions, self.constants, self.constants, 1)
        body = [n for n in self._tree.body if not isinstance(n, ast.FunctionDef)]
        self.unread = (*walker.attempt(body), *left)
        for node in body:
            for target in getattr(node, "targets", ()):
                if isinstance(target, ast.Name):
                    self.lines[target.id] = node.lineno

    def of_runs(self, name: str) -> list[Reading]:
        """What the function returns, by intervals of runs from 1 on."""
        out: list[Reading] = []
        first: int | None = 1
        while first is not None:
            walker = Walker(self.functions, self.constants, {}, first)
            value = walker.answer(self.functions[name])
            later = [b for b in walker.ends if b > first]
            last = min(later) - 1 if later else None
            if len(out) >= INTERVALS:
                line = self.functions[name].lineno
                value, last = Unread(line, f"takes more than {INTERVALS} ways"), None
            out.append(Reading(first, last, value, tuple(walker.passed)))
            first = None if last is None else last + 1
        return out


def _parsed(text: str) -> tuple[ast.Module, list[Unread]]:
    """The tree of a file; of Python 2, as until 2019, up to the first statement that prints."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that are none; it is not our file
            return ast.parse(text), []
    except SyntaxError as e:
        if not e.lineno or "Missing parentheses in call to" not in e.msg:
            raise
        lines = re.split(r"\r\n|\r|\n", text)
        first = min(e.lineno, len(lines)) - 1
        while first and not re.match(_BEGINS, lines[first]):
            first -= 1
        tree = ast.parse("\n".join(lines[:first]))
        return tree, [Unread(first + 1, "Python 2: nothing is read from here on")]
