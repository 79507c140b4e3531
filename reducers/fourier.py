"""Correlations of an image and its mask by Fourier transforms, for distances that are not small.

Compiled code cannot call scipy's transforms. These are Stockham's (see Van Loan, Computational
Frameworks for the Fast Fourier Transform, 1992): factors of 4, 5, 3 and 2, no reordering, and some
columns at a time, so that what is worked on stays in the cache and neighbouring columns make the
vectors. Real and imaginary parts are arrays of their own: an inverse is a transform with the two
exchanged.
"""

from __future__ import annotations

from math import cos, pi, sin
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.loops.compile import borrowed, kernel

F64 = NDArray[np.float64]

#: Columns that are transformed together: some hundred rows of them fit into the second cache.
COLUMNS = 32

#: Rows that are turned into columns together.
TILE = 16

#: What a pixel costs for each factor of 2 in their number, as measured, in products of a direct sum
#: over rows; of what can be summed up, what is below its rounding.
PRODUCTS, ROUNDING = 40.0, 1e-13


@kernel
def good_size(n: int) -> Any:
    """Least length of at least ``n`` that has no factors but 2, 3 and 5."""
    while True:
        rest = n
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return n
        n += 1


class Correlated(NamedTuple):
    """Sums over pairs of pixels, of :func:`correlate`, each (down + 1, 2 across + 1) float64."""

    both: F64
    pairs: F64
    first: F64
    second: F64


@kernel
def cost(rows: int, columns: int, down: int, across: int) -> Any:
    """Products that could be summed up directly while :func:`correlate` is at work."""
    size = good_size(rows + down) * good_size(columns + across)
    return PRODUCTS * size * np.log2(size)


@kernel
def correlate(values: F64, valid: F64, down: int, across: int) -> Correlated:
    """Sums over all pairs of pixels at each distance: 0 to ``down`` rows, -/+ ``across`` columns.

    ``values`` are 0 where pixels are not ``valid``, which is 0 or 1, and not all are 0; both are
    (rows, ``across`` + columns + ``across``), 0 at the sides.
    ``both`` is the sum of I I', ``pairs`` their number, ``first`` the sum of I over pairs and
    ``second`` that of I'. Of ``both`` the error is some 1e-15 of the sum of I^2; ``first`` and
    ``second`` are 0 where they are below what rounding makes of 0.
    """
    rows, columns = values.shape[0], values.shape[1] - 2 * across
    power, number = 0.0, 0.0
    for r in range(rows):
        here, good = values[r], valid[r]
        for i in range(here.size):
            power += here[i] * here[i]
        for i in range(here.size):
            number += good[i]
    norm = np.sqrt(power / number)  # so that neither drowns the other
    shape = (good_size(rows + down), good_size(columns + across))
    re, im = np.zeros(shape), np.zeros(shape)
    for r in range(rows):
        here, good = values[r, across : across + columns], valid[r, across : across + columns]
        for i in range(columns):
            re[r, i], im[r, i] = here[i] / norm, good[i]
    turned_re, turned_im = np.zeros(shape[::-1]), np.zeros(shape[::-1])
    work = np.empty((4, max(shape) * COLUMNS))
    _along(re, im, columns, turned_re, turned_im, work)
    _along(turned_re, turned_im, shape[0], re, im, work)
    image, mask, cross = _products(re, im)
    many, found = shape[1], np.empty((4, down + 1, shape[1]))
    for at, back_im, back_re in ((0, mask, image), (2, cross, cross)):
        _along(back_im, back_re, many, turned_re, turned_im, work)
        _along(turned_re, turned_im, down + 1, found[at], found[at + 1], work)
    pairs, both, second, first = found[0], found[1], found[2], found[3]
    size, none = shape[0] * shape[1], ROUNDING * number
    room = np.zeros((4, down + 1, 2 * across + 1))
    out = Correlated(room[0], room[1], room[2], room[3])
    for r in range(down + 1):
        for j in range(2 * across + 1):
            c = (j - across) % many
            out.both[r, j] = both[r, c] / size * norm**2
            out.pairs[r, j] = np.rint(pairs[r, c] / size)
            for into, sums in ((out.first, first), (out.second, second)):
                value = sums[r, c] / size
                into[r, j] = value * norm if abs(value) > none else 0.0
    return out


