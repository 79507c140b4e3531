"""Short runs in a row, unattended, with a stream that begins anew in the middle; then every file.

`ffb run` with two producers on shared memory is started once and left alone. Runs of two kinds
take turns: the waveforms of one are longer than those of the other, which no configuration tells.
In the middle the server dies within a run, and another goes on with the next one. Afterwards each
run has one file, whose every value equals the truth, and whose books balance; nothing is lost but
what the server took with it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import ffb
from ffb.sources.xtc2_specs import Service
from ffb.testing.fabricate import write_run
from ffb.testing.playback import Player, load, service
from ffb.testing.shmem_server import ShmemServer, clean
from ffb.testing.truth import RunSpec
from tests.soak.kills import EXP, FIRST_RUN, complete
from tests.soak.served import DIODE, INPUTS, LIGHT, spec_of, stamps_of, truth
from tests.soak.world import problems_of, toml, wait_for, world

#: Hz at which shots are served; clients of the server, which are our producers.
RATE, CLIENTS = 400.0, 2


class Longer(RunSpec):
    """A run of longer waveforms."""

    def wave(self, i: int, channel: int, samples: int = 192) -> Any:
        """See :class:`RunSpec`."""
        return super().wave(i, channel, samples)


def specs_of(shots: int) -> tuple[RunSpec, RunSpec]:
    """The two kinds of runs."""
    first = spec_of(shots)
    return first, Longer(**vars(first))


def configure(folder: Path, tag: str) -> Path:
    """A configuration as people write it, but for the place of the sockets."""
    tables = {
        "source": {"kind": "psana", "exp": EXP, "shmem": tag},
        "inputs": INPUTS,
        "light": LIGHT,
        "reducers.diode": DIODE,
        "transport": {"aggregator": f"ipc://{folder}/a", "views": f"ipc://{folder}/v"},
        "run": {"producers": CLIENTS},
    }
    file = folder / "runs.toml"
    file.write_text(toml(tables))
    return file


class Row(Player):
    """Plays runs ``first`` to ``last`` (not included), and dies half-way through run ``dies``."""

    def runs(self, tapes: list[list[memoryview]], first: int, last: int, dies: int) -> None:
        """Play."""
        for run in range(first, last):
            tape = tapes[run % len(tapes)]
            configure, shots = tape[0], sum(service(d) == Service.L1_ACCEPT for d in tape)
            for dgram in tape:
                kind = service(dgram)
                if kind != Service.L1_ACCEPT:
                    self._transition(kind, dgram, configure, run)
                    continue
                shots -= 1
                self._shot(dgram)
                if run == dies and shots == len(tape) // 2:
                    os._exit(9)
        self.server.drain()


def serve(folder: Path, tag: str, first: int, last: int, dies: int) -> None:
    """Serve the tapes of a folder."""
    tapes = [load(folder / f"{k}.xtc2") for k in (0, 1)]
    size = -(-max(len(d) for tape in tapes for d in tape) // 4096) * 4096
    server = ShmemServer(tag, CLIENTS, 8, size)
    try:
        server.wait_clients(CLIENTS)
        Row(server, rate=RATE, settle=0.2).runs(tapes, first, last, dies)
        for _ in range(20):  # whoever was told of the end takes it
            server.poll(0.1)
    finally:
        server.close()


def check(path: Path, spec: RunSpec, loop: int, *, cut: bool) -> list[str]:
    """What is wrong with the file of a run; one whose server died holds a part of it."""
    if not path.exists():
        return ["there is no file"]
    wrong, expected = problems_of(path), truth(spec)
    expected["timestamp"] = stamps_of(spec, loop)
    with ffb.open(path) as run:
        stamps, lost = run["timestamp"][:], sum(run.counts.lost.values())
        at = np.searchsorted(expected["timestamp"], stamps)
        if not cut and (lost or stamps.size != spec.shots):
            wrong.append(f"{stamps.size} of {spec.shots} rows, {dict(run.counts.lost)} lost")
        if cut and not 0 < stamps.size < spec.shots:
            wrong.append(f"{stamps.size} rows, though its server died half-way")
        for name, values in expected.items():
            exact = values.dtype.kind != "f"
            got, want = run[name][:], values[np.minimum(at, spec.shots - 1)]
            good = got == want if exact else np.isclose(got, want, 1e-9, 1e-9)
            if not good.all():
                wrong.append(f"{name}: {np.count_nonzero(~good)} rows are not the truth")
    return wrong


def runs(folder: Path, number: int, shots: int) -> int:
    """Do it; returns how much is wrong."""
    tag, began = f"ffb{os.getpid()}xruns", time.monotonic()
    specs, dies = specs_of(shots), number // 2
    for k, spec in enumerate(specs):
        write_run(folder / f"{k}.xtc2", spec)
    file, files = configure(folder, tag), folder / "hdf5" / "smalldata"
    paths = [files / f"{EXP}_Run{FIRST_RUN + k:04d}.h5" for k in range(number)]
    with world(folder) as here:
        try:
            service = here.ffb("service", "run", file, "--no-page")
            for name, first in (("server", 0), ("again", dies + 1)):
                words = (folder, tag, first, number, dies if name == "server" else -1)
                here.start(name, "tests.soak.runs", "--serve", *words).wait()
            wait_for(lambda: complete(paths[-1]), "the end of the last run", 120)
            service.send_signal(signal.SIGINT)
            status = service.wait(60)
        finally:
            clean(tag)
        said = here.said("service")
    wrong = 0 if status == 0 else 1
    if status:
        print(f"WRONG: ffb run ended with {status}: {said[-500:]}")
    for k, path in enumerate(paths):
        for problem in check(path, specs[k % 2], k, cut=k == dies):
            print(f"run {FIRST_RUN + k}: WRONG: {problem}", flush=True)
            wrong += 1
    for extra in sorted({*files.glob("*.h5")} - {*paths}):
        print(f"WRONG: {extra.name} is no file of a run")
        wrong += 1
    rows = 0
    for path in filter(Path.exists, paths):
        with ffb.open(path) as run:
            rows += run.committed
    print(f"{number} runs of {shots} shots, {rows:,} rows in {time.monotonic() - began:.0f} s")
    return wrong


def main() -> int:
    """Run; 0 when every file is right."""
    p = argparse.ArgumentParser(prog="python -m tests.soak.runs", description=__doc__)
    p.add_argument("--runs", type=int, default=20)
    p.add_argument("--shots", type=int, default=300, help="of each run")
    p.add_argument("--serve", nargs=5, help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.serve:
        folder, tag, *numbers = a.serve
        serve(Path(folder), tag, *map(int, numbers))
        return 0
    with tempfile.TemporaryDirectory(prefix="ffb-runs-") as folder:
        wrong = runs(Path(folder), a.runs, a.shots)
    print(f"runs: {'every file is right' if not wrong else 'FAILED'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
