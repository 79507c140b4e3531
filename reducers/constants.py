"""Calibration constants from files, in place of those of psana's store."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffb.configuration.calibration_settings import CalibrationConfig
from ffb.configuration.runs import ALL_RUNS
from ffb.loops.uncalibrated import Uncalibrated
from ffb.reducers.masks import Masking, good_pixels
from ffb.reducers.numpy_file import BEGINNINGS, DAMAGED, NEITHER
from ffb.shot import Input
from ffb.source import Constants

#: Constants that may come from a file, by the names they have in the configuration.
FILES = ("pedestals", "gain", "offset", "rms", "status")

#: What numpy's own files are called; all others are texts.
NUMPY = (".npy", ".npz")

#: Masks that may.
MASKS = ("mask", "unbonded")

#: Settings that mask pixels.
MASKING = {
    "pixel_mask",
    "status_bits",
    "status_extra_bits",
    "neighbors",
    "neighborhood",
    "edges",
    "center",
}

#: Gain ranges by detector type; all others have one.
RANGES = {"jungfrau": 3, "epix10ka": 7}


def from_files(
    constants: Constants, setting: CalibrationConfig, locate: Callable[[str], Path] = Path
) -> tuple[Constants, dict[str, NDArray[Any]]]:
    """Replace constants by those in files, and read the masks that are asked for by name.

    Files hold the segments read out, in their order. Where the run leaves out segments, files may
    hold all of them: then they are taken by number, as psana does with those of its store. ``ids``
    name the file with the first twelve digits of the SHA-256 of its bytes, and the runs for which
    the settings have it, if not all; ``since`` tells when it was saved.

    Raises ``LookupError`` with a line for each file that will not do.
    """
    ids, arrays, since, problems = dict(constants.ids), {}, dict(constants.since), []
    paths = {name: getattr(setting, name) for name in (*FILES, "mask")}
    if setting.common_mode:
        paths["unbonded"] = setting.common_mode.unbonded
    runs = "" if setting.runs == ALL_RUNS else f", runs {setting.runs}"
    for name, path in paths.items():
        if path:
            file = locate(path)
            saved = _saved(file)
            try:
                array, digest = load(file, name, constants.detector)
                arrays[name], taken = _read_out(_shaped(array, name, constants), constants)
            except LookupError as error:
                problems.append(str(error))
                continue
            ids[name] = f"{file.name} sha256:{digest[:12]}{taken}{runs}"
            since |= {name: saved} if saved else {}
    if problems:
        raise LookupError("\n".join(problems))
    if masking := setting.model_dump(include=MASKING, exclude_defaults=True):
        ids["masking"] = json.dumps(masking)
    masks = {name: arrays.pop(name) for name in MASKS if name in arrays}
    origins = ["files"] if arrays else []
    if constants.origin not in ("", "none"):
        origins.append(constants.origin)
    replaced: dict[str, Any] = {**arrays, "ids": ids, "since": since}
    replaced["origin"] = "; ".join(origins) or "none"
    return replace(constants, **replaced), masks


def uncalibrated(
    detector: str,
    setting: CalibrationConfig | None,
    locate: Callable[[str], Path],
    given: Input,
    segments: tuple[int, ...] = (),
    dettype: str = "",
) -> tuple[Uncalibrated, Constants]:
    """Leave pixels as they are, but for the mask, edges and seams of the settings.

    The constants tell where the mask comes from.

    Raises ``ValueError`` for pixels that are no plain numbers, a mask of another shape or edges
    that leave nothing, and ``LookupError`` for a file that cannot be read.
    """
    s, rows, columns = given.shape
    dtype = np.dtype(given.dtype)
    if dtype.kind not in "iuf" or not dtype.isnative:
        raise ValueError(f"{detector}: pixels are {given.dtype}; only native numbers will do")
    bare = Constants(detector, dettype, (s, rows, columns), segments=segments)
    if setting is None:
        return Uncalibrated(np.ones(given.shape, np.bool_), given.dtype), bare
    constants, masks = from_files(bare, setting, locate)
    mask = masks.get("mask")
    if mask is not None and mask.shape != given.shape:
        raise ValueError(f"{detector}: mask {mask.shape} instead of {given.shape}")
    return Uncalibrated(good_pixels(bare, Masking.of(setting), mask), given.dtype), constants


def _saved(path: Path) -> int:
    """When a file was saved [ns since 1970], 0 for one that :func:`load` will complain of."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def load(path: Path, name: str, detector: str) -> tuple[NDArray[Any], str]:
    """Array of a ``.npy`` file, of an ``.npz`` under ``name`` or of a text; SHA-256 of the file.

    Raises ``LookupError`` that says what is wrong with the file.
    """
    where = f"{detector}: {name} from {path}"
    try:
        content = path.read_bytes()  # once: it may be replaced at any time
        digest = hashlib.sha256(content).hexdigest()
        if path.suffix not in NUMPY:
            return np.loadtxt(content.decode().splitlines(), ndmin=2), digest
        if not content.startswith(BEGINNINGS):  # numpy would ask for trust in pickles
            raise LookupError(f"{where}: cannot be read: {NEITHER}")
        data = np.load(io.BytesIO(content), allow_pickle=False)
        if isinstance(data, np.ndarray):
            return data, digest
        with data:
            if name not in data.files:
                raise LookupError(f"{where}: no array {name!r} in it, only {data.files}")
            return data[name], digest
    except OSError as error:
        raise LookupError(f"{where}: cannot be read: {error.strerror or error}") from error
    except DAMAGED as error:
        kind = "numpy file (.npy or .npz)" if path.suffix in NUMPY else "text of numbers"
        raise LookupError(f"{where}: no {kind}: {' '.join(str(error).split())}") from error


def _shaped(array: NDArray[Any], name: str, constants: Constants) -> NDArray[Any]:
    """Bring an array to (gain ranges, segments, rows, columns); a segment axis may be left out.

    So may that of the rows of a line, and the axis of gain ranges where there is but one. A mask,
    and a status for all gain ranges, have no gain ranges.
    """
    if array.dtype.kind not in "iufb":
        raise LookupError(f"{constants.detector}: {name} holds {array.dtype}, no numbers")
    if name in (*MASKS, "status") and (unknown := int(np.isnan(array).sum())):
        raise LookupError(
            f"{constants.detector}: {name} has {unknown} NaN, neither good nor bad; write 0 or 1"
        )
    s, rows, columns = constants.shape
    lines = len(array) if array.ndim == 2 and array.shape[1] == columns else 0
    if lines > rows > 0 and lines % rows == 0:  # a text: segment after segment, range after range
        ranges = (-1, s) if lines % (s * rows) == 0 and lines > s * rows else (-1,)
        array = array.reshape(*ranges, rows, columns)
    while array.ndim in (1, 2):
        array = array[None]
    if name in (*MASKS, "status"):
        return array
    if array.ndim == 3 and constants.dettype not in RANGES:
        array = array[None]
    elif array.ndim == 3 and constants.shape[0] == 1:
        array = array[:, None]
    return np.ascontiguousarray(array, np.float32)


def _read_out(array: NDArray[Any], constants: Constants) -> tuple[NDArray[Any], str]:
    """Take the segments read out, where the run leaves out some and the array has all of them."""
    numbers = constants.segments
    n = array.shape[-3] if array.ndim >= 3 else 0
    complete = numbers == tuple(range(len(numbers)))
    if complete or n <= len(numbers) or max(numbers) >= n:
        return array, ""
    taken = np.ascontiguousarray(np.take(array, numbers, axis=-3))
    return taken, f", segments {', '.join(map(str, numbers))} of {n}"
