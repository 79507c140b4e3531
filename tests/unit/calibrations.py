"""Constants and raw frames made by hand, and psana's calibration written out in numpy."""

import numpy as np

from ffb.source import Constants

JF = (2, 5, 130)
EPIX = (2, 6, 70)


def jungfrau(shape=JF, seed=1, **change):
    rng = np.random.default_rng(seed)
    planes = (3, *shape)
    centre = np.array([2800.0, 14500.0, 14000.0]).reshape(3, 1, 1, 1)
    slope = np.array([40.0, -1.35, -0.1]).reshape(3, 1, 1, 1)
    gain = (slope * rng.normal(1, 0.01, planes)).astype(np.float32)
    gain[rng.random(planes) < 0.02] = 0
    given = {
        "pedestals": rng.normal(centre, 60, planes).astype(np.float32),
        "gain": gain,
        "offset": rng.normal(0, 3, planes).astype(np.float32),
        "status": (rng.random(planes) < 0.02).astype(np.uint64) * 3,
    }
    return Constants("jf", "jungfrau", shape, **(given | change))


def epix10ka(shape=EPIX, seed=2, **change):
    rng = np.random.default_rng(seed)
    planes = (7, *shape)
    slope = np.array([16.4, 5.466, 0.164, 16.4, 5.466, 0.164, 0.164]).reshape(7, 1, 1, 1)
    gain = (slope * rng.normal(1, 0.01, planes)).astype(np.float32)
    gain[rng.random(planes) < 0.02] = 0
    given = {
        "pedestals": rng.normal(3000, 300, planes).astype(np.float32),
        "gain": gain,
        "status": (rng.random(planes) < 0.02).astype(np.uint64),
        "config": rng.choice([0, 4, 8, 12, 16, 24, 28, 31], shape).astype(np.uint8),
    }
    return Constants("ep", "epix10ka", shape, **(given | change))


def ranges_of(c, raw):
    """Gain range of every raw pixel, -1 for none."""
    if c.dettype == "jungfrau":
        return np.array([0, 1, -1, 2])[raw >> 14]
    bits = c.config | (raw >> 9 & 32).astype(np.uint8)
    which = np.full(raw.shape, -1)
    for i, (mask, value) in enumerate(((28, 28), (28, 12), (12, 8), (60, 16), (60, 0), (60, 48))):
        which[bits & mask == value] = i
    which[bits & 60 == 32] = 6
    return which


def expected(c, raw, good):
    """psana's frame, two float32 roundings, and where it comes from no gain range."""
    which = ranges_of(c, raw)
    index = np.maximum(which, 0)[None]
    pedestals = c.pedestals if c.offset is None else c.pedestals + c.offset
    with np.errstate(divide="ignore"):
        factor = np.where(c.gain == 0, np.float32(0), np.float32(1) / c.gain)
    pedestal = np.take_along_axis(pedestals, index, 0)[0]
    factor = np.take_along_axis(factor, index, 0)[0]
    none = np.float32(0 if c.dettype == "jungfrau" else 1)
    pedestal = np.where(which < 0, np.float32(0), pedestal)
    factor = np.where(which < 0, none, factor)
    assert pedestal.dtype == factor.dtype == np.float32
    return ((raw & 0x3FFF).astype(np.float32) - pedestal) * (factor * good.astype(np.float32))


def words(shape, seed=3):
    """Raw frames with every gain code, the second without any switched pixel."""
    rng = np.random.default_rng(seed)
    any_word = rng.integers(0, 2**16, shape, np.uint16)
    some = np.where(rng.random(shape) < 0.01, any_word, any_word & 0x3FFF).astype(np.uint16)
    return [any_word, any_word & 0x3FFF, some, any_word & 0x3FFF | 0xC000]


def calibrated(k, raw):
    out = np.full(raw.shape, -99, np.float32)
    with np.errstate(all="ignore"):  # compiled code does not warn
        return out, k.calibrate([s.ravel() for s in raw], out)


def bits(a):
    return np.ascontiguousarray(a, np.float32).view(np.uint32)
