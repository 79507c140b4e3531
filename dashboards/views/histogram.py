"""How often a scalar took which value in this run, laser on and off."""

from __future__ import annotations

import numpy as np
from bokeh.models import ColumnDataSource
from numpy.typing import NDArray

from ffb.dashboards.model import COLOURS, NAMES, SHOWN, Snapshot
from ffb.dashboards.views.view import View, caption, panel, unit
from ffb.schema import Column

#: A bar of no shots starts here on a logarithmic axis.
LOG_FLOOR = 0.5

#: This share of shots may lie outside on either side, so that one far value hides no other.
OUTSIDE = 1e-3


def reach(counts: NDArray[np.int64]) -> tuple[int, int]:
    """First bin to show and the one after the last, of ``counts`` (bins,) over all lights."""
    total = np.cumsum(counts)
    if not total.size or not total[-1]:
        return 0, 0
    spare = int(OUTSIDE * total[-1])
    low, high = np.searchsorted(total, [spare, total[-1] - spare], side="right")
    high = min(high, np.flatnonzero(counts)[-1])
    return int(low), int(high) + 1


def histogram(column: Column, height: int = 200, *, log: bool = False) -> View:
    """Show the histogram of ``column`` over the run, by light, shots upwards."""
    axis = "log" if log else "linear"
    fig = panel(column.name, unit(column), "shots", height=height, y_axis_type=axis)
    floor = LOG_FLOOR if log else 0.0
    tops = [f"top{light}" for light in SHOWN]
    source = ColumnDataSource({name: [] for name in ("left", "right", *tops)})
    for light in SHOWN:
        fig.quad(
            left="left",
            right="right",
            top=tops[light],
            bottom=floor,
            source=source,
            fill_color=COLOURS[light],
            fill_alpha=0.45,
            line_color=None,
        )
    fig.hover.tooltips = [("from", "@left"), ("to", "@right")]
    fig.hover.tooltips += [(NAMES[light], f"@{tops[light]}") for light in SHOWN]

    def refresh(snapshot: Snapshot) -> None:
        edges, counts = snapshot.histogram(column.name)
        lo, hi = reach(counts.sum(0))
        shown = np.maximum(counts[:, lo:hi], floor)
        ends = {"left": edges[lo:hi], "right": edges[lo + 1 : hi + 1]}
        source.data = {**ends, **dict(zip(tops, shown, strict=True))}
        outside = int(counts.sum() - counts[:, lo:hi].sum())
        fig.xaxis.axis_label = f"{unit(column)} {outside} outside" if outside else unit(column)
        caption(fig, column.name, int(counts.sum()), snapshot)

    return View(fig, refresh)
