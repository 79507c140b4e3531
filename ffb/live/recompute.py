"""What a snapshot must say of rows of a file: computed once more, plainly, from the rows alone.

Nothing here is shared with the live model but the definitions of its bins. Sums of scalars are
exactly rounded (``math.fsum``), so that they depend on no order. Sums of arrays take the rows in
the order of their commits, in float64: blocks of 256 rows are added row after row, and the sums of
blocks with Neumaier's compensation. Moments are taken in a second pass, about the mean.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.live.model import (
    MOTOR,
    N_SHOWN,
    RECENT,
    RECENT_NS,
    STEPS,
    STRIP_BINS,
    STRIP_NS,
)
from ffb.live.refill import in_order
from ffb.reader import RunFile
from ffb.schema import Column, present_of
from ffb.shot import EPOCH_1990

#: A float may differ by this part of itself where it is sent in 8 or in 4 bytes, and besides by
#: this part of the range of its column: of the distance between smallest and largest value for
#: scalars, of the largest absolute value for arrays; for products of two, a shot.
DOUBLE, SINGLE, OF_RANGE = 1e-12, 1e-6, 1e-10

#: Values beyond the first are not in a histogram, those below the second are zero there.
FAR, NEAR = 1e200, 1e-100

#: Rows of an array column that are added before their sum is.
BLOCK = 256

Floats = NDArray[np.float64]
Groups = list[list[NDArray[np.intp]]]  # by light and key: the rows


class Part(NamedTuple):
    """What array ``array`` of a snapshot, or its row ``at``, must be, and how far it may be off.

    ``allowed`` is ``None`` for what must be equal.
    """

    view: str
    column: str
    array: str
    at: int | None
    want: NDArray[Any]
    allowed: NDArray[Any] | None = None


class Rows:
    """Rows ``first`` to ``end`` of a run in the order of their commits, all of ``epoch``."""

    def __init__(self, run: RunFile, first: int, end: int, epoch: int) -> None:
        self._run, self._epoch = run, epoch
        self.index = in_order(run, first, end)
        stamp = self.column("timestamp").astype(np.uint64)
        seconds = (stamp >> np.uint64(32)).astype(np.int64) + EPOCH_1990
        self.time_ns = seconds * 10**9 + (stamp % np.uint64(1 << 32)).astype(np.int64)
        self.step = self.column("step").astype(np.int64)
        laser, xray = self.column("lightStatus/laser"), self.column("lightStatus/xray")
        names = {-1: 0, 0: 1, 1: 2}  # laser unknown, off, on; 3 is for no x-rays
        self.light = np.array(
            [
                3 if dark else names.get(s, 0)
                for dark, s in zip(xray == 0, laser.tolist(), strict=True)
            ],
            np.int64,
        )

    def column(self, name: str, rows: slice = slice(None)) -> NDArray[Any]:
        """Values of a column as it was in this epoch."""
        index, values = self.index[rows], self._run[self._name(name)]
        return np.asarray(values[index]) if index.size else values[:0]

    def _name(self, name: str) -> str:
        """Name of a column as it was in this epoch, of the newest epoch that had it so."""
        older = (k.rpartition("_e") for k in self._run)
        epochs = (int(k) for stem, _, k in older if stem == name and k.isdigit())
        epoch = min((k for k in epochs if k >= self._epoch), default=None)
        return name if epoch is None else f"{name}_e{epoch}"

    def present(self, column: Column) -> NDArray[np.bool_]:
        """Where the reducer of ``column`` ran, or where the column is known."""
        flag = next((f for f in column.flags if f in self._run), None)
        return self.column(flag) != 0 if flag else np.ones(self.index.size, np.bool_)

    def scalar(self, column: Column) -> Floats:
        """A scalar column, NaN where it is absent."""
        return np.where(self.present(column), self.column(column.name).astype(np.float64), np.nan)

    def groups(self, of: NDArray[np.int64], keys: NDArray[np.int64]) -> Groups:
        """Rows of every light shown and every one of ``keys``."""
        order = np.lexsort((of, self.light))
        pairs = np.stack([self.light[order], of[order]])
        cuts = np.flatnonzero((pairs[:, 1:] != pairs[:, :-1]).any(0)) + 1
        found = {
            (int(self.light[part[0]]), int(of[part[0]])): np.sort(part)
            for part in np.split(order, cuts)
            if part.size
        }
        none = np.zeros(0, np.intp)
        return [[found.get((light, int(k)), none) for k in keys] for light in range(N_SHOWN)]


def strip(rows: Rows, scalars: Sequence[Column]) -> Iterator[Part]:
    """Means in bins of time."""
    bins = rows.time_ns // STRIP_NS
    keys = np.unique(bins)[-STRIP_BINS:]
    groups = rows.groups(bins, keys)
    yield Part("strip", "", "strip.time", None, keys * STRIP_NS + STRIP_NS // 2)
    for i, c in enumerate(scalars):
        for field, want, allowed in _moments(groups, rows.scalar(c), None):
            if field in ("n", "mean"):
                yield Part("strip", c.name, f"strip.{field}", i, want, allowed)


def scan(
    rows: Rows, scalars: Sequence[Column], motors: Sequence[str], steps: Mapping[int, Any]
) -> Iterator[Part]:
    """Moments by step, and where the motors stood; ``steps`` are those the file tells of."""
    keys = np.unique(rows.step)[-STEPS:]
    groups = rows.groups(rows.step, keys)
    yield Part("scan", "", "scan.step", None, keys)
    firsts = [int(np.flatnonzero(rows.step == k)[0]) for k in keys]
    recorded = {c.name: c for c in scalars}
    for motor in motors:
        column = recorded.get(f"{MOTOR}{motor}")
        at = rows.column(column.name)[firsts] if column else np.full(keys.size, np.nan)
        told = [steps.get(int(k), {}).get(motor, v) for k, v in zip(keys, at, strict=True)]
        yield Part("scan", motor, f"scan.{motor}", None, np.array(told, np.float64))
    for i, c in enumerate(scalars):
        for field, want, allowed in _moments(groups, rows.scalar(c), None):
            yield Part("scan", c.name, f"scan.{field}", i, want, allowed)


def ratio(rows: Rows, scalars: Sequence[Column], normaliser: str) -> Iterator[Part]:
    """Moments by step together with those of the normaliser; nothing without one."""
    energy = next((c for c in scalars if c.name == normaliser), None)
    if energy is None:
        return
    w = rows.scalar(energy)
    groups = rows.groups(rows.step, np.unique(rows.step)[-STEPS:])
    for i, c in enumerate(scalars):
        for field, want, allowed in _moments(groups, rows.scalar(c), w):
            yield Part("ratio", c.name, f"ratio.{field}", i, want, allowed)


def _moments(
    groups: Groups, x: Floats, w: Floats | None
) -> Iterator[tuple[str, NDArray[Any], NDArray[Any] | None]]:
    """Count, mean and summed squares about it by light and key; the same of ``w``, and both."""
    shape = (len(groups), len(groups[0]))
    names = ("n", "mean", "m2", "norm", "norm2", "cross")[: 3 if w is None else 6]
    out = {name: np.full(shape, np.nan if name in ("mean", "norm") else 0.0) for name in names}
    usable = np.isfinite(x) if w is None else np.isfinite(x) & np.isfinite(w)
    for light, by_key in enumerate(groups):
        for k, members in enumerate(by_key):
            chosen = members[usable[members]]
            if not chosen.size:
                continue
            at = light, k
            a, mean = _about_mean(x[chosen])
            out["n"][at], out["mean"][at], out["m2"][at] = chosen.size, mean, math.fsum(a * a)
            if w is not None:
                b, out["norm"][at] = _about_mean(w[chosen])
                out["norm2"][at], out["cross"][at] = math.fsum(b * b), math.fsum(a * b)
    yield "n", out["n"].astype(np.int64), None
    p, q = _range(x), _range(x if w is None else w)
    scales = {"mean": p, "norm": q, "m2": p * p, "norm2": q * q, "cross": p * q}
    for name in names[1:]:
        first = name in ("mean", "norm")
        of_range = OF_RANGE * scales[name] * (1.0 if first else np.maximum(out["n"], 1))
        yield name, out[name], (DOUBLE if first else SINGLE) * np.abs(out[name]) + of_range


def _about_mean(x: Floats) -> tuple[Floats, float]:
    mean = math.fsum(x) / x.size
    return x - mean, mean


def _range(x: Floats) -> float:
    finite = x[np.isfinite(x)]
    return float(np.ptp(finite)) if finite.size else 0.0


def histogram(
    rows: Rows, scalars: Sequence[Column], low: Floats, width: Floats, bins: int
) -> Iterator[Part]:
    """Counts between the edges that the snapshot gives; a value outside of them is missed."""
    for i, c in enumerate(scalars):
        x = rows.scalar(c)
        x = np.where(np.abs(x) < NEAR, 0.0, x)
        want = np.zeros((N_SHOWN, bins), np.int64)
        if np.isfinite(low[i]) and width[i] > 0:
            edges = low[i] + width[i] * np.arange(bins + 1)
            for light in range(N_SHOWN):
                mine = x[(rows.light == light) & (np.abs(x) < FAR)]
                want[light] = np.histogram(mine, edges)[0]
                want[light, 0] += np.count_nonzero((mine < edges[0]) | (mine >= edges[-1]))
        yield Part("histogram", c.name, "histogram.counts", i, want)


def mean(
    rows: Rows, arrays: Sequence[Column], reduced: Mapping[str, int], errors: Container[str]
) -> Iterator[Part]:
    """Means of arrays element by element, their number of rows, and the latest row.

    Of those in ``errors`` also the standard error; older snapshots have none.
    """
    for c in arrays:
        present = rows.present(c)
        sums = [Compensated(c.shape) for _ in range(N_SHOWN)]
        n, largest = np.zeros((N_SHOWN, *c.shape), np.int64), 0.0
        for light, mine in _by_light(rows, c, present):
            good = np.isfinite(mine)
            n[light] += good.sum(0)
            sums[light].add(np.where(good, mine, 0.0).sum(0))
            largest = max(largest, float(np.abs(mine[good]).max(initial=0.0)))
        with np.errstate(divide="ignore", invalid="ignore"):
            whole = np.stack([s.total for s in sums]) / n
        there = np.flatnonzero(present)[-1:]
        last = rows.column(c.name, slice(there[0], there[0] + 1)) if there.size else None
        last = np.full((1, *c.shape), np.nan) if last is None else last.astype(np.float64)
        means, last = (_shrunk(v, reduced.get(c.name, 1)) for v in (whole, last))
        counted = [np.count_nonzero(present & (rows.light == k)) for k in range(N_SHOWN)]
        yield Part("mean", c.name, f"rows:{c.name}", None, np.array(counted))
        allowed = SINGLE * np.abs(means) + OF_RANGE * largest
        yield Part("mean", c.name, f"mean:{c.name}", None, means, allowed)
        yield Part("mean", c.name, f"last:{c.name}", None, last[0], SINGLE * np.abs(last[0]))
        if c.name in errors:
            error = _errors(rows, c, present, whole, n)
            allowed = SINGLE * np.abs(error) + OF_RANGE * largest
            yield Part("mean", c.name, f"error:{c.name}", None, error, allowed)


def _by_light(
    rows: Rows, column: Column, present: NDArray[np.bool_]
) -> Iterator[tuple[int, Floats]]:
    """Rows of an array column that are ``present``, block by block, each with its light."""
    for begin in range(0, rows.index.size, BLOCK):
        part = slice(begin, begin + BLOCK)
        values, there = rows.column(column.name, part).astype(np.float64), present[part]
        for light in range(N_SHOWN):
            yield light, values[there & (rows.light[part] == light)]


@np.errstate(all="ignore")
def _errors(
    rows: Rows, column: Column, present: NDArray[np.bool_], means: Floats, n: NDArray[np.int64]
) -> Floats:
    """Standard errors of ``means`` of ``n`` values, in a second pass about them; NaN below 2."""
    squares = [Compensated(column.shape) for _ in range(N_SHOWN)]
    for light, mine in _by_light(rows, column, present):
        away = np.where(np.isfinite(mine), mine - means[light], 0.0)
        squares[light].add((away * away).sum(0))
    error = np.sqrt(np.stack([s.total for s in squares]) / (n - 1) / n)
    return np.where((n > 1) & np.isfinite(error), error, np.nan)


class Compensated:
    """A sum of arrays that keeps what rounding would drop (Neumaier, ZAMM 54, 39, 1974)."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._sum, self._rest = np.zeros(shape), np.zeros(shape)

    def add(self, values: Floats) -> None:
        """Add ``values``."""
        total = self._sum + values
        larger = np.abs(self._sum) >= np.abs(values)
        lost = np.where(larger, (self._sum - total) + values, (values - total) + self._sum)
        self._sum, self._rest = total, self._rest + lost

    @property
    def total(self) -> Floats:
        """The sum."""
        out: Floats = self._sum + self._rest
        return out


