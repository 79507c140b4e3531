"""The service as a person starts it: `ffb run` and `ffb demo`, kills included."""

from itertools import pairwise

import numpy as np
import psutil
import pytest

import ffb
from ffb.live import snapshots
from ffb.live.verify import verify
from tests.process.services import (
    DEADLINE_S,
    assert_whole,
    child,
    committed,
    ends,
    path_in,
    stopped,
    wait_for,
)

#: A stream that lasts as long as a test, however slow the machine is.
TOML = """
[source]
kind = "synthetic"
exp = "tstx00001"
shots = 100_000
steps = 400
rate = 150.0
missing = { area = 0.1 }

[inputs]
image = { detector = "area", field = "raw" }
energy = { detector = "gasdet", field = "energy", record = true }

[calibration]
area = "none"

[reducers.spot]
use = "roi"
inputs = "image"
params = { rows = [5, 40], cols = [5, 60] }

[aggregate]
horizon_ms = 600000

[run]
producers = 2
"""


def test_a_run_survives_the_death_of_its_aggregator_and_every_row_is_there_once(tmp_path, start):
    (tmp_path / "exp.toml").write_text(TOML)
    path = path_in(tmp_path)
    process = start("run", tmp_path / "exp.toml", "--no-page")
    rows = 0
    for _ in range(2):
        wait_for(lambda before=rows: committed(path) > before + 50, process)
        child(process, "aggregate").kill()
        rows = committed(path)
        wait_for(lambda: child(process, "aggregate"), process)
    wait_for(lambda: committed(path) > rows + 50, process)
    lines = stopped(process).splitlines()
    assert all(a != b for a, b in pairwise(lines)), "a log need not hear the same twice"
    with ffb.open(path) as run:
        assert_whole(run)
        rows, present = run.committed, run["spot/present"][:]
        assert 0 < (~present).sum() < rows // 3
        assert np.isfinite(run["spot/sum"][:][present]).all()
        assert np.isnan(run["spot/sum"][:][~present]).all()
    assert list(path.parent.glob("*.h5")) == [path]
    verdicts = [verify(path, commit=k.commit) for k in snapshots.read(snapshots.beside(path))]
    assert all(v.good for v in verdicts), verdicts
    assert verdicts[-1].span == (0, rows)


def test_a_configuration_that_cannot_work_ends_the_service_at_once(tmp_path, start):
    off = TOML.replace("cols = [5, 60]", "cols = [5, 6000]")
    (tmp_path / "exp.toml").write_text(off)
    process = start("run", tmp_path / "exp.toml", "--no-page")
    said = ends(process)
    assert process.returncode == 1
    assert "is off the detector" in said
    assert not list(tmp_path.rglob("*.h5"))


@pytest.mark.psana
def test_a_service_whose_supervisor_is_killed_drains_closes_and_goes(tmp_path, start):
    process = start("demo", "--seconds", 15, "--rate", 20, "--no-page", "--out", tmp_path)
    path = tmp_path / "hdf5" / "smalldata" / "mfxx49820_Run0007.h5"
    wait_for(lambda: committed(path) > 20, process)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    assert not psutil.wait_procs(children, timeout=DEADLINE_S)[1]
    with ffb.open(path) as run:
        assert run.complete
        assert run.counts.read == run.counts.written == run.committed > 20


@pytest.mark.psana
def test_the_demo_accounts_for_every_shot(tmp_path, start):
    process = start("demo", "--seconds", 3, "--rate", 40, "--no-page", "--out", tmp_path)
    said = ends(process)
    assert process.returncode == 0, said
    assert "read = written + lost: 120 = 120 + 0; the books balance" in said
    (path,) = (tmp_path / "hdf5" / "smalldata").glob("*.h5")
    with ffb.open(path) as run:
        assert run.committed == 120
        assert set(np.unique(run["step"][:])) == set(range(15))
    assert not (tmp_path / "run.xtc2").exists()


@pytest.mark.psana
def test_ctrl_c_leaves_a_readable_file_and_nothing_else(tmp_path, start):
    process = start("demo", "--seconds", 15, "--rate", 20, "--no-page", "--out", tmp_path)
    path = tmp_path / "hdf5" / "smalldata" / "mfxx49820_Run0007.h5"
    wait_for(lambda: committed(path) > 20, process)
    children = psutil.Process(process.pid).children(recursive=True)
    said = stopped(process)
    assert "the books balance" in said
    assert not [c for c in children if c.is_running()]
    with ffb.open(path) as run:
        assert run.complete
        assert run.committed == run.counts.written > 20
