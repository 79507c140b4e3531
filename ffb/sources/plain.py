"""What sources of plain Python values share: shots, the answer to ``bind``, who takes which."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffb.shot import CODE_WORDS, Field, FrameBlock, Input


class Stop:
    """Says that it is time to stop.

    Unlike ``threading.Event`` it takes no lock: a signal handler that interrupts ``wait`` in its
    own thread may call ``set``. Waits here are short.
    """

    def __init__(self) -> None:
        self._said = False

    def set(self) -> None:
        """Say so, for good."""
        self._said = True

    def is_set(self) -> bool:
        """Whether somebody said so."""
        return self._said

    def wait(self, seconds: float) -> None:
        """Let ``seconds`` pass, unless it is time already."""
        if not self._said:
            time.sleep(seconds)


@dataclass(frozen=True)
class PlainShot:
    """A shot whose frames are arrays by the name of their input, ``None`` or missing if absent.

    An area is (segments, rows, columns). ``codes`` are the words of the event codes, or ``None``
    where the timing system was not there.
    """

    timestamp: int
    frames: Mapping[str, Any]
    pulse_id: int = 0
    codes: NDArray[np.uint16] | None = None

    def fill(self, block: FrameBlock, row: int) -> None:
        """Copy identity, timing and frames into ``row``; a frame of another shape is absent."""
        block.timestamp[row], block.pulse_id[row] = self.timestamp, self.pulse_id
        block.timed[row] = self.codes is not None
        block.codes[row] = 0 if self.codes is None else self.codes
        for i, name in enumerate(block.names):
            value, declared = self.frames.get(name), block.inputs[name]
            fits = value is not None and np.shape(value) == declared.shape
            block.present[row, i] = fits
            if fits and declared.kind == "value":
                block.frames[name][row] = value

    def segments(self, name: str) -> Sequence[NDArray[Any]] | None:
        """Segments of an area, each (rows * columns,), ``None`` if it is absent."""
        value = self.frames.get(name)
        return None if value is None else [segment.reshape(-1) for segment in value]


@dataclass
class Binding:
    """Answers ``bind``: which of the wanted fields there are, and why not the others."""

    known: Mapping[Field, Input]
    fields: dict[str, Field] = field(default_factory=dict)

    def bind(
        self,
        fields: Mapping[str, Field],
        shapes: Mapping[str, tuple[int, ...]],
        rooms: Mapping[str, int] | None = None,
        spare: Collection[str] = (),
    ) -> tuple[dict[str, Input], list[str]]:
        """See :meth:`ffb.source.Run.bind`."""
        inputs, problems = {}, []
        for name, wanted in fields.items():
            found = self.known.get(wanted)
            if found is None:
                problems.append(f"inputs.{name}: {unknown(wanted, self.known)}")
            elif name in (rooms or {}):
                problems.append(f"inputs.{name}: {wanted} is not a list here; leave out its room")
            elif name in shapes and tuple(shapes[name]) != found.shape:
                problems.append(
                    f"inputs.{name}: {wanted} has the shape {found.shape} in this run, not"
                    f" {tuple(shapes[name])}; correct its shape, or leave it out"
                )
            else:
                inputs[name] = found
                self.fields[name] = wanted
        return inputs, problems


def unknown(wanted: Field, known: Iterable[Field]) -> str:
    """Say that there is no such field, and what comes nearest."""
    known = list(known)
    detectors = sorted({f.detector for f in known})
    if wanted.detector not in detectors:
        near = get_close_matches(wanted.detector, detectors, 1, 0.4)
        return f"no detector {wanted.detector!r} in this run; " + _hint(near, detectors)
    names = sorted(_within(f) for f in known if f.detector == wanted.detector)
    near = get_close_matches(_within(wanted), names, 1)  # all share their alg: no lower cutoff
    who = wanted.detector or "the capture"
    return f"{who} has no field {_within(wanted)}; " + _hint(near, names)


def _within(field: Field) -> str:
    """Name of a field within its detector; a column of a capture has no more than that."""
    return f"{field.alg}.{field.name}" if field.alg else field.name


def _hint(near: list[str], known: list[str]) -> str:
    if near:
        return f"nearest is {near[0]!r}"
    shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
    return f"it has {shown or 'none'}"


def words_of(codes: Iterable[int]) -> NDArray[np.uint16]:
    """Event codes as the words of ``sequenceValues``: code c is bit c & 15 of word c >> 4."""
    words = np.zeros(CODE_WORDS, np.uint16)
    for c in codes:
        words[c >> 4] |= np.uint16(1 << (c & 15))
    return words


def share(producer: int, producers: int) -> Callable[[int], bool]:
    """Decide by its timestamp which of ``producers`` takes a shot, the same for all of them.

    The timestamp is scrambled first (Fibonacci hashing), so that no producer gets the shots of
    one light or of one phase of the beam.
    """
    if not 0 <= producer < producers:
        raise ValueError(f"producer {producer} of {producers}: count them from 0")

    def mine(timestamp: int) -> bool:
        scrambled = timestamp * 0x9E37_79B9_7F4A_7C15 & 0xFFFF_FFFF_FFFF_FFFF
        return (scrambled >> 32) % producers == producer

    return mine
