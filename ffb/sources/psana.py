"""What psana knows about a run: classes of detectors, values of fields, constants, geometry.

psana gives meaning, slowly; :mod:`ffb.sources.xtc2` reads the same bytes fast. No DataSource is
made: a Configure datagram is all that psana's detector classes need, wherever it came from. Names
of psana's own, its exceptions and its ``None`` for a failed question end in this module.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffb.shot import Field
from ffb.source import Constants
from ffb.sources.psana_hsd import Digitizers
from ffb.sources.standins import import_psana

#: A datagram, as bytes or as a window on somebody else's memory.
Buffer = bytes | bytearray | memoryview

#: Seconds to wait for a sign of life of the calibration store before giving up.
STORE_TIMEOUT = 5.0

#: What psana's store calls the constants of :class:`ffb.source.Constants`.
STORED = {
    "pedestals": "pedestals",
    "gain": "pixel_gain",
    "offset": "pixel_offset",
    "status": "pixel_status",
    "status_extra": "status_extra",
    "pixel_mask": "pixel_mask",
    "rms": "pixel_rms",
}


class Meaning:
    """Psana's view of one run, from the Configure datagram of each of its streams.

    Raises ``ValueError`` where psana cannot make sense of a Configure.
    """

    def __init__(self, configures: Sequence[Buffer], exp: str, run: int) -> None:
        self._dgram = import_psana("psana.dgram").Dgram
        manager = import_psana("psana.dgrammanager").DgramManager
        self.exp, self.run = exp, run
        # the datagram's arrays are views: keep our own copy of what they look into
        views = [memoryview(bytes(c)) for c in configures]
        self._configs = [self._dgram(view=v) for v in views]
        try:
            self._manager = manager([], configs=self._configs)
        except (AttributeError, KeyError, TypeError, StopIteration) as e:
            raise ValueError(f"psana cannot read the Configure of {exp} run {run}: {e!r}") from e
        self._digitizers = Digitizers(self._manager)
        self._other_runs: dict[str, str] = {}  # by detector: which runs have pedestals

    @staticmethod
    def prepare() -> None:
        """Import what is needed, which takes a second; raises ``ImportError``."""
        import_psana("psana.dgram")
        import_psana("psana.dgrammanager")

    @cached_property
    def segments(self) -> dict[tuple[str, str], list[int]]:
        """Numbers of the segments of every (detector, alg), sorted."""
        found: dict[tuple[str, str], set[int]] = {}
        for config in self._configs:
            for detector, numbered in vars(config.software).items():
                for number, algs in numbered.items():
                    for alg in _public(algs):
                        if alg not in ("dettype", "detid"):
                            found.setdefault((detector, alg), set()).add(number)
        return {key: sorted(numbers) for key, numbers in found.items()}

    def dettype(self, detector: str) -> str:
        """Psana's type of ``detector`` (``"jungfrau"``, ...), ``""`` for one it does not know."""
        known: Mapping[str, tuple[str, str]] = self._manager.det_info_table
        return known.get(detector, ("", ""))[0]

    def decode(
        self, *dgrams: Buffer | None, only: Collection[Field] | None = None
    ) -> dict[Field, Any]:
        """Every field of a shot as psana decodes it, one datagram per stream, ``None`` if absent.

        With ``only``, of those fields; an enumeration's number comes as ``name.value``.

        A field of several segments is stacked as ``det.raw.raw`` does it: scalars (segments,),
        arrays with the segments in front, images as (segments, rows, columns). A detector that
        misses any of its segments has no fields here. Of digitizers there are what psana's class
        makes of them, if ``only`` names such fields.
        """
        parts: dict[tuple[str, str], dict[int, Any]] = {}
        for buffer, config in zip(dgrams, self._configs, strict=True):
            if buffer is None:
                continue
            decoded = self._dgram(view=memoryview(bytes(buffer)), config=config)
            for detector, numbered in _public(decoded).items():
                for number, algs in numbered.items():
                    for alg, block in _public(algs).items():
                        parts.setdefault((detector, alg), {})[number] = block
        out: dict[Field, Any] = {}
        for key, found in parts.items():
            numbers = self.segments.get(key)
            if numbers is None or sorted(found) != numbers:
                continue
            if any((f.detector, f.alg) == key for f in only or ()) and self._digitizers.knows(*key):
                made = self._digitizers.read(*key, found)
                out |= {Field(*key, name): value for name, value in made.items()}
            blocks = {number: dict(_leaves(block)) for number, block in found.items()}
            for name in blocks[numbers[0]]:
                if not (only is None or Field(*key, name.removesuffix(".value")) in only):
                    continue
                value = _stack([blocks[n].get(name) for n in numbers])
                if value is not None:
                    out[Field(*key, name)] = value
        return out

    def constants(self, detector: str, geometry: str = "", store: bool = True) -> Constants:
        """Constants and geometry of an area detector for this run.

        ``geometry`` names a file in psana's geometry format to be used instead of the store's;
        without either, the default that psana ships for the type of detector is taken. With
        ``store`` false, psana's calibration store is not asked, and a detector that psana has no
        class for has no constants.

        Raises ``LookupError`` for a detector that psana has no class for, and when the store does
        not answer.
        """
        known = [k for k in self._manager.det_classes["normal"] if k[0] == detector]
        areas = [k for k in known if hasattr(self._manager.det_classes["normal"][k], "_pedestals")]
        if not areas and not store and not geometry:
            number = max(
                (len(n) for (d, _), n in self.segments.items() if d == detector), default=1
            )
            return Constants(detector, self.dettype(detector), (number, 0, 0))
        if not areas:
            known = sorted({name for name, _ in self._manager.det_classes["normal"]})
            raise LookupError(
                f"{detector}: psana has no class of area detector for it in run {self.run}; "
                f"it knows {', '.join(known) or 'none'}"
            )
        key = (detector, "raw") if (detector, "raw") in areas else areas[0]
        info = self._manager.configinfo_dict[detector]
        found = self._stored(detector, info.uniqueid) if store else {}
        origins = [f"psana's store, {info.uniqueid}"] if found else []
        origins += [self._other_runs[detector]] if detector in self._other_runs else []
        if geometry:
            found["geometry"] = (_text(detector, geometry), {"experiment": self.exp, "run": 0})
        # psana keeps one object per name for the whole process, whatever another run's is
        made = self._manager.det_classes["normal"][key]
        made._registry.pop(":".join(key), None)
        try:
            det = made(*key, info, found, None, None)
        except AssertionError as e:  # an archon without pedestals, but with something else
            raise LookupError(
                f"{detector}: psana's class of it cannot be made of {', '.join(sorted(found))}"
                f" ({'; '.join(origins)}): {_brief(e)}; name files in [calibration.{detector}], or"
                f' set {detector} = "none" there'
            ) from e
        arrays = {ours: _stored_array(det, theirs) for ours, theirs in STORED.items()}
        xyz, origin = _coordinates(det, geometry, "geometry" in found)
        config = _config_bits(det)
        shape = next((a.shape[-3:] for a in (xyz, config, *arrays.values()) if a is not None), ())
        return Constants(
            detector,
            info.dettype,
            (*shape,) if len(shape) == 3 else (len(info.sorted_segment_ids), 0, 0),
            **arrays,
            config=config,
            xyz=xyz,
            corner=None if xyz is None else _corner(det),
            origin="; ".join([*origins, origin]) or "none",
            ids=_ids(found, geometry),
            since=_since(found, geometry),
            segments=(*map(int, det._segment_numbers),),
        )

    def _stored(self, detector: str, uniqueid: str) -> dict[str, tuple[Any, Mapping[str, Any]]]:
        """Ask psana's calibration store for everything it has: ``{ctype: (data, document)}``."""
        web = import_psana("psana.pscalib.calib.MDBWebUtils")
        url = web.cc.URL
        try:
            # psana itself would wait three minutes for a host that does not answer
            web.req.get(url, timeout=STORE_TIMEOUT, stream=True).close()
            if web.pro_detector_name(uniqueid) is None:
                return {}
            found = web.calib_constants_all_types(uniqueid, exp=self.exp, run=self.run) or {}
            if "pedestals" not in found:
                self._note_other_runs(detector, web, uniqueid)
        except (OSError, ValueError, LookupError, TypeError, AssertionError, SystemExit) as e:
            # psana leaves the process where the service answers 503
            raise LookupError(
                f"{detector}: no constants for {self.exp} run {self.run}: psana's calibration"
                f" store at {url} was asked for {uniqueid} and failed ({_brief(e)}); set"
                f" LCLS_CALIB_HTTP to a store that can be reached from here, name files in"
                f' [calibration], or say {detector} = "none" there to go without'
            ) from e
        return {ctype: pair for ctype, pair in found.items() if pair and pair[0] is not None}

    def _note_other_runs(self, detector: str, web: Any, uniqueid: str) -> None:
        """Note for which runs there are pedestals, where there are none for this one."""
        _, database, collection, _ = web.dbnames_collection_query(
            uniqueid, exp=self.exp, run=self.run
        )
        docs = web.find_docs(database, collection, {"ctype": "pedestals"}) or []
        runs = dict.fromkeys(f"{d.get('run')}-{d.get('run_end')}" for d in docs)
        if runs:
            said = f"psana's store has pedestals for runs {', '.join(runs)}, not for run {self.run}"
            self._other_runs[detector] = said


