"""Projection along a curved line: the spectrum of an imaging spectrometer."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb import Area, Axis, Feature, Tile, Vector, tile_reducer
from ffb.reduce import Window
from ffb.reducers.checks import noted
from ffb.reducers.quality import energies, levels, polynomial_problems
from ffb.reducers.window import window


class Params(NamedTuple):
    """What to sum along which curve.

    ``curvature`` [pixel, pixel/pixel, ...], constant first, gives the place of the line at row r of
    the rectangle (at column c with ``axis = 1``): what lies on it comes into one bin. A tilted line
    has two coefficients. ``axis`` is the one that is summed over, as in ``projection``: 0 leaves a
    bin per column. Pixels outside ``thresholds``, [least, largest] in calibrated units, are left
    out, as RIXS and XES want it for a camera whose noise is cut; with ``photons`` those within are
    counted, too, each as one. ``background`` are rows (columns) beside the rectangle, [begin, end]
    or several such pairs, half-open: the mean of what is on the same line there is taken off every
    pixel. ``polynomial`` [eV, eV/pixel, ...], constant first, makes an energy of a bin's distance
    from the line's place, in pixels.
    """

    axis: int
    curvature: tuple[float, ...] = (0.0,)
    segment: int = 0
    rows: tuple[int, int] | None = None
    cols: tuple[int, int] | None = None
    thresholds: tuple[float, float] | None = None
    photons: bool = False
    background: tuple[int, ...] = ()
    polynomial: tuple[float, ...] = ()


class Constants(NamedTuple):
    """The rectangle with its background, and of each place along the summed axis what it is for.

    ``role`` is 0 for none, 1 for the spectrum, 2 for the background. A pixel at place p, and x
    across, falls into bins ``bin[p] + x`` and the one behind it, into the latter with the share
    ``behind[p]``; ``size`` bins hold all of them; ``origin`` is the distance of the first bin from
    the line's place. The first ``kinds`` of KEPT, WEIGHT and COUNT are summed.
    """

    window: Window
    axis: int
    role: NDArray[np.int64]
    bin: NDArray[np.int64]
    behind: NDArray[np.float64]
    size: int
    origin: float
    low: float
    high: float
    kinds: int
    subtract: bool


#: What is summed: values within the thresholds, good pixels, pixels within.
KEPT, WEIGHT, COUNT = range(3)


class State(NamedTuple):
    """Sums (2, 3, size), float64, of spectrum and background; room for a row (3, across)."""

    sums: NDArray[np.float64]
    row: NDArray[np.float64]


class Profile(NamedTuple):
    """The spectrum and what it rests on."""

    sum: Annotated[Vector, Feature("@", "sum of the pixels on the line", ("energy",), "<f8")]
    npix: Annotated[
        Vector, Feature("1", "valid pixels behind it, shared between two bins", ("energy",), "<f8")
    ]
    photons: Annotated[
        Vector,
        Feature(
            "1", "pixels within the thresholds on the line", ("energy",), "<f8", when="photons"
        ),
    ]
    background: Annotated[
        Vector,
        Feature("@", "what was taken off the sum", ("energy",), "<f8", when="background"),
    ]


def _ranges(params: Params, size: int) -> list[tuple[int, int]]:
    """Pairs of the background; ``ValueError`` for what is none or off the segment."""
    flat = params.background
    pairs = list(zip(flat[::2], flat[1::2], strict=False))
    if len(flat) % 2 or not all(0 <= a < b <= size for a, b in pairs):
        what = ("rows", "columns")[params.axis]
        raise ValueError(
            f"background: {list(flat)} are not ranges [begin, end, ...] of the segment's {what},"
            f" 0..{size}"
        )
    return pairs


@tile_reducer(version=1)
class curved_projection:  # noqa: N801
    """Projection of a rectangle of one segment along a curved line, to a fraction of a pixel.

    Every pixel is moved by the line's place and shared between the two bins it then overlaps, so
    that the sum of all bins is that of all pixels; nothing is moved around the ends, where there
    are as many bins more as the line is curved. smalldata_tools moves by whole pixels and around
    the end. A background is the mean over its good pixels in a bin, those outside the thresholds as
    0, times the ``npix`` of the bin; where it has none, ``sum`` is NaN.
    """

    @staticmethod
    def prepare(params: Params, area: Area) -> Constants:
        """Lay out the bins; ``ValueError`` where the rectangle or a polynomial cannot be."""
        problems = polynomial_problems("curvature", params.curvature)
        if params.polynomial:
            problems += polynomial_problems("polynomial", params.polynomial)
        pairs = []
        if params.axis not in (0, 1):
            problems.append(f"axis: there is no {params.axis}; 0 sums over rows, 1 over columns")
        else:
            with noted(problems):
                pairs = _ranges(params, area.shape[1 + params.axis])
        least, largest = levels(params.thresholds, problems)
        if params.photons and least <= 0.0:
            problems.append("photons: pixels without one count, too; thresholds must begin above 0")
        with noted(problems):
            w = window(area, params.segment, params.rows, params.cols)
        if problems:
            raise ValueError("\n".join(problems))
        top = params.segment * area.shape[1]
        first, last = (w.start, w.stop) if params.axis else (w.first - top, w.last - top)
        if any(a < last and b > first for a, b in pairs):
            raise ValueError("background: overlaps the rectangle; it is what lies beside it")
        low = min([first, *(a for a, _ in pairs)])
        high = max([last, *(b for _, b in pairs)])
        role = np.zeros(high - low, np.int64)
        for (a, b), number in [*((p, 2) for p in pairs), ((first, last), 1)]:
            role[a - low : b - low] = number
        across = w.shape[1 - params.axis]
        place = np.polynomial.polynomial.polyval(np.arange(low, high) - first, params.curvature)
        used = place[role > 0]
        if not np.ptp(used) < 4 * across:
            raise ValueError(
                f"curvature: the line moves by {np.ptp(used):.0f} pixels over {used.size}, in a"
                f" rectangle of {across}: coefficients are constant first, of the place within it"
            )
        origin = np.floor(-used.max())
        shift = np.where(role > 0, -place - origin, 0.0)
        begin = np.floor(shift).astype(np.int64)
        size = across + int(begin.max()) + 1
        if params.polynomial:
            energies(params.polynomial, origin + np.arange(size))
        w = w._replace(start=low, stop=high) if params.axis else w._replace(
            first=top + low, last=top + high
        )  # fmt: skip
        return Constants(
            w, params.axis, role, begin, shift - begin, size, float(origin), least,
            largest, 3 if params.photons else 2, bool(pairs),
        )  # fmt: skip

    @staticmethod
    def axes(params: Params, constants: Constants) -> dict[str, Axis]:
        """Energies of the bins, or how far they are from the line's place."""
        pixel = constants.origin + np.arange(constants.size)
        if not params.polynomial:
            return {"energy": Axis(pixel, "pixel")}
        return {"energy": Axis(energies(params.polynomial, pixel), "eV")}

    @staticmethod
    def allocate(constants: Constants) -> State:
        """Room for the sums."""
        return State(np.zeros((2, 3, constants.size)), np.zeros((3, constants.window.shape[1])))

    @staticmethod
    def start(constants: Constants, state: State) -> None:
        """Forget the last shot."""
        state.sums[:] = 0.0

    @staticmethod
    def accumulate(tile: Tile, constants: Constants, state: State) -> None:
        """Share a row out between bins."""
        c, w = constants, constants.window
        row = tile.number - w.first
        if c.axis == 0 and c.role[row] == 0:
            return
        values, valid = tile.values[w.start : w.stop], tile.valid[w.start : w.stop]
        kept, weight, count = state.row[KEPT], state.row[WEIGHT], state.row[COUNT]
        for i in range(values.size):
            v = np.float64(values[i])
            good = (valid[i] != 0) & (v == v)
            inside = good & (v >= c.low) & (v <= c.high)
            kept[i] = v if inside else 0.0
            weight[i] = 1.0 if good else 0.0
        if c.kinds > COUNT:
            for i in range(values.size):
                v = np.float64(values[i])
                count[i] = weight[i] if (v >= c.low) & (v <= c.high) else 0.0
        if c.axis == 0:
            at, share, sums = c.bin[row], c.behind[row], state.sums[c.role[row] - 1]
            for k in range(c.kinds):
                given, out = state.row[k], sums[k]
                n, rest = given.size, 1.0 - share
                out[at] += rest * given[0]
                inner, here, before = out[at + 1 : at + n], given[1:], given[: n - 1]
                for i in range(inner.size):
                    inner[i] += rest * here[i] + share * before[i]
                out[at + n] += share * given[n - 1]
            return
        for i in range(values.size):
            if c.role[i]:
                sums, at = state.sums[c.role[i] - 1], c.bin[i] + row
                for k in range(c.kinds):
                    sums[k, at] += (1.0 - c.behind[i]) * state.row[k, i]
                    sums[k, at + 1] += c.behind[i] * state.row[k, i]

    @staticmethod
    def finish(constants: Constants, state: State) -> Profile:
        """Take the background off and hand over the sums."""
        (found, npix, photons), (level, size) = state.sums[0], state.sums[1, :2]
        if constants.subtract:
            for i in range(found.size):
                mean = level[i] / size[i] if size[i] > 0.0 else np.nan
                level[i] = mean * npix[i] if npix[i] > 0.0 else 0.0
                found[i] -= level[i]
        return Profile(found, npix, photons, level)


def example() -> tuple[Params, Area]:
    """Parameters, and a detector to try them on."""
    mask = np.ones((2, 9, 23), np.bool_)
    params = Params(
        0,
        (0.3, 0.2, 0.05),
        segment=1,
        rows=(2, 9),
        thresholds=(0.0, np.inf),
        polynomial=(850.0, 0.1),
    )
    return params, Area("example", mask.shape, mask, None, "keV")