@kernel
def _products(re: F64, im: F64) -> Any:
    """Spectra of what is asked for, from that of image + i mask.

    With the transforms I and M of the two: I I*, M M*, and the sum of the real and the imaginary
    part of I* M. Its inverse, with i times the same, is ``first`` + i ``second``.
    """
    rows, columns = re.shape
    power, mask, cross = np.empty(re.shape), np.empty(re.shape), np.empty(re.shape)
    back_re, back_im = np.empty(columns), np.empty(columns)
    for r in range(rows):
        z_re, z_im, other = re[r], im[r], (rows - r) % rows
        for c in range(columns):
            back_re[c] = re[other, (columns - c) % columns]
            back_im[c] = im[other, (columns - c) % columns]
        p, m, x = power[r], mask[r], cross[r]
        for c in range(columns):
            p[c] = 0.25 * ((z_re[c] + back_re[c]) ** 2 + (z_im[c] - back_im[c]) ** 2)
        for c in range(columns):
            m[c] = 0.25 * ((z_im[c] + back_im[c]) ** 2 + (back_re[c] - z_re[c]) ** 2)
        for c in range(columns):
            i_re, i_im = z_re[c] + back_re[c], z_im[c] - back_im[c]
            m_re, m_im = z_im[c] + back_im[c], back_re[c] - z_re[c]
            x[c] = 0.25 * (i_re * (m_re + m_im) + i_im * (m_im - m_re))
    return power, mask, cross


@kernel
def _along(re: F64, im: F64, count: int, out_re: F64, out_im: F64, work: F64) -> None:
    """Transform the first ``count`` columns of ``re`` + i ``im``, into as many rows of ``out``.

    ``work`` has room for four times :data:`COLUMNS` of them.
    A step makes of ``factor`` runs of elements, which lie ``left`` / ``factor`` strides apart, as
    many that follow each other. What is written in a loop is one array, or it does not vectorise.
    """
    rows, angle = re.shape[0], -2 * pi / re.shape[0]
    turn_re, turn_im = np.empty(rows), np.empty(rows)
    for k in range(rows):
        turn_re[k], turn_im[k] = cos(angle * k), sin(angle * k)
    work = borrowed(work)
    for first in range(0, count, COLUMNS):
        many = min(COLUMNS, count - first)
        for from_, to in ((re, work[0]), (im, work[1])):
            for r in range(rows):
                line, into = from_[r, first : first + many], to[r * many : (r + 1) * many]
                for i in range(many):
                    into[i] = line[i]
        left, stride, at = rows, many, 0
        while left > 1:
            factor = 4 if left % 4 == 0 else 2 if left % 2 == 0 else 3 if left % 3 == 0 else 5
            part = left // factor
            for q in range(part):
                for k in range(factor):
                    begin = stride * (factor * q + k)
                    y_re = work[2 - at, begin : begin + stride]
                    y_im = work[3 - at, begin : begin + stride]
                    y_re[:] = 0.0
                    y_im[:] = 0.0
                    for r in range(factor):
                        turn = (k * (r * (rows // factor) + q * (rows // left))) % rows
                        c, s = turn_re[turn], turn_im[turn]
                        begin = stride * (q + part * r)
                        x_re = work[at, begin : begin + stride]
                        x_im = work[at + 1, begin : begin + stride]
                        for i in range(stride):
                            y_re[i] += x_re[i] * c - x_im[i] * s
                        for i in range(stride):
                            y_im[i] += x_re[i] * s + x_im[i] * c
            left, stride, at = part, stride * factor, 2 - at
        for from_, to in ((work[at], out_re), (work[at + 1], out_im)):
            for begin in range(0, rows, TILE):
                end = min(begin + TILE, rows)
                for i in range(many):
                    column = to[first + i, begin:end]
                    for r in range(begin, end):
                        column[r - begin] = from_[r * many + i]
