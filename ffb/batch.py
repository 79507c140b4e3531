"""A batch: schema + columns for n shots, in one buffer that goes on the wire as it is."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffb.schema import Schema


class Batch:
    """Columns for up to ``capacity`` shots, filled in place, then closed with ``n`` rows.

    ``columns[name]`` is (capacity, *shape) while it is being filled and (n, *shape) once closed;
    ``read`` (n,) int64 holds the time [ns since 1970] at which each shot reached us.
    """

    def __init__(self, schema: Schema, capacity: int) -> None:
        self.schema, self.n = schema, capacity
        self.buffer: NDArray[np.uint8] = np.empty(schema.offsets(capacity)[-1], np.uint8)
        self.read: NDArray[np.int64] = np.zeros(capacity, np.int64)

    @cached_property
    def columns(self) -> dict[str, NDArray[Any]]:
        """Views of all columns, made when first asked for: who only passes on needs none."""
        s = self.schema
        layout = zip(s.columns, s.dtypes, s.offsets(self.n), strict=False)
        return {
            c.name: np.ndarray((self.n, *c.shape), dtype, self.buffer, offset)
            for c, dtype, offset in layout
        }

    def close(self, n: int) -> None:
        """Keep the first ``n`` rows: columns move together in place, so the payload stays whole."""
        if n == self.n:
            return
        old, new = self.schema.offsets(self.n), self.schema.offsets(n)
        for c, a, b in zip(self.schema.columns, old, new, strict=False):
            size = n * c.row_bytes  # b <= a always: memory moves down, never over what is to come
            self.buffer[b : b + size] = self.buffer[a : a + size]
        self.n, self.read = n, self.read[:n]
        self.buffer = self.buffer[: new[-1]]
        self.__dict__.pop("columns", None)

    @classmethod
    def of(cls, schema: Schema, n: int, payload: Any, read: NDArray[np.int64]) -> Batch:
        """Wrap a received ``payload`` without copying it.

        Raises ``ValueError`` when its size is not what the schema says for ``n`` rows.
        """
        self = cls.__new__(cls)
        self.schema, self.n, self.read = schema, n, read
        self.buffer = np.frombuffer(payload, np.uint8)
        if self.buffer.size != schema.offsets(n)[-1]:
            raise ValueError(
                f"payload of {self.buffer.size} bytes; {n} rows of this schema are"
                f" {schema.offsets(n)[-1]}"
            )
        return self
