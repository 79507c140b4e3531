"""What a producer holds of sums over shots, between one delta and the next.

A *cell* is what one state of the lights has had since the last delta. A delta takes the cells away
as they are and new ones begin: nothing is copied, and nothing waits for the delta to be sent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.reduce import Area, Calibration
from ffb.sums.kernels import level_of
from ffb.sums.piece import SumPiece
from ffb.sums.words import COUNTS, LIGHTS, What, label_of, what_of

#: A piece of a delta has at most so many bytes, so that batches pass between pieces.
PIECE_BYTES = 4 << 20

#: A delta ends after so many shots, whatever the time: counts of pixels are of 32 bits.
DELTA_SHOTS = 1 << 24

#: What one producer may hold of all sums, for one state of the lights [bytes].
MOST_BYTES = 4 << 30

#: States of x-ray and laser: 1 on, 0 off, -1 unknown.
Light = tuple[int, int]


class Summing(NamedTuple):
    """A sum to be made: ``form`` tells with what it may be merged, ``unit`` is a pixel's."""

    name: str
    whats: tuple[What, ...]
    lights: tuple[str, ...]
    per_step: bool
    form: str
    unit: str

    def label(self, light: Light) -> str:
        """Name of the state that this sum tells apart."""
        states = dict(zip(LIGHTS, light, strict=True))
        return label_of(self.lights, [states[k] for k in self.lights])

    @property
    def pixel_bytes(self) -> int:
        """Bytes for a pixel and a state of the lights."""
        return sum(np.dtype(w.held).itemsize for w in self.whats) + np.dtype(np.int32).itemsize


def form_of(settings: str, field: str, calibration: Calibration, area: Area, ids: Any) -> str:
    """Digest of all that makes two sums of one name comparable, or not."""
    facts = [settings, field, area.shape, calibration.dtype, area.unit, dict(ids)]
    digest = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=8)
    digest.update(np.packbits(area.mask).tobytes())
    return digest.hexdigest()


class _Cell:
    """Arrays of a sum as the fused pass takes them: of each what, missed pixels, levels."""

    def __init__(self, summing: Summing, pixels: int) -> None:
        held: list[NDArray[Any]] = []
        for what in summing.whats:
            array = np.zeros(pixels, what.held)
            if what.kind == "max":
                array[:] = what.begin((1,))
            held.append(array)
        self.missed: NDArray[np.int32] = np.zeros(pixels, np.int32)
        self.arrays = (*held, self.missed, np.array([level_of(w) for w in summing.whats]))
        self.shots = self.missing = 0


class Summed:
    """All sums over one area detector; ``whats`` are those of each."""

    def __init__(self, sums: Sequence[Summing], area: Area) -> None:
        self.sums, self.whats = tuple(sums), tuple(s.whats for s in sums)
        self._shape, self._valid = area.shape, np.ascontiguousarray(area.mask).ravel()
        self._cells: list[dict[str, _Cell]] = [{} for _ in sums]
        self._of: dict[Light, tuple[_Cell, ...]] = {}

    @property
    def example(self) -> tuple[Any, ...]:
        """Arrays of no shot."""
        return tuple(_Cell(s, self._valid.size).arrays for s in self.sums)

    @property
    def by_light(self) -> bool:
        """Whether any sum tells lights apart."""
        return any(s.lights for s in self.sums)

    def _at(self, light: Light) -> tuple[_Cell, ...]:
        if light not in self._of:
            for cells, s in zip(self._cells, self.sums, strict=True):
                if (label := s.label(light)) not in cells:
                    cells[label] = _Cell(s, self._valid.size)
            found = zip(self._cells, self.sums, strict=True)
            self._of[light] = tuple(cells[s.label(light)] for cells, s in found)
        return self._of[light]

    def into(self, light: Light) -> tuple[Any, ...]:
        """Arrays to which a shot in this ``light`` is to be added."""
        return tuple(cell.arrays for cell in self._at(light))

    def count(self, light: Light) -> None:
        """Count a shot that was added."""
        for cell in self._at(light):
            cell.shots += 1

    def miss(self, light: Light) -> None:
        """Count a shot that had no frame."""
        for cell in self._at(light):
            cell.missing += 1

    def close(self, step: int) -> list[SumPiece]:
        """Take away what there is, in pieces of a delta that has no number yet."""
        out = [
            piece
            for s, cells in zip(self.sums, self._cells, strict=True)
            for label, cell in cells.items()
            for piece in self._pieces(s, label, step if s.per_step else -1, cell)
        ]
        self._cells, self._of = [{} for _ in self.sums], {}
        return out

    def _pieces(self, s: Summing, label: str, step: int, cell: _Cell) -> Iterator[SumPiece]:
        counts = self._valid * cell.shots - cell.missed if cell.shots else np.zeros(0, np.int64)
        names = [what_of(COUNTS), *s.whats]
        arrays = [counts, *cell.arrays[: len(s.whats)]] if cell.shots else [counts]
        for what, array in zip(names, arrays, strict=False):
            if what.dtype == "<i8" and what.of != "raw":  # none is more than the shots
                array = array.astype(np.min_scalar_type(cell.shots))
            size = max(1, PIECE_BYTES // array.itemsize)
            for first in range(0, max(array.size, 1), size):
                yield SumPiece(
                    sum=s.name,
                    what=what.name,
                    light=label,
                    step=step,
                    form=s.form,
                    unit=s.unit,
                    shape=self._shape,
                    delta=0,
                    piece=0,
                    pieces=1,
                    shots=cell.shots,
                    missing=cell.missing,
                    first=first,
                    values=array[first : first + size],
                )


class Sums:
    """All sums of a run in one producer: what has to be sent, and when."""

    def __init__(self, areas: Sequence[Summed]) -> None:
        self.areas = tuple(areas)
        self.per_step = any(s.per_step for a in areas for s in a.sums)
        self.by_light = any(a.by_light for a in areas)
        self.shots = self._deltas = 0

    def __bool__(self) -> bool:
        return bool(self.areas)

    def close(self, step: int) -> list[SumPiece]:
        """End the delta, all of it of ``step`` where steps are told apart; [] without any shot."""
        pieces = [p for area in self.areas for p in area.close(step)]
        delta, self.shots = self._deltas, 0
        self._deltas += bool(pieces)
        return [p._replace(delta=delta, piece=k, pieces=len(pieces)) for k, p in enumerate(pieces)]
