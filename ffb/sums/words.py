"""What a frame sum adds up, by the words of smalldata_tools, and how parts of it are merged.

A *sum* is of frames, pixel by pixel, over the shots of a run, apart for each state of the lights
and each step where that is asked for. What is added is named by tokens, ``calib_thresADU5_nhits``:

- ``calib`` or ``raw`` first: values as reducers see them, or an area detector's own words, gain
  bits included;
- ``thresADU<x>``: pixels below x, in calibrated units, count as 0, whatever the sign of x;
- ``square``, ``max`` or ``nhits``: squares are added, the largest value is kept, or shots are
  counted in which the pixel, after the threshold, is above 0; without any, values are added.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import product
from math import isfinite
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

#: Beside every sum: how many values went into each pixel. Bad pixels have none.
COUNTS = "counts"

#: Lights by which a sum can be divided, and states of a light, by its value in a row.
LIGHTS = ("xray", "laser")
STATES = {0: "off", 1: "on", -1: "unknown"}

#: Tokens of other tools, and what to do instead.
_INSTEAD = {
    "img": "sums have the detector's own shape; assemble the image when you look at it",
    "dropped": 'with light = ["xray"] there is a sum of shots without x-rays',
    "skipFirst": "no shot is left out here",
}

_KINDS = ("square", "max", "nhits")
_NUMBER = r"thresADU(-?\d+(?:\.\d+)?(?:e-?\d+)?)"


class What(NamedTuple):
    """What is added up: ``name`` says it in tokens, ``kind`` is how.

    ``of`` is ``"calib"``, ``"raw"`` or ``"counts"``; ``kind`` is ``"sum"``, ``"square"``,
    ``"max"`` or ``"nhits"``; pixels below ``least`` count as 0, ``None`` for no threshold.
    """

    name: str
    of: str
    kind: str
    least: float | None = None

    def held(self, value: str) -> str:
        """Type of what a producer holds for each pixel, whose values are of type ``value``."""
        if self.kind == "nhits":
            return "<u4"
        if self.of == "raw":
            return "<i8"
        return np.promote_types(value, "<f4").str if self.kind == "max" else "<f8"

    @property
    def dtype(self) -> str:
        """Type of the merged sum."""
        return "<i8" if self.of in {"raw", COUNTS} or self.kind == "nhits" else "<f8"

    @property
    def doc(self) -> str:
        """What the dataset is, in a sentence."""
        if self.of == COUNTS:
            return "values in each pixel's sum: its shots, less those in which it was bad"
        value = (
            "value, as reducers see it" if self.of == "calib" else "raw word, gain bits included"
        )
        if self.least is not None:
            value += f", 0 where below {self.least:g}"
        return {
            "sum": f"sum over shots of the {value}",
            "square": f"sum over shots of the square of the {value}",
            "max": f"largest of all shots of the {value}; missing where there was none",
            "nhits": f"shots with the {value}, above 0",
        }[self.kind]

    def unit(self, pixel: str) -> str:
        """Unit of the sum, of a calibrated ``pixel``'s."""
        if self.of == COUNTS or self.kind == "nhits":
            return "1"
        own = "ADU" if self.of == "raw" else pixel
        return f"{own}^2" if self.kind == "square" else own

    def begin(self, shape: tuple[int, ...]) -> NDArray[Any]:
        """Sum of no shots, in the merged type."""
        out = np.zeros(shape, self.dtype)
        if self.kind == "max":
            out[...] = -np.inf if out.dtype.kind == "f" else np.iinfo(out.dtype).min
        return out

    def merge(self, into: NDArray[Any], other: NDArray[Any]) -> None:
        """Merge what ``other`` holds ``into`` a sum: the largest is the larger one, all else adds.

        Whole numbers are exact; floats are rounded to 2^-53 for each addition, so that the order
        of ``n`` parts changes a sum by at most n 2^-53 of the sum of magnitudes.
        """
        if self.kind == "max":
            np.maximum(into, other, out=into)
        else:
            np.add(into, other, out=into)


def what_of(name: str) -> What:
    """Read what is to be added up; ``ValueError`` with a sentence when that cannot be said so."""
    if name == COUNTS:
        return What(name, COUNTS, "sum")
    of, *tokens = name.split("_")
    if of not in {"calib", "raw"}:
        raise ValueError(f'{name!r}: begins with "calib" or "raw", such as "calib_thresADU5_nhits"')
    kinds, least = [], list[float]()
    for token in tokens:
        found = re.fullmatch(_NUMBER, token)
        if found and isfinite(float(found[1])):
            least.append(float(found[1]))
        elif token in _KINDS:
            kinds.append(token)
        elif token in _INSTEAD:
            raise ValueError(f"{name!r}: {token!r} is not used here: {_INSTEAD[token]}")
        else:
            known = ", ".join(("thresADU<number>", *_KINDS))
            raise ValueError(f"{name!r}: no token {token!r}; known: {known}")
    if len(kinds) > 1 or len(least) > 1:
        raise ValueError(f"{name!r}: takes one threshold and one of {', '.join(_KINDS)}")
    if of == "raw" and (least or "nhits" in kinds):
        raise ValueError(f"{name!r}: raw words have gain bits; thresholds are for calib")
    return What(name, of, kinds[0] if kinds else "sum", least[0] if least else None)


def label_of(lights: Sequence[str], states: Sequence[int]) -> str:
    """Name of the states of some lights: ``"xray_on_laser_off"``, ``""`` for no lights."""
    parts = (f"{k}_{STATES[s]}" for k, s in zip(lights, states, strict=True))
    return "_".join(parts)


def labels() -> Iterator[tuple[str, dict[str, int]]]:
    """Give every label there can be, with the state of each light in it."""
    for chosen in ((), *((k,) for k in LIGHTS), LIGHTS):
        for states in product(STATES, repeat=len(chosen)):
            yield label_of(chosen, states), dict(zip(chosen, states, strict=True))


#: States of the lights by label.
LABELS = dict(labels())
