"""A batch: schema + columns for n shots, in one buffer that goes on the wire as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffb.messaging.codec import CODECS, decode, encode
from ffb.schema import ALIGN, Schema


class Packed(Mapping[str, NDArray[Any]]):
    """Columns of which some are encoded: those are decoded when they are first asked for.

    ``chunks`` are the encoded ones, as the filter of the file would write them, without those
    that did not decode and those that were replaced. ``tell`` is told the name of a column that
    does not decode, and why; its rows then read as missing.
    """

    def __init__(
        self, schema: Schema, n: int, plain: dict[str, NDArray[Any]], chunks: dict[str, memoryview]
    ) -> None:
        self.chunks = chunks
        self.tell: Callable[[str, str], None] | None = None
        self._schema, self._n, self._made = schema, n, plain

    def __getitem__(self, name: str) -> NDArray[Any]:
        made = self._made.get(name)
        if made is None:
            made = self._made[name] = self._decode(name)
        return made

    def __setitem__(self, name: str, rows: NDArray[Any]) -> None:
        self._made[name] = rows
        self.chunks.pop(name, None)

    def __contains__(self, name: object) -> bool:
        return name in self._schema.by_name

    def __iter__(self) -> Iterator[str]:
        return iter(self._schema.by_name)

    def __len__(self) -> int:
        return len(self._schema.columns)

    def _decode(self, name: str) -> NDArray[Any]:
        c = self._schema.by_name[name]
        shape = (self._n, *c.shape)
        try:
            return decode(self.chunks[name], c.dtype, shape, c.codec)
        except (ValueError, LookupError) as e:
            if self.tell is None:
                raise ValueError(f"column {name} of {self._n} rows does not unpack: {e}") from e
            del self.chunks[name]
            self.tell(name, str(e))
            return np.full(shape, c.missing, c.dtype)


class Batch:
    """Columns for up to ``capacity`` shots, filled in place, then closed with ``n`` rows.

    ``columns[name]`` is (capacity, *shape) while it is being filled and (n, *shape) once closed;
    ``read`` (n,) int64 holds the time [ns since 1970] at which each shot reached us. ``sizes`` is
    empty, or holds for every column the bytes of its chunk where that stands in the buffer instead
    of its rows, 0 otherwise.
    """

    def __init__(self, schema: Schema, capacity: int) -> None:
        self.schema, self.n = schema, capacity
        self.buffer: NDArray[np.uint8] = np.empty(schema.offsets(capacity)[-1], np.uint8)
        self.read: NDArray[np.int64] = np.zeros(capacity, np.int64)
        self.sizes: tuple[int, ...] = ()

    @cached_property
    def columns(self) -> dict[str, NDArray[Any]] | Packed:
        """All columns, made when first asked for; code that only forwards a batch needs none.

        Views of the buffer; what is encoded is decoded one by one, as it is asked for, with a
        ``ValueError`` when that fails; see :meth:`forgive`.
        """
        s, n, buffer = self.schema, self.n, self.buffer
        sizes = self.sizes or (0,) * len(s.columns)
        placed = [*zip(s.columns, s.dtypes, self._offsets, sizes, strict=False)]
        plain = {
            c.name: np.ndarray((n, *c.shape), dtype, buffer, at)
            for c, dtype, at, size in placed
            if not size
        }
        if not self.sizes:
            return plain
        chunks = {c.name: buffer.data[at : at + size] for c, _, at, size in placed if size}
        return Packed(s, n, plain, chunks)

    @property
    def encoded(self) -> Mapping[str, memoryview]:
        """Chunks, as the filter of the file would write them, of the columns that are encoded."""
        return self.columns.chunks if isinstance(self.columns, Packed) else {}

    def forgive(self, tell: Callable[[str, str], None]) -> None:
        """Let the rows of a column that does not decode read as missing.

        ``tell`` is then called with the name of the column and the reason.
        """
        if isinstance(self.columns, Packed):
            self.columns.tell = tell

    def unpack(self) -> None:
        """Decode what is encoded now; ``ValueError`` when that fails."""
        for name in [*self.encoded]:
            _ = self.columns[name]

    @cached_property
    def _offsets(self) -> Sequence[int]:
        """Byte offset of every column in the buffer, then the buffer's size."""
        if not self.sizes:
            return self.schema.offsets(self.n)
        plain = pairwise(self.schema.offsets(self.n))
        used = (
            -(-size // ALIGN) * ALIGN if size else end - at
            for size, (at, end) in zip(self.sizes, plain, strict=True)
        )
        return tuple(accumulate(used, initial=0))

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
        for stale in ("columns", "_offsets"):
            self.__dict__.pop(stale, None)

    @classmethod
    def of(
        cls,
        schema: Schema,
        n: int,
        payload: Any,
        read: NDArray[np.int64],
        sizes: Sequence[int] = (),
    ) -> Batch:
        """Wrap a received ``payload`` without copying it.

        Raises ``ValueError`` when its size is not what the schema says for ``n`` rows, with
        ``sizes`` of encoded columns, or when a column cannot be encoded or would not gain by it.
        """
        self = cls.__new__(cls)
        self.schema, self.n, self.read = schema, n, read
        self.buffer = np.frombuffer(payload, np.uint8)
        self.sizes = tuple(sizes) if any(sizes) else ()
        if len(sizes) not in {0, len(schema.columns)}:
            raise ValueError(f"{len(sizes)} sizes for {len(schema.columns)} columns")
        for i, size in enumerate(self.sizes):
            if not size:
                continue
            c = schema.columns[i]
            if not (c.codec in CODECS and n == c.chunk and 0 < size < n * c.row_bytes):
                raise ValueError(f"{c.name}: {n} rows are no chunk of {size} bytes")
        if self.buffer.size != self._offsets[-1]:
            raise ValueError(
                f"payload of {self.buffer.size} bytes; {n} rows of this schema are"
                f" {self._offsets[-1]}"
            )
        return self


def compressed(batch: Batch) -> Batch:
    """``batch`` with those columns encoded that have a codec, when its rows fill their chunks.

    A chunk that does not become smaller stays as it is, and so does a batch without any other.
    """
    s, n, at = batch.schema, batch.n, batch.schema.offsets(batch.n)
    parts: list[Any] = []
    for c, dtype, begin in zip(s.columns, s.dtypes, at, strict=False):
        raw = batch.buffer[begin : begin + n * c.row_bytes]
        chunk = encode(raw.view(dtype), c.codec) if c.codec and n == c.chunk else b""
        parts.append(chunk if 0 < len(chunk) < raw.size else raw)
    sizes = [len(p) if isinstance(p, bytes) else 0 for p in parts]
    if not any(sizes):
        return batch
    pad = [bytes(-len(p) % ALIGN) for p in parts]
    payload = b"".join(x for pair in zip(parts, pad, strict=True) for x in pair)
    return Batch.of(s, n, payload, batch.read, sizes)
