"""Where a reducer's parameters put the pixels of an area detector: angles, q, corrections."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ffb import Area
from ffb.reducers import geometry, poni
from ffb.reducers.bins import AVERAGES, MOST_BINS, Corrected
from ffb.reducers.quality import levels
from ffb.reducers.runs import MOST_COLUMNS

#: Least distance of a detector [mm]; what is less was meant in metres. More than the greatest was
#: meant in micrometres, as in psana's geometry.
NEAREST, FARTHEST = 1.0, 50e3

#: Units of an axis, with the names that pyFAI has for them.
UNITS = {
    "1/angstrom": "q_A^-1",
    "1/nm": "q_nm^-1",
    "deg": "2th_deg",
    "rad": "2th_rad",
    "mm": "r_mm",
}


class Setup(Protocol):
    """Parameters that say where the detector stands, as ``azimuthal`` explains them."""

    @property
    def distance(self) -> float | None:
        """Millimetres from sample to detector along the beam."""
        ...

    @property
    def energy(self) -> float | None:
        """Energy of the photons [keV]."""
        ...

    @property
    def center(self) -> tuple[float, float] | None:
        """Where the beam meets the detector, x and y [um]."""
        ...

    @property
    def tilts(self) -> tuple[float, float] | None:
        """Degrees by which the detector is turned about x and y."""
        ...

    @property
    def poni(self) -> Path | None:
        """A PONI file instead."""
        ...


def setup_problems(params: Setup, area: Area) -> Iterator[str]:
    """What is wrong with where the detector stands, one line each, by parameter."""
    yield from geometry.beam_problems(params.energy, params.center or (), params.tilts or ())
    if area.shape[2] > MOST_COLUMNS:
        yield f"bins: rows of {area.shape[2]} pixels; at most {MOST_COLUMNS} can be counted"
    if params.poni is not None:
        given = ("distance", "center", "tilts")
        if twice := [name for name in given if getattr(params, name) is not None]:
            yield f"poni: the file tells {', '.join(twice)}; leave out either"
    elif params.distance is None or not np.isfinite(params.distance):
        known = 0.0 if area.xyz is None else -area.xyz[2].mean() / 1e3
        said = f" (its geometry says {known:g})" if known >= NEAREST else ""
        yield f"distance: give the millimetres from sample to detector{said}, or a PONI file: poni"
    elif params.distance < NEAREST:
        in_m = (
            f" (or {1e3 * params.distance:g}, if those are metres)" if params.distance > 0 else ""
        )
        yield f"distance: {params.distance:g} mm; give the millimetres to the detector{in_m}"
    elif params.distance > FARTHEST:
        in_um = f" (or {1e-3 * params.distance:g}, if those are micrometres)"
        yield f"distance: {params.distance:g} mm; give the millimetres to the detector{in_um}"
    elif area.xyz is None:
        yield (
            f"distance: {area.detector} has no geometry; name a file as"
            f" calibration.{area.detector}.geometry, or a PONI file as poni"
        )


class Binned(Protocol):
    """Parameters that say how q is binned, as ``azimuthal`` explains them."""

    @property
    def bins(self) -> int:
        """Number of equal bins."""
        ...

    @property
    def limits(self) -> tuple[float, float] | None:
        """Where they begin and end."""
        ...

    @property
    def width(self) -> float | None:
        """Width of a bin, instead of their number."""
        ...

    @property
    def edges(self) -> tuple[float, ...] | None:
        """Edges of all bins, instead of all that."""
        ...

    @property
    def unit(self) -> str:
        """Unit of the axis."""
        ...


def axis_problems(params: Binned, most: int = MOST_BINS - 1) -> Iterator[str]:
    """What is wrong with the bins along q, one line each, by parameter."""
    low, high = params.limits or (0.0, 1.0)
    if params.edges is not None:
        if params.limits is not None or params.width is not None:
            yield "edges: they tell limits and width of the bins; leave those out"
        yield from edges_problems("edges", params.edges, most)
    elif params.width is not None:
        if not 0 < params.width < np.inf:
            yield f"width: {params.width:g}; give the width of a bin, above 0"
    elif not 1 <= params.bins <= most:
        yield f"bins: {params.bins}; give 1 to {most}"
    if not 0 <= low < high < np.inf:
        yield f"limits: [{low:g}, {high:g}]; give two values, the lower first, none below 0"
    if params.unit not in UNITS and params.unit not in UNITS.values():
        yield f"unit: {params.unit!r}; known are {', '.join((*UNITS, *UNITS.values()))}"


def edges_problems(name: str, edges: tuple[float, ...], most: int) -> Iterator[str]:
    """What is wrong with the edges of bins."""
    if not 2 <= len(edges) <= most + 1:
        yield f"{name}: {len(edges)} edges; give 2 to {most + 1}"
    elif not (np.isfinite(edges).all() and (np.diff(edges) > 0).all()):
        yield f"{name}: give them in ascending order, all different and finite"


def edges_of(
    params: Binned, axis: NDArray[np.float64], good: NDArray[np.bool_], most: int = MOST_BINS - 1
) -> NDArray[np.float64] | None:
    """Edges of the bins along q where they or their width are given.

    Bins of a given width begin at the lower limit, or at the last multiple of the width below all
    good pixels. Raises ``ValueError`` where the width makes too many.
    """
    if params.edges is not None:
        return np.asarray(params.edges, np.float64)
    if params.width is None or not good.any():
        return None
    low, high = params.limits or (float(axis[good].min()), float(axis[good].max()))
    if params.limits is None:
        low = np.floor(low / params.width) * params.width
    bins = max(np.ceil((high - low) / params.width * (1 - 1e-12)), 1)
    if bins > most:
        raise ValueError(f"width: {params.width:g} makes {bins:.6g} bins; at most {most}")
    return np.asarray(low + params.width * np.arange(int(bins) + 1), np.float64)


def correction_problems(params: Corrected) -> Iterator[str]:
    """What is wrong with corrections, thresholds and errors, one line each, by parameter."""
    if params.polarization is not None and not -1 <= params.polarization <= 1:
        yield f"polarization: {params.polarization}; give a factor between -1 and 1"
    if params.average not in AVERAGES:
        yield f"average: {params.average!r}; known are {' and '.join(AVERAGES)}"
    problems: list[str] = []
    levels(params.thresholds, problems)
    yield from problems
    if params.errors not in (None, "poisson", "azimuthal"):
        yield f"errors: {params.errors!r}; known are poisson and azimuthal"
    if params.errors == "poisson" and params.photon is None:
        yield "photon: errors = 'poisson' needs to know what one photon leaves in a pixel"
    if params.photon is not None and not 0 < params.photon < np.inf:
        yield f"photon: {params.photon:g}; give what one photon leaves in a pixel"


def pixels_of(params: Setup, area: Area) -> tuple[geometry.Geometry, geometry.Pixels]:
    """Geometry and angles of all pixels; ``ValueError`` names the parameter."""
    if params.poni is not None:
        where, positions = _by_poni(params.poni, params.energy, area)
    else:
        assert params.distance is not None
        assert area.xyz is not None
        center, tilts = params.center or (0.0, 0.0), params.tilts or (0.0, 0.0)
        where = geometry.Geometry.of(params.distance, params.energy, center, tilts)
        positions = geometry.on_detector(area.xyz)
    return where, where.pixels(positions)


def axis_in(unit: str, where: geometry.Geometry, pixels: geometry.Pixels) -> NDArray[np.float64]:
    """Place of every pixel on the axis in a ``unit`` of ours or pyFAI's."""
    match UNITS.get(unit, unit):
        case "2th_deg":
            return np.degrees(pixels.two_theta)
        case "2th_rad":
            return pixels.two_theta
        case "r_mm":
            return pixels.radius * 1e3
        case name:
            return where.q(pixels.two_theta) * (10.0 if name == "q_nm^-1" else 1.0)


