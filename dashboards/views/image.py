"""A two-dimensional feature: the latest, the mean by light, or on minus off."""

from __future__ import annotations

import numpy as np
from bokeh.layouts import column as stack
from bokeh.models import ColumnDataSource, LinearColorMapper
from bokeh.models.annotations import ColorBar
from numpy.typing import NDArray

from ffb.dashboards.model import OFF, ON, Snapshot
from ffb.dashboards.views.view import View, caption, choice, label, panel
from ffb.schema import Column

WHAT = ("latest", "laser on", "laser off", "on − off")
#: Blue (off) over white to orange (on).
DIVERGING = [
    "#{:02x}{:02x}{:02x}".format(*np.round((1 - t) * 255 + t * np.array(end)).astype(int))
    for end, ramp in (
        ((0, 114, 178), np.linspace(1, 0, 128)),
        ((230, 159, 0), np.linspace(0, 1, 128)),
    )
    for t in ramp
]


def pick(snapshot: Snapshot, name: str, what: str) -> tuple[NDArray[np.float32], int]:
    """Image ``what`` of column ``name``, and over how many shots it is the mean."""
    mean, rows = snapshot.arrays[f"mean:{name}"], snapshot.meta["rows"][name]
    if what == "latest":
        return snapshot.arrays[f"last:{name}"], min(1, sum(rows))
    if what == "on − off":
        return mean[ON] - mean[OFF], rows[ON] + rows[OFF]
    light = ON if what == "laser on" else OFF
    return mean[light], rows[light]


def image(column: Column, height: int = 420) -> View:
    """Show ``column`` (rows, columns), row 0 at the top; levels are the 1 to 99.5 % of values."""
    what = choice(WHAT, WHAT[0], 110)
    rows, cols = column.shape
    fig = panel(column.name, "column", "row", height=height, match_aspect=True)
    fig.y_range.flipped = True
    mapper = LinearColorMapper(palette="Viridis256", low=0, high=1, nan_color="#f0f0f0")
    blank = np.full((1, 1), np.nan, np.float32)
    source = ColumnDataSource({"image": [blank], "x": [0], "y": [0], "dw": [cols], "dh": [rows]})
    fig.image("image", "x", "y", "dw", "dh", source=source, color_mapper=mapper)
    fig.add_layout(ColorBar(color_mapper=mapper, title=label(column), width=10), "right")

    def refresh(snapshot: Snapshot) -> None:
        values, n = pick(snapshot, column.name, what.value)
        source.data = {"image": [values], "x": [0], "y": [0], "dw": [cols], "dh": [rows]}
        finite = values[np.isfinite(values)]
        low, high = np.percentile(finite, [1, 99.5]) if finite.size else (0.0, 1.0)
        if what.value == "on − off":
            high = max(abs(low), abs(high))
            low = -high
        mapper.palette = DIVERGING if what.value == "on − off" else "Viridis256"
        mapper.update(low=float(low), high=float(high) if high > low else float(low) + 1.0)
        caption(fig, f"{column.name}: {what.value}", n, snapshot)

    return View(stack(what, fig, sizing_mode="stretch_width"), refresh)
