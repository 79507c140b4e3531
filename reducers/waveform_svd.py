"""Pulses of a waveform as sums of the shapes that a basis holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb import Axis, Feature, Vector, Waveform, reducer
from ffb.reducers.svd_basis import Basis, load
from ffb.reducers.trace import common_problems, gate_problem
from ffb.shot import Input


class Params(NamedTuple):
    """Which shapes, and when their pulses come.

    ``basis`` is a file that ``svd_basis.save`` wrote; the first ``components`` of its shapes are
    used. ``dt`` [ns] is the distance of samples. ``delays`` [ns] are those of the pulses after the
    one the basis was made of, the first usually 0. ``baseline`` is the gate whose mean is
    subtracted, nothing is if it is left out. ``reconstructed`` keeps the sum of the pulses.
    """

    basis: Path
    dt: float
    components: int = 2
    delays: tuple[float, ...] = (0.0,)
    baseline: tuple[int, int] | None = None
    reconstructed: bool = False


class Constants(NamedTuple):
    """The projection, made once.

    ``shapes`` (components, samples) of a pulse, ``model`` (pulses components, samples) the same
    moved by the delays, ``inverse`` its pseudo-inverse, transposed.
    """

    shapes: NDArray[np.float64]
    model: NDArray[np.float64]
    inverse: NDArray[np.float64]
    start: int
    before: int
    after: int
    reconstructed: bool


class Projection(NamedTuple):
    """Coefficients, and what they amount to.

    NaN or infinity in the basis' gate or the baseline makes NaN.
    """

    coefficients: Annotated[
        Vector, Feature("@", "how much of each shape", ("pulse", "component"), "<f8")
    ]
    intensity: Annotated[
        Vector, Feature("@", "largest sample of each pulse, rebuilt by itself", ("pulse",), "<f8")
    ]
    norm: Annotated[
        Vector, Feature("@", "root of the squares of each pulse's coefficients", ("pulse",), "<f8")
    ]
    score: Annotated[float, Feature("1", "part of the variance that the pulses explain, R2")]
    baseline: Annotated[float, Feature("@", "mean of the baseline gate, 0 without one")]
    reconstructed: Annotated[
        Vector,
        Feature("@", "all pulses, above the baseline", ("sample",), "<f4", when="reconstructed"),
    ]


@reducer(version=2)
def waveform_svd(waveform: Waveform, constants: Constants) -> Projection:
    """Pulses of a waveform as sums of the shapes that a basis holds.

    Least squares by a projection made once. Shapes moved by a delay leave zeros behind, between
    samples they lie on straight lines; smalldata_tools rolls them round instead. ``score`` is
    1 - sum (y - model)^2 / sum (y - mean y)^2, NaN for a waveform without variance.
    """
    c = constants
    baseline = 0.0
    for i in range(c.before, c.after):
        baseline += np.float64(waveform[i])
    baseline = baseline / max(c.after - c.before, 1) if np.isfinite(baseline) else np.nan
    number, size = c.shapes.shape
    pulses = c.model.shape[0] // number
    y, rest = np.empty(size), np.empty(size)
    total = 0.0
    for i in range(size):
        y[i] = np.float64(waveform[c.start + i]) - baseline
        total += y[i] - y[0]  # 0 of a level, whose mean could be rounded
    if not np.isfinite(total):
        y[:] = np.nan
    mean = y[0] + total / size
    squares, variance = 0.0, 0.0
    coefficients = np.empty((pulses, number))
    for k in range(pulses):
        for j in range(number):
            weights, product = c.inverse[k * number + j], 0.0
            for i in range(size):
                product += weights[i] * y[i]
            coefficients[k, j] = product
    rest[:] = y
    for k in range(pulses):
        for j in range(number):
            shape, factor = c.model[k * number + j], coefficients[k, j]
            for i in range(size):
                rest[i] -= factor * shape[i]
    reconstructed = np.empty(size if c.reconstructed else 0)
    for i in range(reconstructed.size):
        reconstructed[i] = y[i] - rest[i]
    for i in range(size):
        squares += rest[i] * rest[i]
        variance += (y[i] - mean) * (y[i] - mean)
    intensity, norm = np.empty(pulses), np.empty(pulses)
    for k in range(pulses):
        rest[:], length = 0.0, 0.0
        for j in range(number):
            shape, factor = c.shapes[j], coefficients[k, j]
            length += factor * factor
            for i in range(size):
                rest[i] += factor * shape[i]
        largest = rest[0]
        for i in range(size):
            largest = rest[i] if rest[i] > largest else largest
        intensity[k], norm[k] = largest, np.sqrt(length)
    score = 1.0 - squares / variance if variance > 0.0 else np.nan
    return Projection(coefficients, intensity, norm, score, baseline, reconstructed)


def _moved(shapes: NDArray[np.float64], delay: float) -> NDArray[np.float64]:
    """Shapes ``delay`` samples later, on straight lines, zero where there was nothing."""
    at = np.arange(shapes.shape[1])
    return np.stack([np.interp(at - delay, at, s, left=0.0, right=0.0) for s in shapes])


@waveform_svd.prepare
def check(params: Params, inputs: Mapping[str, Input]) -> Constants:
    """Read the basis and make the projection; ``ValueError`` lists what does not fit."""
    p, (size,) = params, inputs["waveform"].shape
    problems = gate_problem("baseline", p.baseline, size) + common_problems(p.dt, 1)
    basis = Basis(np.zeros((1, 1)), np.zeros(1), 0)
    try:
        basis = load(p.basis)
    except ValueError as e:
        problems.append(f"basis: {e}")
    else:
        held, length = basis.components.shape
        if not 1 <= p.components <= held:
            problems.append(f"components: {p.components}; {p.basis} holds {held}")
        if not 0 <= basis.start <= size - length:
            problems.append(
                f"basis: its samples {basis.start}..{basis.start + length} are not part of the"
                f" waveform, which has 0..{size}"
            )
    shapes = np.ascontiguousarray(basis.components[: max(p.components, 1)])
    reach = shapes.shape[1] * p.dt
    if not p.delays or not all(abs(d) < reach for d in p.delays):
        problems.append(f"delays: {list(p.delays)} ns; one or more, within {reach:g} ns")
    if problems:
        raise ValueError("\n".join(problems))
    model = np.concatenate([_moved(shapes, d / p.dt) for d in p.delays])
    if np.linalg.matrix_rank(model) < len(model):
        raise ValueError(f"delays: {list(p.delays)} ns; the pulses cannot be told apart")
    before, after = p.baseline or (0, 0)
    inverse = np.ascontiguousarray(np.linalg.pinv(model).T)
    return Constants(shapes, model, inverse, basis.start, before, after, p.reconstructed)


@waveform_svd.axes
def axes(params: Params, constants: Constants) -> dict[str, Axis]:
    """Times of the samples that are reconstructed, if they are kept."""
    if not params.reconstructed:
        return {}
    at = constants.start + np.arange(constants.shapes.shape[1])
    return {"sample": Axis(at * params.dt, "ns")}


def example() -> tuple[Params, dict[str, Input]]:
    """Parameters, and an input to try them on; the basis is of Gaussians of varied width."""
    basis = Path(__file__).with_name("example_basis.npz")
    params = Params(basis, 0.5, 2, (0.0, 8.25), baseline=(0, 25), reconstructed=True)
    return params, {"waveform": Input("value", "<u2", (100,), "V")}
