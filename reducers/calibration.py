"""Raw ADU to keV, one detector row at a time: Jungfrau and epix10ka.

A pixel's value is ``(adu - pedestal) * factor`` in float32, rounded twice in this order, with
``pedestal`` including the offset and ``factor`` = mask / gain: bit by bit what psana's
``det.raw.calib`` computes. Almost all pixels are in their first gain range, so its constants lie
together (*hot*) and every row goes through them at the speed of memory; the other ranges lie apart
(*cold*) and are read only for pixels that have switched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ffb.reducers.constants import edges_mask, from_files
from ffb.settings import CalibrationConfig
from ffb.shot import Input
from ffb.source import Constants

#: The ADC value of a raw pixel; its gain range is in the two bits above.
ADU = 0x3FFF

#: Pixels that are looked through together for some that have switched.
BLOCK = 64

#: Gain ranges whose status masks a pixel; psana leaves out the two that epix10ka derives.
STATUS_RANGES = 5

#: Gain ranges by detector type.
RANGES = {"jungfrau": 3, "epix10ka": 7}

#: Range of an epix10ka pixel from its configuration bits, data bit 14 put at bit 5: (mask, value).
EPIX10KA = ((28, 28), (28, 12), (12, 8), (60, 16), (60, 0), (60, 48), (60, 32))

F32 = NDArray[np.float32]
Range = tuple[NDArray[Any], NDArray[Any]]


class Jungfrau(NamedTuple):
    """Constants of a Jungfrau: ``pedestal`` and ``factor`` (pixels,) of range 0.

    ``switched`` (2 * pixels, 2) holds both for gain code 1, then for 3, side by side because they
    are read for single pixels; ``undefined`` is the value of a good pixel with gain code 2, which
    means none.
    """

    pedestal: F32
    factor: F32
    switched: F32
    undefined: float


class Epix10ka(NamedTuple):
    """Constants of an epix10ka, each (pixels,): with data bit 14 off, and (``low``) with it on."""

    pedestal: F32
    factor: F32
    pedestal_low: F32
    factor_low: F32


def exact(fn: Callable[..., Any]) -> Any:
    """Compile without licence to rearrange floating point: bits must be psana's."""
    return njit(fn, nogil=True, error_model="numpy")


@exact
def jungfrau_tile(raw: Any, first: int, planes: Jungfrau, out: Any) -> int:
    """Calibrate a row of a Jungfrau; returns how many valid pixels became NaN."""
    pedestal = planes.pedestal[first : first + raw.size]
    factor = planes.factor[first : first + raw.size]
    bits = np.uint16(0)
    for i in range(raw.size):
        bits |= raw[i]
        out[i] = (np.float32(raw[i]) - pedestal[i]) * factor[i]
    return _switch(raw, first, planes, out) if bits > ADU else 0


@exact
def _switch(raw: Any, first: int, planes: Jungfrau, out: Any) -> int:
    """Overwrite the pixels of a row that have switched; returns how many became NaN.

    They come in clusters: blocks without any are passed over at the speed of the cache.
    """
    bad, factor, switched = 0, planes.factor, planes.switched
    for at in range(0, raw.size, BLOCK):
        end = min(at + BLOCK, raw.size)
        bits = np.uint16(0)
        for i in range(np.uint64(at), np.uint64(end)):
            bits |= raw[i]
        if bits <= ADU:
            continue
        for i in range(at, end):
            code = raw[i] >> 14
            if code != 0:  # 1 and 3 take the same way: which of them comes cannot be guessed
                k = np.uint64((np.int64(code) >> 1) * factor.size + first + i)
                adu = np.float32(raw[i] & ADU)
                out[i] = (adu - switched[k, 0]) * switched[k, 1]
                if code == 2:
                    out[i] = planes.undefined if factor[first + i] != 0 else 0.0
                bad += out[i] != out[i]
    return bad


@exact
def epix10ka_tile(raw: Any, first: int, planes: Epix10ka, out: Any) -> int:
    """Calibrate a row of an epix10ka; returns how many valid pixels became NaN."""
    pedestal = planes.pedestal[first : first + raw.size]
    factor = planes.factor[first : first + raw.size]
    bits = np.uint16(0)
    for i in range(raw.size):
        bits |= raw[i]
        out[i] = (np.float32(raw[i] & ADU) - pedestal[i]) * factor[i]
    bad = 0
    if bits & (ADU + 1):
        pedestal = planes.pedestal_low[first : first + raw.size]
        factor = planes.factor_low[first : first + raw.size]
        for i in range(raw.size):
            low = (np.float32(raw[i] & ADU) - pedestal[i]) * factor[i]
            out[i] = low if raw[i] & (ADU + 1) else out[i]
        for i in range(raw.size):
            bad += out[i] != out[i]
    return bad


