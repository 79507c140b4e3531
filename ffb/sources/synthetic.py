"""Shots of known truth, made here from a seed; they can misbehave on request.

A run scans the motor ``delay``. The x-rays drop out every tenth shot (event code 162), the laser
fires every other one (code 90, else 91). The area detector sees rings and a spot that moves and
brightens with pulse energy, laser and delay; it switches gain as a Jungfrau does and comes with
the constants to undo that. Everything is a function of (spec, run, shot number).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.shot import BeginStep, Field, Idle, Input, Item, timestamp_of
from ffb.source import Constants, RunInfo
from ffb.sources.plain import Binding, PlainShot, Stop, words_of

AREA = Field("area", "raw", "raw")
WAVE = Field("digitizer", "raw", "wave")
ENERGY = Field("gasdet", "raw", "energy")
EDGE = Field("timetool", "ttfex", "fltpos")
AMPLITUDE = Field("timetool", "ttfex", "ampl")

#: Time of the first run's beginning, ns since 1970; runs begin an hour apart.
BEGAN = 1_730_000_000_000_000_000
HOUR = 3_600_000_000_000

#: ADU at zero and ADU/keV of the three gains, energy of a photon, where gain switches.
PEDESTALS, GAINS, PHOTON_KEV, SWITCH_KEV = (1000, 14500, 14000), (40.0, -1.0, -0.125), 8, 240

#: Bits 14 and 15 of a word of the area detector, by gain.
GAIN_CODES = (0, 1 << 14, 3 << 14)

#: Background frames of a run; shots take them in turn.
BACKGROUNDS = 4

#: Half width of the spot in pixels.
SPOT = 4

#: How long one wait lasts at most before an Idle is given out, in seconds.
QUIET = 0.005


@dataclass(frozen=True)
class Synthetic:
    """What to make, and what to do wrong.

    ``shots`` are those of one run over all ``steps``; ``rate`` in Hz, 0 is as fast as possible.
    ``missing`` is the fraction of shots that lack a detector, by detector (``"timing"`` is one).
    ``backwards`` and ``repeated`` are fractions of shots whose timestamp lies before, or equals,
    that of the shot before. A ``cut`` run breaks off after half of its shots without EndRun.
    ``samples`` of the waveform are taken in turn by the runs. With several ``producers``, shot i
    goes to producer i % producers; all of them see every step.
    """

    exp: str = "tstx00001"
    run: int = 1
    runs: int = 1
    steps: int = 1
    shots: int = 1000
    rate: float = 0.0
    seed: int = 0
    shape: tuple[int, int, int] = (2, 64, 128)
    samples: tuple[int, ...] = (256,)
    noise: float = 2.0
    missing: Mapping[str, float] = field(default_factory=dict)
    backwards: float = 0.0
    repeated: float = 0.0
    cut: bool = False
    producer: int = 0
    producers: int = 1


class Spot(NamedTuple):
    """Where the spot is (its middle pixel) and the energy [keV] it leaves in good pixels."""

    segment: int
    row: int
    col: int
    energy: float


class SyntheticRun:
    """One run; beyond the protocol, it tells the truth about every shot."""

    def __init__(self, spec: Synthetic, number: int, stop: Stop) -> None:
        self.spec = spec
        self.info = RunInfo(spec.exp, number, timestamp_of(self._time(number, -2)))
        self.motors: tuple[str, ...] = ("delay",)
        self.notes: list[str] = []
        self.ended = ""
        self._stop = stop
        self._rng = np.random.default_rng((spec.seed, number))
        self._samples = spec.samples[(number - spec.run) % len(spec.samples)]
        self._binding = Binding(self._known())
        self.bind = self._binding.bind
        self._draw()

    def _time(self, number: int, i: int) -> int:
        return BEGAN + (number - 1) * HOUR + i * round(1e9 / (self.spec.rate or 120.0))

    def _known(self) -> dict[Field, Input]:
        return {
            AREA: Input("area", "<u2", self.spec.shape, "ADU", "rings and a moving spot"),
            WAVE: Input("value", "<u2", (self._samples,), "ADU", "a pulse on a baseline"),
            ENERGY: Input("value", "<f8", (), "mJ", "energy of the x-ray pulse"),
            EDGE: Input("value", "<f8", (), "px", "edge of the time tool"),
            AMPLITUDE: Input("value", "<f8", (), "1", "height of the edge"),
        }

    def _draw(self) -> None:
        """Draw what is random, for the whole run at once."""
        spec, rng, i = self.spec, self._rng, np.arange(self.spec.shots)
        self.step_of: NDArray[np.int64] = i * spec.steps // max(spec.shots, 1)
        self.delays = np.linspace(-2.0, 2.0, spec.steps)
        self.xray, self.laser = i % 10 != 9, i % 2 == 1
        self.energy = rng.gamma(20.0, 1 / 20.0, spec.shots) * self.xray
        rise = 1 / (1 + np.exp(-3 * self.delays[self.step_of]))
        photons = 150.0 * self.energy * (1 + 0.5 * self.laser * rise)
        self._photons = np.floor(photons).astype(np.int64)
        self.edge = rng.normal(512.0, 20.0, spec.shots)
        detectors = sorted({f.detector for f in self._binding.known} | {"timing"})
        draws = rng.random((len(detectors), spec.shots))
        self.missing: dict[str, NDArray[np.bool_]] = {
            d: draws[k] < spec.missing.get(d, 0.0) for k, d in enumerate(detectors)
        }
        if wrong := sorted(spec.missing.keys() - self.missing.keys()):
            raise ValueError(f"missing: no detector {wrong}; there are {detectors}")
        self._stamp(rng.random((2, spec.shots)))

    def _stamp(self, draws: NDArray[np.float64]) -> None:
        times = [self._time(self.info.run, i) for i in range(self.spec.shots)]
        for i in range(3, self.spec.shots):
            if draws[0, i] < self.spec.backwards:
                times[i] = self._time(self.info.run, i - 3) + 1000
            elif draws[1, i] < self.spec.repeated:
                times[i] = times[i - 1]
        self.timestamps = [timestamp_of(t) for t in times]

    @property
    def fields(self) -> Mapping[Field, str]:
        """Every field with its type, shape and meaning."""
        known = self._binding.known.items()
        return {f: f"{np.dtype(k.dtype)}{list(k.shape)} {k.doc}" for f, k in known}

    def pulse_id(self, i: int) -> int:
        """Pulse id of shot ``i``; 929 kHz / 7583 is about 120 Hz."""
        return 1_000_000 + 7583 * i

    def codes(self, i: int) -> tuple[int, ...]:
        """Event codes of shot ``i``."""
        dropped = () if self.xray[i] else (162,)
        return (40, 140, *dropped, 90 if self.laser[i] else 91)

    @cached_property
    def _profile(self) -> NDArray[np.float64]:
        x = np.arange(-SPOT, SPOT + 1)
        g = np.exp(-0.5 * (x / 1.2) ** 2)
        profile = np.outer(g, g)
        return np.asarray(profile / profile.sum())

    def _kev(self, i: int) -> NDArray[np.int64]:
        """Energy [keV] that the spot leaves in each pixel of its window: whole photons."""
        shared = np.floor(self._profile * self._photons[i]).astype(np.int64)
        shared[SPOT, SPOT] += self._photons[i] - shared.sum()
        return np.asarray(shared * PHOTON_KEV)

    def _window(self, i: int) -> tuple[int, slice, slice]:
        """Index of the pixels around the spot of shot ``i``."""
        segments, rows, cols = self.spec.shape
        row, col = 7 * i % (rows - 2 * SPOT), 11 * i % (cols - 2 * SPOT)
        size = 2 * SPOT + 1
        return i % segments, slice(row, row + size), slice(col, col + size)

    def spot(self, i: int) -> Spot:
        """Where the spot of shot ``i`` is and what it deposits."""
        segment, rows, cols = window = self._window(i)
        energy = float(self._kev(i)[self._status[0][window] == 0].sum())
        return Spot(segment, rows.start + SPOT, cols.start + SPOT, energy)

    @cached_property
    def _status(self) -> NDArray[np.int64]:
        status = np.zeros((3, *self.spec.shape), np.int64)
        status[:, :, 1, 2] = 1
        return status

    @cached_property
    def _backgrounds(self) -> NDArray[np.uint16]:
        """Rings and noise in ADU, at the first gain, with the bad pixels saturated."""
        x, y, _ = self._xyz
        r = np.hypot(x, y) / 75.0
        adu = PEDESTALS[0] + 40.0 * np.exp(-0.5 * ((r - 25) / 3) ** 2)
        drawn = self._rng.normal(adu, self.spec.noise, (BACKGROUNDS, *self.spec.shape))
        out = np.clip(np.rint(drawn), 0, 0x3FFF).astype(np.uint16)
        out[:, self._status[0] != 0] = 0x3FFF
        return out

    @cached_property
    def _xyz(self) -> NDArray[np.float64]:
        segments, rows, cols = self.spec.shape
        y, x = np.mgrid[: segments * rows, :cols] * 75.0
        xyz = np.stack([x - x.mean(), y - y.mean(), np.full_like(x, 1e5)])
        return xyz.reshape(3, *self.spec.shape)

    def raw(self, i: int) -> NDArray[np.uint16]:
        """Words of the area detector in shot ``i``: background, spot, gain in the top bits."""
        out: NDArray[np.uint16] = self._backgrounds[i % BACKGROUNDS].copy()
        window, kev = self._window(i), self._kev(i)
        low = out[window] + (GAINS[0] * kev).astype(np.int64)
        high = PEDESTALS[1] + (GAINS[1] * kev).astype(np.int64) | GAIN_CODES[1]
        good = self._status[0][window] == 0
        out[window] = np.where(good, np.where(kev > SWITCH_KEV, high, low), out[window])
        return out

    def wave(self, i: int) -> NDArray[np.uint16]:
        """Waveform of shot ``i``: baseline 2000, a pulse as high as 1000 x the pulse energy."""
        t = np.arange(self._samples)
        pulse = np.exp(-0.5 * ((t - self._samples // 4 - i % 20) / 4.0) ** 2)
        out: NDArray[np.uint16] = np.rint(2000 + 1000 * self.energy[i] * pulse).astype(np.uint16)
        return out

    def value(self, wanted: Field, i: int) -> Any:
        """Frame of a field in shot ``i``, ``None`` where it is missing."""
        if self.missing[wanted.detector][i]:
            return None
        if wanted == AREA:
            return self.raw(i)
        if wanted == WAVE:
            return self.wave(i)
        return {ENERGY: self.energy, EDGE: self.edge, AMPLITUDE: 0.1 * self.energy}[wanted][i]

    def constants(self, detector: str, geometry: str = "", store: bool = True) -> Constants:
        """Give the constants with which the area detector was made; there is no store to ask."""
        if detector != AREA.detector:
            raise LookupError(f"{detector}: only {AREA.detector!r} has constants here")
        if geometry:
            raise LookupError(f"{detector}: a synthetic run takes no geometry file ({geometry})")
        planes = (3, *self.spec.shape)
        pedestals = np.empty(planes, np.float32)
        gain = np.empty(planes, np.float32)
        for k in range(3):
            pedestals[k], gain[k] = PEDESTALS[k], GAINS[k]
        return Constants(
            detector,
            "jungfrau",
            self.spec.shape,
            pedestals=pedestals,
            gain=gain,
            status=self._status,
            xyz=self._xyz,
            origin=f"synthetic, seed {self.spec.seed}",
            ids={"pedestals": "synthetic", "pixel_gain": "synthetic", "pixel_status": "synthetic"},
        )

    def shot(self, i: int) -> PlainShot:
        """Shot ``i`` with the frames of the inputs that were bound."""
        frames = {name: self.value(f, i) for name, f in self._binding.fields.items()}
        timed = not self.missing["timing"][i]
        return PlainShot(
            self.timestamps[i],
            frames,
            self.pulse_id(i) if timed else 0,
            words_of(self.codes(i)) if timed else None,
        )

    def __iter__(self) -> Iterator[Item]:
        """Give out steps, the shots of this producer, and Idle while waiting for the next."""
        spec, began, step = self.spec, time.monotonic(), -1
        for i in range(spec.shots // 2 if spec.cut else spec.shots):
            if self.step_of[i] != step:
                step = int(self.step_of[i])
                yield self._begin_step(step, i)
            if i % spec.producers != spec.producer:
                continue
            due = began + i / spec.rate if spec.rate else 0.0
            while not self._stop.is_set() and (left := due - time.monotonic()) > 0:
                self._stop.wait(min(left, QUIET))
                yield Idle()
            if self._stop.is_set():
                self.ended = "stopped"
                return
            yield self.shot(i)
        self.ended = "no EndRun: the stream broke off" if spec.cut else "end of run"

    def _begin_step(self, step: int, i: int) -> BeginStep:
        values = {"delay": float(self.delays[step])}
        at = timestamp_of(self._time(self.info.run, i) - 1_000_000)
        return BeginStep(step, values, f"delay = {values['delay']:.3f} ps", at)


class SyntheticSource:
    """Runs as :class:`Synthetic` describes them; shots can wait, so none is ever shed."""

    live = False

    def __init__(self, spec: Synthetic | None = None) -> None:
        self.spec = spec or Synthetic()
        self._stop = Stop()

    def runs(self) -> Iterator[SyntheticRun]:
        """Yield one run after the other."""
        for number in range(self.spec.run, self.spec.run + self.spec.runs):
            if self._stop.is_set():
                return
            yield SyntheticRun(self.spec, number, self._stop)

    def stop(self) -> None:
        """End the run at the next shot and come to no other."""
        self._stop.set()

    def close(self) -> None:
        """Stop; there is nothing to give back."""
        self._stop.set()
