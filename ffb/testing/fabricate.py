"""Fabricate runs: one event-built file, a directory of streams, or a directory that grows.

What is in them is said by a :class:`RunSpec`, which also tells a test what to expect.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from ffb.sources.xtc2_specs import Service
from ffb.sources.xtc2_writer import Xtc2Writer
from ffb.testing.streams import Mark, Stream, max_bytes, play
from ffb.testing.truth import GROUPS, RunSpec

__all__ = ["GROUPS", "LiveWriter", "RunSpec", "save_constants", "write_experiment", "write_run"]

#: How the groups of detectors are spread over the streams of an experiment directory.
STREAMS = (("timing", "beam"), ("area",), ("time_tool", "waveforms", "hutch"), ("epics",))


def write_run(path: str | Path, spec: RunSpec) -> Path:
    """Write the run as one event-built file, for a shared-memory server or ``files=``."""
    path = Path(path)
    writer = Xtc2Writer(path, spec.exp, spec.run, max_bytes=max_bytes(spec))
    stream = Stream(spec, writer, spec.groups)
    for mark in play(spec):
        stream.put(mark)
    writer.close()
    return path


def write_experiment(directory: str | Path, spec: RunSpec) -> Path:
    """Write the run as the DAQ does: several streams with their smalldata. Returns the directory.

    ``EXP-rRRRR-sSSS-cCCC.xtc2`` and ``smalldata/EXP-rRRRR-sSSS-cCCC.smd.xtc2``.
    """
    live = LiveWriter(directory, spec)
    live.finish()
    return Path(directory)


class LiveWriter:
    """Grow an experiment directory the way the DAQ does, shot by shot.

    ``inprogress`` appends ``.inprogress`` to all names until the run is over, as on the analysis
    file system; the psffb has final names from the start. The files exist, with Configure and
    BeginRun in them, as soon as the writer does.
    """

    def __init__(self, directory: str | Path, spec: RunSpec, *, inprogress: bool = False) -> None:
        self.spec, self.written = spec, 0
        self._final: list[tuple[Path, Path]] = []
        suffix = ".inprogress" if inprogress else ""
        directory = Path(directory)
        (directory / "smalldata").mkdir(parents=True, exist_ok=True)
        self._streams: list[Stream] = []
        for n, groups in enumerate(STREAMS):
            wanted = tuple(g for g in groups if g in spec.groups)
            if not wanted:
                continue
            name = f"{spec.exp}-r{spec.run:04d}-s{n:03d}-c000"
            final = directory / f"{name}.xtc2", directory / "smalldata" / f"{name}.smd.xtc2"
            paths = [p.with_name(p.name + suffix) for p in final]
            self._final += list(zip(paths, final, strict=True))
            writer = Xtc2Writer(
                paths[0], spec.exp, spec.run, node=n + 1, smd=paths[1], max_bytes=max_bytes(spec)
            )
            self._streams.append(Stream(spec, writer, wanted))
        self._marks = play(spec)
        self._put(next(self._marks))

    def _put(self, mark: Mark) -> None:
        for stream in self._streams:
            stream.put(mark)
        for stream in self._streams:
            stream.writer.flush()

    def advance(self, shots: int = 1) -> int:
        """Write up to ``shots`` more shots, with the transitions before them; returns how many."""
        wanted = min(self.written + shots, self.spec.shots)
        done = wanted - self.written
        while self.written < wanted:
            mark = next(self._marks)
            self._put(mark)
            self.written += mark.service == Service.L1_ACCEPT
        return done

    def play(self, rate: float, *, stall_at: int = -1, stall: float = 0.0) -> None:
        """Write the remaining shots at ``rate`` Hz, with a pause of ``stall`` s at a shot."""
        due = time.monotonic()
        while self.written < self.spec.shots:
            due += 1.0 / rate + (stall if self.written == stall_at else 0.0)
            time.sleep(max(0.0, due - time.monotonic()))
            self.advance()

    def finish(self) -> None:
        """Write what remains up to EndRun, close, and give the files their final names."""
        for mark in self._marks:
            self._put(mark)
        self.written = self.spec.shots
        self.abandon()
        for path, final in self._final:
            path.rename(final)

    def abandon(self) -> None:
        """Close the files as they are: no EndRun, no final names."""
        for stream in self._streams:
            stream.writer.close()


def save_constants(
    directory: str | Path, spec: RunSpec, detector: str = "jungfrau"
) -> dict[str, Path]:
    """Write the constants of ``detector`` ("jungfrau", "epixquad") for use from a configuration.

    Returns the path of each: ``pedestals``, ``gain``, ``status`` and for the Jungfrau ``offset``,
    as ``.npy``, and ``geometry`` as a text in psana's format.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    arrays = spec.constants if detector == "jungfrau" else spec.epix_constants
    paths = {name: directory / f"{name}.npy" for name in arrays}
    for name, path in paths.items():
        np.save(path, arrays[name])
    if detector == "jungfrau":
        paths["geometry"] = directory / "geometry.data"
        paths["geometry"].write_text(spec.geometry)
    return paths


def main() -> None:
    """Fabricate a run from the command line."""
    p = argparse.ArgumentParser(prog="python -m ffb.testing.fabricate", description=__doc__)
    p.add_argument("out", type=Path, help="FILE.xtc2, or a directory for streams and smalldata")
    p.add_argument("--exp", default=RunSpec.exp)
    p.add_argument("--run", type=int, default=RunSpec.run)
    p.add_argument("--steps", type=int, default=RunSpec.steps)
    p.add_argument("--shots", type=int, default=RunSpec.shots_per_step, help="per step")
    p.add_argument("--segments", type=int, default=1, help="1: 0.5 Mpx, 8: 4 Mpx; 0: none")
    p.add_argument("--epix", type=int, default=0, help="segments of an epix10ka")
    p.add_argument("--rate", type=float, default=RunSpec.rate, help="Hz")
    p.add_argument("--live", action="store_true", help="grow the directory at this rate")
    p.add_argument("--inprogress", action="store_true", help="temporary names while growing")
    a = p.parse_args()
    spec = RunSpec(
        exp=a.exp, run=a.run, steps=a.steps, shots_per_step=a.shots, segments=a.segments,
        epix=a.epix, rate=a.rate, t0=time.time_ns() if a.live else RunSpec.t0,
    )  # fmt: skip
    if a.out.suffix == ".xtc2":
        write_run(a.out, spec)
    else:
        live = LiveWriter(a.out, spec, inprogress=a.inprogress)
        if a.live:
            live.play(a.rate)
        live.finish()


if __name__ == "__main__":
    main()
