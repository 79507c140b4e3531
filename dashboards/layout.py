"""The page from the schema alone: every feature has a plot before anyone writes one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bokeh.layouts import column, row
from bokeh.models.layouts import LayoutDOM, TabPanel, Tabs
from bokeh.models.widgets import Div

from ffb.dashboards.gallery import Gallery
from ffb.dashboards.model import Snapshot
from ffb.dashboards.views.histogram import histogram
from ffb.dashboards.views.image import image
from ffb.dashboards.views.line import line
from ffb.dashboards.views.scan import scan
from ffb.dashboards.views.share import share
from ffb.dashboards.views.strip import strip
from ffb.dashboards.views.view import BOOL, View
from ffb.schema import Column

#: The overview holds this many scalars; every one is under "features".
OVERVIEW = 3


@dataclass
class Overview:
    """The panels people decide on: image, scan curve, curve, and the first few scalars."""

    layout: LayoutDOM
    views: list[View] = field(default_factory=list)

    def build(self) -> None:
        """Nothing to make: its panels are there from the start."""


class Page:
    """All panels of one run; only those of the tab that is looked at are made and kept current."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.key, self._snapshot = snapshot.key, snapshot
        scalars = sorted(snapshot.scalars.values(), key=_rank)
        columns = sorted(snapshot.columns.values(), key=_rank)
        curves = [c for c in columns if len(c.shape) == 1]
        images = [c for c in columns if len(c.shape) == 2]
        overview = _overview(snapshot, curves, images)
        self._contents: list[Overview | Gallery] = [overview]
        titles = ["overview"]
        for title, members, make, cap, across in (
            ("features", scalars, _both, 6, 4),
            ("curves", curves, _line, 6, 3),
            ("images", images, _image, 6, 3),
        ):
            if members:
                counts = title == "features"
                self._contents.append(
                    Gallery(members, make, cap, across, self._fill, counts=counts)
                )
                titles.append(f"{title} ({len(members)})")
        self._built = {0}
        named = zip(titles, self._contents, strict=True)
        panels = [TabPanel(title=title, child=c.layout) for title, c in named]
        self.tabs = Tabs(tabs=panels, sizing_mode="stretch_width")
        self.tabs.on_change("active", lambda attr, old, new: self.show())
        for view in overview.views:
            for control in view.controls:
                control.on_change("value", lambda attr, old, new: self._fill(self.views))
        nothing = Div(text="This run has no feature that can be drawn.")
        self.layout: LayoutDOM = self.tabs if scalars or columns else nothing

    @property
    def views(self) -> list[View]:
        """Panels of the tab that is looked at."""
        return self._contents[self.tabs.active or 0].views

    def show(self) -> None:
        """Make the panels of the chosen tab if it was never looked at, and fill them."""
        at = self.tabs.active or 0
        if at in self._built:
            self._fill(self.views)
        else:
            self._built.add(at)
            self._contents[at].build()

    def refresh(self, snapshot: Snapshot) -> None:
        """Bring the panels of the visible tab up to ``snapshot``."""
        self._snapshot = snapshot
        self._fill(self.views)

    def _fill(self, views: list[View]) -> None:
        for view in views:
            view.refresh(self._snapshot)


def _overview(snapshot: Snapshot, curves: list[Column], images: list[Column]) -> Overview:
    scalars, meta = snapshot.scalars, snapshot.meta
    first = _first(snapshot)
    shown = [scalars[n] for n in dict.fromkeys(_telling(scalars, first)) if n][:OVERVIEW]
    large = [
        *[image(c, 530) for c in images[:1]],
        *[scan(scalars, meta["motors"], first, meta["normaliser"]) for _ in [*scalars][:1]],
        *[line(c, 380) for c in curves[:1]],
    ]
    small = [v for c in shown for v in _both(c, False)]
    layout = column(
        row([v.layout for v in large], sizing_mode="stretch_width"),
        row([v.layout for v in small], sizing_mode="stretch_width"),
        sizing_mode="stretch_width",
    )
    return Overview(layout, [*large, *small])


def _telling(scalars: Mapping[str, Column], first: str) -> list[str]:
    """Scalars, those first that tell most: of expressions, hits, then one of each reducer."""
    reduced = {n: c for n, c in scalars.items() if c.reducer}
    asked = [n for n, c in reduced.items() if c.reducer == n and "/" not in n]
    hits = [n for n, c in reduced.items() if c.dtype == BOOL and n.endswith("/hit")]
    one_each = {c.reducer: n for n, c in reversed(reduced.items())}
    return [*asked, *hits, first, *reversed(one_each.values()), *(reduced or scalars)]


def _rank(c: Column) -> tuple[bool, bool]:
    """What reducers made comes first, then what was recorded, of which a hutch has much.

    Of how many pixels a number is, is said after the number.
    """
    return not c.reducer, c.name.endswith(("/npix", "/norm"))


def _both(c: Column, log: bool) -> list[View]:
    return [strip(c), share(c) if c.dtype == BOOL else histogram(c, log=log)]


def _line(c: Column, log: bool) -> list[View]:
    return [line(c)]


def _image(c: Column, log: bool) -> list[View]:
    return [image(c)]


def _first(snapshot: Snapshot) -> str:
    """The scalar to show first: a sum or an area of a reducer, else the first one there is."""
    names = [c.name for c in sorted(snapshot.scalars.values(), key=_rank)]
    for ending in ("/sum", "/area", "/mean"):
        for name in names:
            if name.endswith(ending):
                return name
    return names[0] if names else ""
