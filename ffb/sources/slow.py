"""Slow-control values: every shot carries the newest that came before it, and may know its age.

As in psana, a shot takes each value from the last SlowUpdate before its own time that has it. One
that arrives after a newer update finds the older one still here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from functools import cache
from inspect import signature
from typing import Any, NamedTuple, cast

import numpy as np
from numba import types
from numpy.typing import NDArray

from ffb.loops.compile import build, kernel
from ffb.shot import Field, FrameBlock, time_of
from ffb.sources.wanted import Wanted

#: In place of the alg of a value: the seconds since the update that brought it, at the shot.
AGE = "age"

#: Updates that are remembered for shots that come late.
KEPT = 10

# Columns of the table of inputs: where one lies in the values, its bytes (0: it is an age),
# where row 0 of it lies in the block, how far rows are apart, and its number there, -1 for none.
_AT, _SIZE, _BASE, _STRIDE, _INDEX = range(5)


class _Update(NamedTuple):
    """All values as of an update: bytes, which of them there are, and when each was brought."""

    timestamp: int
    values: NDArray[np.uint8]
    there: NDArray[np.bool_]
    brought: NDArray[np.int64]


def _scatter(
    row: Any, now: Any, values: Any, there: Any, brought: Any, table: Any, buffer: Any, present: Any
) -> None:
    """Copy what is there into a row; ``now`` and ``brought`` in ns since 1970."""
    seconds = buffer.view(np.float64)
    for k in range(there.size):
        if not there[k] or table[k, _INDEX] < 0:
            continue
        at = table[k, _BASE] + row * table[k, _STRIDE]
        if table[k, _SIZE] == 0:
            seconds[at // 8] = (now - brought[k]) / 1e9
        for b in range(table[k, _SIZE]):
            buffer[at + b] = values[table[k, _AT] + b]
        present[row, table[k, _INDEX]] = True


@cache
def compiled() -> Callable[..., None]:
    """Compile the copying, once."""
    octets, bools, ints = types.uint8[::1], types.boolean[::1], types.int64[::1]
    arguments = (
        types.int64, types.int64, octets, bools, ints, types.int64[:, ::1], octets,
        types.boolean[:, ::1],
    )  # fmt: skip
    names = ", ".join(signature(_scatter).parameters)
    source = f"def slow({names}):\n    go({names})\n"
    scope = {"go": kernel(_scatter, exact=True)}  # a division is a division, whoever does it
    return cast(Callable[..., None], build(source, scope, arguments, exact=True))


class Slow:
    """The values of a run's slow inputs, update by update."""

    def __init__(self, bound: Mapping[str, tuple[Field, Wanted]]) -> None:
        fields = self._fields = {name: field for name, (field, _) in bound.items()}
        self._wanted = {name: wanted for name, (_, wanted) in bound.items()}
        sizes = [self._size(n) for n in fields]
        self._at = [sum(sizes[:k]) for k in range(len(sizes) + 1)]
        n = len(sizes)
        blank = (np.zeros(self._at[-1], np.uint8), np.zeros(n, np.bool_), np.zeros(n, np.int64))
        self._none = _Update(-1, *blank)
        self._updates = deque([self._none], maxlen=KEPT)
        self._block: FrameBlock | None = None
        self._table = np.zeros((n, 5), np.int64)
        self._call = compiled() if fields else None

    def _size(self, name: str) -> int:
        if self._fields[name].alg == AGE:
            return 0
        declared = self._wanted[name].input
        return int(np.dtype(declared.dtype).itemsize * np.prod(declared.shape, dtype=np.int64))

    def update(self, values: Mapping[Field, Any], timestamp: int) -> None:
        """Take the values of a SlowUpdate over; one of another shape takes its input away."""
        _, old, there, brought = self._updates[-1]
        now = _Update(timestamp, old.copy(), there.copy(), brought.copy())
        known = {(f.detector, f.name) for f in values}
        for k, (name, field) in enumerate(self._fields.items()):
            if field.alg == AGE and (field.detector, field.name) in known:
                now.there[k], now.brought[k] = True, time_of(timestamp)
            elif field in values:
                value = self._wanted[name].fit(values[field])
                now.there[k] = value is not None
                if value is not None:
                    begin, end = self._at[k], self._at[k + 1]
                    now.values[begin:end] = np.frombuffer(value.tobytes(), np.uint8)
        self._updates.append(now)

    def fill(self, block: FrameBlock, row: int) -> None:
        """Copy what there is into ``row`` of ``block``, whose timestamp is there already."""
        if self._call is None:
            return
        if block is not self._block:
            self._attach(block)
        stamp = int(block.timestamp[row])
        update = self._updates[-1]
        if update.timestamp > stamp:
            older = (u for u in reversed(self._updates) if u.timestamp <= stamp)
            update = next(older, self._none)
        _, values, there, brought = update
        now = time_of(stamp)
        self._call(row, now, values, there, brought, self._table, block.buffer, block.present)

    def _attach(self, block: FrameBlock) -> None:
        for k, name in enumerate(self._fields):
            i = block.index.get(name, -1)
            place = int(block.base[i]), int(block.stride[i])  # of no importance without a number
            self._table[k] = self._at[k], self._size(name), *place, i
        self._block = block
