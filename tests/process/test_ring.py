"""Producers are killed at any moment, the aggregator too: no row is missing, wrong or there twice,
and the books say of every shot what became of it.

``FFB_KILLS`` is the number of kills of each kind of stream; half of them are of both at once.
"""

import hashlib
import os
import random
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest

import ffb
from ffb import config
from ffb.books.audit import audit
from ffb.plan import Plan
from ffb.sources.plain import Stop
from ffb.sources.synthetic import SyntheticRun
from tests.process import ringed
from tests.process.ringed import KILLS
from tests.process.services import DEADLINE_S

RINGS = Path(f"/dev/shm/ffb-{os.getuid()}")


class Service:
    """An aggregator and two producers, each started again after it was killed."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder, self.kind, self.began = folder, kind, time.monotonic() + 1
        self.file = folder / "exp.toml"
        self.file.write_text(ringed.CONFIG)
        self.log = (folder / "log").open("w")
        self.lives = [0, 0]
        self.aggregator = self.aggregate()
        self.producers = [self.produce(k) for k in range(2)]

    def _start(self, *words):
        command = [sys.executable, "-m", *map(str, words)]
        return subprocess.Popen(command, stderr=self.log)

    def aggregate(self):
        return self._start("ffb.cli", "aggregate", self.file, "--once")

    def produce(self, k):
        return self._start("tests.process.ringed", self.file, k, 2, self.began, self.kind)

    def seen(self, k):
        """Timestamps offered to each process that was producer ``k``, in order."""
        files = sorted(self.folder.glob(f"seen-{k}-*"))
        return [np.fromfile(f, "<u8") for f in files]

    def wait_for_shots(self, k, n):
        """Wait until the present process of producer ``k`` was offered ``n`` shots."""
        end = time.monotonic() + DEADLINE_S
        before = self.lives[k]
        while len(seen := self.seen(k)) <= before or seen[-1].size < n:
            assert time.monotonic() < end, self.said()
            assert self.producers[k].poll() is None, self.said()
            time.sleep(0.01)  # polls

    def said(self):
        return (self.folder / "log").read_text()

    def kill(self, rng, both):
        k = rng.randrange(2)
        self.wait_for_shots(k, 1)
        time.sleep(rng.uniform(0, 0.4))  # so that kills fall anywhere
        self.producers[k].kill()
        if both:
            self.aggregator.kill()
            self.aggregator.wait()
        self.producers[k].wait()
        self.lives[k] = len(self.seen(k))
        self.producers[k] = self.produce(k)
        if both:
            time.sleep(rng.uniform(0, 0.3))
            self.aggregator = self.aggregate()

    def end(self):
        for k in range(2):
            self.wait_for_shots(k, 40 + max([0, *(s.size for s in self.seen(k)[: self.lives[k]])]))
        (self.folder / "end").touch()
        for process in (*self.producers, self.aggregator):
            try:
                code = process.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                code = None
            assert code == 0, self.said()

    @property
    def ring(self):
        """What is in the names of our rings and of no others."""
        address = config.load(self.file).endpoints().aggregator
        return hashlib.blake2b(address.encode(), digest_size=6).hexdigest()

    def close(self):
        for process in (*self.producers, self.aggregator):
            process.kill()
            process.wait()
        self.log.close()


def reference(stamps):
    """Columns of the shots with these ``stamps``, reduced here one after the other."""
    run = SyntheticRun(ringed.SPEC, 1, Stop())
    number = {t: i for i, t in enumerate(run.timestamps.tolist())}
    plan = Plan.make(config.parse(tomllib.loads(ringed.CONFIG)), run)
    parts = []
    for t in stamps.tolist():
        i = number[t]
        if plan.step_number != run.step_of[i]:
            plan.step(run._begin_step(int(run.step_of[i]), i))
        if plan.take(run.shot(i), 0):
            parts.append(plan.close().columns)
    if rest := plan.close():
        parts.append(rest.columns)
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


@pytest.fixture
def service(tmp_path, monkeypatch):
    """Make a service; whatever is left of it is killed in the end."""
    made = []
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))

    def make(kind):
        made.append(Service(tmp_path, kind))
        return made[0]

    yield make
    made[0].close()


def read(folder):
    """Columns, counts and ledger of the finished file."""
    (path,) = (folder / "hdf5" / "smalldata").glob("*.h5")
    with ffb.open(path) as run:
        assert run.complete
        return {name: run[name][:] for name in run}, run.counts, run.ledger


def check_rows(columns):
    """Every row is what a serial pass over its shot gives, and is there once."""
    stamps, rows = np.unique(columns["timestamp"], return_index=True)
    assert stamps.size == columns["timestamp"].size
    for name, column in reference(stamps).items():
        if not name.startswith("ffb/"):
            np.testing.assert_array_equal(columns[name][rows], column, name)


def check_sums(folder):
    """Every sum is of as many shots as it says, to the last digit, and of no more than there are.

    The bad pixel of row 1 reads the same in every frame, and waveforms are above 0; what is added
    tells by itself how often a shot was added. What is missing is what killed producers had not
    sent.
    """
    (path,) = (folder / "hdf5" / "smalldata").glob("*.h5")
    with ffb.open(path) as run:
        assert np.sum(run.sums["jf_raw"].shots) > 0
        for name, s in run.sums.items():
            if s.name.startswith("wave_"):
                np.testing.assert_array_equal(s[...].T, np.broadcast_to(s.shots, s[...].T.shape))
                assert s.dims[-1] == "sample"
            elif s.what.of == "raw":
                np.testing.assert_array_equal(s[..., 0, 1, 2], 0x3FFF * s.shots, name)
                np.testing.assert_array_equal(s[..., 0, 0, 0] > 0, s.shots > 0, name)
            elif s.what.of == "counts":
                np.testing.assert_array_equal(s[..., 0, 1, 2], 0 * s.shots, name)
                np.testing.assert_array_equal(s[..., 0, 0, 0], s.shots, name)
            assert np.all(s.shots + s.missing + s.excluded + s.unknown <= s.rows), name
            assert np.all(s.missing == 0), name
        # A delta counts whole: of each of its shots a sum with a condition says what became of it.
        energy = run["energy"][:]
        for name, most in (("chosen_raw", energy > 1), ("late_raw", energy < 1)):
            s = run.sums[name]
            assert 0 < s.shots <= np.sum(most)
            assert s.shots + s.excluded == run.sums["jf_raw"].shots
        assert run.sums["wave_calib_nhits"].shots == run.sums["jf_raw"].shots
        assert sum(run.sums["jf_raw_laser_on_steps"].shots) == run.sums["jf_raw_laser_on"].shots
    assert audit(path).balanced


def check_books(counts, kills):
    """Read = written + lost for every process, and nothing is unknown of any."""
    assert counts.read == counts.written + sum(counts.lost.values())
    assert set(counts.lost) <= {"producer died"}
    assert len(counts.producers) == kills + 2
    for p in counts.producers.values():
        assert p["read"] == p["written"] + sum(p["lost"].values()) + sum(p["refused"].values())
        assert p["ended"] in {"end of run", "producer died"}


def test_shots_that_cannot_wait_are_written_or_lost_with_their_producer(tmp_path, service):
    rng, it = random.Random(11), service("live")
    for n in range(KILLS):
        it.kill(rng, both=n % 2 == 1)
    it.end()
    columns, counts, ledger = read(tmp_path)
    check_rows(columns)
    check_books(counts, KILLS)
    check_sums(tmp_path)
    lost = ledger[ledger["state"] == "producer died"]
    assert (lost["shots"] == 1).all()
    known = np.concatenate([columns["timestamp"], lost["first"]])
    assert np.unique(known).size == known.size == counts.read
    seen = [stamps for k in range(2) for stamps in it.seen(k)]
    offered = np.concatenate(seen)
    assert np.isin(known, offered).all()
    # A process may be killed between being offered a shot and noting it.
    assert 0 <= offered.size - counts.read <= KILLS
    reads = sorted(p["read"] for p in counts.producers.values())
    assert all(a - b in {0, 1} for a, b in zip(sorted(s.size for s in seen), reads, strict=True))
    assert not list(RINGS.glob(f"*{it.ring}*"))


def test_shots_that_can_wait_are_all_written_once(tmp_path, service):
    rng, it = random.Random(12), service("waits")
    for n in range(KILLS):
        it.kill(rng, both=n % 2 == 0)
    it.end()
    columns, counts, _ = read(tmp_path)
    check_rows(columns)
    check_books(counts, KILLS)
    check_sums(tmp_path)
    assert sum(counts.lost.values()) == 0
    offered = np.unique(np.concatenate([s for k in range(2) for s in it.seen(k)]))
    np.testing.assert_array_equal(np.sort(columns["timestamp"]), offered)
    assert not list(RINGS.glob(f"*{it.ring}*"))
