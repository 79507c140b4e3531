"""Give every file segment of a run that nobody writes its closed name, whole.

A torn segment is rebuilt beside itself. While ``<name>.torn<k>`` is there, k being how often the
journal says that the segment was rebuilt, the places that the journal tells of are places in that
file; so this may be killed at any point, and repeated.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ffb.source import RunInfo
from ffb.writers import examine
from ffb.writers.h5clear import clear
from ffb.writers.history import Written
from ffb.writers.journal import Journal, sync_folder
from ffb.writers.rebuild import Rebuilt, rebuild


class _Segment(NamedTuple):
    """A segment and the file whose chunks are where the journal says, ``None`` if it is gone."""

    told: Written
    source: Path | None
    wrong: str


def mend(folder: Path, told: Sequence[Written], info: RunInfo, journal: Journal) -> list[str]:
    """Make all segments whole and closed; return what was done.

    What cannot be found again is in ``lost`` of each. Raises ``OSError`` when the disk refuses.
    """
    notes = []
    for segment in _examined(folder, told):
        if segment.source is None:
            _all_lost(segment.told)
            continue
        if segment.wrong:
            _remake(folder, segment.told, segment.source, info, journal)
            notes.append(f"{segment.told.file} was torn ({segment.wrong}) and is rebuilt")
        _close(folder, segment.told, journal)
    return notes


def tidy(folder: Path, told: Sequence[Written]) -> None:
    """Remove the names that no master needs any more, when the new one stands."""
    for segment in told:
        if (folder / segment.file).exists():
            (folder / segment.live).unlink(missing_ok=True)
            if not segment.lost:  # else somebody may find more in them than we did
                for torn in folder.glob(f"{segment.file}.torn*"):
                    torn.unlink()
    sync_folder(folder)


def _torn(folder: Path, told: Written) -> Path:
    return folder / f"{told.file}.torn{told.rebuilt}"


def _examined(folder: Path, told: Sequence[Written]) -> list[_Segment]:
    found, requests = [], []
    for segment in told:
        closed, live, torn = folder / segment.file, folder / segment.live, _torn(folder, segment)
        if torn.exists():
            found.append(_Segment(segment, torn, "an earlier recovery of it was interrupted"))
        elif not closed.exists() and not live.exists():
            found.append(_Segment(segment, None, "it is missing"))
        else:
            source = closed if closed.exists() else live
            wrong = uncleared(source)
            found.append(_Segment(segment, source, wrong))
            if not wrong:
                now = Rebuilt(segment.chunks, segment.lost)
                requests.append((len(found) - 1, _request(source, segment, now)))
    answers = examine.ask([request for _, request in requests])
    for (i, _), answer in zip(requests, answers, strict=True):
        found[i] = found[i]._replace(wrong=answer["wrong"])
    return found


def _request(path: Path, told: Written, places: Rebuilt) -> dict[str, Any]:
    chunks, holes = places.chunks.tobytes(), bool(places.lost)
    return examine.segment(path, told.datasets, told.lengths, chunks, holes)


def uncleared(path: Path) -> str:
    """Clear the marks of a killed writer; say why that cannot be done."""
    try:
        clear(path)
    except OSError as e:
        if e.errno is not None:  # the disk refuses; that is no damage
            raise
        return str(e)
    return ""


def _remake(folder: Path, told: Written, source: Path, info: RunInfo, journal: Journal) -> None:
    """Put a rebuilt segment in the place of a torn one, never without either."""
    new, torn = folder / f".{told.file}.new", _torn(folder, told)
    made = rebuild(source, new, told, info)
    said = {"chunks": made.chunks.tobytes(), "lost": made.lost}
    (answer,) = examine.ask([_request(new, told, made)])
    if answer["wrong"]:
        raise OSError(f"{folder / told.file}: cannot be rebuilt: {answer['wrong']}")
    if source != torn:
        os.link(source, torn)
        sync_folder(folder)
    os.replace(new, folder / told.file)
    sync_folder(folder)
    journal.add("rebuilt", segment=told.number, **said)
    journal.write()
    journal.sync()
    told.rebuild(said)


def _close(folder: Path, told: Written, journal: Journal) -> None:
    """Give a whole segment its closed name, and enter it as closed."""
    closed = folder / told.file
    if not closed.exists():
        fd = os.open(folder / told.live, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        os.link(folder / told.live, closed)
        sync_folder(folder)
    if not told.closed:
        journal.add("closed", segment=told.number, rows=told.rows)
        journal.write()
        told.closed = True


def _all_lost(told: Written) -> None:
    told.lost = [("", told.first, told.first + told.rows - 1)]
