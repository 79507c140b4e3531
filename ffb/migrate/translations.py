"""Analysis functions of smalldata_tools and their parameters, as reducers and theirs.

Exports :data:`RULES`: by the function of a production configuration, what a detector's entry
becomes. Semantics are those of the study of smalldata_tools; where ours differ the entry says so.
What has no counterpart is left out and named, never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from ffb.migrate.given import Given, Made, pair
from ffb.migrate.static_values import Table


def _set(**params: Any) -> dict[str, Any]:
    """Parameters that are given."""
    return {k: v for k, v in params.items() if v is not None}


_MASK = "give a .npy file as `mask` of [calibration.DET]; masks are joined there"
_COMMON = "set common_mode in [calibration.DET]"


def _where(given: Given, key: str) -> dict[str, Any] | None:
    """Rows, columns and segment of a region; ``None`` for one that is not of one segment."""
    bounds = given.get(key)
    if bounds is None:
        return {}
    if pair(bounds):
        return {"rows": [*bounds]}
    if isinstance(bounds, list | tuple) and all(map(pair, bounds)) and 1 < len(bounds) < 4:
        *tile, rows, cols = ([*b] for b in bounds)
        if not tile or tile[0][1] - tile[0][0] == 1:
            segment = {"segment": tile[0][0]} if tile else {}
            return {"rows": rows, "cols": cols, **segment}
        given.lose(key, "is of several segments; write a region for each")
    else:
        given.lose(key, f"no region: {bounds!r}")
    return None


def roi(given: Given) -> Iterator[Made]:
    """A region of interest, and the projections that hang on it."""
    name = str(given.get("name", "ROI"))
    where = _where(given, "ROI")
    given.silently("calcPars", "writeSum")
    given.without(
        userMask=_MASK,
        thresRms="thresholds are in calibrated units; use `threshold`",
    )
    area = True if given.get("writeArea") is True else None
    if where is not None:
        yield Made(name, "roi", _set(**where, area=area))
        yield from _above(given, name, where)
    for key in ("proj_ax", "pj"):
        found = given.get(key)
        for one in found if isinstance(found, list) else [] if found is None else [found]:
            table = one if isinstance(one, Table) else Table({"axis": one})
            below = Given(f"{given.where}: {key}", table, given.line, given.remarks)
            for made in projection(below, where or {}, _levels(given)):
                yield made._replace(name=f"{name}_{made.name}")
            below.end()


def _above(given: Given, name: str, where: Mapping[str, Any]) -> Iterator[Made]:
    """What a region with a threshold sums, as a reducer beside it."""
    low, high = _levels(given)
    if low == -math.inf:
        return
    given.check(f"{name}_sum is of all pixels, {name}_above_sum of those that pass thresADU")
    params = {"low": low} if high == math.inf else {"low": low, "high": high}
    segment = {} if where.get("segment") is not None or not where else {"segment": 0}
    yield Made(f"{name}_above", "threshold", {**params, **segment, **where})


def _levels(given: Given) -> tuple[float, float]:
    """Least and largest value of a pixel of a region that counts, infinite without a threshold."""
    levels = given.get("thresADU")
    ends = [levels] if isinstance(levels, int | float) else levels
    if not isinstance(ends, list | tuple) or not 1 <= len(ends) <= 2:
        return -math.inf, math.inf
    return float(ends[0]), float(ends[1]) if len(ends) == 2 else math.inf


def projection(
    given: Given,
    where: Mapping[str, Any] | None = None,
    levels: tuple[float, float] = (-math.inf, math.inf),
) -> Iterator[Made]:
    """Sum over an axis, of pixels within ``levels``."""
    axis = given.get("axis", 0)
    region = where if where is not None else _where(given, "ROI") or {}
    given.silently("name")
    low = given.number("thresADU")
    given.without(
        thresRms="never had an effect in a projection; write `thresholds` and in_noise = true",
        mean="sums come with npix: divide, or write it under [derived]",
        userMask=_MASK,
    )
    if given.get("singlePhoton"):
        low = 1e-30 if low is None else low
        given.check("of single photons, pixels within the thresholds, `number` is the projection")
    ends = [max(levels[0], -math.inf if low is None else low), levels[1]]
    cut = {"thresholds": ends} if ends != [-math.inf, math.inf] else {}
    if axis in (0, 1):
        yield Made(f"pj_ax_{axis}", "projection", {"axis": axis, **region, **cut})
    else:
        given.lose("axis", f"{axis!r}: a projection leaves rows (1) or columns (0)")


def _along(axis: int, given: Given) -> Iterator[Made]:
    """A projection whose axis its function's name tells."""
    given.table.setdefault("axis", axis)
    return projection(given)


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
        userMask=_MASK,
        darkImg="pedestals come from the calibration",
        gainImg="gains come from the calibration",
        thresRms="thresholds are in calibrated units; it removed the bright pixels",
    )
    squared = True if given.get("square") else None
    if squared:
        given.check("the mean square of corrected pixels is intensity**2 + npix * sem**2")
    given.silently("ADU_per_Photon", "ADU_per_photon", "name", "center", "geomCorr")
    params = _set(
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
        given.check("phi is in degrees; before, in radians")
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
        return _set(distance=distance, center=at)
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
    given.silently("name", "return2d")
    given.without(userMask=_MASK)
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
    params = _set(
        poni=str(poni),
        bins=bins,
        unit=str(given.get("int_units", "2th_deg")),
        polarization=given.number("polarization_factor", 1.0),
        limits=None if limits is None else [float(k) for k in limits],
        thresholds=None if threshold is None else [threshold, math.inf],
        errors=errors,
        solid_angle=False if solid is False else None,
    )
    if given.get("return2d") is True:
        ends = None if sector is None else [float(k) for k in sector]
        yield Made("pyfai", "cake", {**params, **_set(phi_bins=phi, phi_limits=ends)})
        return
    if sector is not None:
        below.lose("azimuth_range", "needs a cake: return2d, or write one")
    yield Made("pyfai", "azimuthal", params)


def _seeds(given: Given) -> dict[str, Any]:
    """What makes a droplet; thresholds are in units of the noise unless it says otherwise."""
    threshold, low = given.number("threshold", 5.0), given.number("thresholdLow")
    noise = True if given.get("useRms", True) is not False else None
    given.silently("relabel", "name")
    given.without(mask=_MASK)
    smallest, largest = given.number("thresADU"), given.number("pixmax")
    return _set(
        threshold=threshold,
        threshold_low=low,
        min_sum=smallest,
        pixel_max=largest,
        in_noise=noise,
    )


def _capacity(given: Given) -> dict[str, Any]:
    found = given.get("nData")
    return {"capacity": found} if type(found) is int and found > 0 else {}


def droplet(given: Given) -> Iterator[Made]:
    """Droplets."""
    yield Made("droplet", "droplets", {**_seeds(given), **_capacity(given)})


def photons(given: Given) -> Iterator[Made]:
    """Photons from droplets."""
    tables = [given.get("droplet"), given.get("d2p")]
    given.without(get_photon_img="a dense image is a photon map: write [photons.INPUT]")
    more = _capacity(given)
    given.silently("name")
    below = [
        Given(
            f"{given.where}: {k}", t if isinstance(t, Table) else Table(), given.line, given.remarks
        )
        for k, t in zip(("droplet", "d2p"), tables, strict=True)
    ]
    seeds, energy = _seeds(below[0]), below[1].number("aduspphot")
    points, edges = below[1].get("photpts"), None
    if isinstance(points, list | tuple) and all(type(p) in {int, float} for p in points[1:]):
        edges = [float(p) for p in points[1:]] or None
    if points is not None and edges is None:
        below[1].lose("photpts", "give these numbers, but for the first, as `edges`")
    below[1].without(mask=_MASK)
    below[1].silently("cputime", "one_photon_info", "name")
    for one in below:
        one.end()
    if energy is not None:
        made = {"energy": energy, **seeds, **more, **_set(edges=edges)}
        yield Made("droplet2phot", "photons", made)
    else:
        below[1].lose("aduspphot", "is needed; the reducer is left out")


def photon(given: Given) -> Iterator[Made]:
    """Photons by pixel."""
    threshold = given.number("thresADU")
    given.without(mask=_MASK, nphotMax="k goes from 0 to 10", nphotRet="use `capacity`")
    given.silently("name")
    energy, fraction = given.number("ADU_per_photon", 154.0), given.number("thr_fraction", 0.9)
    yield Made(
        "photon", "photon_counting", _set(energy=energy, fraction=fraction, threshold=threshold)
    )


def autocorrelation(given: Given) -> Iterator[Made]:
    """Autocorrelation of an image."""
    found = given.get("save_range", (50, 50))
    reach = [found] if isinstance(found, int) else list(found) if pair(found) else [50]
    given.silently("name", "save_lineout")
    given.without(
        thresADU="no threshold is applied; make it part of the calibration",
        roi="the whole detector is correlated; mask the rest in [calibration.DET]",
        mask=_MASK,
        illumination_correction="never had an effect",
    )
    yield Made("autocorr", "autocorrelation", {"lag": max(reach)})


_DT = "dt is 1 ns here: put the distance of the digitiser's samples"
_CHANNEL = "one waveform an input: a wave8 has the fields raw_0 to raw_7, an hsd its channels"


def integral(given: Given) -> Iterator[Made]:
    """Integral of a waveform."""
    gate, baseline = given.pair("sig_roi"), given.pair("bkg_roi")
    sign = -1 if given.get("negative_signal") else 1
    given.silently("name")
    if gate is None:
        given.lose("sig_roi", "is needed; the reducer is left out")
        return
    given.check(f"{_DT}; {_CHANNEL}")
    level = "median" if baseline else None
    params = _set(gate=gate, dt=1.0, baseline=baseline, sign=sign, level=level)
    yield Made("wfintegrate", "waveform_integral", params, "waveform")


def hits(given: Given) -> Iterator[Made]:
    """Hits of a waveform above a threshold."""
    relative, baseline = bool(given.get("use_rms", False)), given.pair("bkg_roi")
    threshold, largest = given.number("threshold", 1.0), given.number("threshold_max")
    given.silently("name")
    given.check(f"{_DT}; {_CHANNEL}; hits are kept, not the trace of ones and zeros")
    params = _set(
        dt=1.0, threshold=threshold, relative=relative, maximum=largest, baseline=baseline
    )
    yield Made("hitfinder", "waveform_hits", params, "waveform")


class Rule(NamedTuple):
    """What becomes of a function's entry for a detector; one of a list where ``many``."""

    make: Callable[[Given], Iterator[Made]] | None
    many: bool = False
    instead: str = ""


_SVD = "make a basis with svd_basis.save, and write `waveform_svd`"

#: Functions of the run, of LCLS-I and LCLS-II, that give parameters by detector.
RULES: Mapping[str, Rule] = {
    "getROIs": Rule(roi, many=True),
    **dict.fromkeys(("getAzIntParams", "get_azav"), Rule(azav)),
    **dict.fromkeys(("getAzIntPyFAIParams", "get_azav_pyfai"), Rule(pyfai)),
    **dict.fromkeys(("getDropletParams", "get_droplet"), Rule(droplet)),
    **dict.fromkeys(("getDroplet2Photons", "get_droplet2photon"), Rule(photons)),
    **dict.fromkeys(("getPhotonParams", "get_photon"), Rule(photon)),
    **dict.fromkeys(("getAutocorrParams", "get_autocorr"), Rule(autocorrelation)),
    **dict.fromkeys(("getWfIntegrateParams", "get_wf_integrate"), Rule(integral)),
    **dict.fromkeys(("getWfHitParams", "get_wf_hitfinder"), Rule(hits)),
    "getProjection_ax0": Rule(lambda given: _along(0, given)),
    "getProjection_ax1": Rule(lambda given: _along(1, given)),
    **dict.fromkeys(("getSvdParams", "get_wf_svd"), Rule(None, instead=_SVD)),
    "get_polynomial_correction": Rule(
        None, instead="write `curved_projection`, curvature with the constant first"
    ),
    "get_mectt": Rule(None, instead="write `projection` and `time_tool_edge`"),
    "get_pressio_compression": Rule(None, instead="a study of compression; see writer.compression"),
    "getDetImages": Rule(None, instead="it never had an effect"),
    "get_psplot_configs": Rule(None, instead="every column has its plot on the page"),
}
