"""Digitizers, lists and texts on a real stream: the file holds what psana and numpy make of it."""

import os
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

import ffb
from ffb.reducers import waveform_cfd, waveform_hits
from tests.psana import digitized
from tests.unit import test_waveform_cfd, test_waveform_hits

pytestmark = pytest.mark.psana

DEADLINE_S = 240
SHOTS, N = 40, 256
HITS = waveform_hits.Params(0.168269231, 100.0, baseline=(0, 16), capacity=4)
CFD = waveform_cfd.Params(0.168269231, threshold=200.0, relative=False, sign=1, taps=5, offset=6)
TOML = """
[source]
kind = "psana"
exp = "tmox49820"
shmem = "TAG"

[inputs]
trace = {{ detector = "hsd", field = "raw.waveforms.2", unit = "adu" }}
padded = {{ detector = "hsd", field = "raw.padded.2", record = true }}
start = {{ detector = "hsd", field = "raw.peaks.2.start", room = 4, record = true }}
samples = {{ detector = "hsd", field = "raw.peaks.2.samples", room = 64, record = true }}

[reducers.hits]
use = "waveform_hits"
inputs = "trace"
params = {{ dt = {hits.dt}, threshold = {hits.threshold}, baseline = [0, 16], capacity = 4 }}

[reducers.cfd]
use = "waveform_cfd"
inputs = "padded"
[reducers.cfd.params]
dt = {cfd.dt}
threshold = {cfd.threshold}
relative = false
sign = 1
taps = 5
offset = 6

[derived]
many = {{ expr = "start_len * 2", unit = "1" }}

[batch]
shots = 8

[run]
producers = 1
"""


def pulses(rng):
    """Samples of one trace: pulses on a baseline, and what the digitizer would extract of it."""
    t, wave = np.arange(N)[:, None], 2000.0
    where = np.sort(rng.uniform(20, N - 20, int(rng.integers(0, 4))))
    wave = 2000 + (800 * np.exp(-(((t - where) / 3) ** 2))).sum(1) + rng.normal(0, 2, N)
    wave = wave.astype(np.uint16)
    above = np.repeat((wave.reshape(-1, 4) > 2100).any(axis=1), 4)
    words, skipped, first = [], 0, True
    for i in range(0, N, 4):
        if not above[i]:
            skipped += 4
            continue
        if skipped or first:
            words += digitized.skip(max(skipped - 4 * first, 0)) + [7, 7, 7, 7] * first
            first, skipped = False, 0
        words += (wave[i : i + 4] + 48).tolist()
    return digitized.record(
        3, digitized.stream(0, wave), digitized.stream(1, words or digitized.skip(N))
    )


@pytest.fixture
def run_file(tmp_path):
    rng = np.random.default_rng(8)
    made = [[None if i == 11 else pulses(rng)] for i in range(SHOTS)]
    made[17] = [digitized.broken(rng)["fex missing"]]
    return digitized.write(tmp_path / "run.xtc2", made, segments=(2,))


def wait(path, process):
    """Wait until the whole run is committed."""
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        assert process.poll() is None, process.stdout.read()
        if path.exists():
            with h5py.File(path, "r", libver="latest", swmr=True) as f:
                if f["ffb/committed"][0] == SHOTS:
                    return
        time.sleep(0.05)  # polls a file; the deadline above is what is asserted
    raise AssertionError("the rows did not come")


def test_hits_and_peaks_of_a_stream_are_those_of_psanas_traces(
    tmp_path, tag, shmem_server, run_file
):
    file = tmp_path / "hsd.toml"
    file.write_text(TOML.format(hits=HITS, cfd=CFD).replace("TAG", tag))
    process = subprocess.Popen(
        [sys.executable, "-m", "ffb.cli", "run", str(file), "--no-page"],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    path = tmp_path / "hdf5" / "smalldata" / "tmox49820_Run0007.h5"
    try:
        shmem_server(run_file, "--clients", 1, "--rate", 60, "--linger", 60)
        wait(path, process)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0, said
    with ffb.open(path) as run:
        found = {name: run[name][:] for name in run.columns}
        lists = run["samples"].ragged()
        assert run["start"].length == "start_len"
    number, seen, at = 0, set(), 0
    for i, (want, wave) in enumerate(zip(theirs(run_file), lists.lengths, strict=True)):
        there = i not in (11, 17)
        assert found["hits/present"][i] == found["start_len_valid"][i] == there
        if not there:
            assert np.isnan(found["hits/time"][i]).all()
            assert np.isnan(found["many"][i])
            assert (found["start_len"][i], wave) == (0, 0)
            continue
        hits, _, level = test_waveform_hits.slow(want["waveforms.2"].astype(float), HITS)
        assert found["hits/n"][i] == len(hits)
        np.testing.assert_allclose(found["hits/baseline"][i], level)
        np.testing.assert_allclose(found["hits/time"][i][: len(hits)], [h[0] for h in hits])
        starts = want.get("peaks.2.start", np.zeros(0, int))
        assert found["start_len"][i] == len(starts) == found["many"][i] / 2
        np.testing.assert_array_equal(found["start"][i][: len(starts)], starts[:4])
        samples = want.get("peaks.2.samples", np.zeros(0))[:64]
        np.testing.assert_array_equal(lists.values[at : at + wave], samples)
        at += wave
        number += len(starts)
        seen.add(len(starts))
        if "padded.2" not in want:
            assert np.isnan(found["padded"][i]).all()
            continue
        np.testing.assert_array_equal(found["padded"][i], want["padded.2"])
        expected = test_waveform_cfd.slow(want["padded.2"], CFD)
        assert found["cfd/n"][i] == len(expected[0])
        np.testing.assert_allclose(found["cfd/time"][i][: len(expected[0])], expected[1])
    assert len(seen) > 2
    assert number > SHOTS


def theirs(path):
    """psana's values, without the shot that it must not be given."""
    data = path.read_bytes()
    at, shot, kept = 0, 0, []
    while at < len(data):
        size = 12 + int.from_bytes(data[at + 20 : at + 24], "little")
        is_shot = data[at + 11] & 15 == 12
        if not (is_shot and shot == 17):
            kept.append(data[at : at + size])
        shot, at = shot + is_shot, at + size
    whole = path.with_name("whole.xtc2")
    whole.write_bytes(b"".join(kept))
    rows = list(digitized.psanas(whole))
    rows.insert(17, {})
    return rows