def _public(thing: Any) -> dict[str, Any]:
    """Attributes of psana's containers; those with a leading underscore are its own."""
    return {k: v for k, v in vars(thing).items() if not k.startswith("_")}


def _leaves(block: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Fields of one (detector, alg, segment); psana turns dots in a name into levels."""
    for name, value in _public(block).items():
        if hasattr(value, "__dict__") and not isinstance(value, (np.ndarray, str, int, float)):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _stack(values: list[Any]) -> Any:
    """Put the values of a field's segments together; ``None`` where they do not fit."""
    if len(values) == 1 or any(v is None for v in values):
        return values[0] if len(values) == 1 else None
    if isinstance(values[0], str):
        return values
    arrays = [np.asarray(v) for v in values]
    if len({a.shape for a in arrays}) > 1:
        return None
    out = np.stack(arrays)
    return out.reshape(-1, *out.shape[-2:]) if out.ndim > 3 else out


def _stored_array(det: Any, ctype: str) -> NDArray[Any] | None:
    """Give stored constants of the segments read out: (gain ranges, segments, rows, columns).

    A status for all gain ranges has no axis for them.
    """
    data = (det._calibconst or {}).get(ctype, (None, None))[0]
    if not isinstance(data, np.ndarray):
        return None
    if data.ndim == 1:  # of a line, which has but one segment
        data = data[None, None]
    try:
        array = np.asarray(det._arr_for_daq_segments(data))
    except IndexError as e:
        if ctype == STORED["pixel_mask"]:  # which nobody may have asked for
            return None
        numbers = ", ".join(map(str, det._segment_numbers))
        raise LookupError(
            f"{det._det_name}: {ctype} in the store are of {data.shape[-3]} segments, but the run"
            f" reads out segments {numbers}; name files for it in [calibration]"
        ) from e
    # one gain range, and one segment, are not always spelt out; a status may be that of them all
    whole = ctype in (STORED["status"], STORED["status_extra"], STORED["pixel_mask"])
    while array.ndim < (3 if whole else 4):
        array = array[None]
    array = array.astype(np.int64 if whole else np.float32)
    return np.ascontiguousarray(array)


def _coordinates(det: Any, path: str, stored: bool) -> tuple[NDArray[np.float64] | None, str]:
    """Pixel centres (3, segments, rows, columns) in micrometres, and where they come from."""
    if path:
        origin = f"geometry from {path}"
    elif stored:
        origin = "geometry from the store"
    else:
        default = Path(det._path_geo_default or "").name
        origin = f"psana's default geometry {default}"
        if not default or not Path(det._fname_geotxt_default()).is_file():
            return None, "no geometry"
    try:
        found = det._pixel_coords()
    except (AttributeError, LookupError, TypeError, ValueError) as e:
        if not path and not stored:
            return None, f"no geometry: {origin} is of another detector"
        raise LookupError(f"{det._det_name}: {origin} cannot be used: {_brief(e)}") from e
    if found is None:
        return None, "no geometry"
    xyz = np.stack([np.asarray(a, np.float64) for a in found])
    return np.ascontiguousarray(xyz.reshape(3, -1, *xyz.shape[-2:])), origin


def _corner(det: Any) -> tuple[float, float]:
    """Least x and y of all pixels of the geometry, whatever segments are read out."""
    x, y, _ = det._det_geo().get_pixel_coords(do_tilt=True, cframe=0)
    return float(np.min(x)), float(np.min(y))


def _config_bits(det: Any) -> NDArray[np.uint8] | None:
    """Pixel configuration bits (segments, rows, columns) of an epix10ka, ``None`` for others.

    As psana's ``_cbits_config_detector``, but in the order of the segments whatever the order of
    the streams.
    """
    if not hasattr(det, "_cbits_config_segment"):
        return None
    configs = det._seg_configs()
    if any(n not in configs for n in det._segment_numbers):
        return None
    bits = [det._cbits_config_segment(configs[n].config) for n in det._segment_numbers]
    if any(b is None for b in bits):
        return None
    return np.ascontiguousarray(np.stack(bits), np.uint8)


def _ids(found: Mapping[str, tuple[Any, Mapping[str, Any]]], geometry: str) -> dict[str, str]:
    """Name each constant so that it can be found again, and say for which runs and since when."""
    ids = {}
    for ctype, (_, doc) in sorted(found.items()):
        key = str(doc.get("_id", "?"))
        runs = f"runs {doc.get('run', '?')}-{doc.get('run_end', '?')}"
        ids[ctype] = f"{key} ({doc.get('experiment', '?')}, {runs}{_added(key)})"
    if geometry:
        digest = hashlib.sha256(found["geometry"][0].encode()).hexdigest()
        ids["geometry"] = f"{Path(geometry).name} sha256:{digest[:12]}"
    return ids


def _since(found: Mapping[str, tuple[Any, Mapping[str, Any]]], geometry: str) -> dict[str, int]:
    """When each constant came into the store, or its file was saved [ns since 1970]."""
    added = {ctype: _seconds(str(doc.get("_id", ""))) for ctype, (_, doc) in found.items()}
    since = {ctype: seconds * 1_000_000_000 for ctype, seconds in added.items() if seconds}
    return since | ({"geometry": Path(geometry).stat().st_mtime_ns} if geometry else {})


def _seconds(key: str) -> int:
    """When a document came into the store [s since 1970], told by the first 32 bits of its id."""
    return int(key[:8], 16) if re.fullmatch("[0-9a-f]{24}", key) else 0


def _added(key: str) -> str:
    seconds = _seconds(key)
    return f", added {datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}" if seconds else ""


def _text(detector: str, path: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as e:
        raise LookupError(f"{detector}: the geometry file {path} cannot be read: {e}") from e


def _brief(e: BaseException) -> str:
    """Say in one line why it failed at the very bottom, which is what one can act on."""
    while e.__context__ is not None:
        e = e.__context__
    text = " ".join(str(e).split())
    return f"{type(e).__name__}: {text[:200]}" if text else type(e).__name__
