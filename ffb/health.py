"""How a process is doing: rates, latencies, logs as key=value, and how people say numbers."""

from __future__ import annotations

import ctypes
import logging
from collections import deque
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

SECOND = 1_000_000_000

_LIBC = ctypes.CDLL(None)
_TRIM = getattr(_LIBC, "malloc_trim", None)

#: Parameters of mallopt, and more bytes than one allocation has.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _HUGE = -1, -3, 1 << 30


class Rate:
    """Things per second over the last few seconds, from a cumulative count.

    One that falls counts something new, as the shots of the next run.
    """

    def __init__(self, window_s: float = 3.0) -> None:
        self._window = int(window_s * SECOND)
        self._marks: deque[tuple[int, int]] = deque()

    def __call__(self, total: int, now: int) -> float:
        """Rate [1/s] given the count ``total`` at ``now`` (ns, a clock that goes forward)."""
        if self._marks and total < self._marks[-1][1]:
            self._marks.clear()
        self._marks.append((now, total))
        while len(self._marks) > 2 and now - self._marks[1][0] >= self._window:
            self._marks.popleft()
        t, n = self._marks[0]
        return (total - n) * SECOND / (now - t) if now > t else 0.0


class Latency:
    """Percentiles of the last few thousand delays."""

    def __init__(self, keep: int = 4096) -> None:
        self._ring: NDArray[np.float64] = np.full(keep, np.nan)
        self._n = 0

    def add(self, delays_ns: NDArray[np.int64]) -> None:
        """Add delays (n,) in ns."""
        for part in np.array_split(delays_ns, max(1, -(-delays_ns.size // self._ring.size))):
            at = (self._n + np.arange(part.size)) % self._ring.size
            self._ring[at] = part / 1e6
            self._n += part.size

    def percentiles(self, *which: float) -> list[float]:
        """Percentiles in ms; NaN while there is nothing."""
        seen = self._ring[: min(self._n, self._ring.size)]
        return (
            [float(p) for p in np.percentile(seen, which)] if seen.size else [np.nan] * len(which)
        )


def keep_memory() -> None:
    """Reuse the memory of large arrays and messages instead of asking the system each time.

    For a process that takes and frees megabytes many times a second; :func:`trim` still gives it
    back. It halves the aggregator's time for large batches: the system zeroes every page it hands
    out.
    """
    if _TRIM is not None:
        _LIBC.mallopt(_M_MMAP_THRESHOLD, _HUGE)
        _LIBC.mallopt(_M_TRIM_THRESHOLD, _HUGE)


def trim() -> None:
    """Give memory back that is free but scattered; for who runs for days with arrays of all sizes.

    Without it a tenth more was held after a million rows. Only glibc needs it.
    """
    if _TRIM is not None:
        _TRIM(0)


class KeyValue(logging.Formatter):
    """One line a record: time level what, then the process's own key=value pairs."""

    def __init__(self, context: Mapping[str, object]) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
        self.context = dict(context)

    def format(self, record: logging.LogRecord) -> str:
        """Format ``record`` and append the context."""
        tail = " ".join(f"{k}={v}" for k, v in self.context.items())
        return f"{super().format(record)} {tail}".rstrip()


def log_to_stderr(level: str, context: Mapping[str, object]) -> None:
    """Send all records of ``level`` and above to stderr, each with ``context``."""
    handler = logging.StreamHandler()
    handler.setFormatter(KeyValue(context))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def duration(seconds: float) -> str:
    """A time as people say it: 0.3 s, 42 s, 7 min, 3.5 h, 12 days."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"


def size(count: float) -> str:
    """Bytes as people say them: 640 kB, 1.2 MB, 3.4 GB."""
    for unit, one in (("GB", 1e9), ("MB", 1e6)):
        if count >= one:
            return f"{count / one:.{0 if count >= 100 * one else 1}f} {unit}"
    return f"{count / 1e3:.0f} kB"
