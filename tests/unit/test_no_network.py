"""The guard that keeps tests off the network is on, and lets the loopback through."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request

import pytest


@pytest.mark.parametrize("host", ["pswww.slac.stanford.edu", "example.org", "172.24.5.240"])
def test_foreign_names_are_refused(host: str) -> None:
    with pytest.raises(socket.gaierror, match=host):
        socket.getaddrinfo(host, 80)


def test_a_client_library_meets_the_guard() -> None:
    with pytest.raises(urllib.error.URLError, match="tests do not use the network"):
        urllib.request.urlopen("http://pswww.slac.stanford.edu/calib_ws/")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", b"localhost", None])
def test_the_loopback_resolves(host: str | bytes | None) -> None:
    assert socket.getaddrinfo(host, 80)
