"""Half an hour at 1 kHz: three producers, four viewers, and what every process weighs meanwhile."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
from numpy.typing import NDArray

import ffb
from ffb.transport import Subscriber
from ffb.wire import unpack
from tests.soak.world import World, committed, problems_of, rss, toml, wait_for, world

EXP = "tstx00001"
PRODUCERS = 3

#: Seconds that the four viewers rest between two looks.
PAUSES = (0.0, 0.0, 0.1, 5.0)

SAMPLE_S, WARM_UP_S = 5.0, 180.0

#: Growth after the warm-up that is taken for a leak, and the part of the rate that must be kept.
LEAK, PACE = 0.05, 0.99


def configure(folder: Path, rate: float, shots: int) -> Path:
    """Small shots: a little area, a waveform, a value."""
    image = {"detector": "area", "field": "raw"}
    energy = {"detector": "gasdet", "field": "energy", "unit": "mJ", "record": True}
    tables = {
        "source": {"kind": "synthetic", "exp": EXP, "shots": shots, "steps": 20, "rate": rate,
                   "shape": [1, 16, 32]},
        "inputs": {"image": image, "energy": energy,
                   "pulse": {"detector": "digitizer", "field": "wave"}},
        "calibration": {"area": "none"},
        "reducers.spot": {"use": "roi", "inputs": "image",
                          "params": {"rows": [2, 14], "cols": [2, 30]}},
        "reducers.diode": {"use": "waveform_integral", "inputs": "pulse",
                           "params": {"gate": [20, 90], "baseline": [0, 20], "dt": 1.0}},
        "transport": {"aggregator": f"ipc://{folder}/a", "views": f"ipc://{folder}/v"},
        "writer": {"segment_rows": 65536},
        "run": {"producers": PRODUCERS},
    }  # fmt: skip
    file = folder / "soak.toml"
    file.write_text(toml(tables))
    return file


def view(address: str, pause: float) -> int:
    """Look at every snapshot, or at one every ``pause`` seconds; says what it saw when told to."""
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    subscriber = Subscriber(address)
    frames = size = commit = backwards = 0
    while not stopped:
        frame = subscriber.receive(0.2)
        if frame is None:
            continue
        meta, arrays = unpack(frame)
        frames, size = frames + 1, size + sum(a.nbytes for a in arrays.values())
        backwards += meta["commit"] < commit
        commit = meta["commit"]
        end = time.monotonic() + pause
        while not stopped and time.monotonic() < end:
            time.sleep(0.05)
    subscriber.close()
    print(json.dumps({"frames": frames, "bytes": size, "commit": commit, "backwards": backwards}))
    return 0


class Sample(NamedTuple):
    """What a process weighs, and how long it has run."""

    at: float
    rss: int
    cpu_s: float


def look(pid: int) -> Sample:
    """Weigh a process."""
    used = psutil.Process(pid).cpu_times()
    return Sample(time.monotonic(), rss(pid), used.user + used.system)


def watch(here: World, path: Path, seconds: float) -> dict[str, list[Sample]]:
    """Weigh all processes until the producers are through."""
    samples: dict[str, list[Sample]] = {name: [] for name in here.processes}
    began, told = time.monotonic(), 0.0
    producers = [p for name, p in here.processes.items() if name.startswith("producer")]
    while any(p.poll() is None for p in producers):
        if time.monotonic() - began > 1.5 * seconds + 120:
            raise TimeoutError("the producers do not come to an end")
        if here.processes["aggregator"].poll():
            raise ChildProcessError(f"the aggregator ended: {here.said('aggregator')[-300:]}")
        for name, process in here.processes.items():
            with contextlib.suppress(psutil.Error):
                if process.poll() is None:
                    samples[name].append(look(process.pid))
        if time.monotonic() - told > 60:
            told = time.monotonic()
            now = ", ".join(f"{n} {w[-1].rss / 1e6:.1f}" for n, w in samples.items() if w)
            with contextlib.suppress(OSError):
                print(f"{told - began:6.0f} s  {committed(path):>9,} rows  MB: {now}", flush=True)
        time.sleep(SAMPLE_S)
    return samples


class Process(NamedTuple):
    """How a process did: bytes at the end of the warm-up, at the end and at most; cores it kept."""

    warm: float
    end: float
    most: float
    cores: float

    @property
    def growth(self) -> float:
        """Growth after the warm-up."""
        return self.end / self.warm - 1


def process(samples: list[Sample], warm_up: float) -> Process:
    """Sum up what was seen of a process; medians, for single looks fall into a commit."""
    late = samples[round(warm_up / SAMPLE_S) :]
    part = max(1, len(late) // 6)
    warm, end = (statistics.median(s.rss for s in some) for some in (late[:part], late[-part:]))
    seconds = max(late[-1].at - late[0].at, SAMPLE_S)
    cores = (late[-1].cpu_s - late[0].cpu_s) / seconds
    return Process(warm, end, max(s.rss for s in samples), cores)


def table(processes: Mapping[str, Process], rate: float) -> None:
    """Print how the processes did, at ``rate`` shots a second."""
    print("process          warm MB  end MB  most MB  growth   cores  CPU us/shot")
    for name, p in processes.items():
        sizes = f"{p.warm / 1e6:9.1f} {p.end / 1e6:7.1f} {p.most / 1e6:8.1f}"
        print(f"{name:<15} {sizes}  {p.growth:+6.1%} {p.cores:7.3f} {p.cores / rate * 1e6:12.1f}")
    cores = sum(p.cores for p in processes.values())
    print(f"{'all':<50} {cores:7.3f} {cores / rate * 1e6:12.1f}")


def soak(folder: Path, minutes: float, rate: float) -> bool:
    """Run it; returns whether all that is asked was reached."""
    seconds = minutes * 60
    shots = round(rate * seconds)
    file = configure(folder, rate, shots)
    path = folder / "hdf5" / "smalldata" / f"{EXP}_Run0001.h5"
    warm_up = min(WARM_UP_S, seconds / 3)
    with world(folder) as here:
        here.ffb("aggregator", "aggregate", file, "--once")
        for k, pause in enumerate(PAUSES):
            words = ["tests.soak.soak", "--view", f"ipc://{folder}/v", "--pause", pause]
            here.start(f"viewer-{k}", *words)
        for k in range(PRODUCERS):
            here.ffb(f"producer-{k}", "reduce", file, "--index", k, "--of", PRODUCERS, "--once")
        wait_for(lambda: committed(path), "the first rows", 180)
        samples = watch(here, path, seconds)
        wrong = [
            f"{n} ended with {code}: {here.said(n)[-300:]}"
            for n, p in here.processes.items()
            if not n.startswith("viewer") and (code := p.wait(120))
        ]
        wrong += dismiss(here)
        wait_for(path.exists, f"no file {path}")
        wrong += account(path, shots)
        with ffb.open(path) as run:
            reached = rate_of(run.commits)
    done = {name: process(s, warm_up) for name, s in samples.items()}
    table(done, reached)
    worst = max(done, key=lambda name: done[name].growth)
    growth = f"{done[worst].growth:+.1%} ({worst})"
    asked = [
        (f"shots a second, {rate:g}", f"{reached:.1f}", reached >= PACE * rate),
        (f"growth after {warm_up:.0f} s, under {LEAK:.0%}", growth, done[worst].growth < LEAK),
        ("shots, books, viewers, exits", "; ".join(wrong) or "all accounted, all well", not wrong),
    ]
    print()
    for what, found, well in asked:
        print(f"{what:<30} {'' if well else 'MISSED: '}{found}")
    return all(well for *_, well in asked)


def account(path: Path, shots: int) -> list[str]:
    """Print what became of every shot; returns what is wrong."""
    with ffb.open(path) as run:
        counts = run.counts
    lost = sum(counts.lost.values())
    share = f"{(counts.written + lost) / shots:.3%} of {shots:,} shots accounted"
    print(f"read {counts.read:,} = written {counts.written:,} + lost {lost:,} {dict(counts.lost)};"
          f" {counts.late:,} late; {share}")  # fmt: skip
    wrong = problems_of(path)
    return wrong if counts.read == shots == counts.written + lost else [*wrong, share]


def dismiss(here: World) -> list[str]:
    """Let the viewers go; returns what is wrong with what they saw."""
    wrong = []
    for k in range(len(PAUSES)):
        here.processes[f"viewer-{k}"].terminate()
    for k, pause in enumerate(PAUSES):
        code = here.processes[f"viewer-{k}"].wait(20)
        said = here.said(f"viewer-{k}").strip().splitlines()
        saw = json.loads(said[-1]) if said and not code else {"backwards": 1}
        print(f"viewer-{k}, resting {pause:g} s: {said[-1] if said else 'said nothing'}")
        if saw["backwards"] or not saw["frames"]:
            wrong.append(f"viewer {k} ended with {code}: {said[-1:]}")
    return wrong


def rate_of(commits: NDArray[Any]) -> float:
    """Rows a second while all producers were at work: without the first and the last tenth."""
    rows = commits["rows"].astype(float)
    first, last = np.searchsorted(rows, [0.1 * rows[-1], 0.9 * rows[-1]])
    ns = int(commits["time"][last]) - int(commits["time"][first])
    return float((rows[last] - rows[first]) / max(ns, 1) * 1e9)


def main() -> int:
    """Soak; 0 when the pace was kept, nothing leaked and every shot is accounted for."""
    p = argparse.ArgumentParser(prog="python -m tests.soak.soak", description=__doc__)
    p.add_argument("--minutes", type=float, default=30.0)
    p.add_argument("--rate", type=float, default=1000.0, help="shots per second")
    p.add_argument("--folder", type=Path, help="where to work (default: a temporary one)")
    p.add_argument("--view", help=argparse.SUPPRESS)
    p.add_argument("--pause", type=float, default=0.0, help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.view:
        return view(a.view, a.pause)
    with tempfile.TemporaryDirectory(prefix="ffb-soak-") as temporary:
        well = soak(a.folder or Path(temporary), a.minutes, a.rate)
    verdict = "all that is asked was reached" if well else "FAILED"
    print(f"soak: {a.minutes:g} min at {a.rate:g} Hz: {verdict}")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
