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

from ffb.configuration.expression import NO, UNKNOWN, YES
from ffb.sums.kernels import level_of
from ffb.sums.piece import Fates, SumPiece
from ffb.sums.words import COUNTS, LIGHTS, What, label_of, what_of

#: A piece of a delta has at most so many bytes, so that batches pass between pieces.
PIECE_BYTES = 4 << 20

#: A delta ends after so many shots, whatever the time: counts of pixels are of 32 bits.
DELTA_SHOTS = 1 << 24

#: What one producer may hold of all sums, for one state of the lights [bytes].
MOST_BYTES = 4 << 30

#: Places in :class:`ffb.sums.piece.Fates` of shots that a condition keeps out.
_UNTAKEN = {NO: Fates._fields.index("excluded"), UNKNOWN: Fates._fields.index("unknown")}

#: What decides where a shot is added: states of x-ray and laser (1 on, 0 off, -1 unknown), then
#: what the condition of each sum that has one says: ``NO``, ``UNKNOWN`` or ``YES``.
State = tuple[int, ...]


class Summing(NamedTuple):
    """A sum to be made: ``form`` tells with what it may be merged, ``unit`` is a pixel's.

    Only shots ``where`` its condition holds are added, all where it is ``""``. Values are of type
    ``dtype``, calibrated pixels float32.
    """

    name: str
    whats: tuple[What, ...]
    lights: tuple[str, ...]
    per_step: bool
    form: str
    unit: str
    where: str = ""
    dtype: str = "<f4"

    def label(self, state: State) -> str:
        """Name of the state of the lights that this sum tells apart."""
        states = dict(zip(LIGHTS, state[: len(LIGHTS)], strict=True))
        return label_of(self.lights, [states[k] for k in self.lights])

    @property
    def pixel_bytes(self) -> int:
        """Bytes for a pixel and a state of the lights."""
        held = [w.held(self.dtype) for w in self.whats]
        return sum(np.dtype(kind).itemsize for kind in held) + np.dtype(np.int32).itemsize


def form_of(facts: Sequence[Any], mask: NDArray[np.bool_]) -> str:
    """Digest of all that makes two sums of one name comparable, or not: plain ``facts``, a mask."""
    digest = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=8)
    digest.update(np.packbits(mask).tobytes())
    return digest.hexdigest()


class _Cell:
    """Arrays of a sum as compiled code takes them: of each what, missed pixels, levels."""

    def __init__(self, summing: Summing, pixels: int) -> None:
        held: list[NDArray[Any]] = []
        for what in summing.whats:
            array = np.zeros(pixels, what.held(summing.dtype))
            if what.kind == "max":
                array[:] = what.begin((1,))
            held.append(array)
        self.missed: NDArray[np.int32] = np.zeros(pixels, np.int32)
        levels = np.array([level_of(w, summing.dtype) for w in summing.whats])
        self.arrays = (*held, self.missed, levels)
        self.fates = [*Fates()]


class Summed:
    """All sums over one input or feature; ``whats`` are those of each, ``mask`` is true for good.

    Of an area detector, or of a small array of each shot: it has the shape of a frame.
    """

    def __init__(self, sums: Sequence[Summing], mask: NDArray[np.bool_]) -> None:
        self.sums, self.whats = tuple(sums), tuple(s.whats for s in sums)
        self._shape, self._valid = mask.shape, np.ascontiguousarray(mask).ravel()
        self._cells: list[dict[str, _Cell]] = [{} for _ in sums]
        self._of: dict[State, tuple[tuple[_Cell, int], ...]] = {}
        self._adds: dict[State, NDArray[np.bool_]] = {}
        told = [k for k, s in enumerate(sums) if s.where]
        self._told = {k: len(LIGHTS) + n for n, k in enumerate(told)}

    @property
    def example(self) -> tuple[Any, ...]:
        """Arrays of no shot."""
        return tuple(_Cell(s, self._valid.size).arrays for s in self.sums)

    @property
    def by_light(self) -> bool:
        """Whether any sum tells lights apart."""
        return any(s.lights for s in self.sums)

    @property
    def names(self) -> tuple[str, ...]:
        """Sums with a condition, in the order in which a state tells what those say."""
        return tuple(self.sums[k].name for k in self._told)

    def _at(self, state: State) -> tuple[tuple[_Cell, int], ...]:
        """Cell of each sum, and what its condition says."""
        if state not in self._of:
            out = []
            for k, (cells, s) in enumerate(zip(self._cells, self.sums, strict=True)):
                if (label := s.label(state)) not in cells:
                    cells[label] = _Cell(s, self._valid.size)
                out.append((cells[label], state[self._told[k]] if k in self._told else YES))
            self._of[state] = tuple(out)
        return self._of[state]

    def into(self, state: State) -> tuple[Any, ...]:
        """Arrays to which a shot in this ``state`` is to be added."""
        return tuple(cell.arrays for cell, _ in self._at(state))

    def adds(self, state: State) -> NDArray[np.bool_]:
        """Which of the sums take a shot in this ``state``, (sums,)."""
        if state not in self._adds:
            self._adds[state] = np.array([truth == YES for _, truth in self._at(state)], np.bool_)
        return self._adds[state]

    def count(self, state: State, missing: bool = False, shots: int = 1) -> None:
        """Count shots: added, or without a frame, or not those that a sum takes."""
        for cell, truth in self._at(state):
            cell.fates[_UNTAKEN.get(truth, int(missing))] += shots

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
        fates, names = Fates(*cell.fates), [what_of(COUNTS), *s.whats]
        shots = fates.shots
        arrays = [self._valid * shots - cell.missed, *cell.arrays[: len(s.whats)]]
        for what, array in zip(names, arrays, strict=True):
            array = array if shots else array[:0]  # what there is to say is that there was none
            if what.dtype == "<i8" and what.of != "raw":  # none is more than the shots
                array = array.astype(np.min_scalar_type(shots))
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
                    where=s.where,
                    fates=fates,
                    first=first,
                    values=array[first : first + size],
                )


class Sums:
    """All sums of a run in one producer: what has to be sent, and when."""

    def __init__(self, summed: Sequence[Summed]) -> None:
        self._summed = tuple(summed)
        self.per_step = any(s.per_step for a in summed for s in a.sums)
        self.by_light = any(a.by_light for a in summed)
        self.shots = self._deltas = 0

    def __bool__(self) -> bool:
        return bool(self._summed)

    def close(self, step: int) -> list[SumPiece]:
        """End the delta, all of it of ``step`` where steps are told apart; [] without any shot."""
        pieces = [p for summed in self._summed for p in summed.close(step)]
        delta, self.shots = self._deltas, 0
        self._deltas += bool(pieces)
        return [p._replace(delta=delta, piece=k, pieces=len(pieces)) for k, p in enumerate(pieces)]
