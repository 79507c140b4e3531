"""The two places where reducers run: an area detector's segments, and the block of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffb.batch import Batch
from ffb.configuration.problems import ConfigError
from ffb.loops.area import block_of, compile_area, several
from ffb.loops.compile import aligned, in_short
from ffb.loops.fuse import Member, compile_shots, plain
from ffb.loops.guard import Guard
from ffb.loops.places import Places
from ffb.reduce import Area, Calibration, Reducer, TileReducer
from ffb.schema import Schema
from ffb.shot import FrameBlock
from ffb.sums.held import State, Summed

Switches = NDArray[np.uint8]
Guards = Callable[[Sequence[str]], Guard]


class AreaPass:
    """One compiled pass over an area detector's raw pixels, with all it needs beside them.

    It takes up to ``together`` shots at once. With ``summed`` it adds each to those arrays ``into``
    that are of a sum that ``adds`` it: of the k-th, rows from ``done[k]`` on.
    """

    def __init__(
        self,
        members: Sequence[Member],
        calibration: Calibration,
        area: Area,
        schema: Schema,
        capacity: int,
        summed: Summed | None = None,
        together: int = 1,
    ) -> None:
        segments, rows, columns = area.shape
        self._segments, self._full = segments, segments * together
        mask = np.ascontiguousarray(area.mask, np.uint8).ravel()
        height = block_of(calibration, len(members), rows, columns)
        lines, spoilt = aligned(height * columns, np.float32), np.zeros(height, np.int64)
        self._first = (rows, plain(calibration.constants), mask, lines, spoilt)
        states = tuple(_tile(m).allocate(m.constants) for m in members)
        states = states if together == 1 else several(states, together)
        self._members = (plain(tuple(m.constants for m in members)), plain(states))
        buffer = np.zeros(schema.offsets(capacity)[-1], np.uint8)
        active: Switches = np.zeros(len(members), np.uint8)
        self.done: NDArray[np.int64] = np.zeros(together, np.int64)
        self.into = summed.example if summed else ()
        self.adds: NDArray[np.bool_] = np.ones(len(self.into), np.bool_)
        example = self._arguments(active, np.zeros(1, np.int64), buffer)
        places = Places(schema, capacity)
        added = summed.whats if summed else ()
        self._call, self._table = compile_area(
            members, states, added, calibration, segments, together, places, example
        )

    def _arguments(
        self, active: Switches, rows: NDArray[np.int64], buffer: NDArray[np.uint8]
    ) -> tuple[Any, ...]:
        into = self.into, self.adds, self.done
        return (*self._first, active, *self._members, *into, rows.size, rows, buffer)

    def __call__(
        self,
        raw: tuple[NDArray[Any], ...],
        row: int | NDArray[np.int64],
        buffer: NDArray[np.uint8],
        active: Switches,
    ) -> None:
        """Reduce the segments ``raw`` into ``row`` of a batch's ``buffer``.

        Of several shots, the segments of one after the other, into as many rows (shots,).
        """
        rows = row if isinstance(row, np.ndarray) else np.array([row], np.int64)
        if len(raw) == self._segments * rows.size:
            raw += raw[:1] * (self._full - len(raw))  # it takes so many; at these it does not look
        self._call(raw, *self._arguments(active, rows, buffer), self._table)


def _tile(m: Member) -> TileReducer:
    assert isinstance(m.reducer, TileReducer)
    return m.reducer


def _whole(m: Member) -> Reducer[Any, Any]:
    assert isinstance(m.reducer, Reducer)
    return m.reducer


def _passing(
    members: Sequence[Member],
    calibration: Calibration,
    area: Area,
    schema: Schema,
    capacity: int,
    summed: Summed | None,
    together: int,
) -> AreaPass:
    """Compile a pass; if that fails, find out whose fault it is.

    Raises :class:`ffb.configuration.problems.ConfigError` with a line for each reducer that does
    not compile.
    """
    try:
        return AreaPass(members, calibration, area, schema, capacity, summed, together)
    except Exception as error:
        wrong = []
        for m in members:
            try:
                AreaPass((m,), calibration, area, schema, capacity)
            except Exception as e:  # the compiler's, or that of a function it calls
                wrong.append(f"reducers.{m.name}: {in_short(e)}")
        if wrong:
            raise ConfigError(wrong) from error
        raise


class AreaStage:
    """Feeds one area detector's segments to its tile reducers, shot by shot, with one ``call``.

    With more than one shot ``together`` it copies frames, because they are somebody else's memory,
    until it has so many or the batch is closed.
    """

    def __init__(
        self,
        name: str,
        members: Sequence[Member],
        calibration: Calibration,
        area: Area,
        schema: Schema,
        block: FrameBlock,
        guards: Guards,
        summed: Summed | None = None,
        together: int = 1,
    ) -> None:
        self.name, self._shape, self._dtype = name, area.shape, np.dtype(calibration.dtype)
        self.summed, self.together = summed, together
        segments, rows, columns = area.shape
        size = segments * together if together > 1 else 0
        self._frames = tuple(aligned(rows * columns, self._dtype) for _ in range(size))
        self._held: list[tuple[int, State]] = []
        self._present, self._index = block.present, block.index[name]
        self._guard = guards([m.name for m in members])
        self._columns = [(c.name, c.missing) for m in members for c in m.all_columns]
        self._pass = _passing(members, calibration, area, schema, block.capacity, summed, together)
        self.call: Callable[..., None] = self._pass

    @property
    def names(self) -> tuple[str, ...]:
        """Its reducers, in the order of their switches."""
        return self._guard.names

    def again(self) -> None:
        """Let the next ``call`` add to sums once more, which others do not: to time it."""
        self._pass.done[:] = 0

    def take(
        self, found: Sequence[NDArray[Any]] | None, row: int, batch: Batch, state: State = (-1, -1)
    ) -> None:
        """Reduce the segments ``found`` in a shot into ``row``, or mark its frame missing.

        ``state`` says to which sums the shot is to be added.
        """
        if found is None:
            self._miss(row, batch, state)
            return
        raw = tuple(found)
        self._present[row, self._index] = True
        idle = self._idle(state)
        if self.together == 1 and not idle:
            self._reduce(raw, row, batch, state)
        elif wrong := self._misfit(raw):
            self._refuse(wrong, row, batch, state)
        elif idle and self.summed:
            self.summed.count(state)
        else:
            first = len(self._held) * len(raw)
            for own, segment in zip(self._frames[first : first + len(raw)], raw, strict=True):
                own[:] = segment
            self._held.append((row, state))
            if len(self._held) == self.together:
                self.flush(batch)

    def _reduce(self, raw: tuple[NDArray[Any], ...], row: int, batch: Batch, state: State) -> None:
        """Reduce a frame where it lies."""
        self._begin(state)
        try:
            self.call(raw, row, batch.buffer, self._guard.active)
        except Exception:  # reported below, or by the guard, which finds the reducer
            if wrong := self._misfit(raw):
                self._refuse(wrong, row, batch, state)
                return
            self._guard.singly(partial(self.call, raw, row, batch.buffer))
        else:
            self._guard.passed()
        if self.summed:
            self.summed.count(state)

    def _idle(self, state: State) -> bool:
        """Whether nothing is to be done with a frame: no reducer, and no sum that takes it."""
        return bool(self.summed and not self.names and not self.summed.adds(state).any())

    def _begin(self, state: State) -> None:
        """Let the next ``call`` add to the sums of this ``state``."""
        if self.summed:
            self._pass.into, self._pass.adds = self.summed.into(state), self.summed.adds(state)
            self._pass.done[:] = 0

    def flush(self, batch: Batch) -> None:
        """Reduce the frames that are held, those that go into the same sums together."""
        held, segments = self._held, self._shape[0]
        self._held = []
        failed: dict[int, int] = {}
        for state in dict.fromkeys(state for _, state in held):
            mine = [k for k, (_, its) in enumerate(held) if its == state]
            raw = tuple(s for k in mine for s in self._frames[segments * k : segments * (k + 1)])
            rows = np.array([held[k][0] for k in mine], np.int64)
            self._begin(state)
            try:
                self.call(raw, rows, batch.buffer, self._guard.active)
            except Exception:  # reported by the guard, which finds the reducer and the shot
                failed |= dict(zip(mine, self._pass.done.tolist(), strict=False))
        for k, (row, state) in enumerate(held):
            if k in failed:
                self._begin(state)
                self._pass.done[0] = failed[k]  # what went into the sums stays there
                raw = self._frames[segments * k : segments * (k + 1)]
                self._guard.singly(partial(self.call, raw, row, batch.buffer))
            else:
                self._guard.passed()
            if self.summed:
                self.summed.count(state)

    def _refuse(self, wrong: str, row: int, batch: Batch, state: State) -> None:
        """Count a frame that is not what the run declared, and mark it missing."""
        self._guard.errors[f"{self.name}: {wrong}"] += 1
        self._miss(row, batch, state)

    def _miss(self, row: int, batch: Batch, state: State) -> None:
        if self.summed:
            self.summed.count(state, missing=True)
        self._present[row, self._index] = False
        for name, missing in self._columns:
            batch.columns[name][row] = missing

    def _misfit(self, raw: tuple[NDArray[Any], ...]) -> str:
        """What is wrong with a frame's segments, if anything."""
        segments, rows, columns = self._shape
        if len(raw) != segments:
            return f"frame of {len(raw)} segments; the run declared {segments}"
        for a in raw:
            if a.dtype != self._dtype or a.shape != (rows * columns,) or not a.flags.c_contiguous:
                return (
                    f"segment {a.dtype} {a.shape}, contiguous: {a.flags.c_contiguous}; the run"
                    f" declared {self._dtype} ({rows * columns},)"
                )
        return ""


