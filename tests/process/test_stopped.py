"""Real processes that are stopped, doubled or fed nonsense: the others go on, rows survive."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ffb
from ffb import cli
from ffb.reading.contents import FOLDER
from ffb.testing.fabricate import write_run
from ffb.testing.truth import RunSpec
from tests.process.services import (
    DEADLINE_S,
    assert_whole,
    child,
    committed,
    ends,
    frozen,
    path_in,
    stopped,
    wait_for,
)

#: As many as come while a test goes on, however slow the machine is.
ENDLESS = 200_000

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
horizon_ms = 600000

[transport]
aggregator = "ipc://{folder}/a"
views = "ipc://{folder}/v"
window_mb = 0.01

[run]
producers = 2
dashboard = false
"""


@pytest.fixture
def configured(tmp_path) -> Callable[..., Path]:
    def write(**changes: float) -> Path:
        given = {"shots": ENDLESS, "rate": 400.0, "backwards": 0.0, "repeated": 0.0} | changes
        (tmp_path / "exp.toml").write_text(TOML.format(folder=tmp_path, **given))
        return tmp_path / "exp.toml"

    return write


def test_an_aggregator_that_stands_still_costs_files_nothing(tmp_path, configured, start):
    process, path = start("run", configured(), "--no-page"), path_in(tmp_path)
    wait_for(lambda: committed(path) > 100, process)
    with frozen(child(process, "aggregate")):
        before = committed(path)
        time.sleep(3)  # longer than a heartbeat: connections are lost, windows fill
        assert committed(path) == before
    wait_for(lambda: committed(path) > before + 400, process)  # more than windows hold
    stopped(process)
    with ffb.open(path) as run:
        assert_whole(run)


@pytest.mark.psana
def test_an_aggregator_that_stands_still_makes_a_live_stream_shed_by_name(
    tmp_path, start, shmem_server, tag
):
    spec = RunSpec(steps=1, shots_per_step=200, groups=("timing", "waveforms"))
    file = tmp_path / "live.toml"
    file.write_text(
        f"""
        [source]
        kind = "psana"
        exp = "{spec.exp}"
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
    path = tmp_path / "hdf5" / "smalldata" / f"{spec.exp}_Run{spec.run:04d}.h5"
    server = shmem_server(write_run(tmp_path / "run.xtc2", spec), "--rate", 40)
    process = start("run", file, "--no-page", "--once")
    wait_for(lambda: committed(path) > 5, process)
    with frozen(child(process, "aggregate")):  # the stream goes on, into a window of a few batches
        assert server.wait(DEADLINE_S) == 0
    said = ends(process)
    assert process.returncode == 0, said
    with ffb.open(path) as run:
        counts = run.counts
        stamps = run["timestamp"][:]
    shed = sum(counts.lost.values())
    assert counts.read == spec.shots == counts.written + shed
    assert set(counts.lost) <= {"backpressure"}
    assert shed > 0
    assert np.unique(stamps).size == stamps.size == counts.written


def test_who_comes_second_is_refused_with_a_sentence_and_the_first_go_on(
    tmp_path, configured, start
):
    file, path = configured(), path_in(tmp_path)
    first = start("run", file, "--no-page", "--once")
    wait_for(lambda: committed(path) > 50, first)
    aggregator = start("aggregate", file)
    producer = start("reduce", file, "--index", 0, "--of", 2, "--once")
    for second, sentence in ((aggregator, "taken by process"), (producer, "'?p0'?.* at work")):
        said = ends(second)
        assert second.returncode in {1, 2}
        assert re.search(sentence, said), said
        assert "Traceback" not in said
    before = committed(path)
    wait_for(lambda: committed(path) > before, first)
    stopped(first)
    with ffb.open(path) as run:
        assert_whole(run)


#: `ffb`, in which every run is merged in a process of its own, which takes for ever.
FOR_EVER = """
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
    (tmp_path / "endless.py").write_text(FOR_EVER)
    path = path_in(tmp_path)
    process = start("run", configured(shots=40, rate=0.0), "--no-page", of=tmp_path / "endless.py")
    assert any("Ctrl-C leaves that for later" in line for line in process.stdout)
    said = stopped(process)
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
    shots = 1200
    process = start(
        "run",
        configured(shots=shots, rate=0.0, backwards=0.1, repeated=0.1),
        "--no-page",
        "--once",
    )
    said = ends(process)
    assert process.returncode == 0, said
    with ffb.open(path_in(tmp_path)) as run:
        counts, stamps, pulses = run.counts, run["timestamp"][:], run["pulse_id"][:]
    assert counts.read == counts.written == stamps.size == shots
    assert np.unique(pulses).size == shots
    assert np.unique(stamps).size < shots
    assert (np.diff(stamps.astype(np.int64)) >= 0).all(), "the finished file is in order"
