"""Where the ranks of one launch meet: a folder beside the file that they make together.

Rank 0 makes it and holds a lock in it for as long as it lives; the others find in it the address of
the aggregator and, across machines, the key that lets them in. It is for its owner alone, so the
key stays among his ranks. What a killed rank 0 left is told from a living one by the lock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from ffb.messaging.endpoints import FALLBACK, own_folder
from ffb.messaging.sockets import make_keys
from ffb.service.ranks import Rank

#: Seconds between two looks whether rank 0 is there.
LOOK_S = 0.05

#: Seconds for which the lock may be taken by followers that look whether it is.
HELD_S = 1.0

_LOCK, _TOLD, _PUBLIC, _SECRET = "lock", "told", "public.key", "secret.key"


class Place(NamedTuple):
    """Where the aggregator listens; the keys are ``""`` on one machine."""

    address: str
    public_key: str = ""
    secret_key: str = ""


def folder_of(file: Path) -> Path:
    """The folder in which the ranks meet that make ``file``."""
    return file.with_name(f".{file.stem}.meeting")


@contextlib.contextmanager
def sockets() -> Iterator[Path]:
    """A folder for the sockets of one process, gone in the end; paths in it are short."""
    own_folder(FALLBACK)
    folder = Path(tempfile.mkdtemp(prefix="rank-", dir=FALLBACK))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def held(file: Path) -> Iterator[Path]:
    """Hold the meeting for ``file``, as its rank 0, until the end; gives the folder.

    Raises ``BlockingIOError`` where another launch makes the same file now.
    """
    folder = folder_of(file)
    folder.parent.mkdir(parents=True, exist_ok=True)
    own_folder(folder)
    fd = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(fd, file)
        try:
            (folder / _TOLD).unlink(missing_ok=True)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(fd)


def _lock(fd: int, file: Path) -> None:
    """Take the lock; a follower that looks whether it is taken has it for a moment."""
    end = time.monotonic() + HELD_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            if time.monotonic() > end:
                raise BlockingIOError(
                    errno.EAGAIN, f"another launch makes {file} now: wait for it, or stop it"
                ) from e
            time.sleep(LOOK_S)
        else:
            return


def place(folder: Path, near: Path, rank: Rank) -> Place:
    """Where the aggregator is to listen: in the folder ``near`` on one machine, else everywhere."""
    if rank.near:
        return Place(f"ipc://{near}/aggregator")
    public, secret = make_keys(folder / _PUBLIC, near / _SECRET)
    return Place("tcp://*:*", str(public), str(secret))


def invite(folder: Path, rank: Rank, listens: str) -> None:
    """Tell the other ranks where the aggregator ``listens``."""
    if listens.startswith("tcp://"):
        listens = f"tcp://{socket.gethostname()}:{listens.rpartition(':')[2]}"
    told = json.dumps({"launch": rank.launch, "of": rank.of, "address": listens})
    part = folder / f"{_TOLD}.part"
    part.write_text(told)
    part.rename(folder / _TOLD)


def meet(file: Path, rank: Rank, patience_s: float, stopped: Callable[[], bool]) -> Place:
    """Wait until rank 0 of our launch is there; tells where.

    Raises ``TimeoutError`` when it does not come within ``patience_s`` seconds.
    """
    folder, end = folder_of(file), time.monotonic() + patience_s
    while not (found := _look(folder, rank)):
        if stopped() or time.monotonic() > end:
            raise TimeoutError(
                f"rank {rank.number}: rank 0 did not come to {folder} within {patience_s:g} s: is"
                " the folder of the file the same on all machines?"
            )
        time.sleep(LOOK_S)
    return found


def _look(folder: Path, rank: Rank) -> Place | None:
    try:
        told = json.loads((folder / _TOLD).read_text())
        with (folder / _LOCK).open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                pass  # as it should be: rank 0 lives
            else:
                return None
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    if (told["launch"], told["of"]) != (rank.launch, rank.of):
        return None
    public = folder / _PUBLIC
    return Place(str(told["address"]), "" if rank.near else str(public))
