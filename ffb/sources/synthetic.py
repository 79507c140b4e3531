"""Shots of known truth, made here from a seed; they can misbehave on request.

A run scans the motor ``delay``. The x-rays drop out every tenth shot (event code 162), the laser
fires every other one (code 90, else 91). The area detector sees rings and a spot that moves and
brightens with pulse energy, laser and delay; it switches gain as a Jungfrau does and comes with
the constants to undo that. Everything is a function of (spec, run, shot number).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.shot import CODE_WORDS, BeginStep, Field, FrameBlock, Idle, Input, Item, timestamp_of
from ffb.source import Constants, RunInfo
from ffb.sources.plain import Binding, Stop, words_of
from ffb.sources.synthetic_area import AreaFrames, Numbers, Spot, SyntheticArea

AREA = Field("area", "raw", "raw")
WAVE = Field("digitizer", "raw", "wave")
ENERGY = Field("gasdet", "raw", "energy")
EDGE = Field("timetool", "ttfex", "fltpos")
AMPLITUDE = Field("timetool", "ttfex", "ampl")
WIDTH = Field("timetool", "ttfex", "fltposfwhm")
SPECTRUM = Field("andor", "raw", "spectrum")

#: Time of the first run's beginning, ns since 1970; runs begin an hour apart.
BEGAN = 1_730_000_000_000_000_000
HOUR = 3_600_000_000_000

#: So many shots of a producer are made at once.
BLOCK = 64

#: How long one wait lasts at most before an Idle is given out, in seconds.
QUIET = 0.005


@dataclass(frozen=True)
class Synthetic:
    """What to make, and what to do wrong.

    ``shots`` are those of one run over all ``steps``; ``rate`` in Hz, 0 is as fast as possible.
    ``missing`` is the fraction of shots that lack a detector, by detector (``"timing"`` is one).
    ``backwards`` and ``repeated`` are fractions of shots whose timestamp lies before, or equals,
    that of the shot before. A ``cut`` run breaks off after half of its shots without EndRun.
    With ``slow`` there is a camera with a frame in every so many shots: a spectrum of all light
    that came since the frame before. ``samples`` of the waveform are taken in turn by the runs.
    With several ``producers``, shot i goes to producer i % producers; all of them see every step.
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
    slow: int = 0
    producer: int = 0
    producers: int = 1


class _Frames(NamedTuple):
    """Frames of an input in the shots of a block, and which of them are there."""

    rows: NDArray[Any] | AreaFrames
    there: Sequence[bool]


class _Block(NamedTuple):
    """Shots made at once: rows of what each of them holds, in the order of their ``numbers``."""

    numbers: range
    timestamp: Sequence[int]
    pulse_id: Sequence[int]
    timed: Sequence[bool]
    codes: NDArray[np.uint16]
    frames: Mapping[str, _Frames]