@dataclass(frozen=True)
class Calibration:
    """Raw to calibrated for one detector and run: a :class:`ffb.reduce.Calibration`.

    ``tile(raw_row, first, constants, out) -> bad`` keeps what :class:`ffb.reduce.Tile` promises;
    ``mask`` (segments, rows, columns) is true for good pixels. ``ids`` and ``origin`` name where
    the constants come from; ``notes`` are for log and file.
    """

    constants: Jungfrau | Epix10ka
    tile: Any
    mask: NDArray[np.bool_]
    unit: str
    dtype: str = "<u2"
    ids: Mapping[str, str] = field(default_factory=dict)
    origin: str = ""
    notes: tuple[str, ...] = ()

    def calibrate(self, segments: Sequence[Any], out: F32) -> int:
        """Calibrate a whole frame into ``out`` (segments, rows, columns) float32.

        ``segments`` are flat uint16 arrays in segment order. Returns how many good pixels became
        NaN.
        """
        first, bad, columns = 0, 0, self.mask.shape[-1]
        flat = out.reshape(-1)
        for segment in segments:
            here = flat[first : first + segment.size]
            bad += _rows(self.tile, segment, columns, first, self.constants, here)
            first += segment.size
        return bad


@exact
def _rows(tile: Any, raw: Any, columns: int, first: int, planes: Any, out: Any) -> int:
    bad = 0
    for at in range(0, raw.size, columns):
        bad += tile(raw[at : at + columns], first + at, planes, out[at : at + columns])
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
    no calibration here or a file cannot be read, ``ValueError`` for constants that do not fit.
    """
    if np.dtype(given.dtype) != np.uint16:
        raise ValueError(f"raw pixels are {given.dtype}; only uint16 can be calibrated")
    s, r, columns = given.shape
    constants = replace(constants, shape=(s, r, columns))
    if settings is None:
        return calibration_of(constants)
    if problems := list(_beside_the_point(constants, settings)):
        raise ValueError("; ".join(problems))
    constants, mask = from_files(constants, settings, locate)
    return calibration_of(constants, mask=mask, edges=settings.edges, unit=settings.unit)


def _beside_the_point(c: Constants, settings: CalibrationConfig) -> Iterator[str]:
    """Settings that would change nothing, or say what is not so."""
    if c.dettype == "epix10ka" and settings.offset:
        yield "offset: psana's calibration of an epix10ka has none; leave it out"
    if settings.unit != "keV" and not settings.gain:
        yield (
            f"unit: psana's gains are in ADU/keV; for {settings.unit!r} name a file of gains in"
            f" ADU/{settings.unit} as gain"
        )


def calibration_of(
    constants: Constants,
    *,
    mask: NDArray[Any] | None = None,
    edges: int = 0,
    unit: str = "keV",
    psana: bool = False,
) -> Calibration:
    """Lay constants out for the kernel.

    ``mask`` (segments, rows, columns), nonzero is good, and ``edges``, a number of rows and
    columns along the edges of every segment, join the status. A pixel with a constant that is not
    finite is masked, and so is one whose first gain range has no gain; a pixel that a shot finds
    in a range without gain, or with a gain code that means none, becomes NaN in that shot. With
    ``psana`` those are 0 and nothing is masked for want of gain: psana's frame. Without any gain
    the factor is 1 and the unit ADU.
    """
    c = constants
    _check(c, mask)
    good = _good(c, mask, edges)
    ranges = _jungfrau(c) if c.dettype == "jungfrau" else _epix10ka(c, int(psana))
    notes = _mask_out(good, ~_finite(ranges), "constants that are not finite")
    if not psana:
        notes += _mask_out(good, ranges[0][1] == 0, "no gain in their first range")
    undefined = np.float32(0 if psana else np.nan)
    planes = [_plane(*ranges[0], good, np.float32(0))]
    planes += [_plane(*r, good, undefined) for r in ranges[1:]]
    return Calibration(
        *_pack(c.dettype, planes, undefined),
        mask=good,
        unit=unit if c.gain is not None else "ADU",
        ids=dict(c.ids),
        origin=c.origin,
        notes=tuple(f"{c.detector}: {n}" for n in notes),
    )


def _none(detector: str) -> str:
    """Say what to do where there is nothing to calibrate with."""
    return (
        f'name files in [calibration.{detector}], or set {detector} = "none" in [calibration]'
        " to reduce raw ADU"
    )


def _check(c: Constants, mask: NDArray[Any] | None) -> None:
    """Raise ``LookupError`` for what is missing, ``ValueError`` for every shape that is wrong."""
    if c.dettype not in RANGES:
        raise LookupError(
            f"{c.detector}: detectors of type {c.dettype!r} are not calibrated yet, only"
            f' {" and ".join(RANGES)}; set {c.detector} = "none" in [calibration] to reduce raw'
            ' ADU, or { constants = "none", mask = "mask.npy" } to mask pixels too'
        )
    if c.pedestals is None:
        raise LookupError(
            f"{c.detector}: no pedestals (constants: {c.origin}); {_none(c.detector)}"
        )
    if c.dettype == "epix10ka" and c.config is None:
        raise LookupError(
            f"{c.detector}: the run does not tell the pixels' configuration bits, without which"
            f" an epix10ka has no gain ranges; {_none(c.detector)}"
        )
    ranges = (RANGES[c.dettype], *c.shape)
    status = c.shape if c.status is not None and c.status.ndim == 3 else ranges
    expected = {"pedestals": ranges, "gain": ranges, "offset": ranges, "status": status}
    expected |= {"config": c.shape, "xyz": (3, *c.shape)}
    arrays = [(name, getattr(c, name), shape) for name, shape in expected.items()]
    wrong = [
        f"{name} {a.shape} instead of {shape}"
        for name, a, shape in [*arrays, ("mask", mask, c.shape)]
        if a is not None and a.shape != shape
    ]
    if wrong:
        raise ValueError(
            f"{c.detector} ({c.dettype}) has {c.shape[0]} segments of {c.shape[1]} x {c.shape[2]}"
            f" pixels, but {'; '.join(wrong)}: take constants made for this detector"
        )


def _good(c: Constants, mask: NDArray[Any] | None, edges: int) -> NDArray[np.bool_]:
    """AND the masks: status over gain ranges, the user's, and the edges."""
    good = np.ones(c.shape, np.bool_)
    if c.status is not None:
        status = c.status if c.status.ndim == 4 else c.status[None]
        good &= (status[:STATUS_RANGES] == 0).all(axis=0)
    if mask is not None:
        good &= mask != 0
    good &= edges_mask(c.detector, c.shape, edges)
    return good


