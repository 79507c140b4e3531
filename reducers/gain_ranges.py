"""Kernels from raw to calibrated, one detector row at a time, and the layout of their constants.

A pixel's value is ``(adu - pedestal) * factor`` in float32, rounded twice in this order. Almost all
pixels are in their first gain range, so its constants lie together (*hot*) and every row goes
through them at the speed of memory; the other ranges lie apart (*cold*) and are read only for
pixels that have switched. A detector of one range has only hot ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ffb.loops.compile import aligned, prefetch
from ffb.source import Constants

#: The ADC value of a raw pixel; its gain range is in the two bits above.
ADU = 0x3FFF

#: Pixels that are looked through together for some that have switched.
BLOCK = 64

#: Range of an epix10ka pixel from its configuration bits, data bit 14 put at bit 5: (mask, value).
EPIX10KA = ((28, 28), (28, 12), (12, 8), (60, 16), (60, 0), (60, 48), (60, 32))

#: Those of its ranges that are of high or medium gain; psana finds the common mode in them.
HIGH = (0, 1, 3, 4)

#: What psana multiplies pixels by where the store has no gains (``UtilsEpix100``, ``archon``).
WITHOUT_GAIN = {"epix100": (0.06, "keV"), "archon": (3.65, "eV")}

F32 = NDArray[np.float32]
Range = tuple[NDArray[Any], NDArray[Any]]


class Single(NamedTuple):
    """Constants of a detector with one gain range, each (pixels,)."""

    pedestal: F32
    factor: F32


class Jungfrau(NamedTuple):
    """Constants of a Jungfrau: ``pedestal`` and ``factor`` (pixels,) of range 0.

    ``switched`` (2 * pixels, 2) holds both for gain code 1, then for 3, side by side because they
    are read for single pixels; ``undefined`` is the value of a good pixel with gain code 2, which
    means none; ``found`` (columns,) is room for those of a row.
    """

    pedestal: F32
    factor: F32
    switched: F32
    undefined: np.float32
    found: NDArray[np.int32]


class Epix10ka(NamedTuple):
    """Constants of an epix10ka, each (pixels,): with data bit 14 off, and (``low``) with it on."""

    pedestal: F32
    factor: F32
    pedestal_low: F32
    factor_low: F32


#: Constants of one detector as its kernel takes them.
Planes = Single | Jungfrau | Epix10ka


def exact(fn: Callable[..., Any]) -> Any:
    """Compile without licence to rearrange floating point: bits must be psana's."""
    return njit(fn, nogil=True, error_model="numpy")


@exact
def single_tile(raw: Any, first: int, planes: Single, out: Any) -> int:
    """Calibrate a row of a detector with one gain range; no pixel becomes NaN."""
    pedestal = planes.pedestal[first : first + raw.size]
    factor = planes.factor[first : first + raw.size]
    for i in range(raw.size):
        out[i] = (np.float32(raw[i]) - pedestal[i]) * factor[i]
    return 0


@exact
def jungfrau_tile(raw: Any, first: int, planes: Jungfrau, out: Any) -> int:
    """Calibrate a row of a Jungfrau; returns how many valid pixels became NaN."""
    pedestal = planes.pedestal[first : first + raw.size]
    factor = planes.factor[first : first + raw.size]
    bits = np.uint16(0)
    for i in range(raw.size):
        bits = np.uint16(bits | raw[i])  # numba would count in 64 bits
        out[i] = (np.float32(raw[i]) - pedestal[i]) * factor[i]
    return _switch(raw, first, planes, out) if bits > ADU else 0


@exact
def _switch(raw: Any, first: int, planes: Jungfrau, out: Any) -> int:
    """Overwrite the pixels of a row that have switched; returns how many became NaN.

    They come in clusters: blocks without any are passed over at the speed of the cache. Those of a
    row are listed and their constants asked for before any is needed: waiting for one after the
    other took twice as long as all the rest.
    """
    bad, pixels, found, number = 0, planes.factor.size, planes.found, 0
    for at in range(0, raw.size, BLOCK):
        block = raw[at : min(at + BLOCK, raw.size)]
        bits = np.uint16(0)
        for i in range(block.size):
            bits = np.uint16(bits | block[i])
        if bits <= ADU:
            continue
        for i in range(block.size):
            found[number] = at + i
            if block[i] > ADU:
                prefetch(planes.switched, 2 * _cold(block[i], pixels, first + at + i))
                number += 1
    for i in found[:number]:
        code = raw[i] >> 14
        k = np.uint64(_cold(raw[i], pixels, first + i))
        value = (np.float32(raw[i] & ADU) - planes.switched[k, 0]) * planes.switched[k, 1]
        if code == 2:
            value = planes.undefined if planes.factor[first + i] != 0 else np.float32(0)
        out[i] = value
        bad += value != value
    return bad


