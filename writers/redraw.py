"""Draw up a journal anew, where it is missing or damaged, from what the segments say themselves.

Less is certain then: that a row was synced is not known, only that the writer's counter had come so
far. Every segment must be readable, because what it lacks no journal can tell.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import msgpack
import numpy as np

from ffb.reading.contents import (
    COMMITS,
    COMMITTED,
    COMPLETE,
    GROUP,
    LAYOUT,
    LEDGER,
    LOG,
    PRODUCERS,
    STEPS,
    TABLES,
)
from ffb.schema import EPOCH
from ffb.writers.journal import CHUNK, Journal


def redraw(folder: Path, told: Sequence[Mapping[str, Any]]) -> None:
    """Write a journal with what :func:`tell` gave; the old one stays beside it."""
    new, journal = folder / ".journal", folder / "journal"
    new.unlink(missing_ok=True)
    out = Journal(new)
    try:
        for i, segment in enumerate(told):
            if i == 0:
                out.add("run", layout=LAYOUT, **segment["run"])
            out.add("segment", **segment["segment"])
            out.add("commit", **segment["commit"])
        if told and told[-1]["complete"]:
            out.add("ended", counts=told[-1]["commit"]["counts"])
        out.write()
        out.sync()
    finally:
        out.close()
    if journal.exists():
        os.replace(journal, folder / "journal.damaged")
    os.replace(new, journal)


def tell(paths: Sequence[str]) -> Iterator[dict[str, Any]]:
    """What the journal would say of each segment in which something was committed, in order."""
    first, tables, entered = 0, dict.fromkeys(TABLES, 0), list[int]()
    for path in paths:
        with h5py.File(path, "r", locking=False) as file:
            rows, after = int(file[COMMITTED][0]), _lines(file, tables)
            if after[COMMITS] == tables[COMMITS]:
                continue
            number = int(Path(path).name[3:7])
            lengths = {k: after[k] - tables[k] for k in TABLES}
            counts = _books(file, lengths[COMMITS], tables[LOG])
            entered += file[STEPS][: lengths[STEPS]]["step"].tolist()
            yield {
                "complete": bool(file[COMPLETE][0]),
                "run": {k: _plain(file[GROUP].attrs[k]) for k in ("exp", "run", "began")},
                "segment": {
                    "number": number,
                    "file": f"seg{number:04d}.h5",
                    "live": f"seg{number:04d}.live.h5",
                    "first": first,
                    "epoch": int(file[EPOCH.name][0]) if rows > first else int(counts["epoch"]),
                    "schema": file[GROUP]["schema"][()].tobytes(),
                    "provenance": _provenance(file[GROUP]),
                    "tables": tables,
                },
                "commit": {
                    "commit": int(counts["commit"]),
                    "segment": number,
                    "rows": rows,
                    "tables": after,
                    "counts": counts,
                    "chunks": _chunks(file, rows - first, lengths),
                    "steps": {"rows": [], "said": [], "entered": list(entered)},
                },
            }
            first, tables = rows, after


def _lines(file: h5py.File, before: Mapping[str, int]) -> dict[str, int]:
    """Lines of each table up to the end of this segment, as of the last commit that it counts."""
    commits = file[COMMITS][:]
    commits = commits[commits["rows"] <= file[COMMITTED][0]]
    if not len(commits):
        return dict(before)
    last, end = commits["commit"][-1], int(commits["log"][-1] + commits["size"][-1])
    mine = {COMMITS: len(commits), LOG: end - before[LOG], PRODUCERS: len(file[PRODUCERS])}
    mine[LEDGER] = int(np.count_nonzero(file[LEDGER][:]["commit"] <= last))
    for name in TABLES.keys() - mine.keys():
        table = file[name][:]
        mine[name] = int(np.count_nonzero(table["log"] + table["size"] <= end))
    return {name: before[name] + mine[name] for name in TABLES}


def _books(file: h5py.File, commits: int, before: int) -> dict[str, Any]:
    """Books of the last commit."""
    line = file[COMMITS][commits - 1]
    begin = int(line["log"]) - before
    said: dict[str, Any] = json.loads(bytes(file[LOG][begin : begin + int(line["size"])]))
    return said | {"ledger": ()}


def _provenance(group: h5py.Group) -> dict[str, Any]:
    names = ("inputs", "reducers", "constants", "versions")
    texts = {k: json.loads(group[k].asstr()[()]) for k in names if k in group}
    about = {k: str(group.attrs[k]) for k in ("host", "command")}
    notes = json.loads(group["notes"].asstr()[()])
    return texts | about | {"config": str(group["config"].asstr()[()]), "notes": notes}


def _chunks(file: h5py.File, rows: int, lengths: Mapping[str, int]) -> bytes:
    """Where the chunks of all committed rows and lines lie."""
    schema: list[list[Any]] = msgpack.unpackb(file[GROUP]["schema"][()].tobytes())
    wanted = {str(column[0]): rows for column in schema} | dict(lengths)
    places = []
    for i, (name, length) in enumerate(wanted.items()):
        dataset = file[name]
        per, origin = dataset.chunks[0], (0,) * (dataset.ndim - 1)
        for chunk in range(-(-length // per)):
            at = dataset.id.get_chunk_info_by_coord((chunk * per, *origin))
            places.append((i, chunk, at.byte_offset, at.size, at.filter_mask))
    return np.array(places, CHUNK).tobytes()


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
