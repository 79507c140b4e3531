"""Arrival time from what a time tool found: the DAQ's fit, calibrated, with its quality judged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb import Feature, Value, reducer
from ffb.reducers.checks import noted
from ffb.reducers.quality import limits, polynomial_problems
from ffb.shot import Input


class Params(NamedTuple):
    """How a position becomes a time, and which fits are believed.

    ``polynomial`` [ps, ps/pixel, ps/pixel^2, ...] is the constant first, as in smalldata_tools'
    ``ttCalib``. ``position``, ``amplitude`` and ``fwhm`` are the least and the largest that a good
    fit has; without them any finite value will do. A position of exactly 0 is how the DAQ says
    that it found no edge. ``[0.0, 1.0]`` leaves a time as it is, for ``fltpos_ps``. To begin with,
    the facility's page on time tools has amplitudes above 0.05 and widths of 50 to 300 pixels.
    """

    polynomial: tuple[float, ...]
    position: tuple[float, float] | None = None
    amplitude: tuple[float, float] | None = None
    fwhm: tuple[float, float] | None = None


class Constants(NamedTuple):
    """The same: coefficients (n,) float64, limits (3, 2) of position, amplitude and width."""

    polynomial: NDArray[np.float64]
    limits: NDArray[np.float64]


class Arrival(NamedTuple):
    """When the x-rays came, relative to the laser."""

    time: Annotated[float, Feature("ps", "arrival time, NaN without a good fit")]
    good: Annotated[bool, Feature("1", "whether an edge was found and is within all limits")]
    reason: Annotated[
        int,
        Feature(
            "1",
            "why there is no time: 0 there is, 1 no edge found, 2 position, 3 amplitude or 4 fwhm"
            " beyond its limits",
        ),
    ]


@reducer(version=1)
def time_tool(position: Value, amplitude: Value, fwhm: Value, constants: Constants) -> Arrival:
    """Arrival time [ps] from the position, amplitude and width that psana's ``ttfex`` gives.

    Inputs are ``fltpos``, ``ampl`` and ``fltposfwhm``; ``time`` is the polynomial of the position,
    as smalldata_tools' ``ttCorr``. That gives 0 where no edge was found; here it is NaN, so that it
    cannot be taken for a time. ``delay`` corrects a scan by it, and filters can ask for more, such
    as ``tt.amplnxt < 0.5 * tt.ampl``.
    """
    c = constants
    reason = 0 if np.isfinite(position) and position != 0.0 else 1
    for k, value in enumerate((position, amplitude, fwhm)):
        if reason == 0 and not (value >= c.limits[k, 0] and value <= c.limits[k, 1]):
            reason = k + 2
    good = reason == 0
    time = 0.0
    for k in range(c.polynomial.size - 1, -1, -1):
        time = time * position + c.polynomial[k]
    return Arrival(time if good else np.nan, good, reason)


@time_tool.prepare
def checked(params: Params, inputs: Mapping[str, Input]) -> Constants:
    """Check the limits; ``ValueError`` lists what cannot be."""
    problems = polynomial_problems("polynomial", params.polynomial)
    table = np.empty((3, 2))
    for k, name in enumerate(("position", "amplitude", "fwhm")):
        with noted(problems):
            table[k] = limits(name, getattr(params, name))
    if problems:
        raise ValueError("\n".join(problems))
    return Constants(np.array(params.polynomial, np.float64), table)


def example() -> tuple[Params, dict[str, Input]]:
    """Parameters, and inputs to try them on."""
    value = Input("value", "<f8", (), "1")
    names = ("position", "amplitude", "fwhm")
    return Params((0.5, 0.002), amplitude=(0.05, 1e3)), dict.fromkeys(names, value)
