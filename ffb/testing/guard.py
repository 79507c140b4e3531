"""Nothing in a test may ask the network for a name: names other than the loopback's are refused."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host in ("", "localhost", "localhost.localdomain", "ip6-localhost")


@contextmanager
def no_network() -> Iterator[None]:
    """Refuse to resolve any host but the loopback; raises ``socket.gaierror`` with the name.

    Only Python's own look-ups can be refused: the Kerberos library inside a real ``krtc`` asks
    the name server by itself.
    """
    resolve = socket.getaddrinfo

    def refuse(host: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name is not None and not _loopback(name):
            raise socket.gaierror(
                socket.EAI_FAIL, f"tests do not use the network: refused to look up {name!r}"
            )
        return resolve(host, *args, **kwargs)

    socket.getaddrinfo = refuse
    try:
        yield
    finally:
        socket.getaddrinfo = resolve
