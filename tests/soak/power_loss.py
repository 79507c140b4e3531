"""Emulated power failures of a writer: nothing acknowledged before the last sync may be lost.

One that syncs every commit loses nothing acknowledged at all. One that does so now and then loses
what came after the last sync, and its books say so; every row reads back as it was written.

Usage: python -m tests.soak.power_loss [images] [seed]
"""

from __future__ import annotations

import itertools
import logging
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np

from ffb import reader
from ffb.books.audit import audit
from ffb.reading.contents import FOLDER
from ffb.writers import chain
from ffb.writers.chain import Rolling
from ffb.writers.recover import Healed, heal
from tests.process.power import Recording
from tests.process.written import NAME, assert_plain, assert_true, write

#: Calls of the writer's clock between two syncs, where it does not sync every commit.
NOW_AND_THEN = 10


def record(folder: Path, rows: int, codec: str, seed: int, sync_s: float = 0) -> Recording:
    """Write a run with power that may fail at any moment."""
    folder.mkdir()
    recording, rolling = Recording(folder, seed), Rolling(1024, 1e9, sync_s)
    clock = SimpleNamespace(monotonic=itertools.count().__next__)
    with recording.on(), mock.patch.object(chain, "time", clock):
        for acknowledged in write(folder, rows, rolling, codec, seed):
            recording.say(acknowledged)
    return recording


def check(recording: Recording, image: Path, cut: int, codec: str, rng: np.random.Generator) -> str:
    """Heal what a power failure at ``cut`` leaves, and look for every row that has to be there."""
    recording.image(cut, image, rng)
    acknowledged = max([0, *recording.safe(Path(NAME).with_suffix(FOLDER) / "journal", cut)])
    try:
        healed = heal(image / NAME)
    except FileNotFoundError:
        assert acknowledged == 0, f"{acknowledged} acknowledged rows, and nothing found"
        return "nothing was committed"
    assert not healed.lost, healed.lost
    assert healed.rows >= acknowledged, (healed.rows, acknowledged, healed.notes)
    if not healed.segments:
        assert acknowledged == 0
        return "nothing was committed"
    with reader.open(image / NAME) as run:
        assert run.committed == healed.rows
        assert_true(run, codec)
    report = audit(image / NAME)
    assert not report.problems, report.problems
    assert_plain(image / NAME, healed.rows, codec)
    return what_was_done(healed)


def what_was_done(healed: Healed) -> str:
    if any("entered as lost" in n for n in healed.notes):
        return "commits were not synced"
    return "a segment was rebuilt" if any("rebuilt" in n for n in healed.notes) else "all was whole"


def cuts(recording: Recording, rng: np.random.Generator, n: int) -> list[int]:
    """Moments at which power fails: most right before a sync, when most is missing."""
    risky = rng.choice(recording.risky, n)
    return [int(c if i % 4 else rng.integers(recording.moment + 1)) for i, c in enumerate(risky)]


def main(images: int = 400, seed: int = 0) -> None:
    logging.disable(logging.WARNING)
    rng, root = np.random.default_rng(seed), Path(tempfile.mkdtemp())
    try:
        for codec, sync_s in itertools.product(("", "bitshuffle-lz4"), (0, NOW_AND_THEN)):
            recording = record(root / "run", 4000, codec, seed, sync_s)
            done: Counter[str] = Counter()
            begun, n = time.monotonic(), images // 4
            for i, cut in enumerate(cuts(recording, rng, n)):
                done[check(recording, root / f"image{i}", cut, codec, rng)] += 1
                shutil.rmtree(root / f"image{i}")
            recording.close()
            shutil.rmtree(root / "run")
            took = time.monotonic() - begun
            print(
                f"{codec or 'uncompressed'}, {'now and then' if sync_s else 'every commit'} synced:"
                f" {n} images, {took:.0f} s: {dict(done)}; rows lost that were acknowledged before"
                " the last sync: in 0 images",
                flush=True,
            )
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
