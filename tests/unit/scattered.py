"""A detector of four segments before pyFAI, as the tests of azimuthal reducers share it."""

from typing import Any

import numpy as np
from pyFAI.detectors import Detector
from pyFAI.integrator.azimuthal import AzimuthalIntegrator

from ffb import Area
from ffb.reducers import geometry as geo

PIXEL = 75e-6
#: Rows and columns where the segments sit in the assembled image, which has gaps.
PLACES = ((0, 0), (0, 140), (75, 3), (75, 143))
SEGMENT = (70, 133)
SHAPE = (4, *SEGMENT)
IMAGE = (150, 280)
CENTER = (71.3, 139.6)  # pixels
DISTANCE, ENERGY = 60.0, 9.5

#: Parameters that stand the detector there.
STANDING = {
    "distance": DISTANCE,
    "energy": ENERGY,
    "center": (CENTER[0] * PIXEL * 1e6, CENTER[1] * PIXEL * 1e6),
}


def scattered(image):
    """Segments (4, 70, 133) of an assembled image."""
    return np.stack([image[r : r + SEGMENT[0], c : c + SEGMENT[1]] for r, c in PLACES])


def detector() -> Area:
    x, y = (np.indices(IMAGE) + 0.5) * PIXEL * 1e6
    xyz = np.stack([scattered(x), scattered(y), np.full(SHAPE, -6e4)])
    mask = np.random.default_rng(3).random(SHAPE) > 0.05
    mask[1, :, -1] = mask[2, :, 0] = mask[3, 10] = False
    return Area("jungfrau", SHAPE, mask, xyz, "keV")


def noise(area: Area) -> Any:
    """Three frames: noise, the same much brighter, and with NaN."""
    rng = np.random.default_rng(4)
    out = rng.normal(3, 2, (3, *area.shape)).astype(np.float32)
    out[1] *= 1e4
    out[2][rng.random(area.shape) < 0.1] = np.nan
    out[:, ~area.mask] = 0
    return out


def engine(tilts: tuple[float, float] | None = None) -> AzimuthalIntegrator:
    """pyFAI's, with the detector where ``STANDING`` puts it."""
    where = geo.Geometry.of(DISTANCE, ENERGY, STANDING["center"], tilts or (0.0, 0.0))
    return AzimuthalIntegrator(
        dist=where.distance,
        poni1=where.poni[0],
        poni2=where.poni[1],
        rot1=where.rotations[0],
        rot2=where.rotations[1],
        wavelength=geo.HC / ENERGY * 1e-10,
        detector=Detector(PIXEL, PIXEL, max_shape=IMAGE),
    )


def pyfai(frame, params, good, phi_bins=0, error_model=None):
    """Integrate with pyFAI's histogram engine, no pixel splitting, between the same edges.

    With ``phi_bins`` in two dimensions, over the whole turn.
    """
    image, masked = np.zeros(IMAGE, np.float32), np.ones(IMAGE, np.int8)
    for s, (r, c) in enumerate(PLACES):
        where = np.s_[r : r + SEGMENT[0], c : c + SEGMENT[1]]
        image[where], masked[where] = np.where(good[s], frame[s], 0), ~good[s]
    low, high = params.limits
    integrator = engine(params.tilts)
    integrate = integrator.integrate2d if phi_bins else integrator.integrate1d
    return integrate(
        image,
        params.bins,
        *([phi_bins] if phi_bins else []),
        azimuth_range=(-180, 180) if phi_bins else None,
        mask=masked,
        unit={"1/angstrom": "q_A^-1", "1/nm": "q_nm^-1", "deg": "2th_deg"}[params.unit],
        radial_range=(low, high / (1 + np.finfo(np.float32).eps)),  # it adds this to the end
        method=("no", "histogram", "cython"),
        correctSolidAngle=params.solid_angle,
        polarization_factor=params.polarization,
        error_model=error_model,
    )


def azav_angles(xyz, center, dis_to_sam, tx, ty):
    """2 theta, phi, geometry factor by the formulas of smalldata_tools' azimuthal binning."""
    (x, y, z), (xc, yc) = xyz / 1e3, np.array(center) / 1e3
    tx, ty = np.radians([tx, ty])
    d = dis_to_sam + z.mean() - z
    a, b, c = -np.sin(ty) * np.cos(tx), -np.sin(tx), -np.cos(ty) * np.cos(tx)
    u, v = x - xc - d * np.tan(ty), y - yc + d * np.tan(tx)
    r = np.sqrt(u**2 + v**2 + d**2)
    along = a * u + b * v - c * d
    phi = np.arccos(
        ((a**2 + c**2) * v - a * b * u + b * c * d) / np.sqrt((a**2 + c**2) * (r**2 - along**2))
    )
    return np.arccos(along / r), np.where(x < xc, 2 * np.pi - phi, phi), (d / r) ** 3
