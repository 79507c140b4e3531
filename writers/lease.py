"""The right to write a file, held by one process at a time."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import socket
from pathlib import Path

log = logging.getLogger(__name__)

#: What a file system says that has no locks.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


class Lease:
    """An ``flock`` on ``<path>.lock``; the kernel gives it back when its process dies.

    Where the file system has no locks, the file ``<path>.owner`` stands for it: whoever could
    create it has the lease. One that a dead process of this machine left is taken over. Raises
    ``BlockingIOError`` naming the holder when another process has it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(f"{path.name}.lock")
        self._owner: Path | None = None
        while True:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o664)
            try:
                self._take(fd, path)
                # The holder before us may have removed the file while we waited for it.
                if self.path.exists() and os.fstat(fd).st_ino == self.path.stat().st_ino:
                    break
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
        os.ftruncate(fd, 0)
        os.pwrite(fd, _me().encode(), 0)
        self._fd = fd

    def _take(self, fd: int, path: Path) -> None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise _held(path, os.pread(fd, 200, 0).decode(errors="replace"), "") from e
        except OSError as e:
            if e.errno not in _NO_LOCKS:
                raise
            if self._owner is None:
                self._own(path)
                log.warning("file=%s no locks here (%s): %s stands for one", path, e, self._owner)

    def _own(self, path: Path) -> None:
        owner = path.with_name(f"{path.name}.owner")
        while True:
            try:
                fd = os.open(owner, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o664)
            except FileExistsError:
                holder = owner.read_text(errors="replace")
                if not _is_gone(holder):
                    hint = f"; if it is gone for good, remove {owner}"
                    raise _held(path, holder, hint) from None
                owner.unlink(missing_ok=True)
                continue
            os.write(fd, _me().encode())
            os.close(fd)
            self._owner = owner
            return

    def release(self) -> None:
        """Give it back."""
        if self._owner is not None:
            self._owner.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)
        os.close(self._fd)


def _me() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _is_gone(holder: str) -> bool:
    """Whether the process named is certainly dead: one of this machine that is not there."""
    told = re.fullmatch(r"process (\d+) on (.+)", holder)
    if told is None or told[2] != socket.gethostname():
        return False
    try:
        os.kill(int(told[1]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _held(path: Path, holder: str, hint: str) -> BlockingIOError:
    return BlockingIOError(
        errno.EAGAIN,
        f"{path} is being written by {holder or 'another process'}: two writers would destroy it;"
        f" stop that one first{hint}",
    )
