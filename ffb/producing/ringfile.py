"""The file of a producer's ring: held by one living process, found by the next one."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import mmap
import os
import time
from pathlib import Path

from ffb.messaging.endpoints import own_folder
from ffb.producing.ring import DATA_AT, HEAD, Left, Ring, read

log = logging.getLogger(__name__)

#: Where rings are: memory, with the life of the machine.
FOLDER = Path(f"/dev/shm/ffb-{os.getuid()}")  # noqa: S108  checked to be ours alone

#: What was left for so long [s], and nobody came for, is removed: its run is long over.
OLD_S = 7 * 86_400


class RingError(OSError):
    """There can be no ring; the text says why."""


class TakenError(OSError):
    """Another living producer has this name; the text says which."""


class RingFile:
    """The sole right to the ring of one producer, from which a ring is made or read.

    The file is named after the experiment, the producer and the aggregator's address: to each
    aggregator a producer's name means something else. It stays when its process is killed.
    """

    def __init__(self, exp: str, producer: str, address: str, folder: Path = FOLDER) -> None:
        """Take the right.

        Raises :class:`TakenError` while another living process has it, and :class:`RingError`
        where there can be no rings.
        """
        where = hashlib.blake2b(address.encode(), digest_size=6).hexdigest()
        try:
            own_folder(folder)
            _sweep(folder)
            self.path = folder / f"{exp[:16] or 'ffb'}-{producer}-{where}.ring"
            self._fd = self._lock(producer)
        except TakenError:
            raise
        except OSError as e:
            raise RingError(f"no ring in {folder}: {e.strerror or e}") from e
        os.pwrite(self._fd, os.getpid().to_bytes(8, "little"), 8 * HEAD.index("pid"))

    def _lock(self, producer: str) -> int:
        while True:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as e:
                owner = int.from_bytes(os.pread(fd, 8, 8 * HEAD.index("pid")), "little")
                os.close(fd)
                raise TakenError(
                    f"a producer named {producer!r} is already at work here (process"
                    f" {owner or 'unknown'}): give each producer its own name, or stop the other"
                    " one first"
                ) from e
            if _same(fd, self.path):
                return fd
            os.close(fd)  # it went while we came: there is a new one, or none

    def read(self) -> Left | None:
        """Give what the process before us left; ``None`` if nothing, or nothing legible."""
        size = os.fstat(self._fd).st_size
        if size <= DATA_AT:
            return None
        with mmap.mmap(self._fd, size) as memory:
            left = read(memory, size - DATA_AT)
        if left is None or left.damaged:
            log.error("%s: damaged; what cannot be read there is not delivered", self.path)
        return left

    def make(self, size: int, epoch: int) -> Ring:
        """Make a new ring for up to ``size`` bytes of messages, beside what there is.

        Raises :class:`RingError` when there is no memory for it.
        """
        new = self.path.with_suffix(".new")
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ring = Ring(fd, size, epoch)
        except OSError as e:
            os.close(fd)
            new.unlink()
            raise RingError(f"no ring in {new.parent}: {e.strerror}; free some memory there") from e
        self._made = fd
        return ring

    def install(self) -> None:
        """Let the new ring, which holds its first message, take the place of what there was."""
        self.path.with_suffix(".new").replace(self.path)
        os.close(self._fd)
        self._fd = self._made

    def close(self, *, remove: bool) -> None:
        """Give the right back; with ``remove``, or without a ring, nothing is left behind."""
        if self._fd < 0:
            return
        if remove or os.fstat(self._fd).st_size <= DATA_AT:
            self.path.unlink(missing_ok=True)
        os.close(self._fd)
        self._fd = -1


def _sweep(folder: Path) -> None:
    """Remove rings of long ago that no process holds."""
    for path in folder.glob("*.ring"):
        with contextlib.suppress(FileNotFoundError):
            if time.time_ns() - path.stat().st_mtime_ns < OLD_S * 1_000_000_000:
                continue
            with path.open("rb") as file, contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                log.warning("%s: not used for %d days; removed", path, OLD_S // 86_400)
                path.unlink()


def _same(fd: int, path: Path) -> bool:
    """Whether the open file is still the one at ``path``."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    mine = os.fstat(fd)
    return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)
