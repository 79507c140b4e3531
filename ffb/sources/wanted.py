"""An input, resolved: who writes it, and what is made of what they write."""

from __future__ import annotations

from enum import IntEnum
from math import prod
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.shot import Input
from ffb.sources.xtc2 import DTYPES, FieldType, Names


class Role(IntEnum):
    """What an input is of its field: as it is, a list, a text, or how many entries they have."""

    PLAIN, LIST, TEXT, COUNT = range(4)


class Segment(NamedTuple):
    """Who writes one segment of a field: the number of the stream, and the names there."""

    stream: int
    names: Names


class Digitized(NamedTuple):
    """What is decoded of a digitizer's channel, see :mod:`ffb.sources.hsd`.

    ``segment`` writes the fields ``header`` and ``channel``; between peaks there is ``pad``, and
    the first peak begins with ``lanes`` baselines. ``counts`` is the product that counts the
    entries of this one, -1 for one that is no list. ``known`` says whether psana can be asked.
    """

    product: int
    segment: Segment
    header: str
    channel: str
    pad: int = 0
    lanes: int = 0
    counts: int = -1
    known: bool = True
    doc: str = ""


class Wanted(NamedTuple):
    """An input, resolved: the segments that write it, and the shape ``dims`` of each.

    A list or a text has room for ``dims[0]`` entries or bytes. An area with one axis is a line,
    which counts as one row.
    """

    segments: tuple[Segment, ...]
    type: FieldType
    kind: Literal["value", "area"]
    dims: tuple[int, ...]
    role: Role = Role.PLAIN
    digitized: Digitized | None = None

    @property
    def input(self) -> Input:
        """What the run delivers; several segments are stacked in front."""
        n, dtype = len(self.segments), DTYPES[self.type.code]
        doc = self.digitized.doc if self.digitized else ""
        if self.kind == "area":
            *asics, rows, columns = (1, *self.dims) if len(self.dims) == 1 else self.dims
            return Input("area", dtype, (n * prod(asics), rows, columns))
        if self.role == Role.COUNT:
            return Input("value", "<i8", ())
        if self.role == Role.TEXT:
            return Input("value", f"|S{self.dims[0]}", ())
        if n == 1 or self.role == Role.LIST or self.digitized:
            return Input("value", dtype, self.dims, doc=doc)
        return Input("value", dtype, (n, *self.dims))

    @property
    def counting(self) -> Wanted:
        """The input that counts the entries of this list, or the bytes of this text."""
        made = self.digitized
        return self._replace(
            dims=(), role=Role.COUNT, digitized=made and made._replace(product=made.counts)
        )

    def fit(self, value: Any) -> NDArray[Any] | None:
        """Make of a whole value what the run delivers, ``None`` where its axes are others.

        Axes of length 1 in front do not count: psana gives one segment as it is.
        """
        declared = self.input
        if isinstance(value, str):
            return _fit_text(value.encode(), declared) if self.role > Role.LIST else None
        array = np.asarray(value)
        if self.role == Role.COUNT:
            return np.array(len(array), "<i8")
        if self.role == Role.LIST:
            out = np.full(self.dims, np.nan if declared.dtype[1] == "f" else 0, declared.dtype)
            n = min(len(array), len(out))
            out[:n] = array[:n]
            return out
        if _bare(array.shape) != _bare(declared.shape):
            return None
        return array.astype(declared.dtype, copy=False).reshape(declared.shape)


def _bare(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without axes of length 1, but for the last one."""
    return (*(n for n in shape[:-1] if n != 1), *shape[-1:])


def _fit_text(raw: bytes, declared: Input) -> NDArray[Any]:
    """Bytes of a text as far as there is room for whole letters, or their number."""
    if declared.dtype == "<i8":
        return np.array(len(raw), "<i8")
    room = np.dtype(declared.dtype).itemsize
    kept = raw[:room].decode(errors="ignore").encode() if len(raw) > room else raw
    return np.array(kept, declared.dtype)
