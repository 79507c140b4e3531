"""Exposures of integrating detectors in a plain file: the group ``intg``, one below it for each.

What is written is what :class:`ffb.integrating.integrated.Integrated` computes of the rows that the
file holds already; ``intg/timestamp`` is that of the detector configured first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ffb.integrating.integrated import Dataset, Integrated, configured
from ffb.messaging.checksum import crc32
from ffb.reading.contents import INTEGRATED
from ffb.schema import Schema

log = logging.getLogger(__name__)


def write(
    file: h5py.File, config: str, schema: Schema, rows: int, before: Callable[[int], None]
) -> dict[str, int]:
    """Compute and write everything in ``intg``; returns the CRC-32 of datasets by name.

    ``before`` is called with the bytes that are written next.
    """

    def read(name: str, chosen: slice) -> NDArray[Any]:
        return np.asarray(file[name][chosen])

    out: dict[str, int] = {}
    for name, settings in configured(config).items():
        found = Integrated(name, settings, schema.by_name, read, rows)
        if rows and not found.framed.any():
            log.warning("no frame of %s came in %d shots", name, rows)
        group = file.create_group(f"{INTEGRATED}/{name}")
        group.attrs["doc"] = f"what {name} saw: a row for each of its exposures"
        group.attrs["settings"] = settings.model_dump_json()
        for key in found:
            dataset = found.dataset(key)
            before(dataset.values.nbytes)
            out[f"{group.name}/{key}"] = _write(group, key, dataset)
        if "timestamp" not in file[INTEGRATED]:
            file[INTEGRATED]["timestamp"] = h5py.SoftLink(f"{group.name}/timestamp")
    return out


def _write(group: h5py.Group, name: str, dataset: Dataset) -> int:
    made = group.create_dataset(name, data=dataset.values)
    about: dict[str, Any] = {"unit": dataset.unit, "doc": dataset.doc}
    if dataset.dims != ("exposure",):
        about["dims"] = [*dataset.dims]
    for key, value in (about | dict(dataset.attrs)).items():
        made.attrs[key] = value
    return _crc(dataset.values)


def _crc(values: NDArray[Any]) -> int:
    return crc32(np.ascontiguousarray(values).reshape(-1).view(np.uint8))


def compare(file: h5py.File, written: Mapping[str, int]) -> None:
    """Raise ``OSError`` unless datasets read as they were written."""
    for name, crc in written.items():
        if _crc(file[name][...]) != crc:
            raise OSError(f"{file.filename}: {name} does not read back as written")
