"""A run's columns as a pandas ``DataFrame``, integers nullable where they may be missing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ffb.reading import align
from ffb.schema import LASER, TIMESTAMP, VALID, XRAY, Column

if TYPE_CHECKING:
    import pandas as pd

    from ffb.reading.shots import Shots


def dataframe(run: Shots, names: Iterable[str] | None, rows: Any) -> pd.DataFrame:
    """One row a shot; see :meth:`ffb.reading.shots.Shots.to_pandas`."""
    try:
        import pandas as pd
    except ImportError as e:
        raise ImportError("to_pandas needs pandas: pip install pandas; or use to_numpy") from e

    known = run.schema.by_name
    if names is None:
        chosen = [n for n, c in known.items() if not c.shape and n != TIMESTAMP.name]
        chosen = [n for n in chosen if n.removesuffix(VALID) in {n} | {*known} - {*chosen}]
    else:
        chosen = [n for n in names if n != TIMESTAMP.name]
        for n in chosen:
            if run[n].shape[1:]:
                raise ValueError(f"{n} has {run[n].shape[1:]} values a shot: use to_xarray")
    stamp = run[TIMESTAMP.name][rows]
    data: dict[str, Any] = {"time": pd.to_datetime(align.times(stamp), utc=True)}
    for n in chosen:
        data[n] = _nullable(pd, run[n][rows], _absent(run, known.get(n), rows))
    return pd.DataFrame(data, pd.Index(stamp, name=TIMESTAMP.name))


def flag_of(run: Shots, column: Column) -> str:
    """The column that says in which rows an integer or a truth is there; ``""`` if none does."""
    return next((f for f in reversed(column.flags) if f in run and f != column.name), "")


def _absent(run: Shots, column: Column | None, rows: Any) -> NDArray[np.bool_] | None:
    if column is None or np.dtype(column.dtype).kind not in "biu":
        return None
    if column.name in (XRAY.name, LASER.name):
        return np.asarray(run[column.name][rows] < 0)
    flag = flag_of(run, column)
    return ~np.asarray(run[flag][rows], np.bool_) if flag else None


def _nullable(pd: Any, values: NDArray[Any], absent: NDArray[np.bool_] | None) -> Any:
    if absent is None:
        return values
    made = pd.arrays.BooleanArray if values.dtype.kind == "b" else pd.arrays.IntegerArray
    return made(np.ascontiguousarray(values), absent)
