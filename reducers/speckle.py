"""Speckle contrast of one shot from its photons: P(k), pairs of photons, by region or q ring."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb import Area, Axis, Feature, Tile, Vector, tile_reducer
from ffb.reducers import scattering
from ffb.reducers.checks import noted
from ffb.reducers.gain_ranges import exact
from ffb.reducers.greedy import BRIGHTEST, Worth, photons_in, worth_of
from ffb.reducers.lanes import BLOCK, lowest
from ffb.reducers.lit import lit
from ffb.reducers.photon_map import UNIT
from ffb.reducers.photons import MOST
from ffb.reducers.shapes import array_from, region_mask

#: Most regions of one reducer.
REGIONS = 1000

#: Places in ``State.counts``: photons, ordered pairs of them in one pixel, pixels not valid.
PHOTONS, PAIRS, BAD = range(3)


class Params(NamedTuple):
    """Which pixels, in which regions, and what a photon is.

    On a photon map a photon is 1. On other frames ``photon``, its calibrated value, has to be
    given, and ``edges`` are the least values of 1, 2, ... photons in a pixel, halfway between them
    if left out; beyond the last edge they go on in steps of ``photon``.

    Pixels are those in everything that is given of ``segment``, ``polygon``, ``ellipse``, ``ring``
    and ``mask``, as ``region`` has them. They are one region, or those that ``labels`` numbers: a
    .npy file of whole numbers with the shape of the detector, 1 to 1000, 0 for none. Or they are
    rings, with the ``rings`` their edges in ``unit``: ring n reaches from edge n up to edge n + 1,
    which is outside. For those ``distance``, ``energy``, ``center``, ``tilts`` and ``poni`` are as
    ``azimuthal`` has them.
    """

    photon: float | None = None
    edges: tuple[float, ...] | None = None
    segment: int | None = None
    polygon: tuple[float, ...] | None = None
    ellipse: tuple[float, ...] | None = None
    ring: tuple[float, ...] | None = None
    mask: Path | None = None
    labels: Path | None = None
    rings: tuple[float, ...] | None = None
    unit: str = "1/angstrom"
    distance: float | None = None
    energy: float | None = None
    center: tuple[float, float] | None = None
    tilts: tuple[float, float] | None = None
    poni: Path | None = None


class Constants(NamedTuple):
    """The region of each pixel, ``of`` (pixels,), 0 for none, and the good pixels of each region.

    ``spans`` (tiles, 2) are the columns of a tile that regions lie between, half-open. ``least`` is
    the least value of a photon, ``most`` the largest of a valid pixel.
    """

    worth: Worth
    least: np.float32
    most: np.float32
    of: NDArray[np.int16]
    spans: NDArray[np.int64]
    npix: NDArray[np.int64]


class State(NamedTuple):
    """By region: ``counts`` (regions, 3) and pixels with k photons (regions, MOST + 2), int64.

    The others are what they come to: valid pixels, photons, their mean, pairs, P(k), contrasts.
    """

    counts: NDArray[np.int64]
    held: NDArray[np.int64]
    npix: NDArray[np.int64]
    photons: NDArray[np.int64]
    mean: NDArray[np.float64]
    pairs: NDArray[np.int64]
    prob: NDArray[np.float64]
    contrast: NDArray[np.float64]
    ratio: NDArray[np.float64]


class Speckle(NamedTuple):
    """Photon statistics of each region, over its pixels that are valid in this shot."""

    npix: Annotated[Vector, Feature("1", "valid pixels in this shot", ("region",), "<i8")]
    photons: Annotated[Vector, Feature("1", "photons", ("region",), "<i8")]
    mean: Annotated[
        Vector, Feature("1", "photons per valid pixel; NaN without any", ("region",), "<f8")
    ]
    pairs: Annotated[
        Vector,
        Feature("1", "ordered pairs of photons in one pixel, sum of k (k - 1)", ("region",), "<i8"),
    ]
    prob: Annotated[
        Vector,
        Feature("1", "fraction of the valid pixels that hold k photons", ("region", "k"), "<f8"),
    ]
    contrast: Annotated[
        Vector,
        Feature("1", "squared contrast, shot noise taken off, from pairs", ("region",), "<f8"),
    ]
    ratio: Annotated[
        Vector,
        Feature("1", "squared contrast from P(2) / P(1)", ("region",), "<f8"),
    ]


@exact
def _add(values: Any, of: Any, k: Constants, state: State) -> None:
    """Count the photons of a row's pixels."""
    for at in range(0, values.size, BLOCK):
        bits = lit(values, at, k.least)
        while bits:
            i = at + lowest(bits)
            bits &= bits - 1
            region = np.int64(of[i]) - 1
            if region >= 0:
                if values[i] > k.most:
                    state.counts[region, BAD] += 1
                else:
                    n = photons_in(np.float64(values[i]), k.worth)
                    state.counts[region, PHOTONS] += n
                    state.counts[region, PAIRS] += n * (n - 1)
                    state.held[region, min(n, MOST + 1)] += 1


