"""A one-dimensional feature: its mean with laser on and off, and their difference."""

from __future__ import annotations

from typing import Any

import numpy as np
from bokeh.layouts import column as stack
from bokeh.models import ColumnDataSource
from numpy.typing import NDArray

from ffb.dashboards.model import COLOURS, NAMES, OFF, ON, SHOWN, UNKNOWN, Snapshot
from ffb.dashboards.views.view import View, caption, label, legend, panel, shade
from ffb.schema import Column

#: What a band is, as titles say it.
BAND = "± standard error"

DIFFERENCE = "#000000"

Floats = NDArray[np.floating[Any]]


def line(column: Column, height: int = 230) -> View:
    """Show the mean of ``column`` (k,) over the run, by light, and on minus off below.

    Bands are one standard error of the mean wide to either side, from the spread of the shots
    (n - 1); that of the difference is sqrt(on^2 + off^2). None is where fewer than 2 shots count.
    """
    fig = panel(column.name, "", label(column), height=height)
    below = panel(
        f"laser on − off, mean over the run {BAND}",
        "",
        "difference",
        height=150,
        x_range=fig.x_range,
    )
    curves = {light: (f"y{light}", f"e{light}") for light in SHOWN}
    names = ("x", *(name for pair in curves.values() for name in pair), "apart", "spread")
    source = ColumnDataSource({name: [] for name in names})
    bands, lines = {}, []
    for light, (y, _) in curves.items():
        named = {"legend_label": NAMES[light]} if light != UNKNOWN else {}
        bands[light] = _band(fig, COLOURS[light], **named)
        curve = fig.line("x", y, source=source, color=COLOURS[light], line_width=1.5, **named)
        lines.append(curve)
    fig.hover.renderers = lines
    legend(fig)
    gap = _band(below, DIFFERENCE)
    below.hover.renderers = [below.line("x", "apart", source=source, color=DIFFERENCE)]
    values = [(NAMES[light], "@{} ± @{}".format(*curves[light])) for light in (OFF, ON)]
    for each in (fig, below):
        each.hover.tooltips = [("at", "@x"), *values, ("on − off", "@apart ± @spread")]

    def refresh(snapshot: Snapshot) -> None:
        x, axis = snapshot.axis(column)
        mean, error = snapshot.mean(column.name)
        rows = snapshot.meta["rows"][column.name]
        told = bool(rows[ON] or rows[OFF])  # else there is nothing to compare, nor to name
        below.visible = fig.legend[0].visible = told
        fig.xaxis.axis_label, below.xaxis.axis_label = "" if told else axis, axis
        apart, spread = mean[ON] - mean[OFF], np.hypot(error[ON], error[OFF])
        data = {"x": x, "apart": apart, "spread": spread}
        for light, (y, e) in curves.items():
            data[y], data[e] = mean[light], error[light]
            bands[light].data = outline(x, mean[light], error[light])
        source.data, gap.data = data, outline(x, apart, spread)
        shade(below, snapshot)
        caption(fig, f"{column.name} {BAND}", sum(rows), snapshot)

    return View(stack(fig, below, sizing_mode="stretch_width"), refresh)


def _band(fig: Any, colour: str, **named: str) -> ColumnDataSource:
    source = ColumnDataSource({"x": [], "y": []})
    fig.patch("x", "y", source=source, color=colour, fill_alpha=0.25, line_alpha=0, **named)
    return source


def outline(x: Floats, y: Floats, error: Floats) -> dict[str, Floats]:
    """Outlines of the band ``y`` ± ``error`` (k,) over ``x``, each with a NaN behind it.

    What has no error is a gap between two outlines; a glyph of areas would be drawn across it.
    """
    known = np.flatnonzero(np.isfinite(y) & np.isfinite(error))
    runs = np.split(known, np.flatnonzero(np.diff(known) > 1) + 1) if known.size else []
    top, bottom, end = y + error, y - error, np.full(1, np.nan)
    across: list[Floats] = [np.empty(0)]
    up: list[Floats] = [np.empty(0)]
    for run in runs:
        across += [x[run], x[run[::-1]], end]
        up += [top[run], bottom[run[::-1]], end]
    return {"x": np.concatenate(across), "y": np.concatenate(up)}
