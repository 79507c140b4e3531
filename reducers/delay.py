"""Delay between pump and probe in ps, and the same corrected by a time tool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, NamedTuple

import numpy as np

from ffb import Feature, Value, reducer
from ffb.shot import Input

#: Picoseconds in a unit of time; a stage in mm moves light by as much for each pass.
UNITS = {"s": 1e12, "ns": 1e3, "ps": 1.0, "fs": 1e-3, "mm": 1.0 / 0.299792458}


class Params(NamedTuple):
    """What the stage's numbers mean.

    ``unit`` is theirs: ``"s"`` (``lxt``), ``"ns"``, ``"ps"`` (``lasDelay``), ``"fs"``, or ``"mm"``
    of a stage that light passes ``passes`` times, there and back. ``zero``, in the same unit, is
    where pump and probe meet. ``sign`` is +1 where larger numbers of the stage are longer delays;
    ``correction`` is +1 where the arrival time is added, -1 where it is taken off, as the sign of
    the time tool's polynomial has it.
    """

    unit: str
    zero: float = 0.0
    sign: int = 1
    correction: int = 1
    passes: int = 2


class Constants(NamedTuple):
    """ps of a unit of the stage, with its sign; its zero; the sign of the correction."""

    scale: float
    zero: float
    correction: float


class Delay(NamedTuple):
    """How much later than the pump the probe came; NaN where that is not known."""

    nominal: Annotated[float, Feature("ps", "delay by the stage alone")]
    corrected: Annotated[
        float, Feature("ps", "the same with the arrival time, NaN without one: never the nominal")
    ]


@reducer(version=1)
def delay(stage: Value, arrival: Value, constants: Constants) -> Delay:
    """Delay by a stage, and corrected shot by shot by the arrival time [ps] of a time tool.

    ``nominal`` is sign (stage - zero) in ps, positive where the probe (the x-rays) comes after the
    pump (the laser); ``corrected`` adds the arrival time. ``stage`` is one column, such as
    ``scan/lxt`` or ``enc/lasDelay``: what moves together must not be counted twice. For a coarse
    and a fine one, ``corrected`` of the first is the ``arrival`` of the second. Both are columns
    like any other: axes of scans and cubes, in filters, in the file. No reducer takes a derived
    number: where the arrival time is one, write the delay under ``[derived]``, too.
    """
    c = constants
    nominal = c.scale * (stage - c.zero)
    return Delay(nominal, nominal + c.correction * arrival)


@delay.prepare
def checked(params: Params, inputs: Mapping[str, Input]) -> Constants:
    """Check unit and signs; ``ValueError`` lists what cannot be."""
    problems = []
    if params.unit not in UNITS:
        known = ", ".join(map(repr, UNITS))
        problems.append(f"unit: there is no {params.unit!r}; known: {known}")
    if not np.isfinite(params.zero):
        problems.append(f"zero: {params.zero} is not a position of the stage")
    signs = {"sign": params.sign, "correction": params.correction}
    problems += [f"{n}: {v} is neither 1 nor -1" for n, v in signs.items() if v not in (1, -1)]
    if params.passes < 1:
        problems.append(f"passes: light passes the stage at least once, not {params.passes} times")
    if problems:
        raise ValueError("\n".join(problems))
    passes = params.passes if params.unit == "mm" else 1
    scale = params.sign * passes * UNITS[params.unit]
    return Constants(scale, params.zero, float(params.correction))


def example() -> tuple[Params, dict[str, Input]]:
    """Parameters, and inputs to try them on."""
    inputs = {"stage": Input("value", "<f8", (), "s"), "arrival": Input("value", "<f8", (), "ps")}
    return Params("s", zero=3.4e-9), inputs
