"""Numbers in numpy's files, `.npy` and `.npz`, whatever a file turns out to be."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

#: How numpy's files begin, of a .npz the archive, and the longest of that.
BEGINNINGS = (b"\x93NUMPY", b"PK\x03\x04")
MOST = 6

#: What is said of a file that is neither.
NEITHER = "it is no .npy or .npz file"

#: What numpy raises on a file that is not there, not its own, or cut short.
DAMAGED = (OSError, ValueError, EOFError, BadZipFile, zlib.error)


def read(path: Path, *names: str) -> list[NDArray[Any]]:
    """Arrays called ``names`` of a ``.npz`` file; of a ``.npy`` file its only one, for one name.

    ``ValueError`` says what is wrong: a file that cannot be read, an array that is missing, or one
    that is not of real numbers.
    """
    try:
        with open(path, "rb") as f:
            if not f.read(MOST).startswith(BEGINNINGS):  # numpy would ask for trust in pickles
                raise ValueError(NEITHER)
            f.seek(0)
            found = np.load(f, allow_pickle=False)
            if isinstance(found, np.ndarray):
                found = {names[0]: found} if len(names) == 1 else {}
            if missing := [name for name in names if name not in found]:
                holds = ", ".join(found) or "one array without a name"
                raise ValueError(f"{path} holds {holds}; no {', '.join(missing)}")
            arrays = [found[name] for name in names]
    except OSError as e:
        raise ValueError(f"{path} cannot be read: {e.strerror or e}") from e
    except DAMAGED as e:
        text = str(e)
        raise ValueError(text if str(path) in text else f"{path} cannot be read: {text}") from e
    for name, array in zip(names, arrays, strict=True):
        if array.dtype.kind not in "biuf":
            raise ValueError(f"{path}: {name} is of {array.dtype}; real numbers are needed")
    return arrays
