"""A run from files, afterwards, in several ranks: bit for bit the columns of the live file."""

import os
import signal
import subprocess
import sys

import h5py
import numpy as np
import pytest

import ffb
from ffb.afterwards import configuration
from ffb.afterwards import make as make_file
from ffb.contents import LEDGER
from ffb.ranks import Rank
from ffb.testing.fabricate import save_constants, write_experiment, write_run
from ffb.testing.truth import RunSpec
from tests.psana.test_end_to_end import TOML, follow

pytestmark = pytest.mark.psana

#: What a launcher tells a rank: its number, and twice their count.
OPEN_MPI = ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE")

#: Inputs that come seldom, late or in steps; and what is derived from them.
MORE = """
[inputs."ebeam/photon_energy"]
detector = "ebeam"
field = "ebeamPhotonEnergy"
record = true

[inputs."epics/lxt_vitara"]
detector = "epics"
field = "lxt_vitara"
record = true

[derived.delay]
expr = "scan.lxt + tt.fltpos_ps"
unit = "ps"

[filters.good]
expr = "lightStatus.xray and not code(162)"
"""


class LateArea(RunSpec):
    """A run whose area detector is missing for the first 100 shots."""

    def has_area(self, i):
        """See :class:`RunSpec`."""
        return i >= 100 and super().has_area(i)


@pytest.fixture(scope="module")
def spec():
    return LateArea(steps=3, shots_per_step=50, corrupt=23)


@pytest.fixture(scope="module")
def files(tmp_path_factory, spec):
    return write_experiment(tmp_path_factory.mktemp("xtc"), spec)


@pytest.fixture(scope="module")
def configured(tmp_path_factory, spec):
    folder = tmp_path_factory.mktemp("config")
    save_constants(folder, spec)
    (folder / "exp.toml").write_text(TOML.read_text() + MORE)
    return folder / "exp.toml"


def launch(files, toml, out, of):
    """Start ranks as a launcher does."""
    command = [sys.executable, "-m", "ffb.cli", "reduce", "--files", "mfxx49820", "7"]
    command += ["--config", str(toml), "--dir", str(files), "-o", str(out)]
    started = []
    for k in range(of):
        env = {**os.environ, **dict(zip(OPEN_MPI, (str(k), str(of), str(of)), strict=True))}
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True))
    return started


def ends(processes):
    """Exit statuses, and what rank 0 said."""
    said = [p.communicate(timeout=120) for p in processes]
    return [p.returncode for p in processes], said[0][0], "".join(err for _, err in said)


def columns(path):
    """All that the file holds but for our own books."""
    out = {}
    with h5py.File(path) as f:
        f.visititems(
            lambda name, d: out.__setitem__(name, d[()]) if isinstance(d, h5py.Dataset) else None
        )
    return {name: v for name, v in out.items() if not name.startswith("ffb/")}


def same_bits(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert (a[name].dtype, a[name].shape) == (b[name].dtype, b[name].shape), name
        assert a[name].tobytes() == b[name].tobytes(), name


@pytest.fixture(scope="module")
def afterwards(files, configured, tmp_path_factory):
    """The file that four ranks make."""
    out = tmp_path_factory.mktemp("ranks")
    codes, said, err = ends(launch(files, configured, out, 4))
    assert codes == [0, 0, 0, 0], said + err
    return out / "mfxx49820_Run0007.h5", said


def test_live_over_shared_memory_and_from_files_in_four_ranks_are_the_same_bits(
    afterwards, configured, spec, shmem_server, tag, tmp_path
):
    stream = write_run(tmp_path / "run.xtc2", spec)
    command = [sys.executable, "-m", "ffb.cli", "run", str(configured), "--no-page"]
    command += ["--set", f"source.shmem={tag}", "--set", f"writer.scratch={tmp_path}"]
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    live = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    try:
        shmem_server(stream, "--clients", 2, "--rate", 100, "--linger", 60)
        path = tmp_path / "hdf5" / "smalldata" / "mfxx49820_Run0007.h5"
        follow(path, spec.shots, lambda f, n: None, live)
        live.send_signal(signal.SIGINT)
        said, _ = live.communicate(timeout=60)
        assert live.returncode == 0, said
    finally:
        live.kill()
        live.communicate()
    with ffb.open(path) as run, ffb.open(afterwards[0]) as again:
        assert sorted(p["producer"] for p in run.counts.producers.values()) == ["p0", "p1"]
        assert sorted(p["producer"] for p in again.counts.producers.values()) == [
            "p0",
            "p1",
            "p2",
            "p3",
        ]
        assert (run.counts.read, run.counts.lost) == (again.counts.read, again.counts.lost)
    same_bits(columns(path), columns(afterwards[0]))


def test_what_is_missing_at_first_or_damaged_is_absent_and_nothing_else(afterwards, spec):
    with ffb.open(afterwards[0]) as run:
        there = np.array([spec.has_area(i) for i in range(spec.shots)])
        assert not there[:100].any()
        assert there[100:].any()
        assert not there[100:].all()
        np.testing.assert_array_equal(run["spot/present"][:], there)
        np.testing.assert_array_equal(np.isfinite(run["spot/sum"][:]), there)
        gone = [spec.corrupted(i) for i in range(spec.shots)]
        np.testing.assert_array_equal(np.isnan(run["gasdet/f11ENRC"][:]), gone)
    assert "150 = 150 + 0" in afterwards[1]


@pytest.fixture
def here(files, configured, tmp_path):
    """Make the file in this process, as rank 0 of so many; gives the status and what it said."""
    before = os.umask(0o077)

    def make(of, *more):
        config = configuration("mfxx49820", 7, str(configured), more, str(files), str(tmp_path))
        said = []
        return make_file(config, Rank(0, of), said.append), "\n".join(said)

    yield make
    os.umask(before)


def test_alone_it_makes_the_same_and_never_overwrites_it(afterwards, here, tmp_path):
    status, said = here(1)
    assert status == 0, said
    path = tmp_path / "mfxx49820_Run0007.h5"
    same_bits(columns(path), columns(afterwards[0]))
    assert path.stat().st_mode & 0o777 == 0o664
    before = path.stat()
    with pytest.raises(FileExistsError, match="never overwritten"):
        here(1)
    assert path.stat() == before


def test_a_rank_that_never_comes_is_missing_by_name_in_a_file_that_is_told_not_whole(
    here, tmp_path, spec
):
    status, said = here(2, "aggregate.end_timeout_s=1.0")
    assert status == 1
    assert "p1 did not come" in said
    assert "NOT whole" in said
    with ffb.open(tmp_path / "mfxx49820_Run0007.h5") as run:
        counts, stamps = run.counts, run["timestamp"][:]
        assert counts.lost == {"producer died": spec.shots - counts.written}
        assert counts.read == spec.shots
        assert 0 < counts.written < spec.shots
        lines = run.table(LEDGER)
        (line,) = lines[lines["state"] == b"producer died"]
    every = np.array([spec.timestamp(i) for i in range(spec.shots)], np.uint64)
    missing = np.setdiff1d(every, stamps)
    assert (line["first"], line["last"], line["shots"]) == (missing[0], missing[-1], missing.size)
