"""Which pixels make which bin, and a shot's sums over them: what azimuthal reducers share.

Every pixel belongs to the bin its centre falls in (no pixel splitting). A bin's intensity is the
sum of its good pixels over the sum of their weights, as in pyFAI's ``("no", "histogram",
"cython")`` engine (Kieffer et al., J. Appl. Cryst. 58, 138, 2025), or the mean of its good pixels
that were divided by their weights, as in smalldata_tools.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ffb import Tile
from ffb.loops.compile import kernel, uncompiled
from ffb.reducers.runs import add, cut

#: Bins, and the slot for pixels that belong to none, must be countable in 19 bits.
MOST_BINS = 2**19 - 1

#: Error models by name, as in pyFAI.
ERRORS = {"": 0, "poisson": 1, "azimuthal": 2}

#: What a bin's intensity is the mean of: pixels by their weights, or pixels that were corrected.
AVERAGES = ("weighted", "corrected")


class Corrected(Protocol):
    """Parameters that say how to correct intensities, and which pixels count."""

    @property
    def polarization(self) -> float | None:
        """(Ih - Iv) / (Ih + Iv) of the beam."""
        ...

    @property
    def solid_angle(self) -> bool:
        """Whether to divide by the solid angle."""
        ...

    @property
    def average(self) -> str:
        """What is averaged, one of :data:`AVERAGES`."""
        ...

    @property
    def thresholds(self) -> tuple[float, float] | None:
        """Lowest and highest value of a pixel that counts."""
        ...

    @property
    def errors(self) -> str | None:
        """Error model: poisson, azimuthal or none."""
        ...

    @property
    def photon(self) -> float | None:
        """What one photon leaves in a pixel."""
        ...


class Bins(NamedTuple):
    """The bin of every pixel, and what each bin holds when no pixel is bad.

    ``runs``, ``bounds`` are rows as runs, see :func:`ffb.reducers.runs.cut`; ``weight`` (pixels,)
    float32 is solid angle times polarisation; with ``corrected`` it is one over that, pixels are
    multiplied by it and weigh 1 in all that follows; ``whole`` (4, bins) float64 has for every bin
    the sum of its weights, that of their squares, the number of pixels, and 1 where it belongs to
    the reference; ``q`` and ``phi`` are the centres of the bins. Pixels count from ``low`` to
    ``high``; ``errors`` is a value of :data:`ERRORS`; ``photon`` is what one photon leaves in a
    pixel, ``columns`` the length of a row.

    Few arrays, as those of the state: for each of them compiled code pays at every row.
    """

    runs: NDArray[np.uint32]
    bounds: NDArray[np.int64]
    weight: NDArray[np.float32]
    whole: NDArray[np.float64]
    q: NDArray[np.float64]
    phi: NDArray[np.float64]
    low: float
    high: float
    errors: int
    photon: float
    columns: int
    corrected: bool


class State(NamedTuple):
    """One shot.

    ``sums`` (1 or 3, bins) float64 are of pixels and, where errors ask for them, of their squares
    and of their products with the weights, or with what corrected them; ``lost`` (3, bins) float64
    is what pixels that do not count take from weights, squared weights and number; ``kept``
    (columns,) float32 are a row's pixels that count, ``term`` (columns,) float64 is something to
    add. ``results`` (4, bins) float64 are intensity, its error, sum and weight, ``npix`` (bins,)
    int32.
    """

    sums: NDArray[np.float64]
    lost: NDArray[np.float64]
    kept: NDArray[np.float32]
    term: NDArray[np.float64]
    results: NDArray[np.float64]
    npix: NDArray[np.int32]


def place(
    axis: NDArray[np.float64],
    mask: NDArray[np.bool_],
    bins: int,
    limits: tuple[float, float] | None,
    name: str = "limits",
    edges: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Bin of every pixel by its place on the ``axis``, -1 for none.

    Bins lie between ascending ``edges``, or are ``bins`` equal ones over ``limits``, or over all
    good pixels. They hold their lower edge, the last one its upper edge too. Returns the centres as
    well. Raises ``ValueError``, beginning with ``name``, when no good pixel lies within.
    """
    mask = mask & np.isfinite(axis)
    if not mask.any():
        raise ValueError(f"{name}: no good pixel has a place; look at the geometry")
    inside = axis[mask]
    if edges is not None:
        low, high, bins = edges[0], edges[-1], edges.size - 1
        at = np.searchsorted(edges, axis, side="right") - 1.0
        centres = (edges[1:] + edges[:-1]) / 2
    else:
        low, high = limits or (float(inside.min()), float(inside.max()))
        step = (high - low) / bins or 1.0
        at = np.floor((axis - low) / step)
        centres = low + (np.arange(bins, dtype=np.float64) + 0.5) * step
    at[axis == high] = bins - 1
    good = mask & (at >= 0) & (at < bins)
    if not good.any():
        raise ValueError(
            f"{name}: no good pixel between {low:g} and {high:g};"
            f" they lie between {inside.min():g} and {inside.max():g}"
        )
    return np.where(good, at, -1).astype(np.int64), centres


