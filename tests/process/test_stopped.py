"""Real processes that are stopped, doubled or fed nonsense: the others go on, rows survive."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

import ffb
from ffb import cli
from ffb.reading.contents import FOLDER

SHOTS = 1200

TOML = """
[source]
kind = "synthetic"
exp = "tstx00001"
shots = {shots}
steps = 4
rate = {rate}
shape = [1, 16, 32]
backwards = {backwards}
repeated = {repeated}

[inputs]
energy = {{ detector = "gasdet", field = "energy", record = true }}

[batch]
shots = 8

[aggregate]
horizon_ms = 60000

[transport]
aggregator = "ipc://{folder}/a"
views = "ipc://{folder}/v"
window_mb = 0.01

[run]
producers = 2
dashboard = false
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def configured(tmp_path) -> Callable[..., Path]:
    def write(**changes: float) -> Path:
        given = {"shots": SHOTS, "rate": 400.0, "backwards": 0.0, "repeated": 0.0} | changes
        (tmp_path / "exp.toml").write_text(TOML.format(folder=tmp_path, **given))
        return tmp_path / "exp.toml"

    return write


@pytest.fixture
def start(tmp_path) -> Iterator[Start]:
    """Start an ``ffb`` command; whatever is left of it is killed in the end."""
    started: list[subprocess.Popen[str]] = []

    def launch(*words: object, of: Path | None = None) -> subprocess.Popen[str]:
        env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
        program = ["-m", "ffb.cli"] if of is None else [str(of)]
        process = subprocess.Popen(
            [sys.executable, *program, *map(str, words)],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield launch
    for process in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
        process.kill()
        process.communicate()


def path_in(folder: Path) -> Path:
    return folder / "hdf5" / "smalldata" / "tstx00001_Run0001.h5"


def committed(path: Path) -> int:
    if not path.exists():
        return 0
    with ffb.open(path) as run:
        return run.committed


def wait_for(happened: Callable[[], object], *processes: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < end
        for p in processes:
            assert p.poll() is None, p.communicate()[0]
        time.sleep(0.02)  # polls for an event; how long it takes is not asserted


def child(process: subprocess.Popen[str], word: str) -> psutil.Process:
    (found,) = (c for c in psutil.Process(process.pid).children() if word in c.cmdline())
    return found


def test_an_aggregator_that_stands_still_costs_files_nothing(tmp_path, configured, start):
    process = start("run", configured(), "--no-page")
    wait_for(lambda: committed(path_in(tmp_path)) > 100, process)
    stopped = child(process, "aggregate")
    stopped.send_signal(signal.SIGSTOP)
    before = committed(path_in(tmp_path))
    time.sleep(3)  # longer than a heartbeat: connections are lost, windows fill
    assert committed(path_in(tmp_path)) == before
    stopped.send_signal(signal.SIGCONT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    with ffb.open(path_in(tmp_path)) as run:
        assert run.complete
        assert (run.counts.read, run.counts.written) == (SHOTS, SHOTS)
        assert np.unique(run["pulse_id"][:]).size == SHOTS
        assert not any(run.counts.lost.values())


@pytest.mark.psana
def test_an_aggregator_that_stands_still_makes_a_live_stream_shed_by_name(
    tmp_path, start, shmem_server, run_file, run_spec, tag
):
    file = tmp_path / "live.toml"
    file.write_text(
        f"""
        [source]
        kind = "psana"
        exp = "{run_spec.exp}"
        shmem = "{tag}"
        [inputs]
        wave = {{ detector = "w8", field = "raw_0", record = true }}
        [batch]
        shots = 2
        [transport]
        aggregator = "ipc://{tmp_path}/a"
        views = "ipc://{tmp_path}/v"
        window_mb = 0.01
        [run]
        producers = 1
        dashboard = false
        """
    )
    path = tmp_path / "hdf5" / "smalldata" / f"{run_spec.exp}_Run{run_spec.run:04d}.h5"
    server = shmem_server(run_file, "--clients", 1, "--rate", 20, "--linger", 60)
    process = start("run", file, "--no-page", "--once")
    wait_for(lambda: committed(path) > 5, process)
    stopped = child(process, "aggregate")
    stopped.send_signal(signal.SIGSTOP)
    time.sleep(3)  # the stream goes on meanwhile, into a window of a few batches
    stopped.send_signal(signal.SIGCONT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert server.poll() is None or server.returncode == 0
    with ffb.open(path) as run:
        counts = run.counts
        stamps = run["timestamp"][:]
    shed = sum(counts.lost.values())
    assert counts.read == run_spec.shots == counts.written + shed
    assert set(counts.lost) <= {"backpressure"}
    assert shed > 0
    assert np.unique(stamps).size == stamps.size == counts.written


def test_who_comes_second_is_refused_with_a_sentence_and_the_first_go_on(
    tmp_path, configured, start
):
    file = configured(shots=40_000)  # they come while it goes on, however slow they are
    first = start("run", file, "--no-page", "--once")
    wait_for(lambda: committed(path_in(tmp_path)) > 50, first)
    aggregator = start("aggregate", file)
    producer = start("reduce", file, "--index", 0, "--of", 2, "--once")
    for second, sentence in ((aggregator, "taken by process"), (producer, "'?p0'?.* at work")):
        said, _ = second.communicate(timeout=60)
        assert second.returncode in {1, 2}
        assert re.search(sentence, said), said
        assert "Traceback" not in said
    assert first.poll() is None
    first.send_signal(signal.SIGINT)
    said, _ = first.communicate(timeout=120)
    assert first.returncode == 0, said
    with ffb.open(path_in(tmp_path)) as run:
        assert run.complete
        counts = run.counts
        assert counts.written == run.committed > 50
    stopped = sum(counts.lost.values())
    assert counts.read == counts.written + stopped
    assert set(counts.lost) <= {"stopped"}
    assert stopped <= 2, "at most the shot that each producer held while its window was full"


#: `ffb`, in which every run is merged in a process of its own, which takes for ever.
ENDLESS = """
import sys
from ffb import cli
from ffb.aggregating.merging import Merging
from ffb.service import processes

child = [sys.executable, "-c", "import time; time.sleep(600)"]
processes._merging = lambda: Merging(print, print, child, small=0)
processes.command = lambda *words: [sys.executable, __file__, *words]
sys.exit(cli.main())
"""


def test_a_stop_leaves_a_merge_for_later_ends_well_and_says_who_does_it(
    tmp_path, configured, start, capsys
):
    (tmp_path / "endless.py").write_text(ENDLESS)
    path = path_in(tmp_path)
    process = start("run", configured(shots=40, rate=0.0), "--no-page", of=tmp_path / "endless.py")
    assert any("Ctrl-C leaves that for later" in line for line in process.stdout)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert f"{path.name} is complete and can be read" in said
    assert f"the next start makes one file of it, or 'ffb merge {path}'" in said
    with ffb.open(path) as run:
        assert run.complete
        assert run.counts.read == run.counts.written == run.committed == 40
    assert path.with_suffix(FOLDER).exists()
    assert cli.main(["merge", str(path)]) == 0
    assert "40 rows in one file" in capsys.readouterr().out
    assert not path.with_suffix(FOLDER).exists()


def test_timestamps_that_go_back_and_come_twice(tmp_path, configured, start):
    file = configured(rate=0.0, backwards=0.1, repeated=0.1)
    process = start("run", file, "--no-page", "--once")
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    with ffb.open(path_in(tmp_path)) as run:
        counts, stamps, pulses = run.counts, run["timestamp"][:], run["pulse_id"][:]
    assert counts.read == counts.written == stamps.size == SHOTS
    assert np.unique(pulses).size == SHOTS
    assert np.unique(stamps).size < SHOTS
    assert (np.diff(stamps.astype(np.int64)) >= 0).all(), "the finished file is in order"
