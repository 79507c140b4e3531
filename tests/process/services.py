"""`ffb` commands as people start them, and what holds of a run whenever they are stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil

import ffb
from ffb.reader import RunFile

#: For what has to come about some time, also on a busy machine; how long it takes is not asserted.
DEADLINE_S = 240

Start = Callable[..., "subprocess.Popen[str]"]


@contextlib.contextmanager
def starter(folder: Path) -> Iterator[Start]:
    """Start ``ffb`` commands, or the program ``of``; whatever is left is killed in the end."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: object, of: Path | None = None) -> subprocess.Popen[str]:
        program = ["-m", "ffb.cli"] if of is None else [str(of)]
        process = subprocess.Popen(
            [sys.executable, *program, *map(str, words)],
            env={**os.environ, "XDG_RUNTIME_DIR": str(folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
        process.kill()
        process.communicate()


def wait_for(happened: Callable[[], object], *processes: subprocess.Popen[str]) -> None:
    """Wait until it ``happened``, which it must while these ``processes`` live."""
    end = time.monotonic() + DEADLINE_S
    while not happened():
        assert time.monotonic() < end, "it never came about"
        for p in processes:
            assert p.poll() is None, p.communicate()[0]
        time.sleep(0.02)  # polls


def ends(process: subprocess.Popen[str]) -> str:
    """Wait for the end; returns what it said."""
    return process.communicate(timeout=DEADLINE_S)[0]


def stopped(process: subprocess.Popen[str]) -> str:
    """Stop a service as a person does; it ends well. Returns what it said."""
    process.send_signal(signal.SIGINT)
    said = ends(process)
    assert process.returncode == 0, said
    return said


def child(process: subprocess.Popen[str], word: str) -> psutil.Process | None:
    """Child of a service that was started as ``ffb WORD``; None while there is none."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for c in psutil.Process(process.pid).children():
            if c.status() != psutil.STATUS_ZOMBIE and word in c.cmdline():
                return c
    return None


@contextlib.contextmanager
def frozen(process: psutil.Process) -> Iterator[None]:
    """Meanwhile the process stands still, in truth and not only on its way to it."""
    process.send_signal(signal.SIGSTOP)
    while process.status() != psutil.STATUS_STOPPED:
        time.sleep(0.001)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def path_in(folder: Path) -> Path:
    """File of the run of a synthetic stream."""
    return folder / "hdf5" / "smalldata" / "tstx00001_Run0001.h5"


def committed(path: Path) -> int:
    """Committed rows; 0 while there is no file."""
    if not path.exists():
        return 0
    with ffb.open(path) as run:
        return run.committed


def assert_whole(run: RunFile, producers: int = 2) -> None:
    """A synthetic run that was stopped has every shot once up to where each producer stopped.

    The last one that a producer read may be lost, ``"stopped"``: what it holds while its window is
    full.
    """
    assert run.complete
    counts, pulses, of = run.counts, run["pulse_id"][:], run["ffb/producer"][:]
    lost = sum(counts.lost.values())
    assert counts.written == run.committed == pulses.size
    assert counts.read == counts.written + lost
    assert set(counts.lost) <= {"stopped"}
    assert lost <= producers
    first, step = 1_000_000, 7583  # pulse ids of ffb.sources.synthetic
    shares = [np.sort((pulses[of == p].astype(int) - first) // step) for p in np.unique(of)]
    assert sorted(s[0] for s in shares) == [*range(producers)]
    assert all((np.diff(s) == producers).all() for s in shares), "a shot is missing, or there twice"
