"""Columns and schemas: what a row holds, named once for wire, file and plots."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from math import prod
from typing import Any, NamedTuple

import msgpack
import numpy as np

ALIGN = 64


#: Behind the name of a column: the one that says in which rows it holds.
VALID = "_valid"


def column_name(reducer: str, feature: str) -> str:
    """Name of a reducer's column: ``spot/sum``, and ``jungfrau/ROI_0_sum`` of ``jungfrau/ROI_0``.

    A reducer with a slash in its name stands beside others under its detector, as analysts know it.
    """
    return f"{reducer}{'_' if '/' in reducer else '/'}{feature}"


def present_of(reducer: str) -> str:
    """Name of the column that says on which shots a reducer ran."""
    return column_name(reducer, "present")


class Column(NamedTuple):
    """A feature over many shots.

    ``name`` is its path in the file, its key on the wire and its title on the page. ``shape`` is
    that of one row; ``dims`` names its axes; ``dtype`` is a little-endian numpy string; ``unit``
    is ``"1"`` if it has none; ``reducer`` is the configured name it comes from, ``""`` for what
    ffb itself adds. ``codec`` names the compression of its chunks, ``""`` for none, and ``chunk``
    the rows of a chunk then. ``length`` names the column that counts the entries of a *list*: the
    first axis holds that many of them, at most its size, and missing values after them.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] = ()
    dims: tuple[str, ...] = ()
    unit: str = "1"
    doc: str = ""
    reducer: str = ""
    codec: str = ""
    chunk: int = 0
    length: str = ""

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def feature(self) -> str:
        """Name within its reducer; the whole name of what none made."""
        return self.name[len(self.reducer) + 1 :] if self.reducer else self.name

    @property
    def flags(self) -> tuple[str, str]:
        """Names of columns that, where there is one, say in which rows this one holds."""
        return present_of(self.reducer), f"{self.name}{VALID}"

    @property
    def missing(self) -> Any:
        """Value of an absent row: NaN for floats, otherwise zero beside its ``present`` column."""
        return np.nan if np.dtype(self.dtype).kind == "f" else np.zeros((), self.dtype)[()]


TIMESTAMP = Column("timestamp", "<u8", doc="psana's 64-bit stamp, the key of the shot")
PULSE_ID = Column("pulse_id", "<u8", doc="the accelerator's pulse counter, 0 if unknown")
PULSE_KNOWN = Column(f"pulse_id{VALID}", "|b1", doc="whether the pulse id is known")
STEP = Column("step", "<i4", doc="index of the step within the run, -1 before the first")
XRAY = Column("lightStatus/xray", "<i1", doc="1 x-rays on, 0 off, -1 unknown")
LASER = Column("lightStatus/laser", "<i1", doc="1 laser on, 0 off, -1 unknown")
#: Whether the lights are known, for who takes them as they are.
LIGHT_KNOWN = tuple(
    Column(f"{c.name}{VALID}", "|b1", doc=f"whether {c.name} is known") for c in (XRAY, LASER)
)

#: Filled by the producer; below 1 the shots around this one were shed, by hash of their stamps.
KEPT = Column("ffb/kept", "<f4", doc="fraction of shots kept where this one was taken")
#: Filled by the aggregator, which alone knows.
PRODUCER = Column("ffb/producer", "<u2", doc="index of its producer in ffb/producers")
EPOCH = Column("ffb/epoch", "<u2", doc="index of its epoch in ffb/epochs: one set of parameters")
LATE = Column("ffb/late", "|b1", doc="whether it came after newer shots were committed")

#: Every batch begins with these.
CORE = (TIMESTAMP, PULSE_ID, STEP, XRAY, LASER, KEPT, PRODUCER, EPOCH, LATE)


@dataclass(frozen=True)
class Schema:
    """Ordered columns; equal schemas have equal ids on every machine."""

    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        times = Counter(c.name for c in self.columns)
        if twice := sorted(n for n, k in times.items() if k > 1):
            raise ValueError(
                f"schema: columns {twice} appear twice; give each feature its own name"
            )

    @cached_property
    def packed(self) -> bytes:
        """The schema as msgpack: a list of columns, each a list of its fields.

        Columns that are no lists leave out ``length``, so that ids are what they were before it.
        """
        return bytes(msgpack.packb([tuple(c) if c.length else tuple(c[:-1]) for c in self.columns]))

    @cached_property
    def id(self) -> bytes:
        """Eight bytes that name this schema."""
        return hashlib.blake2b(self.packed, digest_size=8).digest()

    @cached_property
    def by_name(self) -> dict[str, Column]:
        """Columns by name."""
        return {c.name: c for c in self.columns}

    @cached_property
    def row_bytes(self) -> tuple[int, ...]:
        """Bytes of one row of every column."""
        return tuple(c.row_bytes for c in self.columns)

    @cached_property
    def dtypes(self) -> tuple[np.dtype[Any], ...]:
        """Dtype of every column."""
        return tuple(np.dtype(c.dtype) for c in self.columns)

    @cached_property
    def _offsets(self) -> dict[int, tuple[int, ...]]:
        return {}

    def offsets(self, n: int) -> tuple[int, ...]:
        """Byte offset of every column in a payload of ``n`` rows, then the payload's size.

        Columns follow each other in schema order, each at a multiple of 64 bytes.
        """
        known = self._offsets.get(n)  # most batches of a run are of one size
        if known is None:
            sizes = (-(-n * size // ALIGN) * ALIGN for size in self.row_bytes)
            known = tuple(accumulate(sizes, initial=0))
            if len(self._offsets) >= 64:
                self._offsets.clear()
            self._offsets[n] = known
        return known
