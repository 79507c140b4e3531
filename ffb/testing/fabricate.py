"""Fabricate runs: one event-built file, a directory of streams, or a directory that grows.

What is in them is said by a :class:`RunSpec`, which also tells a test what to expect.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ffb.sources.xtc2_specs import (
    SPECS,
    Service,
    epics_spec,
    epicsinfo_spec,
    hsd_record,
    scan_spec,
    timing_record,
)
from ffb.sources.xtc2_writer import CORRUPTED, Record, Slot, Xtc2Writer
from ffb.testing import hutch
from ffb.testing.truth import GROUPS, RunSpec

__all__ = ["GROUPS", "LiveWriter", "RunSpec", "save_constants", "write_experiment", "write_run"]

#: How the groups of detectors are spread over the streams of an experiment directory.
STREAMS = (("timing", "beam"), ("area",), ("time_tool", "waveforms", "hutch"), ("epics",))

EPICS_NAMES = {"lxt_vitara": "LAS:FS11:VIT:FS_TGT_TIME", "sample_name": "MFX:SAMPLE:NAME"}

_MS = 1_000_000
_ZEROS = np.zeros(4, np.uint16)


class _Mark(NamedTuple):
    """One dgram to write: ``number`` is its shot, step or slow-control update."""

    service: Service
    time: int
    number: int = 0


def _play(spec: RunSpec) -> Iterator[_Mark]:
    """Every dgram of the run in order, BeginRun to EndRun; transitions lie in the gaps."""
    yield _Mark(Service.BEGIN_RUN, spec.t0 + _MS)
    for step in range(spec.steps):
        first = step * spec.shots_per_step
        begin = spec.time(first) - 5 * _MS
        yield _Mark(Service.BEGIN_STEP, begin, step)
        yield _Mark(Service.ENABLE, begin + _MS)
        for i in range(first, first + spec.shots_per_step):
            if (i - first) % spec.slow == 0:
                yield _Mark(Service.SLOW_UPDATE, spec.time(i) - _MS, spec.slow_index(i))
            yield _Mark(Service.L1_ACCEPT, spec.time(i), i)
        end = spec.time(first + spec.shots_per_step - 1) + 2 * _MS
        yield _Mark(Service.DISABLE, end)
        yield _Mark(Service.END_STEP, end + _MS)
    yield _Mark(Service.END_RUN, end + 2 * _MS)


Maker = Callable[[int], dict[str, Any] | None]


@dataclass
class _Stream:
    """A writer, and for each of its detectors what to write, by service."""

    spec: RunSpec
    writer: Xtc2Writer
    groups: tuple[str, ...]
    makers: dict[Service, list[tuple[Slot, Maker]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for group in self.groups:
            _DECLARE[group](self)
        self.writer.put(Service.CONFIGURE, self.spec.t0)
        self.writer.flush()

    def add(
        self,
        spec: str,
        name: str,
        maker: Maker,
        segment: int = 0,
        uid: str | None = None,
    ) -> None:
        """Declare a detector whose record in shot ``i`` is ``maker(i)``, ``None`` if missing."""
        slot = self.writer.declare(SPECS[spec], name, segment, uid=uid)
        self.makers.setdefault(Service.L1_ACCEPT, []).append((slot, maker))

    def put(self, mark: _Mark) -> None:
        """Write one dgram."""
        records: list[Record] = []
        for slot, maker in self.makers.get(mark.service, ()):
            values = maker(mark.number)
            if values is not None:
                records.append((slot, values))
        shot = mark.service == Service.L1_ACCEPT
        damage = CORRUPTED if shot and self.spec.corrupted(mark.number) else 0
        damaged = {}
        if shot:
            dropped = any(hutch.dropped(self.spec, name, mark.number) for name in hutch.NAMES)
            damage |= hutch.DROPPED if dropped and "hutch" in self.groups else 0
            words = {s: hutch.damage(self.spec, s.name, mark.number) for s, _ in records}
            damaged = {s: word for s, word in words.items() if word}
        self.writer.put(mark.service, mark.time, records, damage=damage, damaged=damaged)


def _timing(s: _Stream) -> None:
    spec = s.spec
    s.add("timing", "timing", lambda i: timing_record(spec.pulse_id(i), spec.codes(i)))
    scan = s.writer.declare(scan_spec(["lxt"]), "scan", uid="scan0")

    def values(step: int) -> dict[str, Any]:
        docstring = spec.docstring(step)
        return {"lxt": spec.motor(step), "step_value": float(step), "step_docstring": docstring}

    s.makers[Service.BEGIN_STEP] = [(scan, values)]


def _area(s: _Stream) -> None:
    spec = s.spec

    def jungfrau(segment: int, i: int) -> dict[str, Any] | None:
        if not spec.has_area(i):
            return None
        return {
            "raw": spec.raw(i)[segment][None], "frame_cnt": i, "timestamp": spec.pulse_id(i),
            "hotPixelThresh": 0, "numHotPixels": 0, "maxHotPixels": 0,
        }  # fmt: skip

    def epix(segment: int, i: int) -> dict[str, Any]:
        return {"raw": spec.raw_epix(i)[segment], "aux": np.zeros((4, 384))}

    for n in range(spec.segments):
        s.add("jungfrau", "jungfrau", partial(jungfrau, n), n, f"jf-sn{n:04d}")
    for n in range(spec.epix):
        s.add("epix10ka", "epixquad", partial(epix, n), n, f"epix-sn{n:04d}")
        s.writer.declare(
            SPECS["epix10ka_config"],
            "epixquad",
            n,
            uid=f"epix-sn{n:04d}",
            config=spec.epix_config(n),
        )


def _time_tool(s: _Stream) -> None:
    spec = s.spec

    def edge(i: int) -> dict[str, Any] | None:
        if not spec.has_time_tool(i):
            return None
        return {
            "ampl": spec.tt_ampl(i), "fltpos": spec.fltpos(i), "fltpos_ps": spec.fltpos_ps(i),
            "fltposfwhm": 80.0, "amplnxt": 0.01, "refampl": 1.0,
        }  # fmt: skip

    s.add("opal_ttfex", "tmo_opal", edge)
    s.add("opal", "tmo_opal", lambda i: {"image": spec.tt_image(i)} if spec.has_image(i) else None)


def _waveforms(s: _Stream) -> None:
    spec = s.spec

    def fex(i: int) -> dict[str, Any]:
        return {
            "itrigCount": i & 0xFFFF, "ptrigCount": i, "intensity": 1000.0 * spec.i0(i),
            "posX": 0.1, "posY": -0.1, **{f"base_{c}": 2000 for c in range(8)},
            **{f"integral_{c}": spec.wave_integral(i, c) for c in range(8)},
        }  # fmt: skip

    def hsd(i: int) -> dict[str, Any]:
        peaks = [(0, _ZEROS), (32, spec.wave(i, 0, 16)), (96, spec.wave(i, 0, 24))]
        return hsd_record(spec.wave(i, 0, 256), peaks)

    s.add("wave8", "w8", lambda i: {f"raw_{c}": spec.wave(i, c) for c in range(8)})
    s.add("wave8_fex", "w8", fex)
    s.add("hsd", "hsd", hsd)
    settings = {"baseline": 2048, "gate_ns": 2000, "ymin": 0, "ymax": 4095}
    names = SPECS["hsd_config"].fields
    config = {name: settings[name.rsplit(".", 1)[1]] for name in names}
    s.writer.declare(SPECS["hsd_config"], "hsd", config=config)


def _beam(s: _Stream) -> None:
    spec = s.spec
    ebeam = dict.fromkeys(SPECS["ebeam"].fields, 1.0) | {"damageMask": 0}

    def gmd(i: int) -> dict[str, Any]:
        energy = 1000.0 * spec.i0(i)
        rest = dict.fromkeys(SPECS["gmd"].fields, 0)
        return rest | {"energy": energy, "avgIntensity": energy}

    def monitor(i: int) -> dict[str, Any]:
        return {
            "totalIntensityJoules": 1e-3 * spec.i0(i), "xPositionMeters": 1e-5,
            "yPositionMeters": -1e-5, "peakAmplitude": spec.i0(i) * np.arange(16.0),
            "peakTime": np.arange(16),
        }  # fmt: skip

    s.add("ebeam", "ebeam", lambda i: ebeam | {"ebeamPhotonEnergy": spec.photon_energy(i)})
    s.add("gasdet", "gasdet", lambda i: dict.fromkeys(SPECS["gasdet"].fields, spec.i0(i)))
    s.add("gmd", "gmd", gmd)
    s.add("bmmon", "MfxDg1BmMon", monitor)
    pcav = {"fitTime1": 1.5, "fitTime2": -0.5, "charge1": 0.1, "charge2": 0.2}
    s.add("pcav", "pcav", lambda _: pcav)


def _epics(s: _Stream) -> None:
    spec = s.spec
    slot = s.writer.declare(epics_spec({"lxt_vitara": np.float64, "sample_name": str}), "epics")
    names = {"keys": "epicsname", **EPICS_NAMES}
    s.writer.declare(epicsinfo_spec(EPICS_NAMES), "epicsinfo", config=names)

    def values(k: int) -> dict[str, Any]:
        return {"StaleFlags": np.zeros(1), "lxt_vitara": spec.pv(k), "sample_name": spec.sample(k)}

    s.makers[Service.SLOW_UPDATE] = [(slot, values)]


def _hutch(s: _Stream) -> None:
    for name, alg in hutch.KINDS:
        s.add(hutch.KINDS[name, alg], name, partial(hutch.record, s.spec, name, alg))


_DECLARE: dict[str, Callable[[_Stream], None]] = {
    "timing": _timing,
    "area": _area,
    "time_tool": _time_tool,
    "waveforms": _waveforms,
    "beam": _beam,
    "epics": _epics,
    "hutch": _hutch,
}


def _max_bytes(spec: RunSpec) -> int:
    """Bound on the size of a dgram, Configure included."""
    return (1 << 20) * (spec.segments + 1) + (1 << 19) * spec.epix


def write_run(path: str | Path, spec: RunSpec) -> Path:
    """Write the run as one event-built file, for a shared-memory server or ``files=``."""
    path = Path(path)
    writer = Xtc2Writer(path, spec.exp, spec.run, max_bytes=_max_bytes(spec))
    stream = _Stream(spec, writer, spec.groups)
    for mark in _play(spec):
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
        self._streams: list[_Stream] = []
        for n, groups in enumerate(STREAMS):
            wanted = tuple(g for g in groups if g in spec.groups)
            if not wanted:
                continue
            name = f"{spec.exp}-r{spec.run:04d}-s{n:03d}-c000"
            final = directory / f"{name}.xtc2", directory / "smalldata" / f"{name}.smd.xtc2"
            paths = [p.with_name(p.name + suffix) for p in final]
            self._final += list(zip(paths, final, strict=True))
            writer = Xtc2Writer(
                paths[0], spec.exp, spec.run, node=n + 1, smd=paths[1], max_bytes=_max_bytes(spec)
            )
            self._streams.append(_Stream(spec, writer, wanted))
        self._marks = _play(spec)
        self._put(next(self._marks))

    def _put(self, mark: _Mark) -> None:
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
