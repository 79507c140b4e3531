"""The master: one file that shows all file segments of a run as one, with relative paths.

Columns and tables are virtual datasets, mapped piece by piece onto the segments that are closed,
and without an end onto the one that is being written. A master is never changed but replaced, so
that a reader finds the old one or the new one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t

from ffb.reading.contents import (
    COMMITTED,
    COMPLETE,
    FOLDER,
    SEGMENT_KEYS,
    SEGMENTS,
    TABLES,
    stored,
    union,
)
from ffb.schema import Schema
from ffb.sink import Counts, Provenance
from ffb.source import RunInfo
from ffb.writers import layout, user_data
from ffb.writers.describe import describe, set_end
from ffb.writers.journal import sync_folder

_ENDLESS = h5s.UNLIMITED


class SegmentFile(NamedTuple):
    """A file segment as the master lists it: ``contents.SEGMENT_KEYS``."""

    file: str
    first: int
    rows: int
    epoch: int
    tables: Mapping[str, int]


class _Piece(NamedTuple):
    """What a virtual dataset takes from a file: ``rows`` of ``name``, -1 for all there will be."""

    file: str
    name: str
    first: int
    rows: int


def folder_of(path: Path) -> Path:
    """Folder of the segments and the journal of the run whose master is ``path``."""
    return path.with_name(f"{path.stem}{FOLDER}")


def write_master(
    path: Path,
    info: RunInfo,
    segments: Sequence[tuple[SegmentFile, Schema]],
    provenance: Provenance,
    counts: Counts,
    tables: Mapping[str, int] | None = None,
    complete: bool = False,
) -> None:
    """Write a master to ``path`` in one step, in place of any other.

    The last segment may be one that grows. ``tables`` are the lines of the run as of ``counts``,
    where the last segment may hold more; ``complete`` says that the run has ended.
    """
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    try:
        with h5py.File(part, "x", libver=layout.FORMAT, locking=False) as file:
            _fill(file, path, info, segments, provenance, tables or {}, complete)
            set_end(file, counts)
        with part.open("rb") as written:
            os.fsync(written)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _fill(
    file: h5py.File,
    path: Path,
    info: RunInfo,
    segments: Sequence[tuple[SegmentFile, Schema]],
    provenance: Provenance,
    tables: Mapping[str, int],
    complete: bool,
) -> None:
    listed = [s for s, _ in segments]
    shown = union({s.epoch: schema for s, schema in segments})
    rows = max((s.first + max(0, s.rows) for s in listed), default=0)
    folder = f"{folder_of(path).name}/"
    for name, source in shown.items():
        pieces = [_Piece(folder + s.file, source.source, s.first, s.rows) for s in listed]
        mine = [p for p, s in zip(pieces, listed, strict=True) if s.epoch in source.epochs]
        c = source.column
        _virtual(file, name, stored(c), c.shape, mine, rows, c.missing)
    for name, (dtype, _) in TABLES.items():
        lines = [_Piece(folder + s.file, name, *span) for s, span in _spans(listed, name, tables)]
        end = max((p.first + max(0, p.rows) for p in lines), default=0)
        _virtual(file, name, dtype, (), lines, end, np.zeros((), dtype))
    if listed and listed[-1].rows < 0:
        _virtual_counter(file, folder + listed[-1].file, rows)
    else:
        layout.create_counter(file, COMMITTED, rows)
    schema = Schema(tuple(s.column for s in shown.values()))
    listing = [dict(zip(SEGMENT_KEYS, s, strict=True)) for s in listed]
    file.create_dataset(SEGMENTS, data=json.dumps(listing), dtype=h5py.string_dtype())
    layout.create_counter(file, COMPLETE, int(complete))
    user_data.show(file, folder_of(path), (s.epoch for s in listed))
    describe(file, info, schema, provenance)


def _spans(
    listed: Sequence[SegmentFile], name: str, ends: Mapping[str, int]
) -> list[tuple[SegmentFile, tuple[int, int]]]:
    """First line and number of lines of a table in every segment, -1 for all there are."""
    out = []
    for i, s in enumerate(listed):
        first = s.tables.get(name, 0)
        if i + 1 < len(listed):
            end = listed[i + 1].tables.get(name, 0)
        else:
            end = ends.get(name, -1) if s.rows >= 0 else -1
        out.append((s, (first, end - first if end >= 0 else -1)))
    return out


def _virtual(
    file: h5py.File,
    name: str,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    pieces: Sequence[_Piece],
    rows: int,
    missing: Any,
) -> None:
    """Create a dataset of ``rows`` rows, and those to come, from ``pieces`` of segments.

    h5py's own way of describing pieces takes several times as long.
    """
    made = h5p.create(h5p.DATASET_CREATE)
    made.set_fill_value(np.array(missing, dtype))
    origin, whole = (0,) * len(shape), (_ENDLESS, *shape)
    if not any(p.rows for p in pieces):  # nothing virtual about it
        made.set_chunk((1, *shape))
    for p in pieces:
        if p.rows == 0:
            continue
        here, there = h5s.create_simple((rows, *shape), whole), None
        if p.rows > 0:
            here.select_hyperslab((p.first, *origin), (p.rows, *shape))
            there = h5s.create_simple((p.rows, *shape), whole)
            there.select_hyperslab((0, *origin), (p.rows, *shape))
        else:
            one = (1,) * (1 + len(shape))
            here.select_hyperslab((p.first, *origin), one, one, whole)
            there = h5s.create_simple((0, *shape), whole)
            there.select_hyperslab((0, *origin), one, one, whole)
        made.set_virtual(here, _escaped(p.file), _escaped(p.name), there)
    space = h5s.create_simple((rows, *shape), whole)
    _create(file, name, dtype, space, made)


def _virtual_counter(file: h5py.File, source: str, rows: int) -> None:
    """Show the counter of the segment that grows."""
    made = h5p.create(h5p.DATASET_CREATE)
    made.set_fill_value(np.array(rows, "<i8"))
    here, there = h5s.create_simple((1,)), h5s.create_simple((1,), (1,))
    made.set_virtual(here, _escaped(source), _escaped(COMMITTED), there)
    _create(file, COMMITTED, np.dtype("<i8"), here, made)


def _create(
    file: h5py.File, name: str, dtype: np.dtype[Any], space: h5s.SpaceID, made: h5p.PropDCID
) -> None:
    links = h5p.create(h5p.LINK_CREATE)
    links.set_create_intermediate_group(True)
    links.set_char_encoding(h5t.CSET_UTF8)
    h5d.create(file.id, name.encode(), h5t.py_create(dtype, logical=True), space, made, links)


def _escaped(name: str) -> bytes:
    """A name in which HDF5 finds no pattern of block numbers."""
    return name.replace("%", "%%").encode()
