"""Time competitors against each other in one process, by turns, and say so in a table.

Absolute times mean little on a shared machine; ratios within a round do. ``compare`` calls every
competitor once a round, in an order that rotates, and gives each ratio twice: best over best, and
the median of the ratios within each round::

    table = compare({"ours": over(frames, ours), "theirs": over(frames, theirs)}, baseline="theirs")
    print(table)

A ratio is baseline over competitor: above 1 the competitor is faster.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import cycle
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Row:
    """One competitor: seconds of its best round and of the median one, and its two ratios."""

    name: str
    best: float
    median: float
    ratio: float
    paired: float


@dataclass(frozen=True)
class Table:
    """What :func:`compare` measured; ``str`` gives it as a markdown table."""

    title: str
    baseline: str
    rounds: int
    rows: tuple[Row, ...]

    def __getitem__(self, name: str) -> Row:
        return next(r for r in self.rows if r.name == name)

    def __str__(self) -> str:
        lines = [
            f"**{self.title}** ({self.rounds} rounds; ratios are {self.baseline} / competitor)",
            "",
            "| | best ms | median ms | best/best | paired median |",
            "|---|---|---|---|---|",
        ]
        for r in self.rows:
            times = f"{r.best * 1e3:.3f} | {r.median * 1e3:.3f}"
            lines.append(f"| {r.name} | {times} | {r.ratio:.2f} | {r.paired:.2f} |")
        return "\n".join([*lines, ""])


def compare(
    competitors: Mapping[str, Callable[[], Any]],
    baseline: str,
    rounds: int = 15,
    title: str = "",
    warm: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> Table:
    """Call every competitor once a round and compare them to ``baseline``.

    ``warm`` rounds go before and are not counted: compilers and caches have their turn there.
    With ``time.thread_time`` as ``clock``, time that neighbours take from this thread does not
    count; right where all competitors run in the calling thread and wait for nothing.
    """
    seconds: dict[str, list[float]] = {name: [] for name in competitors}
    names = list(competitors)
    for k in range(warm + rounds):
        for name in names[k % len(names) :] + names[: k % len(names)]:
            start = clock()
            competitors[name]()
            taken = clock() - start
            if k >= warm:
                seconds[name].append(taken)
    base = seconds[baseline]
    rows = tuple(
        Row(
            name,
            min(s),
            statistics.median(s),
            min(base) / min(s),
            statistics.median(b / a for a, b in zip(s, base, strict=True)),
        )
        for name, s in seconds.items()
    )
    return Table(title or f"against {baseline}", baseline, rounds, rows)


def guard(table: Table, ours: str, floor: str) -> None:
    """Print time over read floor, which an innocent edit may raise sevenfold."""
    print(f"guard: {ours} / {floor} = {table[ours].best / table[floor].best:.2f}\n")


def over(frames: Sequence[Any], fn: Callable[[Any], Any]) -> Callable[[], Any]:
    """``fn`` of the next of ``frames`` at every call, round and round."""
    ring = cycle(frames)
    return lambda: fn(next(ring))


@numba.njit(fastmath=True)
def _sum(words: NDArray[np.int64]) -> int:
    total = 0
    for i in range(words.size):
        total += words[i]
    return total


def read(arrays: Iterable[NDArray[Any]]) -> int:
    """Read all bytes once, as fast as one core does: the floor of whatever must read them."""
    total = 0
    for a in arrays:
        flat = a.reshape(-1).view(np.uint8)
        total += _sum(flat[: flat.size // 8 * 8].view(np.int64))
    return total


def machine(*packages: str) -> str:
    """Say in one line what this ran on: processor, load, versions."""
    info = Path("/proc/cpuinfo")
    model = platform.processor() or platform.machine()
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
    versions = [f"{p} {metadata.version(p)}" for p in ("numpy", "numba", *packages)]
    return (
        f"{model}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, compiled for"
        f" {numba.core.codegen.ll.get_host_cpu_name()}; Python {platform.python_version()},"
        f" {', '.join(versions)}"
    )
