"""A run's columns as an xarray ``Dataset``: names of axes, coordinates, units and times."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ffb.schema import TIMESTAMP, column_name
from ffb.shot import EPOCH_1990

if TYPE_CHECKING:
    import xarray

    from ffb.reader import RunFile


def dataset(run: RunFile, names: Iterable[str], rows: slice) -> xarray.Dataset:
    """Columns over the dimension ``shot``; see :meth:`ffb.reader.RunFile.to_xarray`."""
    import xarray as xr

    stamp = run[TIMESTAMP.name][rows]
    coords: dict[str, Any] = {
        "timestamp": ("shot", stamp, {"doc": TIMESTAMP.doc}),
        "time": ("shot", _time_of(stamp)),
    }
    data: dict[str, Any] = {}
    sizes: dict[str, tuple[int, bytes | None]] = {}
    for name in names:
        column = run.schema.by_name[name]
        dims = column.dims or tuple(f"{name}_dim{i}" for i in range(len(column.shape)))
        axes = []
        for dim, size in zip(dims, column.shape, strict=True):
            values, unit = _coordinate(run, column.reducer, dim)
            fits = values is not None and values.shape == (size,)
            mine = (size, values.tobytes() if values is not None and fits else None)
            axis = dim if sizes.setdefault(dim, mine) == mine else f"{column.reducer}_{dim}"
            axes.append(axis)
            if fits:
                coords[axis] = (axis, values, {"unit": unit})
        attrs = {"unit": column.unit, "doc": column.doc, "reducer": column.reducer}
        attrs |= {"length": column.length} if column.length else {}
        data[name] = (("shot", *axes), run[name][rows], attrs)
    about = {"exp": run.info.exp, "run": run.info.run, "complete": int(run.complete)}
    return xr.Dataset(data, coords, about)


def _coordinate(run: RunFile, reducer: str, dim: str) -> tuple[NDArray[Any] | None, str]:
    """Values and unit of an axis that a reducer declares, unless a feature of its is the axis."""
    axis = run.reducers.get(reducer, {}).get("coords", {}).get(dim)
    if axis is None or column_name(reducer, dim) in run:
        return None, ""
    return np.asarray(axis["values"]), str(axis.get("unit", "1"))


def _time_of(stamp: NDArray[np.uint64]) -> NDArray[np.datetime64]:
    """Times, as numpy has them, of psana's stamps."""
    seconds = (stamp >> np.uint64(32)).astype(np.int64) + EPOCH_1990
    ns = seconds * 1_000_000_000 + (stamp & np.uint64(0xFFFF_FFFF)).astype(np.int64)
    return ns.astype("datetime64[ns]")
