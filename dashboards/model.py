"""The newest snapshot, for any number of sessions: written by the feed, read by views."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffb.health import Latency
from ffb.live.accumulate import Curve
from ffb.schema import Column
from ffb.wire import unpack

#: Index of a light in every array of a snapshot, its colour and its name.
UNKNOWN, OFF, ON = SHOWN = range(3)
COLOURS = {UNKNOWN: "#7f7f7f", OFF: "#0072b2", ON: "#e69f00"}
NAMES = {UNKNOWN: "laser unknown", OFF: "laser off", ON: "laser on"}

#: Seconds without a new row after which a live run's data are called stale, everywhere.
STALE_S = 3.0

Array = NDArray[Any]


class Snapshot:
    """All statistics of one commit, by column name."""

    def __init__(self, meta: dict[str, Any], arrays: dict[str, Array]) -> None:
        self.meta, self.arrays = meta, arrays
        self._came = time.monotonic()
        self.scalars = {c.name: c for c in map(_column, meta["scalars"])}
        self.columns = {c.name: c for c in map(_column, meta["arrays"])}
        self._index = {name: i for i, name in enumerate(self.scalars)}

    @property
    def key(self) -> tuple[Any, ...]:
        """What a page's layout depends on: the run and its columns."""
        m = self.meta
        shapes = tuple((c.name, c.shape) for c in self.columns.values())
        return m["exp"], m["run"], tuple(self.scalars), shapes, tuple(m["motors"])

    def trend(self, name: str) -> tuple[Array, Array]:
        """N and mean of scalar ``name`` in bins of time, each (lights, bins)."""
        i = self._index[name]
        return self.arrays["strip.n"][i], self.arrays["strip.mean"][i]

    def scan(self, name: str, normaliser: str, motor: str) -> tuple[Array, Curve]:
        """Values of ``motor`` (k,), ascending, and the curve (1, lights, k) of ``name`` there.

        Steps at one and the same value are merged, in whatever order they came. ``motor`` may be
        ``"step"``; ``normaliser`` is the run's, or ``""`` for none.
        """
        kind, i = "ratio" if normaliser else "scan", self._index[name]
        fields = ("n", "mean", "m2", "norm", "norm2", "cross")[: 6 if normaliser else 3]
        curve = Curve(*(self.arrays[f"{kind}.{f}"][i : i + 1] for f in fields))
        at, groups = np.unique(self.arrays[f"scan.{motor}"], return_inverse=True, equal_nan=True)
        merged = curve.merged(groups.astype(np.int64), at.size)
        return at.astype(np.float64), merged

    def histogram(self, name: str) -> tuple[Array, Array]:
        """Bin edges (bins + 1,) and counts (lights, bins) of scalar ``name``."""
        i, counts = self._index[name], self.arrays["histogram.counts"]
        low, width = self.arrays["histogram.low"][i], self.arrays["histogram.width"][i]
        edges = low + width * np.arange(counts.shape[-1] + 1)
        return (edges if np.isfinite(low) else np.zeros_like(edges)), counts[i]

    def mean(self, name: str) -> tuple[Array, Array]:
        """Means of array column ``name`` and their standard errors, each (lights, *shape).

        Errors are NaN where there is none: of images, and in snapshots of before they were kept.
        """
        mean = self.arrays[f"mean:{name}"]
        return mean, self.arrays.get(f"error:{name}", np.full_like(mean, np.nan))

    def axis(self, column: Column, which: int = 0) -> tuple[Array, str]:
        """Coordinates of one axis of a column, and their label; its index where it has none."""
        dim = column.dims[which] if len(column.dims) > which else "index"
        coord = self.meta["coords"].get(column.reducer, {}).get(dim)
        if coord and len(coord["values"]) == column.shape[which]:
            unit = "" if coord["unit"] in ("", "1") else f" [{coord['unit']}]"
            return np.asarray(coord["values"], np.float64), f"{dim}{unit}"
        return np.arange(column.shape[which], dtype=np.float64), dim

    @property
    def age_s(self) -> float:
        """Seconds since the newest committed shot reached us."""
        read = self.meta["newest_read"]
        return (time.time_ns() - read) / 1e9 if read else float("nan")

    @property
    def silence_s(self) -> float:
        """Seconds since this snapshot came."""
        return time.monotonic() - self._came

    @property
    def stale(self) -> bool:
        """Whether the run is on and yet nothing has come for a while."""
        return not self.meta["ended"] and not self.age_s < STALE_S

    @property
    def clock(self) -> str:
        """Local time of the newest row, to the second."""
        newest = self.meta["newest"]
        return time.strftime("%H:%M:%S", time.localtime(newest // 10**9)) if newest else "no data"


def _column(fields: list[Any]) -> Column:
    name, dtype, shape, dims, *rest = fields
    return Column(name, dtype, tuple(shape), tuple(dims), *rest)


class LiveModel:
    """One snapshot and a generation that moves when it is replaced; safe between threads.

    ``rejected`` counts frames that could not be decoded; ``document`` holds the times from the
    newest shot of a snapshot reaching us to a browser having drawn it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self.generation = 0
        self.rejected = 0
        self.document = Latency()

    def push(self, frame: bytes) -> None:
        """Take a packed snapshot; what cannot be decoded is counted in ``rejected``."""
        try:
            snapshot = Snapshot(*unpack(frame))
        except (ValueError, KeyError, TypeError):
            self.rejected += 1
            return
        with self._lock:
            self._snapshot, self.generation = snapshot, self.generation + 1

    def latest(self) -> tuple[int, Snapshot | None]:
        """Generation and snapshot, as a pair that belongs together."""
        with self._lock:
            return self.generation, self._snapshot
