"""Write the sums of a run that has ended into its merged file, and read them back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ffb.messaging.checksum import crc32
from ffb.reading.contents import SUMS
from ffb.sums.datasets import Dataset, datasets, frames, rows_of
from ffb.sums.log import Folder


def write_sums(
    file: h5py.File,
    folder: Path,
    columns: Callable[[], Mapping[str, NDArray[Any]]],
    room: Callable[[int], None],
) -> dict[str, int]:
    """Write every sum found in ``folder``, a frame at a time; returns the CRC-32 of each.

    ``columns`` gives those that tell to which sum a row belongs; ``room`` raises ``OSError`` where
    so many bytes cannot be written.
    """
    found = Folder(folder)
    known = datasets(found)
    rows = columns() if known else {}
    return {name: _write(file, found, d, rows_of(d, rows), room) for name, d in known.items()}


def _write(
    file: h5py.File, folder: Folder, d: Dataset, rows: tuple[int, ...], room: Callable[[int], None]
) -> int:
    shape = d.shape if d.steps is None else (len(d.steps), *d.shape)
    room(prod(shape) * np.dtype(d.what.dtype).itemsize)
    made = file.create_dataset(f"{SUMS}/{d.name}", shape, d.what.dtype)
    crc = 0
    for k, frame in enumerate(frames(folder, d)):
        made[... if d.steps is None else k] = frame
        crc = _crc(frame, crc)
    for key, value in d.attributes.items():
        made.attrs[key] = value
    made.attrs["rows"] = np.int64(rows[0]) if d.steps is None else np.array(rows, np.int64)
    for i, dim in enumerate(d.dims):
        made.dims[i].label = dim
    return crc


def compare_sums(file: h5py.File, written: Mapping[str, int]) -> None:
    """Raise ``OSError`` where a sum does not read back as it was written."""
    for name, crc in written.items():
        made, now = file[f"{SUMS}/{name}"], 0
        for frame in (
            (made[k] for k in range(made.shape[0])) if "steps" in made.attrs else [made[:]]
        ):
            now = _crc(frame, now)
        if now != crc:
            raise OSError(f"{file.filename}: {SUMS}/{name} does not read back as written")


def _crc(frame: NDArray[Any], before: int) -> int:
    return crc32(np.ascontiguousarray(frame).view(np.uint8).data, before)
