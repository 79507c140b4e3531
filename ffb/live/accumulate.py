"""Mergeable statistics over shots, kept apart by light.

Every accumulator takes rows in any order and keeps counts and sums only, so what it says does not
depend, beyond rounding, on how the rows were grouped into commits. NaN is never counted. ``light``
is always an index of ``LIGHTS``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Laser unknown, off, on; and shots without x-rays, which belong to no curve, whatever the laser.
LIGHTS = ("unknown", "off", "on", "no x-rays")
N_LIGHTS = len(LIGHTS)

#: No histogram reaches further than this, nor tells apart what is nearer to zero than this: exact
#: arithmetic on its edges must neither overflow nor underflow.
FAR, NEAR = 1e200, 1e-100

#: No bin is narrower than this part of a value in it, so that its number is exact.
FINEST = 2.0**-50

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Curve:
    """Moments about the mean of scalar columns, each (columns, lights, bins).

    ``n`` shots with ``mean`` and the sum ``m2`` of squared differences to it; ``norm``, ``norm2``
    and ``cross`` (sum of products of differences) are those of the normaliser, which is 1 where
    there is none. Means are NaN where ``n`` is 0.
    """

    n: Ints
    mean: Floats
    m2: Floats
    norm: Floats | None = None
    norm2: Floats | None = None
    cross: Floats | None = None

    def merged(self, groups: Ints, size: int) -> Curve:
        """Curve of ``size`` bins, of which bin ``groups[k]`` (k,) takes in bin k."""
        n = _gather(self.n, groups, size)
        mean = _gather_means(self.n, self.mean, groups, n)
        m2 = _gather_products(self, self.m2, (self.mean, mean), (self.mean, mean), groups, size)
        if self.norm is None or self.norm2 is None or self.cross is None:
            return Curve(n, mean, m2)
        norm = _gather_means(self.n, self.norm, groups, n)
        s, w = (self.mean, mean), (self.norm, norm)
        norm2 = _gather_products(self, self.norm2, w, w, groups, size)
        cross = _gather_products(self, self.cross, s, w, groups, size)
        return Curve(n, mean, m2, norm, norm2, cross)

    def ratio(self) -> tuple[Floats, Floats]:
        """Sum over sum of the normaliser, and its standard error; without one, mean and SEM.

        With R = S / W the error is sqrt((var s + R^2 var w - 2 R cov(s, w)) / n) / mean w, the
        delta method to first order (Cochran, Sampling Techniques, 1977, section 6.4). The error
        is NaN below 2 shots.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.norm is None or self.norm2 is None or self.cross is None:
                r, scale, m2 = self.mean, np.ones(()), self.m2
            else:
                r, scale = self.mean / self.norm, np.abs(self.norm)
                m2 = self.m2 + r * r * self.norm2 - 2 * r * self.cross
            error = np.sqrt(np.maximum(m2, 0.0) / (self.n - 1) / self.n) / scale
        return np.where(self.n > 0, r, np.nan), np.where(self.n > 1, error, np.nan)


def _gather(values: NDArray[Any], groups: Ints, size: int) -> NDArray[Any]:
    out = np.zeros((*values.shape[:-1], size), values.dtype)
    for k, group in enumerate(groups.tolist()):
        out[..., group] += values[..., k]
    return out


def _gather_means(n: Ints, means: Floats, groups: Ints, total: Ints) -> Floats:
    sums: Floats = _gather(np.where(n > 0, n * means, 0.0), groups, total.shape[-1])
    with np.errstate(invalid="ignore"):
        return sums / total


def _gather_products(
    curve: Curve,
    products: Floats,
    a: tuple[Floats, Floats],
    b: tuple[Floats, Floats],
    groups: Ints,
    size: int,
) -> Floats:
    """Sums of products about new means: each of ``a``, ``b`` is (means, means of the groups)."""
    apart = (a[0] - a[1][..., groups]) * (b[0] - b[1][..., groups])
    return _gather(np.where(curve.n > 0, products + curve.n * apart, 0.0), groups, size)


