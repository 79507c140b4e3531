"""Raw ADU to keV: the constants of a detector, checked, masked and laid out for its kernel.

A pixel's value is ``(adu - pedestal) * factor`` in float32, rounded twice in this order, with
``pedestal`` including the offset and ``factor`` = mask / gain: bit by bit what psana's
``det.raw.calib`` computes for Jungfrau, epix10ka and epix100. Cameras of one gain range are
calibrated the same way, whatever their type. Where psana differs: it divides an opal's pixels by
the gain, which can differ by one unit in the last place, and leaves out its mask; it ignores the
gain of an axis camera, and the gain and the status of an archon; and it subtracts a common mode
from an archon unasked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffb.configuration.calibration_settings import CalibrationConfig, CommonModeConfig
from ffb.reducers.common_mode import Corrected, bank_of, corrected, reference_of
from ffb.reducers.constants import RANGES, from_files
from ffb.reducers.gain_ranges import (
    F32,
    WITHOUT_GAIN,
    Planes,
    Range,
    exact,
    high_gain,
    kernel_of,
    ranges_of,
)
from ffb.reducers.masks import NO_MASKING, Masking, good_pixels
from ffb.shot import Input
from ffb.source import Constants

#: Types that switch gain in a way that is not known here; the gain is in bits of their words.
UNKNOWN = ("epixhr2x2", "epixhremu", "epixm320", "epixuhr", "epixuhr3x2", "jungfrauemu")

#: Raw pixels of detectors with one gain range, all exact in float32; others are uint16.
WORDS = ("uint8", "uint16", "int16")


@dataclass(frozen=True)
class Calibration:
    """Raw to calibrated for one detector and run: a :class:`ffb.reduce.Calibration`.

    ``tile`` keeps what :class:`ffb.reduce.Tile` promises, row by row or ``height`` rows at a time;
    ``mask`` (segments, rows, columns) is true for good pixels; ``noise`` of the same shape is the
    rms of the dark in ``unit``, in the first gain range, ``None`` if it is not known. ``ids`` and
    ``origin`` name where the constants come from, ``since`` tells when they were saved, ``known``
    are they; ``notes`` are for log and file.
    """

    constants: Planes | Corrected
    tile: Any
    mask: NDArray[np.bool_]
    unit: str
    dtype: str = "<u2"
    height: int = 0
    lend: None = None
    noise: F32 | None = None
    ids: Mapping[str, str] = field(default_factory=dict)
    since: Mapping[str, int] = field(default_factory=dict)
    origin: str = ""
    notes: tuple[str, ...] = ()
    known: Constants | None = None

    @property
    def skipped(self) -> Mapping[str, int]:
        """How many corrections could not be made so far, by what they are and why."""
        if not isinstance(self.constants, Corrected):
            return {}
        few, much = map(int, self.constants.room.skipped)
        why = {"common mode: too few pixels count": few, "common mode: too large": much}
        return {w: n for w, n in why.items() if n}

    def calibrate(self, segments: Sequence[Any], out: F32) -> int:
        """Calibrate a whole frame into ``out`` (segments, rows, columns) float32.

        ``segments`` are flat arrays of raw pixels in segment order. Returns how many good pixels
        became NaN.
        """
        first, bad, columns = 0, 0, self.mask.shape[-1]
        flat, bads = out.reshape(-1), np.zeros(self.height, np.int64)
        for segment in segments:
            here = flat[first : first + segment.size]
            if self.height:
                bad += _blocks(self.tile, segment, columns, first, self.constants, here, bads)
            else:
                bad += _rows(self.tile, segment, columns, first, self.constants, here)
            first += segment.size
        return bad


@exact
def _rows(tile: Any, raw: Any, columns: int, first: int, planes: Any, out: Any) -> int:
    bad = 0
    for at in range(0, raw.size, columns):
        bad += tile(raw[at : at + columns], first + at, planes, out[at : at + columns])
    return bad


@exact
def _blocks(tile: Any, raw: Any, columns: int, first: int, planes: Any, out: Any, bads: Any) -> int:
    bad, size = 0, bads.size * columns
    for at in range(0, raw.size, size):
        tile(raw[at : at + size], first + at, planes, out[at : at + size], bads)
        bad += bads.sum()
    return bad


def make(
    constants: Constants,
    settings: CalibrationConfig | None,
    locate: Callable[[str], Path],
    given: Input,
) -> Calibration:
    """Make the calibration of a detector as its settings ask, ``None`` for the constants as is.

    Constants from files replace the others; ``locate`` gives the path of a file named in the
    settings; ``given`` is what the run delivers, which the constants must fit.

    Raises ``LookupError`` with a sentence where there are no pedestals, the type of detector has
    no calibration here, or a line for each file that cannot be read, ``ValueError`` for constants
    that do not fit.
    """
    words = WORDS if RANGES.get(constants.dettype, 1) == 1 else ("uint16",)
    dtype = np.dtype(given.dtype)
    if dtype.name not in words or not dtype.isnative:
        raise ValueError(
            f"raw pixels are {given.dtype}; only {' and '.join(words)} can be calibrated; set"
            f' {constants.detector} = "none" to leave them as they are'
        )
    s, r, columns = given.shape
    geometry = settings is not None and bool(settings.geometry)
    constants, notes = _needed(replace(constants, shape=(s, r, columns)), geometry)
    if settings is None:
        made = calibration_of(constants)
        return replace(made, dtype=dtype.str, notes=(*notes, *made.notes))
    problems = list(_beside_the_point(constants, settings))
    try:
        constants, masks = from_files(constants, settings, locate)
    except LookupError as error:
        raise LookupError("\n".join((*problems, str(error)))) from error
    if problems:
        raise ValueError("\n".join(problems))
    made = calibration_of(
        constants,
        mask=masks.get("mask"),
        masking=Masking.of(settings),
        unit=settings.unit,
        common_mode=settings.common_mode,
        unbonded=masks.get("unbonded"),
    )
    ids = dict(made.ids)
    if settings.common_mode:
        ids["common_mode"] = settings.common_mode.model_dump_json(exclude_defaults=True)
    return replace(made, dtype=dtype.str, ids=ids, notes=(*notes, *made.notes))


def _beside_the_point(c: Constants, settings: CalibrationConfig) -> Iterator[str]:
    """Settings that would change nothing, or say what is not so."""
    if c.dettype != "jungfrau" and settings.offset:
        yield f"offset: psana's calibration of an {c.dettype or 'unknown'} has none; leave it out"
    if settings.unit != "keV" and not settings.gain:
        yield (
            f"unit: psana's gains are in ADU/keV; for {settings.unit!r} name a file of gains in"
            f" ADU/{settings.unit} as gain"
        )


def calibration_of(
    constants: Constants,
    *,
    mask: NDArray[Any] | None = None,
    masking: Masking = NO_MASKING,
    unit: str = "keV",
    psana: bool = False,
    common_mode: CommonModeConfig | None = None,
    unbonded: NDArray[Any] | None = None,
) -> Calibration:
    """Lay constants out for the kernel.

    ``mask`` (segments, rows, columns), nonzero is good, joins what ``masking`` makes. A pixel with
    a constant that is not finite is masked, and so is one whose first gain range has no gain; a
    pixel that a shot finds in a range without gain, or with a gain code that means none, becomes
    NaN in that shot. With ``psana`` those are 0 and nothing is masked for want of gain: psana's
    frame. Without any gain the factor is 1 and the unit ADU, but for types for which psana has a
    factor of its own. A camera without pedestals keeps its raw ADU, as with psana. ``common_mode``
    is taken from pixels before their gain; with ``unbonded`` (segments, rows, columns) only those
    of its pixels count that are not 0.
    """
    c = constants
    _check(c, mask=mask, unbonded=unbonded)
    good = good_pixels(c, masking, mask)
    notes = []
    if mask is not None and (hidden := float((mask == 0).mean())) > 0.5:
        notes.append(f"mask: {hidden:.0%} of the pixels are 0, which is bad")
    if c.status is None and c.dettype in (*RANGES, "epix100"):
        notes.append("no pixel_status: no pixel is masked for it")
    if c.pedestals is None:  # of a camera, or it would not have passed the check
        notes.append(f"raw ADU: no pedestals (constants: {c.origin})")
        c = replace(c, pedestals=np.zeros((1, *c.shape), np.float32), dettype="", gain=None)
    elif c.gain is None and c.dettype in WITHOUT_GAIN:
        notes.append(f"no gains: psana's {' '.join(map(str, WITHOUT_GAIN[c.dettype]))}/ADU")
    elif c.gain is None:
        notes.append("no gains: values are ADU above the pedestals")
    ranges = ranges_of(c, psana)
    notes += _mask_out(good, ~_finite(ranges), "constants that are not finite")
    if not psana:
        notes += _mask_out(good, ranges[0][1] == 0, "no gain in their first range")
    if not good.any():
        notes.append("no good pixel is left: look at pixel_status, pixel_gain and the masks")
    undefined = np.float32(0 if psana else np.nan)
    planes: Planes | Corrected
    planes, tile = kernel_of(c.dettype, ranges, good, undefined)
    height, noise = 0, None if c.rms is None else _noise(c)
    if common_mode is not None:
        bank = bank_of(common_mode, constants.dettype, c.shape)
        reference = reference_of(common_mode, bank, c.shape) if unbonded is None else unbonded != 0
        pedestal = ranges[0][0]
        fit = np.isfinite(pedestal) & high_gain(c)
        planes, tile, height, more = corrected(
            planes, tile, good, common_mode, bank, reference, pedestal, fit
        )
        notes += more
    return Calibration(
        planes,
        tile,
        mask=good,
        height=height,
        noise=noise,
        unit=unit if c.gain is not None else WITHOUT_GAIN.get(c.dettype, (1, "ADU"))[1],
        ids=dict(c.ids),
        since=dict(c.since),
        origin=c.origin,
        notes=tuple(f"{c.detector}: {n}" for n in notes),
        known=constants,
    )


def _noise(c: Constants) -> F32:
    """Rms over gain of each pixel in its first gain range, which an epix10ka's bits choose."""
    rms, factor = ranges_of(replace(c, pedestals=c.rms, offset=None), psana=False)[0]
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(rms * np.abs(factor), np.float32)


