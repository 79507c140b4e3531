"""A scalar against time: mean of each half second, laser on and off."""

from __future__ import annotations

from bokeh.models import ColumnDataSource, DatetimeTickFormatter

from ffb.dashboards.model import COLOURS, NAMES, SHOWN, Snapshot
from ffb.dashboards.views.view import View, caption, label, panel
from ffb.schema import Column


def strip(column: Column, height: int = 200) -> View:
    """Show the last two minutes of ``column``, by light."""
    fig = panel(column.name, "", label(column), height=height, x_axis_type="datetime")
    fig.xaxis.formatter = DatetimeTickFormatter(seconds="%H:%M:%S", minsec="%H:%M:%S")
    sources = {}
    for light in SHOWN:
        sources[light] = ColumnDataSource({"x": [], "y": []})
        colour = COLOURS[light]
        fig.line("x", "y", source=sources[light], color=colour, alpha=0.5)
        fig.scatter("x", "y", source=sources[light], color=colour, size=3, name=NAMES[light])

    def refresh(snapshot: Snapshot) -> None:
        n, mean, _ = snapshot.curve("strip", column.name)
        time_ms = snapshot.arrays["strip.time"] / 1e6
        for light, source in sources.items():
            seen = n[light] > 0
            source.data = {"x": time_ms[seen], "y": mean[light][seen]}
        caption(fig, column.name, int(n[list(SHOWN)].sum()), snapshot)

    return View(fig, refresh)
