"""Azimuthal integration: scattered intensity against momentum transfer, I(q).

Every pixel belongs to the bin its centre falls in, and a bin's intensity is the sum of its pixels
over the sum of their weights, solid angle times polarisation: see :mod:`ffb.reducers.bins`.
pyFAI's histogram engine does the same and differs in details: it rounds limits to float32 and
widens the upper one by a float32 step, and puts pixels up to one bin below the lower limit into
the first bin, where here they belong to none; a bin without pixels is 0 there and NaN here.

The ``azav`` of smalldata_tools averages pixels that were divided by their weights, which is
``average = "corrected"`` here. Its ``center`` is ours, and its azimuth counts from the same axis in
the same sense; its ``dis_to_sam`` is along the normal of the detector, ours along the beam; ``ty``
is our ``tilts = [0, -ty]``; with a ``tx`` (our ``[tx, 0]``) its beam misses its own centre towards
-y by 2 ``dis_to_sam`` tan ``tx``; ``Pplane`` p is ``polarization = 2 p - 1``; ``qbin`` is
``width``, or ``edges`` where it lists them, and begins one bin below the least q. Its ``thresADU``
and ``thresADUhigh`` are our ``thresholds``, but there the pixels outside still count as zeros; its
``thresRms`` never worked. What its ``square`` averages, but of corrected pixels, is
``intensity``^2 + ``npix`` ``sem``^2 with ``errors = "azimuthal"``.

Solid angles are those of pixels where they are: D ``distance``^2 / r^3 for one r from the sample,
in a plane at D. ``azav`` divides by D^2 / r^3 over the largest of the detector, which is another
scale where the beam misses it; pyFAI by (D / r)^3. Segments that stand dz behind the rest are
thereby off by dz / ``distance`` or twice that, which flat detectors are not.

All bins are those of one ``energy``, as in ``azav`` and pyFAI: a pulse whose photons have another
moves its q by the same share, at a jitter of 0.1 % a fifth of the usual bin at 1/angstrom. For a
scan of the photon energy take ``unit = "deg"``, which does not depend on it, and turn the axis
into q by every step's energy; or give ``energy`` by runs.

For differences between light states, Delta-I(q), every shot brings its ``reference`` to be divided
by, and with ``moments`` the sums that make a mean over many shots right where pixels were bad.
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
from ffb.reducers.bins import Bins, State, add_row, begin, divide


class Params(NamedTuple):
    """Where the detector stands, how to bin, and which pixels count.

    Either ``distance`` [mm] from sample to detector along the beam, with the detector's psana
    geometry; ``center`` [um] is where the beam meets the detector, x and y in the frame of that
    geometry (x down the rows of psana's image, y along its columns), 0 and 0 if left out;
    ``tilts`` [degrees] turn the detector about x and y through that point.

    Or ``poni``, a PONI file of pyFAI; it counts from the corner of the image psana assembles, or
    of a detector that is a single segment.

    ``energy`` [keV] of the photons is needed for q; with ``poni`` it replaces the file's
    wavelength. The axis has ``bins`` equal bins over ``limits`` in ``unit``, over all good pixels
    if left out; or bins of one ``width``, which begin at a multiple of it where there are no
    limits; or bins between ``edges``, in ascending order. ``unit`` is "1/angstrom" or "1/nm" for q,
    "deg" or "rad" for the scattering angle 2 theta, "mm" for the distance from the beam, or a name
    of pyFAI's ("q_A^-1", "2th_deg", ...).

    ``solid_angle`` divides by the solid angle of a pixel, 1 where the beam would meet the detector
    at a right angle. ``polarization`` divides by the polarisation factor for (Ih - Iv) / (Ih + Iv)
    of the beam: 1 is all along y, 0 unpolarised; left out, nothing is corrected. ``average`` says
    of what an intensity is the mean: "weighted" divides the sum of the pixels by that of their
    weights, as pyFAI does; "corrected" divides every pixel by its weight first and counts pixels,
    as smalldata_tools does.

    Pixels outside ``thresholds``, in calibrated units, do not count: neither in the sum nor in
    what it is divided by; both limits are inside. ``errors`` adds the standard error of every bin:
    "azimuthal" from how its pixels differ from their mean, "poisson" from the number of photons,
    of which one leaves ``photon`` in a pixel (``energy`` where pixels are in keV). ``moments``
    adds the sums themselves. ``reference`` are the limits, in ``unit``, of the bins to normalise a
    shot with; all bins if left out.
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
    polarization: float | None = None
    solid_angle: bool = True
    average: str = "weighted"
    thresholds: tuple[float, float] | None = None
    errors: str | None = None
    photon: float | None = None
    moments: bool = False
    reference: tuple[float, float] | None = None


class Azimuthal(NamedTuple):
    """What :class:`azimuthal` delivers; ``q`` is the axis, the centres of the bins."""

    intensity: A[Vector, Feature("@", "mean over good pixels, NaN without any", ("q",), "<f8")]
    npix: A[Vector, Feature("1", "good pixels of this shot", ("q",), "<i4")]
    reference: A[float, Feature("@", "mean over the good pixels of the reference bins")]
    sem: A[
        Vector,
        Feature("@", "standard error of the intensity", ("q",), "<f8", when="errors"),
    ]
    sum: A[Vector, Feature("@", "sum of the good pixels", ("q",), "<f8", when="moments")]
    norm: A[
        Vector,
        Feature("1", "sum of the good pixels' weights", ("q",), "<f8", when="moments"),
    ]


@tile_reducer(version=3)
class azimuthal:  # noqa: N801 - named after its module
    """I(q) of an area detector, over its good pixels."""

    @staticmethod
    def prepare(params: Params, area: Area) -> Bins:
        """Find the bin and the weight of every pixel."""
        if problems := list(_problems(params, area)):
            raise ValueError("\n".join(problems))
        where, pixels = scattering.pixels_of(params, area)
        axis = scattering.axis_in(params.unit, where, pixels)
        weight = scattering.weights(params, pixels)
        good = area.mask & (weight > 0)
        edges = scattering.edges_of(params, axis, good)
        of, q = binned.place(axis, good, params.bins, params.limits, edges=edges)
        reference = scattering.within(q, params.reference)
        return binned.table(of, weight, area.mask, q, np.zeros(0), reference, params)

    @staticmethod
    def axes(params: Params, bins: Bins) -> dict[str, Axis]:
        """Say where the centres of the bins are."""
        return {"q": Axis(bins.q, scattering.unit_of(params.unit))}

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
    def finish(bins: Bins, state: State) -> Azimuthal:
        """Divide the sums by the weights of the pixels that were good."""
        reference, out = divide(bins, state), state.results
        return Azimuthal(out[0], state.npix, reference, out[1], out[2], out[3])


def _problems(params: Params, area: Area) -> Iterator[str]:
    """Everything that cannot be meant, one line each, by parameter."""
    yield from scattering.axis_problems(params)
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
        distance=5.0, energy=9.5, bins=12, thresholds=(-40.0, 140.0), errors="azimuthal",
        moments=True,
    )  # fmt: skip
    return params, Area("example", mask.shape, mask, xyz, "keV")
