"""Make one plain file of a run that has ended, of its master and file segments.

What goes in, and how, is said in :mod:`ffb.writers.plain_file`. The new file is compared with the
segments and synced before it takes the master's name, and the segments go only after that: whoever
is killed meanwhile leaves a run that reads as before, and merges again.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from ffb.reading import contents
from ffb.reading.contents import COMPLETE, GROUP, SEGMENTS
from ffb.reading.parts import open_h5
from ffb.source import RunInfo
from ffb.writers.journal import read, sync_folder
from ffb.writers.lease import Lease
from ffb.writers.master import folder_of
from ffb.writers.plain_file import Merged, PlainFile, info_of


def merge(path: str | os.PathLike[str], *, clear: bool = True) -> Merged:
    """Merge the run at ``path``; may be repeated, and killed at any moment.

    Takes the lease of the run. Without ``clear`` the segments stay until the next call: HDF5 opens
    them late for who has the master open, and shows missing values where they are gone by then.
    Raises ``ValueError`` for a run that still grows or is not ours, and ``OSError`` with a sentence
    when a segment is missing or cut off, when somebody else writes the run or when there is no
    room; the run then stays as it is.
    """
    path = Path(path)
    lease = Lease(path)
    try:
        temporary = path.with_name(f".{path.name}.merging")
        temporary.unlink(missing_ok=True)
        begun = time.monotonic()
        with _refusing(path), open_h5(path) as master:
            _check_ours(path, master)
            info = info_of(master)
            merged = Merged(path)
            if SEGMENTS in master:
                merged = PlainFile(path, temporary, master).make()
                os.replace(temporary, path)
                sync_folder(path.parent)
        if clear or not merged.bytes:
            _clear_away(path, info)
        return merged._replace(seconds=merged.bytes and time.monotonic() - begun)
    finally:
        lease.release()


def merge_command(
    path: str | os.PathLike[str], say: Callable[[str], object] = print, *, clear: bool = True
) -> int:
    """Merge and say what was done; 0 when the file at ``path`` is a plain one now."""
    try:
        done = merge(path, clear=clear)
    except (OSError, ValueError) as e:
        say(f"not merged: {_sentence(e)}")
        return 1
    if not done.seconds:
        say(f"{done.path} is one plain file already")
        return 0
    say(
        f"{done.path}: {done.rows:,} rows in one file of {done.bytes / 1e6:,.1f} MB,"
        f" {done.moved:,} rows put in order; chunks: {done.copied:,} copied as they were,"
        f" {done.anew:,} written anew; {done.bytes / 1e6 / done.seconds:,.0f} MB/s"
    )
    return 0


def _sentence(error: OSError | ValueError) -> str:
    """What an error says, without its number."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error.args[-1])
    named = f"{error.filename}: " if error.filename else ""
    return f"{named}{error.strerror if not named else error.strerror.lower()}"


def unfinished(directory: Path) -> list[Path]:
    """Runs in ``directory`` that have ended, with a folder of segments that is still there."""
    out = []
    for folder in sorted(directory.glob(f"*{contents.FOLDER}")):
        for path in sorted(directory.glob(f"{folder.stem}.*")):
            try:
                with open_h5(path) as file:
                    if COMPLETE in file and file[COMPLETE][0]:
                        out.append(path)
            except OSError:  # somebody writes it, or it is no HDF5 file
                continue
    return out


def _check_ours(path: Path, file: h5py.File) -> None:
    about = file[GROUP].attrs if GROUP in file else {}
    if "layout" not in about:
        raise ValueError(f"{path} was not written by ffb")
    if about["layout"] > contents.LAYOUT:
        raise ValueError(
            f"{path} has layout {about['layout']}, this ffb knows up to {contents.LAYOUT}:"
            " merge it with the version that wrote it"
        )
    if not file[COMPLETE][0]:
        raise ValueError(
            f"{path} still grows; if its writer is gone, 'ffb recover --end {path}' ends the run"
        )


def _clear_away(path: Path, info: RunInfo) -> None:
    """Remove the segments of the run ``info``, which ``path`` holds as one plain file."""
    folder = folder_of(path)
    if not folder.exists():
        return
    record = next(read(folder / "journal"), {}) if (folder / "journal").exists() else {}
    if (told := record.get("began", info.began)) != info.began:
        raise ValueError(f"{folder} is of a run begun at {told}, {path} of {info.began}: move one")
    shutil.rmtree(folder)
    sync_folder(folder.parent)


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Say in one sentence what HDF5 says in a page."""
    try:
        yield
    except RuntimeError as e:
        raise OSError(errno.EIO, f"{path}: not merged: {e}") from e


if __name__ == "__main__":  # in a process of its own, see ffb.aggregating.merging
    sys.exit(merge_command(sys.argv[1], sys.stdout.write, clear=False))
