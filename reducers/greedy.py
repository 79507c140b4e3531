"""Droplets divided into photons by the greedy guess: what lists and maps of photons share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb import Area
from ffb.reducers.connected import (
    END,
    SEGMENT,
    Candidates,
    Droplets,
    beside,
    make_candidates,
    make_droplets,
)
from ffb.reducers.gain_ranges import exact

#: Units of calibrated pixels that are energies, in keV, and what an X-ray laser's photons have.
KEV = {"keV": 1.0, "eV": 1e-3}
XRAYS = (0.05, 100.0)

#: Photons that a pixel may hold; a brighter one is not valid.
BRIGHTEST = 1_000_000


class Worth(NamedTuple):
    """What one photon is worth, ``photon``, and where each number of photons begins.

    ``edges`` (n,) float64 ascend: at least ``edges[k]`` make k + 1 photons; beyond the last they go
    on in steps of ``photon``. Without any they lie halfway: the nearest whole number, halves up.
    """

    photon: float
    edges: NDArray[np.float64]


class Guess(NamedTuple):
    """Pixels and droplets of a segment, and by candidate what the guess has made of a pixel.

    ``rest`` is the part of a photon that is left in it, ``whole`` are the photons placed in it.
    """

    candidates: Candidates
    droplets: Droplets
    rest: NDArray[np.float64]
    whole: NDArray[np.int32]


class Places(NamedTuple):
    """Where photons are; ``n`` (1,) int64 counts those beyond the room of the arrays, too."""

    n: NDArray[np.int64]
    row: NDArray[np.float32]
    col: NDArray[np.float32]
    segment: NDArray[np.int16]


def photon_problems(photon: float, area: Area) -> Iterator[str]:
    """A line if this cannot be what a photon leaves in a pixel of the detector."""
    if not 0 < photon < np.inf:
        yield f"photon: {photon} is not the value of a photon; give one above 0"
    elif area.unit in KEV and not XRAYS[0] <= photon * KEV[area.unit] <= XRAYS[1]:
        yield (
            f"photon: {photon:g} {area.unit} is no photon of an X-ray laser; the pixels of"
            f" {area.detector} are calibrated in {area.unit}, they are no longer ADU"
        )


def worth_of(
    photon: float, edges: tuple[float, ...] | None, area: Area, problems: list[str]
) -> Worth:
    """Value of a photon, in calibrated units; appends to ``problems`` what makes no sense."""
    problems.extend(photon_problems(photon, area))
    given = np.array(edges or (), np.float64)
    if edges is not None and not edges:
        problems.append("edges: none given; leave it out for edges halfway between photons")
    elif not (np.isfinite(given).all() and (np.diff(given, prepend=0.0) > 0).all()):
        problems.append(f"edges: {given.tolist()} must ascend from above 0")
    return Worth(photon, given)


def make_guess(rows: int, columns: int) -> Guess:
    """Room for the pixels and droplets of a segment."""
    candidates = make_candidates(rows, columns)
    size = candidates.value.size
    droplets = make_droplets(rows, columns)
    return Guess(candidates, droplets, np.zeros(size), np.zeros(size, np.int32))


def make_places(room: int) -> Places:
    """Room for so many photons."""
    row, col = np.zeros(room, np.float32), np.zeros(room, np.float32)
    return Places(np.zeros(1, np.int64), row, col, np.zeros(room, np.int16))


@exact
def photons_in(value: float, worth: Worth) -> Any:
    """Whole number of photons of a finite value, not below 0."""
    edges = worth.edges
    if edges.size == 0:
        return max(np.int64(np.floor(value / worth.photon + 0.5)), 0)
    n = np.int64(0)
    while n < edges.size and value >= edges[n]:
        n += 1
    if n == edges.size:
        n += np.int64(np.floor((value - edges[n - 1]) / worth.photon))
    return n


@exact
def place(guess: Guess, places: Places, n: int, row: float, col: float) -> None:
    """Add ``n`` photons at one place; what there is no room for is counted."""
    at = places.n[0]
    places.n[0] += n
    for k in range(at, min(at + n, places.row.size)):
        places.row[k] = row
        places.col[k] = col
        places.segment[k] = guess.candidates.now[SEGMENT]


@exact
def _brightest_beside(guess: Guess, i: int) -> Any:
    """Neighbour of candidate ``i`` in its droplet with the most left, -1 if none has any."""
    c, rest = guess.candidates, guess.rest
    best: Any = -1
    most = 0.0
    left = i - 1 if i > 0 and beside(c, i - 1, i) else -1
    right = i + 1 if i + 1 < c.now[END] and beside(c, i, i + 1) else -1
    for j in (np.int64(c.up[i]), left, right, np.int64(c.down[i])):
        if j >= 0 and c.member[j] != 0 and rest[j] > most:
            best, most = j, rest[j]
    return best


@exact
def divide(guess: Guess, places: Places, photon: float, d: int, n: int) -> None:
    """Place the ``n`` photons of droplet ``d``: whole ones, then by the brightest remainder."""
    c, rest, whole = guess.candidates, guess.rest, guess.whole
    first: Any = np.int64(guess.droplets.first[d])
    placed: Any = np.int64(0)
    i = first
    while i >= 0:
        x = np.float64(c.value[i]) / photon
        held = min(np.int64(np.floor(x)), n - placed)  # edges may leave fewer than there are
        whole[i], rest[i] = held, x - held
        placed += held
        place(guess, places, held, c.row[i], c.col[i])
        i = np.int64(c.next[i])
    for _ in range(n - placed):
        best = i = first
        while i >= 0:
            best = i if rest[i] > rest[best] else best
            i = np.int64(c.next[i])
        to, shift = _brightest_beside(guess, best), 1.0 - rest[best]
        rest[best] = 0.0
        row, col = np.float64(c.row[best]), np.float64(c.col[best])
        if to >= 0:
            row += shift * (c.row[to] - c.row[best])
            col += shift * (c.col[to] - c.col[best])
            rest[to] = max(rest[to] - shift, 0.0)
        place(guess, places, 1, row, col)
        whole[to if to >= 0 and shift > 0.5 else best] += 1
