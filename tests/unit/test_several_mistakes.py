"""Two parameters that will not do are both named, whatever the reducer."""

from importlib import import_module
from itertools import combinations
from math import nan
from typing import get_type_hints

import pytest

from ffb.configuration import resolve
from ffb.reduce import TileReducer

#: What no parameter of a type can be meant to be.
NONSENSE = {int: -7, float: nan, str: "nonsense"}

#: Parameters of which one replaces the other, or is judged by it.
DEPENDENT = {
    ("bins", "width"),
    ("bins", "edges"),
    ("width", "edges"),
    ("phi_bins", "phi_edges"),
    ("axis", "background"),
    ("dt", "frequencies"),
}

#: What is judged by bins that have been laid out.
LAST = "reference"


def wrong(hint: object) -> object:
    """A value that will not do for a number, a text or several of them; ``None`` for others."""
    for t, v in NONSENSE.items():
        several = (f"tuple[{t.__name__}, {t.__name__}]", f"tuple[{t.__name__}, ...]")
        if (said := str(getattr(hint, "__name__", hint)).removesuffix(" | None")) == t.__name__:
            return v
        if said in several or str(hint).removesuffix(" | None") in several:
            return (v, v)
    return None


def refused(found, params, where) -> set[str]:
    """The parameters that are named where these are refused."""
    try:
        (found.prepare if isinstance(found, TileReducer) else found.constants)(params, where)
    except ValueError as e:
        return {line.split(":")[0] for line in str(e).splitlines()}
    return set()


@pytest.mark.parametrize("name", resolve.installed())
def test_two_mistakes_are_told_at_once(name):
    module = import_module(f"ffb.reducers.{name}")
    found, (params, where, *_) = getattr(module, name), module.example()
    hints = get_type_hints(type(params)) if params else {}
    alone = {}
    for field, hint in hints.items():
        value = wrong(hint)
        named = set() if value is None else refused(found, params._replace(**{field: value}), where)
        if field in named:
            alone[field] = value
    missed = [
        pair
        for pair in combinations(alone, 2)
        if pair not in DEPENDENT
        and LAST not in pair
        and not {*pair} <= refused(found, params._replace(**{f: alone[f] for f in pair}), where)
    ]
    assert not missed
