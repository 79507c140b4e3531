"""Two speeds, one truth: some shots are read in place and decoded by psana, and compared."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffb.shot import Field, FrameBlock, Input
from ffb.sources.dgram_shot import Decoded, InPlace, Moment

#: Shots of a run that are compared.
CHECKED = 8

#: Where shots cannot wait, comparing takes at most this part of the time.
PART = 0.05


class TwoSpeeds:
    """Decides which shots are compared, and compares them.

    The first ones of a run are; with ``hurried`` the very first, and others when comparing them
    leaves most of the time to the shots. ``fields`` are those of ``inputs`` that come with shots.
    """

    def __init__(
        self,
        probe: InPlace,
        decoded: Decoded,
        fields: Mapping[str, Field],
        inputs: Mapping[str, Input],
        hurried: bool,
    ) -> None:
        self._probe, self._decoded, self._hurried = probe, decoded, hurried
        self._fields, self._inputs = fields, inputs
        self._block = FrameBlock(inputs, 1)
        self._left, self._next = CHECKED if inputs else 0, 0.0

    @property
    def due(self) -> bool:
        """Whether the next shot is to be compared."""
        return self._left > 0 and not (self._hurried and time.monotonic() < self._next)

    def stop(self) -> None:
        """Compare no more."""
        self._left = 0

    def differ(self, moment: Moment) -> str | None:
        """Read a shot both ways; say where the two differ, ``None`` if nowhere."""
        began = time.monotonic()
        self._left -= 1
        self._probe.show(moment)
        self._probe.fill(self._block, 0)
        self._decoded.show(moment)
        try:
            return self._difference()
        finally:
            now = time.monotonic()
            self._next = now + (now - began) / PART

    def _difference(self) -> str | None:
        block, (pulse, codes) = self._block, self._decoded.clock()
        same = bool(block.timed[0]) == (codes is not None) and pulse == block.pulse_id[0]
        if codes is not None:
            words = codes[: block.codes.shape[1]]
            same &= bool((words == block.codes[0, : len(words)]).all())
        if not same:
            return "the timing system read in place differs from psana's"
        for name, field in self._fields.items():
            theirs = self._decoded.frame(name)
            ours = self._ours(name) if block.present[0, block.index[name]] else None
            if not _same(ours, theirs):
                return f"input {name} ({field}) read in place differs from psana's"
        return None

    def _ours(self, name: str) -> Collection[NDArray[Any]] | None:
        """A frame as read in place, in pieces."""
        if self._inputs[name].kind == "area":
            return self._probe.segments(name)
        return [self._block.frames[name][:1]]


def _same(ours: Collection[NDArray[Any]] | None, theirs: NDArray[Any] | None) -> bool:
    """Whether pieces and a whole are the same, bit by bit, or both absent."""
    if ours is None or theirs is None:
        return ours is None and theirs is None
    pieces = np.ascontiguousarray(theirs).reshape(len(ours), -1)
    return all(
        np.array_equal(a.reshape(-1).view(np.uint8), b.view(np.uint8))
        for a, b in zip(ours, pieces, strict=True)
    )
