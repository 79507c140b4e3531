"""Processes of a service in a folder of their own, as soaks start, watch and kill them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import ffb
from ffb.books.audit import audit, verdict
from ffb.reader import RunFile


class World:
    """A folder, and the processes that were started in it; whoever is left goes at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.env = {**os.environ, "XDG_RUNTIME_DIR": str(folder), "PS_PARALLEL": "none"}

    def start(self, name: str, *words: object) -> subprocess.Popen[bytes]:
        """Start ``python -m WORDS``; what it says goes to ``<name>.log``."""
        command = [sys.executable, "-m", *map(str, words)]
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.processes[name] = process
        return process

    def ffb(self, name: str, *words: object) -> subprocess.Popen[bytes]:
        """Start an ``ffb`` command."""
        return self.start(name, "ffb.cli", *words)

    def said(self, name: str) -> str:
        """What a process said so far."""
        log = self.folder / f"{name}.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def close(self) -> None:
        """End whoever is left."""
        for process in self.processes.values():
            if process.poll() is None:
                with contextlib.suppress(psutil.NoSuchProcess):
                    for child in psutil.Process(process.pid).children(recursive=True):
                        child.kill()
                process.kill()
            process.wait()


@contextlib.contextmanager
def world(folder: Path) -> Iterator[World]:
    """A world that ends."""
    folder.mkdir(parents=True, exist_ok=True)
    out = World(folder)
    try:
        yield out
    finally:
        out.close()


def wait_for(happened: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    """Wait until ``happened()`` is true and return it; ``TimeoutError`` with ``what`` otherwise."""
    end = time.monotonic() + seconds
    while not (value := happened()):
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.02)
    return value


def rss(pid: int) -> int:
    """Bytes of memory a process holds for itself: resident, without shared memory."""
    with contextlib.suppress(OSError):
        said = Path(f"/proc/{pid}/status").read_text()
        sizes = {
            k: int(v.split()[0])
            for k, _, v in (s.partition(":") for s in said.splitlines())
            if k in {"VmRSS", "RssShmem"}
        }
        return (sizes.get("VmRSS", 0) - sizes.get("RssShmem", 0)) * 1024
    return 0


def committed(path: Path) -> int:
    """Committed rows of a run, 0 while there is no file."""
    if not path.exists():
        return 0
    with ffb.open(path) as run:
        return int(run.committed)


def problems_of(path: Path) -> list[str]:
    """What is wrong with a finished run: by ``ffb audit``, and by what anybody can count."""
    out, report = [], audit(path)
    if not report.balanced:
        problems = " / ".join(map(str, report.problems[:12]))
        out.append(f"ffb audit {path.name}: {verdict(report)} {problems}")
    with ffb.open(path) as run:
        out += count(run)
    return out


def count(run: RunFile) -> list[str]:
    """What does not add up in an open run."""
    counts, stamps = run.counts, run["timestamp"][: run.committed]
    lost = sum(counts.lost.values())
    out = []
    if counts.read != counts.written + lost:
        out.append(f"read {counts.read} is not written {counts.written} + lost {lost}")
    if counts.written != run.committed or len(stamps) != run.committed:
        out.append(f"written {counts.written}, committed {run.committed}, rows {len(stamps)}")
    if np.unique(stamps).size != len(stamps):
        out.append(f"{len(stamps) - np.unique(stamps).size} duplicate timestamps")
    if not run.complete:
        out.append("the run is not complete")
    return out


def toml(tables: Mapping[str, Any]) -> str:
    """Tables of plain values as TOML; nested ones inline."""
    lines = []
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {_value(v)}" for key, v in table.items()), ""]
    return "\n".join(lines)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{k} = {_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)
