"""Azimuthal integration: scattered intensity against momentum transfer, I(q).

Every pixel belongs to the bin its centre falls in (no pixel splitting), and a bin's intensity is
the sum of its pixels over the sum of their weights, solid angle times polarisation, as in pyFAI's
``("no", "histogram", "cython")`` engine (Kieffer et al., J. Appl. Cryst. 58, 138, 2025). That
engine differs in details: it rounds limits to float32 and widens the upper one by a float32 step,
and puts pixels up to one bin below the lower limit into the first bin, where here they belong to
none; a bin without pixels is 0 there and NaN here.

The ``azav`` of smalldata_tools averages pixels that were divided by their weights, where here the
sums are divided: the same without corrections, and to first order in the change of the weight
within a bin. Its ``center`` is ours, and its azimuth counts from the same axis in the same sense;
its ``dis_to_sam`` is along the normal of the detector, ours along the beam; ``ty`` is our
``tilts = [0, -ty]``; with a ``tx`` (our ``[tx, 0]``) its beam misses its own centre towards -y by
2 ``dis_to_sam`` tan ``tx``; ``Pplane`` p is ``polarization = 2 p - 1``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated as A
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb import Area, Axis, Feature, Tile, Vector, tile_reducer
from ffb.compile import kernel
from ffb.reducers import geometry, poni

#: Units of the axis, with the names that pyFAI has for them.
UNITS = {
    "1/angstrom": "q_A^-1",
    "1/nm": "q_nm^-1",
    "deg": "2th_deg",
    "rad": "2th_rad",
    "mm": "r_mm",
}

#: Longest run of pixels that is summed in one go.
LONGEST = 8

#: Bins, and the slot for pixels that belong to none, must be countable in 16 bits.
MOST_BINS = 2**16 - 1

#: Columns, too.
MOST_COLUMNS = 2**16


class Params(NamedTuple):
    """Where the detector stands and how to bin.

    Either ``distance`` [mm] from sample to detector along the beam, with the detector's psana
    geometry; ``center`` [um] is where the beam meets the detector, x and y in the frame of that
    geometry (x down the rows of psana's image, y along its columns), 0 and 0 if left out;
    ``tilts`` [degrees] turn the detector about x and y through that point.

    Or ``poni``, a PONI file of pyFAI; it counts from the corner of the image psana assembles, or
    of a detector that is a single segment.

    ``energy`` [keV] of the photons is needed for q; with ``poni`` it replaces the file's
    wavelength. The axis has ``bins`` equal bins over ``limits`` in ``unit``, over all good pixels
    if left out; ``unit`` is "1/angstrom" or "1/nm" for q, "deg" or "rad" for the scattering angle
    2 theta, "mm" for the distance from the beam, or a name of pyFAI's ("q_A^-1", "2th_deg", ...).

    ``solid_angle`` divides by the solid angle of a pixel, 1 where the beam would meet the detector
    at a right angle. ``polarization`` divides by the polarisation factor for (Ih - Iv) / (Ih + Iv)
    of the beam: 1 is all along y, 0 unpolarised; left out, nothing is corrected.
    """

    distance: float | None = None
    energy: float | None = None
    center: tuple[float, float] | None = None
    tilts: tuple[float, float] | None = None
    poni: Path | None = None
    bins: int = 500
    limits: tuple[float, float] | None = None
    unit: str = "1/angstrom"
    polarization: float | None = None
    solid_angle: bool = True


class Bins(NamedTuple):
    """Which pixels make which bin, and what each bin holds when none is bad.

    Neighbours in a row mostly share a bin, so a row is stored as runs of 1 to 8 pixels:
    ``starts`` (runs,) uint16 the first column, ``bins`` (runs,) uint16 the bin, sorted by row and
    length; ``bounds`` (rows * 8 + 1,) int64 says where the runs of each row and length begin.
    ``weight`` (pixels,) float32 is solid angle times polarisation; ``norm`` (bins,) float64 and
    ``number`` (bins,) int64 their sum and number over good pixels; ``q`` (bins,) float64 the
    centres of the bins.
    """

    starts: NDArray[np.uint16]
    bins: NDArray[np.uint16]
    bounds: NDArray[np.int64]
    weight: NDArray[np.float32]
    norm: NDArray[np.float64]
    number: NDArray[np.int64]
    q: NDArray[np.float64]


class State(NamedTuple):
    """One shot: the sum of every bin, what bad pixels take away from it, and the results."""

    sums: NDArray[np.float64]
    lost_norm: NDArray[np.float64]
    lost: NDArray[np.int64]
    intensity: NDArray[np.float64]
    npix: NDArray[np.int32]


class Azimuthal(NamedTuple):
    """What :class:`azimuthal` delivers; ``q`` is the axis of both, the centres of the bins."""

    intensity: A[Vector, Feature("@", "mean over good pixels, NaN without any", ("q",), "<f8")]
    npix: A[Vector, Feature("1", "good pixels of this shot", ("q",), "<i4")]


@kernel
def _two(v: Any, i: int) -> Any:
    return np.float64(v[i]) + np.float64(v[i + 1])


@kernel
def _four(v: Any, i: int) -> Any:
    return _two(v, i) + _two(v, i + 2)


@kernel
def add(v: Any, row: int, table: Bins, sums: Any) -> None:
    """Add a row ``v`` without bad pixels to the sums, run by run.

    One addition to memory a run instead of one a pixel, and hardly ever twice in a row to the
    same bin, which would have to wait for the first: twice as fast as pixel by pixel. Loops of
    fixed length spare the processor guessing where a run ends.
    """
    bounds, starts, bins, at = table.bounds, table.starts, table.bins, row * LONGEST
    for k in range(bounds[at], bounds[at + 1]):
        sums[bins[k]] += v[starts[k]]
    for k in range(bounds[at + 1], bounds[at + 2]):
        sums[bins[k]] += _two(v, starts[k])
    for k in range(bounds[at + 2], bounds[at + 3]):
        sums[bins[k]] += _two(v, starts[k]) + v[starts[k] + 2]
    for k in range(bounds[at + 3], bounds[at + 4]):
        sums[bins[k]] += _four(v, starts[k])
    for k in range(bounds[at + 4], bounds[at + 5]):
        sums[bins[k]] += _four(v, starts[k]) + v[starts[k] + 4]
    for k in range(bounds[at + 5], bounds[at + 6]):
        sums[bins[k]] += _four(v, starts[k]) + _two(v, starts[k] + 4)
    for k in range(bounds[at + 6], bounds[at + 7]):
        sums[bins[k]] += _four(v, starts[k]) + (_two(v, starts[k] + 4) + v[starts[k] + 6])
    for k in range(bounds[at + 7], bounds[at + 8]):
        sums[bins[k]] += _four(v, starts[k]) + _four(v, starts[k] + 4)


@kernel
def add_good(v: Any, row: int, weight: Any, table: Bins, state: State) -> None:
    """Add a row's good pixels, and note what its bad ones take from norm and number."""
    for length in range(1, LONGEST + 1):
        at = row * LONGEST + length
        for k in range(table.bounds[at - 1], table.bounds[at]):
            b, start = table.bins[k], table.starts[k]
            for i in range(start, start + length):
                if v[i] == v[i]:
                    state.sums[b] += v[i]
                else:
                    state.lost_norm[b] += weight[i]
                    state.lost[b] += 1


@tile_reducer(version=2)
class azimuthal:  # noqa: N801 - named after its module
    """I(q) of an area detector, over its good pixels."""

    @staticmethod
    def prepare(params: Params, area: Area) -> Bins:
        """Find the bin and the weight of every pixel."""
        if problems := list(_problems(params, area)):
            raise ValueError("\n".join(problems))
        pixels, axis = _coordinates(params, area)
        weight = np.ones(area.shape)
        if params.solid_angle:
            weight *= pixels.solid_angle
        if params.polarization is not None:
            weight *= geometry.polarization(pixels, params.polarization)
        return assign(axis, weight, area.mask, params.bins, params.limits)

    @staticmethod
    def axes(params: Params, bins: Bins) -> dict[str, Axis]:
        """Say where the centres of the bins are."""
        ours = {theirs: name for name, theirs in UNITS.items()}
        return {"q": Axis(bins.q, ours.get(params.unit, params.unit))}

    @staticmethod
    def allocate(bins: Bins) -> State:
        """Make the sums."""
        n = bins.q.size
        lost = np.zeros(n, np.int64)
        return State(np.zeros(n), np.zeros(n), lost, np.zeros(n), np.zeros(n, np.int32))

    @staticmethod
    def start(bins: Bins, state: State) -> None:
        """Forget the last shot."""
        state.sums[:] = 0.0
        state.lost_norm[:] = 0.0
        state.lost[:] = 0

    @staticmethod
    def accumulate(tile: Tile, bins: Bins, state: State) -> None:
        """Add one row."""
        if tile.bad == 0:
            add(tile.values, tile.number, bins, state.sums)
        else:
            weight = bins.weight[tile.first : tile.first + tile.values.size]
            add_good(tile.values, tile.number, weight, bins, state)

    @staticmethod
    def finish(bins: Bins, state: State) -> Azimuthal:
        """Divide the sums by the weights of the pixels that were good."""
        for b in range(bins.q.size):
            number = bins.number[b] - state.lost[b]
            norm = bins.norm[b] - state.lost_norm[b]
            state.intensity[b] = state.sums[b] / norm if number > 0 else np.nan
            state.npix[b] = number
        return Azimuthal(state.intensity, state.npix)


def _problems(params: Params, area: Area) -> Iterator[str]:
    """Everything that cannot be meant, one line each, by parameter."""
    if not 1 <= params.bins < MOST_BINS:
        yield f"bins: {params.bins}; give 1 to {MOST_BINS - 1}"
    low, high = params.limits or (0.0, 1.0)
    if not 0 <= low < high < np.inf:
        yield f"limits: [{low:g}, {high:g}]; give two values, the lower first, none below 0"
    if params.unit not in UNITS and params.unit not in UNITS.values():
        yield f"unit: {params.unit!r}; known are {', '.join((*UNITS, *UNITS.values()))}"
    if params.polarization is not None and not -1 <= params.polarization <= 1:
        yield f"polarization: {params.polarization}; give a factor between -1 and 1"
    if params.poni is not None:
        given = ("distance", "center", "tilts")
        if twice := [name for name in given if getattr(params, name) is not None]:
            yield f"poni: the file tells {', '.join(twice)}; leave out either"
    elif params.distance is None:
        yield "distance: give the millimetres from sample to detector, or a PONI file as poni"
    elif area.xyz is None:
        yield (
            f"distance: {area.detector} has no geometry; name a file as"
            f" calibration.{area.detector}.geometry, or a PONI file as poni"
        )
    if area.shape[2] > MOST_COLUMNS:
        yield f"bins: rows of {area.shape[2]} pixels; at most {MOST_COLUMNS} can be counted"
    if not area.mask.any():
        yield f"limits: no pixel of {area.detector} is good; look at its mask and constants"


def _coordinates(params: Params, area: Area) -> tuple[geometry.Pixels, NDArray[np.float64]]:
    """Angles of every pixel, and its place on the axis in ``params.unit``."""
    if params.poni is not None:
        where, positions = _by_poni(params.poni, params.energy, area)
    else:
        assert params.distance is not None
        assert area.xyz is not None
        center, tilts = params.center or (0.0, 0.0), params.tilts or (0.0, 0.0)
        where = geometry.Geometry.of(params.distance, params.energy, center, tilts)
        positions = geometry.on_detector(area.xyz)
    pixels = where.pixels(positions)
    match UNITS.get(params.unit, params.unit):
        case "2th_deg":
            return pixels, np.degrees(pixels.two_theta)
        case "2th_rad":
            return pixels, pixels.two_theta
        case "r_mm":
            return pixels, pixels.radius * 1e3
        case name:
            return pixels, where.q(pixels.two_theta) * (10.0 if name == "q_nm^-1" else 1.0)


def _by_poni(
    path: Path, energy: float | None, area: Area
) -> tuple[geometry.Geometry, NDArray[np.float64]]:
    """Read the geometry and place the pixels; ``ValueError`` names the file."""
    try:
        file = poni.read(path)
        if area.xyz is None:
            positions = file.flat(area.shape)
        else:
            positions = file.assembled(area.xyz, area.corner)
    except OSError as e:
        raise ValueError(f"poni: cannot read {path}: {e.strerror or e}") from e
    except ValueError as e:
        lines = (f"poni: {path}: {line}" for line in str(e).splitlines())
        raise ValueError("\n".join(lines)) from e
    return file.with_energy(energy).geometry, positions


def assign(
    axis: NDArray[np.float64],
    weight: NDArray[np.float64],
    mask: NDArray[np.bool_],
    bins: int,
    limits: tuple[float, float] | None,
) -> Bins:
    """Put every pixel into one of ``bins`` equal bins by its place on the ``axis``.

    Bins hold their lower edge, the last one its upper edge too. Without ``limits`` they span the
    good pixels. Raises ``ValueError`` when no good pixel lies within them.
    """
    weight = weight.astype(np.float32).astype(np.float64)  # as bad pixels will be taken off
    mask = mask & np.isfinite(axis)
    if not mask.any():
        raise ValueError("limits: no good pixel has a place; look at the geometry")
    inside = axis[mask]
    low, high = limits or (float(inside.min()), float(inside.max()))
    step = (high - low) / bins or 1.0
    place = np.floor((axis - low) / step)
    place[axis == high] = bins - 1
    good = mask & (place >= 0) & (place < bins) & (weight > 0)
    if not good.any():
        raise ValueError(
            f"limits: no good pixel between {low:g} and {high:g};"
            f" they lie between {inside.min():g} and {inside.max():g}"
        )
    of = np.where(good, place, bins).astype(np.uint16)
    norm = np.bincount(of.ravel(), weight.ravel(), bins + 1)[:bins].astype(np.float64)
    number = np.bincount(of.ravel(), minlength=bins + 1)[:bins].astype(np.int64)
    q = low + (np.arange(bins, dtype=np.float64) + 0.5) * step
    flat = weight.astype(np.float32).ravel()
    return Bins(*_runs(of, mask, bins), flat, norm, number, q)


def _runs(
    of: NDArray[np.uint16], mask: NDArray[np.bool_], none: int
) -> tuple[NDArray[np.uint16], NDArray[np.uint16], NDArray[np.int64]]:
    """Cut rows into runs of up to 8 pixels of one bin; ``none`` is the bin that is left out.

    Masked pixels are exactly 0, so one inside a run does not end it.
    """
    columns = of.shape[-1]
    of, mask = of.reshape(-1, columns), mask.reshape(-1, columns)
    last_good = np.maximum.accumulate(np.where(mask, np.arange(columns), 0), axis=1)
    of = np.take_along_axis(of, last_good, axis=1)
    begins = np.ones(of.shape, np.bool_)
    begins[:, 1:] = of[:, 1:] != of[:, :-1]
    at = np.flatnonzero(begins)
    length = np.diff(np.append(at, of.size))
    wanted = of.ravel()[at] != none
    at, length = at[wanted], length[wanted]
    pieces = -(-length // LONGEST)
    run = np.repeat(np.arange(at.size), pieces)
    offset = LONGEST * (np.arange(run.size) - np.repeat(np.cumsum(pieces) - pieces, pieces))
    start = at[run] + offset
    key = start // columns * LONGEST + np.minimum(length[run] - offset, LONGEST) - 1
    order = np.argsort(key, kind="stable")
    start = start[order]
    bounds = np.searchsorted(key[order], np.arange(of.shape[0] * LONGEST + 1))
    return (
        (start % columns).astype(np.uint16),
        of.ravel()[start],
        bounds.astype(np.int64),
    )


def example() -> tuple[Params, Area]:
    """Parameters, and a detector to try them on."""
    mask = np.ones((2, 9, 23), np.bool_)
    segment, row, col = np.indices(mask.shape, np.float64)
    xyz = np.stack([75 * (row - 10 * segment), 75 * (col - 11), 0 * row])
    return Params(distance=5.0, energy=9.5, bins=12), Area("example", mask.shape, mask, xyz, "keV")