def table(
    of: NDArray[np.int64],
    weight: NDArray[np.float64],
    mask: NDArray[np.bool_],
    q: NDArray[np.float64],
    phi: NDArray[np.float64],
    reference: NDArray[np.bool_],
    params: Corrected,
) -> Bins:
    """Make the table of pixels ``of`` bins (-1: none) that ``weight`` so much.

    ``mask`` is true for good pixels; ``reference`` says of every bin whether it belongs to it.
    """
    bins, good = reference.size, (of >= 0) & (weight > 0)
    slots = np.where(good, of, bins).astype(np.uint32)
    corrected = params.average == "corrected"
    if corrected:
        weight = np.where(good, 1 / np.where(good, weight, 1.0), 0.0)
    light = weight.astype(np.float32).ravel()
    heavy = np.ones(light.size) if corrected else light.astype(np.float64)  # as pixels are lost
    sums = [np.bincount(slots.ravel(), w, bins + 1)[:bins] for w in (heavy, heavy**2, None)]
    low, high = params.thresholds or (-np.inf, np.inf)
    return Bins(
        *cut(slots, mask, bins),
        light,
        np.array([*sums, reference], np.float64),
        q,
        phi,
        low,
        high,
        ERRORS[params.errors or ""],
        params.photon or 0.0,
        of.shape[-1],
        corrected,
    )


def allocate(bins: Bins) -> State:
    """Make the sums."""
    n = bins.whole.shape[1]
    return State(
        np.zeros((3 if uncompiled(terms)(bins) else 1, n)),  # which compiles nothing
        np.zeros((3, n)),
        np.zeros(bins.columns, np.float32),
        np.zeros(bins.columns),
        np.zeros((4, n)),
        np.zeros(n, np.int32),
    )


@kernel
def terms(bins: Bins) -> Any:
    """Whether errors need sums of squares and of products."""
    return (bins.errors == 2) | ((bins.errors == 1) & bins.corrected)


@kernel
def begin(state: State) -> None:
    """Forget the last shot."""
    state.sums[:] = 0.0
    state.lost[:] = 0.0


@kernel
def add_values(v: Any, tile: Tile, bins: Bins, sums: Any) -> None:
    """Add what a row was made into, ``v``, to the sums of its pixels' bins."""
    add(v, tile.number, bins.runs, bins.bounds, sums, tile.values)


@kernel
def failing(tile: Tile, bins: Bins) -> Any:
    """Count a row's valid pixels that do not count."""
    low, high = np.float32(bins.low), np.float32(bins.high)
    values, valid, number = tile.values, tile.valid, np.int32(0)
    for i in range(values.size):
        v = values[i]
        fails = (valid[i] != 0) & ((v < low) | (v > high) | (v != v))
        number = np.int32(number + fails)  # numba would count in 64 bits
    return number