class SyntheticShot(NamedTuple):
    """Shot ``k`` of a block."""

    block: _Block
    k: int

    @property
    def timestamp(self) -> int:
        """Psana's 64-bit stamp: the key."""
        return self.block.timestamp[self.k]

    def fill(self, block: FrameBlock, row: int) -> None:
        """Copy identity, timing and values into ``row``."""
        made, k = self
        block.timestamp[row], block.pulse_id[row] = made.timestamp[k], made.pulse_id[k]
        block.timed[row], block.codes[row] = made.timed[k], made.codes[k]
        for i, name in enumerate(block.names):
            rows, there = made.frames[name]
            block.present[row, i] = there[k]
            if isinstance(rows, np.ndarray) and there[k]:
                block.frames[name][row] = rows[k]

    def segments(self, name: str) -> Sequence[NDArray[np.uint16]] | None:
        """Segments of the area detector, each (rows * columns,), ``None`` if it is absent."""
        rows, there = self.block.frames[name]
        return [*map(np.ravel, rows[self.k])] if there[self.k] else None


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
        self._made = _Block(range(0), (), (), (), np.zeros((0, CODE_WORDS), np.uint16), {})
        self.bind = self._binding.bind
        self._draw()

    def _time(self, number: int, i: int) -> int:
        return BEGAN + (number - 1) * HOUR + i * round(1e9 / (self.spec.rate or 120.0))

    def _known(self) -> dict[Field, Input]:
        camera = Input("value", "<f4", (64,), "1", "spectrum of the light since the frame before")
        return {
            **({SPECTRUM: camera} if self.spec.slow else {}),
            AREA: Input("area", "<u2", self.spec.shape, "ADU", "rings and a moving spot"),
            WAVE: Input("value", "<u2", (self._samples,), "ADU", "a pulse on a baseline"),
            ENERGY: Input("value", "<f8", (), "mJ", "energy of the x-ray pulse"),
            EDGE: Input("value", "<f8", (), "px", "edge of the time tool"),
            AMPLITUDE: Input("value", "<f8", (), "1", "height of the edge"),
            WIDTH: Input("value", "<f8", (), "px", "width of the edge, full at half maximum"),
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
        whole = np.floor(photons).astype(np.int64)
        self.area = SyntheticArea(spec.shape, spec.noise, whole, rng)
        self.edge = rng.normal(512.0, 20.0, spec.shots)
        fast = {f.detector for f in self._binding.known} - {SPECTRUM.detector}
        detectors = sorted(fast | {"timing"})
        draws = rng.random((len(detectors), spec.shots))
        self.missing: dict[str, NDArray[np.bool_]] = {
            d: draws[k] < spec.missing.get(d, 0.0) for k, d in enumerate(detectors)
        }
        if spec.slow:
            self._expose()
        if wrong := sorted(spec.missing.keys() - self.missing.keys()):
            raise ValueError(f"missing: no detector {wrong}; there are {[*self.missing]}")
        self._stamp(rng.random((2, spec.shots)))

    def _expose(self) -> None:
        """Add up the light that the slow camera sees, and draw where its frames are missing."""
        spec, name = self.spec, SPECTRUM.detector
        total = np.concatenate([np.zeros(spec.slow), np.cumsum(self.energy)])
        self._exposed = total[spec.slow :] - total[: -spec.slow]
        draws = np.random.default_rng((spec.seed, self.info.run, 1)).random(spec.shots)
        between = np.arange(spec.shots) % spec.slow != spec.slow - 1
        self.missing[name] = between | (draws < spec.missing.get(name, 0.0))

    def _stamp(self, draws: NDArray[np.float64]) -> None:
        times = np.array([self._time(self.info.run, i) for i in range(self.spec.shots)], np.int64)
        back, again = draws[0] < self.spec.backwards, draws[1] < self.spec.repeated
        for i in np.flatnonzero(back | again).tolist():
            if i >= 3:
                earlier = self._time(self.info.run, i - 3) + 1000
                times[i] = earlier if back[i] else times[i - 1]
        self.timestamps = np.array([timestamp_of(t) for t in times.tolist()], np.uint64)

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
    def _words(self) -> NDArray[np.uint16]:
        """Words of the event codes by x-ray and laser, which go through all states in ten shots."""
        out = np.zeros((2, 2, CODE_WORDS), np.uint16)
        for i in range(min(10, self.spec.shots)):
            out[int(self.xray[i]), int(self.laser[i])] = words_of(self.codes(i))
        return out

    def spot(self, i: int) -> Spot:
        """Where the spot of shot ``i`` is and what it deposits."""
        return self.area.spot(i)

    def raw(self, i: int) -> NDArray[np.uint16]:
        """Words of the area detector in shot ``i``: background, spot, gain in the top bits."""
        return self.area.frames(np.array([i]))[0]

    def wave(self, i: int) -> NDArray[np.uint16]:
        """Waveform of shot ``i``: baseline 2000, a pulse as high as 1000 x the pulse energy."""
        out: NDArray[np.uint16] = self._waves(np.array([i]))[0]
        return out

    def value(self, wanted: Field, i: int) -> Any:
        """Frame of a field in shot ``i``, ``None`` where it is missing."""
        if self.missing[wanted.detector][i]:
            return None
        return self.raw(i) if wanted == AREA else self._values(wanted, np.array([i]))[0]

    @cached_property
    def _pulses(self) -> NDArray[np.float64]:
        """Pulses of unit height by the twenty places where they come."""
        t = np.arange(self._samples) - self._samples // 4 - np.arange(20)[:, None]
        return np.asarray(np.exp(-0.5 * (t / 4.0) ** 2))

    def _waves(self, i: Numbers) -> NDArray[np.uint16]:
        """Waveforms (n, samples) of shots."""
        heights = 1000 * self.energy[i, None]
        return np.asarray(np.rint(2000 + heights * self._pulses[i % 20]), np.uint16)

    def _values(self, wanted: Field, i: Numbers) -> NDArray[Any]:
        """Values (n, *shape) of a field in shots, wherever they are missing."""
        if wanted == WAVE:
            return self._waves(i)
        if wanted == SPECTRUM:
            line = np.exp(-0.5 * ((np.arange(64) - 32) / 6.0) ** 2)
            return np.asarray(1000 * self._exposed[i, None] * line, np.float32)
        if wanted == AMPLITUDE:
            return np.asarray(0.1 * self.energy[i])
        if wanted == WIDTH:
            return 80.0 + i % 5
        return np.asarray((self.energy if wanted == ENERGY else self.edge)[i])

    def constants(self, detector: str, geometry: str = "", store: bool = True) -> Constants:
        """Give the constants with which the area detector was made; there is no store to ask."""
        if detector != AREA.detector:
            raise LookupError(f"{detector}: only {AREA.detector!r} has constants here")
        if geometry:
            raise LookupError(f"{detector}: a synthetic run takes no geometry file ({geometry})")
        return self.area.constants(detector, f"synthetic, seed {self.spec.seed}")

    def shot(self, i: int) -> SyntheticShot:
        """Shot ``i`` with the frames of the inputs that were bound; the next ones come with it."""
        if i not in self._made.numbers:
            end = min(i + BLOCK * self.spec.producers, self.spec.shots)
            self._made = self._block(range(i, end, self.spec.producers))
        return SyntheticShot(self._made, self._made.numbers.index(i))

    def _block(self, numbers: range) -> _Block:
        i: Numbers = np.array(numbers, np.int64)
        timed = (~self.missing["timing"][i]).tolist()
        words = self._words[self.xray[i].astype(int), self.laser[i].astype(int)]
        frames: dict[str, _Frames] = {}
        for name, wanted in self._binding.fields.items():
            there = (~self.missing[wanted.detector][i]).tolist()
            rows = self.area.frames(i) if wanted == AREA else self._values(wanted, i)
            frames[name] = _Frames(rows, there)
        return _Block(
            numbers,
            self.timestamps[i].tolist(),
            [self.pulse_id(k) if t else 0 for k, t in zip(numbers, timed, strict=True)],
            timed,
            words * np.array(timed)[:, None],
            frames,
        )

    def __iter__(self) -> Iterator[Item]:
        """Give out steps, the shots of this producer, and Idle while waiting for the next."""
        spec, began = self.spec, time.monotonic()
        steps = self.step_of[: spec.shots // 2 if spec.cut else spec.shots]
        for step in np.unique(steps).tolist():
            begin, end = np.searchsorted(steps, [step, step + 1]).tolist()
            yield self._begin_step(step, begin)
            for i in range(begin + (spec.producer - begin) % spec.producers, end, spec.producers):
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