@tile_reducer(version=1)
class speckle:  # noqa: N801
    """Speckle contrast of each region from whole photons, and the sums it is made of.

    ``contrast`` is beta = var / mean^2 - 1 / mean, the squared visibility of speckles without their
    shot noise: pairs of photons in one pixel over what pairs in different pixels let expect,

        beta = pairs (npix - 1) / (photons^2 - photons - pairs) - 1.

    Both sides of the fraction are unbiased however few photons there are, so over many shots divide
    the sums: mean(pairs) by mean((photons^2 - photons - pairs) / (npix - 1)). A mean of the
    contrasts of single shots is not that.

    ``ratio`` is beta from one- and two-photon pixels alone, for charge that spreads makes few of
    more: with R = P(2) / P(1) and the mean m, beta = (2 R - m) / (m (1 - 2 R)). It is exact for the
    negative binomial P(k) of 1 / beta modes (Goodman, Statistical Optics, chapter 9), and
    2 R / m - 1 for few photons, m << 1. About a mean of 1 it is of no use: R is 1 / 2 there
    whatever beta is. Counting photons for it at an FEL: Hruszkewycz et al., Phys. Rev. Lett. 109,
    185502 (2012).

    NaN where there is nothing to divide by. Beta is as measured: of the true contrast the
    detector's pixels and charge clouds leave a part (Sun et al., J. Synchrotron Rad. 27, 2020).
    """

    @staticmethod
    def prepare(params: Params, area: Area) -> Constants:
        """Find the region of every pixel; ``ValueError`` lists what does not fit."""
        problems: list[str] = []
        worth = _worth(params, area, problems)
        of = np.zeros(area.shape, np.int16)
        try:
            of = _regions(params, area)
        except ValueError as e:
            problems += str(e).splitlines()
        if problems:
            raise ValueError("\n".join(problems))
        first = worth.edges[0] if worth.edges.size else 0.5 * worth.photon
        least = np.float32(first)
        if np.float64(least) < first:
            least = np.nextafter(least, np.float32(np.inf))
        rows = of.reshape(-1, area.shape[2])
        inside = rows > 0
        start = np.where(inside.any(axis=1), inside.argmax(axis=1), 0)
        stop = np.where(inside.any(axis=1), rows.shape[1] - inside[:, ::-1].argmax(axis=1), 0)
        return Constants(
            worth,
            least,
            np.float32(min(BRIGHTEST * worth.photon, float(np.finfo(np.float32).max))),
            of.ravel(),
            np.stack([start, stop], axis=1).astype(np.int64),
            np.bincount(of.ravel(), minlength=_number(params, of) + 1)[1:].astype(np.int64),
        )

    @staticmethod
    def axes(params: Params, constants: Constants) -> dict[str, Axis]:
        """Numbers of the regions, or middles of the rings; photons in a pixel."""
        region = Axis(np.arange(1.0, constants.npix.size + 1), "1")
        if params.rings is not None:
            edges = np.array(params.rings)
            region = Axis((edges[1:] + edges[:-1]) / 2, scattering.unit_of(params.unit))
        return {"region": region, "k": Axis(np.arange(MOST + 1.0), "1")}

    @staticmethod
    def allocate(constants: Constants) -> State:
        """Room for the counts."""
        n = constants.npix.size
        counts, held = np.zeros((n, 3), np.int64), np.zeros((n, MOST + 2), np.int64)
        npix, photons, pairs = (np.zeros(n, np.int64) for _ in range(3))
        mean, contrast, ratio = (np.zeros(n) for _ in range(3))
        prob = np.zeros((n, MOST + 1))
        return State(counts, held, npix, photons, mean, pairs, prob, contrast, ratio)

    @staticmethod
    def start(constants: Constants, state: State) -> None:
        """Forget the last shot."""
        state.counts[:] = 0
        state.held[:] = 0

    @staticmethod
    def accumulate(tile: Tile, constants: Constants, state: State) -> None:
        """Count the photons of a row."""
        start, stop = constants.spans[tile.number, 0], constants.spans[tile.number, 1]
        if start == stop:
            return
        values = tile.values[start:stop]
        of = constants.of[tile.first + start : tile.first + stop]
        _add(values, of, constants, state)
        if tile.bad:
            for i in range(values.size):
                if values[i] != values[i] and of[i] > 0:
                    state.counts[of[i] - 1, BAD] += 1

    @staticmethod
    def finish(constants: Constants, state: State) -> Speckle:
        """Make probabilities and contrasts of the counts."""
        for r in range(constants.npix.size):
            n, same, bad = state.counts[r]
            npix = constants.npix[r] - bad
            state.held[r, 0] = npix - state.held[r, 1:].sum()
            state.npix[r], state.photons[r], state.pairs[r] = npix, n, same
            mean = n / npix if npix else np.nan
            for k in range(MOST + 1):
                state.prob[r, k] = state.held[r, k] / npix if npix else np.nan
            apart = n * n - n - same
            state.mean[r] = mean
            state.contrast[r] = same * (npix - 1) / apart - 1.0 if apart > 0 else np.nan
            ones, twos = state.held[r, 1], state.held[r, 2]
            left = mean * (ones - 2 * twos)
            known = ones > 0 and left != 0.0
            state.ratio[r] = (2 * twos - mean * ones) / left if known else np.nan
        return Speckle(
            state.npix,
            state.photons,
            state.mean,
            state.pairs,
            state.prob,
            state.contrast,
            state.ratio,
        )


