"""Fit of a Gaussian on a constant to a profile, by Levenberg and Marquardt's method."""

from __future__ import annotations

from typing import Any

import numpy as np

from ffb.loops.compile import kernel

#: Rounds after which a fit is given up.
ROUNDS = 60

#: A fit rests when a step would move it by less than this, in widths and heights, if not damped.
REST = 1e-7

#: Full width at half maximum of a Gaussian of sigma 1.
FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))


@kernel
def solve(matrix: Any, right: Any) -> Any:
    """Solve a symmetric positive system in place by Cholesky; false where it is not positive."""
    n = right.size
    for j in range(n):
        for i in range(j, n):
            s = matrix[i, j]
            for k in range(j):
                s -= matrix[i, k] * matrix[j, k]
            if i == j:
                if not s > 0.0:
                    return False
                matrix[j, j] = np.sqrt(s)
            else:
                matrix[i, j] = s / matrix[j, j]
    for i in range(n):
        for k in range(i):
            right[i] -= matrix[i, k] * right[k]
        right[i] /= matrix[i, i]
    for i in range(n - 1, -1, -1):
        for k in range(i + 1, n):
            right[i] -= matrix[k, i] * right[k]
        right[i] /= matrix[i, i]
    return True


@kernel
def normal(y: Any, good: Any, p: Any, bell: Any, matrix: Any, right: Any) -> Any:
    """Fill the normal equations of height, centre, sigma and constant ``p``; sum of squares.

    All of their elements are sums of bell^a u^b, u the distance from the centre in sigmas: what
    can be done for several samples at once is in a loop without ``exp``, which cannot.
    """
    height, centre, narrow, constant = p[0], p[1], 1.0 / p[2], p[3]
    for i in range(bell.size):
        u = (i - centre) * narrow
        bell[i] = good[i] * np.exp(-0.5 * u * u)
    b, bu, buu, n, total = 0.0, 0.0, 0.0, 0.0, 0.0
    bb, bbu, bbuu, bbuuu, bbuuuu = 0.0, 0.0, 0.0, 0.0, 0.0
    r, rb, rbu, rbuu = 0.0, 0.0, 0.0, 0.0
    for i in range(bell.size):
        u, one = (i - centre) * narrow, bell[i]
        two, three = one * u, one * u * u
        rest = good[i] * (y[i] - constant) - height * one
        b, bu, buu, n, total = b + one, bu + two, buu + three, n + good[i], total + rest * rest
        bb, bbu, bbuu = bb + one * one, bbu + one * two, bbuu + two * two
        bbuuu, bbuuuu = bbuuu + two * three, bbuuuu + three * three
        r, rb, rbu, rbuu = r + rest, rb + rest * one, rbu + rest * two, rbuu + rest * three
    a = height * narrow
    matrix[0, 0], matrix[1, 0], matrix[2, 0], matrix[3, 0] = bb, a * bbu, a * bbuu, b
    matrix[1, 1], matrix[2, 1], matrix[3, 1] = a * a * bbuu, a * a * bbuuu, a * bu
    matrix[2, 2], matrix[3, 2], matrix[3, 3] = a * a * bbuuuu, a * buu, n
    right[0], right[1], right[2], right[3] = rb, a * rbu, a * rbuu, r
    return total


@kernel
def copy(here: Any, there: Any) -> None:
    """Copy one row to another; slices would do, and take a second to compile."""
    for k in range(here.size):
        there[k] = here[k]


@kernel
def fit_gauss(y: Any, good: Any, p: Any) -> Any:
    """Improve ``p`` (4,): height, centre, sigma, constant, to the least squares of ``y``.

    Centre and sigma are in samples. ``good`` is 1.0, and 0.0 for samples that are left out, whose
    ``y`` must be finite. Returns whether it came to rest within the profile.
    """
    matrix, right, trial = np.zeros((4, 4)), np.empty(4), np.empty(4)
    damped, step, bell = np.zeros((4, 4)), np.empty(4), np.empty(y.size)
    total, damping = normal(y, good, p, bell, matrix, right), 1e-3
    for _ in range(ROUNDS):
        copy(right, step)
        for a in range(4):
            copy(matrix[a], damped[a])
            damped[a, a] += damping * (matrix[a, a] + 1e-300)
        better, moved = solve(damped, step), 0.0
        if better:
            for a in range(4):
                trial[a] = p[a] + step[a]
            moved = (abs(step[1]) + abs(step[2])) / p[2] + abs(step[0] / trial[0])
            better = (trial[2] > 0.0) & (trial[2] < 10.0 * y.size)
        small = False
        if better:
            small = moved * (1.0 + damping) < REST
            after = normal(y, good, trial, bell, damped, step)
            better = after <= total
        if better:
            small |= (total - after) * (1.0 + damping) <= 1e-12 * total
            copy(trial, p)
            copy(step, right)
            for a in range(4):
                copy(damped[a], matrix[a])
            total, damping = after, damping * 0.1
        else:
            damping *= 10.0
        if small:
            return (p[1] >= 0.0) & (p[1] <= y.size - 1.0)
        if damping > 1e12:
            break
    return False
