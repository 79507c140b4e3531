"""Where processes meet, and who may not come in."""

import os
import stat
from pathlib import Path

import pytest

from ffb.config import load
from ffb.messaging import endpoints
from tests.unit.problems_of import SYNTHETIC


@pytest.fixture
def runtime(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(endpoints, "FALLBACK", tmp_path / "fallback")
    return tmp_path


def test_sockets_lie_in_a_folder_of_ones_own(write, runtime):
    path = write(SYNTHETIC)
    here = load(path).endpoints()
    assert here == load(path).endpoints()
    for address in here:
        folder = Path(address.removeprefix("ipc://")).parent
        assert folder.is_relative_to(runtime / "ffb")
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
        assert len(address.removeprefix("ipc://")) <= endpoints.IPC_LENGTH
    assert len(set(here)) == 2
    other = load(write(SYNTHETIC, "other.toml")).endpoints()
    assert not set(here) & set(other)


def test_named_endpoints_stay_as_they_are(write, runtime):
    text = SYNTHETIC + '[transport]\naggregator = "tcp://127.0.0.1:5555"\n'
    here = load(write(text)).endpoints()
    assert here.aggregator == "tcp://127.0.0.1:5555"
    assert here.views.startswith(f"ipc://{runtime}/ffb/")
    both = load(write(text + 'views = "tcp://127.0.0.1:5556"\n'))
    assert both.endpoints() == ("tcp://127.0.0.1:5555", "tcp://127.0.0.1:5556")


def test_a_runtime_folder_too_deep_for_a_socket_is_not_used(runtime, monkeypatch):
    deep = runtime / ("x" * 100)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    assert endpoints.private_folder("tstx00001", "f").is_relative_to(runtime / "fallback")


def _open_to_the_group(folder):
    folder.chmod(0o750)


def _replace_by_a_link(folder):
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to(folder.with_name("elsewhere"))


@pytest.mark.parametrize("spoil", [_open_to_the_group, _replace_by_a_link])
def test_a_folder_that_is_not_ones_own_is_refused(runtime, spoil):
    (runtime / "ffb").mkdir(mode=0o700)
    spoil(runtime / "ffb")
    with pytest.raises(PermissionError, match="is not a folder of yours alone"):
        endpoints.private_folder("tstx00001", "f")
