"""What may not happen: a test asks the network for a name, a run or a reference is compiled."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self
from unittest import mock

from numba.core.dispatcher import Dispatcher
from numba.core.event import Event, Listener, register, unregister


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


class Compiled(Listener):  # type: ignore[misc]
    """Names what numba compiles within it; what comes from a cache is not compiled."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def on_start(self, event: Event) -> None:
        """Note the function and the types of its arguments."""
        function = event.data["dispatcher"].py_func
        self.names.append(f"{function.__module__}.{function.__qualname__}{event.data['args']}")

    def on_end(self, event: Event) -> None:
        """Nothing more to note."""

    def __enter__(self) -> Self:
        register("numba:compile", self)
        return self

    def __exit__(self, *_: object) -> None:
        unregister("numba:compile", self)


@contextmanager
def no_compilation() -> Iterator[None]:
    """Let numba compile nothing: raises ``AssertionError`` that names what it did compile.

    A shot that has to wait for the compiler waits for seconds, and all after it.
    """
    with Compiled() as compiled:
        yield
    assert not compiled.names, f"compiled in the middle of a run: {', '.join(compiled.names)}"


@contextmanager
def uncompiled() -> Iterator[None]:
    """Let functions that numba would compile run as Python when they are called from Python."""

    def call(self: Any, *args: Any) -> Any:
        return self.py_func(*args)

    with mock.patch.object(Dispatcher, "__call__", call):
        yield
