"""Fuzz everything that reads bytes: messages, snapshots, journals, chunks, and the aggregator.

Cases are numbered; case ``i`` of a target under a seed is always the same. They run in a child
process, so that a crash of native code, a hang or a leak is seen from outside and named.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import faulthandler
import json
import mmap
import os
import random
import resource
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import psutil

from tests.soak.targets import TARGETS

#: A case that works for longer is a hang [s of CPU time], and one that sleeps through as many looks
#: in a row as are made in that time when nobody else is at work.
HANG_S, LOOK_S = 20.0, 0.2

#: Address space of a child [bytes]: a bomb must meet a bound of ours before this one.
SPACE = 8 << 30

#: How the time is shared.
SHARES = {"message": 3, "aggregator": 3, "chunk": 1, "journal": 1, "snapshot": 1, "album": 1}

#: Growth of a child that counts as a leak, after its warm-up [bytes].
LEAK = 64 << 20


def child(target: str, seed: int, first: int, seconds: float, place: Path) -> int:
    """Run cases from ``first`` on; what it is at stands in ``place``, counts go to stdout."""
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (SPACE, SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with place.open("r+b") as f:
        at = mmap.mmap(f.fileno(), 8)
    outcomes: collections.Counter[str] = collections.Counter()
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="ffb-fuzz-", dir="/dev/shm") as folder:
        case = TARGETS[target](Path(folder))
        end, i = time.monotonic() + seconds, first
        before, warm = 0, time.monotonic() + min(20.0, seconds / 4)
        while time.monotonic() < end and len(failures) < 5:
            struct.pack_into("<Q", at, 0, i)
            try:
                outcomes[case(random.Random(f"{seed}/{target}/{i}"))] += 1
            except Exception as e:
                where = traceback.extract_tb(e.__traceback__)[-1]
                outcomes[f"FAILED {type(e).__name__}"] += 1
                failures.append(
                    f"case {i}: {type(e).__name__}: {str(e)[:200]}"
                    f" at {Path(where.filename).name}:{where.lineno}"
                )
            i += 1
            if not before and time.monotonic() > warm:
                before = psutil.Process().memory_info().rss
        rss = psutil.Process().memory_info().rss
    print(
        json.dumps(
            {"next": i, "outcomes": outcomes, "failures": failures, "rss": [before or rss, rss]}
        )
    )
    return 0


class Hunt:
    """One target until its time is up, with a new child after every crash."""

    def __init__(self, target: str, seed: int, seconds: float) -> None:
        self.target, self.seed, self.seconds = target, seed, seconds
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.failures: list[str] = []
        self.rss = (0, 0)

    def run(self, only: int | None) -> None:
        """Hunt; with ``only`` run that one case, for whoever looks for its reason."""
        first, end = only or 0, time.monotonic() + self.seconds
        while (left := end - time.monotonic()) > 0 and len(self.failures) < 20:
            first = self._child(first, 0.001 if only is not None else left)
            if only is not None:
                return

    def _child(self, first: int, seconds: float) -> int:
        with tempfile.NamedTemporaryFile(prefix="ffb-fuzz-at-", dir="/dev/shm") as f:
            f.write(bytes(8))
            f.flush()
            words = ["--child", f.name, "--seed", self.seed, "--case", first]
            words += ["--seconds", seconds, "--target", self.target]
            command = [sys.executable, "-m", "tests.soak.fuzz", *map(str, words)]
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            hung = self._watch(process, Path(f.name))
            out, err = process.communicate()
            at = struct.unpack("<Q", Path(f.name).read_bytes())[0]
        if process.returncode == 0:
            said = json.loads(out.splitlines()[-1])
            self.outcomes.update(said["outcomes"])
            self.failures += said["failures"]
            if said["rss"][1] - said["rss"][0] > LEAK:
                self.failures.append(f"memory grew from {said['rss'][0]} to {said['rss'][1]} bytes")
            self.rss = said["rss"]
            return int(said["next"])
        what = "hung" if hung else f"died of {process.returncode}"
        words_ = " ".join(err.split()[:40])
        self.outcomes[f"FAILED {what}"] += 1
        self.failures.append(f"case {at}: {what}: {words_}")
        return int(at) + 1

    @staticmethod
    def _watch(process: subprocess.Popen[str], place: Path) -> bool:
        progress = Progress()
        while process.poll() is None:
            time.sleep(LOOK_S)
            at = struct.unpack("<Q", place.read_bytes())[0]
            if progress.hangs(at, *look(process.pid)):
                process.kill()
                return True
        return False


class Progress:
    """Tells whether a case hangs, by what other work on the machine does not move.

    Who wants the processor and does not get it neither spends CPU time nor sleeps.
    """

    def __init__(self) -> None:
        self._case, self._begun, self._before, self._asleep = -1, 0.0, 0.0, 0

    def hangs(self, case: int, cpu_s: float, asleep: bool) -> bool:
        """Look once: at which case it is, what it has spent so far, whether all of it sleeps."""
        if case != self._case:
            self._case, self._begun, self._asleep = case, cpu_s, 0
        self._asleep = self._asleep + 1 if asleep and cpu_s == self._before else 0
        self._before = cpu_s
        return cpu_s - self._begun > HANG_S or self._asleep * LOOK_S > HANG_S


def look(pid: int) -> tuple[float, bool]:
    """CPU time [s] of a process and its children so far, and whether every thread sleeps."""
    cpu, asleep = 0.0, True
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):
                cpu += sum(process.cpu_times()[:4])
                for thread in process.threads():
                    state = Path(f"/proc/{process.pid}/task/{thread.id}/stat").read_text()
                    asleep &= state.rpartition(")")[2].split()[0] == "S"
    return cpu, asleep


def main() -> int:
    """Hunt in all targets in turn; 0 when nothing was found."""
    p = argparse.ArgumentParser(prog="python -m tests.soak.fuzz", description=__doc__)
    p.add_argument("--minutes", type=float, default=10.0, help="over all targets")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--target", choices=[*TARGETS], help="only this one")
    p.add_argument("--case", type=int, help="only this case (needs --target)")
    p.add_argument("--child", help=argparse.SUPPRESS)
    p.add_argument("--seconds", type=float, default=0.0, help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.child:
        return child(a.target, a.seed, a.case or 0, a.seconds, Path(a.child))
    chosen = [a.target] if a.target else [*TARGETS]
    shares = sum(SHARES[target] for target in chosen)
    cases = failed = 0
    for target in chosen:
        hunt = Hunt(target, a.seed, a.minutes * 60 * SHARES[target] / shares)
        hunt.run(a.case)
        n = hunt.outcomes.total()
        cases, failed = cases + n, failed + len(hunt.failures)
        counts = ", ".join(f"{k} {v:,}" for k, v in hunt.outcomes.most_common(8))
        rss = " to ".join(f"{r / 1e6:.0f}" for r in hunt.rss)
        print(f"{target}: {n:,} cases: {counts}; RSS {rss} MB", flush=True)
        for failure in hunt.failures:
            print(f"  {failure}; again: --seed {a.seed} --target {target} --case N", flush=True)
    verdict = "nothing crashed, hung or leaked" if not failed else f"{failed} FAILURES"
    print(f"fuzz: seed {a.seed}, {a.minutes:g} min, {cases:,} cases: {verdict}")
    os.sync()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