def _shrunk(images: Floats, factor: int) -> Floats:
    """Means of blocks of 2 x 2, again and again until ``images`` are smaller by ``factor``."""
    while factor > 1:
        y, x = (size // 2 * 2 for size in images.shape[1:])
        corners = np.stack([images[:, a:y:2, b:x:2] for a in (0, 1) for b in (0, 1)])
        good = np.isfinite(corners)
        with np.errstate(divide="ignore", invalid="ignore"):
            images = np.where(good, corners, 0.0).sum(0) / good.sum(0)
        factor //= 2
    return images


def light(rows: Rows) -> Iterator[Part]:
    """How many rows of every light, and the time of the newest shot."""
    yield Part("light", "", "light", None, np.bincount(rows.light, minlength=N_SHOWN + 1))
    newest = rows.time_ns.max(initial=0)
    yield Part("light", "", "newest", None, np.asarray(newest))


def presence(rows: Rows, reducers: Sequence[str]) -> Iterator[Part]:
    """Rows in which every reducer ran, of how many: over all, and over the last seconds."""
    seconds = rows.time_ns // RECENT_NS
    recent = seconds > seconds.max(initial=0) - RECENT
    for name in reducers:
        there = rows.column(present_of(name)) != 0
        want = [there.sum(), there.size, there[recent].sum(), recent.sum()]
        yield Part("presence", name, f"present:{name}", None, np.array(want, np.int64))
