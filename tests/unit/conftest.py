"""Places to write configurations in, beside a reducer of one's own, and to import them in."""

import tomllib
from pathlib import Path
from textwrap import dedent

import pytest

from ffb import cli
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


@pytest.fixture
def imported(tmp_path, capsys):
    """Import a text; gives status, the file as data, its text, and stderr."""

    def _imported(text, *words, name="prod_config_mfx.py"):
        (tmp_path / name).write_text(text)
        status = cli.main(["import-config", str(tmp_path / name), *words])
        out, err = capsys.readouterr()
        return status, tomllib.loads(out), out, err

    return _imported
