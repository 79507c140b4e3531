"""Where pixels are: positions to scattering angles, solid angle and polarisation.

One frame serves all. Axis 1 runs along psana's x (down the rows of the image that psana
assembles), axis 2 along psana's y (along its columns, horizontal), axis 3 along the beam; psana's z
points against the beam. This is the frame pyFAI uses for the assembled image, and angles, rotations
and corrections are pyFAI's (Kieffer et al., J. Synchrotron Rad. 27, 558, 2020, and the
"Geometry" chapter of its manual), so a PONI file means here what it means there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import cos, inf, pi, radians, sin
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

#: h c in keV angstrom: exact constants of the SI (2019).
HC = 12.398419843320026


class Pixels(NamedTuple):
    """Angles and solid angle of every pixel, each (segments, rows, columns) float64.

    ``two_theta`` is the scattering angle [rad]; ``phi`` the azimuth [rad] in (-pi, pi], 0 along
    axis 2 (horizontal), growing towards axis 1; ``radius`` the distance from the beam [m];
    ``solid_angle`` is relative to that of a pixel at the point of normal incidence.
    """

    two_theta: NDArray[np.float64]
    phi: NDArray[np.float64]
    radius: NDArray[np.float64]
    solid_angle: NDArray[np.float64]


@dataclass(frozen=True)
class Geometry:
    """Sample, beam and detector.

    ``distance`` [m] is that of the sample from the detector plane, along its normal;
    ``poni`` [m] the foot of that normal on axes 1 and 2; ``rotations`` [rad] pyFAI's rot1, rot2
    and rot3 about axes 1, 2 and 3 (the first two left-handed); ``wavelength`` in angstrom,
    ``None`` where it is not known.
    """

    distance: float
    poni: tuple[float, float]
    rotations: tuple[float, float, float]
    wavelength: float | None

    @classmethod
    def of(
        cls,
        distance: float,
        energy: float | None,
        center: tuple[float, float] = (0.0, 0.0),
        tilts: tuple[float, float] = (0.0, 0.0),
    ) -> Geometry:
        """Geometry from what is measured at the beam line.

        ``distance`` [mm] from the sample to the detector along the beam, ``energy`` [keV] of the
        photons (``None`` if only angles are wanted), ``center`` [um] where the beam meets the
        detector, x and y of psana's frame, ``tilts`` [degrees] of the detector about axes 1 and 2
        through that point. Raises ``ValueError`` for values that cannot be meant.
        """
        problems = list(beam_problems(energy, center, tilts))
        if not 0 < distance < inf:
            problems.append(f"distance: {distance:g}; give the millimetres from sample to detector")
        if problems:
            raise ValueError("\n".join(problems))
        rotations = (radians(tilts[0]), radians(tilts[1]), 0.0)
        # The beam meets the detector at p with R p = (0, 0, distance): p is R's last row.
        along = distance * 1e-3 * rotation(rotations)[2]
        poni = (center[0] * 1e-6 - along[0], center[1] * 1e-6 - along[1])
        return cls(float(along[2]), poni, rotations, wavelength(energy))

    def pixels(self, positions: NDArray[np.float64]) -> Pixels:
        """Angles and solid angle of pixels at ``positions`` (3, segments, rows, columns) in m.

        With p from the sample to the pixel in the detector's axes and r = |p|, the solid angle is
        cos(incidence) (distance / r)^2 = p3 distance^2 / r^3, which for a plane is pyFAI's cos^3.
        """
        p = np.asarray(positions, np.float64) + np.array(
            [-self.poni[0], -self.poni[1], self.distance]
        ).reshape(3, *[1] * (np.ndim(positions) - 1))
        t1, t2, t3 = np.tensordot(rotation(self.rotations), p, 1)
        r = np.sqrt((p**2).sum(axis=0))
        radius = np.sqrt(t1**2 + t2**2)
        solid_angle = p[2] * self.distance**2 / r**3
        return Pixels(np.arctan2(radius, t3), np.arctan2(t1, t2), radius, solid_angle)

    def q(self, two_theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Momentum transfer 4 pi sin(theta) / wavelength [1/angstrom].

        Raises ``ValueError`` where the wavelength is not known.
        """
        if self.wavelength is None:
            raise ValueError("energy: q needs the photon energy; give it in keV")
        return 4 * pi / self.wavelength * np.sin(two_theta / 2)


def beam_problems(
    energy: float | None, center: tuple[float, ...], tilts: tuple[float, ...]
) -> Iterator[str]:
    """What is wrong with these arguments of :meth:`Geometry.of`, one line each."""
    if energy is not None and not 0.05 <= energy <= 200:
        in_ev = f" (or {energy * 1e-3:g}, if those are eV)" if 200 < energy <= 200e3 else ""
        yield f"energy: {energy:g}; give the photon energy in keV, 0.05 to 200{in_ev}"
    if not all(abs(t) < 90 for t in tilts):
        yield f"tilts: {tilts}; give degrees between -90 and 90"
    if not all(abs(c) < inf for c in center):
        yield f"center: {center}; give micrometres in psana's frame"


def wavelength(energy: float | None) -> float | None:
    """Wavelength [angstrom] of photons of ``energy`` [keV], ``None`` for ``None``."""
    if problems := list(beam_problems(energy, (), ())):
        raise ValueError("\n".join(problems))
    return None if energy is None else HC / energy


def rotation(rotations: tuple[float, float, float]) -> NDArray[np.float64]:
    """Matrix (3, 3) from detector axes to laboratory axes: pyFAI's R3 R2 R1."""
    (c1, c2, c3), (s1, s2, s3) = ([f(a) for a in rotations] for f in (cos, sin))
    r1 = np.array([[1, 0, 0], [0, c1, s1], [0, -s1, c1]])
    r2 = np.array([[c2, 0, -s2], [0, 1, 0], [s2, 0, c2]])
    r3 = np.array([[c3, -s3, 0], [s3, c3, 0], [0, 0, 1]])
    return np.asarray(r3 @ r2 @ r1, np.float64)


def polarization(pixels: Pixels, factor: float) -> NDArray[np.float64]:
    """Share of the scattered intensity left by the polarisation of the beam.

    (1 + cos^2 2theta - factor cos 2phi sin^2 2theta) / 2, with ``factor`` = (Ih - Iv) / (Ih + Iv):
    1 is fully horizontal (axis 2), -1 vertical, 0 unpolarised. Formula 9 of Kahn et al.,
    J. Appl. Cryst. 15, 330 (1982), as pyFAI has it.
    """
    if not -1 <= factor <= 1:
        raise ValueError(f"polarization = {factor:g}: give a factor between -1 and 1")
    cos2 = np.cos(pixels.two_theta) ** 2
    return np.asarray(0.5 * (1 + cos2 - factor * np.cos(2 * pixels.phi) * (1 - cos2)))


def on_detector(xyz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positions [m] from psana's ``xyz`` [um]; the detector plane is at their mean z."""
    x, y, z = np.asarray(xyz, np.float64) * 1e-6
    return np.stack([x, y, z.mean() - z])
