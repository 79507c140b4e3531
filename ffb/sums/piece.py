"""Pieces of what a producer added to its sums: what travels in a message of kind ``sum``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.messaging.untrusted import MAX_CELLS, MAX_INT, MAX_TEXT, WireError, limit, typed
from ffb.sums.words import LABELS, What, what_of

#: What a sum may be called: the beginning of a dataset's name.
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")

_FORM = re.compile(r"[0-9a-f]{16}")

#: Whole numbers of a piece, each with its least and its largest value.
_WHOLE = {
    "step": (-1, (1 << 31) - 1),
    "delta": (0, MAX_INT),
    "piece": (0, 1 << 20),
    "pieces": (1, 1 << 20),
    "first": (0, MAX_CELLS),
}

_TEXT = ("sum", "what", "light", "form", "unit", "where")

#: Shots of a delta, at most.
_SHOTS = 1 << 40


class Fates(NamedTuple):
    """What became of shots in a sum: how many were added, and how many were not, for which reason.

    ``missing`` ones had no frame; ``excluded`` ones are not those that the sum is of, by its
    condition, and of ``unknown`` ones that could not be told, frame or no frame.
    """

    shots: int = 0
    missing: int = 0
    excluded: int = 0
    unknown: int = 0


def together(many: Iterable[Fates]) -> Fates:
    """Shots of ``many`` parts."""
    return Fates(*map(sum, zip(Fates(), *many, strict=True)))


class SumPiece(NamedTuple):
    """Pixels ``first`` and on of one array, of what ``delta`` adds to the sum ``sum``.

    A *delta* is what a producer added to all its sums since its delta before, in so many
    ``pieces``: all of them count, or none. ``fates`` are those of the delta's shots in this state
    of the ``light`` and this ``step`` (-1 if steps are not told apart). Only sums of equal
    ``form``, a digest of all that makes numbers comparable, may be added; ``where`` is the
    condition for a shot to be added. ``shape`` is that of the whole array, ``values`` (n,) are
    flat.
    """

    sum: str
    what: str
    light: str
    step: int
    form: str
    unit: str
    shape: tuple[int, ...]
    delta: int
    piece: int
    pieces: int
    where: str
    fates: Fates
    first: int
    values: NDArray[Any]

    @property
    def meta(self) -> dict[str, Any]:
        """All but the values, as plain data."""
        return {k: v for k, v in self._asdict().items() if k != "values"} | {
            "shape": list(self.shape),
            "fates": list(self.fates),
        }


class Parcel(NamedTuple):
    """Pieces of a delta that travel together, in one message."""

    pieces: tuple[SumPiece, ...]

    @property
    def plain(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Plain data and arrays."""
        arrays = {str(k): p.values for k, p in enumerate(self.pieces)}
        return {"pieces": [p.meta for p in self.pieces]}, arrays


def parcel_of(meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Parcel:
    """Undo :attr:`Parcel.plain`, of plain data that nobody vouches for.

    Raises :class:`ffb.messaging.untrusted.WireError`.
    """
    if meta.keys() != {"pieces"} or {*arrays} != {str(k) for k in range(len(arrays))}:
        raise WireError("a message of sums holds pieces, and an array for each")
    metas = typed("pieces", meta["pieces"], list)
    if len(metas) != len(arrays):
        raise WireError(f"{len(metas)} pieces with {len(arrays)} arrays")
    each = (typed("a piece", m, dict) for m in metas)
    return Parcel(tuple(piece_of(m, arrays[str(k)]) for k, m in enumerate(each)))


def piece_of(meta: Mapping[str, Any], values: NDArray[Any]) -> SumPiece:
    """Undo :attr:`SumPiece.meta`, of plain data that nobody vouches for.

    Raises :class:`ffb.messaging.untrusted.WireError`.
    """
    if meta.keys() != {*SumPiece._fields} - {"values"}:
        raise WireError(f"a piece of a sum holds {', '.join(SumPiece._fields)}, nothing else")
    for name, (least, most) in _WHOLE.items():
        if not least <= typed(name, meta[name], int) <= most:
            raise WireError(f"{name} of a piece is out of range")
    for name in _TEXT:
        limit(f"letters of {name}", len(typed(name, meta[name], str)), MAX_TEXT)
    fates = typed("fates", meta["fates"], list)
    known = len(fates) == len(Fates._fields)
    if not (known and all(type(n) is int and 0 <= n <= _SHOTS for n in fates)):
        raise WireError(f"fates of a piece are numbers of shots: {', '.join(Fates._fields)}")
    shape = typed("shape", meta["shape"], list)
    if not (0 < len(shape) <= 3 and all(type(s) is int and 0 < s <= MAX_CELLS for s in shape)):
        raise WireError("shape of a piece must hold up to three positive whole numbers")
    limit("pixels of a sum", prod(shape), MAX_CELLS)
    if not NAME.fullmatch(meta["sum"]) or not _FORM.fullmatch(meta["form"]):
        raise WireError(
            f"{meta['sum'][:40]!r} is not the name of a sum, or its form is not a digest"
        )
    if meta["light"] not in LABELS:
        raise WireError(f"{meta['light'][:40]!r} is not a state of the lights")
    piece = SumPiece(**{**meta, "shape": tuple(shape), "fates": Fates(*fates)}, values=values)
    _check_values(piece, _what(piece))
    if piece.piece >= piece.pieces:
        raise WireError(f"piece {piece.piece} of {piece.pieces}")
    return piece


def _what(piece: SumPiece) -> What:
    try:
        return what_of(piece.what)
    except ValueError as e:
        raise WireError(f"what of a piece: {e}") from e


def _check_values(piece: SumPiece, what: What) -> None:
    values = piece.values
    if values.ndim != 1 or piece.first + values.size > prod(piece.shape):
        raise WireError("a piece of a sum reaches beyond its array")
    largest = what.kind == "max" and values.dtype == np.float32
    whole = np.dtype(what.dtype).kind == "i"
    if not (values.dtype.kind in "iu" if whole else largest or values.dtype == np.float64):
        raise WireError(f"{piece.what} of a piece cannot be {values.dtype}")
