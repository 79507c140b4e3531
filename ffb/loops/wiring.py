"""What the arguments of reducers stand for, and the order of reducers that follows from it.

An argument is an input of the run, or a column that is filled before the reducer runs: one of
ffb's own (``lightStatus/xray``, ``scan/lxt``) or a feature of another reducer (``spot/sum``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

from ffb.configuration.problems import nearest
from ffb.schema import KEPT, LASER, PULSE_ID, STEP, TIMESTAMP, XRAY, Column, column_name
from ffb.shot import Input

#: Columns of ffb's own that are filled when whole-shot reducers run.
FILLED = (TIMESTAMP, PULSE_ID, STEP, XRAY, LASER, KEPT)


def owner_of(column: str, reducers: Iterable[str]) -> str:
    """The one of ``reducers`` whose feature a column is by its name; ``""`` if there is none."""
    mine = (r for r in reducers if column.startswith(column_name(r, "")))
    return max(mine, key=len, default="")


def as_input(column: Column, coords: Mapping[str, Mapping[str, Any]]) -> Input:
    """A column as a reducer receives it: one row a shot.

    ``coords`` are those that its reducer gave of its axes; a waveform's are told.
    """
    told = column.dtype, column.shape, column.unit, column.doc, column.length
    given = Input("value", *told)
    axis = coords.get(column.dims[0]) if len(column.dims) == 1 else None
    if axis is None:
        return given
    return given._replace(coords=tuple(axis["values"]), coords_unit=axis["unit"])


def elsewhere(name: str, data: Mapping[str, Any]) -> str:
    """Why no reducer takes a column that the configuration, plain ``data``, does speak of."""
    derived, detectors = (data.get(k) for k in ("derived", "detectors"))
    if isinstance(derived, Mapping) and name in derived:
        return (
            f"{name!r} is derived, which happens after all reducers have run; use it in another"
            " expression"
        )
    group = name.partition("/")[0]
    if isinstance(detectors, Mapping) and group in detectors and group != name:
        return (
            f"{name!r} is recorded with the detector {group!r}, and no reducer takes it so; name"
            f' its field in [inputs], "{name}" = {{ detector = "...", field = "..." }}'
        )
    return ""


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
        name: {owner_of(a, arguments) for a in taken.values() if a not in inputs} - {""}
        for name, taken in arguments.items()
    }
    try:
        return list(TopologicalSorter(needs).static_order()), ""
    except CycleError as e:
        circle = " <- ".join(e.args[1])
        return list(arguments), f"take each other's features, so that none can be first: {circle}"


def no_column(name: str, owner: str, known: Iterable[str]) -> str:
    """Say that a reducer, the ``owner``, was asked for a feature and has none of that name."""
    mine = [k for k in known if owner_of(k, [owner])]
    return f"{owner} has no feature {name!r} with its parameters; {nearest(name, mine)}"
