"""A tab of panels that stays usable with hundreds of features: search, and so many at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bokeh.layouts import column as stack
from bokeh.layouts import grid, row
from bokeh.models.layouts import Column as Stack
from bokeh.models.widgets import Div, Select, TextInput

from ffb.dashboards.views.view import View, choice
from ffb.schema import Column

EVERY = "all reducers"
OPTIONS = ("linear counts", "log counts")

#: Makes the views of one column; the flag asks for logarithmic counts.
Make = Callable[[Column, bool], list[View]]


class Gallery:
    """Panels of the ``columns`` that match a reducer and a word, at most ``cap`` columns at once.

    Views are made when the tab is first looked at, and anew when the selection changes;
    ``fill`` brings them up to date then.
    """

    def __init__(
        self,
        columns: list[Column],
        make: Make,
        cap: int,
        across: int,
        fill: Callable[[list[View]], None],
        *,
        counts: bool = False,
    ) -> None:
        self.columns, self.cap, self.across = columns, cap, across
        self.views: list[View] = []
        self._make, self._fill = make, fill
        groups = dict.fromkeys(c.reducer or "recorded" for c in columns)
        self.group = choice((EVERY, *groups), EVERY, 180)
        self.word = TextInput(placeholder="part of a name", width=180, height=30)
        self.log: Select = choice(OPTIONS, OPTIONS[0], 130)
        self._said = Div(text="")
        self._panels = stack(Div(text="…"), sizing_mode="stretch_width")
        controls = [self.group, self.word, *([self.log] if counts else []), self._said]
        self.layout: Stack = stack(row(*controls), self._panels, sizing_mode="stretch_width")
        for control in (self.group, self.word, self.log):
            control.on_change("value", lambda attr, old, new: self.build())

    def build(self) -> None:
        """Make the panels of what is selected now."""
        word, group = self.word.value.lower(), self.group.value
        found = [
            c
            for c in self.columns
            if word in c.name.lower() and group in (EVERY, c.reducer or "recorded")
        ]
        shown = found[: self.cap]
        more = f" of {len(found)}: choose a reducer, or type part of a name"
        self._said.text = f"showing {len(shown)}{more if len(found) > len(shown) else ''}"
        self.views = [v for c in shown for v in self._make(c, self.log.value == OPTIONS[1])]
        self._fill(self.views)  # before they are in the document: what they hold goes out at once
        panels: list[Any | None] = [v.layout for v in self.views]
        panels = panels or [Div(text="Nothing has such a name.")]
        self._panels.children = [grid(panels, ncols=self.across, sizing_mode="stretch_width")]
