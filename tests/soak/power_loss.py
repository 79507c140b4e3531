"""Emulated power failures of a writer that syncs every commit: nothing acknowledged may be lost.

Usage: python -m tests.soak.power_loss [images] [seed]
"""

from __future__ import annotations

import logging
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from ffb import reader
from ffb.writers.chain import Rolling
from ffb.writers.recover import Healed, heal
from tests.process.power import Recording
from tests.process.written import NAME, assert_plain, assert_true, write

ROLLING = Rolling(segment_rows=1024, segment_s=600.0, sync_s=0.0)


def record(folder: Path, rows: int, codec: str, seed: int, **more: object) -> Recording:
    """Write a run with power that may fail at any moment."""
    folder.mkdir()
    recording = Recording(folder, seed, **more)
    with recording.on():
        for acknowledged in write(folder, rows, ROLLING, codec, seed):
            recording.say(acknowledged)
    return recording


def check(recording: Recording, image: Path, cut: int, codec: str, rng: np.random.Generator) -> str:
    """Heal what a power failure at ``cut`` leaves, and look for every acknowledged row."""
    acknowledged = max([0, *recording.image(cut, image, rng)])
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
    assert_plain(image / NAME, healed.rows, codec)
    return what_was_done(healed)


def what_was_done(healed: Healed) -> str:
    return "a segment was rebuilt" if any("rebuilt" in n for n in healed.notes) else "all was whole"


def cuts(recording: Recording, rng: np.random.Generator, n: int) -> list[int]:
    """Moments at which power fails: most right before a sync, when most is missing."""
    risky = rng.choice(recording.risky, n)
    return [int(c if i % 4 else rng.integers(recording.moment + 1)) for i, c in enumerate(risky)]


def main(images: int = 400, seed: int = 0) -> None:
    logging.disable(logging.WARNING)
    rng, root = np.random.default_rng(seed), Path(tempfile.mkdtemp())
    try:
        for codec in ("", "bitshuffle-lz4"):
            recording = record(root / "run", 4000, codec, seed)
            done: Counter[str] = Counter()
            begun = time.monotonic()
            for i, cut in enumerate(cuts(recording, rng, images // 2)):
                done[check(recording, root / f"image{i}", cut, codec, rng)] += 1
                shutil.rmtree(root / f"image{i}")
            recording.close()
            shutil.rmtree(root / "run")
            took = time.monotonic() - begun
            print(
                f"{codec or 'uncompressed'}: {images // 2} images, {took:.0f} s: {dict(done)};"
                " acknowledged rows lost in 0 images"
            )
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
