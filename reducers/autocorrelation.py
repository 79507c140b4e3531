"""Masked spatial autocorrelation of an image: speckle size and shape of one shot.

Sums over pairs of pixels are float64. Over short distances they are taken directly: where most
pixels are 0, as in a photon map, those that are lit meet their surroundings, one row of distances
at a time; else rows meet rows. What the mean needs of pairs follows from sums over windows and from
the pixels that are not valid, or from those that are, whichever are fewer: no pass over the image
for each distance. Where all that would take longer, Fourier transforms make the sums.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb import Axis, Feature, Image, Vector, reducer
from ffb.loops.compile import kernel
from ffb.reducers import fourier
from ffb.shot import Input

F64 = NDArray[np.float64]

#: Which pixels are looked for: those that are not 0, those that are not valid, those that are.
LIT, BAD, GOOD = range(3)

#: What a pixel that meets its surroundings costs, in products of rows with rows, as measured: one
#: that is lit, and one that is not valid, or is, in all sums together.
LONE, MASKED = 3, 6


class Params(NamedTuple):
    """``lag`` is the largest distance in pixels, along rows and columns.

    ``photon`` is what one photon leaves in a pixel, 1 in a photon map: with it distance 0 is
    without shot noise, which correlates each photon with itself. Pixels below ``low`` or above
    ``high`` count as 0, as with ``thresADU`` of smalldata_tools.
    """

    lag: int = 8
    photon: float = 0.0
    low: float = -np.inf
    high: float = np.inf


class Correlation(NamedTuple):
    """The autocorrelation; 1 where pixels that far apart know nothing of each other."""

    correlation: Annotated[
        Vector,
        Feature("1", "<I I'> over <I> <I'>, of pairs of valid pixels", ("row", "col"), "<f8"),
    ]
    pairs: Annotated[Vector, Feature("1", "pairs of valid pixels", ("row", "col"), "<i8")]
    zero: Annotated[
        float, Feature("1", "at distance 0: <I^2> over <I>^2, without shot noise given a photon")
    ]


class Places(NamedTuple):
    """Pixels in raster order, and their values."""

    row: NDArray[np.int32]
    col: NDArray[np.int32]
    value: F64


@kernel
def _padded(image: Any, lag: int, low: float, high: float) -> Any:
    """Values and 1 for valid pixels, 0 where there are none, ``lag`` columns more on each side.

    Values that are not between ``low`` and ``high`` are 0.
    """
    rows, cols = image.shape
    values, valid = np.zeros((rows, cols + 2 * lag)), np.zeros((rows, cols + 2 * lag))
    for r in range(rows):
        line, value, good = image[r], values[r, lag : lag + cols], valid[r, lag : lag + cols]
        for i in range(line.size):
            x = np.float64(line[i])
            known = (x > -np.inf) & (x < np.inf)
            value[i] = x if known & (x >= low) & (x <= high) else 0.0
            good[i] = 1.0 if known else 0.0
    return values, valid


@kernel
def _places(values: Any, valid: Any, lag: int, which: int) -> Places:
    """Places of the pixels that are looked for; of those that are not valid the value is 1."""
    cols, n = values.shape[1] - 2 * lag, 0
    for r in range(values.shape[0]):
        for i in range(lag, lag + cols):
            lit, good = values[r, i] != 0.0, valid[r, i] != 0.0
            n += lit if which == LIT else good if which == GOOD else not good
    out = Places(np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n))
    n = 0
    for r in range(values.shape[0]):
        for i in range(lag, lag + cols):
            lit, good = values[r, i] != 0.0, valid[r, i] != 0.0
            if lit if which == LIT else good if which == GOOD else not good:
                out.row[n], out.col[n] = r, i - lag
                out.value[n] = values[r, i] if good else 1.0
                n += 1
    return out


@kernel
def _around(places: Places, weighted: bool, others: Any, lag: int, up: bool) -> Any:
    """Sum over ``places`` of what is in ``others`` at each distance, down or up from them.

    (lag + 1, 2 lag + 1): rows of distance 0 to ``lag``, columns of -``lag`` to ``lag``.
    """
    out = np.zeros((lag + 1, 2 * lag + 1))
    for at in range(places.row.size):
        r, c = places.row[at], places.col[at]
        weight = places.value[at] if weighted else 1.0
        for dr in range(min(lag, r if up else others.shape[0] - 1 - r) + 1):
            line = others[r - dr if up else r + dr, c : c + 2 * lag + 1]
            into = out[dr]
            for i in range(line.size):
                into[i] += weight * line[i]
    return out


@kernel
def _rows_with_rows(values: Any, lag: int) -> Any:
    """Sum of products of values at each distance, as :func:`_around` gives it."""
    rows, cols = values.shape[0], values.shape[1] - 2 * lag
    out = np.zeros((lag + 1, 2 * lag + 1))
    for dr in range(lag + 1):
        for r in range(rows - dr):
            here, there = values[r, lag : lag + cols], values[r + dr]
            for j in range(2 * lag + 1):
                line, total = there[j : j + cols], 0.0
                for i in range(here.size):
                    total += here[i] * line[i]
                out[dr, j] += total
    return out


@kernel
def _windows(values: Any, lag: int, up: bool) -> Any:
    """Sum over the pixels that have a partner at each distance, down or up, in the image."""
    rows, cols = values.shape[0], values.shape[1] - 2 * lag
    out, column = np.zeros((lag + 1, 2 * lag + 1)), np.zeros(cols)
    for dr in range(lag, -1, -1):
        many = rows - lag if dr == lag else 1
        for k in range(many):
            r = lag + k if up else k
            if dr < lag:
                r = dr if up else rows - 1 - dr
            line = values[r, lag : lag + cols]
            for i in range(line.size):
                column[i] += line[i]
        for j in range(2 * lag + 1):
            dc = j - lag if up else lag - j
            line, total = column[max(0, dc) : min(cols, cols + dc)], 0.0
            for i in range(line.size):
                total += line[i]
            out[dr, j] = total
    return out


@reducer(version=3)
def autocorrelation(image: Image, params: Params) -> Correlation:
    """Autocorrelation of an image over its valid pixels, those that are finite.

    ``image`` is the ``area`` of a ``roi``, of a photon map as well. For each distance (dr, dc),
    over all n pairs of valid pixels I, I' that far apart: n * sum(I I') / (sum(I) * sum(I')), which
    is what Fourier methods write as (I*I)(M*M) / ((I*M)(M*I)) with the mask M. Distance 0 is in
    the middle, where it belongs; (dr, dc) and (-dr, -dc) are equal. There I I is I (I - photon).
    NaN where no pairs are, or nothing to divide by. The larger number of smalldata_tools'
    ``save_range`` is ``lag``; its line-outs are the middle row and column.
    """
    lag, (rows, cols) = params.lag, image.shape
    values, valid = _padded(image, lag, params.low, params.high)
    lit, number = _places(values, valid, lag, LIT), int(valid.sum())
    few, pixels = lit.row.size, rows * cols
    work = LONE * few if 2 * few < pixels else pixels
    work += MASKED * min(number, pixels - number)
    if few > 0 and work * (lag + 1) * (2 * lag + 1) > fourier.cost(rows, cols, lag):
        both, n, first, second = fourier.correlate(values, valid, lag)
    else:
        if 2 * few < pixels:
            both = _around(lit, True, values, lag, False)
        else:
            both = _rows_with_rows(values, lag)
        if 2 * number < pixels:
            good = _places(values, valid, lag, GOOD)
            n = _around(good, False, valid, lag, False)
            first = _around(good, True, valid, lag, False)
            second = _around(good, False, values, lag, False)
        else:
            n = _windows(valid, lag, False)
            first, second = _windows(values, lag, False), _windows(values, lag, True)
            if number < pixels:
                bad = _places(values, valid, lag, BAD)
                # A good pixel's partner is one in the window, and not a bad one.
                n -= _around(bad, False, valid, lag, True)[:, ::-1]
                first -= _around(bad, False, values, lag, True)[:, ::-1]
                second -= _around(bad, False, values, lag, False)
    both[0, lag] -= params.photon * first[0, lag]
    correlation = np.full((2 * lag + 1, 2 * lag + 1), np.nan)
    pairs = np.zeros((2 * lag + 1, 2 * lag + 1), np.int64)
    for dr in range(lag + 1):
        for j in range(lag if dr == 0 else 0, 2 * lag + 1):
            product = first[dr, j] * second[dr, j]
            known = n[dr, j] > 0.0 and product != 0.0
            value = n[dr, j] * both[dr, j] / product if known else np.nan
            for r, c in ((lag + dr, j), (lag - dr, 2 * lag - j)):
                correlation[r, c], pairs[r, c] = value, np.int64(n[dr, j])
    return Correlation(correlation, pairs, correlation[lag, lag])


@autocorrelation.prepare
def checked(params: Params, inputs: Mapping[str, Input]) -> Params:
    """Check the distance against the image; ``ValueError`` where it reaches beyond."""
    size = min(inputs["image"].shape)
    problems = []
    if not 0 <= params.lag < size:
        problems.append(f"lag: {params.lag} pixels; the image allows 0 to {size - 1}")
    if not 0 <= params.photon < np.inf:
        problems.append(
            f"photon: {params.photon} is not the value of a photon; 0 leaves shot noise in"
        )
    if not params.low < params.high:
        problems.append(f"high: {params.high} is not above low, {params.low}: nothing is left")
    if problems:
        raise ValueError("\n".join(problems))
    return params


@autocorrelation.axes
def lags(params: Params, constants: Params) -> dict[str, Axis]:
    """Distances along rows and columns."""
    axis = Axis(np.arange(-params.lag, params.lag + 1.0), "pixel")
    return {"row": axis, "col": axis}


def example() -> tuple[Params, dict[str, Input]]:
    """Parameters, and an input to try them on."""
    return Params(3, 2.0), {"image": Input("value", "<f4", (9, 14), "keV")}
