"""Bring a run that nobody writes any more in order, whatever ended its writer.

What counts is the journal: rows that it tells of are found again, those that it does not tell of
never counted. Every step can be repeated, so that a recovery may itself be killed at any point.
Nothing is ended here: producers may still send what is in flight, and the run goes on where it was.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from ffb.ledger import Ledger
from ffb.reading.contents import FOLDER, TABLES
from ffb.schema import Schema
from ffb.sink import Counts, Provenance
from ffb.source import RunInfo
from ffb.writers import examine, mend, unsynced, user_data
from ffb.writers.chain import Begun, Chain, Rolling
from ffb.writers.history import History, Written, told
from ffb.writers.journal import Journal, commits, damaged, read, sync_folder
from ffb.writers.lease import Lease
from ffb.writers.master import SegmentFile, folder_of, write_master
from ffb.writers.redraw import redraw

#: Why a run ended that somebody closed who did not write it.
RECOVERED = "recovered"

log = logging.getLogger(__name__)


class NeverBegunError(FileNotFoundError):
    """What is found was left before anything could be acknowledged; it is kept elsewhere."""


class Healed(NamedTuple):
    """A run in order, and all that a writer needs to go on with it.

    ``segments`` are closed, in order, with their columns; ``number`` is that of the next one.
    ``schema``, ``provenance`` and ``epoch`` are those of the newest segment, ``None`` and 0 when
    nothing was ever committed. ``rows``, ``tables`` (lines of each), ``books`` and ``steps`` are as
    of the last commit. ``complete`` says that the run has ended, ``merged`` that one plain file
    holds it all and the folder is gone. ``notes`` say what was found and done, ``lost`` which
    committed rows cannot be found any more.
    """

    info: RunInfo
    segments: tuple[tuple[SegmentFile, Schema], ...]
    number: int
    schema: Schema | None
    provenance: Provenance
    epoch: int
    rows: int
    tables: Mapping[str, int]
    books: Counts
    steps: Mapping[str, Any] | None
    complete: bool
    merged: bool
    notes: tuple[str, ...]
    lost: tuple[str, ...]


def heal(master: Path) -> Healed:
    """Bring the run of ``master``, whose lease the caller holds, in order; repeatable.

    Raises ``FileNotFoundError`` when nothing is found of it (:class:`NeverBegunError` when that was
    moved aside), ``ValueError`` when master and folder are of different runs, and ``OSError`` when
    the disk refuses.
    """
    folder = folder_of(master)
    history, notes = _history(master, folder)
    if merged := _merged(master, folder, history):
        return merged
    if folder.exists():
        notes += _sweep(master, folder, history)
    if history.info is None:
        raise FileNotFoundError(_nothing(master, folder))
    journal = Journal(folder / "journal")
    try:
        notes += mend.mend(folder, history.segments, history.info, journal)
        journal.sync()
    finally:
        journal.close()
    healed = _healed(history, history.info, notes)
    if history.owed:
        _pay(master, healed, history)
        again = heal(master)
        return again._replace(notes=(*notes, *again.notes))
    if healed.segments:
        made = (healed.info, healed.segments, healed.provenance, healed.books)
        write_master(master, *made, healed.tables, healed.complete)
    else:  # what it showed is gone, and was nothing
        master.unlink(missing_ok=True)
    mend.tidy(folder, history.segments)
    return healed


def _nothing(master: Path, folder: Path) -> str:
    """Why there is no run to bring in order."""
    if folder.exists():
        return "nothing of it was ever committed"
    if not master.exists():
        return f"no such run: neither the file is there nor its folder {folder.name}"
    return f"not a whole file of ffb, and its folder {folder.name} is not there to restore it from"


def _history(master: Path, folder: Path) -> tuple[History, list[str]]:
    """What the journal tells; one that is missing or damaged is drawn up from the segments."""
    journal = folder / "journal"
    if not journal.exists():
        history, why = History(), "the journal is missing"
    else:
        history, why = told(read(journal)), "the journal is damaged" if damaged(journal) else ""
        why = why or ("" if history.info else "the journal tells nothing")
    segments = _by_number(folder)
    if not (why and segments):
        missing = unsynced.first_missing(folder) if history.segments else None
        if missing is None:
            return history, []
        note = unsynced.cut(folder, missing)
        return told(read(journal)), [note]
    wrong, found = next(filter(None, map(mend.uncleared, segments)), ""), None
    if not wrong:
        (found,) = examine.ask([examine.tell(segments)])
        wrong = found["wrong"]
    if found is None or wrong:
        if _never_begun(master, folder):
            raise NeverBegunError(_set_aside(master, folder))
        raise OSError(f"{folder}: {why}, and a segment cannot be read: {wrong}")
    redraw(folder, found["segments"])
    note = f"{why}: what is committed is taken from the segments' own counters"
    return told(read(journal)), [note]


def _never_begun(master: Path, folder: Path) -> bool:
    """Whether a writer was stopped here before it could acknowledge anything.

    It makes the journal, then the first segment, syncs what the journal says of both, and puts the
    synced master in its place; only then does it take rows. So nothing was acknowledged where the
    master is missing *and* no commit is left in the journal *and* there is no segment but the
    first, under its live name. A sign to the contrary is enough, for then something else has
    happened than a stop at the beginning, and rows may be found by a person: a master, a segment
    that was closed or followed, a record of a commit behind a damaged one, or no journal at all.
    """
    journal, segments = folder / "journal", [p.name for p in folder.glob("seg*")]
    first = segments == ["seg0000.live.h5"]
    return first and journal.exists() and not (master.exists() or commits(journal))


def _set_aside(master: Path, folder: Path) -> str:
    """Give the folder of a run that never began another name; say which."""
    names = (folder.with_name(f"{folder.name}.aside{n}") for n in count(1))
    kept = next(path for path in names if not path.exists())
    folder.rename(kept)
    sync_folder(master.parent)
    said = (
        f"nothing of it was ever acknowledged; what an earlier writer left is kept in {kept.name}"
    )
    log.warning("file=%s %s", master, said)
    return said


def _by_number(folder: Path) -> list[Path]:
    """Files of the segments by their numbers, under their closed names where they have them."""
    found = {int(p.name[3:7]): p for p in sorted(folder.glob("seg[0-9][0-9][0-9][0-9].live.h5"))}
    found |= {int(p.name[3:7]): p for p in sorted(folder.glob("seg[0-9][0-9][0-9][0-9].h5"))}
    return [path for _, path in sorted(found.items())]


def _merged(master: Path, folder: Path, history: History) -> Healed | None:
    """Remove the folder of a run that its master holds completely; ``None`` if it does not.

    A master of a run of which nothing is known has nothing to show, and goes.
    """
    if not master.exists():
        return None
    (found,) = examine.ask([examine.master(master)])
    if found["wrong"]:
        return None
    history.ended |= found["complete"]  # the master says so before the journal
    if not found["plain"] and history.info is None and folder.exists():
        master.unlink()
    if not (found["plain"] and found["complete"]):
        return None
    info = RunInfo(found["exp"], found["run"], found["began"])
    if history.info not in (None, info):
        raise ValueError(
            f"{master} holds {info}, the folder {folder} {history.info}: move one away"
        )
    notes = []
    if folder.exists():
        shutil.rmtree(folder)
        notes = [f"{folder} was left by a merge that had ended, and is removed"]
    healed = _healed(history, info, notes)
    return healed._replace(rows=found["rows"], segments=(), complete=True, merged=True)


def _sweep(master: Path, folder: Path, history: History) -> list[str]:
    """Remove what was being made, and segments in which nothing was ever committed."""
    for temporary in ("part", "merging"):
        master.with_name(f".{master.name}.{temporary}").unlink(missing_ok=True)
    known = {name for s in history.segments for name in (s.file, s.live)}
    notes = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            path.unlink()
        elif path.name.endswith(".live.h5") and path.name not in known:
            path.unlink()
            notes.append(f"{path.name} held no committed row, and is removed")
        elif path.name.startswith(user_data.PREFIX):
            continue  # made before the journal tells of its epoch
        elif path.name.endswith(".h5") and path.name not in known:
            path.rename(path.with_name(f"{path.name}.stray"))
            notes.append(f"{path.name} is unknown to the journal, and renamed to .stray")
    sync_folder(folder)
    return notes


def _healed(history: History, info: RunInfo, notes: Sequence[str]) -> Healed:
    segments = history.segments
    newest = segments[-1] if segments else None
    return Healed(
        info=info,
        segments=tuple(
            (SegmentFile(s.file, s.first, s.rows, s.epoch, s.before), s.schema) for s in segments
        ),
        number=history.number,
        schema=newest.schema if newest else None,
        provenance=newest.provenance if newest else Provenance(),
        epoch=newest.epoch if newest else 0,
        rows=newest.first + newest.rows if newest else 0,
        tables=newest.tables if newest else dict.fromkeys(TABLES, 0),
        books=history.books,
        steps=history.steps,
        complete=history.ended,
        merged=False,
        notes=tuple(notes),
        lost=tuple(sentence for s in segments for sentence in _sentences(s)),
    )


def begun_of(healed: Healed) -> Begun:
    """Where a writer goes on."""
    h = healed
    return Begun(h.segments, h.number, h.rows, h.tables, h.epoch, h.books, h.steps)


def _pay(master: Path, healed: Healed, history: History) -> None:
    """Commit the books that a cut left, in a segment of their own without rows."""
    assert history.owed is not None
    last = history.written[max(history.written)]
    begun = begun_of(healed)._replace(epoch=last.epoch)
    rolling = Rolling(sync_s=0.0)
    chain = Chain(master, healed.info, last.schema, last.provenance, rolling, begun)
    try:
        chain.commit(history.owed)
    finally:
        chain.close()


def _sentences(segment: Written) -> Iterator[str]:
    """Say which committed rows of a segment cannot be found."""
    for name, first, last in segment.lost:
        if not name:
            yield f"{segment.file} is missing: rows {first} to {last} of the run are lost"
        else:
            what = "lines" if name in TABLES else "rows"
            yield f"{segment.file} was damaged: {what} {first} to {last} of {name} are lost"


def recover_command(path: Path, end: bool = False, say: Callable[[str], object] = print) -> int:
    """Heal the run of a file, or all runs of a folder; ``end`` those that nobody will continue.

    Returns the exit status: 0 when every committed row is there.
    """
    masters = [path]
    if path.is_dir() and path.suffix == FOLDER:
        masters = [path.with_suffix(".h5")]
    elif path.is_dir():
        masters = sorted(p.with_suffix(".h5") for p in path.glob(f"*{FOLDER}"))
    if not masters:
        say(f"{path}: no run to recover: no folder named *{FOLDER} is there")
    return max((_recover(master, end, say) for master in masters), default=0)


def _recover(master: Path, end: bool, say: Callable[[str], object]) -> int:
    try:
        lease = Lease(master)
        try:
            healed = heal(master)
        finally:
            lease.release()
        if end and not healed.complete and healed.schema is not None:
            healed = healed._replace(books=_end(master, healed), complete=True)
    except NeverBegunError as e:
        say(f"{master}: {e}")
        return 0
    except (OSError, ValueError) as e:
        say(f"{master}: {e}")
        return 1
    for sentence in (*healed.notes, *healed.lost):
        say(f"{master}: {sentence}")
    n = len(healed.segments)
    files = f"{n} file{'s' * (n != 1)}"
    if healed.merged:
        files, state = "one plain file", "complete"
    elif healed.complete:
        state = f"ended: {healed.books.ended}"
    else:
        state = "may be continued, or ended with --end"
    say(f"{master}: {healed.rows:,} rows in {files}, {state}")
    return 1 if healed.lost else 0


def _end(master: Path, healed: Healed) -> Counts:
    """Close the books of a run that nobody continues: what was in flight is lost."""
    from ffb.writers.small_data import SmallData  # which heals before it writes

    assert healed.schema is not None
    sink, ledger, books = SmallData(master.parent, master.name), Ledger(), healed.books
    sink.begin_run(healed.info, healed.schema, healed.provenance)
    ledger.resume(books)
    ledger.settle()
    more = {"epoch": books.epoch, "not_seen": books.not_seen, "state": books.state}
    ended = ledger.counts(books.commit + 1, books.late, books.duplicates, RECOVERED, **more)
    sink.end_run(ended)
    return ended
