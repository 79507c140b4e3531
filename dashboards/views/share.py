"""How many shots of the run a yes-or-no column says yes of, laser on and off."""

from __future__ import annotations

import numpy as np
from bokeh.models import ColumnDataSource
from bokeh.models.annotations import Whisker

from ffb.dashboards.model import COLOURS, NAMES, SHOWN, Snapshot
from ffb.dashboards.views.view import View, caption, panel, shares, unit
from ffb.schema import Column

FIELDS = ("light", "share", "upper", "lower", "said", "colour")


def share(column: Column, height: int = 200) -> View:
    """Show the share of shots where ``column`` is true, by light, with its error and N.

    Shots where it is not known are in neither number. The error is that of a binomial share,
    sqrt(p (1 - p) / N).
    """
    names = [NAMES[light] for light in SHOWN]
    fig = panel(column.name, "", unit(column), height=height, x_range=names)
    fig.y_range = shares()
    source = ColumnDataSource({name: [] for name in FIELDS})
    fig.vbar("light", width=0.6, top="share", source=source, color="colour", fill_alpha=0.45)
    fig.text("light", 0.04, text="said", source=source, text_align="center", text_font_size="11px")
    whisker = Whisker(base="light", upper="upper", lower="lower", source=source)
    whisker.update(upper_head=None, lower_head=None)
    fig.add_layout(whisker)
    fig.hover.tooltips = [("", "@light"), ("yes", "@said")]

    def refresh(snapshot: Snapshot) -> None:
        edges, counts = snapshot.histogram(column.name)
        n, yes = counts.sum(1), counts[:, edges[:-1] > 0.5].sum(1)
        seen = [k for k in SHOWN if n[k]]
        fig.x_range.factors = [NAMES[k] for k in seen] or names
        p = yes[seen] / n[seen]
        error = np.sqrt(p * (1 - p) / n[seen])
        source.data = {
            "light": [NAMES[k] for k in seen],
            "share": p,
            "upper": p + error,
            "lower": p - error,
            "said": [f"{100 * q:.1f} %\nof {n[k]:,}" for k, q in zip(seen, p, strict=True)],
            "colour": [COLOURS[k] for k in seen],
        }
        caption(fig, column.name, int(n.sum()), snapshot)

    return View(fig, refresh)
