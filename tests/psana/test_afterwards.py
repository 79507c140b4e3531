"""A run from files, afterwards, in several ranks: bit for bit the columns of the live file."""

import os
import signal
import subprocess
import sys

import h5py
import numpy as np
import pytest

import ffb
from ffb.reading.contents import LEDGER
from ffb.service.afterwards import configuration
from ffb.service.afterwards import make as make_file
from ffb.service.ranks import Rank
from ffb.sources.standins import import_psana
from ffb.testing.fabricate import save_constants, write_experiment, write_run
from ffb.testing.truth import GROUPS, RunSpec
from ffb.writers.consolidate import merge
from tests.psana.test_default_detectors import TOML as DETECTORS
from tests.psana.test_end_to_end import DEADLINE_S, follow

pytestmark = pytest.mark.psana

#: What a launcher tells a rank: its number, and twice their count.
OPEN_MPI = ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE")

HOUR = 3_600_000_000_000

#: All kinds of default detectors, an area, a waveform whose length no configuration tells.
TOML = (
    DETECTORS.replace(
        'source = { kind = "files", paths = ["run.xtc2"] }',
        'source = { kind = "psana", exp = "mfxx49820", shmem = "TAG" }',
    )
    + """
[inputs]
image = { detector = "jungfrau", field = "raw" }
pulse = { detector = "w8", field = "raw_0" }

# a producer that is dealt few shots at first may see none with a spectrum
[detectors.feespec]
fields.hproj = { shape = [64] }

[reducers.spot]
use = "roi"
inputs = "image"
params = { rows = [200, 312], cols = [448, 576], area = true }

[reducers.diode]
use = "waveform_integral"
inputs = "pulse"
params = { gate = [20, 90], baseline = [0, 20], dt = 1.0 }

[derived.normalised]
expr = "spot.sum / gasdet.f11ENRC"
unit = "keV/mJ"

[filters.good]
expr = "lightStatus.xray and not code(162)"

[calibration.jungfrau]
pedestals = "pedestals.npy"
gain = "gain.npy"
offset = "offset.npy"
status = "status.npy"
geometry = "geometry.data"

[calibration]
tmo_opal = "none"

# A camera with a frame in every twentieth shot: no producer can wait to learn its shape.
[inputs.camera]
detector = "tmo_opal"
field = "image"
shape = [64, 1024]

[reducers."camera/roi"]
use = "roi"
inputs = "camera"
params = { rows = [8, 40], cols = [300, 700] }

[integrating.camera]
partners = ["gasdet/*", "tt/*", "lightStatus/*"]

[batch]
shots = 8

# A busy machine may start one producer, or one rank, long before the other.
[aggregate]
horizon_ms = 600000
end_timeout_s = 240

[run]
producers = 2
"""
)


HARM = {"groups": (*GROUPS, "hutch"), "harm": 10}


class LateArea(RunSpec):
    """A run whose area detector is missing for the first 100 shots."""

    def has_area(self, i):
        """See :class:`RunSpec`."""
        return i >= 100 and super().has_area(i)


class LongWave(RunSpec):
    """A run with longer waveforms; no configuration tells how long they are."""

    def wave(self, i, channel, samples=192):
        """See :class:`RunSpec`."""
        return super().wave(i, channel, samples)


@pytest.fixture(scope="module")
def spec():
    return LateArea(steps=3, shots_per_step=50, corrupt=23, late=60, **HARM)


@pytest.fixture(scope="module")
def files(tmp_path_factory, spec):
    return write_experiment(tmp_path_factory.mktemp("xtc"), spec)


@pytest.fixture(scope="module")
def configured(tmp_path_factory, spec):
    folder = tmp_path_factory.mktemp("config")
    save_constants(folder, spec)
    (folder / "exp.toml").write_text(TOML)
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
    said = [p.communicate(timeout=DEADLINE_S) for p in processes]
    return [p.returncode for p in processes], said[0][0], "".join(err for _, err in said)


def columns(path):
    """All that the file holds but for our own books."""
    out = {}
    with h5py.File(path) as f:
        f.visititems(
            lambda name, d: (
                out.__setitem__(name, np.asarray(d[()])) if isinstance(d, h5py.Dataset) else None
            )
        )
    return {name: v for name, v in out.items() if not name.startswith("ffb/")}


