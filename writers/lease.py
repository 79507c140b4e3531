"""The right to write a file, held by one process of one machine at a time."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path


class Lease:
    """An ``flock`` on ``<path>.lock``; the kernel gives it back when its process dies.

    Raises ``BlockingIOError`` naming the holder when another process has it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(path.name + ".lock")
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
        os.pwrite(fd, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        self._fd = fd

    @staticmethod
    def _take(fd: int, path: Path) -> None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            holder = os.pread(fd, 200, 0).decode(errors="replace") or "another process"
            raise BlockingIOError(
                e.errno,
                f"{path} is being written by {holder}: two writers would destroy it;"
                " stop that one first",
            ) from e

    def release(self) -> None:
        """Give it back."""
        self.path.unlink(missing_ok=True)
        os.close(self._fd)
