"""Commits that were acknowledged before they were synced, and what is left of them.

With a ``sync_s`` above 0 a power failure may leave a commit in the journal whose rows, in another
file, were never written: they would read as zeros. The journal has a check for every byte of such a
commit. Commits count up to the first whose bytes are not there; with it all later ones are cut out
of the journal, and the books that are still to be committed say that their shots are lost.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ffb.books.unseen import Unseen
from ffb.ledger import POWER, Ledger
from ffb.messaging.checksum import crc32
from ffb.sink import Counts
from ffb.writers.history import Written, plain_of, told
from ffb.writers.journal import CHECK, CHUNK, Journal, read, sync_folder

#: Suffix of the journal as it was before commits were cut out of it.
BEFORE = ".cut"

#: Where a chunk lies: of which segment and dataset it is, and its number.
_Key = tuple[int, int, int]


class Cut(NamedTuple):
    """The first commit that cannot be believed: its number, why, and its place in the journal."""

    commit: int
    why: str
    record: int


def first_missing(folder: Path) -> Cut | None:
    """The first commit whose bytes are not in its files, ``None`` where all are.

    Bytes of a file that is gone altogether are not looked for. Raises ``OSError`` when a file
    cannot be read.
    """
    journal, files = folder / "journal", _Files(folder)
    known = max((i + 1 for i, r in enumerate(read(journal)) if r.get("synced")), default=0)
    records, places = read(journal), dict[_Key, int]()
    history = told(islice(records, known))
    for segment in history.written.values():
        places |= _places(segment.number, segment.chunks.tobytes())
    suspects: list[tuple[int, int, list[tuple[_Key, int, Any]]]] = []
    for i, record in enumerate(records, known):
        history.take(record)
        if record["kind"] == "rebuilt":  # and synced
            places |= _places(int(record["segment"]), record["chunks"])
        elif record["kind"] == "commit":
            claims = []
            for part in (*record.get("filled", ()), record):
                number = int(part["segment"])
                places |= _places(number, part["chunks"])
                for dataset, *check in np.frombuffer(part.get("checks", b""), CHECK).tolist():
                    key = (number, dataset, check[0])
                    claims.append((key, places[key], check))
            suspects.append((i, int(record["commit"]), claims))
    try:
        for i, commit, claims in suspects:
            for (number, dataset, _), address, check in claims:
                segment = history.written[number]
                if not segment.closed and not files.hold(segment, address, check):
                    name = segment.datasets[dataset]
                    return Cut(commit, f"{segment.live}: {name} is not there", i)
    finally:
        files.close()
    return None


def cut(folder: Path, found: Cut) -> str:
    """Cut commits from ``found`` on out of the journal; return what was done.

    The journal as it was stays beside the new one, which is complete before it takes its place.
    """
    journal, new = folder / "journal", folder / ".journal"
    kept = told(islice(read(journal), found.record))
    was = told(read(journal))
    owed = forfeit(kept.books, was.books)
    new.unlink(missing_ok=True)
    out = Journal(new)
    try:
        for record in islice(read(journal), found.record):
            out.add(**record)
        out.add(
            "cut", number=was.number, counts=plain_of(owed), ledger=[list(e) for e in owed.ledger]
        )
        out.write()
        out.sync()
    finally:
        out.close()
    names = (folder / f"journal{BEFORE}{n}" for n in count(1))
    os.link(journal, next(path for path in names if not path.exists()))
    sync_folder(folder)
    os.replace(new, journal)
    sync_folder(folder)
    rows = was.books.written - kept.books.written
    return (
        f"commits {found.commit} to {was.books.commit} were not synced when power failed"
        f" ({found.why}): their {rows} rows are entered as lost"
    )


def forfeit(kept: Counts, told: Counts) -> Counts:
    """Books after ``kept`` that enter all shots as lost that only ``told`` has as written.

    Producers may have been told that those are safe, and will not send them again.
    """
    ledger = Ledger()
    ledger.resume(kept)
    ledger.forfeit(told, POWER)
    counts = ledger.counts(kept.commit + 1, kept.late, kept.duplicates, epoch=kept.epoch)
    unseen = Unseen(kept.state.get("unseen")).estimate(sum(counts.lost.values()))
    return replace(counts, not_seen=unseen, state=kept.state)


class _Files:
    """The files in which chunks lie where the journal says, opened when first asked."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._open = folder, dict[int, int]()

    def hold(self, segment: Written, address: int, check: Iterable[int]) -> bool:
        """Whether the bytes are there; those of a file that is gone are taken to be."""
        _, begin, end, crc = check
        if segment.number not in self._open:
            names = (f"{segment.file}.torn{segment.rebuilt}", segment.file, segment.live)
            there = [p for p in (self._folder / name for name in names) if p.exists()]
            self._open[segment.number] = os.open(there[0], os.O_RDONLY) if there else -1
        fd = self._open[segment.number]
        if fd < 0:
            return True
        data = os.pread(fd, end - begin, address + begin)
        return len(data) == end - begin and crc32(data) == crc

    def close(self) -> None:
        for fd in self._open.values():
            if fd >= 0:
                os.close(fd)


def _places(number: int, chunks: bytes) -> dict[_Key, int]:
    return {(number, d, c): at for d, c, at, *_ in np.frombuffer(chunks, CHUNK).tolist()}
