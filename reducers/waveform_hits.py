"""Hits of a waveform above a threshold, and their spectrum of times of flight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb import Axis, Feature, Vector, Waveform, reducer
from ffb.reducers.trace import common_problems, gate_problem
from ffb.shot import Input

#: Energy [eV] of an electron that flies 1 m in 1 ns: m_e / 2 over e, CODATA 2018.
ELECTRON = 0.5 * 9.1093837015e-31 / 1.602176634e-19 * 1e18


class Params(NamedTuple):
    """What counts as a hit, and the bins of times or energies.

    ``dt`` [ns] is the distance of samples. A hit is where the waveform, above the mean of the gate
    ``baseline`` (above 0 without one), rises over ``threshold``, which is in standard deviations
    of that gate if ``relative``; one whose peak is above ``maximum``, in the waveform's unit, is
    rejected. ``gate`` is where to look, everywhere if left out; ``sign`` is -1 for pulses that go
    down. Up to ``capacity`` hits are kept.

    Times are counted in ``bins`` equal bins over ``limits`` [ns], none if 0. For a magnetic
    bottle give ``t0`` [ns], when the light came, and ``flight`` [m], its length, or ``polynomial``,
    coefficients c: bins are then labelled with E = ``retardation`` + sum of c[k] / (t - t0)^k
    [eV], where the length stands for c[2] = m/2 ``flight``^2 of an electron, which is retarded by
    ``retardation`` [eV] before it flies. ``density`` adds the spectrum by energy.
    """

    dt: float
    threshold: float
    relative: bool = False
    maximum: float = np.inf
    baseline: tuple[int, int] | None = None
    gate: tuple[int, int] | None = None
    sign: int = 1
    capacity: int = 32
    bins: int = 0
    limits: tuple[float, float] | None = None
    t0: float = 0.0
    flight: float = 0.0
    polynomial: tuple[float, ...] = ()
    retardation: float = 0.0
    density: bool = False


class Constants(NamedTuple):
    """The same, checked; an empty baseline gate stands for none.

    ``edges`` (bins + 1,) [ns] of bins, and ``per_energy`` (bins,) [1/eV], 1 over their width in
    energy, nothing without ``density``.
    """

    dt: float
    threshold: float
    relative: bool
    maximum: float
    before: int
    after: int
    start: int
    stop: int
    sign: float
    capacity: int
    edges: NDArray[np.float64]
    per_energy: NDArray[np.float64]


class Hits(NamedTuple):
    """Hits in the order of time; places beyond the last are NaN."""

    n: Annotated[int, Feature("1", "hits found, also those beyond the capacity")]
    rejected: Annotated[int, Feature("1", "hits that went over the maximum")]
    time: Annotated[
        Vector,
        Feature(
            "ns", "when each rises over the threshold, from sample 0", ("hit",), "<f8", length="n"
        ),
    ]
    width: Annotated[
        Vector, Feature("ns", "time of each above the threshold", ("hit",), "<f8", length="n")
    ]
    peak: Annotated[
        Vector,
        Feature("@", "largest sample of each, above the baseline", ("hit",), "<f8", length="n"),
    ]
    area: Annotated[
        Vector, Feature("@ ns", "sum of the samples of each, times dt", ("hit",), "<f8", length="n")
    ]
    overflow: Annotated[bool, Feature("1", "whether there were more hits than the capacity")]
    baseline: Annotated[float, Feature("@", "mean of the baseline gate, 0 without one")]
    tof: Annotated[
        Vector, Feature("1", "all hits by their times, one shot", ("bin",), "<i8", when="bins")
    ]
    spectrum: Annotated[
        Vector, Feature("1/eV", "hits by their energies, one shot", ("bin",), "<f8", when="density")
    ]


@reducer(version=2)
def waveform_hits(waveform: Waveform, constants: Constants) -> Hits:
    """Hits of a waveform above a threshold, and their spectrum of times of flight.

    Edges are where the straight line between two samples crosses the threshold. What is above it
    at the first sample of the gate did not rise there and is no hit; a hit that lasts until the end
    of the gate ends with its last sample. A NaN or infinite sample is not above the threshold; one
    in the baseline makes that NaN and leaves no hits. ``tof`` counts hits beyond the capacity too,
    bins are closed on the left; its mean over shots is the spectrum, in hits a shot and bin. In
    contrast to smalldata_tools' hit finder, which marks every sample above its threshold (and what
    is not, where that is below 0), a pulse counts once, and is rejected as a whole by ``maximum``.

    Bins of equal times are the wider in energy the faster electrons are: a flat spectrum of
    energies is none in ``tof``. ``spectrum`` is ``tof`` over the width of each bin in energy, which
    is dN/dE = dN/dt |dt/dE| averaged over the bin, so that its sum times these widths is the number
    of hits. Magnetic bottle: Kruit and Read, J. Phys. E 16, 313 (1983).
    """
    c = constants
    times, widths = np.full(c.capacity, np.nan), np.full(c.capacity, np.nan)
    peaks, areas = np.full(c.capacity, np.nan), np.full(c.capacity, np.nan)
    tof, lo, hi = np.zeros(c.edges.size - 1, np.int64), c.edges[0], c.edges[-1]
    per_ns = tof.size / (hi - lo) if tof.size else 0.0
    before = waveform[c.before : c.after]
    size = max(before.size, 1)
    total, squares, level = 0.0, 0.0, 0.0
    for i in range(before.size):
        level += np.float64(before[i])
    level = level / size if np.isfinite(level) else np.nan
    for i in range(before.size):
        x = np.float64(before[i]) - level
        squares += x * x
    limit = c.threshold * np.sqrt(squares / size) if c.relative else c.threshold
    n, rejected, i = 0, 0, c.start
    while i < c.stop and limit < c.sign * (np.float64(waveform[i]) - level) < np.inf:
        i += 1
    while i < c.stop:
        x = c.sign * (np.float64(waveform[i]) - level)
        if not limit < x < np.inf:
            i += 1
            continue
        begin, peak, total = i, x, 0.0
        while i < c.stop and limit < x < np.inf:
            peak = max(peak, x)
            total += x
            i += 1
            if i < c.stop:
                x = c.sign * (np.float64(waveform[i]) - level)
        if peak > c.maximum:
            rejected += 1
            continue
        last = c.sign * (np.float64(waveform[begin - 1]) - level)
        first = c.sign * (np.float64(waveform[begin]) - level)
        time = np.float64(begin)
        if np.isfinite(last):
            time -= (first - limit) / (first - last)
        end = np.float64(i - 1)
        if i < c.stop and np.isfinite(x):
            last = c.sign * (np.float64(waveform[i - 1]) - level)
            end += (last - limit) / (last - x)
        time *= c.dt
        if n < c.capacity:
            times[n], widths[n] = time, end * c.dt - time
            peaks[n], areas[n] = peak, total * c.dt
        n += 1
        if tof.size and lo <= time < hi:
            slot = min(int((time - lo) * per_ns), tof.size - 1)
            if time < c.edges[slot]:  # rounding may lead beside an edge
                slot -= 1
            elif time >= c.edges[slot + 1]:
                slot += 1
            tof[slot] += 1
    spectrum = np.zeros(c.per_energy.size)
    for k in range(spectrum.size):
        spectrum[k] = tof[k] * c.per_energy[k]
    return Hits(n, rejected, times, widths, peaks, areas, n > c.capacity, level, tof, spectrum)


def _energies(p: Params, t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Energies [eV] of times of arrival [ns]."""
    c = p.polynomial or (0.0, 0.0, ELECTRON * p.flight**2)
    total = np.full(t.shape, p.retardation)
    for k, coefficient in enumerate(c):
        total += coefficient / (t - p.t0) ** k
    return total


