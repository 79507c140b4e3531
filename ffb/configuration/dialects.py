"""What people write in expressions because it is so elsewhere, and how it is written here."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ffb.configuration.functions import CALLS, OVER
from ffb.configuration.problems import nearest

#: Of C, of pandas' ``query`` and of SQL, what Python cannot read.
_SPELLED: Mapping[str, str] = {
    "&&": "write `and` for &&",
    r"\|\|": "write `or` for ||",
    "!(?!=)": "write `not` for !",
    "<>": "write != for <>",
    "=>": "write >= for =>",
    "=<": "write <= for =<",
    r"\b(AND|OR|NOT)\b": "write and, or, not in small letters",
    "(?<![=<>!])=(?![=<>])": "write == to compare",
}

_FUNCTIONS: Mapping[str, str] = {
    "isnan": "write not isfinite(x)",
    "float": "all numbers are",
    "int": "write floor(x)",
    "len": "a list has its length in a column of its own",
}

#: Parts of the names of event codes in psana's and in smalldata_tools' files.
_EVENT_CODES = re.compile(r"eventcodes?|\bevr\b|code_\d+", re.IGNORECASE)


def of_text(text: str) -> str:
    """What to write instead of a piece of ``text``, which cannot be read; empty if unknown."""
    for pattern, instead in _SPELLED.items():
        if re.search(pattern, text):
            return f"; {instead}"
    return ""


def of_function(name: str) -> str:
    """What to call instead of ``name``, which is no function here."""
    owner, _, last = name.rpartition(".")
    if last in _FUNCTIONS:
        return _FUNCTIONS[last]
    if owner and last in CALLS and owner not in ("np", "numpy", "math"):
        return f"write {last}({owner})" if last in OVER else f"it is {CALLS[last]}"
    return nearest(last if owner in ("np", "numpy", "math") else name, list(CALLS))


def of_column(name: str) -> str:
    """What ``name``, which is not a column, may stand for; empty if nothing is known."""
    return "; write event codes as code(40)" if _EVENT_CODES.search(name) else ""
