"""What the arguments of reducers stand for, and the order of reducers that follows from it.

An argument is an input of the run, or a column that is filled before the reducer runs: one of
ffb's own (``lightStatus/xray``, ``scan/lxt``) or a feature of another reducer (``spot/sum``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from graphlib import CycleError, TopologicalSorter

from ffb.problems import nearest
from ffb.schema import KEPT, LASER, PULSE_ID, STEP, TIMESTAMP, XRAY, Column
from ffb.shot import Input

#: Columns of ffb's own that are filled when whole-shot reducers run.
FILLED = (TIMESTAMP, PULSE_ID, STEP, XRAY, LASER, KEPT)


def owner_of(column: str) -> str:
    """Name of the reducer whose feature a column would be."""
    return column.rpartition("/")[0]


def as_input(column: Column) -> Input:
    """A column as a reducer receives it: one row a shot."""
    return Input("value", column.dtype, column.shape, column.unit, column.doc)


def motor_column(motor: str) -> Column:
    """The column of a value that each step carries."""
    return Column(f"scan/{motor}", "<f8", doc=f"{motor} of the step")


def in_order(
    arguments: Mapping[str, Mapping[str, str]], inputs: Collection[str]
) -> tuple[list[str], str]:
    """Names of reducers, each behind those whose features it takes; and what is wrong, if anything.

    ``arguments`` are those of each reducer; what is among ``inputs`` needs no reducer.
    """
    needs = {
        name: {owner_of(a) for a in taken.values() if a not in inputs} & arguments.keys()
        for name, taken in arguments.items()
    }
    try:
        return list(TopologicalSorter(needs).static_order()), ""
    except CycleError as e:
        circle = " <- ".join(e.args[1])
        return list(arguments), f"take each other's features, so that none can be first: {circle}"


def no_column(name: str, known: Iterable[str]) -> str:
    """Say that a reducer that was asked for a feature has none of that name."""
    owner = owner_of(name)
    mine = [k for k in known if owner_of(k) == owner]
    return f"{owner} has no feature {name!r} with its parameters; {nearest(name, mine)}"