def _limits(p: Params) -> tuple[float, float]:
    """Ends of the bins [ns], any where there are none."""
    return p.limits or (0.0, 0.0)


def _bin_problems(p: Params) -> list[str]:
    if not p.bins:
        return ["density: there are no bins"] if p.density else []
    out = [f"bins: {p.bins} is not a number of bins; 0 for none"] if p.bins < 0 else []
    lo, hi = _limits(p)
    if p.limits is None:
        out.append("limits: missing: from when to when [ns] the bins are")
    elif not -np.inf < lo < hi < np.inf:
        out.append(f"limits: [{lo}, {hi}] must be two times [ns], the earlier first")
    if p.flight and p.polynomial:
        out.append("polynomial: give the coefficients or the length of flight, not both")
    if not 0 <= p.flight < np.inf:
        out.append(f"flight: {p.flight} m is not a length of flight")
    if (p.flight or p.polynomial) and not p.t0 <= lo:
        out.append(f"t0: {p.t0} ns is in the bins, which begin at {lo} ns; there is no energy")
    if p.density and not out:
        widths = np.diff(_edge_energies(p))
        if not (p.flight or p.polynomial):
            out.append("density: is by energy; give the length of flight, or a polynomial")
        elif not np.isfinite(widths).all():
            out.append(
                f"density: the first bin, from t0 = {p.t0} ns on, reaches to infinite energy"
            )
        elif not ((widths > 0).all() or (widths < 0).all()):
            out.append("density: the polynomial gives one energy at several times of the bins")
    return out


