"""Projection along a curved line: the spectrum of an imaging spectrometer."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb import Area, Axis, Feature, Tile, Vector, tile_reducer
from ffb.reducers.quality import polynomial_problems
from ffb.reducers.window import Window, window


class Params(NamedTuple):
    """What to sum along which curve.

    ``curvature`` [pixel, pixel/pixel, ...], constant first, gives the place of the line at row r of
    the rectangle (at column c with ``axis = 1``): what lies on it comes into one bin. ``axis`` is
    the one that is summed over, as in ``projection``: 0 leaves a bin per column. Pixels outside of
    ``low`` to ``high``, in calibrated units, are left out, as RIXS and XES want it for a camera
    whose noise is cut. ``energy`` [eV, eV/pixel, ...], constant first, is the energy of a bin by
    its distance from the line's place, in pixels.
    """

    axis: int
    curvature: tuple[float, ...] = (0.0,)
    segment: int = 0
    rows: tuple[int, int] | None = None
    cols: tuple[int, int] | None = None
    low: float = -np.inf
    high: float = np.inf
    energy: tuple[float, ...] = ()


class Constants(NamedTuple):
    """The rectangle, and for each place along the summed axis the first of two bins and a share.

    A pixel at place p, and x across, falls into bins ``bin[p] + x`` and the one behind it, into
    the latter with the share ``behind[p]``; ``size`` bins hold all of them; ``origin`` is the
    distance of the first bin from the line's place.
    """

    window: Window
    axis: int
    bin: NDArray[np.int64]
    behind: NDArray[np.float64]
    size: int
    origin: float
    low: float
    high: float


class State(NamedTuple):
    """Sums and shares of pixels, float64, a bin each; room for a row."""

    sums: NDArray[np.float64]
    npix: NDArray[np.float64]
    kept: NDArray[np.float64]
    weight: NDArray[np.float64]


class Profile(NamedTuple):
    """The spectrum and what it rests on."""

    sum: Annotated[Vector, Feature("@", "sum of the pixels on the line", ("energy",), "<f8")]
    npix: Annotated[
        Vector, Feature("1", "valid pixels behind it, shared between two bins", ("energy",), "<f8")
    ]


@tile_reducer(version=1)
class curved_projection:  # noqa: N801
    """Projection of a rectangle of one segment along a curved line, to a fraction of a pixel.

    Every pixel is moved by the line's place and shared between the two bins it then overlaps, so
    that the sum of all bins is that of all pixels; nothing is moved around the ends, where there
    are as many bins more as the line is curved. smalldata_tools moves by whole pixels and around
    the end.
    """

    @staticmethod
    def prepare(params: Params, area: Area) -> Constants:
        """Lay out the bins; ``ValueError`` where the rectangle or a polynomial cannot be."""
        problems = polynomial_problems("curvature", params.curvature)
        if params.energy:
            problems += polynomial_problems("energy", params.energy)
        if params.axis not in (0, 1):
            problems.append(f"axis: there is no {params.axis}; 0 sums over rows, 1 over columns")
        if not params.low < params.high:
            problems.append(f"high: {params.high} must be above low, {params.low}")
        w = Window(0, 1, 0, 1)
        try:
            w = window(area, params.segment, params.rows, params.cols)
        except ValueError as e:
            problems.append(str(e))
        if problems:
            raise ValueError("\n".join(problems))
        along, across = w.shape[params.axis], w.shape[1 - params.axis]
        place = np.polynomial.polynomial.polyval(np.arange(along), params.curvature)
        if not np.ptp(place) < 4 * across:
            raise ValueError(
                f"curvature: the line moves by {np.ptp(place):.0f} pixels over {along}, in a"
                f" rectangle of {across}: coefficients are constant first, of the place within it"
            )
        origin = np.floor(-place.max())
        shift = -place - origin
        first = np.floor(shift).astype(np.int64)
        size = across + int(first.max()) + 1
        behind = shift - first
        return Constants(
            w, params.axis, first, behind, size, float(origin), params.low, params.high
        )

    @staticmethod
    def axes(params: Params, constants: Constants) -> dict[str, Axis]:
        """Energies of the bins, or how far they are from the line's place."""
        pixel = constants.origin + np.arange(constants.size)
        if not params.energy:
            return {"energy": Axis(pixel, "pixel")}
        return {"energy": Axis(np.polynomial.polynomial.polyval(pixel, params.energy), "eV")}

    @staticmethod
    def allocate(constants: Constants) -> State:
        """Room for the sums."""
        size, columns = constants.size, constants.window.shape[1]
        return State(np.zeros(size), np.zeros(size), np.zeros(columns), np.zeros(columns))

    @staticmethod
    def start(constants: Constants, state: State) -> None:
        """Forget the last shot."""
        state.sums[:] = 0.0
        state.npix[:] = 0.0

    @staticmethod
    def accumulate(tile: Tile, constants: Constants, state: State) -> None:
        """Share a row out between bins."""
        c, w = constants, constants.window
        row = tile.number - w.first
        if row < 0 or tile.number >= w.last:
            return
        values, valid = tile.values[w.start : w.stop], tile.valid[w.start : w.stop]
        kept, weight = state.kept, state.weight
        for i in range(values.size):
            v = np.float64(values[i])
            good = (valid[i] != 0) & (v == v)
            inside = good & (v >= c.low) & (v <= c.high)
            kept[i] = v if inside else 0.0
            weight[i] = 1.0 if good else 0.0
        if c.axis == 0:
            at, share = c.bin[row], c.behind[row]
            for out, given in ((state.sums, kept), (state.npix, weight)):
                here, behind = out[at : at + given.size], out[at + 1 : at + 1 + given.size]
                for i in range(given.size):
                    here[i] += (1.0 - share) * given[i]
                for i in range(given.size):
                    behind[i] += share * given[i]
            return
        for out, given in ((state.sums, kept), (state.npix, weight)):
            for i in range(given.size):
                at = c.bin[i] + row
                out[at] += (1.0 - c.behind[i]) * given[i]
                out[at + 1] += c.behind[i] * given[i]

    @staticmethod
    def finish(constants: Constants, state: State) -> Profile:
        """Hand over the sums."""
        return Profile(state.sums, state.npix)


def example() -> tuple[Params, Area]:
    """Parameters, and a detector to try them on."""
    mask = np.ones((2, 9, 23), np.bool_)
    params = Params(0, (0.3, 0.2, 0.05), segment=1, rows=(2, 9), low=0.0, energy=(850.0, 0.1))
    return params, Area("example", mask.shape, mask, None, "keV")
