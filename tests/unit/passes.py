"""Run tile reducers on calibrated frames, as a plan does, without a plan."""

from typing import Any

import numpy as np

from ffb import Area
from ffb.batch import Batch
from ffb.loops.columns import columns_of
from ffb.loops.fuse import RUN, Member
from ffb.loops.stages import AreaPass
from ffb.loops.uncalibrated import Uncalibrated
from ffb.schema import Schema


def member(name: str, reducer: Any, params: Any, area: Area) -> Member:
    constants = reducer.prepare(params, area)
    state = reducer.allocate(constants)
    with np.errstate(all="ignore"):
        reducer.functions["start"](constants, state)
        features = reducer.functions["finish"](constants, state)
    columns = columns_of(name, reducer, params, features, area.unit)
    return Member(name, reducer, columns, constants, ("image",))


def reduce(members: list[Member], area: Area, images: Any, dtype: str = "<f4") -> dict[str, Any]:
    """Columns over the ``images``, each (segments, rows, columns) of ``dtype``."""
    schema = Schema(tuple(c for m in members for c in m.all_columns))
    batch = Batch(schema, len(images))
    run = AreaPass(members, Uncalibrated(area.mask, dtype), area, schema, len(images))
    active = np.full(len(members), RUN, np.uint8)
    with np.errstate(all="ignore"):
        for row, image in enumerate(images):
            run(tuple(s.ravel() for s in image), row, batch.buffer, active)
    return batch.columns


def detector(shape: tuple[int, int, int], mask: Any = None) -> Area:
    return Area("det", shape, np.ones(shape, np.bool_) if mask is None else mask, None, "keV")


def repeated(members: list[Member], area: Area) -> Any:
    """What :func:`reduce` does to a single frame, as often as it is called, with one pass."""
    schema = Schema(tuple(c for m in members for c in m.all_columns))
    run = AreaPass(members, Uncalibrated(area.mask, "<f4"), area, schema, 1)
    active = np.full(len(members), RUN, np.uint8)

    def columns(image: Any) -> dict[str, Any]:
        batch = Batch(schema, 1)
        with np.errstate(all="ignore"):
            run(tuple(s.ravel() for s in image), 0, batch.buffer, active)
        return batch.columns

    return columns
