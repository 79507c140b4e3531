"""``ffb.open``: small data of whoever wrote it."""

from __future__ import annotations

import os
from pathlib import Path

from ffb import reader
from ffb.reading.foreign import ForeignFile
from ffb.reading.segments import NotOursError

__all__ = ["open"]


def open(path: str | os.PathLike[str], *, wait: float = 0.0) -> reader.RunFile | ForeignFile:
    """Open a small-data file, growing or finished, of ffb or of smalldata_tools.

    Both are indexed, cut and made tables of alike, see :class:`ffb.reading.shots.Shots`; ours knows
    its books, steps and epochs as well, see :class:`ffb.reader.RunFile`. ``wait`` is how long [s]
    to wait for a file that is not there yet. Raises ``FileNotFoundError`` when it does not come,
    ``OSError`` when it cannot be read, and ``ValueError`` when it holds no shots.
    """
    try:
        return reader.open(path, wait=wait)
    except NotOursError:
        return ForeignFile(Path(path))
