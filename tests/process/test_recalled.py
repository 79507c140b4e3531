"""An aggregator killed between the end of a run and its acknowledgements: nothing comes twice."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import ffb

SHOTS = 120

TOML = """
[source]
kind = "synthetic"
exp = "tstx00001"
shots = {shots}
rate = 1000.0
shape = [1, 16, 32]

[inputs]
energy = {{ detector = "gasdet", field = "energy", record = true }}

[batch]
shots = 8

[aggregate]
horizon_ms = 60000
end_timeout_s = 60

[transport]
aggregator = "ipc://{folder}/a"
views = "ipc://{folder}/v"

[run]
producers = 2
dashboard = false
"""

#: An aggregator that tells producers nothing, and is killed in the moment in which a run ended.
MUTE = """
import os, signal, sys
from ffb.aggregate import Aggregator
from ffb.config import load
from ffb.service.processes import aggregate
from ffb.transport import Hub

tick = Aggregator.tick

def last(self, now):
    done = tick(self, now)
    if self.closed:
        os.kill(os.getpid(), signal.SIGKILL)
    return done

Hub.ack = lambda self, *done: None
Aggregator.tick = last
aggregate(load(sys.argv[1]))
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start Python with these words; whatever is left of it is killed in the end."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    started: list[subprocess.Popen[str]] = []

    def launch(*words: object) -> subprocess.Popen[str]:
        command = [sys.executable, *map(str, words)]
        started.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield launch
    for process in started:
        process.kill()
        process.communicate()


def test_the_next_life_tells_the_producers_and_writes_no_second_file(
    tmp_path: Path, start: Start
) -> None:
    file = tmp_path / "exp.toml"
    file.write_text(TOML.format(shots=SHOTS, folder=tmp_path))
    first = start("-c", MUTE, file)
    producers = [
        start("-m", "ffb.cli", "reduce", file, "--index", k, "--of", 2, "--once") for k in range(2)
    ]
    assert first.wait(120) == -9, first.communicate()[1]
    assert [p.poll() for p in producers] == [None, None]
    second = start(
        "-m", "ffb.cli", "aggregate", file, "--once", "--set", "aggregate.end_timeout_s=4"
    )
    for process in (*producers, second):
        said = process.communicate(timeout=120)[1]
        assert process.returncode == 0, said
    assert "had been ended by an earlier process" in said
    (path,) = tmp_path.rglob("tstx*.h5")
    with ffb.open(path) as run:
        assert run.complete
        assert run.committed == run.counts.read == run.counts.written == SHOTS
        assert not sum(run.counts.lost.values())
        assert np.unique(run["timestamp"][:]).size == SHOTS
