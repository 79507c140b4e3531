"""Columns and coordinates of what a reducer delivers, as it declares them, shapes as in a run."""

from __future__ import annotations

from typing import Any

import numpy as np

from ffb.loops.fuse import Member
from ffb.reduce import Reducer, TileReducer
from ffb.schema import Column, column_name

#: Axes of a reducer as plain data, ``{dim: {"values": [...], "unit": ...}}``.
Coords = dict[str, dict[str, Any]]


def columns_of(
    name: str, r: Reducer[Any, Any] | TileReducer, params: Any, features: Any, unit: str
) -> tuple[Column, ...]:
    """Columns of a reducer's features, shapes as in ``features``; ``unit`` is the input's.

    Raises ``TypeError`` when a feature has not the axes it declares.
    """
    out = []
    for f, (dtype, meta) in r.selected(params).items():
        shape = np.shape(getattr(features, f))
        if len(shape) != len(meta.dims):
            raise TypeError(f"{f} declares axes {meta.dims}, has shape {shape}")
        u = _unit(meta.unit, unit)
        length = column_name(name, meta.length) if meta.length else ""
        path = column_name(name, f)
        out.append(Column(path, dtype, shape, meta.dims, u, meta.doc, name, length=length))
    return tuple(out)


def _unit(declared: str, given: str) -> str:
    """Unit as declared, with the input's for ``@``."""
    return declared.replace("@", given or "1").removeprefix("1 ") or "1"


def coords_of(member: Member, params: Any, unit: str) -> Coords:
    """Coordinates of a reducer's axes as plain data; ``unit`` is the input's.

    Raises ``TypeError`` for an axis that no feature declares, or of another length than theirs.
    """
    r, out = member.reducer, {}
    declared = {d for _, meta in r.outputs.values() for d in meta.dims}
    for dim, axis in r.coordinates(params, member.constants).items():
        if dim not in declared:
            known = ", ".join(sorted(declared)) or "none"
            raise TypeError(f"gives coordinates of {dim!r}; axes of its features: {known}")
        values = np.asarray(axis.values, np.float64)
        for d, size in (a for c in member.columns for a in zip(c.dims, c.shape, strict=True)):
            if d == dim and values.shape != (size,):
                raise TypeError(f"gives {values.shape} coordinates of {dim!r}, {size} long")
        out[dim] = {"values": values.tolist(), "unit": _unit(axis.unit, unit)}
    return out
