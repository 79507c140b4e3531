"""Where the processes of one service meet on a machine."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import NamedTuple

#: Longest path of a Unix socket that every system takes, with room for its terminating zero.
IPC_LENGTH = 100

#: Where the folders of this user go when the system gives no runtime folder, or one too long.
FALLBACK = Path(f"/tmp/ffb-{os.getuid()}")  # noqa: S108  short; what is there is checked


class Endpoints(NamedTuple):
    """ZMQ endpoints of the aggregator and of the published snapshots."""

    aggregator: str
    views: str

    def complete(self, exp: str, file: str) -> Endpoints:
        """Fill in what is empty: sockets in a folder that is made here, for this user alone.

        The folder is named after experiment and configuration file, so that all processes of one
        service find it and two services never meet by accident. Raises ``PermissionError`` when
        somebody else prepared it.
        """
        if all(self):
            return self
        folder = private_folder(exp, file)
        return Endpoints(
            self.aggregator or f"ipc://{folder}/aggregator", self.views or f"ipc://{folder}/views"
        )


def private_folder(exp: str, file: str) -> Path:
    """Make or find the 0700 folder that holds the sockets of one service of this user."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    name = f"{exp[:16]}-{hashlib.blake2b(file.encode(), digest_size=4).hexdigest()}"
    base = Path(runtime, "ffb") if runtime and Path(runtime).is_dir() else None
    if base is None or len(str(base / name)) > IPC_LENGTH - len("/aggregator"):
        base = FALLBACK
    for folder in (base, base / name):
        own_folder(folder)
    return base / name


def own_folder(folder: Path) -> None:
    """Make or find a folder that is this user's alone; raises ``PermissionError`` otherwise."""
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    private = stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o077
    if found.st_uid != os.getuid() or not private:
        raise PermissionError(
            f"{folder} is not a folder of yours alone (mode 0700): remove it, or name"
            " endpoints in [transport]"
        )
