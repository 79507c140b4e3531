"""What the tests of processes share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.services import Start, starter


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start ``ffb`` commands with sockets in ``tmp_path``."""
    with starter(tmp_path) as go:
        yield go
