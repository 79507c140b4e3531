"""Kill producers and aggregator at random while runs stream by; then count every shot.

Three producers and an aggregator at full speed on shared memory, whose server hands every shot to
exactly one client. Whoever is killed is started again, as a supervisor would. Afterwards, for each
run: the books balance, no key is there twice, every written row equals the truth, and each shot
that was served is written or lost by name, but for those that never left the server's keeping:
their buffers were in the queue or in the hand of a killed producer. The server names them. As a
producer gives a buffer back only when the shot is in its ring, nothing else can be missing.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import ffb
from ffb.producing.ringfile import RingFile
from ffb.reading.contents import LEDGER
from ffb.sink import WRITTEN
from ffb.testing.shmem_server import clean
from ffb.testing.truth import RunSpec
from tests.soak.served import DIODE, INPUTS, LIGHT, fabricate, spec_of, stamps_of, told, truth
from tests.soak.world import World, committed, problems_of, toml, wait_for, world

Columns = dict[str, np.ndarray]

EXP, FIRST_RUN, PRODUCERS = "mfxx49820", 7, 3

#: Seconds that a process is left alone after it was started, at least and at most, and seconds of
#: CPU time: on a busy machine too some must come to work, while others are killed on their way.
SPARED, SPARED_CPU = (0.5, 8.0), (1.0, 5.0)

#: How long a run waits for the dead [s]. Here all three producers may be killed again and again
#: before one of them has begun, which takes each about 5 s where nothing else is at work.
END_TIMEOUT_S = 60.0


def configure(folder: Path, tag: str, ring: bool) -> Path:
    """All keys that the killing needs: small batches, small segments."""
    tables = {
        "source": {"kind": "psana", "exp": EXP, "shmem": tag},
        "inputs": INPUTS,
        "light": LIGHT,
        "reducers.diode": DIODE,
        "batch": {"shots": 32},
        "aggregate": {"horizon_ms": 500.0, "end_timeout_s": END_TIMEOUT_S},
        "transport": {
            "aggregator": f"ipc://{folder}/a", "views": f"ipc://{folder}/v", "ring": ring
        },
        "writer": {"segment_rows": 4096, "segment_s": 5.0},
        "run": {"producers": PRODUCERS},
    }  # fmt: skip
    file = folder / "kills.toml"
    file.write_text(toml(tables))
    return file


class Killing:
    """Keeps the processes alive but for those it kills."""

    def __init__(self, here: World, file: Path, seed: int) -> None:
        self.here, self.file, self.rng = here, file, random.Random(seed)
        self.kills: collections.Counter[str] = collections.Counter()
        self.deaths: list[str] = []
        self._spared: dict[str, tuple[float, float]] = {}
        self.names = ["aggregator", *(f"p{k}" for k in range(PRODUCERS))]
        for name in self.names:
            self.start(name)

    def start(self, name: str) -> None:
        """Start one of ours."""
        if name == "aggregator":
            self.here.ffb(name, "aggregate", self.file)
        else:
            self.here.ffb(name, "reduce", self.file, "--index", name[1:], "--of", PRODUCERS)
        until = time.monotonic() + self.rng.uniform(*SPARED)
        self._spared[name] = until, self.rng.uniform(*SPARED_CPU)

    def turn(self) -> None:
        """Start again who died of itself, and note it; kill whoever is due."""
        for name in self.names:
            process = self.here.processes[name]
            if process.poll() is not None:
                self.deaths.append(f"{name} ended with {process.returncode}: {self._last(name)}")
                self.start(name)
        due = [n for n in self.names if self._due(n)]
        if due:
            name = self.rng.choice(due)
            self.here.processes[name].kill()
            self.here.processes[name].wait()
            self.kills["aggregator" if name == "aggregator" else "producer"] += 1
            time.sleep(self.rng.choice((0.0, 0.0, 0.2, 1.0)))  # supervisors take their time
            self.start(name)

    def _due(self, name: str) -> bool:
        """Whether it was spared for long enough."""
        until, cpu_s = self._spared[name]
        process = psutil.Process(self.here.processes[name].pid)
        return time.monotonic() > until and sum(process.cpu_times()[:2]) > cpu_s

    def _last(self, name: str) -> str:
        lines = self.here.said(name).strip().splitlines()
        return lines[-1][-300:] if lines else "it said nothing"


def check(
    folder: Path, loop: int, served: dict[str, Any], spec: RunSpec, expected: Columns
) -> collections.Counter[str]:
    """Count one run; what is wrong is printed and counted as ``wrong``."""
    out = collections.Counter[str]()
    path = folder / "hdf5" / "smalldata" / f"{EXP}_Run{FIRST_RUN + loop:04d}.h5"
    wrong = []
    if not path.exists():
        print(f"run {FIRST_RUN + loop}: WRONG: no file")
        return collections.Counter(wrong=1, served=served["shots"], unaccounted=served["shots"])
    wrong += problems_of(path)
    with ffb.open(path) as run:
        n, counts = run.committed, run.counts
        columns = {name: run[name][:n] for name in expected}
        ledger = run.table(LEDGER)
    stamps = columns["timestamp"]
    everything = stamps_of(spec, loop)
    at = np.minimum(np.searchsorted(everything, stamps), spec.shots - 1)
    foreign = int(np.count_nonzero(everything[at] != stamps))
    rows_wrong = _rows_wrong(columns, at, expected)
    missing = np.setdiff1d(everything, stamps)
    states = np.char.decode(ledger["state"])
    losses = ledger[(states != WRITTEN)]
    lost_twice = _lost_and_written(losses, stamps)
    unseen = np.setdiff1d(missing, losses["first"])
    held = np.array(served["lost"], np.uint64)
    unaccounted = np.setdiff1d(unseen, held)
    if unaccounted.size:
        wrong.append(
            f"{unaccounted.size} shots unaccounted for, {unaccounted[:3]} and so on; {held.size}"
            " others were with the dead"
        )
    if unseen.size != spec.shots - counts.written - sum(counts.lost.values()):
        wrong.append("losses by name are not those that were counted")
    if foreign or rows_wrong or lost_twice:
        wrong.append(f"{foreign} foreign rows, {rows_wrong} wrong, {lost_twice} lost and written")
    if missing.size != spec.shots - np.unique(stamps).size:
        wrong.append("rows that were never served")
    if stamps.size and (np.diff(stamps.astype(np.int64)) <= 0).any():
        wrong.append("the finished file is not in order")
    for problem in wrong:
        print(f"run {FIRST_RUN + loop}: WRONG: {problem}", flush=True)
    out.update({f"lost: {reason}": k for reason, k in counts.lost.items()})
    out.update(served=spec.shots, written=counts.written, late=counts.late, unseen=unseen.size)
    out.update(held=held.size, wrong=len(wrong), duplicates=stamps.size - np.unique(stamps).size)
    out.update({"wrong rows": rows_wrong, "unaccounted": unaccounted.size})
    return out


def _rows_wrong(columns: Columns, at: np.ndarray, expected: Columns) -> int:
    bad = np.zeros(at.size, bool)
    for name, values in expected.items():
        if name == "timestamp":
            continue
        bad |= ~np.isclose(columns[name].astype(float), values[at].astype(float), 1e-6, 1e-9)
    return int(bad.sum())


def _lost_and_written(losses: np.ndarray, stamps: np.ndarray) -> int:
    """Shots lost one by one that are written all the same."""
    single = losses[losses["shots"] == 1]
    return int(np.isin(single["first"], stamps).sum())


def kills(folder: Path, most: int, minutes: float, seed: int, shots: int, ring: bool) -> int:
    """Do it; returns how much is wrong."""
    tag = f"ffb{os.getpid()}"
    spec = spec_of(shots)
    fabricate(folder, spec)
    file = configure(folder, tag, ring)
    for k in range(PRODUCERS):  # of an earlier soak in a folder of this name
        RingFile(EXP, f"p{k}", f"ipc://{folder}/a").close(remove=True)
    began = time.monotonic()
    with world(folder) as here:
        try:
            server = here.start("server", "tests.soak.served", folder, tag, PRODUCERS, 0.0)
            killing = Killing(here, file, seed)
            first = folder / "hdf5" / "smalldata" / f"{EXP}_Run{FIRST_RUN:04d}.h5"
            wait_for(lambda: committed(first), "the first rows", 120.0)
            while killing.kills.total() < most and time.monotonic() - began < 60 * minutes:
                if server.poll() is not None:
                    raise RuntimeError(f"the server ended: {here.said('server')[-500:]}")
                killing.turn()
                time.sleep(0.1)
            (folder / "stop").touch()
            deaths = killing.deaths[:]
            _calm(here, killing)
        finally:
            clean(tag)
        print(f"kills: {dict(killing.kills)} in {time.monotonic() - began:.0f} s", flush=True)
    total, expected = collections.Counter[str](), truth(spec)
    for served in told(folder):
        total.update(check(folder, served["loop"], served, spec, expected))
        total["runs"] += 1
    extra = [p.name for p in (folder / "hdf5" / "smalldata").glob("*_[0-9].h5")]
    for death in (*deaths, *(f"{name} is no file of a run" for name in extra)):
        print(f"WRONG: {death}")
    total["wrong"] += len(deaths) + len(extra)
    print(", ".join(f"{name} {n:,}" for name, n in total.items()))
    return total["wrong"]


def _calm(here: World, killing: Killing) -> None:
    """Let the last run end, let those that were left open be ended, and let everybody go."""
    _while_alive(lambda: here.processes["server"].poll() is not None, killing, 180.0)
    folder = here.folder / "hdf5" / "smalldata"
    _while_alive(lambda: all(map(complete, folder.glob("*.h5"))), killing, 3 * END_TIMEOUT_S)
    for name in reversed(killing.names):
        here.processes[name].send_signal(signal.SIGTERM)
        here.processes[name].wait(30)


def _while_alive(done: Callable[[], bool], killing: Killing, seconds: float) -> None:
    """Keep the processes alive until it is ``done``; what is not done then will be found."""
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        for name in killing.names:
            if killing.here.processes[name].poll() is not None:
                killing.start(name)
        time.sleep(0.2)


def complete(path: Path) -> bool:
    """Whether the run of a file has ended."""
    with contextlib.suppress(OSError), ffb.open(path) as run:  # which may be about to be merged
        return bool(run.complete)
    return False


def main() -> int:
    """Kill; 0 when every shot is accounted for."""
    p = argparse.ArgumentParser(prog="python -m tests.soak.kills", description=__doc__)
    p.add_argument("--kills", type=int, default=200)
    p.add_argument("--minutes", type=float, default=20.0, help="stop after so long in any case")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--shots", type=int, default=20_000, help="of each run")
    p.add_argument("--no-ring", action="store_true", help="without rings in shared memory")
    p.add_argument("--folder", type=Path, help="where to work (default: a temporary one)")
    a = p.parse_args()
    with tempfile.TemporaryDirectory(prefix="ffb-kills-") as temporary:
        folder = a.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            p.error(f"{folder} is not empty")
        wrong = kills(folder, a.kills, a.minutes, a.seed, a.shots, not a.no_ring)
    print(f"kills: seed {a.seed}: {'every shot is accounted for' if not wrong else 'FAILED'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
