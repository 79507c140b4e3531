"""A fabricated run in closed form: every value of every shot from the shot's index alone.

The run is a pump-probe delay scan on an area detector. Scattering rings brighten where the laser
came before the x-rays: their laser-on intensity rises over the delay as an error function, the
laser-off intensity does not. What is written (:mod:`ffb.testing.fabricate`) and what a test
expects come from the same :class:`RunSpec`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.shot import timestamp_of
from ffb.testing import frames

#: Event codes: x-rays, x-rays dropped, laser on, laser off.
XRAY_CODES, XRAY_DROP, LASER_ON, LASER_OFF = (40, 140), 162, 90, 91

GROUPS = ("timing", "area", "time_tool", "waveforms", "beam", "epics")


class Light(NamedTuple):
    """Whether x-rays and laser were on."""

    xray: bool
    laser: bool


def _uniform(i: int, salt: int) -> float:
    """Hash ``i`` to a number in [0, 1) (splitmix64)."""
    z = (i * 0x9E37_79B9_7F4A_7C15 + salt * 0xD1B5_4A32_D192_ED03 + 1) & (1 << 64) - 1
    z = (z ^ z >> 30) * 0xBF58_476D_1CE4_E5B9 & (1 << 64) - 1
    z = (z ^ z >> 27) * 0x94D0_49BB_1331_11EB & (1 << 64) - 1
    return ((z ^ z >> 31) >> 11) / (1 << 53)


def _normal(i: int, salt: int) -> float:
    """Hash ``i`` to a normal deviate (Box-Muller)."""
    radius = math.sqrt(-2.0 * math.log(1.0 - _uniform(i, salt)))
    return radius * math.cos(2.0 * math.pi * _uniform(i, salt + 1000))


@dataclass(frozen=True)
class RunSpec:
    """What to fabricate, and the truth about it.

    ``segments`` of a Jungfrau (1: 0.5 Mpx, 8: 4 Mpx), ``epix`` segments of an epix10ka.
    ``groups`` are the detectors wanted, of :data:`GROUPS` and ``"hutch"``, the beam line's more
    numerous ones (:mod:`ffb.testing.hutch`): of them some are missing in the first ``late`` shots,
    and damaged every ``harm``-th. The periods say how often something
    happens, every nth shot, 0 for never: ``xray_drop``, ``tt_missing`` (no time tool),
    ``area_missing`` (no Jungfrau), ``corrupt`` (the whole shot damaged). ``slow`` is the number of
    shots between slow-control updates and ``prescale`` that between time-tool images.
    ``t0`` is the time of Configure, ns since 1970. Shots come at ``rate`` Hz, with a pause of
    ``gap`` s before each step.
    """

    exp: str = "mfxx49820"
    run: int = 7
    steps: int = 3
    shots_per_step: int = 20
    segments: int = 1
    epix: int = 0
    groups: tuple[str, ...] = GROUPS
    laser_pattern: str = "10011010"
    xray_drop: int = 10
    tt_missing: int = 7
    area_missing: int = 13
    corrupt: int = 0
    late: int = 0
    harm: int = 0
    slow: int = 10
    prescale: int = 20
    rate: float = 120.0
    gap: float = 0.25
    t0: int = 1_730_000_000_000_000_000
    phases: int = 4
    seed: int = 1
    delays: tuple[float, float] = (-1.5, 2.5)

    @property
    def shots(self) -> int:
        """Number of shots of the run."""
        return self.steps * self.shots_per_step

    def step(self, i: int) -> int:
        """Step of shot ``i``."""
        return i // self.shots_per_step

    def motor(self, step: int) -> float:
        """Delay ``lxt`` of a step in ps, evenly spaced over ``delays``."""
        first, last = self.delays
        return first + (last - first) * step / max(self.steps - 1, 1)

    def docstring(self, step: int) -> str:
        """``step_docstring`` of a step."""
        return f'{{"detname": "scan", "scantype": "delay", "step": {step}}}'

    def time(self, i: int) -> int:
        """Nanoseconds since 1970 of shot ``i``."""
        seconds = i / self.rate + self.gap * (self.step(i) + 1)
        return self.t0 + round(seconds * 1e9)

    def timestamp(self, i: int) -> int:
        """Psana's stamp of shot ``i``."""
        return timestamp_of(self.time(i))

    def pulse_id(self, i: int) -> int:
        """Pulse counter of the 929 kHz accelerator at 120 Hz."""
        return 1_000_000 + 7583 * i

    def index(self, pulse_id: int) -> int:
        """Shot with this pulse id."""
        return (pulse_id - 1_000_000) // 7583

    def light(self, i: int) -> Light:
        """X-ray and laser state."""
        return Light(
            xray=not _nth(i, self.xray_drop),
            laser=self.laser_pattern[i % len(self.laser_pattern)] == "1",
        )

    def codes(self, i: int) -> list[int]:
        """Event codes of a shot, ascending."""
        light = self.light(i)
        laser = LASER_ON if light.laser else LASER_OFF
        return sorted([*XRAY_CODES, laser, *([] if light.xray else [XRAY_DROP])])

    def corrupted(self, i: int) -> bool:
        """Whether the whole shot is damaged: nothing of it can be read."""
        return _nth(i, self.corrupt)

    def has_area(self, i: int) -> bool:
        """Whether the Jungfrau is in the shot."""
        return not _nth(i, self.area_missing) and not self.corrupted(i)

    def has_time_tool(self, i: int) -> bool:
        """Whether the time tool is in the shot."""
        return not _nth(i, self.tt_missing) and not self.corrupted(i)

    def has_image(self, i: int) -> bool:
        """Whether the time tool's prescaled image is in the shot."""
        return self.has_time_tool(i) and i % self.shots_per_step % self.prescale == 0

    def phase(self, i: int) -> int:
        """Which of the precomputed patterns a shot shows."""
        return int(_uniform(i, self.seed) * self.phases)

    def i0(self, i: int) -> float:
        """Pulse energy in mJ: 1.7 to 2.3 by phase with 1 % noise, 0 without x-rays."""
        if not self.light(i).xray:
            return 0.0
        return 2.0 * self._level(self.phase(i)) * (1.0 + 0.01 * _normal(i, 2))

    def _level(self, phase: int) -> float:
        """Relative pulse energy of a phase."""
        return 0.85 + 0.3 * phase / max(self.phases - 1, 1)

    def photon_energy(self, i: int) -> float:
        """Photon energy in eV as the accelerator reports it."""
        return 1000.0 * frames.PHOTON_KEV + 5.0 * _normal(i, 3)

    def fltpos(self, i: int) -> float:
        """Edge found by the time tool, in pixels of its camera."""
        return 512.0 + 60.0 * _normal(i, 4)

    def fltpos_ps(self, i: int) -> float:
        """Edge found by the time tool in ps."""
        return (self.fltpos(i) - 512.0) * 0.0025

    def tt_ampl(self, i: int) -> float:
        """Height of the time tool's edge."""
        return 0.1 * self._level(self.phase(i)) if self.light(i).xray else 0.002

    def tt_image(self, i: int) -> NDArray[np.uint16]:
        """Camera image of the time tool, (64, 1024)."""
        row = np.where(np.arange(1024) < self.fltpos(i), 200 + i % 50, 120)
        return np.tile(row.astype(np.uint16), (64, 1))

    def wave(self, i: int, channel: int, samples: int = 128) -> NDArray[np.uint16]:
        """Digitizer waveform of a channel: a pulse that follows the pulse energy."""
        t = np.arange(samples) - 40 - i % 20
        pulse = 250.0 * self.i0(i) * np.exp(-0.5 * (t / 4.0) ** 2)
        return (2000 + 10 * channel + pulse).astype(np.uint16)

    def wave_integral(self, i: int, channel: int) -> int:
        """Integral above its base of 2000 as the digitizer itself reports it."""
        return int(self.wave(i, channel).astype(np.int64).sum()) - 2000 * 128

    def slow_index(self, i: int) -> int:
        """Index of the last slow-control update before shot ``i``."""
        per_step = -(-self.shots_per_step // self.slow)
        return self.step(i) * per_step + i % self.shots_per_step // self.slow

    def pv(self, k: int) -> float:
        """Value of ``lxt_vitara`` in the ``k``-th slow-control update."""
        return 20.0 + 0.25 * k

    def sample(self, k: int) -> str:
        """Value of ``sample_name`` in the ``k``-th slow-control update."""
        return f"sample{k}"

    def response(self, step: int) -> float:
        """Relative rise of the rings with the laser on: an error function of the delay."""
        return 0.25 * (1.0 + math.erf(self.motor(step) / 0.4))

    def raw(self, i: int) -> NDArray[np.uint16]:
        """Jungfrau frame (segments, 512, 1024), gain code in the upper two bits."""
        light = self.light(i)
        if not light.xray:
            return frames.pattern(self.seed, self.segments, 0, 0.0, 0.0)
        rise = 1.0 + (self.response(self.step(i)) if light.laser else 0.0)
        phase = self.phase(i)
        return frames.pattern(self.seed, self.segments, phase, self._level(phase), rise)

    def raw_epix(self, i: int) -> NDArray[np.uint16]:
        """epix10ka frame (epix, 352, 384), gain bit 14."""
        return frames.epix_pattern(self.seed, self.epix, self.phase(i))

    def epix_config(self, segment: int) -> dict[str, NDArray[np.uint8]]:
        """Pixel configuration of an epix10ka segment, as in its Configure."""
        rng = np.random.default_rng([self.seed, 20, segment])
        pixels = rng.choice(np.array([0, 8, 12], np.uint8), (4, 176, 192))
        trbit = np.array([1, 0, 1, 1] if segment % 2 else [1, 1, 1, 1], np.uint8)
        return {"asicPixelConfig": pixels, "trbit": trbit}

    @property
    def constants(self) -> frames.Constants:
        """Jungfrau ``pedestals``, ``gain`` (ADU/keV), ``offset`` (ADU), ``status`` (0 is good).

        Each (3, segments, 512, 1024); float32, status uint64.
        """
        return frames.constants(self.seed, self.segments)

    @property
    def epix_constants(self) -> frames.Constants:
        """epix10ka ``pedestals``, ``gain`` and ``status``, each (7, epix, 352, 384)."""
        return frames.epix_constants(self.seed, self.epix)

    @property
    def xyz(self) -> NDArray[np.float64]:
        """Pixel centres (3, segments, 512, 1024) in micrometres, the beam along z at 0, 0."""
        return frames.xyz(self.segments)

    @property
    def geometry(self) -> str:
        """The same as a text in psana's geometry format."""
        rows = [
            f"JFCAMERA:V1 0 JUNGFRAU:V2 {s} {x:.1f} {y:.1f} 0 0 0 0 0.0 0.0 0.0"
            for s, (x, y) in enumerate(frames.centres(self.segments))
        ]
        above = f"IP:V1 0 JFCAMERA:V1 0 0 0 {-frames.DISTANCE:.1f} 0 0 0 0.0 0.0 0.0"
        return "# TITLE fabricated Jungfrau\n\n" + "\n".join([*rows, "", above, ""])


def _nth(i: int, period: int) -> bool:
    return period > 0 and i % period == period - 1
