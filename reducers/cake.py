"""Azimuthal integration in two dimensions: intensity against azimuth and momentum transfer.

As :mod:`ffb.reducers.azimuthal`, with bins of the azimuth as well: I(phi, q), which pyFAI calls
``integrate2d`` and smalldata_tools ``azav`` with ``phiBins``. The azimuth is pyFAI's chi and that
of smalldata_tools: 0 along psana's y (along the columns of the assembled image), 90 degrees along
its x (down the rows). It is taken modulo a turn into ``phi_limits``, so a range may lie across
180 degrees; a detector that covers less than a turn loses nothing and mixes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated as A
from typing import NamedTuple

import numpy as np

from ffb import Area, Axis, Feature, Tile, Vector, tile_reducer
from ffb.reducers import bins as binned
from ffb.reducers import scattering
from ffb.reducers.bins import MOST_BINS, Bins, State, add_row, begin, divide


class Params(NamedTuple):
    """Where the detector stands, how to bin, and which pixels count.

    ``phi_bins`` equal bins divide ``phi_limits`` [degrees], at most a turn, or bins lie between
    ``phi_edges`` [degrees]; all the rest as for ``azimuthal``. There are at most 524286 bins
    altogether.
    """

    distance: float | None = None
    energy: float | None = None
    center: tuple[float, float] | None = None
    tilts: tuple[float, float] | None = None
    poni: Path | None = None
    bins: int = 500
    limits: tuple[float, float] | None = None
    width: float | None = None
    edges: tuple[float, ...] | None = None
    unit: str = "1/angstrom"
    phi_bins: int = 36
    phi_limits: tuple[float, float] = (-180.0, 180.0)
    phi_edges: tuple[float, ...] | None = None
    polarization: float | None = None
    solid_angle: bool = True
    average: str = "weighted"
    thresholds: tuple[float, float] | None = None
    errors: str | None = None
    photon: float | None = None
    moments: bool = False
    reference: tuple[float, float] | None = None


class Cake(NamedTuple):
    """What :class:`cake` delivers; ``phi`` [degrees] and ``q`` are the axes."""

    intensity: A[
        Vector, Feature("@", "mean over good pixels, NaN without any", ("phi", "q"), "<f8")
    ]
    npix: A[Vector, Feature("1", "good pixels of this shot", ("phi", "q"), "<i4")]
    reference: A[float, Feature("@", "mean over the good pixels of the reference bins")]
    sem: A[
        Vector,
        Feature("@", "standard error of the intensity", ("phi", "q"), "<f8", when="errors"),
    ]
    sum: A[Vector, Feature("@", "sum of the good pixels", ("phi", "q"), "<f8", when="moments")]
    norm: A[
        Vector,
        Feature("1", "sum of the good pixels' weights", ("phi", "q"), "<f8", when="moments"),
    ]


@tile_reducer(version=2)
class cake:  # noqa: N801 - named after its module
    """I(phi, q) of an area detector, over its good pixels."""

    @staticmethod
    def prepare(params: Params, area: Area) -> Bins:
        """Find the bin and the weight of every pixel."""
        if problems := list(_problems(params, area)):
            raise ValueError("\n".join(problems))
        where, pixels = scattering.pixels_of(params, area)
        axis = scattering.axis_in(params.unit, where, pixels)
        weight = scattering.weights(params, pixels)
        good, sides = area.mask & (weight > 0), params.phi_edges
        edges = scattering.edges_of(params, axis, good, _most(params))
        along, q = binned.place(axis, good, params.bins, params.limits, edges=edges)
        low, high = params.phi_limits if sides is None else (sides[0], sides[-1])
        turned = low + np.mod(np.degrees(pixels.phi) - low, 360.0)
        around, phi = binned.place(
            turned,
            good,
            params.phi_bins,
            (low, high),
            "phi_limits" if sides is None else "phi_edges",
            None if sides is None else np.asarray(sides, np.float64),
        )
        of = np.where((along >= 0) & (around >= 0), around * q.size + along, -1)
        if (of < 0).all():
            raise ValueError("phi_limits: no good pixel lies within them and limits as well")
        reference = np.tile(scattering.within(q, params.reference), phi.size)
        return binned.table(of, weight, area.mask, q, phi, reference, params)

    @staticmethod
    def axes(params: Params, bins: Bins) -> dict[str, Axis]:
        """Say where the centres of the bins are."""
        q = Axis(bins.q, scattering.unit_of(params.unit))
        return {"phi": Axis(bins.phi, "deg"), "q": q}

    @staticmethod
    def allocate(bins: Bins) -> State:
        """Make the sums."""
        return binned.allocate(bins)

    @staticmethod
    def start(bins: Bins, state: State) -> None:
        """Forget the last shot."""
        begin(state)

    @staticmethod
    def accumulate(tile: Tile, bins: Bins, state: State) -> None:
        """Add one row."""
        add_row(tile, bins, state)

    @staticmethod
    def finish(bins: Bins, state: State) -> Cake:
        """Divide the sums by the weights of the pixels that were good."""
        reference, shape = divide(bins, state), (bins.phi.size, bins.q.size)
        out = state.results.reshape((4, shape[0], shape[1]))
        npix = state.npix.reshape(shape)
        return Cake(out[0], npix, reference, out[1], out[2], out[3])


def _most(params: Params) -> int:
    """Most bins along q that can be counted beside those of the azimuth."""
    around = params.phi_bins if params.phi_edges is None else len(params.phi_edges) - 1
    return (MOST_BINS - 1) // around if 1 <= around < MOST_BINS else MOST_BINS - 1


def _problems(params: Params, area: Area) -> Iterator[str]:
    """Everything that cannot be meant, one line each, by parameter."""
    yield from scattering.axis_problems(params, _most(params))
    low, high = params.phi_limits
    if params.phi_edges is not None:
        yield from scattering.edges_problems("phi_edges", params.phi_edges, MOST_BINS - 1)
        if params.phi_edges and params.phi_edges[-1] - params.phi_edges[0] > 360:
            yield "phi_edges: more than a turn; the last is at most 360 above the first"
    elif not 1 <= params.phi_bins < MOST_BINS:
        yield f"phi_bins: {params.phi_bins}; give 1 to {MOST_BINS - 1}"
    if not (np.isfinite(low) and 0 < high - low <= 360):
        yield f"phi_limits: [{low:g}, {high:g}]; give degrees, the lower first, at most a turn"
    yield from scattering.correction_problems(params)
    yield from scattering.setup_problems(params, area)
    if not area.mask.any():
        yield f"limits: no pixel of {area.detector} is good; look at its mask and constants"


def example() -> tuple[Params, Area]:
    """Parameters, and a detector to try them on."""
    mask = np.ones((2, 9, 23), np.bool_)
    segment, row, col = np.indices(mask.shape, np.float64)
    xyz = np.stack([75 * (row - 10 * segment), 75 * (col - 11), 0 * row])
    params = Params(
        distance=5.0, energy=9.5, bins=6, phi_bins=5, phi_limits=(90.0, 370.0),
        thresholds=(-40.0, 140.0), errors="poisson", photon=9.5, moments=True,
    )  # fmt: skip
    return params, Area("example", mask.shape, mask, xyz, "keV")
