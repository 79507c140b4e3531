"""Masked spatial autocorrelation of an image: speckle size and shape of one shot.

Sums over pairs of pixels are float64. Over short distances they are taken directly: where most
pixels are 0, as in a photon map, those that are lit meet their surroundings, one row of distances
at a time; else rows meet rows. What the mean needs of pairs follows from sums over windows and from
the pixels that are not valid, or from those that are, whichever are fewer: no pass over the image
for each distance. Where all that would take longer, Fourier transforms make the sums.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb import Area, Axis, Feature, Image, Vector, reducer
from ffb.loops.compile import kernel
from ffb.reducers import fourier
from ffb.reducers.checks import noted
from ffb.reducers.quality import levels
from ffb.reducers.shapes import array_from
from ffb.shot import Input

F64 = NDArray[np.float64]

#: Which pixels are looked for: those that are not 0, those that are not valid, those that are.
LIT, BAD, GOOD = range(3)

#: What a pixel that meets its surroundings costs, in products of rows with rows, as measured: one
#: that is lit, and one that is not valid, or is, in all sums together.
LONE, MASKED = 3, 6


class Params(NamedTuple):
    """``lag`` is the largest distance in pixels: [rows, columns], or one number for both.

    ``photon`` is what one photon leaves in a pixel, 1 in a photon map: with it distance 0 is
    without shot noise, which correlates each photon with itself. Pixels outside ``thresholds``,
    [least, largest], count as 0, as with ``thresADU`` of smalldata_tools. ``mask`` is a .npy file
    with the shape of the image, not 0 for good pixels: the others are not valid.
    """

    lag: int | tuple[int, int] = 8
    photon: float = 0.0
    thresholds: tuple[float, float] | None = None
    mask: Path | None = None

    @property
    def reach(self) -> tuple[int, int]:
        """Largest distance along rows and along columns."""
        return (self.lag, self.lag) if isinstance(self.lag, int) else self.lag


class Constants(NamedTuple):
    """The same, checked: ``down`` rows and ``across`` columns; ``good`` (rows, columns) bool."""

    down: int
    across: int
    photon: float
    low: float
    high: float
    good: NDArray[np.bool_]


class Correlation(NamedTuple):
    """The autocorrelation; 1 where pixels that far apart know nothing of each other."""

    correlation: Annotated[
        Vector,
        Feature("1", "<I I'> over <I> <I'>, of pairs of valid pixels", ("row", "col"), "<f8"),
    ]
    pairs: Annotated[Vector, Feature("1", "pairs of valid pixels", ("row", "col"), "<i8")]
    zero: Annotated[
        float, Feature("1", "correlation at distance 0, free of shot noise if photon is given")
    ]


class Places(NamedTuple):
    """Pixels in raster order, and their values."""

    row: NDArray[np.int32]
    col: NDArray[np.int32]
    value: F64


@kernel
def _padded(image: Any, mask: Any, across: int, low: float, high: float) -> Any:
    """Values and 1 for valid pixels, 0 where there are none, ``across`` columns more on each side.

    Values that are not between ``low`` and ``high`` are 0.
    """
    rows, cols = image.shape
    shape = (rows, cols + 2 * across)
    values, valid = np.zeros(shape), np.zeros(shape)
    for r in range(rows):
        line, use = image[r], mask[r]
        value, good = values[r, across : across + cols], valid[r, across : across + cols]
        for i in range(line.size):
            x = np.float64(line[i])
            known = (x > -np.inf) & (x < np.inf) & use[i]
            value[i] = x if known & (x >= low) & (x <= high) else 0.0
            good[i] = 1.0 if known else 0.0
    return values, valid


@kernel
def _places(values: Any, valid: Any, across: int, which: int) -> Places:
    """Places of the pixels that are looked for; of those that are not valid the value is 1."""
    cols, n = values.shape[1] - 2 * across, 0
    for r in range(values.shape[0]):
        for i in range(across, across + cols):
            lit, good = values[r, i] != 0.0, valid[r, i] != 0.0
            n += lit if which == LIT else good if which == GOOD else not good
    out = Places(np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n))
    n = 0
    for r in range(values.shape[0]):
        for i in range(across, across + cols):
            lit, good = values[r, i] != 0.0, valid[r, i] != 0.0
            if lit if which == LIT else good if which == GOOD else not good:
                out.row[n], out.col[n] = r, i - across
                out.value[n] = values[r, i] if good else 1.0
                n += 1
    return out


@kernel
def _around(places: Places, weighted: bool, others: Any, down: int, across: int, up: bool) -> Any:
    """Sum over ``places`` of what is in ``others`` at each distance, down or up from them.

    (down + 1, 2 across + 1): rows of distance 0 to ``down``, columns of -/+ ``across``.
    """
    out = np.zeros((down + 1, 2 * across + 1))
    for at in range(places.row.size):
        r, c = places.row[at], places.col[at]
        weight = places.value[at] if weighted else 1.0
        for dr in range(min(down, r if up else others.shape[0] - 1 - r) + 1):
            line = others[r - dr if up else r + dr, c : c + 2 * across + 1]
            into = out[dr]
            for i in range(line.size):
                into[i] += weight * line[i]
    return out


@kernel
def _rows_with_rows(values: Any, down: int, across: int) -> Any:
    """Sum of products of values at each distance, as :func:`_around` gives it."""
    rows, cols = values.shape[0], values.shape[1] - 2 * across
    out = np.zeros((down + 1, 2 * across + 1))
    for dr in range(down + 1):
        for r in range(rows - dr):
            here, there = values[r, across : across + cols], values[r + dr]
            for j in range(2 * across + 1):
                line, total = there[j : j + cols], 0.0
                for i in range(here.size):
                    total += here[i] * line[i]
                out[dr, j] += total
    return out


@kernel
def _windows(values: Any, down: int, across: int, up: bool) -> Any:
    """Sum over the pixels that have a partner at each distance, down or up, in the image."""
    rows, cols = values.shape[0], values.shape[1] - 2 * across
    out, column = np.zeros((down + 1, 2 * across + 1)), np.zeros(cols)
    for dr in range(down, -1, -1):
        many = rows - down if dr == down else 1
        for k in range(many):
            r = down + k if up else k
            if dr < down:
                r = dr if up else rows - 1 - dr
            line = values[r, across : across + cols]
            for i in range(line.size):
                column[i] += line[i]
        for j in range(2 * across + 1):
            dc = j - across if up else across - j
            line, total = column[max(0, dc) : min(cols, cols + dc)], 0.0
            for i in range(line.size):
                total += line[i]
            out[dr, j] = total
    return out


@kernel
def _directly(values: Any, valid: Any, lit: Places, down: int, across: int) -> fourier.Correlated:
    """Sums over all pairs, as :func:`fourier.correlate` gives them, without transforms."""
    pixels, number = values.shape[0] * (values.shape[1] - 2 * across), int(valid.sum())
    if 2 * lit.row.size < pixels:
        both = _around(lit, True, values, down, across, False)
    else:
        both = _rows_with_rows(values, down, across)
    if 2 * number < pixels:
        good = _places(values, valid, across, GOOD)
        n = _around(good, False, valid, down, across, False)
        first = _around(good, True, valid, down, across, False)
        second = _around(good, False, values, down, across, False)
    else:
        n = _windows(valid, down, across, False)
        first = _windows(values, down, across, False)
        second = _windows(values, down, across, True)
        if number < pixels:
            bad = _places(values, valid, across, BAD)
            # A good pixel's partner is one in the window, and not a bad one.
            n -= _around(bad, False, valid, down, across, True)[:, ::-1]
            first -= _around(bad, False, values, down, across, True)[:, ::-1]
            second -= _around(bad, False, values, down, across, False)
    return fourier.Correlated(both, n, first, second)


@reducer(version=3)
def autocorrelation(image: Image, constants: Constants) -> Correlation:
    """Autocorrelation of an image over its valid pixels, those that are finite and not masked.

    ``image`` is the ``area`` of a ``roi``, of a photon map as well. For each distance (dr, dc),
    over all n pairs of valid pixels I, I' that far apart: n * sum(I I') / (sum(I) * sum(I')), which
    is what Fourier methods write as (I*I)(M*M) / ((I*M)(M*I)) with the mask M. Distance 0 is in
    the middle, where it belongs; (dr, dc) and (-dr, -dc) are equal. At distance 0 the product is
    I (I - photon): no photon pairs with itself. NaN where there are no pairs, or nothing to divide
    by. ``lag`` is smalldata_tools' ``save_range``; its line-outs are the middle row and column.
    """
    k, (rows, cols) = constants, image.shape
    values, valid = _padded(image, k.good, k.across, k.low, k.high)
    lit, number = _places(values, valid, k.across, LIT), int(valid.sum())
    few, pixels = lit.row.size, rows * cols
    work = LONE * few if 2 * few < pixels else pixels
    work += MASKED * min(number, pixels - number)
    work *= (k.down + 1) * (2 * k.across + 1)
    if few > 0 and work > fourier.cost(rows, cols, k.down, k.across):
        both, n, first, second = fourier.correlate(values, valid, k.down, k.across)
    else:
        both, n, first, second = _directly(values, valid, lit, k.down, k.across)
    both[0, k.across] -= k.photon * first[0, k.across]
    shape = (2 * k.down + 1, 2 * k.across + 1)
    correlation, pairs = np.full(shape, np.nan), np.zeros(shape, np.int64)
    for dr in range(k.down + 1):
        for j in range(k.across if dr == 0 else 0, 2 * k.across + 1):
            product = first[dr, j] * second[dr, j]
            known = n[dr, j] > 0.0 and product != 0.0
            value = n[dr, j] * both[dr, j] / product if known else np.nan
            for r, c in ((k.down + dr, j), (k.down - dr, 2 * k.across - j)):
                correlation[r, c], pairs[r, c] = value, np.int64(n[dr, j])
    return Correlation(correlation, pairs, correlation[k.down, k.across])


@autocorrelation.prepare
def checked(params: Params, inputs: Mapping[str, Input]) -> Constants:
    """Check the parameters against the image; ``ValueError`` lists what does not fit."""
    shape = inputs["image"].shape
    problems = [*_lag_problems(params, shape)]
    if not 0 <= params.photon < np.inf:
        problems.append(
            f"photon: {params.photon} is not the value of a photon; 0 leaves shot noise in"
        )
    low, high = levels(params.thresholds, problems)
    good = np.ones(shape, np.bool_)
    with noted(problems):
        good &= _good(params.mask, shape) if params.mask is not None else True
    if problems:
        raise ValueError("\n".join(problems))
    return Constants(*params.reach, params.photon, low, high, good)


def _lag_problems(params: Params, shape: tuple[int, ...]) -> Iterator[str]:
    """A line for each distance that reaches beyond the image."""
    if isinstance(params.lag, int):
        if not 0 <= params.lag < min(shape):
            yield f"lag: {params.lag} pixels; the image allows 0 to {min(shape) - 1}"
        return
    for lag, size, what in zip(params.lag, shape, ("rows", "columns"), strict=True):
        if not 0 <= lag < size:
            yield f"lag: {lag} {what}; the image allows 0 to {size - 1}"


def _good(mask: Path, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Good pixels of a file; ``ValueError`` says what is wrong with it."""
    rows, cols = shape
    image = Area("the image", (1, rows, cols), np.ones((1, rows, cols), np.bool_), None, "1")
    good: NDArray[np.bool_] = array_from(image, mask, "mask")[0] != 0
    if not good.any():
        raise ValueError(f"mask: {mask} leaves no pixel of the image")
    return good


@autocorrelation.axes
def lags(params: Params, constants: Constants) -> dict[str, Axis]:
    """Distances along rows and columns."""
    down, across = constants.down, constants.across
    return {
        "row": Axis(np.arange(-down, down + 1.0), "pixel"),
        "col": Axis(np.arange(-across, across + 1.0), "pixel"),
    }


def example() -> tuple[Params, dict[str, Input]]:
    """Parameters, and an input to try them on."""
    return Params(3, 2.0), {"image": Input("value", "<f4", (9, 14), "keV")}
