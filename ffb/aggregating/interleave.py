"""Rows of several batches of one schema as one batch: few calls a column, whatever their number."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.batch import Batch
from ffb.schema import EPOCH, LATE, PRODUCER

Rows = slice | NDArray[np.intp]

#: Columns that the caller fills in.
FILLED = (PRODUCER.name, EPOCH.name, LATE.name)

#: Rows of at least so many bytes are put in their place one by one; smaller ones are first strung
#: together, which costs a copy and saves a call for every piece.
LARGE = 1024


class Piece(NamedTuple):
    """Rows of a batch, in timestamp order, and their timestamps."""

    batch: Batch
    rows: Rows
    stamps: NDArray[np.uint64]


def order_of(pieces: Sequence[Piece]) -> NDArray[np.intp] | None:
    """Which rows of ``pieces`` strung together come in which order; None for as they are."""
    stamps = np.concatenate([p.stamps for p in pieces])
    rising = bool((stamps[1:] >= stamps[:-1]).all())
    return None if rising else np.argsort(stamps, kind="stable")


def interleave(pieces: Sequence[Piece], order: NDArray[np.intp] | None) -> Batch:
    """One batch with the rows of all ``pieces`` in the ``order`` of their timestamps."""
    out = Batch(pieces[0].batch.schema, sum(len(p.stamps) for p in pieces))
    places = _places(pieces, order)
    for c in out.schema.columns:
        if c.name in FILLED:
            continue
        into = out.columns[c.name]
        parts = [p.batch.columns[c.name] for p in pieces]
        if c.row_bytes < LARGE:
            strung = np.concatenate([a[p.rows] for a, p in zip(parts, pieces, strict=True)])
            into[...] = strung if order is None else strung[order]
        else:
            for part, piece, place in zip(parts, pieces, places, strict=True):
                into[place] = part[piece.rows]
    read = np.concatenate([p.batch.read[p.rows] for p in pieces])
    out.read[:] = read if order is None else read[order]
    return out


def _places(pieces: Sequence[Piece], order: NDArray[np.intp] | None) -> list[Any]:
    """Where the rows of every piece go; slices where they stay together."""
    ends = np.cumsum([0, *(len(p.stamps) for p in pieces)]).tolist()
    spans = [slice(i, j) for i, j in pairwise(ends)]
    if order is None:
        return spans
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    out: list[Any] = []
    for span in spans:
        to = place[span]
        together = int(to[-1] - to[0]) == len(to) - 1 and bool((np.diff(to) == 1).all())
        out.append(slice(int(to[0]), int(to[-1]) + 1) if together else to)
    return out
