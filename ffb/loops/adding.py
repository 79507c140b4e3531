"""Add what stands in memory for a whole batch, small inputs and features, to sums over shots.

Everything is known of the shots of a batch that is closed, conditions of sums as well, so that
there is no late sum here. Arrays are added a block at a time, of all shots that go into the same
sums, while these are in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from ffb.batch import Batch
from ffb.loops.area import added_to
from ffb.loops.compile import borrowed, build
from ffb.loops.fuse import indent
from ffb.loops.rows import Rows
from ffb.schema import Schema, present_of
from ffb.shot import FrameBlock
from ffb.sums.held import State, Summed, Summing

#: Values of a shot that are added before those of the next.
BLOCK = 1024


class Adding:
    """Adds the input, or the column of a reducer, ``name`` to its sums."""

    def __init__(
        self, name: str, sums: Sequence[Summing], schema: Schema, block: FrameBlock, rows: Rows
    ) -> None:
        self.name, self._block, self._rows = name, block, rows
        given = block.inputs.get(name) or schema.by_name[name]
        self._present = "" if name in block.inputs else present_of(schema.by_name[name].reducer)
        self.summed = Summed(sums, np.ones(given.shape, np.bool_))
        self._add = _compiled(self.summed, np.dtype(given.dtype))

    def run(self, states: Iterable[State], batch: Batch) -> None:
        """Add the shots of a batch to those sums to which the ``states`` of each say it goes."""
        values, here = self._found(batch)
        alike: dict[tuple[State, bool], list[int]] = {}
        for row, state in enumerate(states):
            alike.setdefault((state, bool(here[row])), []).append(row)
        for (state, there), rows in alike.items():
            if there:
                into, adds = self.summed.into(state), self.summed.adds(state)
                self._add(values, np.array(rows, np.int64), into, adds)
            self.summed.count(state, not there, len(rows))

    def _found(self, batch: Batch) -> tuple[NDArray[Any], NDArray[Any]]:
        """Values (capacity, size), and in which rows they are there (capacity,)."""
        block = self._block
        if self._present:
            values = self._rows.column(batch, self.name)
            here = self._rows.column(batch, self._present)
        else:
            values, here = block.frames[self.name], block.present[:, block.index[self.name]]
        return values.reshape(block.capacity, -1), here


def _compiled(summed: Summed, dtype: np.dtype[Any]) -> Callable[..., None]:
    """Function of values (shots, size), rows, the arrays of each sum, and which sums take them."""
    scope: dict[str, Any] = {"borrowed": borrowed}
    before, each = added_to(summed.whats, scope)
    body = [
        "values = borrowed(values)",
        *before,
        f"spoilt_here = {dtype.kind == 'f'}",
        f"for first in range(0, values.shape[1], {BLOCK}):",
        "    for j in rows:",
        f"        block = shown = values[j, first : first + {BLOCK}]",
        *indent(each, 2),
    ]
    source = "\n".join(["def added(values, rows, sums, adds):", *indent(body, 1), ""])
    into, adds = summed.example, np.zeros(len(summed.sums), np.bool_)
    example = np.zeros((1, 1), dtype), np.zeros(1, np.int64), into, adds
    made: Callable[..., None] = build(source, scope, tuple(map(numba.typeof, example)))
    return made
