"""Pulses of a known shape, fitted to a waveform."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb import Feature, Vector, Waveform, reducer
from ffb.loops.compile import kernel
from ffb.reducers.numpy_file import read
from ffb.reducers.trace import common_problems, gate_problem, median
from ffb.shot import Input


class Params(NamedTuple):
    """What a pulse looks like, how many there are, and where.

    ``dt`` [ns] is the distance of samples. ``template`` is a file: ``.npy`` with one array, or
    ``.npz`` with one called ``template``, samples of a pulse that goes up from 0, ``dt`` apart;
    instead, ``width`` [ns] takes a Gaussian of that full width at half maximum. ``pulses`` are
    fitted at once, in ``gate``, everywhere if left out. ``sign`` is -1 for pulses that go down.
    Samples that reach ``saturation``, in the waveform's own unit, are left out, or cost nothing
    where the fit is beyond them if ``one_sided``. ``noise`` is the standard deviation of a sample,
    for chi2.
    """

    dt: float
    template: Path | None = None
    width: float = 0.0
    pulses: int = 1
    gate: tuple[int, int] | None = None
    sign: int = 1
    saturation: float | None = None
    one_sided: bool = False
    noise: float = 1.0


class Constants(NamedTuple):
    """The same, checked.

    ``shape`` (samples + 2,) float64 is the template times ``sign`` between two zeros, ``peak`` its
    largest sample; a sample is saturated if it, times ``sign``, reaches ``saturation``.
    """

    shape: NDArray[np.float64]
    peak: int
    dt: float
    pulses: int
    start: int
    stop: int
    sign: float
    saturation: float
    one_sided: bool
    noise: float


class Fit(NamedTuple):
    """Pulses in the order of time; all NaN if there was nothing to fit."""

    amplitude: Annotated[Vector, Feature("@", "factors of the template", ("pulse",), "<f8")]
    time: Annotated[
        Vector, Feature("ns", "where the template's peak is, from sample 0", ("pulse",), "<f8")
    ]
    baseline: Annotated[float, Feature("@", "level below the pulses")]
    chi2: Annotated[float, Feature("1", "squares of the residuals over noise, by freedom")]
    nsat: Annotated[int, Feature("1", "saturated samples in the gate")]
    converged: Annotated[bool, Feature("1", "whether the fit came to rest in its steps")]


#: How near to a sample a pulse comes to rest where the straight lines have an edge there, samples.
EDGE = 1e-2

#: Most steps of the fit, and the relative change of the squares that ends it: in chi2 that is far
#: below what one sample's noise does. On straight lines the least squares may lie on an edge
#: between two samples, where steps get short long before they are 0.
STEPS = 100
REST = 1e-9


@kernel
def _shape_at(shape: NDArray[np.float64], u: float) -> Any:
    """The template ``u`` samples from its first, on straight lines, and its slope."""
    if not 0.0 <= u < shape.size - 1:
        return 0.0, 0.0
    k = int(u)
    slope = shape[k + 1] - shape[k]
    return shape[k] + (u - k) * slope, slope


@kernel
def _residual(
    c: Constants, data: NDArray[np.float64], full: NDArray[np.bool_], p: NDArray[np.float64], i: int
) -> Any:
    """What the data are above the model at ``i``; 0 where that costs nothing."""
    model = p[0]
    for k in range(c.pulses):
        model += p[1 + 2 * k] * _shape_at(c.shape, i - p[2 + 2 * k])[0]
    rest = data[i] - model
    return 0.0 if full[i] and (not c.one_sided or rest * c.sign < 0.0) else rest


@kernel
def _squares(
    c: Constants, data: NDArray[np.float64], full: NDArray[np.bool_], p: NDArray[np.float64]
) -> Any:
    total = 0.0
    for i in range(data.size):
        rest = _residual(c, data, full, p, i)
        total += rest * rest
    return total


@kernel
def _normal(
    c: Constants,
    data: NDArray[np.float64],
    full: NDArray[np.bool_],
    p: NDArray[np.float64],
    matrix: NDArray[np.float64],
    right: NDArray[np.float64],
    held: NDArray[np.bool_],
) -> None:
    """Fill the normal equations of a step (Gauss-Newton) that leaves ``held`` as they are."""
    matrix[:], right[:] = 0.0, 0.0
    row = np.zeros(p.size)
    row[0] = 1.0
    for i in range(data.size):
        rest = _residual(c, data, full, p, i)
        if full[i] and (not c.one_sided or rest == 0.0):
            continue
        for k in range(c.pulses):
            value, slope = _shape_at(c.shape, i - p[2 + 2 * k])
            row[1 + 2 * k], row[2 + 2 * k] = value, -p[1 + 2 * k] * slope
        for a in range(p.size):
            if held[a]:
                continue
            right[a] += row[a] * rest
            for b in range(a + 1):
                matrix[a, b] += row[a] * row[b]
    for a in range(p.size):
        if held[a]:
            matrix[a:, a] = 0.0
            matrix[a, a] = 1.0


@kernel
def _solve(
    matrix: NDArray[np.float64], right: NDArray[np.float64], more: float, out: NDArray[np.float64]
) -> Any:
    """Solve (matrix + more diagonal) out = right by Cholesky; False where that has no solution."""
    n = right.size
    low = np.zeros((n, n))
    for a in range(n):
        for b in range(a + 1):
            total = matrix[a, b] * (1.0 + more) if a == b else matrix[a, b]
            for k in range(b):
                total -= low[a, k] * low[b, k]
            if a == b:
                if not total > 0.0:
                    return False
                low[a, a] = np.sqrt(total)
            else:
                low[a, b] = total / low[b, b]
    for a in range(n):
        total = right[a]
        for k in range(a):
            total -= low[a, k] * out[k]
        out[a] = total / low[a, a]
    for a in range(n - 1, -1, -1):
        total = out[a]
        for k in range(a + 1, n):
            total -= low[k, a] * out[k]
        out[a] = total / low[a, a]
    return True


@kernel
def _guess(
    c: Constants, data: NDArray[np.float64], full: NDArray[np.bool_], p: NDArray[np.float64], k: int
) -> None:
    """Put pulse ``k`` where it takes most off the squares that the pulses before it leave.

    The level is free: of a template as long as the gate, the median is none.
    """
    rest, counts = np.zeros(data.size), np.ones(data.size)
    p[1 + 2 * k], number, level, best = 0.0, 0.0, 0.0, -1.0
    for i in range(data.size):
        counts[i] = 0.0 if full[i] and not c.one_sided else 1.0
        rest[i] = data[i] - p[0]
        for other in range(k):
            rest[i] -= p[1 + 2 * other] * _shape_at(c.shape, i - p[2 + 2 * other])[0]
        rest[i] *= counts[i]
        number += counts[i]
        level += rest[i]
    level /= number
    for shift in range(-c.peak, data.size - c.peak):
        first, last = max(-shift, 0), min(c.shape.size, data.size - shift)
        t, r = c.shape[first:last], rest[first + shift : last + shift]
        kept = counts[first + shift : last + shift]
        product, norm, total = 0.0, 0.0, 0.0
        for j in range(t.size):
            product += t[j] * r[j]
            norm += t[j] * t[j] * kept[j]
            total += t[j] * kept[j]
        product, free = product - total * level, norm - total * total / number
        if product > 0.0 and free > 1e-9 * norm and product * product > best * free:
            best = product * product / free
            p[1 + 2 * k], p[2 + 2 * k] = product / free, shift
    if best < 0.0:
        p[2 + 2 * k] = 0.0


@kernel
def _descend(
    c: Constants,
    data: NDArray[np.float64],
    full: NDArray[np.bool_],
    p: NDArray[np.float64],
    held: NDArray[np.bool_],
) -> Any:
    """Move ``p``, but for ``held``, to least squares; their sum, and whether it came to rest."""
    n = p.size
    matrix, right, step = np.zeros((n, n)), np.zeros(n), np.zeros(n)
    squares, damping = _squares(c, data, full, p), 1e-3
    _normal(c, data, full, p, matrix, right, held)
    for _ in range(STEPS):
        if not _solve(matrix, right, damping, step):
            damping = max(damping * 10.0, 1e-3)
            if damping > 1e12:
                break
            continue
        tried = _squares(c, data, full, p + step)
        better, gain = tried < squares, squares - tried
        if better:
            p += step
            squares, damping = tried, max(damping * 0.2, 1e-9)
            _normal(c, data, full, p, matrix, right, held)
        else:
            damping *= 8.0
        if np.abs(gain) <= REST * squares or np.max(np.abs(step)) < 1e-9:
            return squares, True
    return squares, False


@reducer(version=3)
def waveform_template(waveform: Waveform, constants: Constants) -> Fit:
    """Pulses of a known shape, fitted to a waveform by least squares.

    The model is a level plus, for each pulse, amplitude times template, shifted by any fraction of
    a sample on straight lines. They lead to 0 one sample before the template and one after it: the
    squares would jump where one cut off short of 0 comes to stand on the samples. Pulses start one
    after the other where one takes most off the squares that are left, then all parameters move at
    once (Levenberg 1944, Marquardt 1963). On straight lines the squares have several minima; each
    pulse is tried half a sample to either side, and on the sample it came to rest at. ``chi2`` is
    divided by the good samples less the parameters. ``converged`` is false where a fit does not
    come to rest in 100 steps. A gate with NaN, or without more good samples than parameters, gives
    NaN.
    """
    c = constants
    size, n = c.stop - c.start, 1 + 2 * c.pulses
    data, full = np.empty(size), np.zeros(size, np.bool_)
    nsat, total = 0, 0.0
    for i in range(size):
        data[i] = np.float64(waveform[c.start + i])
        full[i] = c.sign * data[i] >= c.saturation
        nsat += full[i]
        total += data[i]
    amplitudes, times = np.full(c.pulses, np.nan), np.full(c.pulses, np.nan)
    if not np.isfinite(total) or size - nsat <= n:
        return Fit(amplitudes, times, np.nan, np.nan, nsat, False)
    p = np.zeros(n)
    p[0] = median(data, False)
    held = np.ones(n, np.bool_)
    held[0] = False
    squares, converged = np.inf, False
    for k in range(c.pulses):
        _guess(c, data, full, p, k)
        held[1 + 2 * k], held[2 + 2 * k] = False, False
        squares, converged = _descend(c, data, full, p, held)
    for k in range(c.pulses):
        for aside in (-0.5, 0.5):
            other = p.copy()
            other[2 + 2 * k] += aside
            less, rested = _descend(c, data, full, other, held)
            if less < squares:
                p, squares, converged = other, less, rested
    on = p.copy()
    for k in range(c.pulses):
        sample = np.rint(p[2 + 2 * k])
        if np.abs(p[2 + 2 * k] - sample) < EDGE:
            on[2 + 2 * k], held[2 + 2 * k] = sample, True
    if np.any(held):
        less, rested = _descend(c, data, full, on, held)
        if less < squares:
            p, squares, converged = on, less, rested
    for k in range(c.pulses):
        place, t = 0, p[2 + 2 * k]
        for j in range(c.pulses):
            place += int(p[2 + 2 * j] < t or (p[2 + 2 * j] == t and j < k))
        amplitudes[place] = p[1 + 2 * k]
        times[place] = (c.start + t + c.peak) * c.dt
    freedom = size - nsat - n
    return Fit(amplitudes, times, p[0], squares / c.noise**2 / freedom, nsat, converged)


def gaussian(width: float) -> NDArray[np.float64]:
    """Samples of a Gaussian of full width ``width`` [samples] at half maximum, down to 1e-3."""
    reach = int(np.ceil(1.6 * width))
    return np.exp2(-((2 * np.arange(-reach, reach + 1) / width) ** 2))


def load(path: Path) -> NDArray[np.float64]:
    """Read a template; ``ValueError`` for a file that holds none."""
    (found,) = read(path, "template")
    if found.ndim != 1 or found.size < 3 or not np.isfinite(found).all():
        raise ValueError(f"{path} holds {found.shape}; a template is 3 or more finite samples")
    if not found.max() > 0:
        raise ValueError(f"{path}: a template goes up from 0; use sign for pulses that go down")
    return np.asarray(found, np.float64)


@waveform_template.prepare
def check(params: Params, inputs: Mapping[str, Input]) -> Constants:
    """Read the template and check the rest; ``ValueError`` lists what does not fit."""
    p, (size,) = params, inputs["waveform"].shape
    problems = gate_problem("gate", p.gate, size) + common_problems(p.dt, p.sign)
    shape = np.zeros(0)
    if (p.template is None) == (p.width == 0):
        problems.append("template: give a file or a width, one of them")
    elif p.template is None:
        if not (np.isfinite(p.width) and 2 * p.dt < p.width < size * p.dt):
            problems.append(f"width: {p.width} ns; a pulse is 2 samples or wider, and fits")
        else:
            shape = gaussian(p.width / p.dt)
    else:
        try:
            shape = load(p.template)
        except ValueError as e:
            problems.append(f"template: {e}")
    shape = np.pad(shape, 1)
    start, stop = p.gate or (0, size)
    if p.pulses < 1 or 2 * p.pulses + 1 >= stop - start:
        problems.append(f"pulses: {p.pulses} must be 1 or more, and fewer than half the samples")
    if not 0 < p.noise < np.inf:
        problems.append(f"noise: {p.noise} must be a number above 0")
    if problems:
        raise ValueError("\n".join(problems))
    return Constants(
        shape * p.sign,
        int(np.argmax(shape)),
        p.dt,
        p.pulses,
        start,
        stop,
        float(p.sign),
        np.inf if p.saturation is None else p.sign * p.saturation,
        p.one_sided,
        p.noise,
    )


def example() -> tuple[Params, dict[str, Input]]:
    """Parameters, and an input to try them on."""
    params = Params(0.5, width=4.0, pulses=2, gate=(10, 90), noise=50.0)
    return params, {"waveform": Input("value", "<u2", (100,), "V")}
