"""PONI files of pyFAI: where the detector stands, by the text that pyFAI's calibration writes.

All versions up to 2.1, and 3 without parallax correction, are read as pyFAI 2026.9 reads them: of
several entries in one file every key's last one counts. A PONI counts pixels from the corner of an
image: that of a detector which is one flat segment, or the one that psana assembles; of one segment
with seams, or turned round, its shape tells. Files made for segments one above the other, as
LCLSGeom hands them to pyFAI, are refused: their origin is what its version made of the geometry.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.reducers.geometry import Geometry, on_detector, wavelength

#: Size of a square pixel [um], where the file gives none, by the first of these that begins the
#: name of the detector: as pyFAI has them, not binned, and those of LCLS.
PIXELS = {
    "epix100": 50.0,
    **dict.fromkeys(("epix10k", "mar345"), 100.0),
    **dict.fromkeys(("eiger", "jungfrau", "dexela"), 75.0),
    **dict.fromkeys(("lambda", "maxipix"), 55.0),
    **dict.fromkeys(("pilatus4", "hf"), 150.0),
    "pilatus": 172.0,
    **dict.fromkeys(("rayonixmx225hs", "rayonixmx300hs"), 78.125),
    **dict.fromkeys(("rayonixmx225", "rayonixmx300", "mar225", "mar300"), 73.242),
    **dict.fromkeys(("rayonixlx", "rayonixmx170", "rayonixmx425", "rayonixsx85"), 44.2708),
    **{"rayonixmx325": 79.346, "rayonixmx340": 88.5417, "rayonixsx165": 39.5, "mar165": 39.5},
    **{"rayonixsx200": 48.0, "rayonixsx30": 15.625, "rayonix133": 64.0, "mar133": 64.0},
    **{"mar555": 139.0, "perkin": 200.0, "pixium": 308.0, "adsc": 51.0, "quantum": 51.0},
    **{"titan": 60.0, "apex": 120.0, "fairchild": 15.0},
}

#: Images of Jungfraus as pyFAI arranges the modules, where the file does not tell its own.
SHAPES = {"jungfrau1m": (1064, 1030), "jungfrau4m": (2164, 2068), "jungfrau8m": (3333, 3212)}

#: More than any value can be in metres, and how many metres are in the unit it is mistaken for.
LARGEST = {
    **dict.fromkeys(("pixel1", "pixel2"), (0.02, 1e-6, "micrometres")),
    "distance": (50.0, 1e-3, "millimetres"),
    "wavelength": (1e-7, 1e-10, "angstrom"),
}

#: Of files whose origin nobody can tell.
LCLSGEOM = (
    "made for segments one above the other, {shape}, as by LCLSGeom; a PONI file does not tell"
    " where their origin is: name the geometry that was written beside it in [calibration] and give"
    " its distance, or calibrate on the image psana assembles"
)

#: By how many pixels an image may be smaller than what is assembled: rounding, and seams.
SLACK = 2

#: Detectors whose pixels are bent, hexagonal or of several sizes: only a geometry places them.
UNEVEN = re.compile(r"aarhus|d5$|x?cirpad|rapid|pixirad|(im)?xpad|jungfrau(500k|16mcor)?$")


class Poni(NamedTuple):
    """What a PONI file says: geometry, pixel size [m] along axes 1 and 2, and the detector.

    ``detector`` is its name in lower case without spaces; ``shape`` its image (rows, columns),
    ``None`` if not told; by ``orientation`` pixels are counted backwards along both axes (1), the
    rows (2), none (3, pyFAI's default) or the columns (4).
    """

    geometry: Geometry
    pixel: tuple[float, float]
    detector: str = ""
    shape: tuple[int, int] | None = None
    orientation: int = 3

    def with_energy(self, energy: float | None) -> Poni:
        """Return the same for photons of ``energy`` [keV]; ``None`` leaves it to the file."""
        if energy is None:
            return self
        return self._replace(geometry=replace(self.geometry, wavelength=wavelength(energy)))

    def flat(self, shape: tuple[int, int, int]) -> NDArray[np.float64]:
        """Positions [m] (3, *shape) of the pixels of one flat segment.

        Raises ``ValueError`` for more segments, uneven pixels and another detector's file.
        """
        if self.detector == "jungfrau05m":
            raise ValueError(LCLSGEOM.format(shape=shape[1:]))
        if shape[0] != 1 or UNEVEN.match(self.detector):
            what = f"{shape[0]} segments" if shape[0] != 1 else self.detector
            raise ValueError(
                f"{what} without a geometry: a PONI file places one flat segment of equal pixels"
                " only; name a geometry file for the detector in [calibration]"
            )
        if self.shape not in (None, shape[1:]):
            raise ValueError(f"made for an image of {self.shape}, but frames are {shape[1:]}")
        rows, cols = np.indices(shape[1:], np.float64) + 0.5
        positions = np.stack([rows * self.pixel[0], cols * self.pixel[1], np.zeros(shape[1:])])
        return self._oriented(positions[:, None], shape[1:])

    def of_frames(self, xyz: NDArray[np.float64]) -> bool:
        """Whether the file is for frames of one segment, not the image that psana makes of them."""
        segments, *shape = xyz.shape[1:]
        spans = [np.ptp(xyz[axis]) * 1e-6 / self.pixel[axis] for axis in (0, 1)]
        image = tuple(round(float(span)) + 1 for span in spans)
        return segments == 1 and self.shape == (*shape,) != image

    def assembled(
        self, xyz: NDArray[np.float64], corner: tuple[float, float] | None = None
    ) -> NDArray[np.float64]:
        """Positions [m] of psana's ``xyz`` [um] from the corner of the image it assembles.

        That image shows the whole detector; ``corner`` [um] is its least x and y, where ``xyz``
        are of a part. Raises ``ValueError`` for a file that is made for another image, and for an
        orientation that needs the image's size, where the file does not tell it.
        """
        positions = on_detector(xyz)
        for axis in (0, 1):
            first = positions[axis].min() if corner is None else corner[axis] * 1e-6
            positions[axis] += self.pixel[axis] / 2 - first
        if self.orientation != 3 and self.shape is None:
            raise ValueError(
                f"orientation {self.orientation} counts from the far side of an image of unknown"
                " size; give its max_shape in Detector_config"
            )
        if self.shape is not None:
            self._made_for(positions, self.shape)
        return self._oriented(positions, self.shape or ())

    def _made_for(self, positions: NDArray[np.float64], shape: tuple[int, int]) -> None:
        """Raise ``ValueError`` for positions [m] that do not fit an image of ``shape``."""
        segments, rows, columns = positions.shape[1:]
        size = [round(float(positions[i].max()) / self.pixel[i] + 0.5) for i in (0, 1)]
        stack = columns == shape[1] and rows < shape[0] and shape[0] % rows == 0
        if segments > 1 and stack and size != [*shape]:
            raise ValueError(LCLSGEOM.format(shape=shape))
        if size[0] > shape[0] + SLACK or size[1] > shape[1] + SLACK:
            raise ValueError(f"made for an image of {shape}, but psana assembles one of {(*size,)}")

    def _oriented(
        self, positions: NDArray[np.float64], image: tuple[int, ...]
    ) -> NDArray[np.float64]:
        """Count from the other side along the axes that the orientation turns round."""
        if self.orientation in (1, 2):
            positions[0] = image[0] * self.pixel[0] - positions[0]
        if self.orientation in (1, 4):
            positions[1] = image[1] * self.pixel[1] - positions[1]
        return positions


def read(path: Path) -> Poni:
    """Read a PONI file; the wavelength may be missing, nothing else.

    Raises ``ValueError`` that lists everything missing or not understood, one line each, and
    ``OSError`` for an unreadable file.
    """
    keys: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines():
        name, colon, value = line.partition(":")
        if colon and not name.startswith("#"):
            keys[name.strip().lower()] = value.strip()  # the last entry is the valid one
    return _poni(keys)


def _poni(keys: Mapping[str, str]) -> Poni:
    try:
        config: Any = json.loads(keys.get("detector_config") or "{}")
    except ValueError as error:
        raise ValueError(f"Detector_config is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise ValueError("Detector_config is not a table of keys and values")
    detector = re.sub(r"[\s_-]", "", keys.get("detector", "").lower())
    known = next((size * 1e-6 for name, size in PIXELS.items() if detector.startswith(name)), None)
    wanted: dict[str, Any] = {k: keys.get(k) for k in ("distance", "poni1", "poni2")}
    wanted |= {k: keys.get(k) for k in ("rot1", "rot2", "rot3")}
    old = {} if "detector_config" in keys else keys  # what an older entry of the file left
    wanted |= {f"pixel{i}": config.get(f"pixel{i}") or old.get(f"pixelsize{i}") or known
               for i in (1, 2)}  # fmt: skip
    if keys.get("wavelength", "None") != "None":
        wanted["wavelength"] = keys["wavelength"]
    problems = [*_not_understood(keys, config)]
    numbers = {k: _number(k, v, problems) for k, v in wanted.items()}
    if problems:
        raise ValueError("\n".join(problems))
    n, waves = numbers, numbers.get("wavelength")
    geometry = Geometry(
        n["distance"],
        (n["poni1"], n["poni2"]),
        (n["rot1"], n["rot2"], n["rot3"]),
        None if waves is None else waves * 1e10,
    )
    shape = config.get("max_shape") or SHAPES.get(detector)
    return Poni(
        geometry,
        (n["pixel1"], n["pixel2"]),
        detector,
        (int(shape[0]), int(shape[1])) if shape else None,
        config.get("orientation") or 3,
    )


def _not_understood(keys: Mapping[str, str], config: Mapping[str, Any]) -> list[str]:
    """What pyFAI would take into account and we cannot."""
    out = []
    if (orientation := config.get("orientation") or 3) not in (1, 2, 3, 4):
        out.append(f"orientation {orientation!r} is none of pyFAI's, 1 to 4")
    shape = config.get("max_shape") or [1, 1]
    if np.shape(shape) != (2,) or not all(isinstance(n, int) and n > 0 for n in shape):
        out.append(f"max_shape {shape!r} is no image; give its rows and columns")
    if keys.get("parallax", "").lower() == "true":
        out.append("the parallax correction is not done here; calibrate without it")
    files = [f"{k} {config[k]}" for k in ("x_offset_file", "y_offset_file", "filename")
             if config.get(k)]  # fmt: skip
    if re.search(r"\.(h5|hdf5|nxs)$", keys.get("detector", "").lower()):
        files.append(keys["detector"])
    if files:
        text = "moves pixels one by one, which is not done here; name a geometry file"
        out.append(f"{files[0]} {text}")
    old = None if "detector_config" in keys else keys.get("splinefile")
    splines = (config.get("splineFile"), config.get("splinefile"), old)
    if any(s and str(s).lower() != "none" for s in splines):
        out.append("distortion by a spline file is not done here; calibrate without it")
    return out


def _number(name: str, value: Any, problems: list[str]) -> float:
    """Read a number; what is wrong joins the ``problems``."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = np.nan
    positive = name in ("distance", "wavelength", "pixel1", "pixel2")
    if value is None and name.startswith("pixel"):
        problems.append(f"{name} is missing; write the size of a pixel [m] into Detector_config")
    elif value is None:
        problems.append(f"{name} is missing; write the file with pyFAI")
    elif not np.isfinite(number) or (positive and number <= 0):
        problems.append(f"{name} is {value!r}, no {'size' if positive else 'number'}")
    elif positive and number > LARGEST[name][0]:
        _, unit, mistaken = LARGEST[name]
        problems.append(
            f"{name} is {number:g} m; write metres ({number * unit:g}, if those are {mistaken})"
        )
    return number
