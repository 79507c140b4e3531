"""Masked spatial autocorrelation of an image: speckle size and shape of one shot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, NamedTuple

import numpy as np

from ffb import Axis, Feature, Image, Vector, reducer
from ffb.shot import Input


class Params(NamedTuple):
    """``lag`` is the largest distance in pixels, along rows and columns."""

    lag: int = 8


class Correlation(NamedTuple):
    """The autocorrelation; 1 where pixels that far apart know nothing of each other."""

    correlation: Annotated[
        Vector,
        Feature("1", "<I I'> over <I> <I'>, of pairs of valid pixels", ("row", "col"), "<f8"),
    ]
    pairs: Annotated[Vector, Feature("1", "pairs of valid pixels", ("row", "col"), "<i8")]
    zero: Annotated[float, Feature("1", "at distance 0: <I^2> over <I>^2")]


@reducer(version=1)
def autocorrelation(image: Image, params: Params) -> Correlation:
    """Autocorrelation of an image over its valid pixels, those that are not NaN.

    ``image`` is the ``area`` of a ``roi``. For each distance (dr, dc), over all n pairs of valid
    pixels I, I' that far apart: n * sum(I I') / (sum(I) * sum(I')), which is what Fourier methods
    write as (I*I)(M*M) / ((I*M)(M*I)) with the mask M. Distance 0 is in the middle, where it
    belongs; (dr, dc) and (-dr, -dc) are equal. NaN where no pairs are.
    """
    lag, (rows, cols) = params.lag, image.shape
    correlation = np.full((2 * lag + 1, 2 * lag + 1), np.nan)
    pairs = np.zeros((2 * lag + 1, 2 * lag + 1), np.int64)
    for dr in range(lag + 1):
        for dc in range(-lag if dr else 0, lag + 1):
            left, right = max(0, -dc), min(cols, cols - dc)
            n, both, first, second = 0.0, 0.0, 0.0, 0.0
            for r in range(rows - dr):
                a, b = image[r, left:right], image[r + dr, left + dc : right + dc]
                for i in range(a.size):
                    valid = (a[i] == a[i]) & (b[i] == b[i])
                    x = np.float64(a[i]) if valid else 0.0
                    y = np.float64(b[i]) if valid else 0.0
                    n += 1.0 if valid else 0.0
                    both += x * y
                    first += x
                    second += y
            value = n * both / (first * second) if first * second != 0.0 else np.nan
            for sign in (-1, 1):
                correlation[lag + sign * dr, lag + sign * dc] = value
                pairs[lag + sign * dr, lag + sign * dc] = np.int64(n)
    return Correlation(correlation, pairs, correlation[lag, lag])


@autocorrelation.prepare
def checked(params: Params, inputs: Mapping[str, Input]) -> Params:
    """Check the distance against the image; ``ValueError`` where it reaches beyond."""
    size = min(inputs["image"].shape)
    if not 0 <= params.lag < size:
        raise ValueError(f"lag: {params.lag} pixels; the image allows 0 to {size - 1}")
    return params


@autocorrelation.axes
def lags(params: Params, constants: Params) -> dict[str, Axis]:
    """Distances along rows and columns."""
    axis = Axis(np.arange(-params.lag, params.lag + 1.0), "pixel")
    return {"row": axis, "col": axis}


def example() -> tuple[Params, dict[str, Input]]:
    """Parameters, and an input to try them on."""
    return Params(3), {"image": Input("value", "<f4", (9, 14), "keV")}
