"""The area detector of a synthetic run: rings, noise, and a spot that moves and switches gain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.source import Constants

Numbers = NDArray[np.int64]

#: ADU at zero and ADU/keV of the three gains, energy of a photon, where gain switches.
PEDESTALS, GAINS, PHOTON_KEV, SWITCH_KEV = (1000, 14500, 14000), (40.0, -1.0, -0.125), 8, 240

#: Bits 14 and 15 of a word of the area detector, by gain.
GAIN_CODES = (0, 1 << 14, 3 << 14)

#: Background frames of a run; shots take them in turn.
BACKGROUNDS = 4

#: Half width of the spot in pixels, and its whole width.
SPOT, WIDTH = 4, 9


class Spot(NamedTuple):
    """Where the spot is (its middle pixel) and the energy [keV] it leaves in good pixels."""

    segment: int
    row: int
    col: int
    energy: float


@dataclass(frozen=True)
class AreaFrames:
    """Frames of n shots, each made when it is asked for: what is ``painted`` on a background.

    ``below`` (n,) says on which; ``corners`` (n, 3) are segment, first row and first column.
    """

    backgrounds: NDArray[np.uint16]
    below: Sequence[int]
    corners: Sequence[tuple[int, int, int]]
    painted: NDArray[np.uint16]

    def __getitem__(self, k: int) -> NDArray[np.uint16]:
        """Frame ``k``, (segments, rows, columns)."""
        out: NDArray[np.uint16] = self.backgrounds[self.below[k]].copy()
        segment, row, col = self.corners[k]
        out[segment, row : row + WIDTH, col : col + WIDTH] = self.painted[k]
        return out


class SyntheticArea:
    """Frames (segments, rows, columns) of the ``shape`` given, words as a Jungfrau sends them.

    ``photons`` (shots,) are those in the spot of each shot. All that is asked of shots by their
    numbers ``i`` (n,) is made for all of them at once.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        noise: float,
        photons: Numbers,
        rng: np.random.Generator,
    ) -> None:
        self.shape, self._noise, self._photons, self._rng = shape, noise, photons, rng

    @cached_property
    def _profile(self) -> NDArray[np.float64]:
        g = np.exp(-0.5 * (np.arange(-SPOT, SPOT + 1) / 1.2) ** 2)
        profile = np.outer(g, g)
        return np.asarray(profile / profile.sum())

    def kev(self, i: Numbers) -> Numbers:
        """Energy [keV] that the spot leaves around its middle, (n, WIDTH, WIDTH): whole photons."""
        photons = self._photons[i]
        shared = np.floor(self._profile * photons[:, None, None]).astype(np.int64)
        shared[:, SPOT, SPOT] += photons - shared.sum((1, 2))
        return np.asarray(shared * PHOTON_KEV)

    def corners(self, i: Numbers) -> tuple[Numbers, Numbers, Numbers]:
        """Segment, first row and first column of the pixels around the spot, each (n,)."""
        segments, rows, cols = self.shape
        return i % segments, 7 * i % (rows - 2 * SPOT), 11 * i % (cols - 2 * SPOT)

    def _around(self, i: Numbers) -> tuple[Numbers, Numbers, Numbers]:
        """Index of the pixels around the spot, (n, WIDTH, WIDTH)."""
        segment, row, col = (k[:, None, None] for k in self.corners(i))
        along = np.arange(WIDTH)
        return segment, row + along[:, None], col + along

    def spot(self, i: int) -> Spot:
        """Where the spot of shot ``i`` is and what it deposits."""
        one = np.array([i])
        segment, row, col = (int(k[0]) for k in self.corners(one))
        energy = float(self.kev(one)[self.status[0][self._around(one)] == 0].sum())
        return Spot(segment, row + SPOT, col + SPOT, energy)

    @cached_property
    def status(self) -> NDArray[np.int64]:
        """Status of each pixel by gain, 0 is good."""
        status = np.zeros((3, *self.shape), np.int64)
        status[:, :, 1, 2] = 1
        return status

    @cached_property
    def xyz(self) -> NDArray[np.float64]:
        """Pixel centres (3, segments, rows, columns) in micrometres."""
        segments, rows, cols = self.shape
        y, x = np.mgrid[: segments * rows, :cols] * 75.0
        xyz = np.stack([x - x.mean(), y - y.mean(), np.full_like(x, 1e5)])
        return xyz.reshape(3, *self.shape)

    @cached_property
    def backgrounds(self) -> NDArray[np.uint16]:
        """Rings and noise in ADU, at the first gain, with the bad pixels saturated."""
        x, y, _ = self.xyz
        r = np.hypot(x, y) / 75.0
        adu = PEDESTALS[0] + 40.0 * np.exp(-0.5 * ((r - 25) / 3) ** 2)
        drawn = self._rng.normal(adu, self._noise, (BACKGROUNDS, *self.shape))
        out = np.clip(np.rint(drawn), 0, 0x3FFF).astype(np.uint16)
        out[:, self.status[0] != 0] = 0x3FFF
        return out

    def frames(self, i: Numbers) -> AreaFrames:
        """Frames of shots: background, spot, gain in the top bits."""
        around, kev = self._around(i), self.kev(i)
        below = self.backgrounds[i[:, None, None] % BACKGROUNDS, *around]
        low = below + (GAINS[0] * kev).astype(np.int64)
        high = PEDESTALS[1] + (GAINS[1] * kev).astype(np.int64) | GAIN_CODES[1]
        lit = np.where(kev > SWITCH_KEV, high, low)
        painted = np.where(self.status[0][around] == 0, lit, below).astype(np.uint16)
        corners = np.stack(self.corners(i), axis=1)
        return AreaFrames(self.backgrounds, (i % BACKGROUNDS).tolist(), corners.tolist(), painted)

    def constants(self, detector: str, origin: str) -> Constants:
        """Constants with which the frames were made."""
        planes = (3, *self.shape)
        pedestals, gain = np.empty(planes, np.float32), np.empty(planes, np.float32)
        for k in range(3):
            pedestals[k], gain[k] = PEDESTALS[k], GAINS[k]
        return Constants(
            detector,
            "jungfrau",
            self.shape,
            pedestals=pedestals,
            gain=gain,
            status=self.status,
            xyz=self.xyz,
            origin=origin,
            ids={"pedestals": "synthetic", "pixel_gain": "synthetic", "pixel_status": "synthetic"},
        )