def _worth(params: Params, area: Area, problems: list[str]) -> Worth:
    """Value of a photon, 1 on a photon map; appends to ``problems`` what makes no sense."""
    photon = params.photon
    if photon is None and area.unit != UNIT:
        problems.append(
            f"photon: missing; the pixels of {area.detector} are in {area.unit}: give what one"
            " photon leaves in them, or make a photon map, where it is 1, by [photons.INPUT]"
        )
        area = area._replace(unit=UNIT)
    return worth_of(1.0 if photon is None else photon, params.edges, area, problems)


def _number(params: Params, of: NDArray[np.int16]) -> int:
    """How many regions there are, empty ones included."""
    return len(params.rings) - 1 if params.rings is not None else int(of.max())


def _regions(params: Params, area: Area) -> NDArray[np.int16]:
    """Region of every pixel of a detector, 0 for none."""
    p = params
    problems = list(_ring_problems(p, area))
    inside, of = area.mask, np.ones(area.shape, np.int16)
    try:
        inside = region_mask(area, p.segment, p.polygon, p.ellipse, p.ring, p.mask)
    except ValueError as e:
        problems += str(e).splitlines()
    if p.labels is not None and p.rings is not None:
        problems.append("labels: regions are numbered by a file or are rings; leave out either")
    elif p.labels is not None:
        with noted(problems):
            of = _labelled(area, p.labels)
    if problems:
        raise ValueError("\n".join(problems))
    if p.rings is not None:
        axis = scattering.axis_in(p.unit, *scattering.pixels_of(p, area))
        of = np.searchsorted(np.array(p.rings), axis, side="right").astype(np.int16)
        of[of == len(p.rings)] = 0
    of = np.where(inside, of, 0).astype(np.int16)
    if not of.any() and area.mask.any():
        raise ValueError(f"region: no good pixel of {area.detector} lies in any")
    return of


def _ring_problems(p: Params, area: Area) -> Iterator[str]:
    if p.rings is None:
        return
    yield from scattering.edges_problems("rings", p.rings, REGIONS)
    if scattering.unit_of(p.unit) not in scattering.UNITS:
        yield f"unit: {p.unit!r}; known are {', '.join(scattering.UNITS)}"
    yield from scattering.setup_problems(p, area)


def _labelled(area: Area, path: Path) -> NDArray[np.int16]:
    """Regions from a file; ``ValueError`` says what is wrong with it."""
    labels = array_from(area, path, "labels")
    if labels.dtype.kind not in "iub":
        raise ValueError(f"labels: {path} holds {labels.dtype}; give whole numbers")
    if labels.min() < 0 or not 1 <= labels.max() <= REGIONS:
        raise ValueError(
            f"labels: {path} holds {labels.min()} to {labels.max()}; regions have the numbers 1 to"
            f" {REGIONS}, 0 is none"
        )
    return labels.astype(np.int16)


def example() -> tuple[Params, Area]:
    """Parameters, and a detector to try them on."""
    mask = np.ones((2, 9, 23), np.bool_)
    segment, row, col = np.indices(mask.shape, np.float64)
    xyz = np.stack([100 * (row + 9 * segment), 100 * col, 0 * row])
    params = Params(photon=50.0, rings=(0.0, 1.0, 2.0), unit="mm", distance=100.0)
    return params, Area("example", mask.shape, mask, xyz, "keV")
