"""The live model: statistics of committed rows, as one snapshot a viewer can start from.

A snapshot is cumulative and a single frame: a viewer that missed ten has missed nothing. All its
parts belong to one commit.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffb.accumulate import LIGHTS, N_LIGHTS, Histograms, Means, Moments
from ffb.batch import Batch
from ffb.schema import CORE, LASER, STEP, TIMESTAMP, XRAY, Column, Schema
from ffb.shot import EPOCH_1990
from ffb.sink import Counts, Provenance
from ffb.source import RunInfo
from ffb.wire import pack

#: A strip shows this many bins of this width.
STRIP_BINS, STRIP_NS = 240, 500_000_000

#: An image is sent at most this large; a larger one is reduced by block means.
IMAGE_SIDE = 512


class Live:
    """A sink that keeps what the page shows: strips, histograms, scan curves, means."""

    def __init__(self) -> None:
        self.info = RunInfo("", 0)
        self.schema = Schema(())
        self._begin(Schema(()))

    def begin_run(self, info: RunInfo, schema: Schema, provenance: Provenance) -> None:
        """Forget the last run and take up this one."""
        self.info, self.schema, self.provenance = info, schema, provenance
        self._begin(schema)

    def _begin(self, schema: Schema) -> None:
        core = {c.name for c in CORE}
        shown = [
            c
            for c in schema.columns
            if c.name not in core and not c.name.endswith("/present") and c.dtype[1] in "fiub"
        ]
        self.scalars = [c for c in shown if not c.shape]
        self.arrays = [c for c in shown if 1 <= len(c.shape) <= 2 and min(c.shape) > 0]
        n = len(self.scalars)
        self.strip, self.scan = Moments(n, STRIP_BINS), Moments(n, 4096)
        self.histograms = Histograms(n)
        self.means = {c.name: Means(c.shape) for c in self.arrays}
        self.present: dict[str, list[int]] = {}
        self.light: NDArray[np.int64] = np.zeros(N_LIGHTS, np.int64)
        self.counts, self.ended = Counts(), False
        self.steps: dict[int, dict[str, float]] = {}
        self.newest = self.newest_read = 0
        self._waiting: list[Batch] = []

    def append(self, batch: Batch) -> None:
        """Hold rows back until they are committed."""
        self._waiting.append(batch)

    def commit(self, counts: Counts) -> None:
        """Add the rows of this commit to the statistics."""
        for batch in self._waiting:
            self._add(batch)
        self._waiting, self.counts = [], counts

    def step(self, step: int, values: Mapping[str, float], docstring: str) -> None:
        """Remember the motors' values of a step, the x-axis of a scan curve."""
        self.steps[step] = dict(values)

    def end_run(self, counts: Counts) -> None:
        """Keep showing the run, marked as ended."""
        self.counts, self.ended = counts, True

    def _add(self, batch: Batch) -> None:
        columns = batch.columns
        laser = np.clip(columns[LASER.name], -1, 1).astype(np.int64) + 1
        light = np.where(columns[XRAY.name] == 0, N_LIGHTS - 1, laser)
        self.light += np.bincount(light, minlength=N_LIGHTS)
        stamp = columns[TIMESTAMP.name]
        seconds = (stamp >> np.uint64(32)).astype(np.int64) + EPOCH_1990
        time_ns = seconds * 1_000_000_000 + (stamp & np.uint64(0xFFFF_FFFF)).astype(np.int64)
        self.newest = max(self.newest, int(time_ns.max()))
        self.newest_read = max(self.newest_read, int(batch.read.max()))
        if self.scalars:
            values = np.stack([self._scalar(c, columns) for c in self.scalars], axis=1)
            self.strip.add(time_ns // STRIP_NS, light, values)
            self.scan.add(columns[STEP.name].astype(np.int64), light, values)
            self.histograms.add(light, values)
        for c in self.arrays:
            self.means[c.name].add(light, self._present(c, columns), columns[c.name])
        for name, column in columns.items():
            if name.endswith("/present"):
                seen = self.present.setdefault(name.removesuffix("/present"), [0, 0])
                seen[0] += int(column.sum())
                seen[1] += batch.n

    @staticmethod
    def _present(c: Column, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
        flag = columns.get(f"{c.reducer}/present")
        return np.ones(len(columns[c.name]), np.bool_) if flag is None else flag.astype(np.bool_)

    def _scalar(self, c: Column, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        return np.where(self._present(c, columns), columns[c.name].astype(np.float64), np.nan)

    def snapshot(self, status: Mapping[str, Any]) -> bytes:
        """Pack everything as one frame; ``status`` is the health of the processes, as it is.

        Arrays: ``strip.time`` (k,) ns, ``scan.step`` (s,), ``scan.<motor>`` (s,), and of every
        scalar column ``strip.n|mean|error``, ``scan.n|mean|error`` (columns, lights, bins),
        ``histogram.low|width`` (columns,), ``histogram.counts`` (columns, lights, bins); of
        every array column ``mean:<name>`` (lights, *shape) and ``last:<name>``.
        """
        arrays: dict[str, NDArray[Any]] = {}
        bins, *strip = self.strip.curve()
        arrays["strip.time"] = bins * STRIP_NS + STRIP_NS // 2
        steps, *scan = self.scan.curve()
        arrays["scan.step"] = steps
        for key, values in zip(("n", "mean", "error"), zip(strip, scan, strict=True), strict=True):
            arrays[f"strip.{key}"], arrays[f"scan.{key}"] = values
        motors = sorted({m for values in self.steps.values() for m in values})
        for m in motors:
            at = [self.steps.get(int(s), {}).get(m, np.nan) for s in steps]
            arrays[f"scan.{m}"] = np.array(at, np.float64)
        h = self.histograms
        arrays["histogram.low"], arrays["histogram.width"] = h.low, h.width
        arrays["histogram.counts"] = h.counts
        reduced: dict[str, int] = {}
        for name, means in self.means.items():
            mean, last = means.mean, means.last
            while mean.ndim == 3 and max(mean.shape[1:]) > IMAGE_SIDE:
                mean, last = _halve(mean), _halve(last[None])[0]
                reduced[name] = reduced.get(name, 1) * 2
            arrays[f"mean:{name}"] = mean.astype(np.float32)
            arrays[f"last:{name}"] = last.astype(np.float32)
        return pack(self._meta(motors, reduced, status), arrays)

    def _meta(
        self, motors: list[str], reduced: Mapping[str, int], status: Mapping[str, Any]
    ) -> dict[str, Any]:
        counts = self.counts
        return {
            "exp": self.info.exp,
            "run": self.info.run,
            "commit": counts.commit,
            "read": counts.read,
            "written": counts.written,
            "lost": dict(counts.lost),
            "late": counts.late,
            "ended": self.ended,
            "newest": self.newest,
            "newest_read": self.newest_read,
            "published": time.time_ns(),
            "light": dict(zip(LIGHTS, self.light.tolist(), strict=True)),
            "present": self.present,
            "rows": {name: m.rows.tolist() for name, m in self.means.items()},
            "scalars": [list(c) for c in self.scalars],
            "arrays": [list(c) for c in self.arrays],
            "reduced": dict(reduced),
            "motors": motors,
            "step": max(self.steps, default=-1),
            "coords": _coords(getattr(self, "provenance", Provenance())),
            "status": dict(status),
        }


def _coords(provenance: Provenance) -> dict[str, Any]:
    """Axes of array features, ``{reducer: {dim: {"values": [...], "unit": ...}}}``."""
    return {
        name: facts["coords"]
        for name, facts in provenance.reducers.items()
        if isinstance(facts, Mapping) and facts.get("coords")
    }


def _halve(images: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of 2 x 2 blocks of ``images`` (k, y, x), without NaN; an odd last line is cut."""
    k, y, x = images.shape
    blocks = images[:, : y // 2 * 2, : x // 2 * 2].reshape(k, y // 2, 2, x // 2, 2)
    good = np.isfinite(blocks)
    with np.errstate(divide="ignore", invalid="ignore"):
        means: NDArray[np.float64] = np.where(good, blocks, 0.0).sum((2, 4)) / good.sum((2, 4))
    return means
