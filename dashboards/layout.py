"""The page from the schema alone: every feature has a plot before anyone writes one."""

from __future__ import annotations

from bokeh.layouts import column, grid, row
from bokeh.models.layouts import LayoutDOM, TabPanel, Tabs
from bokeh.models.widgets import Div

from ffb.dashboards.model import Snapshot
from ffb.dashboards.views.histogram import histogram
from ffb.dashboards.views.image import image
from ffb.dashboards.views.line import line
from ffb.dashboards.views.scan import scan
from ffb.dashboards.views.strip import strip
from ffb.dashboards.views.view import View
from ffb.schema import Column

#: The overview holds this many scalars; every one is under "features".
OVERVIEW = 3


class Page:
    """All panels of one run; only those of the tab that is looked at are brought up to date."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.key = snapshot.key
        scalars, columns = snapshot.scalars, snapshot.columns.values()
        first = _first(snapshot)
        reduced = [n for n, c in scalars.items() if c.reducer] or [*scalars]
        shown = [scalars[n] for n in dict.fromkeys([first, *reduced]) if n][:OVERVIEW]
        large = [
            *[image(c) for c in columns if len(c.shape) == 2][:1],
            *[scan(scalars, snapshot.meta["motors"], first) for _ in scalars][:1],
            *[line(c) for c in columns if len(c.shape) == 1][:1],
        ]
        small = _both(shown)
        overview = column(
            row([v.layout for v in large], sizing_mode="stretch_width"),
            _grid(small, 2 * OVERVIEW),
            sizing_mode="stretch_width",
        )
        features = _both(list(scalars.values()))
        curves = [line(c) for c in columns if len(c.shape) == 1]
        images = [image(c) for c in columns if len(c.shape) == 2]
        tabs: list[tuple[str, list[View], LayoutDOM]] = [
            ("overview", [*large, *small], overview),
            (f"features ({len(scalars)})", features, _grid(features, 4)),
            (f"curves ({len(curves)})", curves, _grid(curves, 3)),
            (f"images ({len(images)})", images, _grid(images, 3)),
        ]
        tabs = [tab for tab in tabs if tab[1]]
        self._views = [views for _, views, _ in tabs]
        self.tabs = Tabs(
            tabs=[TabPanel(title=title, child=child) for title, _, child in tabs],
            sizing_mode="stretch_width",
        )
        nothing = Div(text="This run has no feature that can be drawn.")
        self.layout: LayoutDOM = self.tabs if tabs else nothing

    def refresh(self, snapshot: Snapshot) -> None:
        """Bring the panels of the visible tab up to ``snapshot``."""
        if self._views:
            for view in self._views[self.tabs.active or 0]:
                view.refresh(snapshot)


def _both(columns: list[Column]) -> list[View]:
    return [v for c in columns for v in (strip(c), histogram(c))]


def _first(snapshot: Snapshot) -> str:
    """The scalar to show first: a sum or an area of a reducer, else the first one there is."""
    names = list(snapshot.scalars)
    for ending in ("/sum", "/area", "/mean"):
        for name in names:
            if name.endswith(ending):
                return name
    return names[0] if names else ""


def _grid(views: list[View], across: int) -> LayoutDOM:
    return grid([v.layout for v in views], ncols=across, sizing_mode="stretch_width")
