"""One fault after the other, at random, on a running service; then the books.

Three producers on files, an aggregator that writes to a small disk of its own, and a viewer. Every
few seconds something happens and passes: the disk fills up, its folder may not be written, somebody
stands still for up to ten seconds, a reader holds the file open. Needs root, to mount the disk.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py

from ffb.transport import Subscriber
from ffb.wire import unpack
from tests.soak.soak import EXP, PRODUCERS, account, configure
from tests.soak.world import World, committed, rss, wait_for, world

#: Bytes that the aggregator may grow by while a viewer, or it itself, stands still.
MOST = 256 << 20

#: On a disk of 40 MB nothing can be kept free.
NO_RESERVE = "reserve_gb = 0.0\nwarn_gb = 0.0"


@contextlib.contextmanager
def disk(folder: Path, size: int) -> Iterator[Path]:
    """A small disk."""
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PermissionError(f"no disk can be mounted: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


class Faults:
    """What can go wrong, each for a while; ``seen`` collects the alarms that told of it."""

    def __init__(self, here: World, files: Path, rng: random.Random) -> None:
        self.here, self.files, self.rng = here, files, rng
        self.seen: collections.Counter[str] = collections.Counter()
        self.done: collections.Counter[str] = collections.Counter()
        self._views = Subscriber(f"ipc://{here.folder}/v")

    def one(self) -> None:
        """Let one thing go wrong, for a while."""
        kinds = [self.full, self.closed, self.stopped, self.stopped, self.frozen, self.held]
        kind: Callable[[float], None] = self.rng.choice(kinds)
        kind(self.rng.uniform(0.5, 10.0))
        self.done[kind.__name__] += 1

    def full(self, seconds: float) -> None:
        """The disk fills up."""
        ballast = self.files / "ballast"
        stat = os.statvfs(self.files)
        with contextlib.suppress(OSError), ballast.open("wb") as f:
            for _ in range(stat.f_bavail * stat.f_frsize >> 16):
                f.write(bytes(1 << 16))
        self.rest(seconds)
        ballast.unlink()

    def closed(self, seconds: float) -> None:
        """The folders may not be written."""
        folders = [self.files, *(p for p in self.files.rglob("*") if p.is_dir())]
        done = subprocess.run(["chattr", "+i", *folders], capture_output=True, check=False)
        self.rest(seconds)
        subprocess.run(["chattr", "-i", *folders], capture_output=True, check=False)
        if done.returncode:
            self.seen["(folders could not be closed on this disk)"] += 1

    def stopped(self, seconds: float) -> None:
        """A process stands still."""
        name = self.rng.choice(["aggregator", *(f"producer-{k}" for k in range(PRODUCERS))])
        process = self.here.processes[name]
        if process.poll() is None:
            process.send_signal(signal.SIGSTOP)
            self.rest(seconds)
            process.send_signal(signal.SIGCONT)

    def frozen(self, seconds: float) -> None:
        """A viewer stands still."""
        viewer, aggregator = self.here.processes["viewer-0"], self.here.processes["aggregator"]
        before, rows = rss(aggregator.pid), committed(self.path)
        viewer.send_signal(signal.SIGSTOP)
        self.rest(seconds)
        if committed(self.path) == rows and aggregator.poll() is None:
            self.seen["WRONG: no rows while a viewer stood still"] += 1
        if rss(aggregator.pid) > before + MOST:
            self.seen["WRONG: memory grew while a viewer stood still"] += 1
        viewer.send_signal(signal.SIGCONT)

    def held(self, seconds: float) -> None:
        """A reader holds the file open."""
        with contextlib.suppress(OSError), h5py.File(self.path, swmr=True, locking=False) as f:
            _ = f["ffb/committed"][0]
            self.rest(seconds)

    @property
    def path(self) -> Path:
        """The run's file."""
        return self.files / f"{EXP}_Run0001.h5"

    def rest(self, seconds: float) -> None:
        """Let time pass, and listen to what the aggregator says."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if (frame := self._views.receive(0.1)) is not None:
                for alarm in unpack(frame)[0]["status"]["alarms"]:
                    self.seen["".join(c for c in str(alarm) if not c.isdigit())[-90:]] += 1

    def close(self) -> None:
        """Hang up."""
        self._views.close()


def faults(folder: Path, minutes: float, rate: float, seed: int) -> list[str]:
    """Do it; returns what is wrong."""
    shots = round(rate * minutes * 60)
    file = configure(folder, rate, shots)
    text = file.read_text().replace("segment_rows = 65536", "segment_rows = 4096")
    with disk(folder / "files", 40 << 20) as files, world(folder) as here:
        (folder / "soak.toml").write_text(
            text.replace("[writer]", f'[writer]\n{NO_RESERVE}\ndirectory = "{files}"')
            + "\n[aggregate]\nend_timeout_s = 60.0\n"
        )
        here.ffb("aggregator", "aggregate", file)
        here.start("viewer-0", "tests.soak.soak", "--view", f"ipc://{folder}/v")
        for k in range(PRODUCERS):
            here.ffb(f"producer-{k}", "reduce", file, "--index", k, "--of", PRODUCERS, "--once")
        bad = Faults(here, files, random.Random(seed))
        wait_for(lambda: committed(bad.path), "the first rows", 120)
        while any(here.processes[f"producer-{k}"].poll() is None for k in range(PRODUCERS)):
            bad.one()
            bad.rest(1.0)
        bad.close()
        time.sleep(5.0)  # what was held up at the end is made up for
        here.processes["aggregator"].terminate()
        codes = {n: p.wait(120) for n, p in here.processes.items() if not n.startswith("viewer")}
        print(f"faults: {dict(bad.done)}")
        for alarm, times in bad.seen.most_common():
            print(f"  told {times:,} times: {alarm}")
        wrong = [a for a in bad.seen if a.startswith("WRONG")]
        wrong += [f"{n} ended with {c}: {here.said(n)[-300:]}" for n, c in codes.items() if c]
        return wrong + account(bad.path, shots)


def main() -> int:
    """Let things go wrong; 0 when every shot is accounted for."""
    p = argparse.ArgumentParser(prog="python -m tests.soak.faults", description=__doc__)
    p.add_argument("--minutes", type=float, default=5.0)
    p.add_argument("--rate", type=float, default=500.0, help="shots per second")
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    with tempfile.TemporaryDirectory(prefix="ffb-faults-") as folder:
        wrong = faults(Path(folder), a.minutes, a.rate, a.seed)
    for problem in wrong:
        print(f"WRONG: {problem}")
    print(f"faults: seed {a.seed}: {'every shot is accounted for' if not wrong else 'FAILED'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
