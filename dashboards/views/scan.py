"""The scan curve: a feature against a motor, laser on and off, with SEM and N."""

from __future__ import annotations

import numpy as np
from bokeh.layouts import column as stack
from bokeh.layouts import row
from bokeh.models import ColumnDataSource
from bokeh.models.annotations import Whisker

from ffb.dashboards.model import COLOURS, NAMES, OFF, ON, UNKNOWN, Snapshot
from ffb.dashboards.views.view import View, caption, choice, label, panel
from ffb.schema import Column

EMPTY: dict[str, list[float]] = {"x": [], "y": [], "upper": [], "lower": [], "n": []}


def scan(scalars: dict[str, Column], motors: list[str], first: str, height: int = 330) -> View:
    """Show any scalar against any motor (or the step), one point a step and light."""
    axes = [*[m for m in motors if m != "step_value"], "step"]
    y_choice = choice(scalars, first, 240)
    x_choice = choice(axes, axes[0], 160)
    fig = panel("scan", "", "", height=height)
    bars = panel("", axes[0], "N", height=110, x_range=fig.x_range)
    sources = {}
    for light in (UNKNOWN, OFF, ON):
        sources[light] = source = ColumnDataSource(dict(EMPTY))
        colour = COLOURS[light]
        fig.scatter("x", "y", source=source, color=colour, size=7, legend_label=NAMES[light])
        fig.line("x", "y", source=source, color=colour, alpha=0.6)
        fig.add_layout(
            Whisker(
                base="x",
                upper="upper",
                lower="lower",
                source=source,
                line_color=colour,
                upper_head=None,
                lower_head=None,
            )
        )
        bars.scatter("x", "n", source=source, color=colour, size=5, marker="dash")
        bars.segment("x", 0, "x", "n", source=source, color=colour, line_width=4, alpha=0.5)
    fig.legend.label_text_font_size = "9px"
    fig.legend.padding = fig.legend.margin = 3

    def refresh(snapshot: Snapshot) -> None:
        n, mean, error = snapshot.curve("scan", y_choice.value)
        x = snapshot.arrays[f"scan.{x_choice.value}"].astype(np.float64)
        order = np.argsort(x, kind="stable")
        for light, source in sources.items():
            seen = order[(n[light] > 0)[order] & np.isfinite(x)[order]]
            y, e = mean[light][seen], np.nan_to_num(error[light][seen])
            source.data = {
                "x": x[seen],
                "y": y,
                "upper": y + e,
                "lower": y - e,
                "n": n[light][seen],
            }
        fig.yaxis.axis_label = label(scalars[y_choice.value])
        bars.xaxis.axis_label = x_choice.value
        caption(fig, f"{y_choice.value} ± SEM against {x_choice.value}", int(n.sum()), snapshot)

    choices = row(y_choice, x_choice, sizing_mode="stretch_width")
    return View(stack(choices, fig, bars, sizing_mode="stretch_width"), refresh)
