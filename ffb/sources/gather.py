"""Copy the fields that were asked for straight from a datagram into a block of frames.

One compiled function (:mod:`ffb.sources.walk`) goes through a datagram in place, led by tables
made here when a run begins: for every wanted block a list of operations on its fields, in order.
Nothing is compiled later, because that function knows no names.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.shot import FrameBlock
from ffb.sources import hsd, walk
from ffb.sources.octets import ABSENT
from ffb.sources.wanted import Role, Segment, Wanted
from ffb.sources.xtc2 import DTYPES, FLOATS, STRING, FieldType, Names, Xtc2Error

#: A shot as it lies in memory: one datagram per stream, ``None`` for a stream that missed it.
Dgrams = Sequence[NDArray[np.uint8] | None]

_NOTHING = np.zeros(0, np.uint8)


class Counts(NamedTuple):
    """What went wrong with an input.

    Shots in which it had another shape than declared, shots that lacked it, and segments of shots
    that the DAQ marked as damaged but wrote.
    """

    misfit: int = 0
    missing: int = 0
    damaged: int = 0


class _Task(NamedTuple):
    """One thing to do with one field of one block, see the columns in :mod:`ffb.sources.walk`."""

    field: str
    action: int
    slot: int = 0
    part: int = 0
    input: int = 0
    dims: tuple[int, ...] | None = None


class Gather:
    """Fills rows of blocks from datagrams.

    ``clock`` says where pulse id and event codes are, ``None`` for a run without timing system.
    """

    def __init__(
        self, wanted: Mapping[str, Wanted], streams: int = 1, clock: Segment | None = None
    ) -> None:
        self._walk = walk.compiled()
        some = any(w.digitized for w in wanted.values())
        self._digitize = walk.digitizing() if some else None
        self._wanted, self._streams, self._clock = dict(wanted), streams, clock
        self._block: FrameBlock | None = None
        self._counts: defaultdict[str, Counts] = defaultdict(Counts)
        self._corrupted = 0
        self._arrays: tuple[NDArray[Any], ...] = ()
        self._decoding: tuple[NDArray[Any], ...] = ()
        self._prepare([])

    def __call__(self, dgrams: Dgrams, block: FrameBlock, row: int) -> None:
        """Copy identity, timing and values of a shot into ``row``, and find its areas.

        Raises :class:`Xtc2Error` for a malformed datagram: then nothing of the shot is present,
        though its timestamp is in the row if it has one.
        """
        if block is not self._block:
            self._attach(block)
        for dgram, (lookup, ops, step) in zip(dgrams, self._tables, strict=True):
            error = self._walk(
                _NOTHING if dgram is None else dgram, lookup, ops, row, step, *self._arrays
            )
            if error:
                self._offsets[:] = ABSENT
                if error == walk.BAD_ROW:
                    raise IndexError(f"row {row} of a block of {block.capacity} rows")
                raise Xtc2Error("a malformed xtc", -1 - error)
        if self._digitize is not None:
            for dgram, (wish, step) in zip(dgrams, self._wishes, strict=True):
                here = _NOTHING if dgram is None else dgram
                self._digitize(here, wish, row, step, *self._decoding)

    def segments(self, dgrams: Dgrams, name: str) -> list[NDArray[Any]] | None:
        """Views of an area's segments in the shot of the last call, ``None`` if one is missing.

        What a detector writes as (asics, rows, columns) counts as so many segments.
        """
        w, slot = self._wanted[name], self._first[name]
        nbytes, dtype = prod(w.dims[-2:]) * w.type.size, DTYPES[w.type.code]
        out = []
        for segment, at in zip(w.segments, self._offsets[slot:].tolist(), strict=False):
            dgram = dgrams[segment.stream]
            if at < 0 or dgram is None:
                return None
            end = at + nbytes * prod(w.dims[:-2])
            out += [dgram[k : k + nbytes].view(dtype) for k in range(at, end, nbytes)]
        return out

    def counts(self) -> dict[str, Counts]:
        """What went wrong so far, by input."""
        *tally, corrupted = self._tally.tolist()
        self._corrupted += corrupted
        n = len(self._names)
        for i, name in enumerate(self._names):
            new = Counts(*tally[i::n])
            self._counts[name] = Counts(*map(sum, zip(self._counts[name], new, strict=True)))
        self._tally[:] = 0
        return dict(self._counts)

    def corrupted(self) -> int:
        """Number of shots, or parts of shots, that the DAQ marked as corrupted."""
        self.counts()
        return self._corrupted

    def _attach(self, block: FrameBlock) -> None:
        """Write into ``block`` from now on, whose inputs may be any of ours in any order."""
        if block.names != self._names:
            self.counts()
            self._prepare(block.names)
        self._block = block
        self._arrays = (
            block.base, block.stride, block.buffer, block.timestamp.view(np.uint8),
            block.pulse_id.view(np.uint8), block.codes.reshape(-1).view(np.uint8),
            block.timed, block.present, block.damage, self._slots, self._offsets, self._tally,
            self._stack,
        )  # fmt: skip
        self._decoding = (
            block.base, block.stride, block.buffer, block.present, block.damage, self._slots,
            self._offsets, self._tally, self._stack,
        )  # fmt: skip

    def _prepare(self, names: list[str]) -> None:
        """Make the tables for inputs called ``names``; every segment of an input is a slot."""
        plans: list[dict[int, tuple[Names, list[_Task]]]] = [{} for _ in range(self._streams)]

        def plan(segment: Segment, *tasks: _Task) -> None:
            block = plans[segment.stream].setdefault(segment.names.block, (segment.names, []))
            block[1].extend(tasks)

        self._names, self._first, slot = list(names), {}, 0
        results = {}
        for i, name in enumerate(names):
            self._first[name] = slot
            if (w := self._wanted.get(name)) is None:
                continue  # filled by somebody else: it has no slots
            if w.digitized:
                results[name] = slot
                slot += 1
            for k, segment in enumerate(w.segments):
                plan(segment, _task(w, i, slot, k))
                slot += 1
        self._slots = np.array([*self._first.values(), slot], np.int64)
        spans: dict[tuple[int, int, str], int] = {}
        wishes: list[list[list[int]]] = [[] for _ in plans]
        for name, result in results.items():
            w = self._wanted[name]
            assert w.digitized is not None
            at = []
            for field in (w.digitized.header, w.digitized.channel):
                key = w.digitized.segment.stream, w.digitized.segment.names.block, field
                if key not in spans:
                    spans[key], slot = slot, slot + 2
                    plan(w.digitized.segment, _Task(field, walk.SPAN, spans[key]))
                at.append(spans[key])
            wish = [*at, w.digitized.product, names.index(name), result, int(w.role == Role.LIST)]
            wishes[key[0]].append([*wish, w.digitized.pad, w.digitized.lanes])
        if self._clock is not None:
            plan(self._clock, _Task("pulseId", walk.PULSE))
            if FieldType("sequenceValues", 1, 1) in self._clock.names.fields:
                plan(self._clock, _Task("sequenceValues", walk.CODES))
        last = self._streams - 1
        walks, decodes = (0, walk.LAST) if results else (walk.LAST, 0)
        self._tables = [
            (*_tables(p), walk.FIRST * (k == 0) | walks * (k == last)) for k, p in enumerate(plans)
        ]
        self._wishes = [
            (np.array(wish, np.int64).reshape(-1, hsd.WIDTH), decodes * (k == last))
            for k, wish in enumerate(wishes)
        ]
        self._offsets = np.full(slot, ABSENT, np.int64)
        self._tally = np.zeros(3 * len(names) + 1, np.int64)
        self._stack = np.zeros(walk.SCRATCH, np.int64)


def _task(w: Wanted, i: int, slot: int, k: int) -> _Task:
    """What to do with the ``k``-th segment of input ``i``."""
    if w.digitized:  # decoded when the walk is over; what counts here is that it is there
        return _Task(w.digitized.channel, walk.AREA, slot, 0, i)
    if w.role == Role.PLAIN:
        action = walk.AREA if w.kind == "area" else walk.VALUE
        return _Task(w.type.name, action, slot, k * prod(w.dims) * w.type.size, i, w.dims)
    holes = w.type.size if w.type.code in FLOATS else 0
    action = walk.COUNT if w.role == Role.COUNT else walk.LIST
    return _Task(w.type.name, action, slot, walk.TEXT if w.type.code == STRING else holes, i)


def _tables(
    plan: Mapping[int, tuple[Names, list[_Task]]],
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Where the operations of each block begin (-1: not wanted), and the operations."""
    lookup = np.full(max(plan, default=-1) + 1, -1, np.int32)
    ops: list[list[int]] = []
    for block, (names, tasks) in plan.items():
        lookup[block] = len(ops)
        ops += _operations(names, tasks)
    return lookup, np.array(ops, np.int64).reshape(-1, walk.WIDTH)


def _operations(names: Names, tasks: Sequence[_Task]) -> list[list[int]]:
    """List what to do with the fields of a block, up to the last that is wanted."""
    by_field: dict[str, list[_Task]] = {}
    for task in tasks:
        by_field.setdefault(task.field, []).append(task)
    ops, skip = [], 0
    for f in names.fields:
        todo = by_field.pop(f.name, [])
        if not todo and not f.rank:
            skip += f.size
            continue
        for task in todo or [_Task(f.name, walk.PASS)]:
            dims = task.dims if task.dims is not None else (-1,) * f.rank
            stay = int(bool(todo) and task is not todo[-1])
            op = [skip, f.size, f.rank, stay, task.action, task.slot, task.part, task.input, *dims]
            ops.append(op + [0] * (walk.WIDTH - len(op)))
            skip = 0
        if not by_field:
            break
    return [*ops, [0] * walk.WIDTH]
