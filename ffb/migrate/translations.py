"""Analysis functions of smalldata_tools and their parameters, as reducers and theirs.

Exports :data:`RULES`: by the function of a production configuration, what a detector's entry
becomes. Semantics are those of the study of smalldata_tools; where ours differ the entry says so.
What has no counterpart is left out and named, never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from ffb.migrate.given import MASK, Given, Made, only, pair
from ffb.migrate.scattering import azav, pyfai
from ffb.migrate.static_values import Table


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
        userMask=MASK,
        thresRms="thresholds are in calibrated units; use `threshold`",
    )
    area = True if given.get("writeArea") is True else None
    if where is not None:
        yield Made(name, "roi", only(**where, area=area))
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
    segment = {} if where.get("segment") is not None or not where else {"segment": 0}
    yield Made(f"{name}_above", "threshold", {"thresholds": [low, high], **segment, **where})


def _levels(given: Given) -> tuple[float, float]:
    """Least and largest value of a pixel of a region that counts, infinite without a threshold."""
    levels = given.get("thresADU")
    ends = [levels] if isinstance(levels, int | float) else levels
    if not isinstance(ends, list | tuple) or not 1 <= len(ends) <= 2:
        return -math.inf, math.inf
    return float(ends[0]), float(ends[1]) if len(ends) == 2 else math.inf


def _cut(low: float, high: float) -> dict[str, Any]:
    """Levels as thresholds, nothing without any."""
    return {"thresholds": [low, high]} if low > -math.inf or high < math.inf else {}


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
        userMask=MASK,
    )
    if given.get("singlePhoton"):
        low = 1e-30 if low is None else low
        given.check("of single photons, pixels within the thresholds, `number` is the projection")
    ends = max(levels[0], -math.inf if low is None else low), levels[1]
    if axis in (0, 1):
        yield Made(f"pj_ax_{axis}", "projection", {"axis": axis, **region, **_cut(*ends)})
    else:
        given.lose("axis", f"{axis!r}: a projection leaves rows (1) or columns (0)")


def _along(axis: int, given: Given) -> Iterator[Made]:
    """A projection whose axis its function's name tells."""
    given.table.setdefault("axis", axis)
    return projection(given)


