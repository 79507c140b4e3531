"""``UserDataCfg``: parameters, axes, masks and geometry of a run, as analysts look for them.

They stand in one small file for each epoch beside the file segments, which is whole and synced
before the journal tells of the first segment of its epoch. The master shows them by a link, and the
merge copies them into the plain file. Of an epoch that was followed by another the group is called
``UserDataCfg_e<epoch>``. An array that an earlier epoch had is stored once.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ffb.messaging.arrays import unpacked
from ffb.reading import contents
from ffb.schema import column_name
from ffb.sink import Provenance
from ffb.writers.journal import sync_folder

log = logging.getLogger(__name__)

GROUP = contents.USER_DATA

#: Beginning of the names of these files in the folder of the segments.
PREFIX = "cfg"


def path_of(folder: Path, epoch: int) -> Path:
    """File with what belongs to an epoch."""
    return folder / f"{PREFIX}{epoch:05d}.h5"


def size_of(folder: Path, epoch: int, provenance: Provenance) -> int:
    """Bytes that the arrays of an epoch still have to take."""
    if path_of(folder, epoch).exists():
        return 0
    return sum(int(np.prod(a["shape"])) * np.dtype(a["dtype"]).itemsize for a in provenance.arrays)


def write(folder: Path, epoch: int, provenance: Provenance) -> None:
    """Write the file of an epoch, unless it is there; it is whole and synced afterwards."""
    path = path_of(folder, epoch)
    if path.exists():
        return
    before = max((p for p in folder.glob(f"{PREFIX}*.h5") if p < path), default=None)
    part = folder / f".{path.name}.part"
    part.unlink(missing_ok=True)
    with h5py.File(part, "x", locking=False) as file:
        group = file.create_group(GROUP)
        _write_arrays(group, provenance.arrays, before)
        for name, made in provenance.reducers.items():
            if isinstance(made, Mapping) and _is_path(name):
                _write_reducer(group, name, made)
    with part.open("rb") as written:
        os.fsync(written)
    os.replace(part, path)
    sync_folder(folder)


def _write_arrays(
    group: h5py.Group, arrays: Iterable[Mapping[str, Any]], before: Path | None
) -> None:
    known = _known(before)
    for packed in arrays:
        try:
            a = unpacked(packed)
        except ValueError as e:
            log.warning("file=%s not stored: %s", group.file.filename, e)
            continue
        digest = hashlib.blake2b(a.values.tobytes(), digest_size=16).hexdigest()
        if digest in known:
            group[a.name] = h5py.ExternalLink(*known[digest])
            continue
        data = group.create_dataset(a.name, data=a.values)
        data.attrs.update({"unit": a.unit, "doc": a.doc, "digest": digest})


def _known(path: Path | None) -> dict[str, tuple[str, str]]:
    """File and path of every array that the epoch before had, by digest."""
    if path is None:
        return {}
    out = {}
    with h5py.File(path, "r", locking=False) as file:
        for name, data in _datasets(file[GROUP]):
            if "digest" in data.attrs:
                link = file[GROUP].get(name, getlink=True)
                own = (path.name, f"/{GROUP}/{name}")
                is_link = isinstance(link, h5py.ExternalLink)
                out[str(data.attrs["digest"])] = (link.filename, link.path) if is_link else own
    return out


def _write_reducer(group: h5py.Group, name: str, made: Mapping[str, Any]) -> None:
    """Write parameters and axes of a reducer: ``<det>/<f>__<f>_<key>``, or ``<reducer>/<key>``."""
    detector, _, function = name.rpartition("/")
    stem = f"{detector}/{function}__{function}_" if detector else f"{name}/"
    about = {"reducer": name, "version": str(made.get("version", ""))}
    params, axes = made.get("params"), made.get("coords")
    for key, value in (params if isinstance(params, Mapping) else {}).items():
        use = made.get("use", name)
        doc = f"parameter {key} of {use}, in the unit that `ffb reducers {use}` tells"
        attrs = {"unit": "the parameter's", "doc": doc, **about}
        _write(group, f"{stem}{key}", _plain(value), attrs)
    for dim, axis in (axes if isinstance(axes, Mapping) else {}).items():
        doc = f"{dim} of the features {column_name(name, '...')}"
        _write(
            group,
            f"{stem}{dim}",
            np.asarray(axis["values"]),
            {"unit": str(axis.get("unit", "1")), "doc": doc, **about},
        )


def _write(group: h5py.Group, path: str, value: Any, attrs: Mapping[str, str]) -> None:
    parts = path.split("/")
    above = ("/".join(parts[:k]) for k in range(1, len(parts)))
    taken = path in group or any(isinstance(group.get(p), h5py.Dataset) for p in above)
    if taken or not _is_path(path):
        log.warning("file=%s has no place for %s", group.file.filename, path)
        return
    group.create_dataset(path, data=value).attrs.update(attrs)


def _is_path(name: str) -> bool:
    return name.isprintable() and not {"", ".", ".."} & {*name.split("/")}


def _plain(value: Any) -> Any:
    """A parameter as a number, a text, or an array of numbers; else as JSON text."""
    if value in ("inf", "-inf", "nan"):  # as provenance spells what JSON has no number for
        return float(value)
    if isinstance(value, int) and abs(value) >= 1 << 63:
        return str(value)
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple) and value:
        try:
            array = np.asarray(value)
        except (ValueError, OverflowError):
            return json.dumps(value)
        if array.dtype.kind in "bif":
            return array
    return json.dumps(value)


def show(file: h5py.File, folder: Path, epochs: Iterable[int]) -> None:
    """Let a master show what there is of ``epochs``; ``folder`` is that of the segments."""
    for name, path in _places(folder, epochs):
        file[name] = h5py.ExternalLink(f"{folder.name}/{path.name}", f"/{GROUP}")


def copy(file: h5py.File, folder: Path, epochs: Iterable[int]) -> list[tuple[str, Path, str]]:
    """Copy what there is of ``epochs`` into a plain file; where all of it stands and stood."""
    known: dict[str, str] = {}
    made = []
    for top, path in _places(folder, epochs):
        with h5py.File(path, "r", locking=False) as source:
            for name, data in _datasets(source[GROUP]):
                place, digest = f"{top}/{name}", str(data.attrs.get("digest", ""))
                if digest and digest in known:
                    file[place] = file[known[digest]]
                else:
                    data.file.copy(data, file, place)
                    known[digest] = place
                made.append((place, path, name))
    return made


def compare(file: h5py.File, made: Iterable[tuple[str, Path, str]]) -> None:
    """Raise ``OSError`` unless what was copied reads as it stood."""
    for place, path, name in made:
        with h5py.File(path, "r", locking=False) as source:
            now, then = file[place][()], source[GROUP][name][()]
            if np.asarray(now).tobytes() != np.asarray(then).tobytes():
                raise OSError(f"{file.filename}: {place} does not read back as written")


def _places(folder: Path, epochs: Iterable[int]) -> Iterator[tuple[str, Path]]:
    """Name of the group, and the file, of every epoch that has one, the newest first."""
    for i, epoch in enumerate(sorted({*epochs}, reverse=True)):
        path = path_of(folder, epoch)
        if path.exists():
            yield (f"{GROUP}_e{epoch}" if i else GROUP), path


def _datasets(group: h5py.Group, above: str = "") -> Iterator[tuple[str, h5py.Dataset]]:
    """All datasets below ``group``, behind links as well."""
    for key in group:
        item = group[key]
        if isinstance(item, h5py.Dataset):
            yield f"{above}{key}", item
        else:
            yield from _datasets(item, f"{above}{key}/")
