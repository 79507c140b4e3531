"""A one-dimensional feature: its mean with laser on and off, and their difference."""

from __future__ import annotations

from bokeh.layouts import column as stack
from bokeh.models import ColumnDataSource

from ffb.dashboards.model import COLOURS, NAMES, OFF, ON, SHOWN, UNKNOWN, Snapshot
from ffb.dashboards.views.view import View, caption, label, legend, panel, shade
from ffb.schema import Column


def line(column: Column, height: int = 230) -> View:
    """Show the mean of ``column`` (k,) over the run, by light, and on minus off below."""
    fig = panel(column.name, "", label(column), height=height)
    below = panel(
        "laser on − off, mean over the run", "", "difference", height=150, x_range=fig.x_range
    )
    ys = [f"y{light}" for light in SHOWN]
    source = ColumnDataSource({name: [] for name in ("x", *ys, "apart")})
    for light in SHOWN:
        named = {"legend_label": NAMES[light]} if light != UNKNOWN else {}
        fig.line("x", ys[light], source=source, color=COLOURS[light], line_width=1.5, **named)
    legend(fig)
    below.line("x", "apart", source=source, color="black")
    values = [(NAMES[light], f"@y{light}") for light in (OFF, ON)]
    for each in (fig, below):
        each.hover.tooltips = [("at", "@x"), *values, ("on − off", "@apart")]

    def refresh(snapshot: Snapshot) -> None:
        x, axis = snapshot.axis(column)
        mean = snapshot.arrays[f"mean:{column.name}"]
        rows = snapshot.meta["rows"][column.name]
        told = bool(rows[ON] or rows[OFF])  # else there is nothing to compare, nor to name
        below.visible = fig.legend[0].visible = told
        fig.xaxis.axis_label, below.xaxis.axis_label = "" if told else axis, axis
        apart = {"apart": mean[ON] - mean[OFF]}
        source.data = {"x": x, **dict(zip(ys, mean, strict=True)), **apart}
        shade(below, snapshot)
        caption(fig, column.name, sum(rows), snapshot)

    return View(stack(fig, below, sizing_mode="stretch_width"), refresh)
