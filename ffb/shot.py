"""One FEL pulse's data as we see it, and the frames that reducers asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

#: Seconds from 1970-01-01 to 1990-01-01 UTC: psana counts from the latter.
EPOCH_1990 = 631_152_000

#: Words of ``sequenceValues``: event code c is bit c & 15 of word c >> 4.
CODE_WORDS = 18


def time_of(timestamp: int) -> int:
    """Nanoseconds since 1970-01-01 UTC of psana's ``timestamp`` (seconds since 1990 << 32 | ns)."""
    return ((timestamp >> 32) + EPOCH_1990) * 1_000_000_000 + (timestamp & 0xFFFF_FFFF)


def timestamp_of(time: int) -> int:
    """Psana's stamp of ``time`` (ns since 1970-01-01 UTC)."""
    s, ns = divmod(time, 1_000_000_000)
    return (s - EPOCH_1990) << 32 | ns


class Field(NamedTuple):
    """Where an input comes from, in the detector's own words: ``det.alg.name``."""

    detector: str
    alg: str
    name: str

    def __str__(self) -> str:
        return f"{self.detector}.{self.alg}.{self.name}"


def length_of(name: str) -> str:
    """Name of the input, and of the column, that counts the entries of the list ``name``."""
    return f"{name}_len"


class Input(NamedTuple):
    """What a run delivers under an input's short name.

    ``kind`` is ``"value"`` for small frames of fixed shape, which are copied into a
    :class:`FrameBlock`, and ``"area"`` for an area detector, whose segments are handed over in
    place; the shape of an area is ``(segments, rows, columns)``. ``length`` names the input that
    counts the entries of a *list*, whose places that are not used are missing, or the bytes of a
    text (dtype ``|SN``); where it is more than there is room for, the rest was cut off. ``coords``
    (n,) in ``coords_unit`` say what the places of a waveform mean, where a reducer that made it
    knows.
    """

    kind: Literal["value", "area"]
    dtype: str
    shape: tuple[int, ...]
    unit: str = "1"
    doc: str = ""
    length: str = ""
    coords: tuple[float, ...] = ()
    coords_unit: str = ""


class FrameBlock:
    """Small frames of up to ``capacity`` shots, as a structure of arrays.

    One ``uint8`` buffer holds all inputs, so that a compiled gatherer can copy bytes into row
    ``j`` of input ``i`` at ``base[i] + j * stride[i]``; ``frames[name]`` (capacity, *shape) are
    views of it. ``present`` (capacity, inputs) says which frames a shot had, in the order of
    ``names``; the columns of ``present`` for area inputs are set by what reads their segments.
    ``damage`` (capacity, inputs) are the words with which the DAQ marked the data of an input, of
    all its segments together; 0 where nothing is known of damage.
    """

    def __init__(self, inputs: Mapping[str, Input], capacity: int) -> None:
        self.inputs, self.capacity = dict(inputs), capacity
        self.names = list(self.inputs)
        self.index = {name: i for i, name in enumerate(self.names)}
        values = {k: v for k, v in self.inputs.items() if v.kind == "value"}
        rows = {k: prod(v.shape) * np.dtype(v.dtype).itemsize for k, v in values.items()}
        self.base = np.full(len(self.names), -1, np.int64)
        self.stride = np.zeros(len(self.names), np.int64)
        at = 0
        for k, size in rows.items():
            self.base[self.index[k]], self.stride[self.index[k]] = at, size
            at += -(-size * capacity // 64) * 64
        self.buffer: NDArray[np.uint8] = np.zeros(at, np.uint8)
        self.frames: dict[str, NDArray[Any]] = {}
        for k, v in values.items():
            o = int(self.base[self.index[k]])
            raw = self.buffer[o : o + rows[k] * capacity]
            self.frames[k] = raw.view(v.dtype).reshape(capacity, *v.shape)
        self.present: NDArray[np.bool_] = np.zeros((capacity, len(self.names)), np.bool_)
        self.damage: NDArray[np.uint16] = np.zeros((capacity, len(self.names)), np.uint16)
        self.timestamp: NDArray[np.uint64] = np.zeros(capacity, np.uint64)
        self.pulse_id: NDArray[np.uint64] = np.zeros(capacity, np.uint64)
        self.codes: NDArray[np.uint16] = np.zeros((capacity, CODE_WORDS), np.uint16)
        self.timed: NDArray[np.bool_] = np.zeros(capacity, np.bool_)

    def put(self, row: int, shot: Shot, frames: Mapping[str, Any]) -> None:
        """Fill ``row`` from plain Python values, ``None`` or missing for an absent frame.

        Raises ``ValueError`` when a frame's shape is not the one the run declared.
        """
        self.timestamp[row] = shot.timestamp
        for i, name in enumerate(self.names):
            value = frames.get(name)
            self.present[row, i] = value is not None
            if value is not None and self.inputs[name].kind == "value":
                self.frames[name][row] = value


class Shot(Protocol):
    """A shot as its source hands it over: valid until the next item of the run is asked for."""

    @property
    def timestamp(self) -> int:
        """Psana's 64-bit stamp: the key."""
        ...

    def fill(self, block: FrameBlock, row: int) -> None:
        """Copy identity, timing and all ``"value"`` frames into ``row`` of ``block``.

        Sets ``timestamp``, ``pulse_id``, ``codes``, ``timed`` (the timing system was there) and
        every column of ``present``. A frame whose shape is not the declared one counts as absent.
        """
        ...

    def segments(self, name: str) -> Sequence[NDArray[Any]] | None:
        """Segments of an ``"area"`` input, in segment order, each (rows * columns,) C-contiguous.

        The arrays may be read-only, unaligned views of somebody else's memory: use them before
        asking for the next item. ``None`` when any segment is missing.
        """
        ...


@dataclass(frozen=True)
class BeginStep:
    """A new setting of a scan: its index within the run and the values of its motors."""

    step: int
    values: Mapping[str, float] = field(default_factory=dict)
    docstring: str = ""
    timestamp: int = 0


@dataclass(frozen=True)
class Idle:
    """Nothing arrived for a few milliseconds: time to send what waits."""


Item = Shot | BeginStep | Idle
