"""Limits within which a fit is believed, and polynomials, as parameters state them."""

from __future__ import annotations

import numpy as np


def limits(name: str, given: tuple[float, float] | None) -> tuple[float, float]:
    """Least and largest value of ``name``; any finite one without limits.

    Raises ``ValueError`` with a sentence where nothing could lie between them.
    """
    if given is None:
        largest = float(np.finfo(np.float64).max)
        return -largest, largest
    low, high = given
    if not low <= high:  # NaN too
        raise ValueError(f"{name}: nothing lies between {low} and {high}; the least comes first")
    return low, high


def polynomial_problems(name: str, coefficients: tuple[float, ...]) -> list[str]:
    """What is wrong with a polynomial's coefficients, if anything."""
    if not coefficients or not np.isfinite(coefficients).all():
        return [
            f"{name}: {list(coefficients)} is not a polynomial; give finite numbers, constant first"
        ]
    return []
