"""Emulated power failures: what a disk may hold of the files that a writer was writing.

Model, pessimistic but legal: what was synced is there. Of every file not synced since, each page
of 4 KiB, or even each sector of 512 bytes, is there in any of its versions since then, and the
length is any since then. Of every folder not synced since, the first so many changes of names are
there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

SECTOR = 512
PAGE = 8  # sectors


@dataclass
class Kept:
    """A file under whatever names: by moment its length, by sector its versions, and its syncs."""

    fd: int  # kept open, so that its inode is given to no other file
    now: bytes = b""
    lengths: list[tuple[int, int]] = field(default_factory=lambda: [(-1, 0)])
    sectors: dict[int, list[tuple[int, bytes]]] = field(default_factory=dict)
    synced: list[int] = field(default_factory=lambda: [-1])

    def look(self, moment: int) -> None:
        data = os.pread(self.fd, os.fstat(self.fd).st_size, 0)
        if data == self.now:
            return
        self.lengths.append((moment, len(data)))
        size = -(-max(len(data), len(self.now)) // SECTOR) * SECTOR
        before, after = (
            np.frombuffer(d.ljust(size, b"\0"), np.uint8).reshape(-1, SECTOR)
            for d in (self.now, data)
        )
        for i in np.flatnonzero((before != after).any(axis=1)).tolist():
            self.sectors.setdefault(i, [(-1, bytes(SECTOR))]).append((moment, after[i].tobytes()))
        self.now = data

    def image(self, cut: int, keep: float, unit: int, rng: np.random.Generator) -> bytes:
        """What may be on the disk when power fails after moment ``cut``."""
        since = max(m for m in self.synced if m <= cut)
        size = choose(self.lengths, since, cut, keep, rng)
        out = bytearray(-(-size // SECTOR) * SECTOR)
        for block in sorted({i // unit for i in self.sectors}):
            mine = [i for i in range(block * unit, block * unit + unit) if i in self.sectors]
            moments = sorted({(m, m) for i in mine for m, _ in self.sectors[i]})
            moment = choose(moments, since, cut, keep, rng)
            for i in mine:
                if i * SECTOR < size:
                    data = [d for m, d in self.sectors[i] if m <= moment][-1]
                    out[i * SECTOR : (i + 1) * SECTOR] = data
        return bytes(out[:size])


def choose(
    versions: list[tuple[int, Any]], since: int, cut: int, keep: float, rng: np.random.Generator
) -> Any:
    """The version synced at moment ``since``, or with probability ``keep`` a later one."""
    first = max(i for i, (m, _) in enumerate(versions) if m <= since)
    last = max(i for i, (m, _) in enumerate(versions) if m <= cut)
    if last > first and rng.random() < keep:
        first = last if rng.random() < 0.7 else int(rng.integers(first + 1, last + 1))
    return versions[first][1]


class Recording:
    """All that becomes of the files below ``root`` while :meth:`on` is in force."""

    def __init__(self, root: Path, seed: int = 0, often: float = 0.02) -> None:
        self.root, self.moment, self.often = root, -1, often
        self.files: dict[int, Kept] = {}
        self.names: dict[Path, list[tuple[int, dict[str, int]]]] = {Path(): [(-1, {})]}
        self.named: dict[Path, list[int]] = {Path(): [-1]}
        self.said: list[tuple[int, Any]] = []
        self.risky: list[int] = []  # right before a sync
        self._rng = np.random.default_rng(seed)

    def say(self, what: Any) -> None:
        """Note what somebody relies on from now on."""
        self.look()
        self.said.append((self.moment, what))

    def look(self) -> None:
        """Take a moment: everything as it is."""
        self.moment += 1
        for folder in [self.root, *(p for p in self.root.rglob("*") if p.is_dir())]:
            entries = {}
            for path in folder.iterdir():
                if path.suffix == ".lock":
                    continue
                entries[path.name] = path.stat().st_ino
                if path.is_file() and path.stat().st_ino not in self.files:
                    self.files[path.stat().st_ino] = Kept(os.open(path, os.O_RDONLY))
            where = folder.relative_to(self.root)
            versions = self.names.setdefault(where, [(-1, {})])
            if versions[-1][1] != entries:
                versions.append((self.moment, entries))
            self.named.setdefault(where, [-1])
        for file in self.files.values():
            file.look(self.moment)

    def _synced(self, fd: int) -> None:
        self.look()
        path = Path(os.readlink(f"/proc/self/fd/{fd}"))
        if path.is_dir() and path.is_relative_to(self.root):
            self.named[path.relative_to(self.root)].append(self.moment)
        elif (inode := os.fstat(fd).st_ino) in self.files:
            self.files[inode].synced.append(self.moment)

    @contextmanager
    def on(self) -> Iterator[None]:
        """Record every sync, and now and then a moment between any two lines of the writer."""
        real = {name: getattr(os, name) for name in ("fsync", "fdatasync")}

        def trace(frame: FrameType, event: str, _: object) -> Any:
            if "/writers/" not in frame.f_code.co_filename:
                return None
            if event == "line" and self._rng.random() < self.often:
                self.look()
            return trace

        def patched(name: str) -> Any:
            def sync(file: Any) -> None:
                self.look()  # the last moment at which anything may be missing
                self.risky.append(self.moment)
                real[name](file)
                self._synced(file if isinstance(file, int) else file.fileno())

            return sync

        before = sys.gettrace()
        try:
            for name in real:
                setattr(os, name, patched(name))
            sys.settrace(trace)
            yield
        finally:
            sys.settrace(before)
            for name, function in real.items():
                setattr(os, name, function)
            self.look()

    def image(self, cut: int, target: Path, rng: np.random.Generator) -> list[Any]:
        """Write to ``target`` what a power failure after moment ``cut`` may leave.

        Returns what had been said by then.
        """
        how = (float(rng.choice([0.0, 0.3, 0.7, 0.95, 1.0])), int(rng.choice([1, PAGE])), rng)
        self._folder(Path(), cut, how, target, {})
        return [what for moment, what in self.said if moment <= cut]

    def safe(self, name: Path, cut: int) -> list[Any]:
        """What had been said by ``cut`` of which a sync of the file ``name`` came before it."""
        versions = reversed(self.names[name.parent])
        inode = next(entries[name.name] for _, entries in versions if name.name in entries)
        synced = [m for m in self.files[inode].synced if m <= cut]
        before, last = -1, 0
        for i, (moment, _) in enumerate(self.said):
            last = i + 1 if any(before < m <= moment for m in synced) else last
            before = moment
        return [what for _, what in self.said[:last]]

    def _folder(
        self,
        where: Path,
        cut: int,
        how: tuple[float, int, np.random.Generator],
        target: Path,
        made: dict[int, Path],
    ) -> None:
        target.mkdir()
        since = max(m for m in self.named[where] if m <= cut)
        for name, inode in choose(self.names[where], since, cut, how[0], how[2]).items():
            if where / name in self.names:
                self._folder(where / name, cut, how, target / name, made)
            elif inode in made:
                os.link(made[inode], target / name)
            else:
                (target / name).write_bytes(self.files[inode].image(cut, *how))
                made[inode] = target / name

    def close(self) -> None:
        for file in self.files.values():
            os.close(file.fd)
        self.files.clear()
