"""Frames and constants of the fabricated detectors: precomputed patterns, a handful per step."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

SEGMENT = (512, 1024)
PHOTON_KEV = 9.5
_PIXEL, DISTANCE = 75.0, 100_000.0  # micrometres
_RINGS = ((12_000.0, 0.05), (20_000.0, 0.10), (29_000.0, 0.07), (38_000.0, 0.04))
_GAINS = ((2800.0, 60.0, 40.0), (14_500.0, 100.0, -1.35), (14_000.0, 100.0, -0.1))
_SWITCH_KEV = (250.0, 8000.0)

Constants = Mapping[str, NDArray[np.float32] | NDArray[np.uint64]]


def centres(segments: int) -> list[tuple[float, float]]:
    """Centres of the segments in micrometres: one above the beam, or two columns around it."""
    if segments == 1:
        return [(0.0, 22_000.0)]
    middle = (-(-segments // 2) - 1) / 2
    return [((s % 2 - 0.5) * 80_000.0, (s // 2 - middle) * 41_000.0) for s in range(segments)]


def _axis(pixels: int) -> NDArray[np.float64]:
    """Pixel centres along an axis; pixels at the seams of the 256-pixel chips are double width."""
    width = np.full(pixels, _PIXEL)
    for seam in range(256, pixels, 256):
        width[seam - 1 : seam + 1] = 2 * _PIXEL
    edge: NDArray[np.float64] = np.cumsum(width)
    return np.asarray(edge - width / 2 - edge[-1] / 2)


@lru_cache(maxsize=2)
def xyz(segments: int) -> NDArray[np.float64]:
    """Pixel centres (3, segments, 512, 1024) in micrometres, as psana's geometry gives them."""
    out = np.full((3, segments, *SEGMENT), -DISTANCE)
    for s, (x, y) in enumerate(centres(segments)):
        out[0, s] = x + _axis(SEGMENT[1])
        out[1, s] = y + _axis(SEGMENT[0])[:, None]
    out.flags.writeable = False
    return out


@lru_cache(maxsize=2)
def constants(seed: int, segments: int) -> Constants:
    """Pedestals, gain, offset and status of the Jungfrau, (3, segments, 512, 1024)."""
    rng = np.random.default_rng([seed, 10])
    shape = (3, segments, *SEGMENT)
    pedestals = rng.standard_normal(shape, np.float32)
    gain = rng.standard_normal(shape, np.float32)
    for g, (pedestal, spread, slope) in enumerate(_GAINS):
        pedestals[g] = pedestals[g] * spread + pedestal
        gain[g] = gain[g] * (0.01 * slope) + slope
    offset = np.zeros(shape, np.float32)
    offset[0] = 1.5
    status = (rng.random(shape, np.float32) < 5e-4).astype(np.uint64)
    return {"pedestals": pedestals, "gain": gain, "offset": offset, "status": status}


@lru_cache(maxsize=8)
def _dark(seed: int, segments: int, phase: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Dark ADU of gain 0 with noise, and the uniform deviates that place a phase's photons."""
    c = constants(seed, segments)
    rng = np.random.default_rng([seed, 11, phase])
    dark = c["pedestals"][0] + c["offset"][0]
    dark = dark + 2.0 * rng.standard_normal(dark.shape, np.float32)
    return dark.astype(np.float32), rng.random(dark.shape, np.float32)


def _photons(u: NDArray[np.float32], mu: NDArray[np.float32]) -> NDArray[np.float32]:
    """Poisson numbers of mean ``mu`` by inversion of ``u``, cut off at 3."""
    term = np.exp(-mu)
    below = term.copy()
    n = np.zeros_like(u)
    for k in range(1, 4):
        n += u > below
        term *= mu / k
        below += term
    return n


@lru_cache(maxsize=2)
def _mean_photons(segments: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean photons a pixel from the background and from the rings."""
    x, y, _ = xyz(segments)
    r = np.hypot(x, y)
    rings = sum(a * np.exp(-0.5 * ((r - r0) / 900.0) ** 2) for r0, a in _RINGS)
    return (0.03 * np.exp(-r / 30_000.0)).astype(np.float32), np.asarray(rings, np.float32)


@lru_cache(maxsize=24)
def pattern(seed: int, segments: int, phase: int, level: float, rise: float) -> NDArray[np.uint16]:
    """Raw Jungfrau frame of a phase, (segments, 512, 1024), gain code in the upper two bits.

    ``level`` scales all light, 0 is a frame without x-rays; ``rise`` scales the rings alone.
    """
    c = constants(seed, segments)
    dark, u = _dark(seed, segments, phase)
    adu = dark.copy()
    if level:
        background, rings = _mean_photons(segments)
        shifted = np.roll(u, round(1e6 * rise), axis=-1)  # other photons at another brightness
        mu = np.float32(level) * (background + np.float32(rise) * rings)
        adu += c["gain"][0] * (np.float32(PHOTON_KEV) * _photons(shifted, mu))
    raw = np.clip(adu, 0, 16383).astype(np.uint16)
    if level:
        for s in range(segments):
            _bragg_spot(c, raw, s, phase, level)
    bad = c["status"].any(axis=0)
    raw[bad] = np.where(np.arange(bad.sum()) % 2, 0x3FFF, 0x8000 | 1234)  # hot, or no gain code
    raw.flags.writeable = False
    return raw


def _bragg_spot(c: Constants, raw: NDArray[np.uint16], s: int, phase: int, level: float) -> None:
    """Paint a strong spot whose pixels have switched to the second and third gain."""
    row, column = 150 + 40 * (phase % 6), 300 + 60 * s % 700
    box = (s, slice(row - 12, row + 13), slice(column - 12, column + 13))
    y, x = np.mgrid[-12:13, -12:13]
    kev = 30_000.0 * np.exp(-(x * x + y * y) / 8.0) * level
    for g, code in ((1, 1), (2, 3)):
        switched = kev > _SWITCH_KEV[g - 1]
        adu = (c["pedestals"][g] + c["offset"][g])[box] + c["gain"][g][box] * kev
        value = np.clip(adu, 0, 16383).astype(np.uint16) | np.uint16(code << 14)
        raw[box] = np.where(switched, value, raw[box])


@lru_cache(maxsize=8)
def epix_pattern(seed: int, segments: int, phase: int) -> NDArray[np.uint16]:
    """Raw epix10ka frame of a phase, (segments, 352, 384), a tenth of the pixels with bit 14."""
    rng = np.random.default_rng([seed, 21, phase])
    shape = (segments, 352, 384)
    raw = rng.integers(2000, 9000, shape, np.uint16)
    raw |= (rng.random(shape) < 0.1).astype(np.uint16) << np.uint16(14)
    raw.flags.writeable = False
    return raw


@lru_cache(maxsize=2)
def epix_constants(seed: int, segments: int) -> Constants:
    """Pedestals, gain and status of the epix10ka, (7, segments, 352, 384)."""
    rng = np.random.default_rng([seed, 22])
    shape = (7, segments, 352, 384)
    gain = np.empty(shape, np.float32)
    for g, adu_per_kev in enumerate((16.4, 5.466, 0.164, 16.4, 5.466, 0.164, 0.164)):
        gain[g] = adu_per_kev
    pedestals = 3000 + 300 * rng.standard_normal(shape, np.float32)
    status = (rng.random(shape, np.float32) < 5e-4).astype(np.uint64)
    return {"pedestals": pedestals, "gain": gain, "status": status}
