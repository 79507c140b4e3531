"""A run made of lists: the smallest thing a plan can be bound to."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffb.shot import Field, FrameBlock, Input, Item
from ffb.source import Constants, RunInfo


class ListedShot:
    """A shot of plain values: ``frames`` by input, an area as (segments, rows, columns)."""

    def __init__(
        self, timestamp: int, frames: Mapping[str, Any], codes: Sequence[int] | None = ()
    ) -> None:
        self.timestamp, self.frames, self.codes = timestamp, dict(frames), codes

    def fill(self, block: FrameBlock, row: int) -> None:
        """Copy identity, timing and values; ``codes`` ``None`` is a shot without timing."""
        block.put(row, self, self.frames)
        block.timed[row], block.codes[row] = self.codes is not None, 0
        block.pulse_id[row] = 1000 + row
        for c in self.codes or ():
            block.codes[row, c >> 4] |= np.uint16(1 << (c & 15))

    def segments(self, name: str) -> list[NDArray[Any]] | None:
        """Segments as flat read-only views, as a stream hands them over."""
        frame = self.frames.get(name)
        if frame is None:
            return None
        flat = [np.ascontiguousarray(s).ravel() for s in frame]
        for s in flat:
            s.flags.writeable = False
        return flat


class ListedRun:
    """A run of given inputs and items; ``constants`` by detector."""

    fields: Mapping[Field, str] = {}
    ended = "end of run"

    def __init__(
        self,
        inputs: Mapping[str, Input],
        items: Sequence[Item] = (),
        constants: Mapping[str, Constants] | None = None,
        motors: tuple[str, ...] = (),
    ) -> None:
        self.info, self.motors = RunInfo("tstx00001", 1), motors
        self.inputs, self.items, self._constants = dict(inputs), items, dict(constants or {})
        self.notes: list[str] = []

    def bind(
        self,
        fields: Mapping[str, Field],
        shapes: Mapping[str, tuple[int, ...]],
        rooms: Mapping[str, int] | None = None,
        spare: Collection[str] = (),
    ) -> tuple[dict[str, Input], list[str]]:
        """Give those of the inputs that there are."""
        missing = [
            f"inputs.{n}: the run has no {f}" for n, f in fields.items() if n not in self.inputs
        ]
        return {n: self.inputs[n] for n in fields if n in self.inputs}, missing

    def constants(self, detector: str, geometry: str = "", store: bool = True) -> Constants:
        """Constants given for the detector, or ``LookupError``."""
        if detector not in self._constants:
            raise LookupError(f"no constants for {detector}")
        return self._constants[detector]

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)
