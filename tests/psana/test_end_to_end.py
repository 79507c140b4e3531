"""The main job on a real stream: every row of the file equals a serial psana loop."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from ffb.testing.fabricate import save_constants
from ffb.testing.playback import load
from ffb.testing.shmem_server import ShmemServer
from ffb.writers.consolidate import merge
from tests.psana.reference import reference
from tests.psana.test_shmem import Background

pytestmark = pytest.mark.psana

TOML = Path(__file__).with_name("service.toml")
DEADLINE_S = 240


@pytest.fixture(scope="module")
def expected(run_file, run_spec):
    return reference(run_file, run_spec)


@pytest.fixture
def service(tmp_path, tag, run_spec):
    """Start ``ffb run`` on a configuration; ends it, whatever happens."""
    save_constants(tmp_path, run_spec)
    file = tmp_path / "service.toml"
    file.write_text(TOML.read_text().replace('"TAG"', f'"{tag}"'))
    command = [sys.executable, "-m", "ffb.cli", "run", str(file), "--no-page"]
    process = subprocess.Popen(
        command,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process, tmp_path / "hdf5" / "smalldata" / "mfxx49820_Run0007.h5"
    process.kill()
    process.communicate()


@contextlib.contextmanager
def played_by_halves(tag, path):
    """Play a run to two clients; its second half when the event is set that this gives."""
    server, go = ShmemServer(tag, 2), threading.Event()
    tape = load(path)

    def play():
        server.wait_clients(2)
        for k, dgram in enumerate(tape):
            while k > len(tape) // 2 and not go.is_set():
                server.poll(0.01)
            server.send(dgram)
        server.drain()

    with contextlib.closing(server):
        playing = Background(play)
        yield go
        playing.result()


def follow(path, rows, check, process):
    """Read the growing file with plain h5py, calling ``check`` on what is committed."""
    end, seen = time.monotonic() + DEADLINE_S, set()
    while max(seen, default=0) < rows:
        assert time.monotonic() < end, f"only {max(seen, default=0)} of {rows} rows came"
        assert process.poll() is None, process.stdout.read()
        if path.exists():
            with h5py.File(path, "r", libver="latest", swmr=True) as f:
                n = int(f["ffb/committed"][0])
                if n not in seen:
                    check(f, n)
                seen.add(n)
        time.sleep(0.02)  # polls a file; the deadline above is what is asserted
    return seen


def compare(f, n, expected):
    """Row for row: the file's first ``n`` rows are those of the reference, by timestamp."""
    stamps = f["timestamp"][:n]
    at = np.searchsorted(expected["timestamp"].astype(np.int64), stamps)
    assert (np.diff(stamps.astype(np.int64)) > 0).all()
    for name, truth in expected.items():
        got, want = f[name][:n], truth[at]
        if np.issubdtype(want.dtype, np.floating):
            # pixels are float32, and bins are sums of up to eight of them in float32
            rtol = 1e-6 if name in {"spot/area", "rings/intensity"} else 1e-9
            np.testing.assert_allclose(got, want, rtol=rtol, atol=1e-2 * rtol, err_msg=name)
        else:
            np.testing.assert_array_equal(got, want, err_msg=name)


def assert_described(f):
    """Everything in the file has a unit and says what it is; whole numbers say where they hold."""
    found = []
    f.visititems(lambda k, d: found.append((k, d)) if isinstance(d, h5py.Dataset) else None)
    assert [k for k, d in found if not (d.attrs.get("unit") and d.attrs.get("doc"))] == []
    whole = [k for k, d in found if d.dtype.kind in "iu" and "dims" in d.attrs]
    unflagged = {k for k in whole if f"{k}_valid" not in f}
    assert {k for k in unflagged if not k.startswith(("damage/", "ffb/", "lightStatus/"))} == {
        "timestamp",
        "step",
    }


def test_the_file_equals_a_serial_psana_loop_while_it_grows_and_after(
    service, tag, run_file, run_spec, expected
):
    process, path = service
    with played_by_halves(tag, run_file) as go:

        def look(f, n):
            compare(f, n, expected)
            if n:
                go.set()

        seen = follow(path, run_spec.shots, look, process)
        assert min(seen - {0}) < run_spec.shots, "the file was never seen to grow"
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, said
    merge(path)  # which it left for later where that takes more than a moment
    with h5py.File(path) as f:
        assert f["timestamp"].shape == (run_spec.shots,)
        compare(f, run_spec.shots, expected)
        np.testing.assert_array_equal(f["timestamp"][:], expected["timestamp"])
        updates = range(-(-run_spec.shots // run_spec.slow))
        assert f["epicsSeries/lxt_vitara/value"][:].tolist() == [run_spec.pv(k) for k in updates]
        firsts = [run_spec.time(run_spec.slow * k) for k in updates]
        assert (f["epicsSeries/lxt_vitara/time"][:] == np.array(firsts) - 1_000_000).all()
        assert f["epicsOnce/sample_name"][()] == run_spec.sample(0).encode()
        assert "no detector 'xgmd' in this run" in f["ffb/notes"].asstr()[()]
        assert_described(f)
        sources = {n: f[n].attrs["source"] for n in ("spot/sum", "gasdet/f11ENRC", "diode/area")}
        assert sources == {
            "spot/sum": "jungfrau.raw.raw",
            "gasdet/f11ENRC": "gasdet.raw.f11ENRC",
            "diode/area": "w8.raw.raw_0",
        }
        assert f["UserDataCfg/jungfrau/x"].shape == f["UserDataCfg/jungfrau/mask"].shape
        assert f["UserDataCfg/spot/rows"][:].tolist() == [200, 312]
