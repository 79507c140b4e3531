"""Addresses: where we may listen, who listens already, and the keys that let others in."""

from __future__ import annotations

import fcntl
import ipaddress
import os
import stat
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

#: Longest path of a Unix socket.
MAX_IPC = 107


class Claim:
    """The sole right to listen at an address, until closed."""

    def __init__(self, file: IO[str] | None = None) -> None:
        self._file = file

    def close(self) -> None:
        """Give the right back."""
        if self._file is not None:
            self._file.close()


def claim(address: str, key: Path | None = None) -> Claim:
    """Take the right to listen at ``address``.

    A second bind on an ipc path succeeds and silently steals it from the first, therefore a lock
    file beside it; its directory is made with mode 0700. Raises ``OSError`` with a sentence when
    another process has the right, or when others could reach us without a key.
    """
    _check_reach(address, key, "listen at")
    if not address.startswith("ipc://"):
        return Claim()
    path = Path(address.removeprefix("ipc://"))
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = path.with_name(path.name + ".lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
        file.seek(0)
        owner = file.read().strip() or "unknown"
        file.close()
        raise OSError(
            f"{address} is taken by process {owner}: stop it, or use another address"
        ) from e
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return Claim(file)


def check_connect(address: str, key: Path | None = None) -> None:
    """Refuse to speak in clear text to another host: raises ``OSError`` with a sentence."""
    _check_reach(address, key, "connect to")


def load_key(file: Path, *, secret: bool) -> tuple[bytes, bytes]:
    """Public and secret CURVE key in ``file``, as ``zmq.auth.create_certificates`` writes them.

    Who holds the aggregator's public key may connect to it, so both files are for their owner.
    Raises ``OSError`` with a sentence when there is no such key or anybody may read it.
    """
    if stat.S_IMODE(file.stat().st_mode) & 0o077:
        raise PermissionError(f"{file}: others may read this key; chmod 600 it")
    keys = {"public-key": b"", "secret-key": b""}
    for line in file.read_text().splitlines():
        name, _, value = line.partition("=")
        if name.strip() in keys:
            keys[name.strip()] = value.strip().strip('"').encode()
    if len(keys["public-key"]) != 40 or (secret and len(keys["secret-key"]) != 40):
        raise OSError(f"{file}: holds no {'secret' if secret else 'public'} CURVE key")
    return keys["public-key"], keys["secret-key"]


def _check_reach(address: str, key: Path | None, verb: str) -> None:
    scheme, _, rest = address.partition("://")
    if scheme == "ipc":
        if not rest or len(os.fsencode(rest)) > MAX_IPC:
            raise OSError(f"cannot {verb} {address}: a path of 1 to {MAX_IPC} bytes is needed")
        return
    if scheme != "tcp":
        raise OSError(f"cannot {verb} {address}: an address is ipc://PATH or tcp://HOST:PORT")
    host = urlsplit(address.replace("*", "0", 1) if rest.startswith("*") else address).hostname
    if key is None and not _loopback(host or ""):
        raise OSError(
            f"cannot {verb} {address} without a key: other hosts can reach it; configure CURVE"
            " keys, or use ipc:// or tcp://127.0.0.1:PORT"
        )


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
