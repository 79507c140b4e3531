"""The live model of a run that an earlier life of the aggregator began, filled from the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ffb import reader
from ffb.batch import Batch
from ffb.live.model import Live

#: Rows and bytes that are read in one turn, so that nobody waits long for us.
BLOCK_ROWS, BLOCK_BYTES = 4096, 8_000_000


class Refill:
    """Gives ``live`` the rows of the file at ``path`` up to commit ``commit``, block by block.

    Only rows of the newest epoch count. New rows may be added to ``live`` all the while, for their
    order does not matter. The file is opened anew for every block: nobody who writes it, or puts
    another in its place, meets an open handle of ours.
    """

    def __init__(self, live: Live, path: Path, commit: int) -> None:
        self.live, self.path = live, path
        with reader.open(path) as run:
            commits = run.commits
            line = commits[commits["commit"] <= commit][-1]
            self._end, self._time = int(line["rows"]), int(line["time"])
            epoch = [e for e in run.epochs if e.row <= self._end][-1]
            forms = ({(c.name, c.dtype, c.shape) for c in x.columns} for x in (epoch, live.schema))
            mine = next(forms) == next(forms)  # else rows of another epoch are to come
            live.first, live.epoch = (epoch.row if mine else self._end), epoch.epoch
            for step in run.steps:
                live.steps.setdefault(step.step, dict(step.values))
        self._at = live.first

    def turn(self) -> bool:
        """Add a block; returns whether there are no more."""
        live = self.live
        if live.filling and self._at < self._end:  # else another run or epoch has begun
            n = min(BLOCK_ROWS, max(1, BLOCK_BYTES // sum(live.schema.row_bytes)))
            with reader.open(self.path) as run:
                rows = in_order(run, self._at, min(self._at + n, self._end))
                batch = Batch(live.schema, rows.size)
                for name, column in batch.columns.items():
                    column[...] = run[name][rows]
            batch.read[:] = self._time  # the newest row was there before its commit
            live.add(batch, older=True)
            self._at += rows.size
        live.filling &= self._at < self._end
        return not live.filling


def in_order(run: reader.RunFile, first: int, end: int) -> NDArray[np.int64]:
    """Rows of the file that were committed as rows ``first`` to ``end`` of the run, in that order.

    They are the same but for rows of a merged file that were moved.
    """
    out = np.arange(first, end)
    for row, place, n in run.order.tolist():
        a, b = max(place, first), min(place + n, end)
        if a < b:
            out[a - first : b - first] = np.arange(row + a - place, row + b - place)
    return out
