"""`ffb demo`: the whole service on a fabricated run, on this machine, in half a minute."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.status import Status
from rich.table import Table

import ffb.reader
from ffb import config
from ffb.service import processes
from ffb.supervise import Child

#: Room a fabricated shot takes, one segment of a Jungfrau and the rest [bytes].
SHOT_BYTES = 1_070_000

#: Steps of the delay scan.
STEPS = 15


def main(args: argparse.Namespace) -> int:
    """Fabricate, serve, reduce, write, show; 0 when every process ended well and books balance."""
    console = Console()
    out = Path(args.out or tempfile.mkdtemp(prefix="ffb-demo-")).resolve()
    out.mkdir(parents=True, exist_ok=True)
    steps = min(STEPS, max(1, round(args.rate * args.seconds)))
    per_step = max(1, round(args.rate * args.seconds / steps))
    tag = f"ffb{os.getpid()}"
    settings = config.load(_configure(out, tag, args.port))
    stream = _fabricate(out, steps, per_step, args.rate, console)

    def serve(logs: Path) -> list[Child]:
        words = [sys.executable, "-m", "ffb.testing.shmem_server", str(stream), "--now"]
        words += ["--tag", tag, "--clients", str(settings.run.producers), "--rate", f"{args.rate}"]
        return [Child("stream", words, keeps=False, log=logs / "stream.log")]

    before = _files(out)
    try:
        code = processes.run(settings, page=not args.no_page, once=True, first=serve)
    finally:
        stream.unlink()
    return _summary(_files(out) - before, steps * per_step, console) or code


def _files(out: Path) -> set[Path]:
    return set(out.glob("hdf5/smalldata/*.h5"))


def _fabricate(out: Path, steps: int, per_step: int, rate: float, console: Console) -> Path:
    """Write the run and its constants; raises ``OSError`` with a sentence when there is no room."""
    from ffb.testing.fabricate import RunSpec, save_constants, write_run

    need, free = steps * per_step * SHOT_BYTES, shutil.disk_usage(out).free
    if need > 0.9 * free:
        raise OSError(
            f"{out}: the run of this demo needs {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are"
            " free; shorten it with --seconds, or choose another folder with --out"
        )
    spec = RunSpec(
        steps=steps,
        shots_per_step=per_step,
        rate=rate,
        gap=0.05,
        tt_missing=29,
        area_missing=97,
    )
    what = f"fabricating {spec.exp} run {spec.run}: {spec.shots:,} shots, {need / 1e9:.1f} GB"
    began = time.monotonic()
    with Status(what, console=console):
        path = write_run(out / "run.xtc2", spec)
        save_constants(out, spec)
    console.print(f"{what}: {time.monotonic() - began:.1f} s", highlight=False)
    return path


def _configure(out: Path, tag: str, port: int) -> Path:
    """Write the configuration of the demo beside its run."""
    text = (Path(__file__).parents[1] / "demo.toml").read_text().replace('"TAG"', json.dumps(tag))
    constants = "".join(
        f'{kind} = "{kind}.npy"\n' for kind in ("pedestals", "gain", "offset", "status")
    )
    constants += 'geometry = "geometry.data"\n'
    text += f"\n[calibration.jungfrau]\n{constants}\n[writer]\nscratch = {json.dumps(str(out))}\n"
    text += f"\n[dashboard]\nport = {port}\n"
    file = out / "demo.toml"
    file.write_text(text)
    return file


def _summary(files: set[Path], served: int, console: Console) -> int:
    """Say what became of every shot, as the file tells it; 0 when that adds up."""
    if len(files) != 1:
        console.print(f"{len(files)} files were written; there should be one", style="red")
        return 1
    (file,) = files
    with ffb.reader.open(file) as run:
        counts, rows, complete = run.counts, run.committed, run.complete
    lost = sum(counts.lost.values())
    console.print("what became of every shot:")
    table = Table(show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    for name, n in [
        ("served", served),
        ("read", counts.read),
        ("written", counts.written),
        *((f"lost: {reason}", n) for reason, n in counts.lost.items()),
        *([("served, never read", served - counts.read)] if served > counts.read else []),
    ]:
        table.add_row(name, f"{n:,}")
    console.print(table)
    balanced = counts.read == counts.written + lost and rows == counts.written
    verdict = f"read = written + lost: {counts.read:,} = {counts.written:,} + {lost:,}"
    word = "the books balance" if balanced else "THE BOOKS DO NOT BALANCE"
    console.print(f"{verdict}; {word}", style="green" if balanced else "red", highlight=False)
    size = file.stat().st_size / 1e6
    state = "complete" if complete else "not complete"
    console.print(f"{file}  {size:.1f} MB, {state}", highlight=False, soft_wrap=True)
    return 0 if balanced and complete else 1
