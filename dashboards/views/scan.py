"""The scan curve: a feature against a motor, laser on, off and their difference, with SEM and N."""

from __future__ import annotations

from typing import Any

import numpy as np
from bokeh.layouts import column as stack
from bokeh.layouts import row
from bokeh.models import ColumnDataSource
from bokeh.models.annotations import Span, Whisker
from numpy.typing import NDArray

from ffb.dashboards.model import COLOURS, NAMES, OFF, ON, SHOWN, UNKNOWN, Snapshot
from ffb.dashboards.views.view import FRESH, View, caption, choice, legend, panel, shade
from ffb.schema import Column

FIELDS = ("x", "y", "error", "upper", "lower", "n", "below", "above", "fill")

#: A point of fewer shots is drawn hollow: its error bar is a guess.
FEW = 5

DIFFERENCE = "#000000"


def scan(
    scalars: dict[str, Column], motors: list[str], first: str, normaliser: str, height: int = 270
) -> View:
    """Show any scalar against any motor (or the step), one point a value and light.

    ``normaliser`` is the pulse energy that it may be divided by, sum by sum, ``""`` for none.
    """
    axes = [*[m for m in motors if m != "step_value"], "step"]
    y_choice = choice(scalars, first, 150)
    by = [("", "mean"), *([(normaliser, f"÷ {normaliser}")] if normaliser else [])]
    by_choice, x_choice = choice(by, "", 130), choice(axes, axes[0], 100)
    fig = panel("scan", "", "", height=height)
    apart = panel("laser on − off", "", "on − off", height=150, x_range=fig.x_range)
    bars = panel("shots per point, on above off", "", "N", height=110, x_range=fig.x_range)
    named = {light: NAMES[light] if light != UNKNOWN else "" for light in SHOWN}
    sources = {light: _points(fig, COLOURS[light], named[light]) for light in SHOWN}
    difference = _points(apart, DIFFERENCE, "")
    apart.add_layout(Span(location=0, dimension="width", line_color="#888888", line_width=1))
    for light, source in sources.items():
        bars.segment("x", "below", "x", "above", source=source, color=COLOURS[light], line_width=6)
    legend(fig)
    now = [Span(dimension="height", line_color="#555555", line_dash="dotted") for _ in range(3)]
    for each, span in zip((fig, apart, bars), now, strict=True):
        each.hover.tooltips = [("at", "@x"), ("value", "@y"), ("SEM", "@error"), ("N", "@n")]
        each.add_layout(span)

    def refresh(snapshot: Snapshot) -> None:
        motor, name, norm = x_choice.value, y_choice.value, by_choice.value
        x, curve = snapshot.scan(name, norm, motor)
        n, (y, e) = curve.n[0], (part[0] for part in curve.ratio())
        tops = np.cumsum(n, axis=0)
        for light, source in sources.items():
            source.data = _data(x, y[light], e[light], n[light], tops[light], COLOURS[light])
        gap, spread = y[ON] - y[OFF], np.hypot(e[ON], e[OFF])
        apart.visible = fig.legend[0].visible = bool(n[ON].any() or n[OFF].any())
        least = np.minimum(n[ON], n[OFF])
        difference.data = _data(x, gap, spread, least, least, DIFFERENCE)
        here = snapshot.meta["step"] if motor == "step" else snapshot.meta["now"].get(motor)
        for span in now:
            span.update(location=here, visible=here is not None and not snapshot.meta["ended"])
        fig.yaxis.axis_label = _label(scalars, name, norm)
        bars.xaxis.axis_label = _label(snapshot.scalars, f"scan/{motor}", "").removeprefix("scan/")
        over = f" ÷ {norm}" if norm else ""
        for each in (apart, bars):
            shade(each, snapshot)
        caption(fig, f"{name}{over} ± SEM against {motor}", int(n.sum()), snapshot)

    controls = (y_choice, by_choice, x_choice)
    choices = row(*controls, sizing_mode="stretch_width")
    return View(stack(choices, fig, apart, bars, sizing_mode="stretch_width"), refresh, controls)


def _points(fig: Any, colour: str, name: str) -> ColumnDataSource:
    """Points with error bars, joined by a thin line; without a name they have no legend."""
    source = ColumnDataSource({f: [] for f in FIELDS})
    named = {"legend_label": name} if name else {}
    fig.line("x", "y", source=source, color=colour, alpha=0.6, **named)
    fig.scatter("x", "y", source=source, color=colour, fill_color="fill", size=7, **named)
    whisker = Whisker(base="x", upper="upper", lower="lower", source=source, line_color=colour)
    whisker.update(upper_head=None, lower_head=None)
    fig.add_layout(whisker)
    return source


def _data(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    error: NDArray[np.float64],
    n: NDArray[np.int64],
    top: NDArray[np.int64],
    colour: str,
) -> dict[str, Any]:
    """What a source of points holds, of those that have shots and a place on the axis."""
    bar = np.nan_to_num(error)
    fill = np.where(n >= FEW, colour, FRESH).astype(object)
    seen = (n > 0) & np.isfinite(x) & np.isfinite(y)
    values = (x, y, error, y + bar, y - bar, n, top - n, top, fill)
    return {name: v[seen] for name, v in zip(FIELDS, values, strict=True)}


def _label(scalars: dict[str, Column], name: str, norm: str) -> str:
    units = [scalars[k].unit if k in scalars else "1" for k in (name, norm)]
    ratio = " / ".join(units) if units[1] != "1" else units[0]
    return f"{name} ÷ {norm} [{ratio}]" if norm else name if ratio == "1" else f"{name} [{ratio}]"