@kernel
def lose(tile: Tile, bins: Bins, state: State) -> None:
    """Add up what the weights of pixels that do not count take away.

    In float64, in which all pixels were added up: what is left must not be rounding.
    """
    low, high = np.float32(bins.low), np.float32(bins.high)
    values, valid = tile.values, tile.valid
    fails, term = state.kept[: values.size], state.term[: values.size]
    weight = bins.weight[tile.first : tile.first + values.size]
    one, none = np.float32(1.0), np.float32(0.0)
    for i in range(values.size):
        v = values[i]
        fails[i] = one if (valid[i] != 0) & ((v < low) | (v > high) | (v != v)) else none
    add_values(fails, tile, bins, state.lost[2])
    for i in range(values.size):
        term[i] = np.float64(fails[i]) * (1.0 if bins.corrected else np.float64(weight[i]))
    add_values(term, tile, bins, state.lost[0])
    if bins.errors == 2:
        for i in range(values.size):
            term[i] *= 1.0 if bins.corrected else np.float64(weight[i])
        add_values(term, tile, bins, state.lost[1])


@kernel
def keep(tile: Tile, bins: Bins, state: State) -> None:
    """Write a row's pixels that count, corrected where they shall be, and 0 for the others."""
    low, high = np.float32(bins.low), np.float32(bins.high)
    values, none = tile.values, np.float32(0.0)
    kept = state.kept[: values.size]
    for i in range(values.size):
        v = values[i]
        kept[i] = v if (v >= low) & (v <= high) else none
    if bins.corrected:
        weight = bins.weight[tile.first : tile.first + values.size]
        for i in range(values.size):
            kept[i] *= weight[i]


@kernel
def add_terms(v: Any, tile: Tile, bins: Bins, state: State) -> None:
    """Add the squares of ``v``, and the products with the weights.

    Corrected pixels weigh 1, but the number of their photons needs what corrected them again.
    """
    term = state.term[: v.size]
    weight = bins.weight[tile.first : tile.first + v.size]
    alone = bins.corrected & (bins.errors == 2)
    for i in range(v.size):
        term[i] = np.float64(v[i]) * np.float64(v[i])
    add_values(term, tile, bins, state.sums[1])
    for i in range(v.size):
        term[i] = np.float64(v[i]) * (1.0 if alone else np.float64(weight[i]))
    add_values(term, tile, bins, state.sums[2])


@partial(kernel, inlined=True)
def add_row(tile: Tile, bins: Bins, state: State) -> None:
    """Add one row of the detector, as it is where all its pixels count."""
    asked = (tile.bad > 0) | (bins.low > -np.inf) | (bins.high < np.inf)
    if asked | bins.corrected | terms(bins):
        add_some(tile, bins, state, asked)
    else:
        add_values(tile.values, tile, bins, state.sums[0])


@kernel
def add_some(tile: Tile, bins: Bins, state: State, asked: bool) -> None:
    """Add the pixels of a row that count; which these are is to be ``asked``, or all are."""
    number = failing(tile, bins) if asked else np.int32(0)
    if bins.corrected | (number > 0):
        if number > 0:
            lose(tile, bins, state)
        keep(tile, bins, state)
        kept = state.kept[: tile.values.size]
        add_values(kept, tile, bins, state.sums[0])
        if terms(bins):
            add_terms(kept, tile, bins, state)
    else:
        add_values(tile.values, tile, bins, state.sums[0])
        if terms(bins):
            add_terms(tile.values, tile, bins, state)


@kernel
def divide(bins: Bins, state: State) -> Any:
    """Fill the results of a shot, and return the mean over the reference."""
    above, below, results = 0.0, 0.0, state.results
    for b in range(state.npix.size):
        norm = bins.whole[0, b] - state.lost[0, b]
        number = bins.whole[2, b] - state.lost[2, b]
        total = state.sums[0, b]
        mean = total / norm if number > 0 else np.nan
        variance = np.nan
        if (bins.errors == 1) & (number > 0):
            counted = state.sums[-1, b] if bins.corrected else total
            variance = max(bins.photon * counted, 0.0)
        if (bins.errors == 2) & (number > 1):
            cross = mean * state.sums[2, b]
            norm2 = bins.whole[1, b] - state.lost[1, b]
            variance = max(state.sums[1, b] - 2 * cross + mean * mean * norm2, 0.0)
        if (bins.whole[3, b] > 0) & (number > 0):
            above += total
            below += norm
        results[0, b], results[1, b] = mean, np.sqrt(variance) / norm
        results[2, b], results[3, b] = total, norm if number > 0 else 0.0
        state.npix[b] = number
    return above / below if below > 0 else np.nan