def _edge_energies(p: Params) -> NDArray[np.float64]:
    """Energies [eV] of the edges of bins; infinite at t0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return _energies(p, np.linspace(*_limits(p), p.bins + 1))


@waveform_hits.prepare
def check(params: Params, inputs: Mapping[str, Input]) -> Constants:
    """Check the parameters against the waveform; ``ValueError`` lists what does not fit."""
    p, (size,) = params, inputs["waveform"].shape
    problems = gate_problem("gate", p.gate, size) + gate_problem("baseline", p.baseline, size)
    problems += common_problems(p.dt, p.sign)
    if not np.isfinite(p.threshold):
        problems.append(f"threshold: {p.threshold} must be a number")
    if p.relative and (p.baseline is None or p.threshold < 0):
        problems.append("relative: needs a baseline gate, and a threshold of 0 or above")
    if not p.maximum > p.threshold and not p.relative:
        problems.append(f"maximum: {p.maximum} must be above the threshold, {p.threshold}")
    if p.capacity < 1:
        problems.append(f"capacity: {p.capacity} is too small; at least 1")
    problems += _bin_problems(p)
    if problems:
        raise ValueError("\n".join(problems))
    before, after = p.baseline or (0, 0)
    edges = np.linspace(*_limits(p), p.bins + 1)
    per_energy = 1.0 / np.abs(np.diff(_edge_energies(p))) if p.density else np.zeros(0)
    return Constants(
        p.dt,
        p.threshold,
        p.relative,
        p.maximum,
        before,
        after,
        *(p.gate or (0, size)),
        float(p.sign),
        p.capacity,
        edges,
        per_energy,
    )


@waveform_hits.axes
def axes(params: Params, constants: Constants) -> dict[str, Axis]:
    """Times at the centres of the bins, or the energies that belong to them."""
    if not params.bins:
        return {}
    t = (constants.edges[1:] + constants.edges[:-1]) / 2
    if params.flight or params.polynomial:
        return {"bin": Axis(_energies(params, t), "eV")}
    return {"bin": Axis(t, "ns")}


def example() -> tuple[Params, dict[str, Input]]:
    """Parameters, and an input to try them on."""
    params = Params(
        0.5, 1.0, relative=True, baseline=(0, 20), capacity=8, bins=20, limits=(0.0, 64.0),
        t0=-5.0, flight=0.4, retardation=2.0, density=True,
    )  # fmt: skip
    return params, {"waveform": Input("value", "<u2", (128,), "V")}
