"""Moments and the main peak of a single-shot spectrum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb import Feature, Waveform, reducer
from ffb.loops.compile import kernel
from ffb.reducers.gauss import FWHM, fit_gauss
from ffb.reducers.quality import polynomial_problems
from ffb.shot import Input


class Params(NamedTuple):
    """Where the spectrum lies and what its pixels mean.

    ``energy`` [eV, eV/pixel, ...], constant first, is the energy of a pixel by its number in the
    profile. ``region`` and ``baseline`` are half-open ranges of pixels: what is looked at (all of
    it without), and what the mean of is taken off first (nothing without). Pixels below
    ``threshold``, above the baseline, count for no moment.
    """

    energy: tuple[float, ...] = (0.0, 1.0)
    region: tuple[int, int] | None = None
    baseline: tuple[int, int] | None = None
    threshold: float = -np.inf


class Constants(NamedTuple):
    """The same, checked, with the ``energy`` (n,) of every pixel of the region."""

    start: int
    stop: int
    before: int
    after: int
    threshold: float
    energy: NDArray[np.float64]


class Lines(NamedTuple):
    """What is known of the spectrum; NaN where the profile is not finite."""

    sum: Annotated[float, Feature("@", "sum of the pixels above the threshold")]
    mean: Annotated[float, Feature("eV", "mean energy, weighted; NaN unless the sum is positive")]
    rms: Annotated[float, Feature("eV", "weighted standard deviation of the energy")]
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


@reducer(version=1)
def spectrum(profile: Waveform, constants: Constants) -> Lines:
    """Moments of a profile over an energy axis, and a Gaussian fitted to its highest line.

    ``profile`` is a spectrometer's trace, or the ``sum`` of ``projection`` or
    ``curved_projection``. Moments are over pixels of at least the threshold, as they are, so a
    negative pixel counts negative. The fit is least squares of height, centre, width and a
    constant over the whole region, begun at the highest pixel.
    """
    c, nan = constants, np.nan
    below = 0.0
    for i in range(c.before, c.after):
        below += np.float64(profile[i])
    below /= max(c.after - c.before, 1)
    y = np.empty(c.stop - c.start)
    total, first, highest, least = 0.0, 0.0, 0, 0
    for i in range(y.size):
        y[i] = np.float64(profile[c.start + i]) - below
        kept = y[i] if y[i] >= c.threshold or y[i] != y[i] else 0.0
        total += kept
        first += kept * (c.energy[i] - c.energy[0])
        highest = i if y[i] > y[highest] else highest
        least = i if y[i] < y[least] else least
    if not np.isfinite(total):
        return Lines(nan, nan, nan, nan, nan, nan, nan, False)
    mean = first / total + c.energy[0] if total > 0.0 else nan
    second = 0.0
    for i in range(y.size):
        kept = y[i] if y[i] >= c.threshold else 0.0
        second += kept * (c.energy[i] - mean) ** 2
    rms = np.sqrt(second / total) if second >= 0.0 else nan
    p = np.empty(4)
    p[0], p[1], p[3] = y[highest] - y[least], highest, y[least]
    half, left, right = 0.5 * (y[highest] + y[least]), highest, highest
    while left > 0 and y[left] > half:
        left -= 1
    while right < y.size - 1 and y[right] > half:
        right += 1
    p[2] = max(right - left, 1) / FWHM
    if not p[0] > 0.0 or not fit_gauss(y, p):
        return Lines(total, mean, rms, nan, nan, nan, nan, False)
    i = min(max(int(p[1]), 0), y.size - 2)
    width = abs(p[2] * FWHM * (c.energy[i + 1] - c.energy[i]))
    return Lines(total, mean, rms, between(c.energy, p[1]), p[0], width, p[3], True)


@spectrum.prepare
def checked(params: Params, inputs: Mapping[str, Input]) -> Constants:
    """Check ranges against the profile; ``ValueError`` lists what does not fit."""
    (size,) = inputs["profile"].shape
    problems = polynomial_problems("energy", params.energy)
    start, stop = params.region or (0, size)
    before, after = params.baseline or (0, 0)
    for name, (a, b), least in (("region", (start, stop), 5), ("baseline", (before, after), 1)):
        given = getattr(params, name) is not None or name == "region"
        if given and not (a >= 0 and a + least <= b <= size):
            problems.append(
                f"{name}: [{a}, {b}] will not do; the profile has pixels 0..{size}, and at least"
                f" {least} are needed"
            )
    if np.isnan(params.threshold):
        problems.append("threshold: nan is no level")
    if problems:
        raise ValueError("\n".join(problems))
    energy = np.polynomial.polynomial.polyval(np.arange(start, stop), params.energy)
    return Constants(start, stop, before, after, params.threshold, energy.astype(np.float64))


def example() -> tuple[Params, dict[str, Input]]:
    """Parameters, and an input to try them on."""
    params = Params((850.0, 0.25), region=(4, 60), baseline=(0, 4))
    return params, {"profile": Input("value", "<f8", (64,), "ADU")}