class Moments:
    """Sums of scalar columns up to second order, by integer key and light.

    With ``norm``, the index of a column, they are taken over shots that have both, together with
    the sums of that column: what a ratio and its error need. Sums are of differences to the first
    finite value of each column, in float64, so that a small spread on a large mean keeps its
    digits. At most ``keep`` keys are held; the smallest goes first, counted in ``forgotten``.
    """

    def __init__(self, columns: int, keep: int, norm: int | None = None) -> None:
        self.columns, self.keep, self.norm = columns, keep, norm
        self.reference: Floats = np.full(columns, np.nan)
        self.forgotten = 0
        self._terms = 3 if norm is None else 6
        self._sums: dict[int, Floats] = {}  # key -> (lights, terms, columns)

    @np.errstate(over="ignore")  # a square beyond all numbers is infinite, and shown as such
    def add(self, keys: Ints, light: Ints, values: Floats) -> None:
        """Add rows ``values`` (n, columns) with their ``keys`` (n,) and ``light`` (n,)."""
        self._refer(values)
        shifted = values - self.reference
        good = np.isfinite(shifted)
        if self.norm is not None:
            good &= good[:, self.norm, None]
        shifted = np.where(good, shifted, 0.0)
        terms = [good, shifted, shifted * shifted]
        if self.norm is not None:
            w = good * shifted[:, self.norm, None]
            terms += [w, w * w, w * shifted]
        pairs = keys * N_LIGHTS + light
        for pair in np.unique(pairs):
            rows, key = pairs == pair, int(pair // N_LIGHTS)
            if key not in self._sums:
                self._sums[key] = np.zeros((N_LIGHTS, self._terms, self.columns))
            self._sums[key][int(pair % N_LIGHTS)] += [term[rows].sum(0) for term in terms]
        while len(self._sums) > self.keep:
            del self._sums[min(self._sums)]
            self.forgotten += 1

    def _refer(self, values: Floats) -> None:
        for c in np.flatnonzero(np.isnan(self.reference)):
            finite = np.isfinite(values[:, c])
            if finite.any():
                self.reference[c] = values[finite.argmax(), c]

    def curve(self) -> tuple[Ints, Curve]:
        """Keys (k,), ascending, and the moments of every column at each."""
        keys = np.array(sorted(self._sums), np.int64)
        sums = np.array([self._sums[int(k)] for k in keys]).reshape(
            len(keys), N_LIGHTS, self._terms, self.columns
        )
        n, s, ss, *more = sums.transpose(2, 3, 1, 0)
        refer = self.reference[:, None, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            mean, count = s / n, n.astype(np.int64)
            m2 = np.maximum(ss - np.where(n > 0, s * mean, 0.0), 0.0)
            if self.norm is None:
                return keys, Curve(count, mean + refer, m2)
            w, ww, sw = more
            norm2 = np.maximum(ww - np.where(n > 0, w * w / n, 0.0), 0.0)
            cross = sw - np.where(n > 0, w * mean, 0.0)
            norm = w / n + self.reference[self.norm]
        return keys, Curve(count, mean + refer, m2, norm, norm2, cross)


class Histograms:
    """Histograms of scalar columns by light, whose range grows as the values ask for.

    A bin is a power of two wide and its edges are multiples of that, so that arithmetic on them is
    exact: which bin a value is in depends on the range alone, never on how the range grew. A range
    doubles by adding neighbouring bins, so counts are never lost and never guessed. What is not
    finite, or absurdly far out, is counted apart; what is absurdly near to zero is zero.
    """

    def __init__(self, columns: int, bins: int = 128) -> None:
        self.bins = bins
        self.width: Floats = np.full(columns, np.nan)
        self.counts: NDArray[np.int64] = np.zeros((columns, N_LIGHTS, bins), np.int64)
        self.not_finite: NDArray[np.int64] = np.zeros(columns, np.int64)
        self._first: Floats = np.full(columns, np.nan)  # number of the first bin; 0 begins at zero

    @property
    def low(self) -> Floats:
        """Lower edge of the first bin of every column; NaN before its first value."""
        return self._first * self.width

    def add(self, light: Ints, values: Floats) -> None:
        """Add rows ``values`` (n, columns) with their ``light`` (n,)."""
        finite = np.abs(values) < FAR
        self.not_finite += (~finite).sum(0)
        for c in range(values.shape[1]):
            x, state = values[finite[:, c], c], light[finite[:, c]]
            if x.size:
                x = np.where(np.abs(x) < NEAR, 0.0, x)
                self._reach(c, float(x.min()), float(x.max()))
                at = (np.floor(x / self.width[c]) - self._first[c]).astype(np.int64)
                flat = state * self.bins + at
                self.counts[c] += np.bincount(flat, minlength=N_LIGHTS * self.bins).reshape(
                    N_LIGHTS, self.bins
                )

    def _reach(self, c: int, low: float, high: float) -> None:
        """Widen the range of column ``c`` until it holds ``low`` and ``high``."""
        if np.isnan(self.width[c]):
            span = (high - low) or max(abs(low) * 1e-3, 1e-12)
            least = max(NEAR, abs(low) * FINEST, abs(high) * FINEST)
            self.width[c] = 2.0 ** np.ceil(np.log2(max(2 * span / self.bins, least)))
            middle = (low / 2 + high / 2) / self.width[c]
            self._first[c] = np.floor(middle) - self.bins // 2
        while True:
            first, last = np.floor(np.array([low, high]) / self.width[c]) - self._first[c]
            if first >= 0 and last < self.bins:
                return
            self._double(c, downward=bool(first < 0))

    def _double(self, c: int, *, downward: bool) -> None:
        """Make the bins of column ``c`` twice as wide; those there were end up at one end."""
        half, odd = self.bins // 2, int(self._first[c] % 2)
        pairs = np.zeros((N_LIGHTS, self.bins + 2), np.int64)
        pairs[:, odd : odd + self.bins] = self.counts[c]
        at = half - 1 if downward else 0
        self.counts[c] = 0
        self.counts[c][:, at : at + half + 1] = pairs.reshape(N_LIGHTS, half + 1, 2).sum(2)
        self._first[c] = np.floor(self._first[c] / 2) - at
        self.width[c] *= 2


class Means:
    """Mean of an array column by light, element by element, and its latest row.

    With ``errors`` also the standard errors of the means. Squares are then kept about the mean, as
    Chan, Golub and LeVeque (Am. Stat. 37, 242, 1983) join them, so that a small spread on a large
    mean keeps its digits.
    """

    def __init__(self, shape: tuple[int, ...], *, errors: bool = False) -> None:
        self.rows: NDArray[np.int64] = np.zeros(N_LIGHTS, np.int64)
        self.last: Floats = np.full(shape, np.nan)
        self._known = False
        self._n: NDArray[np.int64] = np.zeros((N_LIGHTS, *shape), np.int64)
        self._sum: Floats = np.zeros((N_LIGHTS, *shape))
        self._m2: Floats | None = np.zeros((N_LIGHTS, *shape)) if errors else None

    def add(
        self,
        light: Ints,
        present: NDArray[np.bool_],
        values: NDArray[np.generic],
        older: bool = False,
    ) -> None:
        """Add rows ``values`` (n, *shape) with their ``light`` (n,), where ``present`` (n,).

        ``older`` rows come before those that were added otherwise, in the order of a file.
        """
        for state in range(N_LIGHTS):
            rows = values[present & (light == state)].astype(np.float64)
            if rows.size:
                good = np.isfinite(rows)
                n, total = good.sum(0), np.where(good, rows, 0.0).sum(0)
                if self._m2 is not None:
                    before = self._n[state], self._sum[state]
                    self._m2[state] += _squares(rows, good, (n, total), before)
                self._n[state] += n
                self._sum[state] += total
                self.rows[state] += len(rows)
        self._known |= bool(present.any()) and not older
        if present.any() and not (older and self._known):
            self.last = values[np.flatnonzero(present)[-1]].astype(np.float64)

    @property
    def mean(self) -> Floats:
        """Means (lights, *shape); NaN where nothing was counted."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self._sum / self._n

    @property
    def error(self) -> Floats | None:
        """Standard errors of the means (lights, *shape), if they are kept.

        sqrt(m2 / (n - 1) / n), with the sum m2 of squares about the mean; NaN below 2 values, and
        where squares are beyond all numbers.
        """
        if self._m2 is None:
            return None
        with np.errstate(divide="ignore", invalid="ignore"):
            error = np.sqrt(self._m2 / (self._n - 1) / self._n)
        return np.where((self._n > 1) & np.isfinite(error), error, np.nan)


@np.errstate(over="ignore", invalid="ignore")
def _squares(
    rows: Floats, good: NDArray[np.bool_], new: tuple[Ints, Floats], old: tuple[Ints, Floats]
) -> Floats:
    """By how much ``rows`` (k, *shape), where ``good``, add to the squares about the common mean.

    ``new`` and ``old`` are count and sum, (*shape), of these rows and of those before them.
    """
    mean, before = (total / np.maximum(n, 1) for n, total in (new, old))
    away, apart = np.where(good, rows - mean, 0.0), mean - before
    weight = new[0] * old[0] / np.maximum(new[0] + old[0], 1)
    squares: Floats = np.einsum("k...,k...->...", away, away) + weight * apart * apart
    return squares


class Presence:
    """How often something was there: over all rows, and over those of the newest keys."""

    def __init__(self, keep: int = 10) -> None:
        self.keep, self.present, self.rows = keep, 0, 0
        self._recent: dict[int, tuple[int, int]] = {}

    def add(self, keys: Ints, present: NDArray[np.bool_]) -> None:
        """Add rows with their ``keys`` (n,), and whether it was ``present`` (n,)."""
        self.present += int(present.sum())
        self.rows += present.size
        for key in np.unique(keys).tolist():
            there, rows = self._recent.get(key, (0, 0))
            mine = present[keys == key]
            self._recent[key] = there + int(mine.sum()), rows + mine.size
        newest = max(self._recent, default=0)
        for key in [k for k in self._recent if k <= newest - self.keep]:
            del self._recent[key]

    @property
    def counts(self) -> list[int]:
        """Rows with it and rows in all, over the run; then the same over the newest keys."""
        recent = list(self._recent.values())
        return [self.present, self.rows, sum(a for a, _ in recent), sum(b for _, b in recent)]
