"""The common mode is psana's own, bit by bit, for the same constants and settings."""

from types import SimpleNamespace

import numpy as np
import pytest

from ffb.configuration.calibration_settings import CommonModeConfig
from ffb.reducers.calibration import calibration_of
from ffb.source import Constants
from ffb.sources.standins import import_psana
from tests.unit.calibrations import calibrated, epix10ka, jungfrau

pytestmark = pytest.mark.psana

#: psana's bits of ``cmpars[1]`` for what ours is over, in the order in which it applies them.
MODES = {("rows",): 1, ("columns",): 2, ("banks",): 4, ("banks", "rows", "columns"): 7}
LARGEST, MINIMUM = 25.0, 10


def noise(pedestals, shape, seed=7):
    """Noise, an offset of every row, one of every column and photons, in ADU; 0 to 0x3fff."""
    rng = np.random.default_rng(seed)
    adu = pedestals + rng.normal(0, 3, shape) + rng.poisson(0.02, shape) * 130
    adu += rng.normal(0, 15, (*shape[:2], 1)) + rng.normal(0, 5, (shape[0], 1, shape[2]))
    return np.clip(adu, 0, 0x3FFF).astype(np.uint16)


def ours(c, over, bank):
    least = MINIMUM + (over != ("banks",))  # of a bank psana wants 10 pixels, else more than 10
    setting = CommonModeConfig(over=over, bank=bank, pixels=least, largest=LARGEST)
    return calibration_of(c, psana=True, common_mode=setting)


def assert_same(out, theirs):
    assert theirs.dtype == np.float32
    np.testing.assert_array_equal(out, theirs)
    used = out != 0
    np.testing.assert_array_equal(out[used].view(np.uint32), theirs[used].view(np.uint32))


@pytest.mark.parametrize("over", MODES, ids="+".join)
def test_epix100(over):
    utils = import_psana("psana.detector.UtilsCommonMode")
    shape, rng = (1, 64, 192), np.random.default_rng(3)
    pedestals = rng.normal(3000, 60, (1, *shape)).astype(np.float32)
    status = (rng.random((1, *shape)) < 0.1).astype(np.int64)
    status[0, 0, 5, :14] = status[0, 0, :25, 30] = 1  # ten pixels left in one bank of the row
    c = Constants("ep", "epix100", shape, pedestals, None, None, status)
    raw, k = noise(pedestals[0], shape), ours(c, over, [32, 24])
    out, _ = calibrated(k, raw)
    theirs = raw - pedestals[0]
    mask = k.mask.astype(np.uint8)
    utils.common_mode_apply(theirs, mask, cmpars=(0, MODES[over], LARGEST, MINIMUM))
    untouched = (raw - pedestals[0] == theirs)[k.mask].mean()
    assert 0 < untouched < 0.5 or over != ("rows",)
    assert_same(out, theirs * np.float32(0.06) * mask)


@pytest.mark.parametrize("over", MODES, ids="+".join)
def test_jungfrau(over):
    utils = import_psana("psana.detector.UtilsJungfrau")
    c = jungfrau((1, 512, 256))
    raw = noise(c.pedestals[0] + c.offset[0], c.shape)
    anything = np.random.default_rng(9).integers(0, 1 << 16, c.shape, np.uint16)
    raw = np.where(np.random.default_rng(8).random(c.shape) < 0.05, anything, raw)
    k = ours(c, over, [256, 16])
    out, _ = calibrated(k, raw)
    with np.errstate(divide="ignore"):
        factor = np.where(c.gain == 0, np.float32(0), np.float32(1) / c.gain)
    theirs = utils.calib_jungfrau_single_panel(
        raw, factor, c.pedestals + c.offset, k.mask.astype(np.uint8),
        (7, MODES[over], LARGEST, MINIMUM),
    )  # fmt: skip
    assert_same(out, theirs)


@pytest.mark.parametrize("over", MODES, ids="+".join)
def test_epix10ka(over):
    utils = import_psana("psana.detector.UtilsEpix10ka")
    c = epix10ka((2, 64, 128))
    raw = noise(3000, c.shape)
    raw[np.random.default_rng(8).random(c.shape) < 0.05] |= 0x4000
    fixed = np.isin(c.config & 28, [28, 12])  # pixels that cannot switch do not
    raw[fixed] &= 0x3FFF
    k = ours(c, over, [32, 16])
    out, _ = calibrated(k, raw)
    bits = c.config | (raw >> 9 & 32).astype(np.uint8)
    maps = utils.gain_maps_epix10ka_any_alg(bits)
    inverse = np.divide(np.float32(1), c.gain, out=np.zeros_like(c.gain), where=c.gain != 0)
    factor = utils.event_constants_for_gmaps(maps, inverse, default=1)
    theirs = (raw & 0x3FFF).astype(np.float32)
    theirs -= utils.event_constants_for_gmaps(maps, c.pedestals, default=0)
    mask = k.mask.astype(np.uint8)
    store = SimpleNamespace(
        cmpars=(7, MODES[over], LARGEST, MINIMUM), mask=mask, arr1=np.ones_like(mask)
    )
    utils.common_mode_epix_multigain_apply(theirs, maps, store)
    assert_same(out, (theirs * factor).astype(np.float32) * mask)


def test_archon_by_its_pixels_without_a_sensor():
    archon = import_psana("psana.detector.archon").archon_raw_1_0_0
    shape = (1, 5, 4800)
    rng = np.random.default_rng(3)
    pedestals = rng.normal(900, 30, (1, *shape)).astype(np.float32)
    c = Constants("ccd", "archon", shape, pedestals)
    raw = noise(pedestals[0], shape)
    setting = CommonModeConfig(over="rows", bank=[1, 300], reference=[264, 300])
    fake = np.arange(4800) % 300 >= 264
    hidden = np.broadcast_to(~fake, shape)
    k = calibration_of(c, mask=hidden, common_mode=setting)
    out, _ = calibrated(k, raw)
    theirs = (raw - pedestals[0])[0]
    banks = SimpleNamespace(
        _realPixelsPerBank=264, _fakePixelsPerBank=36, _totPixelsPerBank=300, _nbanks=16
    )
    archon._common_mode(banks, theirs)
    assert_same(out[0], np.where(hidden[0], theirs * np.float32(3.65), np.float32(0)))