def _none(detector: str) -> str:
    """Say what to do where there is nothing to calibrate with."""
    return (
        f'name files in [calibration.{detector}], or set {detector} = "none" in [calibration]'
        " to reduce raw ADU"
    )


def _needed(c: Constants, geometry: bool) -> tuple[Constants, list[str]]:
    """A run's constants without those that psana's calibration does not look at and do not fit.

    And a sentence on each of them. With ``geometry`` somebody has named one, and it has to fit.
    """
    left_out: dict[str, Any] = {} if c.dettype == "jungfrau" else {"offset": None}
    notes = []
    for name, what, shape in (
        ("rms", "noise", (RANGES.get(c.dettype, 1), *c.shape)),
        ("xyz", "geometry", (3, *c.shape)),
        ("pixel_mask", "mask of the store", c.shape),
    ):
        found = getattr(c, name)
        if found is not None and found.shape != shape and not (name == "xyz" and geometry):
            notes.append(f"{c.detector}: no {what}: {name} is {found.shape}, not {shape}")
            left_out[name] = None
    return replace(c, **left_out), notes


def _check(c: Constants, **masks: NDArray[Any] | None) -> None:
    """Raise ``LookupError`` for what is missing, ``ValueError`` for every shape that is wrong."""
    if c.dettype in UNKNOWN:
        raise LookupError(
            f"{c.detector}: detectors of type {c.dettype!r}, which switch gain, are not calibrated"
            f" yet, only {', '.join(RANGES)} and those of one gain range;"
            f' set {c.detector} = "none" in [calibration] to reduce raw ADU,'
            ' or { constants = "none", mask = "mask.npy" } to mask pixels too'
        )
    if c.pedestals is None and c.dettype in (*RANGES, "epix100"):
        raise LookupError(
            f"{c.detector}: no pedestals (constants: {c.origin}); {_none(c.detector)}"
        )
    if c.dettype == "epix10ka" and c.config is None:
        raise LookupError(
            f"{c.detector}: the run does not tell the pixels' configuration bits, without which"
            f" an epix10ka has no gain ranges; {_none(c.detector)}"
        )
    ranges = (RANGES.get(c.dettype, 1), *c.shape)
    expected: dict[str, tuple[int, ...]]
    expected = dict.fromkeys(("pedestals", "gain", "offset", "rms"), ranges)
    for name in ("status", "status_extra"):
        found = getattr(c, name)
        expected[name] = c.shape if found is not None and found.ndim == 3 else ranges
    expected |= {"config": c.shape, "xyz": (3, *c.shape)}
    arrays = [(name, getattr(c, name), shape) for name, shape in expected.items()]
    wrong = [
        f"{name} {a.shape} instead of {shape}"
        for name, a, shape in [*arrays, *((n, a, c.shape) for n, a in masks.items())]
        if a is not None and a.shape != shape
    ]
    if wrong:
        raise ValueError(
            f"{c.detector} ({c.dettype}) has {c.shape[0]} segments of {c.shape[1]} x {c.shape[2]}"
            f" pixels, but {'; '.join(wrong)}: take constants made for this detector"
        )


def _finite(ranges: list[Range]) -> NDArray[np.bool_]:
    return np.asarray(np.logical_and.reduce([np.isfinite(a) for r in ranges for a in r]))


def _mask_out(good: NDArray[np.bool_], unfit: NDArray[np.bool_], why: str) -> list[str]:
    """Mask good pixels that are ``unfit``, in place; a sentence if there were any."""
    number = int((good & unfit).sum())
    good &= ~unfit
    return [f"{number} pixels masked: {why}"] if number else []
