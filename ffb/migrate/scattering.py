"""Azimuthal averages of smalldata_tools and their parameters, as ours.

Exports :func:`azav` and :func:`pyfai`, for :mod:`ffb.migrate.translations`, and
:func:`by_detector`, for parameters as they were written until 2019.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from ffb.migrate.given import MASK, Given, Made, only
from ffb.migrate.static_values import Table

#: Parameters that a table without detectors has, for all, or for the one whose name stands before.
_FLAT = (
    *("eBeam", "center", "dis_to_sam", "tx", "ty", "qbin", "rbin", "phiBins", "Pplane"),
    *("userMask", "thresADU", "thresADUhigh", "thresRms", "polCorr", "geomCorr", "square"),
)


def is_flat(table: Table) -> bool:
    """Whether a table holds parameters themselves, and not tables of them by detector."""
    return any(not isinstance(v, Table) and _split(k)[1] in _FLAT for k, v in table.items())


def by_detector(table: Table, detectors: Sequence[str]) -> Table:
    """Parameters by detector, of a table that is flat.

    Such as ``{"eBeam": 9.5, "cspad_center": ..., "cspad_dis_to_sam": ...}``. Where no name stands
    before any they are those of ``detectors``.
    """
    names = dict.fromkeys(name for name, _ in map(_split, table) if name)
    out = Table({name: Table() for name in names or detectors})
    for key, value in table.items():
        owner, parameter = _split(key)
        line = table.lines.get(key, 0)
        for name in [owner] if owner else out:
            if not owner and parameter in out[name]:
                continue  # its own comes first
            out[name][parameter], out[name].lines[parameter] = value, line
            out.lines[name] = min(line, out.lines.get(name, line))
    return out


def _split(key: Any) -> tuple[str, str]:
    """The detector before the name of a parameter, empty if there is none, and the parameter."""
    for parameter in _FLAT:
        if isinstance(key, str) and key.endswith(f"_{parameter}"):
            return key.removesuffix(f"_{parameter}"), parameter
    return "", str(key)


def azav(given: Given) -> Iterator[Made]:
    """Azimuthal average, or a cake where there are several bins of phi."""
    axis, around = _axis(given), _around(given)
    fraction = given.number("Pplane", 0.0)
    polarised = given.get("polCorr", True) is not False and fraction is not None
    low, high = given.number("thresADU"), given.number("thresADUhigh")
    thresholds = None
    if low is not None or high is not None:
        thresholds = [-math.inf if low is None else low, math.inf if high is None else high]
        given.check("pixels outside the thresholds do not count at all; before, they counted as 0")
    given.without(
        userMask=MASK,
        x="positions come from the geometry",
        y="positions come from the geometry",
        darkImg="pedestals come from the calibration",
        gainImg="gains come from the calibration",
        thresRms="thresholds are in calibrated units; it removed the bright pixels, or failed",
    )
    squared = True if given.get("square") else None
    if squared:
        given.check("the mean square of corrected pixels is intensity**2 + npix * sem**2")
    if given.get("geomCorr") is not False:
        given.check(
            "intensities are of pixels where the beam would meet the detector at a right angle;"
            " before, of the pixel of largest solid angle, which is the same with the beam on one"
        )
    given.silently("ADU_per_Photon", "ADU_per_photon", "name", "center", "debug", "use_gpu")
    params = only(
        **_standing(given),
        energy=given.number("eBeam", 9.5),
        **axis,
        polarization=2 * (fraction or 0.0) - 1 if polarised else None,
        solid_angle=False if given.get("geomCorr") is False else None,
        average="corrected",
        thresholds=thresholds,
        errors="azimuthal" if squared else None,
    )
    if around:
        given.check(
            "phi is in degrees, its bins divide a turn or are as listed; before, in radians, they"
            " divided what the detector covers or were shifted by half of the first one"
        )
        yield Made("cake", "cake", {**params, **around})
    else:
        yield Made("azav", "azimuthal", params)


def _standing(given: Given) -> dict[str, Any]:
    """Where the detector stands.

    There the distance is along its normal, and the beam, turned by the tilts, misses the centre.
    """
    distance, center = given.number("dis_to_sam", 0.1) or 0.0, given.get("center")
    tx, ty = (math.radians(given.number(k, 0.0) or 0.0) for k in ("tx", "ty"))
    if not tx and not ty:
        at = [float(k) for k in center] if center is not None else None
        return only(distance=distance, center=at)
    x, y = (float(k) for k in center or (0.0, 0.0))
    y -= 1e3 * distance * math.tan(tx) * (1 + 1 / math.cos(ty))
    tilts = (math.atan2(math.tan(tx), math.cos(ty)), -math.asin(math.sin(ty) * math.cos(tx)))
    if tx and ty:
        given.check("with tilts about both axes phi begins where the tilted beam says")
    return {
        "distance": distance / (math.cos(tx) * math.cos(ty)),
        "center": [x, y],
        "tilts": [math.degrees(t) for t in tilts],
    }


def _axis(given: Given) -> dict[str, Any]:
    """Bins of q, or of the distance from the beam: their width, their number or their edges."""
    radial = given.get("rbin")
    key, default = ("qbin", 5e-3) if radial is None else ("rbin", None)
    given.silently("qbin")
    found = given.get(key, default)
    unit = {} if radial is None else {"unit": "mm"}
    if isinstance(found, int | float):
        return {"width": float(found), **unit}
    edges = [float(q) for q in found]
    width = (edges[-1] - edges[0]) / (len(edges) - 1) if len(edges) > 1 else 0
    even = all(abs(b - a - width) < 1e-6 * abs(width) for a, b in pairwise(edges))
    if width > 0 and even and edges[0] >= 0:
        return {"bins": len(edges) - 1, "limits": [edges[0], edges[-1]], **unit}
    return {"edges": edges, **unit}


def _around(given: Given) -> dict[str, Any]:
    """Bins of the azimuth, which are centred about 0; none where there is but one."""
    found = given.get("phiBins", 1)
    if isinstance(found, int | float):
        bins, half = int(found), 180 / max(int(found), 1)
        return {"phi_bins": bins, "phi_limits": [-half, 360 - half]} if bins > 1 else {}
    return {"phi_edges": [math.degrees(float(k)) for k in found]}


def pyfai(given: Given) -> Iterator[Made]:
    """Azimuthal integration by a PONI file."""
    poni, kwargs = given.get("poni_file"), given.get("ai_kwargs")
    more = given.get("azav_kwargs") or Table()
    bins, phi = given.get("npts", 256), given.get("npts_az", 360)
    threshold = given.number("thres")
    unit, polarised = given.get("int_units", "2th_deg"), given.number("polarization_factor", 1.0)
    given.silently("name", "return2d")
    given.without(userMask=MASK)
    if kwargs is not None:
        given.lose("ai_kwargs", "write them into a PONI file, with the pixel size of the detector")
    below = Given(f"{given.where}: azav_kwargs", more, given.line, given.remarks)
    limits, sector = below.get("radial_range"), below.get("azimuth_range")
    errors, solid = below.get("error_model"), below.get("correctSolidAngle")
    below.silently("method", "unit")
    below.end()
    if poni is None:
        given.lose("poni_file", "is needed; the reducer is left out")
        return
    params = only(
        poni=str(poni),
        bins=bins,
        unit=str(unit),
        polarization=polarised,
        limits=None if limits is None else [float(k) for k in limits],
        thresholds=None if threshold is None else [threshold, math.inf],
        errors=errors,
        solid_angle=False if solid is False else None,
    )
    if given.get("return2d") is True:
        ends = None if sector is None else [float(k) for k in sector]
        yield Made("pyfai", "cake", {**params, **only(phi_bins=phi, phi_limits=ends)})
        return
    if sector is not None:
        below.lose("azimuth_range", "needs a cake: return2d, or write one")
    yield Made("pyfai", "azimuthal", params)
