"""The service as a person starts it: `ffb run` and `ffb demo`, kills included."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise

import numpy as np
import psutil
import pytest

import ffb
from ffb.live import snapshots
from ffb.live.verify import verify

SHOTS, RATE = 600, 150

TOML = f"""
[source]
kind = "synthetic"
exp = "tstx00001"
shots = {SHOTS}
steps = 4
rate = {RATE}.0
missing = {{ area = 0.1 }}

[inputs]
image = {{ detector = "area", field = "raw" }}
energy = {{ detector = "gasdet", field = "energy", record = true }}

[calibration]
area = "none"

[reducers.spot]
use = "roi"
inputs = "image"
params = {{ rows = [5, 40], cols = [5, 60] }}

[aggregate]
horizon_ms = 60000

[run]
producers = 2
"""


@pytest.fixture
def start(tmp_path):
    """Start an ``ffb`` command; whatever is left of it is killed in the end."""
    started = []

    def launch(*words):
        env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
        command = [sys.executable, "-m", "ffb.cli", *map(str, words)]
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield launch
    for process in started:
        left = (
            psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        )
        for p in [process, *left]:
            p.kill()
        process.communicate()


def wait_for(process, happened, seconds=120):
    end = time.monotonic() + seconds
    while not (value := happened()):
        assert time.monotonic() < end
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)  # polls for an event; how long it takes is not asserted
    return value


def committed(path):
    if not path.exists():
        return 0
    with ffb.open(path) as run:
        return run.committed


def child(process, word):
    with contextlib.suppress(psutil.NoSuchProcess):
        for c in psutil.Process(process.pid).children():
            if c.status() != psutil.STATUS_ZOMBIE and word in c.cmdline():
                return c
    return None


def test_a_run_survives_the_death_of_its_aggregator_and_every_row_is_there_once(tmp_path, start):
    (tmp_path / "exp.toml").write_text(TOML)
    path = tmp_path / "hdf5" / "smalldata" / "tstx00001_Run0001.h5"
    process = start("run", tmp_path / "exp.toml", "--no-page")
    for rows in (50, 250):
        wait_for(process, lambda rows=rows: committed(path) > rows)
        child(process, "aggregate").kill()
        wait_for(process, lambda: child(process, "aggregate"))
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    lines = said.splitlines()
    assert all(a != b for a, b in pairwise(lines)), "a log need not hear the same twice"
    with ffb.open(path) as run:
        assert run.complete
        assert (run.counts.read, run.counts.written) == (SHOTS, SHOTS)
        assert sum(run.counts.lost.values()) == 0
        pulses = run["pulse_id"][:]
        assert np.unique(pulses).size == SHOTS
        present = run["spot/present"][:]
        assert 0 < (~present).sum() < SHOTS // 3
        assert np.isfinite(run["spot/sum"][:][present]).all()
        assert np.isnan(run["spot/sum"][:][~present]).all()
    assert list(path.parent.glob("*.h5")) == [path]
    verdicts = [verify(path, commit=k.commit) for k in snapshots.read(snapshots.beside(path))]
    assert all(v.good for v in verdicts), verdicts
    assert verdicts[-1].span == (0, SHOTS)


def test_a_configuration_that_cannot_work_ends_the_service_at_once(tmp_path, start, capfd):
    off = TOML.replace("cols = [5, 60]", "cols = [5, 6000]")
    (tmp_path / "exp.toml").write_text(off)
    process = start("run", tmp_path / "exp.toml", "--no-page")
    process.communicate(timeout=120)
    assert process.returncode == 1
    assert "is off the detector" in capfd.readouterr().err
    assert not list(tmp_path.rglob("*.h5"))


@pytest.mark.psana
def test_a_service_whose_supervisor_is_killed_drains_closes_and_goes(tmp_path, start):
    process = start("demo", "--seconds", 60, "--rate", 20, "--no-page", "--out", tmp_path)
    path = tmp_path / "hdf5" / "smalldata" / "mfxx49820_Run0007.h5"
    wait_for(process, lambda: committed(path) > 20)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    assert not psutil.wait_procs(children, timeout=60)[1]
    with ffb.open(path) as run:
        assert run.complete
        assert run.counts.read == run.counts.written == run.committed > 20


@pytest.mark.psana
def test_the_demo_accounts_for_every_shot(tmp_path, start):
    process = start("demo", "--seconds", 3, "--rate", 40, "--no-page", "--out", tmp_path)
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert "read = written + lost: 120 = 120 + 0; the books balance" in said
    (path,) = (tmp_path / "hdf5" / "smalldata").glob("*.h5")
    with ffb.open(path) as run:
        assert run.committed == 120
        assert set(np.unique(run["step"][:])) == set(range(15))
    assert not (tmp_path / "run.xtc2").exists()


@pytest.mark.psana
def test_ctrl_c_leaves_a_readable_file_and_nothing_else(tmp_path, start):
    process = start("demo", "--seconds", 60, "--rate", 20, "--no-page", "--out", tmp_path)
    path = tmp_path / "hdf5" / "smalldata" / "mfxx49820_Run0007.h5"
    wait_for(process, lambda: committed(path) > 20)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "the books balance" in said
    assert not [c for c in children if c.is_running()]
    with ffb.open(path) as run:
        assert run.complete
        assert run.committed == run.counts.written > 20
