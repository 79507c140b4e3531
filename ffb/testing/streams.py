"""What streams of a fabricated run hold: the order of its dgrams, the records of each detector."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
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
from ffb.testing.truth import RunSpec

EPICS_NAMES = {"lxt_vitara": "LAS:FS11:VIT:FS_TGT_TIME", "sample_name": "MFX:SAMPLE:NAME"}

_MS = 1_000_000
_ZEROS = np.zeros(4, np.uint16)


class Mark(NamedTuple):
    """One dgram to write: ``number`` is its shot, step or slow-control update."""

    service: Service
    time: int
    number: int = 0


def play(spec: RunSpec) -> Iterator[Mark]:
    """Every dgram of the run in order, BeginRun to EndRun; transitions lie in the gaps."""
    yield Mark(Service.BEGIN_RUN, spec.t0 + _MS)
    for step in range(spec.steps):
        first = step * spec.shots_per_step
        begin = spec.time(first) - 5 * _MS
        yield Mark(Service.BEGIN_STEP, begin, step)
        yield Mark(Service.ENABLE, begin + _MS)
        for i in range(first, first + spec.shots_per_step):
            if (i - first) % spec.slow == 0:
                yield Mark(Service.SLOW_UPDATE, spec.time(i) - _MS, spec.slow_index(i))
            yield Mark(Service.L1_ACCEPT, spec.time(i), i)
        end = spec.time(first + spec.shots_per_step - 1) + 2 * _MS
        yield Mark(Service.DISABLE, end)
        yield Mark(Service.END_STEP, end + _MS)
    yield Mark(Service.END_RUN, end + 2 * _MS)


Maker = Callable[[int], dict[str, Any] | None]


@dataclass
class Stream:
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

    def put(self, mark: Mark) -> None:
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


def _timing(s: Stream) -> None:
    spec = s.spec
    s.add("timing", "timing", lambda i: timing_record(spec.pulse_id(i), spec.codes(i)))
    scan = s.writer.declare(scan_spec(["lxt"]), "scan", uid="scan0")

    def values(step: int) -> dict[str, Any]:
        docstring = spec.docstring(step)
        return {"lxt": spec.motor(step), "step_value": float(step), "step_docstring": docstring}

    s.makers[Service.BEGIN_STEP] = [(scan, values)]


def _area(s: Stream) -> None:
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


def _time_tool(s: Stream) -> None:
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


def _waveforms(s: Stream) -> None:
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


def _beam(s: Stream) -> None:
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


def _epics(s: Stream) -> None:
    spec = s.spec
    slot = s.writer.declare(epics_spec({"lxt_vitara": np.float64, "sample_name": str}), "epics")
    names = {"keys": "epicsname", **EPICS_NAMES}
    s.writer.declare(epicsinfo_spec(EPICS_NAMES), "epicsinfo", config=names)

    def values(k: int) -> dict[str, Any]:
        return {"StaleFlags": np.zeros(1), "lxt_vitara": spec.pv(k), "sample_name": spec.sample(k)}

    s.makers[Service.SLOW_UPDATE] = [(slot, values)]


def _hutch(s: Stream) -> None:
    for name, alg in hutch.KINDS:
        s.add(hutch.KINDS[name, alg], name, partial(hutch.record, s.spec, name, alg))


_DECLARE: dict[str, Callable[[Stream], None]] = {
    "timing": _timing,
    "area": _area,
    "time_tool": _time_tool,
    "waveforms": _waveforms,
    "beam": _beam,
    "epics": _epics,
    "hutch": _hutch,
}


def max_bytes(spec: RunSpec) -> int:
    """Bound on the size of a dgram, Configure included."""
    return (1 << 20) * (spec.segments + 1) + (1 << 19) * spec.epix
