"""Kill -9 the writer at any moment, in each mode: every file opens, no committed row is missing.

Segments are small, so that rolls are hit; runs end now and then, so that merges are; and every
second restart is a recovery that is killed as well.

Usage: python -m tests.soak.writer_kills [kills in each mode] [seed]
"""

from __future__ import annotations

import logging
import multiprocessing
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from ffb import reader
from ffb.reading.contents import FOLDER
from ffb.writers.chain import Rolling
from ffb.writers.consolidate import merge
from ffb.writers.recover import recover_command
from tests.process.written import NAME, assert_plain, assert_true, write

SPAWN = multiprocessing.get_context("forkserver")
SPAWN.set_forkserver_preload(["tests.soak.writer_kills"])

MODES = [(sync_s, codec) for sync_s in (0.0, 1.0) for codec in ("", "bitshuffle-lz4")]

#: Rows after which a run ends and is merged.
ROWS = 5_000


def work(folder: Path, pipe: Connection, sync_s: float, codec: str, seed: int, heal: bool) -> None:
    """Continue the run, tell what is committed; recover it before, if told so."""
    logging.disable()
    if ended(folder):  # and was killed before all of it was one plain file
        recover_command(folder / NAME, say=lambda _: None)
        if (folder / NAME).with_suffix(FOLDER).exists():
            merge(folder / NAME)
        pipe.send(ROWS)
        return
    if heal:
        recover_command(folder / NAME, say=lambda _: None)
        pipe.send(0)
    rolling = Rolling(segment_rows=1024, segment_s=0.4, sync_s=sync_s)
    for row in write(folder, ROWS, rolling, codec, seed, end=True):
        pipe.send(row)


def ended(folder: Path) -> bool:
    """Whether the run needs nothing but its merge."""
    if not (folder / NAME).exists():
        return False
    with reader.open(folder / NAME) as run:
        return run.complete


def kill_once(folder: Path, mode: tuple[float, str], rng: np.random.Generator) -> tuple[int, str]:
    """Let a writer work for a while and kill it; return the rows it told of, and where it was."""
    ours, theirs = SPAWN.Pipe()
    heal = bool(rng.random() < 0.5) and folder.exists()
    child = SPAWN.Process(target=work, args=(folder, theirs, *mode, int(rng.integers(99)), heal))
    child.start()
    theirs.close()
    said, words = 0, 0
    # At any moment, while it writes, or when all rows are there and only the merge is not.
    patience, when = [(1.0, 0), (1.0, 1), (0.6, ROWS)][rng.choice(3, p=[0.3, 0.5, 0.2])]
    deadline = time.monotonic() + (60.0 if when else rng.uniform(0, patience))
    try:
        while (left := deadline - time.monotonic()) > 0 and ours.poll(left):
            said, words = max(said, ours.recv()), words + 1
            if 0 < when <= said:
                when, deadline = 0, time.monotonic() + rng.uniform(0, patience)
        child.kill()
        while True:
            said, words = max(said, ours.recv()), words + 1
    except EOFError:
        child.join()
    if child.exitcode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"the writer ended with {child.exitcode}")
    if child.exitcode == 0:
        return said, "ended by itself"
    beginning = "during recovery" if heal else "while it began"
    return (
        said,
        beginning if not words else "during the merge" if said == ROWS else "while it wrote",
    )


def look(folder: Path, told: int, codec: str, rows: int = 1500) -> bool:
    """Every row told of is there and right; say whether the run has ended."""
    path = folder / NAME
    if not path.exists():
        assert told == 0, f"{told} rows committed, and no file"
        return False
    with reader.open(path) as run:
        assert run.committed >= told, (run.committed, told)
        assert_true(run, codec, rows, settled=run.complete)
        return run.complete


def mode(kills: int, which: tuple[float, str], seed: int, folder: Path) -> Counter[str]:
    """Kill so often; each run that ends is checked wholly and followed by another one."""
    rng, done, told = np.random.default_rng(seed), Counter[str](), 0
    while sum(n for k, n in done.items() if "killed" in k) < kills:
        said, where = kill_once(folder, which, rng)
        done[where if where == "ended by itself" else f"killed {where}"] += 1
        told = max(told, said)
        complete = look(folder, told, which[1])
        if complete and not (folder / NAME).with_suffix(FOLDER).exists():
            look(folder, told, which[1], 1 << 40)
            assert_plain(folder / NAME, ROWS, which[1])
            left = sorted(p.name for p in folder.iterdir() if p.suffix != ".lock")
            assert left == [NAME], left
            shutil.rmtree(folder)
            done["runs checked whole"], told = done["runs checked whole"] + 1, 0
    return done


def main(kills: int = 100, seed: int = 0) -> None:
    """Soak every mode, and print what was hit."""
    for which in MODES:
        root, begun = Path(tempfile.mkdtemp()), time.monotonic()
        try:
            done = mode(kills, which, seed, root / "run")
        except BaseException:
            print(f"what is left is in {root}")
            raise
        shutil.rmtree(root)
        took = time.monotonic() - begun
        name = f"sync_s={which[0]:g} {which[1] or 'uncompressed'}"
        print(f"{name}: {took:.0f} s: {dict(done)}; committed rows missing: 0", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
