"""Calibration constants from files, in place of those of psana's store."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffb.settings import CalibrationConfig
from ffb.source import Constants

#: Constants that may come from a file, by the names they have in the configuration.
FILES = ("pedestals", "gain", "offset", "status")


def from_files(
    constants: Constants, setting: CalibrationConfig, locate: Callable[[str], Path] = Path
) -> tuple[Constants, NDArray[Any] | None]:
    """Replace constants by those in files, and read the user's mask.

    ``ids`` then name the file with the first twelve digits of the SHA-256 of its bytes.
    """
    ids, arrays = dict(constants.ids), {}
    for name in (*FILES, "mask"):
        if path := getattr(setting, name):
            file = locate(path)
            arrays[name], digest = load(file, name, constants.detector)
            ids[name] = f"{file.name} sha256:{digest[:12]}"
    mask = arrays.pop("mask", None)
    if mask is not None and mask.ndim == 2:
        mask = mask[None]
    shaped: dict[str, Any] = {n: _shaped(a, n, constants) for n, a in arrays.items()}
    origins = ["files"] if arrays else []
    if constants.origin not in ("", "none"):
        origins.append(constants.origin)
    return replace(constants, **shaped, ids=ids, origin="; ".join(origins) or "none"), mask


def load(path: Path, name: str, detector: str) -> tuple[NDArray[Any], str]:
    """Array of a ``.npy`` file, or of an ``.npz`` under ``name``, and the SHA-256 of the file.

    Raises ``LookupError`` that says what is wrong with the file.
    """
    where = f"{detector}: {name} from {path}"
    try:
        data = np.load(path, allow_pickle=False)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if isinstance(data, np.ndarray):
            return data, digest
        with data:
            if name not in data.files:
                raise LookupError(f"{where}: no array {name!r} in it, only {data.files}")
            return data[name], digest
    except OSError as error:
        raise LookupError(f"{where}: cannot be read: {error.strerror or error}") from error
    except (ValueError, EOFError) as error:
        raise LookupError(f"{where}: no numpy file (.npy or .npz): {error}") from error


def _shaped(array: NDArray[Any], name: str, constants: Constants) -> NDArray[Any]:
    """Bring an array to (gain ranges, segments, rows, columns); a segment axis may be left out."""
    if array.dtype.kind not in "iufb":
        raise LookupError(f"{constants.detector}: {name} holds {array.dtype}, no numbers")
    if array.ndim == 3 and constants.shape[0] == 1 and name != "status":
        array = array[:, None]
    return array if name == "status" else np.ascontiguousarray(array, np.float32)
