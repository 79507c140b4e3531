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
from pathlib import Path

from ffb.transport import Subscriber
from ffb.wire import unpack
from tests.soak.world import World, committed, problems_of, rss, toml, wait_for, world

EXP = "tstx00001"
PRODUCERS = 3

#: Seconds that the four viewers rest between two looks.
PAUSES = (0.0, 0.0, 0.1, 5.0)

SAMPLE_S, WARM_UP_S = 5.0, 180.0

#: Growth after the warm-up that is taken for a leak.
LEAK = 0.05


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


def watch(here: World, path: Path, seconds: float) -> dict[str, list[int]]:
    """Weigh all processes until the producers are through."""
    weights: dict[str, list[int]] = {name: [] for name in here.processes}
    began, told = time.monotonic(), 0.0
    producers = [p for name, p in here.processes.items() if name.startswith("producer")]
    while any(p.poll() is None for p in producers):
        if time.monotonic() - began > 1.5 * seconds + 120:
            raise TimeoutError("the producers do not come to an end")
        for name, process in here.processes.items():
            if process.poll() is None:
                weights[name].append(rss(process.pid))
        if time.monotonic() - told > 60:
            told = time.monotonic()
            now = ", ".join(f"{n} {w[-1] / 1e6:.1f}" for n, w in weights.items() if w)
            with contextlib.suppress(OSError):
                print(f"{told - began:6.0f} s  {committed(path):>9,} rows  MB: {now}", flush=True)
        time.sleep(SAMPLE_S)
    return weights


def table(weights: dict[str, list[int]], warm_up: float) -> list[str]:
    """Print how the weights went; returns who grew."""
    grew = []
    print(f"{'process':>12} {'begin':>8} {'warm':>8} {'end':>8} {'most':>8}  growth [MB]")
    for name, all_ in weights.items():
        late = all_[round(warm_up / SAMPLE_S) :]
        part = max(1, len(late) // 6)
        if len(late) < 2 * part:
            continue
        warm, end = statistics.median(late[:part]), statistics.median(late[-part:])
        growth = end / warm - 1
        mb = [f"{w / 1e6:8.1f}" for w in (all_[0], warm, end, max(all_))]
        print(f"{name:>12} {' '.join(mb)}  {growth:+.1%}")
        if growth > LEAK:
            grew.append(f"{name} grew by {growth:.1%} after its warm-up")
    return grew


def soak(folder: Path, minutes: float, rate: float) -> list[str]:
    """Run it; returns what is wrong."""
    seconds = minutes * 60
    shots = round(rate * seconds)
    file = configure(folder, rate, shots)
    path = folder / "hdf5" / "smalldata" / f"{EXP}_Run0001.h5"
    with world(folder) as here:
        here.ffb("aggregator", "aggregate", file, "--once")
        for k, pause in enumerate(PAUSES):
            words = ["tests.soak.soak", "--view", f"ipc://{folder}/v", "--pause", pause]
            here.start(f"viewer-{k}", *words)
        for k in range(PRODUCERS):
            here.ffb(f"producer-{k}", "reduce", file, "--index", k, "--of", PRODUCERS, "--once")
        weights = watch(here, path, seconds)
        codes = {n: p.wait(120) for n, p in here.processes.items() if not n.startswith("viewer")}
        wrong = [
            f"{n} ended with {code}: {here.said(n)[-300:]}" for n, code in codes.items() if code
        ]
        for k in range(len(PAUSES)):
            here.processes[f"viewer-{k}"].terminate()
        for k, pause in enumerate(PAUSES):
            code = here.processes[f"viewer-{k}"].wait(20)
            said = here.said(f"viewer-{k}").strip().splitlines()
            print(f"viewer {k}, resting {pause:g} s: {said[-1] if said else 'said nothing'}")
            if code or not said or json.loads(said[-1])["backwards"]:
                wrong.append(f"viewer {k} ended with {code}: {said[-1:]}")
        wait_for(path.exists, f"no file {path}")
        wrong += table(weights, min(WARM_UP_S, seconds / 3))
        wrong += account(path, shots)
    return wrong


def account(path: Path, shots: int) -> list[str]:
    """Print what became of every shot; returns what is wrong."""
    import ffb

    with ffb.open(path) as run:
        counts = run.counts
    lost = sum(counts.lost.values())
    share = (counts.written + lost) / shots
    print(f"shots {shots:,}  read {counts.read:,}  written {counts.written:,}  lost {lost:,}"
          f" {dict(counts.lost)}  late {counts.late:,}  accounted {share:.3%}")  # fmt: skip
    out = problems_of(path)
    return out if counts.read == shots == counts.written + lost else [*out, "not all accounted"]


def main() -> int:
    """Soak; 0 when nothing leaked and every shot is accounted for."""
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
        wrong = soak(a.folder or Path(temporary), a.minutes, a.rate)
    for problem in wrong:
        print(f"WRONG: {problem}")
    verdict = "nothing leaked, every shot is accounted for" if not wrong else "FAILED"
    print(f"soak: {a.minutes:g} min at {a.rate:g} Hz: {verdict}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
