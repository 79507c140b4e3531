"""The live model of a run that an earlier life of the aggregator began, filled from the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ffb import reader
from ffb.batch import Batch
from ffb.contents import EPOCHS, ORDER
from ffb.live import Live

#: Rows and bytes that are read in one turn, so that nobody waits long for us.
BLOCK_ROWS, BLOCK_BYTES = 4096, 8_000_000


class Refill:
    """Fills ``live`` with the committed rows of ``path``, of its newest epoch, block by block.

    The file is opened anew for every block: nobody who writes it meets an open handle of ours.
    Raises ``OSError`` and ``ValueError`` as :func:`ffb.reader.open` does.
    """

    def __init__(self, live: Live, path: Path) -> None:
        self.live, self.path = live, path
        with reader.open(path) as run:
            self._begin(run)

    def _begin(self, run: reader.RunFile) -> None:
        self._complete, self._done = run.complete, 0
        epochs = run.table(EPOCHS)
        newest = epochs[-1] if len(epochs) else {"row": 0, "epoch": 0}
        self.live.begin_again(int(newest["row"]), int(newest["epoch"]))
        for step in run.steps:
            self.live.step(step.step, step.values, step.docstring)

    def turn(self) -> bool:
        """Add a block; returns whether ``live`` goes on by itself from now on."""
        live = self.live
        if not live.filling:  # another run or epoch has begun
            return True
        with reader.open(self.path) as run:
            if run.complete != self._complete:  # its rows may have moved
                self._begin(run)
            n = min(BLOCK_ROWS, max(1, BLOCK_BYTES // sum(live.schema.row_bytes)))
            first = live.first + self._done
            rows = in_order(run, first, min(first + n, run.committed))
            if rows.size:
                live.fill(_batch(run, live, rows))
            self._done += rows.size
            live.filling = live.first + self._done < run.committed
        return not live.filling


def _batch(run: reader.RunFile, live: Live, rows: NDArray[np.int64]) -> Batch:
    """Rows of the file as they came; the newest ones reached us before their commit."""
    batch = Batch(live.schema, rows.size)
    for name, column in batch.columns.items():
        column[...] = run[name][rows]
    batch.read[:] = run.commits["time"][-1]
    return batch


def in_order(run: reader.RunFile, first: int, end: int) -> NDArray[np.int64]:
    """Rows of the file that were committed as rows ``first`` to ``end`` of the run, in that order.

    In a run that grows these are the same; the rows of a merged file may have been moved.
    """
    moved = run.table(ORDER)
    if not len(moved):
        return np.arange(first, end)
    out = np.full(end - first, -1, np.int64)
    for row, place, n in moved.tolist():
        a, b = max(place, first), min(place + n, end)
        if a < b:
            out[a - first : b - first] = np.arange(row + a - place, row + b - place)
    if (out < 0).any():
        raise ValueError(f"{run.path}: {ORDER} does not say where row {first + out.argmin()} went")
    return out
