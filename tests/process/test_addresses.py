"""Addresses and names that cannot be are explained."""

from pathlib import Path

import pytest

from ffb.transport import Hub, Link


@pytest.mark.parametrize("address", ["ipc://", "ipc://" + "x" * 120, "inproc://x", "udp://h:1", ""])
def test_an_address_that_cannot_be_is_explained(address: str) -> None:
    with pytest.raises(OSError, match="cannot listen at"):
        Hub(address)


def test_a_taken_port_is_explained() -> None:
    hub = Hub("tcp://127.0.0.1:*")
    with pytest.raises(OSError, match=r"cannot listen at tcp://127.0.0.1:\d+: Address already"):
        Hub(hub.address)
    hub.close()


@pytest.mark.parametrize("name", ["", "a/b", "ä", "x" * 65, "a b"])
def test_a_producer_needs_a_plain_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="letters, digits"):
        Link(f"ipc://{tmp_path}/rows", name)
