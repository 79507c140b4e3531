"""What a view is, and the looks all of them share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from bokeh.models.annotations import Title
from bokeh.models.layouts import LayoutDOM
from bokeh.models.tickers import ContinuousTicker
from bokeh.models.widgets import Select
from bokeh.plotting import figure

from ffb.dashboards.model import Snapshot
from ffb.schema import Column

FRESH, STALE = "#ffffff", "#e4e4e4"

#: A panel without new rows for this long is greyed out.
STALE_S = 3.0


@dataclass
class View:
    """A panel and how to bring it up to date; ``refresh`` runs in the session's own tick."""

    layout: LayoutDOM
    refresh: Callable[[Snapshot], None]


def panel(title: str, x: str, y: str, **options: Any) -> Any:
    """Make an empty figure in the house style."""
    fig = figure(
        x_axis_label=x,
        y_axis_label=y,
        height=options.pop("height", 230),
        sizing_mode="stretch_width",
        tools="pan,wheel_zoom,box_zoom,reset,save",
        toolbar_location="right",
        **options,
    )
    fig.toolbar.autohide = True
    fig.title = Title(text=title, text_font_size="12px", text_font_style="normal")
    fig.xaxis.axis_label_text_font_style = fig.yaxis.axis_label_text_font_style = "normal"
    fig.grid.grid_line_alpha = 0.4
    for axis in fig.xaxis:
        if isinstance(axis.ticker, ContinuousTicker):
            axis.ticker.desired_num_ticks = 5
    return fig


def legend(fig: Any) -> None:
    """Move the legend above the plot, where it hides no data."""
    fig.legend.update(
        orientation="horizontal",
        label_text_font_size="10px",
        padding=1,
        margin=1,
        border_line_color=None,
        click_policy="hide",
    )
    fig.add_layout(fig.legend[0], "above")


def choice(options: Iterable[str], first: str, width: int) -> Select:
    """Make a drop-down list without a title."""
    listed: list[str | tuple[Any, str]] = [*options]
    return Select(title="", value=first, options=listed, width=width)


def label(column: Column) -> str:
    """Name and unit, as an axis label."""
    return column.name if column.unit == "1" else f"{column.name} [{column.unit}]"


def caption(fig: Any, what: str, n: int, snapshot: Snapshot) -> None:
    """Write name, N, data age and commit over a panel; grey it when the data are old."""
    m, age = snapshot.meta, snapshot.age_s
    state = "ended" if m["ended"] else f"{age:.1f} s old" if age == age else "no data yet"
    fig.title.text = f"{what}   N {n:,}   {state}   #{m['commit']:,}"
    stale = not m["ended"] and not age < STALE_S
    fig.background_fill_color = STALE if stale else FRESH