def _factor(gain: NDArray[Any] | None, like: NDArray[Any]) -> NDArray[Any]:
    """Return 1 / gain, 0 where the gain is 0, 1 without any gain."""
    if gain is None:
        return np.ones_like(like)
    with np.errstate(over="ignore", invalid="ignore"):
        one = gain.dtype.type(1)
        return np.asarray(np.divide(one, gain, out=np.zeros_like(gain), where=gain != 0))


def _jungfrau(c: Constants) -> list[Range]:
    """Pedestal and factor of each gain range; the offset joins the pedestal."""
    assert c.pedestals is not None
    with np.errstate(over="ignore", invalid="ignore"):
        pedestals = c.pedestals if c.offset is None else c.pedestals + c.offset
    return list(zip(pedestals, _factor(c.gain, pedestals), strict=True))


def _epix10ka(c: Constants, otherwise: int) -> list[Range]:
    """Fold seven gain ranges to two by the configuration bits: data bit 14 off, and on.

    Pixels whose bits name no range get pedestal 0 and the factor ``otherwise``.
    """
    assert c.pedestals is not None
    assert c.config is not None
    factor = _factor(c.gain, c.pedestals)
    out = []
    for bit in (0, 32):
        bits = c.config | np.uint8(bit)
        here = [(bits & m) == value for m, value in EPIX10KA]
        out.append((np.select(here, c.pedestals, 0), np.select(here, factor, otherwise)))
    return out


def _finite(ranges: list[Range]) -> NDArray[np.bool_]:
    return np.asarray(np.logical_and.reduce([np.isfinite(a) for r in ranges for a in r]))


def _mask_out(good: NDArray[np.bool_], unfit: NDArray[np.bool_], why: str) -> list[str]:
    """Mask good pixels that are ``unfit``, in place; a sentence if there were any."""
    number = int((good & unfit).sum())
    good &= ~unfit
    return [f"{number} pixels masked: {why}"] if number else []


def _plane(
    pedestal: NDArray[Any], factor: NDArray[Any], good: NDArray[np.bool_], undefined: np.float32
) -> tuple[F32, F32]:
    """Fold the mask into one range; good pixels without gain get the factor ``undefined``."""
    finite = np.isfinite(pedestal) & np.isfinite(factor)
    folded = (np.where(finite, factor, 0) * good).astype(np.float32)
    folded[good & (folded == 0)] = undefined
    return np.where(finite, pedestal, 0).astype(np.float32), folded


def _pack(
    dettype: str, planes: list[tuple[F32, F32]], undefined: np.float32
) -> tuple[Jungfrau | Epix10ka, Any]:
    """Lay the planes out for the kernel, and name it."""
    if dettype == "epix10ka":
        return Epix10ka(*(a.ravel() for plane in planes for a in plane)), epix10ka_tile
    pedestal, factor = (a.ravel() for a in planes[0])
    switched = np.concatenate([np.stack([a.ravel() for a in p], axis=-1) for p in planes[1:]])
    return Jungfrau(pedestal, factor, switched, float(undefined)), jungfrau_tile
