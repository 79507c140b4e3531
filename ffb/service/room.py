"""Room on the disk where files go: some is kept free, and people are told long before."""

from __future__ import annotations

import errno
import os
import shutil
import time
from pathlib import Path

from ffb.health import size

#: Seconds between two looks at the disk.
LOOK_S = 1.0

GB = 1_000_000_000


class Room:
    """What a process that writes files leaves free.

    Below ``reserve_gb`` gigabytes no run is begun and no rows are written; they wait, and go on
    when there is room. Below ``warn_gb`` there are :attr:`alarms`. What is kept free is for ending:
    after :meth:`spend` everything may be used.
    """

    def __init__(self, reserve_gb: float, warn_gb: float) -> None:
        self._reserve, self._warn = int(reserve_gb * GB), int(warn_gb * GB)
        self._folder: Path | None = None
        self._looked, self._alarms = 0.0, list[str]()

    def kept(self) -> int:
        """Bytes that are to stay free."""
        return self._reserve

    def spend(self) -> None:
        """Keep nothing free any more, so that what is open can be ended; safe in a handler."""
        self._reserve = 0

    def watch(self, folder: Path) -> None:
        """Look at the disk of ``folder`` from now on."""
        self._folder, self._looked = folder, 0.0

    def refuse(self, folder: Path) -> None:
        """Raise ``OSError`` where no run would be begun in ``folder``, there or not yet."""
        if why := _closed(folder):
            raise OSError(errno.EACCES, why)
        if (free := _free(folder)) < self._reserve:
            raise OSError(
                errno.ENOSPC,
                f"{folder}: {size(free)} free, {size(self._reserve)} are kept free: make room, or"
                " set writer.reserve_gb lower",
            )

    @property
    def alarms(self) -> list[str]:
        """That nothing can be written, or that there is little room, in a sentence."""
        now = time.monotonic()
        if self._folder is not None and now - self._looked > LOOK_S:
            self._looked, self._alarms = now, []
            if why := _closed(self._folder):
                self._alarms = [why]
            elif (free := _free(self._folder)) < self._warn:
                self._alarms = [
                    f"only {size(free)} free in {self._folder}; below {size(self._reserve)} no rows"
                    " are written: make room"
                ]
        return self._alarms


def _there(folder: Path) -> Path:
    """``folder``, or where it will be made; what we may not look at is as good as not there."""
    return next(p for p in (folder, *folder.absolute().parents) if os.path.exists(p))


def _closed(folder: Path) -> str:
    """Why no file can be written in ``folder``, and what to do; "" where it can."""
    there = _there(folder)
    if not there.is_dir():
        why = f"{there} is no folder"
    elif not os.access(there, os.W_OK | os.X_OK):
        why = f"we may not write in {there}"
    else:
        return ""
    return (
        f"{folder}: cannot be written, {why}: name another in writer.directory, or have it opened"
    )


def _free(folder: Path) -> int:
    """Bytes free where ``folder`` is, or will be made."""
    return shutil.disk_usage(_there(folder)).free
