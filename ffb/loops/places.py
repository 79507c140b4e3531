"""Where rows lie in the buffers of a batch and of a block, in words of generated code.

Compiled loops receive whole buffers and one table of integers: an array handed over takes the
dispatcher as long as a small reducer takes for a shot.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.schema import Column, Schema
from ffb.shot import FrameBlock


class Place(NamedTuple):
    """Text for row ``j`` of a column or an input.

    ``view`` is the flat array that it stands in, ``begin`` the index of its first element, ``size``
    its number of elements, and ``sizes`` its shape.
    """

    view: str
    begin: str
    size: str
    sizes: tuple[str, ...]

    @property
    def row(self) -> str:
        """The row itself: an element, or an array of its shape."""
        if not self.sizes:
            return f"{self.view}[{self.begin}]"
        row = f"{self.view}[{self.begin} : {self.begin} + {self.size}]"
        return row if len(self.sizes) == 1 else f"{row}.reshape(({', '.join(self.sizes)}))"


class Places:
    """A growing table of places, and ``lines`` of code that make what their texts name.

    All of one type are seen in one view of their buffer. The code names the batch's ``buffer``,
    the block's ``frames``, and the ``table``; both buffers are borrowed from the caller.
    """

    def __init__(self, schema: Schema, capacity: int) -> None:
        self._offsets = dict(zip(schema.by_name, schema.offsets(capacity), strict=False))
        self._table: list[int] = []
        self._lines: dict[str, None] = {}

    @property
    def lines(self) -> list[str]:
        """What comes before the texts in the code."""
        return [*self._lines]

    @property
    def table(self) -> NDArray[np.int64]:
        """The argument ``table``: for each place its begin, its size, its shape, in elements."""
        return np.array(self._table, np.int64)

    def column(self, c: Column) -> Place:
        """Place of a column in the batch; truth is stored as bytes."""
        kind = np.dtype(c.dtype)
        stored = np.dtype(np.uint8) if kind.kind == "b" else kind
        return self._place("buffer", self._offsets[c.name], stored, c.shape)

    def frame(self, name: str, block: FrameBlock) -> Place:
        """Place of an input in the block."""
        given, begin = block.inputs[name], int(block.base[block.index[name]])
        return self._place("frames", begin, np.dtype(given.dtype), given.shape)

    def _place(self, of: str, begin: int, kind: np.dtype, shape: tuple[int, ...]) -> Place:
        at, view = len(self._table), f"{of}_{kind.name}"
        self._table += [begin // kind.itemsize, prod(shape), *shape]
        self._lines[f"{view} = borrowed({of}).view(np.dtype('{kind.name}'))"] = None
        self._lines[f"a{at} = table[{at}]"] = None
        size = f"table[{at + 1}]"
        sizes = tuple(f"table[{at + 2 + d}]" for d in range(len(shape)))
        return Place(view, f"a{at} + j * {size}" if shape else f"a{at} + j", size, sizes)
