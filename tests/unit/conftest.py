"""A place to write configurations in, beside a reducer of one's own."""

from pathlib import Path
from textwrap import dedent

import pytest

from tests.unit.problems_of import LOCAL


@pytest.fixture
def write(tmp_path):
    """Write a file beside the local reducer; returns its path."""
    (tmp_path / "mine.py").write_text(LOCAL)

    def _write(text: str, name: str = "exp.toml") -> Path:
        path = tmp_path / name
        path.write_text(dedent(text))
        return path

    return _write
