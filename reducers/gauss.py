"""Fit of a Gaussian on a constant to a profile, by Levenberg and Marquardt's method."""

from __future__ import annotations

from typing import Any

import numpy as np

from ffb.loops.compile import kernel

#: Rounds after which a fit is given up.
ROUNDS = 60

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
def normal(y: Any, p: Any, matrix: Any, right: Any) -> Any:
    """Fill the normal equations of height, centre, sigma and constant ``p``; sum of squares."""
    matrix[:] = 0.0
    right[:] = 0.0
    total = 0.0
    slope = np.empty(4)
    for i in range(y.size):
        u = (i - p[1]) / p[2]
        bell = np.exp(-0.5 * u * u)
        rest = y[i] - p[0] * bell - p[3]
        slope[0], slope[3] = bell, 1.0
        slope[1] = p[0] * bell * u / p[2]
        slope[2] = slope[1] * u
        for a in range(4):
            right[a] += slope[a] * rest
            for b in range(4):
                matrix[a, b] += slope[a] * slope[b]
        total += rest * rest
    return total


@kernel
def fit_gauss(y: Any, p: Any) -> Any:
    """Improve ``p`` (4,): height, centre, sigma, constant, to the least squares of ``y``.

    Centre and sigma are in samples. Returns whether it came to rest within the profile.
    """
    matrix, right, trial = np.empty((4, 4)), np.empty(4), np.empty(4)
    damped, step = np.empty((4, 4)), np.empty(4)
    total, damping = normal(y, p, matrix, right), 1e-3
    for _ in range(ROUNDS):
        damped[:] = matrix
        step[:] = right
        for a in range(4):
            damped[a, a] += damping * (matrix[a, a] + 1e-300)
        better = solve(damped, step)
        if better:
            trial[:] = p + step
            better = (trial[2] > 0.0) & (trial[2] < 10.0 * y.size)
        if better:
            after = normal(y, trial, damped, step)
            better = after <= total
        if not better:
            damping *= 10.0
            if damping > 1e12:
                break
            continue
        small = total - after <= 1e-12 * total
        p[:], matrix[:], right[:] = trial, damped, step
        total, damping = after, damping * 0.1
        if small:
            return (p[1] >= 0.0) & (p[1] <= y.size - 1.0)
    return False