class ShotStage:
    """Runs all whole-shot reducers over the shots of a batch, one after the other for each shot.

    A reducer may take what stands in the batch already: a column of ffb's own, a feature of a tile
    reducer, or one of a whole-shot reducer before it.
    """

    def __init__(
        self, members: Sequence[Member], schema: Schema, block: FrameBlock, guards: Guards
    ) -> None:
        self._guard = guards([m.name for m in members])
        self._members = members
        if not members:
            return
        memories = tuple(_whole(m).remembered(m.constants) for m in members)
        self._given = (
            block.present,
            block.buffer,
            tuple(plain(m.constants) for m in members),
            plain(memories),
        )
        buffer = np.zeros(schema.offsets(block.capacity)[-1], np.uint8)
        example = (0, 0, self._guard.active, *self._given, buffer)
        self._loop, self._table = compile_shots(members, memories, schema, block, example)

    def run(self, n: int, batch: Batch, first: int = 0) -> None:
        """Reduce shots ``first`` to ``n`` of the block."""
        if not self._members:
            return
        try:
            self.part(first, n, batch.buffer, self._guard.active)
        except Exception:  # reported by the guard, which finds the reducer
            for j in range(first, n):
                self._guard.singly(partial(self.part, j, j + 1, batch.buffer))
        else:
            self._guard.passed()

    @property
    def names(self) -> tuple[str, ...]:
        """Its reducers, in the order of their switches."""
        return self._guard.names

    @property
    def switches(self) -> Switches:
        """Which of them run, in a batch."""
        return self._guard.active

    def part(self, lo: int, hi: int, buffer: NDArray[np.uint8], active: Switches) -> None:
        """Reduce shots ``lo`` to ``hi`` with those reducers that are switched on."""
        self._loop(lo, hi, active, *self._given, buffer, self._table)
