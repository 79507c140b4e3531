"""Moments and the main line of a single-shot spectrum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb import Feature, Waveform, reducer
from ffb.loops.compile import kernel
from ffb.reducers.gauss import FWHM, fit_gauss
from ffb.reducers.highest import highest
from ffb.reducers.quality import energies, polynomial_problems
from ffb.shot import Input

#: A fit is over so many pixels on either side at least: twice as many as it has parameters.
LEAST = 4


class Params(NamedTuple):
    """Where the spectrum lies and what its pixels mean.

    ``polynomial`` [eV, eV/pixel, ...], constant first, makes an energy of a pixel's number in the
    profile; without it, the energies that come with a profile (``curved_projection`` gives them,
    by its own ``polynomial``), or else the numbers of the pixels. ``region`` and ``baseline`` are
    half-open ranges of pixels: what is looked at (all of it without), and what the mean of is taken
    off first (nothing without). ``without`` are pixels that are left out everywhere, as dead
    columns. Pixels below ``threshold``, above the baseline, count for no moment. The line is fitted
    over ``reach`` of its full widths at half maximum on either side; ``inf`` takes all of the
    region. None is sought where the highest pixel is less than ``height`` above the baseline: in
    noise alone a fit takes long, and finds something.
    """

    polynomial: tuple[float, ...] = ()
    region: tuple[int, int] | None = None
    baseline: tuple[int, int] | None = None
    threshold: float = -np.inf
    without: tuple[int, ...] = ()
    reach: float = 2.0
    height: float = -np.inf


class Constants(NamedTuple):
    """The same, checked, with the ``energy`` (n,) of every pixel of the region.

    ``kept`` (n,) is 0.0 for pixels left out and 1.0 for the others, ``npix`` of them; ``base`` are
    the pixels of the baseline.
    """

    start: int
    stop: int
    base: NDArray[np.int64]
    kept: NDArray[np.float64]
    npix: int
    threshold: float
    reach: float
    height: float
    energy: NDArray[np.float64]


class Lines(NamedTuple):
    """What is known of the spectrum; NaN where too little of it is."""

    sum: Annotated[float, Feature("@", "sum of the pixels above the threshold")]
    mean: Annotated[float, Feature("eV", "mean energy, weighted; NaN unless the sum is positive")]
    rms: Annotated[float, Feature("eV", "weighted standard deviation of the energy")]
    skew: Annotated[
        float, Feature("1", "weighted skewness of the energy: positive with a tail to high energy")
    ]
    npix: Annotated[int, Feature("1", "pixels of the region that are finite and not left out")]
    peak: Annotated[float, Feature("eV", "centre of the fitted Gaussian, NaN without a fit")]
    height: Annotated[float, Feature("@", "its height above the constant beneath it")]
    fwhm: Annotated[float, Feature("eV", "its full width at half maximum")]
    constant: Annotated[float, Feature("@", "the constant beneath it")]
    fitted: Annotated[bool, Feature("1", "whether the fit came to rest within the region")]


@kernel
def between(values: NDArray[np.float64], at: float) -> Any:
    """Value at a fractional place, linear between its neighbours."""
    i = min(max(int(at), 0), values.size - 2)
    return values[i] + (at - i) * (values[i + 1] - values[i])


@kernel
def level(profile: Any, base: NDArray[np.int64]) -> Any:
    """Mean of the pixels ``base`` that are finite; 0 of none asked for, NaN of none there."""
    total, n = 0.0, 0
    for k in range(base.size):
        v = np.float64(profile[base[k]])
        total += v if np.isfinite(v) else 0.0
        n += np.isfinite(v)
    return total / n if n else (0.0 if base.size == 0 else np.nan)


@kernel
def leave_out(y: NDArray[np.float64], good: NDArray[np.float64]) -> Any:
    """Make ``good`` 0.0 where ``y`` is not finite, and ``y`` wherever it is; how many are left."""
    n = 0
    for i in range(y.size):
        if not np.isfinite(y[i]) or good[i] == 0.0:
            good[i], y[i] = 0.0, 0.0
        n += good[i] != 0.0
    return n


@kernel
def peak_of(y: NDArray[np.float64], good: NDArray[np.float64]) -> Any:
    """First of the highest pixels, and the value of the least; of the good ones, at least one."""
    up, down = np.empty(y.size), np.empty(y.size)
    for i in range(y.size):
        up[i] = y[i] if good[i] != 0.0 else -np.inf
        down[i] = -y[i] if good[i] != 0.0 else -np.inf
    return highest(up), y[highest(down)]


@kernel
def half_width(y: NDArray[np.float64], at: int, half: float) -> Any:
    """How far from ``at`` both flanks are below ``half``, by means of three: noise is no flank."""
    left, right, last = at, at, y.size - 1
    while left > 1 and y[left] + y[left - 1] + y[left - 2] > 3.0 * half:
        left -= 1
    while right < last - 1 and y[right] + y[right + 1] + y[right + 2] > 3.0 * half:
        right += 1
    return max(right - left, 1)


@kernel
def fit_line(y: Any, good: Any, at: int, least: float, reach: float, p: Any) -> Any:
    """Fit ``p`` to the line around ``at``; whether that came to rest.

    What is fitted widens until it reaches far enough for the width that was found, so the width at
    half height needs to be known only roughly.
    """
    p[0], p[1], p[3] = y[at] - least, at, least
    p[2] = half_width(y, at, 0.5 * (y[at] + least)) / FWHM
    if not p[0] > 0.0:
        return False
    span = max(LEAST, int(min(reach * FWHM * p[2], y.size)) + 1)
    while True:
        first, last = max(at - span, 0), min(at + span + 1, y.size)
        p[1] -= first
        rests = fit_gauss(y[first:last], good[first:last], p)
        p[1] += first
        whole = first == 0 and last == y.size
        if whole or (rests and span >= min(reach * FWHM * p[2], y.size)):
            return rests
        if not rests:
            p[0], p[1], p[3] = y[at] - least, at, least
            p[2] = span / FWHM
        span *= 2


@reducer(version=3)
def spectrum(profile: Waveform, constants: Constants) -> Lines:
    """Moments of a profile over an energy axis, and a Gaussian fitted to its highest line.

    ``profile`` is a spectrometer's trace, or the ``sum`` of ``projection`` or
    ``curved_projection``. Moments are over pixels of at least the threshold, as they are, so a
    negative pixel counts negative. The fit is least squares of height, centre, width and a
    constant, over the surroundings of the highest pixel, of equal ones the first: other lines do
    not pull it. Pixels that are not finite are left out, and ``npix`` tells how many were left.
    """
    c, nan, energy = constants, np.nan, constants.energy
    below = level(profile, c.base)
    part, y, good = profile[c.start : c.stop], np.empty(energy.size), c.kept.copy()
    every, n = 0.0, c.npix
    for i in range(y.size):
        y[i] = np.float64(part[i]) - below
        every += y[i]
    if n < y.size or not np.isfinite(every):
        n = leave_out(y, good)
    total, first, threshold, origin = 0.0, 0.0, c.threshold, energy[0]
    for i in range(y.size):
        kept = good[i] * (y[i] if y[i] >= threshold else 0.0)
        total += kept
        first += kept * (energy[i] - origin)
    if n == 0 or not np.isfinite(total):
        return Lines(nan, nan, nan, nan, n, nan, nan, nan, nan, False)
    mean, rms, skew = nan, nan, nan
    if total > 0.0:
        mean, second, third = first / total + origin, 0.0, 0.0
        for i in range(y.size):
            kept, away = good[i] * (y[i] if y[i] >= threshold else 0.0), energy[i] - mean
            second += kept * away * away
            third += kept * away * away * away
        rms = np.sqrt(second / total) if second >= 0.0 else nan
        skew = third / total / (rms * rms * rms) if rms > 0.0 else nan
    at, least = peak_of(y, good)
    p = np.empty(4)
    if y[at] < c.height or not fit_line(y, good, at, least, c.reach, p):
        return Lines(total, mean, rms, skew, n, nan, nan, nan, nan, False)
    i = min(max(int(p[1]), 0), y.size - 2)
    width = abs(p[2] * FWHM * (energy[i + 1] - energy[i]))
    return Lines(total, mean, rms, skew, n, between(energy, p[1]), p[0], width, p[3], True)


@spectrum.prepare
def checked(params: Params, inputs: Mapping[str, Input]) -> Constants:
    """Check ranges against the profile; ``ValueError`` lists what does not fit."""
    (size,) = inputs["profile"].shape
    problems = polynomial_problems("polynomial", params.polynomial) if params.polynomial else []
    start, stop = params.region or (0, size)
    before, after = params.baseline or (0, 0)
    for name, (a, b), least in (("region", (start, stop), 5), ("baseline", (before, after), 1)):
        given = getattr(params, name) is not None or name == "region"
        if given and not (a >= 0 and a + least <= b <= size):
            problems.append(
                f"{name}: [{a}, {b}] will not do; the profile has pixels 0..{size}, and at least"
                f" {least} are needed"
            )
    if off := [k for k in params.without if not 0 <= k < size]:
        problems.append(f"without: {off} are no pixels of the profile, which has 0..{size - 1}")
    levels = {"threshold": params.threshold, "height": params.height}
    problems += [f"{name}: nan must be a number" for name, v in levels.items() if np.isnan(v)]
    if not params.reach > 0:
        problems.append(f"reach: {params.reach} widths; give a number above 0")
    left = np.setdiff1d(np.arange(before, after), params.without)
    if not problems and before < after and not left.size:
        problems.append("baseline: without leaves nothing of it")
    if problems:
        raise ValueError("\n".join(problems))
    kept = ~np.isin(np.arange(start, stop), params.without)
    profile = inputs["profile"]
    if params.polynomial:
        energy = energies(params.polynomial, np.arange(start, stop))
    elif profile.coords_unit != "eV":
        energy = np.arange(start, stop, dtype=np.float64)
    else:
        energy = np.array(profile.coords[start:stop])
    return Constants(
        start, stop, left.astype(np.int64), kept.astype(np.float64), int(kept.sum()),
        params.threshold, params.reach, params.height, energy.astype(np.float64),
    )  # fmt: skip


def example() -> tuple[Params, dict[str, Input]]:
    """Parameters, and an input to try them on."""
    params = Params((850.0, 0.25), region=(4, 60), baseline=(0, 4))
    return params, {"profile": Input("value", "<f8", (64,), "ADU")}
