"""How often a scalar took which value in this run, laser on and off."""

from __future__ import annotations

import numpy as np
from bokeh.models import ColumnDataSource

from ffb.dashboards.model import COLOURS, SHOWN, Snapshot
from ffb.dashboards.views.view import View, caption, label, panel
from ffb.schema import Column


def histogram(column: Column, height: int = 200) -> View:
    """Show the histogram of ``column`` over the run, by light."""
    fig = panel(column.name, label(column), "shots", height=height)
    sources = {}
    for light in SHOWN:
        sources[light] = ColumnDataSource({"left": [], "right": [], "top": []})
        fig.quad(
            left="left",
            right="right",
            top="top",
            bottom=0,
            source=sources[light],
            fill_color=COLOURS[light],
            fill_alpha=0.45,
            line_color=None,
        )

    def refresh(snapshot: Snapshot) -> None:
        edges, counts = snapshot.histogram(column.name)
        counts = counts[list(SHOWN)]
        used = np.flatnonzero(counts.sum(0))
        lo, hi = (used[0], used[-1] + 1) if used.size else (0, 0)
        for light, source in sources.items():
            source.data = {
                "left": edges[lo:hi],
                "right": edges[lo + 1 : hi + 1],
                "top": counts[light, lo:hi],
            }
        caption(fig, "histogram", int(counts.sum()), snapshot)

    return View(fig, refresh)
