"""What a view is, and the looks all of them share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from bokeh.models import Range1d
from bokeh.models.annotations import Title
from bokeh.models.layouts import LayoutDOM
from bokeh.models.tickers import ContinuousTicker
from bokeh.models.widgets import Select
from bokeh.plotting import figure

from ffb.dashboards.model import Snapshot
from ffb.schema import Column

#: Columns of yes and no, whose mean is a share.
BOOL = "|b1"

FRESH, STALE = "#ffffff", "#e4e4e4"


@dataclass
class View:
    """A panel and how to bring it up to date; ``refresh`` runs in the session's own tick.

    When one of ``controls`` is changed, the page refreshes the view with the snapshot it shows.
    """

    layout: LayoutDOM
    refresh: Callable[[Snapshot], None]
    controls: tuple[Select, ...] = ()


def panel(title: str, x: str, y: str, **options: Any) -> Any:
    """Make an empty figure in the house style."""
    fig = figure(
        x_axis_label=x,
        y_axis_label=y,
        height=options.pop("height", 230),
        min_width=options.pop("min_width", 210),
        sizing_mode="stretch_width",
        tools="pan,wheel_zoom,box_zoom,hover,reset,save",
        toolbar_location="right",
        **options,
    )
    fig.toolbar.autohide = True
    fig.title = Title(text=title, text_font_size="12px", text_font_style="normal")
    for axis in (*fig.xaxis, *fig.yaxis):
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size = axis.major_label_text_font_size = "11px"
        axis.axis_label_standoff = 3
        axis.minor_tick_line_color = None
        if isinstance(axis.ticker, ContinuousTicker):
            axis.ticker.desired_num_ticks = 5
    fig.grid.grid_line_alpha = 0.4
    return fig


def legend(fig: Any) -> None:
    """Move the legend above the plot, where it hides no data; a click hides a curve."""
    fig.legend.update(
        orientation="horizontal",
        label_text_font_size="11px",
        padding=1,
        margin=1,
        border_line_color=None,
        click_policy="hide",
    )
    fig.add_layout(fig.legend[0], "above")


def choice(options: Iterable[str | tuple[str, str]], first: str, width: int) -> Select:
    """Make a drop-down list without a title; an option is a value, or (value, what it reads)."""
    listed: list[str | tuple[Any, str]] = [*options]
    return Select(title="", value=first, options=listed, width=width, height=30)


def label(column: Column) -> str:
    """Name and unit, as an axis label."""
    return column.name if column.unit == "1" else f"{column.name} [{column.unit}]"


def unit(column: Column) -> str:
    """The unit as an axis label, for panels whose title has the name."""
    if column.dtype == BOOL:
        return "share of shots"
    return "" if column.unit == "1" else f"[{column.unit}]"


def shares() -> Range1d:
    """The axis of shares: a little beyond its ends, so that those can be told from nothing."""
    return Range1d(start=-0.03, end=1.03)


def caption(fig: Any, what: str, n: int, snapshot: Snapshot) -> None:
    """Write name, N, time of the newest row and epoch over a panel; grey it when stale."""
    word = "STALE   " if snapshot.stale else ""
    epoch = f"   epoch {snapshot.meta['epoch']}" if snapshot.meta["epoch"] else ""
    fig.title.text = f"{word}{what}   N {n:,}   {snapshot.clock}{epoch}"
    shade(fig, snapshot)


def shade(fig: Any, snapshot: Snapshot) -> None:
    """Grey a panel whose data are stale."""
    fig.background_fill_color = STALE if snapshot.stale else FRESH
