"""Limits of a fit that is believed, thresholds of pixels, polynomials, as parameters state them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Largest energy of a photon that is believed [eV].
HIGHEST = 1e6


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


def levels(thresholds: tuple[float, float] | None, problems: list[str]) -> tuple[float, float]:
    """Least and largest value of a pixel that counts; infinite without ``thresholds``.

    Both are inside. Appends to ``problems`` what is no pair of them.
    """
    low, high = thresholds or (-np.inf, np.inf)
    if not low <= high:  # NaN too
        problems.append(f"thresholds: [{low:g}, {high:g}]; give two values, the lower first")
    return low, high


def polynomial_problems(name: str, coefficients: tuple[float, ...]) -> list[str]:
    """What is wrong with a polynomial's coefficients, if anything."""
    if not coefficients or not np.isfinite(coefficients).all():
        return [
            f"{name}: {list(coefficients)} is not a polynomial; give finite numbers, constant first"
        ]
    return []


def energies(coefficients: tuple[float, ...], pixels: NDArray[Any]) -> NDArray[np.float64]:
    """Energies [eV] of ``pixels`` by a polynomial, constant first.

    Raises ``ValueError`` where all are the same, or one is beyond any photon's of such a source:
    the coefficients are those of another order then, or one is missing.
    """
    found: NDArray[np.float64] = np.polynomial.polynomial.polyval(pixels, coefficients)
    if np.ptp(found) == 0 or np.abs(found).max() > HIGHEST:
        raise ValueError(
            f"polynomial: {list(coefficients)} are energies of {found.min():g} to {found.max():g}"
            " eV; give the constant [eV] first, then eV/pixel"
        )
    return found
