"""A one-dimensional feature: its mean with laser on and off, and their difference."""

from __future__ import annotations

from bokeh.layouts import column as stack
from bokeh.models import ColumnDataSource

from ffb.dashboards.model import COLOURS, NAMES, OFF, ON, SHOWN, UNKNOWN, Snapshot
from ffb.dashboards.views.view import View, caption, label, legend, panel
from ffb.schema import Column


def line(column: Column, height: int = 230) -> View:
    """Show the mean of ``column`` (k,) over the run, by light, and on minus off below."""
    fig = panel(column.name, "", label(column), height=height)
    below = panel("laser on − off", "", "difference", height=140, x_range=fig.x_range)
    sources = {}
    for light in SHOWN:
        sources[light] = ColumnDataSource({"x": [], "y": []})
        named = {"legend_label": NAMES[light]} if light != UNKNOWN else {}
        fig.line("x", "y", source=sources[light], color=COLOURS[light], line_width=1.5, **named)
    legend(fig)
    difference = ColumnDataSource({"x": [], "y": []})
    below.line("x", "y", source=difference, color="black")

    def refresh(snapshot: Snapshot) -> None:
        x, axis = snapshot.axis(column)
        mean = snapshot.arrays[f"mean:{column.name}"]
        rows = snapshot.meta["rows"][column.name]
        below.xaxis.axis_label = axis
        for light, source in sources.items():
            source.data = {"x": x, "y": mean[light]} if rows[light] else {"x": [], "y": []}
        difference.data = {"x": x, "y": mean[ON] - mean[OFF]}
        caption(fig, column.name, sum(rows[light] for light in SHOWN), snapshot)

    return View(stack(fig, below, sizing_mode="stretch_width"), refresh)