def within(centres: NDArray[np.float64], limits: tuple[float, float] | None) -> NDArray[np.bool_]:
    """Bins whose centres lie within the limits of the reference; ``ValueError`` if none do."""
    low, high = limits or (-np.inf, np.inf)
    inside = (centres >= low) & (centres <= high)
    if not inside.any():
        raise ValueError(
            f"reference: no bin has its centre between {low:g} and {high:g};"
            f" they lie between {centres[0]:g} and {centres[-1]:g}"
        )
    return inside


def unit_of(unit: str) -> str:
    """Our name of a unit, whosever was given."""
    return {theirs: ours for ours, theirs in UNITS.items()}.get(unit, unit)


def weights(params: Corrected, pixels: geometry.Pixels) -> NDArray[np.float64]:
    """Solid angle times polarisation of every pixel, as far as they are asked for."""
    weight = pixels.solid_angle.copy() if params.solid_angle else np.ones(pixels.radius.shape)
    if params.polarization is not None:
        weight *= geometry.polarization(pixels, params.polarization)
    return weight


def _by_poni(
    path: Path, energy: float | None, area: Area
) -> tuple[geometry.Geometry, NDArray[np.float64]]:
    """Read the geometry and place the pixels; ``ValueError`` names the file."""
    try:
        file = poni.read(path)
        if area.xyz is None or file.of_frames(area.xyz):
            positions = file.flat(area.shape)
        else:
            positions = file.assembled(area.xyz, area.corner)
    except OSError as e:
        raise ValueError(f"poni: cannot read {path}: {e.strerror or e}") from e
    except ValueError as e:
        lines = (f"poni: {path}: {line}" for line in str(e).splitlines())
        raise ValueError("\n".join(lines)) from e
    return file.with_energy(energy).geometry, positions
