"""Mergeable statistics over shots, kept apart by light.

Every accumulator takes rows in any order and keeps counts and sums only, so what it says does not
depend on how the rows were grouped into commits. NaN is never counted. ``light`` is always an index
of ``LIGHTS``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Laser unknown, off, on; and shots without x-rays, which belong to no curve, whatever the laser.
LIGHTS = ("unknown", "off", "on", "no x-rays")
N_LIGHTS = len(LIGHTS)

#: No histogram reaches further than this; doubling a range must not overflow.
FAR = 1e200

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Moments:
    """Count, sum and sum of squares of scalar columns, by integer key and light.

    Sums are of differences to the first finite value of each column, in float64, so that a small
    spread on a large mean keeps its digits. At most ``keep`` keys are held; the smallest goes
    first.
    """

    def __init__(self, columns: int, keep: int) -> None:
        self.columns, self.keep = columns, keep
        self.reference: Floats = np.full(columns, np.nan)
        self._sums: dict[int, Floats] = {}  # key -> (lights, n | sum | sum of squares, columns)

    def add(self, keys: Ints, light: Ints, values: Floats) -> None:
        """Add rows ``values`` (n, columns) with their ``keys`` (n,) and ``light`` (n,)."""
        self._refer(values)
        shifted = values - self.reference
        good = np.isfinite(shifted)
        shifted = np.where(good, shifted, 0.0)
        pairs = keys * N_LIGHTS + light
        for pair in np.unique(pairs):
            rows, key = pairs == pair, int(pair // N_LIGHTS)
            blank = np.zeros((N_LIGHTS, 3, self.columns))
            sums = self._sums.setdefault(key, blank)[int(pair % N_LIGHTS)]
            part = shifted[rows]
            sums += (good[rows].sum(0), part.sum(0), (part * part).sum(0))
        while len(self._sums) > self.keep:
            del self._sums[min(self._sums)]

    def _refer(self, values: Floats) -> None:
        for c in np.flatnonzero(np.isnan(self.reference)):
            finite = np.isfinite(values[:, c])
            if finite.any():
                self.reference[c] = values[finite.argmax(), c]

    def curve(self) -> tuple[Ints, Ints, Floats, Floats]:
        """Keys (k,), then N, mean and standard error of the mean, each (columns, lights, k).

        The mean is NaN where N is 0, the error where N is below 2.
        """
        keys = np.array(sorted(self._sums), np.int64)
        sums = np.array([self._sums[int(k)] for k in keys]).reshape(
            len(keys), N_LIGHTS, 3, self.columns
        )
        n, s, ss = (sums[:, :, i].transpose(2, 1, 0) for i in range(3))
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = s / n
            variance = np.maximum(ss - s * mean, 0.0) / (n - 1)
            error = np.where(n > 1, np.sqrt(variance / n), np.nan)
        mean = np.where(n > 0, mean + self.reference[:, None, None], np.nan)
        return keys, n.astype(np.int64), mean, error


class Histograms:
    """Histograms of scalar columns by light, whose range grows as the values ask for.

    A range doubles by adding neighbouring bins, so counts are never lost and never guessed;
    values that are not finite, or absurdly far out, are counted apart.
    """

    def __init__(self, columns: int, bins: int = 128) -> None:
        self.bins = bins
        self.low: Floats = np.full(columns, np.nan)
        self.width: Floats = np.full(columns, np.nan)
        self.counts: NDArray[np.int64] = np.zeros((columns, N_LIGHTS, bins), np.int64)
        self.not_finite: NDArray[np.int64] = np.zeros(columns, np.int64)

    def add(self, light: Ints, values: Floats) -> None:
        """Add rows ``values`` (n, columns) with their ``light`` (n,)."""
        finite = np.abs(values) < FAR
        self.not_finite += (~finite).sum(0)
        for c in range(values.shape[1]):
            x, state = values[finite[:, c], c], light[finite[:, c]]
            if x.size:
                self._reach(c, float(x.min()), float(x.max()))
                at = ((x - self.low[c]) / self.width[c]).astype(np.int64)
                flat = state * self.bins + np.clip(at, 0, self.bins - 1)
                self.counts[c] += np.bincount(flat, minlength=N_LIGHTS * self.bins).reshape(
                    N_LIGHTS, self.bins
                )

    def _reach(self, c: int, low: float, high: float) -> None:
        """Widen the range of column ``c`` until it holds ``low`` and ``high``."""
        if np.isnan(self.low[c]):
            span = (high - low) or max(abs(low) * 1e-3, 1e-12)
            self.low[c], self.width[c] = low - span / 2, 2 * span / self.bins
        half = self.bins // 2
        while not self.low[c] <= low <= high < self.low[c] + self.bins * self.width[c]:
            merged = self.counts[c].reshape(N_LIGHTS, half, 2).sum(2)
            downward = low < self.low[c]
            if downward:
                self.low[c] -= self.bins * self.width[c]
            self.counts[c] = 0
            self.counts[c][:, half if downward else 0 :][:, :half] = merged
            self.width[c] *= 2


class Means:
    """Mean of an array column by light, element by element, and its latest row."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.rows: NDArray[np.int64] = np.zeros(N_LIGHTS, np.int64)
        self.last: Floats = np.full(shape, np.nan)
        self._n: NDArray[np.int64] = np.zeros((N_LIGHTS, *shape), np.int64)
        self._sum: Floats = np.zeros((N_LIGHTS, *shape))

    def add(self, light: Ints, present: NDArray[np.bool_], values: NDArray[np.generic]) -> None:
        """Add rows ``values`` (n, *shape) with their ``light`` (n,), where ``present`` (n,)."""
        for state in range(N_LIGHTS):
            rows = values[present & (light == state)].astype(np.float64)
            if rows.size:
                good = np.isfinite(rows)
                self._n[state] += good.sum(0)
                self._sum[state] += np.where(good, rows, 0.0).sum(0)
                self.rows[state] += len(rows)
        if present.any():
            self.last = values[np.flatnonzero(present)[-1]].astype(np.float64)

    @property
    def mean(self) -> Floats:
        """Means (lights, *shape); NaN where nothing was counted."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self._sum / self._n
