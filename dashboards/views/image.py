"""A two-dimensional feature: the latest, the mean by light, or on minus off."""

from __future__ import annotations

import numpy as np
from bokeh.layouts import column as stack
from bokeh.layouts import row
from bokeh.models import ColumnDataSource, LinearColorMapper, LogColorMapper
from bokeh.models.annotations import ColorBar
from numpy.typing import NDArray

from ffb.dashboards.model import OFF, ON, Snapshot
from ffb.dashboards.views.view import View, caption, choice, panel, unit
from ffb.schema import Column

LATEST, MEAN, WITH, WITHOUT, APART = "latest shot", "mean", "laser on", "laser off", "on − off"
WHAT = (MEAN, WITH, WITHOUT, APART, LATEST)
LINEAR, LOG = "linear", "log"

#: Colour of pixels without a value: masked, or never there.
MASKED = "#d9c8d9"

#: Axes of frames, which lie on the page as they lie in memory, their pixels square.
PIXELS = {"row", "col", "column", "y", "x"}

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
    mean, rows = snapshot.arrays[f"mean:{name}"], np.array(snapshot.meta["rows"][name])
    if what == LATEST:
        return snapshot.arrays[f"last:{name}"], min(1, int(rows.sum()))
    if what == APART:
        return mean[ON] - mean[OFF], int(rows[ON] + rows[OFF])
    if what == MEAN:
        seen, n = rows > 0, max(int(rows.sum()), 1)
        weights = (rows[seen] / n).astype(np.float32)
        every: NDArray[np.float32] = np.tensordot(weights, mean[seen], 1)
        return every if seen.any() else mean[0], int(rows.sum())
    light = ON if what == WITH else OFF
    return mean[light], int(rows[light])


def levels(values: NDArray[np.float32], what: str, scale: str) -> tuple[float, float]:
    """Colour limits: the 1 to 99.5 % of values, around 0 for a difference, above 0 for log."""
    finite = values[np.isfinite(values)]
    if scale == LOG:
        finite = finite[finite > 0]
    if not finite.size:
        return (0.1 if scale == LOG else 0.0), 1.0
    low, high = (float(v) for v in np.percentile(finite, [1, 99.5]))
    if what == APART:
        high = max(abs(low), abs(high))
        low = -high
    return low, high if high > low else low + (abs(low) or 1.0)


def span(snapshot: Snapshot, column: Column, which: int) -> tuple[float, float, str]:
    """Where an axis begins, how long it is, and its label; its indices unless it steps evenly."""
    at, text = snapshot.axis(column, which)
    steps = np.diff(at)
    if len(at) > 1 and steps[0] > 0 and np.allclose(steps, steps[0], rtol=1e-3, atol=0.0):
        return float(at[0] - steps[0] / 2), float(len(at) * steps[0]), text
    return -0.5, float(len(at)), f"index of {text.partition(' [')[0]}"


def image(column: Column, height: int = 420) -> View:
    """Show ``column``: frames as they lie in memory, row 0 at the top, others by their axes."""
    what, scale = choice(WHAT, MEAN, 120), choice((LINEAR, LOG), LINEAR, 90)
    rows, cols = column.shape
    frame = not set(column.dims) - PIXELS
    fig = panel(column.name, "column", "row, 0 at the top", height=height, match_aspect=frame)
    fig.y_range.flipped = frame
    fig.grid.visible = False
    mappers = {
        LINEAR: LinearColorMapper(palette="Viridis256", low=0, high=1, nan_color=MASKED),
        LOG: LogColorMapper(palette="Viridis256", low=0.1, high=1, nan_color=MASKED),
    }
    blank = np.full((1, 1), np.nan, np.float32)
    place = {"x": [0.0], "y": [0.0], "dw": [float(cols)], "dh": [float(rows)]}
    source = ColumnDataSource({"image": [blank], **place})
    bars = {}
    for name, mapper in mappers.items():
        glyph = fig.image("image", "x", "y", "dw", "dh", source=source, color_mapper=mapper)
        bar = ColorBar(color_mapper=mapper, title=unit(column), width=10, visible=name == LINEAR)
        bar.major_label_text_font_size = "11px"
        fig.add_layout(bar, "right")
        glyph.visible = name == LINEAR
        bars[name] = glyph, bar
    at = [("column", "$x{0}"), ("row", "$y{0}")] if frame else [("x", "$x"), ("y", "$y")]
    fig.hover.tooltips = [*at, ("value", "@image")]

    def refresh(snapshot: Snapshot) -> None:
        values, n = pick(snapshot, column.name, what.value)
        kind = LINEAR if what.value == APART else scale.value
        low, high = levels(values, what.value, kind)
        palette = DIVERGING if what.value == APART else "Viridis256"
        mappers[kind].update(low=low, high=high, palette=palette)
        for name, parts in bars.items():
            for part in parts:
                part.visible = name == kind
        if not frame:
            (y, dh, up), (x, dw, along) = (span(snapshot, column, which) for which in (0, 1))
            place.update(x=[x], y=[y], dw=[dw], dh=[dh])
            fig.xaxis.axis_label, fig.yaxis.axis_label = along, up
        source.data = {"image": [values], **place}
        caption(fig, f"{column.name}: {what.value}", n, snapshot)

    controls = (what, scale)
    return View(stack(row(*controls), fig, sizing_mode="stretch_width"), refresh, controls)