def _seeds(given: Given) -> dict[str, Any]:
    """What makes a droplet; thresholds are in units of the noise unless it says otherwise."""
    threshold, low = given.number("threshold", 5.0), given.number("thresholdLow")
    noise = True if given.get("useRms", True) is not False else None
    given.silently("relabel", "name")
    given.without(mask=MASK)
    smallest, largest = given.number("thresADU"), given.number("pixmax")
    return only(
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
    seeds, value = _seeds(below[0]), below[1].number("aduspphot")
    points, edges = below[1].get("photpts"), None
    if isinstance(points, list | tuple) and all(type(p) in {int, float} for p in points[1:]):
        edges = [float(p) for p in points[1:]] or None
    if points is not None and edges is None:
        below[1].lose("photpts", "give these numbers, but for the first, as `edges`")
    below[1].without(mask=MASK)
    below[1].silently("cputime", "one_photon_info", "name")
    for one in below:
        one.end()
    if value is not None:
        made = {"photon": value, **seeds, **more, **only(edges=edges)}
        yield Made("droplet2phot", "photons", made)
    else:
        below[1].lose("aduspphot", "is needed; the reducer is left out")


def photon(given: Given) -> Iterator[Made]:
    """Photons by pixel."""
    threshold = given.number("thresADU")
    given.without(mask=MASK, nphotMax="k goes from 0 to 10", nphotRet="use `capacity`")
    given.silently("name")
    value, fraction = given.number("ADU_per_photon", 154.0), given.number("thr_fraction", 0.9)
    yield Made(
        "photon", "photon_counting", only(photon=value, fraction=fraction, threshold=threshold)
    )


def autocorrelation(given: Given) -> Iterator[Made]:
    """Autocorrelation of an image, or of what each of several masks leaves of it."""
    name, masks = str(given.get("name", "autocorr")), _masks(given)
    found = given.get("save_range", (50, 50))
    if not isinstance(found, int) and not pair(found):
        given.lose("save_range", f"two whole numbers were expected, not {found!r}; lag is 50")
        found = 50
    given.silently("save_lineout", *(["roi"] if masks else []))
    where = {} if masks else _where(given, "roi")
    levels = _levels(given)
    given.without(illumination_correction="never had an effect")
    if where is None:
        return
    given.check(f"{name}_image_area, the image that is correlated, is recorded as well")
    if masks:
        given.check("a mask has the shape of the image; of a stack make files, and reducers")
    params = only(
        lag=found if isinstance(found, int) else [*found],
        **_cut(*levels),
    )
    image = Made(f"{name}_image", "roi", {**where, "area": True})
    yield image
    for i, mask in enumerate(masks or [None]):
        title = f"{name}_{i}" if len(masks) > 1 else name
        yield Made(title, "autocorrelation", {**params, **only(mask=mask)}, of=f"{image.name}_area")


def _masks(given: Given) -> list[str]:
    """Files of masks, of a parameter that names one or several."""
    found = given.get("mask")
    several = found if isinstance(found, list | tuple) else [] if found is None else [found]
    if all(isinstance(one, str) for one in several):
        return [*several]
    given.lose("mask", "give a .npy file with the shape of the image as `mask`")
    return []


def curve(given: Given) -> Iterator[Made]:
    """Projection along a curve, of an image whose lines are straightened."""
    found, axis = given.get("polynomial_coefficients"), given.get("axis", 0)
    table, image = given.get("projection"), _levels(given)
    given.silently("method", "name")
    given.without(
        droplet="only thresholds are applied before the projection; give them as `thresholds`"
    )
    if not isinstance(found, list | tuple) or not all(type(c) in {int, float} for c in found):
        given.lose("polynomial_coefficients", "give numbers, as `curvature`, the constant first")
        return
    if not isinstance(table, Table):
        given.lose("projection", "is needed: the straightened image itself is not kept")
        return
    below = Given(f"{given.where}: projection", table, given.line, given.remarks)
    made = [*projection(below, {}, image)]
    below.end()
    for one in made:
        if one.params["axis"] != axis:
            below.lose("axis", "lines that were straightened along the other axis; leave it out")
            continue
        given.check("bins are distances from the line; pixels are shared between two, not rounded")
        params = {"axis": axis, "curvature": [float(c) for c in reversed(found)]}
        params |= {k: v for k, v in one.params.items() if k == "thresholds"}
        yield Made(f"curve_corr_{one.name}", "curved_projection", params)


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
    params = only(gate=gate, dt=1.0, baseline=baseline, sign=sign, level=level)
    yield Made("wfintegrate", "waveform_integral", params, "waveform")


def hits(given: Given) -> Iterator[Made]:
    """Hits of a waveform above a threshold."""
    relative, baseline = bool(given.get("use_rms", False)), given.pair("bkg_roi")
    threshold, largest = given.number("threshold", 1.0), given.number("threshold_max")
    given.silently("name")
    given.check(f"{_DT}; {_CHANNEL}; hits are kept, not the trace of ones and zeros")
    params = only(
        dt=1.0, threshold=threshold, relative=relative, maximum=largest, baseline=baseline
    )
    yield Made("hitfinder", "waveform_hits", params, "waveform")


class Rule(NamedTuple):
    """What becomes of a function's entry for a detector; one of a list where ``many``.

    ``flat`` are those that may be written without detectors, as :func:`by_detector` reads them.
    """

    make: Callable[[Given], Iterator[Made]] | None
    many: bool = False
    flat: bool = False
    instead: str = ""


_SVD = "make a basis with svd_basis.save, and write `waveform_svd`"

#: Functions of the run, of LCLS-I and LCLS-II, that give parameters by detector.
RULES: Mapping[str, Rule] = {
    "getROIs": Rule(roi, many=True),
    **dict.fromkeys(("getAzIntParams", "get_azav"), Rule(azav, flat=True)),
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
    "get_polynomial_correction": Rule(curve),
    "get_mectt": Rule(None, instead="write `projection` and `time_tool_edge`"),
    "get_pressio_compression": Rule(None, instead="a study of compression; see writer.compression"),
    "getDetImages": Rule(None, instead="it never had an effect"),
    "get_psplot_configs": Rule(None, instead="every column has its plot on the page"),
}
