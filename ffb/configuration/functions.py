"""Functions that an expression may call: how each is called, and the code that computes it."""

from __future__ import annotations

from collections.abc import Mapping

from ffb.shot import CODE_WORDS

#: Of one number.
ONE = {
    "abs": "np.abs",
    "sqrt": "np.sqrt",
    "log": "np.log",
    "log10": "np.log10",
    "exp": "np.exp",
    "sin": "np.sin",
    "cos": "np.cos",
    "tan": "np.tan",
    "arcsin": "np.arcsin",
    "arccos": "np.arccos",
    "arctan": "np.arctan",
    "floor": "np.floor",
    "ceil": "np.ceil",
    "round": "np.rint",
    "sign": "np.sign",
}

#: Of two numbers.
TWO = {"arctan2": "np.arctan2", "hypot": "np.hypot"}

#: Of two numbers or more: the first that is so to all others.
FOLDED = {"min": "<", "max": ">"}

#: Of the values of an array, of which ``{0}`` is what :func:`ffb.loops.over.over` gives: how many
#: values there are that are not NaN, how many that are, their sum, the least and the largest.
OVER = {
    "sum": "{0}[2] if {0}[1] == 0 else np.nan",
    "mean": "{0}[2] / {0}[0] if {0}[1] == 0 and {0}[0] > 0 else np.nan",
    "min": "{0}[3] if {0}[1] == 0 else np.nan",
    "max": "{0}[4] if {0}[1] == 0 else np.nan",
    "nansum": "{0}[2] if {0}[0] > 0 else np.nan",
    "nanmean": "{0}[2] / {0}[0] if {0}[0] > 0 else np.nan",
    "nanmin": "{0}[3]",
    "nanmax": "{0}[4]",
}

#: Event codes of which one, or all, have to be there.
CODES = {"code": "or", "any_code": "or", "all_codes": "and"}

#: Least and largest number of arguments, of functions that have not just one.
ARGUMENTS = {
    "where": (3, 3),
    "polyval": (2, 2),
    "ratio": (2, 3),
    **dict.fromkeys(TWO, (2, 2)),
    **dict.fromkeys(FOLDED, (2, 255)),
    **dict.fromkeys(("any_code", "all_codes"), (1, 16 * CODE_WORDS)),
}

#: How every function is called, for messages.
CALLS: Mapping[str, str] = {
    **{name: f"{name}(x)" for name in ONE},
    "arctan2": "arctan2(y, x)",
    "hypot": "hypot(x, y)",
    **{name: f"{name}(a, b, ...)" for name in FOLDED},
    **{name: f"{name}(x[0:10])" for name in OVER if name not in FOLDED},
    "isfinite": "isfinite(x)",
    "where": "where(condition, a, b)",
    "ratio": "ratio(a, b, least), that is a / b where b is above least in size (0 if left out)",
    "polyval": "polyval(x, [c0, c1, c2]), that is c0 + c1*x + c2*x**2",
    "code": "code(40)",
    "any_code": "any_code(40, 41)",
    "all_codes": "all_codes(40, 140)",
}
