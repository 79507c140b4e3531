"""A stream of small shots, run after run, until told to stop; and the truth about it."""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffb.shot import timestamp_of
from ffb.sources.xtc2_specs import Service
from ffb.testing.fabricate import write_run
from ffb.testing.playback import Player, load, service
from ffb.testing.shmem_server import ShmemServer
from ffb.testing.truth import RunSpec

HOUR = 3_600_000_000_000
GATE, BASELINE = slice(20, 90), slice(0, 20)

#: The shape of the waveform is not stated: whoever comes has to learn it from the first shots.
INPUTS = {
    "pulse": {"detector": "w8", "field": "raw_0"},
    '"gasdet/f11ENRC"': {"detector": "gasdet", "field": "f11ENRC", "unit": "mJ", "record": True},
}
LIGHT = {"laser": {"on": [90], "off": [91]}, "xray": {"on": [40], "off": [162]}}
DIODE = {
    "use": "waveform_integral",
    "inputs": "pulse",
    "params": {"gate": [20, 90], "baseline": [0, 20], "dt": 1.0},
}


def spec_of(shots: int) -> RunSpec:
    """A run of many small shots, that no other ever was."""
    groups, now = ("timing", "waveforms", "beam", "epics"), time.time_ns() // 10**9 * 10**9
    return RunSpec(steps=5, shots_per_step=shots // 5, groups=groups, gap=0.01, t0=now)


def truth(spec: RunSpec) -> dict[str, NDArray[Any]]:
    """Columns of the run as they must be, from the specification alone, in shot order."""
    shots, waves = range(spec.shots), []
    for i in shots:
        wave = spec.wave(i, 0).astype(np.float64)
        waves.append((wave[GATE] - wave[BASELINE].mean()).sum())
    light = [spec.light(i) for i in shots]
    return {
        "timestamp": np.array([spec.timestamp(i) for i in shots], np.uint64),
        "pulse_id": np.array([spec.pulse_id(i) for i in shots], np.uint64),
        "step": np.array([spec.step(i) for i in shots]),
        "lightStatus/xray": np.array([x.xray for x in light], np.int8),
        "lightStatus/laser": np.array([x.laser for x in light], np.int8),
        "gasdet/f11ENRC": np.array([spec.i0(i) for i in shots]),
        "diode/area": np.array(waves),
    }


def stamps_of(spec: RunSpec, loop: int) -> NDArray[np.uint64]:
    """Timestamps of the run when it is played for the ``loop``-th time."""
    return np.array(
        [timestamp_of(spec.time(i) + loop * HOUR) for i in range(spec.shots)], np.uint64
    )


class Endless(Player):
    """Plays a tape again and again, until ``stop`` exists when a run is over.

    A line of JSON says after each run what the server did with its shots, and under ``lost`` which
    of them were in the queues and hands of clients that died.
    """

    def __init__(self, server: ShmemServer, stop: Path, told: Path, **more: Any) -> None:
        super().__init__(server, **more)
        self._stop, self._told = stop, told
        self._before: dict[str, int] = {}

    def play(self, tapes: Sequence[Sequence[memoryview]]) -> None:
        """Play until told to stop."""
        (tape,) = tapes
        configure = next(d for d in tape if service(d) == Service.CONFIGURE)
        for loop in itertools.count():
            for dgram in tape:
                kind = service(dgram)
                if kind == Service.L1_ACCEPT:
                    self._shot(dgram)
                else:
                    self._transition(kind, dgram, configure, loop)
            self.server.drain()
            self._tell(loop)
            if self._stop.exists():
                return

    def _tell(self, loop: int) -> None:
        now = dict(self.server.stats)
        one = {k: n - self._before.get(k, 0) for k, n in now.items()}
        self._before = now
        lost, self.server.lost = self.server.lost, []
        with self._told.open("a") as f:
            f.write(json.dumps({"loop": loop, **one, "lost": lost}) + "\n")


def told(folder: Path) -> Iterator[dict[str, Any]]:
    """What the server said of each run."""
    for line in (folder / "served.jsonl").read_text().splitlines():
        yield json.loads(line)


def serve(folder: Path, tag: str, clients: int, rate: float) -> None:
    """Serve ``run.xtc2`` of a folder until ``stop`` is there."""
    tape = load(folder / "run.xtc2")
    size = -(-max(map(len, tape)) // 4096) * 4096
    server = ShmemServer(tag, clients, 9, size)
    try:
        server.wait_clients(clients)
        player = Endless(server, folder / "stop", folder / "served.jsonl", rate=rate, settle=0.2)
        player.play([tape])
        for _ in range(20):  # whoever was told of the end takes it
            server.poll(0.1)
    finally:
        server.close()


def fabricate(folder: Path, spec: RunSpec) -> None:
    """Write the run that is served."""
    write_run(folder / "run.xtc2", spec)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
