"""Statistics over the exposures of a slow camera against pandas, and against the sum alone.

``python -m tests.benchmarks.bench_exposures``.
"""

import time

import numpy as np
import pandas as pd

from ffb.integrating.exposures import Marks, Timing, exposures
from ffb.live.moments import moments
from tests.benchmarks.harness import compare, machine

SHOTS, EVERY = 200_000, 12
RNG = np.random.default_rng(0)
VALUES = np.where(RNG.random(SHOTS) < 0.1, np.nan, RNG.normal(1.0, 0.1, SHOTS))
NUMBER = np.arange(SHOTS)
MARKS = Marks(
    8_333_333 * NUMBER,
    NUMBER % EVERY == EVERY - 1,
    np.zeros(SHOTS, np.int32),
    1000 + 7583 * NUMBER,
)


def main() -> None:
    """Print the tables."""
    print(machine())
    found = exposures(MARKS, Timing())
    which = np.repeat(np.arange(len(found.begin)), found.end - found.begin)
    series = pd.Series(VALUES)

    def ours() -> object:
        return moments(lambda a, b: (VALUES[a:b], np.isfinite(VALUES[a:b])), found.begin, found.end)

    ways = {
        "ffb.live.moments: n, sum, mean, variance": ours,
        "pandas: the same, by groups": lambda: series.groupby(which).agg(
            ["count", "sum", "mean", "var"]
        ),
        "np.add.reduceat: a sum, with NaN": lambda: np.add.reduceat(VALUES, found.begin),
        "ffb.integrating.exposures: which shots are whose": lambda: exposures(MARKS, Timing()),
    }
    title = f"{SHOTS:,} shots in {len(found.begin):,} exposures, one column"
    print(compare(ways, "pandas: the same, by groups", 15, title, clock=time.thread_time))


if __name__ == "__main__":
    main()
