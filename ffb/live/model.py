"""The live model: statistics of committed rows, as one snapshot a viewer can start from.

A snapshot is cumulative and a single frame: a viewer that missed ten has missed nothing. All its
parts belong to one commit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffb.batch import Batch
from ffb.live.accumulate import LIGHTS, N_LIGHTS, Histograms, Ints, Means, Moments, Presence
from ffb.schema import CORE, LASER, STEP, TIMESTAMP, VALID, XRAY, Column, Schema, present_of
from ffb.shot import EPOCH_1990
from ffb.sink import Counts, Provenance
from ffb.source import RunInfo
from ffb.wire import pack

#: A strip shows this many bins of this width.
STRIP_BINS, STRIP_NS = 240, 500_000_000

#: What a reducer missed is told over the run, and over the last seconds.
RECENT, RECENT_NS = 10, 1_000_000_000

#: A scan curve holds at most this many steps; the oldest go first.
STEPS = 1024

#: An image is sent at most this large; a larger one is reduced by block means.
IMAGE_SIDE = 512

#: A recorded scalar in one of these is taken for the pulse energy that signals are divided by.
ENERGIES = ("J", "mJ", "uJ", "µJ")

#: Lights that belong to a curve; shots without x-rays stay at home.
N_SHOWN = N_LIGHTS - 1


#: How columns of motors begin, and how those end that say where a reducer ran, and where a column
#: that has no NaN is known.
MOTOR = "scan/"


class Live:
    """A sink that keeps what the page shows: strips, histograms, scan curves, means.

    Its statistics are those of rows ``first`` to ``first + shown`` of the run, in the order of
    their commits. While it is ``filling``, older ones of them are still missing: those that were
    committed before an aggregator was restarted.
    """

    def __init__(self, books: Callable[[], Counts] = Counts) -> None:
        """Make an empty model; ``books`` tells at the beginning what the file holds already."""
        self._books: Callable[[], Counts] = Counts
        self.begin_run(RunInfo("", 0), Schema(()), Provenance())
        self._books = books

    def begin_run(self, info: RunInfo, schema: Schema, provenance: Provenance) -> None:
        """Forget the last run and take up this one."""
        self.info, self.provenance = info, provenance
        self.counts, self.ended = self._books(), False
        self.steps: dict[int, dict[str, float]] = {}
        self._waiting: list[Batch] = []
        self._begin(schema)
        self.filling = self.counts.commit > 0

    def begin_epoch(self, epoch: int, schema: Schema, provenance: Provenance) -> None:
        """Start the statistics anew: numbers of other parameters do not belong together."""
        self.provenance = provenance
        self._begin(schema, self.counts.written, epoch)

    def _begin(self, schema: Schema, first: int = 0, epoch: int = 0) -> None:
        self.schema, self.first, self.epoch, self.filling = schema, first, epoch, False
        core, names = {c.name for c in CORE}, schema.by_name
        shown = [
            c
            for c in schema.columns
            if c.name not in core and not _tells_of_another(c, names) and c.dtype[1] in "fiub"
        ]
        self.scalars = [c for c in shown if not c.shape]
        arrays = (c for c in shown if 1 <= len(c.shape) <= 2 and min(c.shape) > 0)
        self.arrays = [c for c in arrays if not c.length]  # entries of lists have no mean by place
        self.motors = [c.name for c in self.scalars if c.name.startswith(MOTOR) and not c.reducer]
        n, self.norm = len(self.scalars), _normaliser(self.scalars)
        self.strip, self.scan = Moments(n, STRIP_BINS), Moments(n, STEPS)
        self.ratio = Moments(n, STEPS, self.norm) if self.norm is not None else None
        self.histograms = Histograms(n)
        self.means = {c.name: Means(c.shape, errors=len(c.shape) == 1) for c in self.arrays}
        self.present: dict[str, Presence] = {}
        reducers = dict.fromkeys(c.reducer for c in schema.columns)
        self._presences = {r: name for r in reducers if (name := present_of(r)) in names}
        self.light: NDArray[np.int64] = np.zeros(N_LIGHTS, np.int64)
        self.newest = self.newest_read = 0

    def append(self, batch: Batch) -> None:
        """Hold rows back until they are committed."""
        self._waiting.append(batch)

    @property
    def shown(self) -> int:
        """Rows in the statistics."""
        return int(self.light.sum())

    def commit(self, counts: Counts) -> None:
        """Add the rows of this commit to the statistics."""
        for batch in self._waiting:
            self.add(batch)
        self._waiting, self.counts = [], counts

    def step(self, step: int, values: Mapping[str, float], docstring: str) -> None:
        """Remember the motors' values of a step, the x-axis of a scan curve."""
        self.steps[step] = dict(values)

    def end_run(self, counts: Counts) -> None:
        """Keep showing the run, marked as ended."""
        self.counts, self.ended = counts, True

    def add(self, batch: Batch, *, older: bool = False) -> None:
        """Add committed rows; ``older`` ones change nothing about which row is the latest."""
        columns, light = batch.columns, light_of(batch.columns)
        self.light += np.bincount(light, minlength=N_LIGHTS)
        stamp, step = columns[TIMESTAMP.name], columns[STEP.name].astype(np.int64)
        seconds = (stamp >> np.uint64(32)).astype(np.int64) + EPOCH_1990
        time_ns = seconds * 1_000_000_000 + (stamp & np.uint64(0xFFFF_FFFF)).astype(np.int64)
        self.newest = max(self.newest, int(time_ns.max()))
        self.newest_read = max(self.newest_read, int(batch.read.max()))
        for k, first in zip(*np.unique(step, return_index=True), strict=True):
            at = {m.removeprefix(MOTOR): float(columns[m][first]) for m in self.motors}
            self.steps.setdefault(int(k), at)
        if self.scalars:
            values = np.stack([self._scalar(c, columns) for c in self.scalars], axis=1)
            self.strip.add(time_ns // STRIP_NS, light, values)
            self.scan.add(step, light, values)
            self.histograms.add(light, values)
            if self.ratio is not None:
                self.ratio.add(step, light, values)
        for c in self.arrays:
            self.means[c.name].add(light, self._present(c, columns), columns[c.name], older)
        for reducer, name in self._presences.items():
            seen = self.present.setdefault(reducer, Presence(RECENT))
            seen.add(time_ns // RECENT_NS, columns[name])

    @staticmethod
    def _present(c: Column, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
        flags = (columns.get(f) for f in c.flags)
        flag = next((f for f in flags if f is not None), None)
        return np.ones(len(columns[c.name]), np.bool_) if flag is None else flag.astype(np.bool_)

    def _scalar(self, c: Column, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        return np.where(self._present(c, columns), columns[c.name].astype(np.float64), np.nan)

    def snapshot(self, status: Mapping[str, Any]) -> bytes:
        """Pack everything as one frame; ``status`` is the health of the processes, as it is.

        Arrays: ``strip.time`` (k,) ns, ``scan.step`` (s,), ``scan.<motor>`` (s,), and of every
        scalar column moments (columns, lights, bins): ``strip.n|mean``, ``scan.n|mean|m2`` and,
        beside a normaliser, ``ratio.n|mean|m2|norm|norm2|cross``; ``histogram.low|width``
        (columns,), ``histogram.counts`` (columns, lights, bins); of every array column
        ``mean:<name>`` (lights, *shape) and ``last:<name>``; of those with one axis, which the
        meta data names in ``errors``, ``error:<name>`` (lights, k), the standard error of the mean.
        """
        arrays: dict[str, NDArray[Any]] = {}
        bins, strip = self.strip.curve()
        arrays["strip.time"] = bins * STRIP_NS + STRIP_NS // 2
        arrays["strip.n"] = strip.n[:, :N_SHOWN].astype(np.int32)
        arrays["strip.mean"] = strip.mean[:, :N_SHOWN]
        steps = self._moments(arrays, "scan", self.scan)
        if self.ratio is not None:
            self._moments(arrays, "ratio", self.ratio)
        arrays["scan.step"] = steps
        motors = sorted({m for values in self.steps.values() for m in values})
        for m in motors:
            at = [self.steps.get(int(s), {}).get(m, np.nan) for s in steps]
            arrays[f"scan.{m}"] = np.array(at, np.float64)
        h = self.histograms
        arrays["histogram.low"], arrays["histogram.width"] = h.low, h.width
        arrays["histogram.counts"] = h.counts[:, :N_SHOWN].astype(np.int32)
        reduced: dict[str, int] = {}
        for name, means in self.means.items():
            mean, last = means.mean[:N_SHOWN], means.last
            while mean.ndim == 3 and max(mean.shape[1:]) > IMAGE_SIDE:
                mean, last = _halve(mean), _halve(last[None])[0]
                reduced[name] = reduced.get(name, 1) * 2
            arrays[f"mean:{name}"] = mean.astype(np.float32)
            arrays[f"last:{name}"] = last.astype(np.float32)
            if (error := means.error) is not None:
                arrays[f"error:{name}"] = error[:N_SHOWN].astype(np.float32)
        return pack(self._meta(motors, reduced, status), arrays)

    @staticmethod
    def _moments(arrays: dict[str, NDArray[Any]], kind: str, moments: Moments) -> Ints:
        """Put the curve of ``moments`` among ``arrays``; means keep their digits, errors need 7."""
        keys, curve = moments.curve()
        for name, values in vars(curve).items():
            if values is not None:
                dtype = {"n": np.int32, "mean": np.float64, "norm": np.float64}
                arrays[f"{kind}.{name}"] = values[:, :N_SHOWN].astype(dtype.get(name, np.float32))
        return keys

    def _meta(
        self, motors: list[str], reduced: Mapping[str, int], status: Mapping[str, Any]
    ) -> dict[str, Any]:
        counts = self.counts
        return {
            "exp": self.info.exp,
            "run": self.info.run,
            "commit": counts.commit,
            "epoch": self.epoch,
            "span": [self.first, self.first + self.shown],
            "filling": self.filling,
            "read": counts.read,
            "written": counts.written,
            "lost": dict(counts.lost),
            "late": counts.late,
            "duplicates": counts.duplicates,
            "not_seen": counts.not_seen,
            "balance": _balance(counts),
            "ended": self.ended,
            "reason": counts.ended,
            "newest": self.newest,
            "newest_read": self.newest_read,
            "published": time.time_ns(),
            "light": dict(zip(LIGHTS, self.light.tolist(), strict=True)),
            "present": {name: p.counts for name, p in self.present.items()},
            "shown": self.shown,
            "rows": {name: m.rows[:N_SHOWN].tolist() for name, m in self.means.items()},
            "scalars": [list(c) for c in self.scalars],
            "arrays": [list(c) for c in self.arrays],
            "reduced": dict(reduced),
            "errors": [c.name for c in self.arrays if len(c.shape) == 1],
            "motors": motors,
            "step": max(self.steps, default=-1),
            "now": self.steps[max(self.steps)] if self.steps else {},
            "steps_forgotten": self.scan.forgotten,
            "normaliser": "" if self.norm is None else self.scalars[self.norm].name,
            "coords": _coords(self.provenance),
            "status": dict(status),
        }


def _tells_of_another(c: Column, names: Container[str]) -> bool:
    """Whether a column only says where others are there."""
    known = c.name.endswith(VALID) and c.name.removesuffix(VALID) in names
    return known or c.name == present_of(c.reducer)


def light_of(columns: Mapping[str, NDArray[Any]]) -> Ints:
    """Index into ``LIGHTS`` of every row (n,)."""
    laser = columns[LASER.name].astype(np.int64) + 1
    return np.where(columns[XRAY.name] == 0, N_LIGHTS - 1, laser)


def _normaliser(scalars: list[Column]) -> int | None:
    """Index of the first recorded pulse energy."""
    found = (i for i, c in enumerate(scalars) if c.unit in ENERGIES and not c.reducer)
    return next(found, None)


def _balance(counts: Counts) -> str:
    """What does not add up in the books, ``""`` when they balance, as at every commit they must."""
    who = [f"producer {name}" for name, p in counts.producers.items() if _flight(p) < 0]
    flight = counts.read - counts.written - sum(counts.lost.values())
    if flight < 0 and not who:
        who = ["the run"]
    if who:
        return f"{who[0]} has more shots written or lost than it read"
    return f"{flight:,} shots are unaccounted for" if counts.ended and flight else ""


def _flight(books: Mapping[str, Any]) -> int:
    """Shots of a producer that are neither written nor lost."""
    gone = sum(sum(dict(books.get(k) or {}).values()) for k in ("lost", "refused"))
    return int(books.get("read", 0)) - int(books.get("written", 0)) - gone


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
