"""One writer a file, also where the file system has no locks."""

import errno
import os
import socket
import subprocess

import pytest

from ffb.writers import lease


def test_where_the_file_system_has_no_locks_a_file_stands_for_one(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lease.fcntl, "flock", refuse)
    path, owner = tmp_path / "run.h5", tmp_path / "run.h5.owner"
    first = lease.Lease(path)
    assert "no locks here" in caplog.text
    with pytest.raises(BlockingIOError, match=f"process {os.getpid()} on .* remove .*owner"):
        lease.Lease(path)
    first.release()
    assert list(tmp_path.iterdir()) == []
    dead = subprocess.Popen(["true"])
    dead.wait()
    owner.write_text(f"process {dead.pid} on {socket.gethostname()}")
    lease.Lease(path).release()
    owner.write_text("process 1 on another.machine")
    with pytest.raises(BlockingIOError, match=r"another\.machine"):
        lease.Lease(path)
