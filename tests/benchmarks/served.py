"""Clients of a shared-memory server, each in a process pinned to one core, by turns.

A benchmark gives its clients: functions of the tag and a folder that return shots, wall and CPU
seconds. :func:`main` serves them the same file, round after round, and prints medians.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from ffb.testing.shmem_server import clean
from tests.benchmarks.harness import machine

Client = Callable[[str, Path], tuple[int, float, float]]


def pin(core: int) -> None:
    os.sched_setaffinity(0, {core})


def measure(module: str, which: str, path: Path, buffers: int) -> dict[str, float]:
    """Serve ``path`` from one core to the client ``which`` of ``module`` on another."""
    cores = sorted(os.sched_getaffinity(0))
    tag = f"bench{uuid.uuid4().hex[:8]}"
    words = [str(path), "--tag", tag, "--buffers", str(buffers), "--linger", "0"]
    server = subprocess.Popen(
        [sys.executable, "-m", "ffb.testing.shmem_server", *words],
        stdout=subprocess.PIPE,
        preexec_fn=lambda: pin(cores[0]),
    )
    words = ["--client", which, "--tag", tag, "--folder", str(path.parent)]
    try:
        assert server.stdout is not None
        server.stdout.readline()
        out = subprocess.run(
            [sys.executable, "-m", module, *words],
            stdout=subprocess.PIPE,
            check=True,
            preexec_fn=lambda: pin(cores[-1]),
            timeout=300,
        )
    finally:
        server.kill()
        server.communicate()
        clean(tag)
    found: dict[str, float] = json.loads(out.stdout.splitlines()[-1])
    return found


def main(
    module: str,
    title: str,
    clients: Mapping[str, Client],
    write: Callable[[Path], Path],
    buffers: int,
) -> None:
    """Run ``clients``, the peer first and ours second, on the file that ``write`` makes."""
    p = argparse.ArgumentParser(description=title)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--client", choices=clients)
    p.add_argument("--tag")
    p.add_argument("--folder", type=Path)
    a = p.parse_args()
    if a.client:
        n, wall, cpu = clients[a.client](a.tag, a.folder)
        print(json.dumps({"rate": n / wall, "cpu": 1e6 * cpu / n}), flush=True)
        os._exit(0)  # psana's reader thread would wait for the next server
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder))
        rounds = [{c: measure(module, c, path, buffers) for c in clients} for _ in range(a.rounds)]
    print(f"{title}, {a.rounds} rounds\n{machine('psana')}\n")
    print("| | shots/s | CPU us/shot |\n|---|---|---|")
    for c in clients:
        rate, cpu = (statistics.median(r[c][k] for r in rounds) for k in ("rate", "cpu"))
        print(f"| {c} | {rate:.0f} | {cpu:.1f} |")
    peer, ours = clients
    rate = [r[ours]["rate"] / r[peer]["rate"] for r in rounds]
    cpu = [r[peer]["cpu"] / r[ours]["cpu"] for r in rounds]
    print(
        f"\nours / psana, medians of rounds: {statistics.median(rate):.1f}x as fast"
        f" ({min(rate):.1f} to {max(rate):.1f}), {statistics.median(cpu):.1f}x less CPU"
        f" ({min(cpu):.1f} to {max(cpu):.1f})"
    )