def same_bits(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert (a[name].dtype, a[name].shape) == (b[name].dtype, b[name].shape), name
        if a[name].dtype == object:
            assert a[name].tolist() == b[name].tolist(), name
        else:
            assert a[name].tobytes() == b[name].tobytes(), name


@pytest.fixture(scope="module")
def afterwards(files, configured, tmp_path_factory):
    """The file that four ranks make."""
    out = tmp_path_factory.mktemp("ranks")
    codes, said, err = ends(launch(files, configured, out, 4))
    assert codes == [0, 0, 0, 0], said + err
    return out / "mfxx49820_Run0007.h5", said


@pytest.fixture
def service(configured, tag, tmp_path):
    """``ffb run`` on shared memory, with the folder of its files."""
    command = [sys.executable, "-m", "ffb.cli", "run", str(configured), "--no-page"]
    command += ["--set", f"source.shmem={tag}", "--set", f"writer.scratch={tmp_path}"]
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    live = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    yield live, tmp_path / "hdf5" / "smalldata"
    live.kill()
    live.communicate()


def test_runs_live_over_shared_memory_and_the_same_from_files_are_the_same_bits(
    afterwards, here, service, spec, shmem_server, tmp_path
):
    live, folder = service
    more = [
        LongWave(run=8, steps=3, shots_per_step=40, t0=spec.t0 + HOUR, **HARM),
        RunSpec(run=9, steps=2, shots_per_step=10, t0=spec.t0 + 2 * HOUR, **HARM),
    ]
    tapes = [write_run(tmp_path / f"{s.run}.xtc2", s) for s in (spec, *more)]
    paths = [folder / f"mfxx49820_Run{k:04d}.h5" for k in (7, 8, 9)]
    again = [here(1, write_experiment(tmp_path / str(s.run), s), s.run) for s in more]
    assert [status for status, _ in again] == [0, 0]
    first = shmem_server(*tapes[:2], "--clients", 2, "--rate", 60)
    follow(paths[1], 10, lambda f, n: None, live)
    first.kill()  # the stream begins anew in the middle of a run
    first.wait()
    shmem_server(tapes[2], "--clients", 2, "--rate", 60, "--linger", 60)
    follow(paths[2], more[1].shots, lambda f, n: None, live)
    live.send_signal(signal.SIGINT)
    said, _ = live.communicate(timeout=DEADLINE_S)
    assert live.returncode == 0, said
    merge(paths[2])  # which it left for later where that takes more than a moment
    assert sorted(folder.glob("*.h5")) == paths
    assert {p.stat().st_mode & 0o777 for p in paths} == {0o664}
    assert {p.stat().st_mode & 0o775 for p in (folder, folder.parent)} == {0o775}

    with ffb.open(paths[0]) as run, ffb.open(afterwards[0]) as ranks:
        assert {p["producer"] for p in run.counts.producers.values()} == {"p0", "p1"}
        assert len(ranks.counts.producers) == 4
        assert (run.counts.read, run.counts.lost) == (ranks.counts.read, ranks.counts.lost)
    same_bits(columns(paths[0]), columns(afterwards[0]))
    alone = tmp_path / paths[2].name
    same_bits(columns(paths[2]), columns(alone))
    assert alone.stat().st_mode & 0o777 == 0o664
    before = alone.stat()
    with pytest.raises(FileExistsError, match="never overwritten"):
        here(1, tmp_path / "9", 9)
    assert alone.stat() == before

    whole, cut = columns(tmp_path / paths[1].name), columns(paths[1])
    rows = np.isin(whole["timestamp"], cut["timestamp"])
    assert 10 < rows.sum() == cut["timestamp"].size <= more[0].shots
    by_shot = [k for k, v in whole.items() if v.ndim and len(v) == rows.size]
    assert len(by_shot) > 250
    same_bits({k: whole[k][rows] for k in by_shot}, {k: cut[k] for k in by_shot})
    with ffb.open(paths[1]) as run:
        assert run.complete
        assert run.counts.read == run.counts.written + sum(run.counts.lost.values())


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


def test_exposures_of_a_slow_camera_are_those_of_a_psana_loop(afterwards, spec, tmp_path):
    psana = import_psana("psana")
    path = str(write_run(tmp_path / "run.xtc2", spec))
    run = next(psana.DataSource(files=path, skip_calib_load="all", log_level="ERROR").runs())
    camera, gas, timing = (run.Detector(d) for d in ("tmo_opal", "gasdet", "timing"))
    exposures, stamps, pulses, energies = [], [], [], {"": [], "laser_on": []}
    for step in run.steps():
        for event in [*step.events(), None]:
            frame = None if event is None else camera.raw.image(event)
            if event is not None:
                stamps.append(event.timestamp)
                energy = gas.raw.f11ENRC(event)
                if energy is not None:  # else the shot is damaged, and psana fails to decode it
                    codes = timing.raw.eventcodes(event)
                    pulses.append(timing.raw.pulseId(event))
                    energies[""].append(energy)
                    energies["laser_on"] += [energy] * bool(codes[90] and not codes[162])
            if stamps and (event is None or frame is not None):  # no exposure has two steps
                exposures.append((frame, stamps, pulses, energies))
                stamps, pulses, energies = [], [], {"": [], "laser_on": []}
    with h5py.File(afterwards[0]) as file:
        found = file["intg/camera"]
        assert found["framed"][:].tolist() == [e[0] is not None for e in exposures]
        assert found["count"][:].tolist() == [len(e[1]) for e in exposures]
        assert found["timestamp"][:].tolist() == [e[1][-1] for e in exposures]
        listed = found["var_shots/pulse_id"][found["var_shots/pulse_id_valid"][:]]
        assert listed.tolist() == [p for e in exposures for p in e[2]]
        for k, (frame, _, _, energies) in enumerate(exposures):
            total = np.nan if frame is None else np.sum(frame[8:40, 300:700], dtype=np.float64)
            np.testing.assert_allclose(found["roi_sum"][k], total, 1e-6)
            for light, values in energies.items():
                at = file[f"intg/camera/{light}"]
                assert at["gasdet_n_f11ENRC"][k] == len(values)
                if values:
                    np.testing.assert_allclose(at["gasdet_sum_f11ENRC"][k], np.sum(values), 1e-14)
                    np.testing.assert_allclose(at["gasdet_rms_f11ENRC"][k], np.std(values), 1e-9)
        assert len(exposures) >= 10
        assert found["roi_sum"].attrs["unit"]


@pytest.fixture
def here(files, configured, tmp_path):
    """Make the file in this process, as rank 0 of so many; gives the status and what it said."""
    before = os.umask(0o077)

    def make(of, folder=files, run=7, more=()):
        config = configuration("mfxx49820", run, str(configured), more, str(folder), str(tmp_path))
        said = []
        return make_file(config, Rank(0, of), said.append), "\n".join(said)

    yield make
    os.umask(before)


def test_a_rank_that_never_comes_is_missing_by_name_in_a_file_that_is_told_not_whole(
    here, tmp_path, spec
):
    status, said = here(2, more=["aggregate.end_timeout_s=1.0"])
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
