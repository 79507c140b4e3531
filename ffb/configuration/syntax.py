"""The text of an expression as a tree, and what single nodes of it mean."""

from __future__ import annotations

import ast
import warnings
from typing import NamedTuple

from ffb.configuration import dialects

#: No expression is longer, so that none is nested too deeply to be read.
LONGEST = 2000


class Span(NamedTuple):
    """Elements ``begin`` to ``end`` of an axis, the latter not among them; ``None``: to the end."""

    begin: int
    end: int | None


#: Where in an array: an element of each axis, or, for functions of many values, spans as well, of
#: axes after which all others follow whole.
At = tuple[int | Span, ...]


def read(text: str) -> ast.expr:
    """The tree of ``text``; ``ValueError`` if it is not an expression."""
    if len(text) > LONGEST:
        raise ValueError(f"{len(text)} characters; at most {LONGEST} are read: name parts of it")
    if "#" in text:
        raise ValueError("has a '#'; comments belong into `doc`")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", SyntaxWarning)  # such as '\\d'; they are errors then
            warnings.simplefilter("error", DeprecationWarning)
            return ast.parse(" ".join(text.split()), mode="eval").body
    except SyntaxError as e:
        where = f"at character {e.offset}" if e.offset else "at its end"
        said = f"{e.msg.split('. ')[0].lower()}{dialects.of_text(text)}"
        raise ValueError(f"cannot be read {where}: {said}") from e
    except (ValueError, RecursionError, MemoryError) as e:
        raise ValueError(f"cannot be read: {str(e) or 'it is nested too deeply'}") from e


def path(node: ast.expr) -> str | None:
    """The column that ``node`` names, as its path."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.Attribute):
        above = path(node.value)
        return None if above is None else f"{above}/{node.attr}"
    return node.id if isinstance(node, ast.Name) else None


def whole(node: ast.expr) -> int | None:
    """The integer that ``node`` is, if it is one."""
    value = node.value if isinstance(node, ast.Constant) else None
    return value if type(value) is int else None


def place(index: ast.expr) -> At | None:
    """The place that ``index`` says, if it does."""
    at: list[int | Span] = []
    for part in index.elts if isinstance(index, ast.Tuple) else [index]:
        if isinstance(part, ast.Slice):
            begin = 0 if part.lower is None else whole(part.lower)
            end = None if part.upper is None else whole(part.upper)
            if begin is None or part.step or (part.upper and end is None):
                return None
            at.append(Span(begin, end))
        elif (k := whole(part)) is not None:
            at.append(k)
        else:
            return None
    return tuple(at) or None
