"""Compare a dataset of one file with that of another, shot by shot, in bounded memory.

Exports :func:`shots`, :func:`wholes`, :class:`Limits` and :class:`Result`. Shots are compared in
order of time, block by block, so that files of any size and any order can be.

What is missing is not compared: a NaN, an integer that a flag says is not there, a light that is
unknown, and in files of others -99999; where the other file has no value, a 0 of theirs is taken
for missing as well, and told. A shot for which both have nothing is equal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.reading.align import Pairs
from ffb.reading.blocks import BLOCK, Blocks, Mask
from ffb.reading.sides import Item

TEXT = "SUO"


class Limits(NamedTuple):
    """Two numbers agree within ``absolute`` + ``relative`` × the larger magnitude."""

    relative: float = 0.0
    absolute: float = 0.0


@dataclass
class Result:
    """What came of a dataset; ``agrees`` is the verdict.

    Of the ``common`` shots, which both have or both lack, ``equal`` agree; ``only`` are those of
    which one file alone has a value. ``apart`` and ``relative`` are the largest differences, the
    latter relative to the larger magnitude, NaN where a number meets what is none; ``first`` is the
    timestamp of the first shot that differs. Of a dataset of the whole run ``shots`` is false, and
    its elements are counted.
    """

    name: str
    shots: bool = True
    common: int = 0
    equal: int = 0
    only: tuple[int, int] = (0, 0)
    apart: float = 0.0
    relative: float = 0.0
    first: int | None = None
    agrees: bool = True
    notes: list[str] = field(default_factory=list)

    def refuse(self, why: str) -> Result:
        """The datasets cannot be compared, and so do not agree."""
        self.agrees = False
        self.notes.append(why)
        return self

    def widen(self, found: Elements) -> None:
        """Take over what a block says of the largest differences."""
        if found.apart.size:
            self.apart = float(np.maximum(self.apart, found.apart.max()))
            self.relative = float(np.maximum(self.relative, found.relative.max()))


class Elements(NamedTuple):
    """Which elements do not agree, and how far every one is apart, also relatively."""

    differ: Mask
    apart: NDArray[np.float64]
    relative: NDArray[np.float64]


def elements(a: NDArray[Any], b: NDArray[Any], limits: Limits) -> Elements:
    """Compare arrays of one shape; NaN equals NaN, and infinity itself.

    Integers and truths are compared exactly; how far they are apart is told in float64. A number is
    infinitely far from infinity; how far it is from NaN, or a text from a text, is NaN.
    """
    if a.dtype == b.dtype and a.dtype.kind != "O" and a.tobytes() == b.tobytes():
        nothing = np.zeros(a.shape)
        return Elements(nothing != 0, nothing, nothing)
    if a.dtype.kind in TEXT:
        differ = _text(a) != _text(b)
        apart = np.where(differ, np.nan, 0.0)
        return Elements(differ, apart, apart)
    wide = np.complex128 if "c" in (a.dtype.kind, b.dtype.kind) else np.float64
    x, y = a.astype(wide), b.astype(wide)
    with np.errstate(all="ignore"):
        if a.dtype.kind in "biu" and b.dtype.kind in "biu":
            apart = np.where(a == b, 0, np.maximum(np.abs(x - y), 1))
        else:
            apart = np.where((x == y) | (np.isnan(x) & np.isnan(y)), 0, np.abs(x - y))
        size = np.maximum(np.abs(x), np.abs(y))
        close = np.isfinite(apart) & (apart <= limits.absolute + limits.relative * size)
        return Elements(~close & (apart != 0), apart, np.where(apart == 0, 0, apart / size))


def _text(values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype.kind == "S":
        return np.char.decode(values, "utf-8", "replace")
    return values.astype(str)


def shots(
    result: Result,
    sides: tuple[Item, Item],
    pairs: Pairs,
    stamps: NDArray[np.uint64],
    limits: Limits,
) -> Result:
    """Compare a dataset with a value or a list a shot.

    ``pairs`` are the rows of both sides that belong together, in order of time, and ``stamps``
    (n,) their timestamps. ``result`` comes with the shots that have no partner in ``only``; those
    are no fault of the dataset.
    """
    if why := _incomparable(sides):
        return result.refuse(why)
    one, two = (Blocks(item, rows) for item, rows in zip(sides, pairs, strict=True))
    step, zeros = min(one.fitting, two.fitting), [0, 0]
    for begin in range(0, len(stamps), step):
        block = slice(begin, begin + step)
        if sides[0].lists:
            differ, found = _lists(one, two, block, limits)
            absent = [np.zeros(len(differ), np.bool_)] * 2
        else:
            a, b = one.values(block), two.values(block)
            absent = [one.absent(block, a), two.absent(block, b)]
            _fill(sides, (a, b), absent, zeros)
            both = ~absent[0] & ~absent[1]
            found = elements(a[both], b[both], limits)
            differ = np.zeros(len(both), np.bool_)
            differ[both] = found.differ.any(axis=1)
        alone = absent[1] & ~absent[0], absent[0] & ~absent[1]
        common = len(differ) - int(alone[0].sum() + alone[1].sum())
        result.common += common
        result.equal += common - int(differ.sum())
        result.only = result.only[0] + int(alone[0].sum()), result.only[1] + int(alone[1].sum())
        result.widen(found)
        unlike = differ | alone[0] | alone[1]
        if unlike.any():
            result.agrees = False
            if result.first is None:
                result.first = int(stamps[begin + int(np.argmax(unlike))])
    result.notes += [f"{n:,} missing are 0 in {s}" for n, s in zip(zeros, "AB", strict=True) if n]
    return result


def _fill(
    sides: tuple[Item, Item],
    values: tuple[NDArray[Any], NDArray[Any]],
    absent: list[Mask],
    zeros: list[int],
) -> None:
    """Take a 0 for missing where that is what it may mean, and the other side has no value."""
    for i in (0, 1):
        if sides[i].filled and values[i].dtype.kind not in TEXT:
            zero = absent[1 - i] & ~absent[i] & (values[i] == 0).all(axis=1)
            absent[i] = absent[i] | zero
            zeros[i] += int(zero.sum())


def _lists(one: Blocks, two: Blocks, block: slice, limits: Limits) -> tuple[Mask, Elements]:
    """Which shots have other lists, and the entries of those that are equally long."""
    a, b = one.lists(block), two.lists(block)
    alike = a.lengths == b.lengths
    taken = [r.values[np.repeat(alike, r.lengths)].reshape(-1, *r.values.shape[1:]) for r in (a, b)]
    found = elements(taken[0], taken[1], limits)
    wrong = found.differ.any(axis=tuple(range(1, found.differ.ndim)))
    shot = np.repeat(np.flatnonzero(alike), a.lengths[alike])
    return ~alike | (np.bincount(shot[wrong], minlength=len(alike)) > 0), found


def wholes(result: Result, sides: tuple[Item, Item], limits: Limits) -> Result:
    """Compare a dataset of the whole run, element by element."""
    result.shots = False
    if why := _incomparable(sides):
        return result.refuse(why)
    a, b = (side.data for side in sides)
    if a.dtype.kind == "O":
        a, b = (x.asstr(errors="replace") for x in (a, b))
    shape = sides[0].data.shape
    size = prod(shape) * 8
    step = max(1, BLOCK * shape[0] // max(1, size)) if shape else 1
    for begin in range(0, shape[0] if shape else 1, step):
        part = slice(begin, begin + step) if shape else ()
        found = elements(np.asarray(a[part]), np.asarray(b[part]), limits)
        result.common += found.differ.size
        result.equal += int(found.differ.size - found.differ.sum())
        result.widen(found)
    result.agrees = result.equal == result.common
    return result


def _incomparable(sides: tuple[Item, Item]) -> str:
    """Why the datasets cannot be compared, ``""`` if they can."""
    a, b = sides
    kinds = [np.dtype(s.data.dtype).kind for s in sides]
    if (a.table is None) != (b.table is None):
        which = "A" if b.table is None else "B"
        return f"a value a shot in {which} only"
    if a.lists != b.lists:
        return f"lists in {'A' if a.lists else 'B'} only"
    if "V" in kinds:
        return "compound values are not compared"
    if (kinds[0] in TEXT) != (kinds[1] in TEXT):
        return f"text in {'A' if kinds[0] in TEXT else 'B'} only"
    shapes = [tuple(s.data.shape[0 if s.table is None else 1 :]) for s in sides]
    if a.table is not None:  # (n, 1) and (n,) hold the same
        shapes = [tuple(k for k in shape if k != 1) for shape in shapes]
    if not a.lists and shapes[0] != shapes[1]:
        return "shapes " + " and ".join(" × ".join(map(str, s)) or "scalar" for s in shapes)
    return ""
