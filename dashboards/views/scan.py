"""The scan curve: a feature against a motor, laser on and off, with SEM and N."""

from __future__ import annotations

import numpy as np
from bokeh.layouts import column as stack
from bokeh.layouts import row
from bokeh.models import ColumnDataSource
from bokeh.models.annotations import Whisker

from ffb.dashboards.model import COLOURS, NAMES, SHOWN, UNKNOWN, Snapshot
from ffb.dashboards.views.view import View, caption, choice, label, legend, panel
from ffb.schema import Column

FIELDS = ("x", "y", "upper", "lower", "below", "above")


def scan(scalars: dict[str, Column], motors: list[str], first: str, height: int = 330) -> View:
    """Show any scalar against any motor (or the step), one point a step and light."""
    axes = [*[m for m in motors if m != "step_value"], "step"]
    y_choice = choice(scalars, first, 240)
    x_choice = choice(axes, axes[0], 160)
    fig = panel("scan", "", "", height=height)
    bars = panel("", axes[0], "N", height=110, x_range=fig.x_range)
    sources = {}
    for light in SHOWN:
        sources[light] = source = ColumnDataSource({f: [] for f in FIELDS})
        colour, named = COLOURS[light], {"legend_label": NAMES[light]} if light != UNKNOWN else {}
        fig.scatter("x", "y", source=source, color=colour, size=7, **named)
        fig.line("x", "y", source=source, color=colour, alpha=0.6, **named)
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
        bars.segment("x", "below", "x", "above", source=source, color=colour, line_width=6)
    legend(fig)

    def refresh(snapshot: Snapshot) -> None:
        n, mean, error = snapshot.curve("scan", y_choice.value)
        x = snapshot.arrays[f"scan.{x_choice.value}"].astype(np.float64)
        order = np.argsort(x, kind="stable")
        for light, source in sources.items():
            seen = order[(n[light] > 0)[order] & np.isfinite(x)[order]]
            y, e = mean[light][seen], np.nan_to_num(error[light][seen])
            stack_n = np.cumsum(n, axis=0)[light][seen]
            curve = (x[seen], y, y + e, y - e, stack_n - n[light][seen], stack_n)
            source.data = dict(zip(FIELDS, curve, strict=True))
        fig.yaxis.axis_label = label(scalars[y_choice.value])
        bars.xaxis.axis_label = x_choice.value
        caption(
            fig,
            f"{y_choice.value} ± SEM against {x_choice.value}",
            int(n[list(SHOWN)].sum()),
            snapshot,
        )

    choices = row(y_choice, x_choice, sizing_mode="stretch_width")
    return View(stack(choices, fig, bars, sizing_mode="stretch_width"), refresh)
