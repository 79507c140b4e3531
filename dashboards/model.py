"""The newest snapshot, for any number of sessions: written by the feed, read by views."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffb.health import Latency
from ffb.schema import Column
from ffb.wire import unpack

#: Index of a light state in every array of a snapshot (a fourth is: no x-rays), and its colour.
UNKNOWN, OFF, ON = SHOWN = range(3)
COLOURS = {UNKNOWN: "#7f7f7f", OFF: "#0072b2", ON: "#e69f00"}
NAMES = {UNKNOWN: "light unknown", OFF: "laser off", ON: "laser on"}

Array = NDArray[Any]


class Snapshot:
    """All statistics of one commit, by column name."""

    def __init__(self, meta: dict[str, Any], arrays: dict[str, Array]) -> None:
        self.meta, self.arrays = meta, arrays
        self.scalars = {c.name: c for c in map(_column, meta["scalars"])}
        self.columns = {c.name: c for c in map(_column, meta["arrays"])}
        self._index = {name: i for i, name in enumerate(self.scalars)}

    @property
    def key(self) -> tuple[Any, ...]:
        """What a page's layout depends on: the run and its columns."""
        m = self.meta
        shapes = tuple((c.name, c.shape) for c in self.columns.values())
        return m["exp"], m["run"], tuple(self.scalars), shapes, tuple(m["motors"])

    def curve(self, kind: str, name: str) -> tuple[Array, Array, Array]:
        """N, mean and standard error of scalar ``name``, each (lights, bins).

        ``kind`` is ``"strip"`` (bins in time) or ``"scan"`` (one bin a step).
        """
        i = self._index[name]
        n, mean, error = (self.arrays[f"{kind}.{k}"][i] for k in ("n", "mean", "error"))
        return n, mean, error

    def histogram(self, name: str) -> tuple[Array, Array]:
        """Bin edges (bins + 1,) and counts (lights, bins) of scalar ``name``."""
        i, counts = self._index[name], self.arrays["histogram.counts"]
        low, width = self.arrays["histogram.low"][i], self.arrays["histogram.width"][i]
        edges = low + width * np.arange(counts.shape[-1] + 1)
        return (edges if np.isfinite(low) else np.zeros_like(edges)), counts[i]

    def axis(self, column: Column) -> tuple[Array, str]:
        """Coordinates of a 1-D column's axis and their label."""
        (dim,) = column.dims or ("index",)
        coord = self.meta["coords"].get(column.reducer, {}).get(dim)
        if coord and len(coord["values"]) == column.shape[0]:
            return np.asarray(coord["values"], np.float64), f"{dim} [{coord['unit']}]"
        return np.arange(column.shape[0], dtype=np.float64), dim

    @property
    def age_s(self) -> float:
        """Seconds since the newest committed shot reached us."""
        read = self.meta["newest_read"]
        return (time.time_ns() - read) / 1e9 if read else float("nan")


def _column(fields: list[Any]) -> Column:
    name, dtype, shape, dims, *rest = fields
    return Column(name, dtype, tuple(shape), tuple(dims), *rest)


class LiveModel:
    """One snapshot and a generation that moves when it is replaced; safe between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self.generation = 0
        self.rejected = self._read = 0
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

    def shown(self, snapshot: Snapshot) -> None:
        """Note that a document now shows ``snapshot``, the end of the way of its newest shot."""
        read = snapshot.meta["newest_read"]
        if read > self._read:
            self._read = read
            self.document.add(np.array([time.time_ns() - read]))
