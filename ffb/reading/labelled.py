"""A run's columns as an xarray ``Dataset``: names of axes, coordinates, units and times."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ffb.reading import align
from ffb.schema import TIMESTAMP, column_name

if TYPE_CHECKING:
    import xarray

    from ffb.reading.shots import Shots


def dataset(run: Shots, names: Iterable[str], rows: Any) -> xarray.Dataset:
    """Columns over the dimension ``shot``; see :meth:`ffb.reading.shots.Shots.to_xarray`."""
    try:
        import xarray as xr
    except ImportError as e:
        raise ImportError("to_xarray needs xarray: pip install xarray; or use to_numpy") from e

    stamp = run[TIMESTAMP.name][rows]
    coords: dict[str, Any] = {
        "timestamp": ("shot", stamp, {"doc": TIMESTAMP.doc}),
        "time": ("shot", align.times(stamp).astype("datetime64[ns]")),
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
    return xr.Dataset(data, coords, dict(run.about))


def _coordinate(run: Shots, reducer: str, dim: str) -> tuple[NDArray[Any] | None, str]:
    """Values and unit of an axis that a reducer declares, unless a feature of its is the axis."""
    axis = run.axes.get(reducer, {}).get(dim)
    if axis is None or column_name(reducer, dim) in run:
        return None, ""
    return np.asarray(axis["values"]), str(axis.get("unit", "1"))
