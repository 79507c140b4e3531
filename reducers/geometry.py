"""Where pixels are: positions to scattering angles, solid angle and polarisation.

One frame serves all. Axis 1 runs along psana's x (down the rows of the image that psana
assembles), axis 2 along psana's y (along its columns, horizontal), axis 3 along the beam; psana's z
points against the beam. This is the frame pyFAI uses for the assembled image, and angles, rotations
and corrections are pyFAI's (Kieffer et al., J. Synchrotron Rad. 27, 558, 2020, and the
"Geometry" chapter of its manual), so a PONI file means here what it means there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import cos, pi, radians, sin
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

#: h c in keV angstrom: exact constants of the SI (2019).
HC = 12.398419843320026


class Pixels(NamedTuple):
    """Angles and solid angle of every pixel, each (segments, rows, columns) float64.

    ``two_theta`` is the scattering angle [rad]; ``phi`` the azimuth [rad] in (-pi, pi], 0 along
    axis 2 (horizontal), growing towards axis 1; ``solid_angle`` is relative to that of a pixel at
    the point of normal incidence.
    """

    two_theta: NDArray[np.float64]
    phi: NDArray[np.float64]
    solid_angle: NDArray[np.float64]


@dataclass(frozen=True)
class Geometry:
    """Sample, beam and detector.

    ``distance`` [m] is that of the sample from the detector plane, along its normal;
    ``poni`` [m] the foot of that normal on axes 1 and 2; ``rotations`` [rad] pyFAI's rot1, rot2
    and rot3 about axes 1, 2 and 3 (the first two left-handed); ``wavelength`` in angstrom.
    """

    distance: float
    poni: tuple[float, float]
    rotations: tuple[float, float, float]
    wavelength: float

    @classmethod
    def of(
        cls,
        distance: float,
        energy: float,
        center: tuple[float, float] = (0.0, 0.0),
        tilts: tuple[float, float] = (0.0, 0.0),
    ) -> Geometry:
        """Geometry from what is measured at the beam line.

        ``distance`` [mm] from the sample to the detector along the beam, ``energy`` [keV] of the
        photons, ``center`` [um] where the beam meets the detector, x and y of psana's frame,
        ``tilts`` [degrees] of the detector about axes 1 and 2 through that point.
        Raises ``ValueError`` for values that cannot be meant.
        """
        if not distance > 0:
            raise ValueError(
                f"distance = {distance:g}: give the millimetres from sample to detector"
            )
        if not 0.05 <= energy <= 200:
            raise ValueError(f"energy = {energy:g}: give the photon energy in keV (0.05 to 200)")
        if not all(abs(t) < 90 for t in tilts):
            raise ValueError(f"tilts = {tilts}: give degrees between -90 and 90")
        rotations = (radians(tilts[0]), radians(tilts[1]), 0.0)
        # The beam meets the detector at p with R p = (0, 0, distance): p is R's last row.
        along = distance * 1e-3 * rotation(rotations)[2]
        poni = (center[0] * 1e-6 - along[0], center[1] * 1e-6 - along[1])
        return cls(float(along[2]), poni, rotations, HC / energy)

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
        two_theta = np.arctan2(np.sqrt(t1**2 + t2**2), t3)
        return Pixels(two_theta, np.arctan2(t1, t2), p[2] * self.distance**2 / r**3)

    def q(self, two_theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Momentum transfer 4 pi sin(theta) / wavelength [1/angstrom]."""
        return 4 * pi / self.wavelength * np.sin(two_theta / 2)


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


def assembled(xyz: NDArray[np.float64], pixel: tuple[float, float]) -> NDArray[np.float64]:
    """Positions [m] of ``xyz`` [um] from the corner of the assembled image, as a PONI counts.

    ``pixel`` [m] is the size of a pixel along axes 1 and 2.
    """
    positions = on_detector(xyz)
    for axis in (0, 1):
        positions[axis] += pixel[axis] / 2 - positions[axis].min()
    return positions


def flat(shape: tuple[int, int, int], pixel: tuple[float, float]) -> NDArray[np.float64]:
    """Positions [m] of a detector that is one flat segment, from its corner.

    Raises ``ValueError`` for more segments: only a geometry knows where they are.
    """
    if shape[0] != 1:
        raise ValueError(
            f"{shape[0]} segments without a geometry: a PONI file places one flat segment only;"
            " name a geometry file for the detector"
        )
    rows, cols = np.indices(shape[1:], np.float64) + 0.5
    return np.stack([rows * pixel[0], cols * pixel[1], np.zeros(shape[1:])])[:, None]


def read_poni(path: str | Path) -> tuple[Geometry, tuple[float, float]]:
    """Geometry and pixel size [m] from a PONI file of pyFAI, versions 1 and 2.

    Raises ``ValueError`` that names what is missing, and ``OSError`` for an unreadable file.
    """
    keys: dict[str, str] = {}
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        name, colon, value = line.partition(":")
        if colon and not name.startswith("#"):
            keys[name.strip().lower()] = value.strip()
    wanted = ("distance", "poni1", "poni2", "rot1", "rot2", "rot3", "wavelength")
    numbers = {k: _number(path, k, keys.get(k)) for k in wanted}
    geometry = Geometry(
        numbers["distance"],
        (numbers["poni1"], numbers["poni2"]),
        (numbers["rot1"], numbers["rot2"], numbers["rot3"]),
        numbers["wavelength"] * 1e10,
    )
    return geometry, _pixel(path, keys)


def _pixel(path: str | Path, keys: dict[str, str]) -> tuple[float, float]:
    """Pixel size of a PONI file: in version 2 inside the JSON of ``Detector_config``."""
    try:
        config: Any = json.loads(keys.get("detector_config") or "{}")
    except ValueError as error:
        raise ValueError(f"{path}: Detector_config is not JSON: {error}") from error
    if (orientation := config.get("orientation") or 3) != 3:
        raise ValueError(
            f"{path}: detector orientation {orientation}; only 3, pyFAI's default, is understood:"
            " calibrate on the image as psana assembles it"
        )
    sizes = [config.get(f"pixel{i}", keys.get(f"pixelsize{i}")) for i in (1, 2)]
    first, second = (_number(path, f"pixel{i}", v) for i, v in zip((1, 2), sizes, strict=True))
    return first, second


def _number(path: str | Path, name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        what = "is missing" if value is None else f"is {value!r}, no number"
        raise ValueError(f"{path}: {name} {what}; write the PONI file with pyFAI") from None