@exact
def _cold(word: Any, pixels: int, pixel: int) -> Any:
    """Where the constants of a switched pixel are; codes 1 and 3 take the same way, unguessed."""
    return (np.int64(word) >> 15) * pixels + pixel


@exact
def epix10ka_tile(raw: Any, first: int, planes: Epix10ka, out: Any) -> int:
    """Calibrate a row of an epix10ka; returns how many valid pixels became NaN."""
    pedestal = planes.pedestal[first : first + raw.size]
    factor = planes.factor[first : first + raw.size]
    bits = np.uint16(0)
    for i in range(raw.size):
        bits = np.uint16(bits | raw[i])  # numba would count in 64 bits
        out[i] = (np.float32(raw[i] & ADU) - pedestal[i]) * factor[i]
    bad = 0
    if bits & (ADU + 1):
        pedestal = planes.pedestal_low[first : first + raw.size]
        factor = planes.factor_low[first : first + raw.size]
        for i in range(raw.size):
            low = (np.float32(raw[i] & ADU) - pedestal[i]) * factor[i]
            out[i] = low if raw[i] & (ADU + 1) else out[i]
        nans = np.int32(0)
        for i in range(raw.size):
            nans = np.int32(nans + (out[i] != out[i]))
        bad = int(nans)
    return bad


def ranges_of(c: Constants, psana: bool) -> list[Range]:
    """Pedestal and factor of each gain range as the kernel tells them apart.

    Needs pedestals, and for an epix10ka its configuration bits. ``psana``: see
    :func:`ffb.reducers.calibration.calibration_of`.
    """
    assert c.pedestals is not None
    if c.dettype == "epix10ka":
        return _epix10ka(c, int(psana))
    pedestals = c.pedestals
    if c.dettype == "jungfrau" and c.offset is not None:
        with np.errstate(over="ignore", invalid="ignore"):
            pedestals = pedestals + c.offset
    factor = _factor(c.gain, pedestals, WITHOUT_GAIN.get(c.dettype, (1.0,))[0])
    return list(zip(pedestals, factor, strict=True))


def _factor(gain: NDArray[Any] | None, like: NDArray[Any], without: float = 1.0) -> NDArray[Any]:
    """Return 1 / gain, 0 where the gain is 0, ``without`` any gain."""
    if gain is None:
        return np.full_like(like, without)
    with np.errstate(over="ignore", invalid="ignore"):
        one = gain.dtype.type(1)
        return np.asarray(np.divide(one, gain, out=np.zeros_like(gain), where=gain != 0))


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


def high_gain(c: Constants) -> NDArray[np.bool_]:
    """Pixels whose first range is not one of low gain, in which a common mode drowns."""
    if c.dettype != "epix10ka":
        return np.ones(c.shape, np.bool_)
    assert c.config is not None
    return np.asarray(
        np.logical_or.reduce([(c.config & m) == v for m, v in (EPIX10KA[r] for r in HIGH)])
    )


def kernel_of(
    dettype: str, ranges: list[Range], good: NDArray[np.bool_], undefined: np.float32
) -> tuple[Planes, Any]:
    """Lay ``ranges`` out for the kernel of a type of detector, and name it.

    Good pixels without gain in a range they have switched to become ``undefined``.
    """
    planes = [_plane(*ranges[0], good, np.float32(0))]
    planes += [_plane(*r, good, undefined) for r in ranges[1:]]
    if dettype == "epix10ka":
        return Epix10ka(*(a for plane in planes for a in plane)), epix10ka_tile
    if dettype != "jungfrau":
        return Single(*planes[0]), single_tile
    switched = np.concatenate([np.stack(p, axis=-1) for p in planes[1:]])
    found = np.zeros(good.shape[-1], np.int32)
    return Jungfrau(*planes[0], switched, undefined, found), jungfrau_tile


def _plane(
    pedestal: NDArray[Any], factor: NDArray[Any], good: NDArray[np.bool_], undefined: np.float32
) -> tuple[F32, F32]:
    """Fold the mask into one range, flat; good pixels without gain get the factor ``undefined``."""
    finite = np.isfinite(pedestal) & np.isfinite(factor)
    folded = (np.where(finite, factor, 0) * good).astype(np.float32)
    folded[good & (folded == 0)] = undefined
    hot = aligned(folded.size, np.float32), aligned(folded.size, np.float32)
    hot[0][:] = np.where(finite, pedestal, 0).ravel()
    hot[1][:] = folded.ravel()
    return hot
