"""Masks of an area detector: status bits, their neighbours, edges of segments, seams of ASICs.

As psana's ``det.raw._mask`` makes them of ``status_bits``, ``stextra_bits``, ``neighbors``,
``edges``, ``center`` and ``calib``, pixel by pixel. Where psana differs: its ``center`` fails for
every Jungfrau, whose seams are masked here as it means to.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.configuration.calibration_settings import CalibrationConfig
from ffb.source import Constants

#: Rows and columns of an ASIC by type of detector.
ASICS = {"jungfrau": (256, 256), "epix10ka": (176, 192), "epix100": (352, 384)}

#: Gain ranges whose status masks a pixel; psana leaves out the two that epix10ka derives.
STATUS_RANGES = 5

Mask = NDArray[np.bool_]


class Masking(NamedTuple):
    """What to mask: see :class:`ffb.configuration.calibration_settings.CalibrationConfig`."""

    status_bits: int | None = None
    status_extra_bits: int | None = None
    neighbors: int = 0
    neighborhood: str = "rhombus"
    edges: tuple[int, int] = (0, 0)
    center: tuple[int, int] = (0, 0)
    pixel_mask: bool = False

    @classmethod
    def of(cls, settings: CalibrationConfig) -> Masking:
        """What the settings of a detector ask for."""
        s = settings
        edges, center = (s.edges[0], s.edges[1]), (s.center[0], s.center[1])
        bits = s.status_bits, s.status_extra_bits
        return cls(*bits, s.neighbors, s.neighborhood, edges, center, s.pixel_mask)


#: Nothing but the status, and all of its bits.
NO_MASKING = Masking()


def good_pixels(c: Constants, masking: Masking, mask: NDArray[np.generic] | None = None) -> Mask:
    """AND the masks of a detector: status over gain ranges, the user's, edges and seams.

    Raises ``ValueError`` with a sentence where that cannot be, or leaves no pixel.
    """
    good = np.ones(c.shape, np.bool_)
    for status, asked in (
        (c.status, masking.status_bits),
        (c.status_extra, masking.status_extra_bits),
    ):
        if status is not None:
            ranges = status if status.ndim == 4 else status[None]
            bits = -1 if asked is None else asked
            good &= (ranges[:STATUS_RANGES].astype(np.int64) & bits == 0).all(axis=0)
    good = shrunk(good, masking.neighbors, masking.neighborhood)
    if masking.pixel_mask:
        if c.pixel_mask is None:
            raise ValueError(f"{c.detector}: pixel_mask: the store has none for it in this run")
        good &= c.pixel_mask != 0
    if mask is not None:
        if not mask.any():
            raise ValueError(
                f"{c.detector}: mask: every pixel is 0, which is bad; is it the other way round?"
            )
        good &= mask != 0
    return good & inside(c.detector, c.shape, *masking.edges) & apart(c, *masking.center)


def shrunk(good: Mask, radius: int, neighborhood: str = "rhombus") -> Mask:
    """Good pixels (segments, rows, columns) that are farther than ``radius`` from all bad ones.

    Far is counted in steps along rows and columns ("rhombus"), as the crow flies ("circle") or in
    the larger of rows and columns ("square"), within a segment.
    """
    out, (rows, columns) = good.copy(), good.shape[1:]
    for down in range(-radius, radius + 1):
        for right in range(-radius, radius + 1):
            if abs(down) >= rows or abs(right) >= columns:
                continue
            size = {"rhombus": abs(down) + abs(right), "circle": np.hypot(down, right)}
            if size.get(neighborhood, 0) <= radius:
                to = slice(max(down, 0), rows + down), slice(max(right, 0), columns + right)
                of = slice(max(-down, 0), rows - down), slice(max(-right, 0), columns - right)
                out[:, *to] &= good[:, *of]
    return out


def inside(detector: str, shape: tuple[int, ...], rows: int, columns: int) -> Mask:
    """All but ``rows`` and ``columns`` along the edges of every segment.

    Raises ``ValueError`` when that leaves no pixel.
    """
    if any(n and 2 * n >= size for n, size in zip((rows, columns), shape[1:], strict=True)):
        told = rows if rows == columns else [rows, columns]
        raise ValueError(
            f"{detector}: edges = {told} leaves no pixel of segments of {shape[1]} x {shape[2]}"
        )
    out = np.zeros(shape, np.bool_)
    out[:, rows : shape[1] - rows, columns : shape[2] - columns] = True
    return out


def apart(c: Constants, rows: int, columns: int) -> Mask:
    """All but ``rows`` and ``columns`` on either side of where the ASICs of a segment meet."""
    out = np.ones(c.shape, np.bool_)
    if not (rows or columns):
        return out
    if c.dettype not in ASICS:
        raise ValueError(
            f"{c.detector}: center: the ASICs of an {c.dettype or 'unknown'} are not known, only"
            f" those of {', '.join(ASICS)}; mask the pixels by a file"
        )
    for axis, (size, wide) in enumerate(zip(ASICS[c.dettype], (rows, columns), strict=True), 1):
        for seam in range(size, c.shape[axis], size) if wide else ():
            out.swapaxes(0, axis)[seam - wide : seam + wide] = False
    return out
