"""A scalar against time: mean of each half second, laser on and off."""

from __future__ import annotations

import time

import numpy as np
from bokeh.models import ColumnDataSource, DatetimeTickFormatter, Range1d

from ffb.dashboards.model import COLOURS, NAMES, SHOWN, Snapshot
from ffb.dashboards.views.view import BOOL, View, caption, panel, shares, unit
from ffb.live.model import STRIP_BINS, STRIP_NS
from ffb.schema import Column

FORMAT = "%H:%M:%S"


def strip(column: Column, height: int = 200) -> View:
    """Show the last two minutes of ``column`` in local time, by light; a gap is a gap."""
    fig = panel(column.name, "", unit(column), height=height, x_axis_type="datetime")
    fig.x_range = Range1d(start=0, end=1)
    if column.dtype == BOOL:
        fig.y_range = shares()
    fig.xaxis.formatter = DatetimeTickFormatter(
        milliseconds=FORMAT, seconds=FORMAT, minsec=FORMAT, minutes=FORMAT
    )
    fig.xaxis.ticker.desired_num_ticks = 3
    source = ColumnDataSource({"x": [], **{f"y{light}": [] for light in SHOWN}})
    for light in SHOWN:
        fig.line("x", f"y{light}", source=source, color=COLOURS[light], alpha=0.6)
        fig.scatter("x", f"y{light}", source=source, color=COLOURS[light], size=3)
    means = [(NAMES[light], f"@y{light}") for light in SHOWN]
    fig.hover.update(tooltips=[("time", f"@x{{{FORMAT}}}"), *means], formatters={"@x": "datetime"})

    def refresh(snapshot: Snapshot) -> None:
        n, mean = snapshot.trend(column.name)
        time_ns = snapshot.arrays["strip.time"]
        newest = int(time_ns[-1]) if time_ns.size else 0
        wanted = newest + np.arange(1 - STRIP_BINS, 1) * STRIP_NS
        at = np.searchsorted(time_ns, wanted)
        there = at < time_ns.size
        there[there] = time_ns[at[there]] == wanted[there]
        x = wanted / 1e6 + time.localtime(newest // 10**9).tm_gmtoff * 1e3
        y = np.full((len(SHOWN), STRIP_BINS), np.nan)
        y[:, there] = mean[:, at[there]]
        source.data = {"x": x, **{f"y{light}": y[light] for light in SHOWN}}
        begin = int(there.argmax())
        fig.x_range.update(start=float(x[begin]), end=float(x[-1]))
        caption(fig, column.name, int(n.sum()), snapshot)

    return View(fig, refresh)
