"""Constants that lack something: psana's numbers all the same, or a sentence on what to do."""

from pathlib import Path

import numpy as np
import pytest

from ffb.configuration.calibration_settings import CalibrationConfig
from ffb.reducers import calibration as cal
from ffb.shot import Input
from ffb.sources.psana import Meaning
from tests.psana import test_cameras as cameras
from tests.psana.test_detectors import DOCUMENT, Camera, configure, psanas

pytestmark = pytest.mark.psana

BIG = {
    "jungfrau": Camera("jungfrau", (0,), 1),
    "epix10ka": Camera("epix10ka", (0, 1), 2),
}


def spoilt(array, value, every=997):
    out = array.copy()
    out.flat[::every] = value
    return out


def without(*names):
    return lambda c: {k: a for k, a in c.items() if k not in names}


def changed(name, change):
    return lambda c: c | {name: change(c[name]) if name in c else change(c["pedestals"])}


ONE_STATUS = changed("pixel_status", lambda a: a[0])
MORE_STATUS = changed("status_extra", lambda a: spoilt(np.zeros_like(a, np.uint64), 1 << 6))
NO_STATUS = "no pixel_status: no pixel is masked for it"
IN_ADU = "no gains: values are ADU above the pedestals"
LEFT_OUT = "constants that are not finite"
#: A mask in the store: psana takes it only if it is asked to, and so do we.
STORED_MASK = changed("pixel_mask", lambda a: spoilt(np.ones(a.shape[-3:], np.uint8), 0))
#: What is stored, and a note; the numbers of good pixels are psana's.
CASES = {
    "jungfrau": [
        (without("pixel_gain", "pixel_offset"), IN_ADU),
        (without("pixel_status"), NO_STATUS),
        (ONE_STATUS, ""),
        (MORE_STATUS, ""),
        (STORED_MASK, ""),
        (changed("pixel_gain", np.negative), ""),
        (changed("pixel_gain", np.zeros_like), "no good pixel is left"),
        (changed("pedestals", lambda a: spoilt(a, np.inf)), LEFT_OUT),
        (changed("pixel_rms", lambda a: a[0]), "no noise: rms is (1, 1, 512, 1024), not (3, 1,"),
    ],
    "epix10ka": [
        (without("pixel_gain"), IN_ADU),
        (ONE_STATUS, ""),
        (MORE_STATUS, ""),
        (changed("pedestals", lambda a: spoilt(a, np.nan)), LEFT_OUT),
        (changed("pixel_gain", lambda a: spoilt(a, np.nan)), LEFT_OUT),
        (changed("pixel_offset", lambda a: a[:2]), ""),  # which psana takes for a Jungfrau only
        (changed("pixel_gain", np.float64), ""),
    ],
    "epix100": [
        (without("pixel_status"), NO_STATUS),
        (MORE_STATUS, ""),
        (changed("pedestals", lambda a: spoilt(a, np.nan)), LEFT_OUT),
        (changed("pixel_gain", lambda a: spoilt(a, -3.0)), ""),
        (changed("pedestals", lambda a: np.rint(a).astype(np.int16)), ""),
    ],
}  # fmt: skip
REFUSED = [
    ("jungfrau", changed("pedestals", lambda a: a[0]),
     r"has 1 segments of 512 x 1024 pixels, but pedestals \(1, 1, 512, 1024\) instead of \(3, 1,"),
    ("jungfrau", without("pedestals"), r"no pedestals \(constants: psana's store, .*name files in"),
    ("epix10ka", changed("pixel_gain", lambda a: a[:6]), r"gain \(6, 2, 352, 384\) instead of \(7"),
    ("epix100", changed("pedestals", lambda a: a[..., :-1, :]), r"pedestals \(1, 1, 703, 768\)"),
    ("archon", changed("pedestals", lambda a: a[:2]), r"pedestals \(1, 1, 2, 4800\) instead of"),
    ("archon", without("pedestals"), r"class of it cannot be made of pixel_gain.*name file"),
]  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """By kind: a run of one shot, its words, the name of the detector, constants that fit."""
    out = {}

    def run_of(kind):
        if kind not in out:
            path = tmp_path_factory.mktemp(kind) / "run.xtc2"
            if camera := BIG.get(kind):
                out[kind] = path, camera.write(path, kind), kind, camera.constants()
            else:
                words = cameras.write(path, kind, kind)
                constants = cameras.constants(kind, words.shape, gain=True)
                out[kind] = path, words[None], kind, constants
        return out[kind]

    return run_of


def ours_of(path, words, name, stored, monkeypatch, setting=None):
    found = {ctype: (array, DOCUMENT) for ctype, array in stored.items()}
    monkeypatch.setattr(Meaning, "_stored", lambda *_: found)
    constants = Meaning([configure(path)], "mfxx49820", 7).constants(name)
    return cal.make(constants, setting, Path, Input("area", words.dtype.str, words.shape))


@pytest.mark.parametrize("kind", CASES)
def test_numbers_are_psanas_whatever_is_missing(written, kind, monkeypatch):
    path, words, name, complete = written(kind)
    _, detector, event = psanas(path, complete, name)
    for number, (change, note) in enumerate(CASES[kind]):
        stored = change(complete)
        k = ours_of(path, words, name, stored, monkeypatch)
        assert any(note in n for n in k.notes) or not note, (number, k.notes)
        out = np.empty(words.shape, np.float32)
        bad = k.calibrate([w.ravel() for w in words], out)
        detector._calibconst = {ctype: (array, DOCUMENT) for ctype, array in stored.items()}
        for cached in ("_calibc_", "_maskalgos_", "_store_", "_odc", "_gain_", "_gain_factor_"):
            setattr(detector, cached, None)
        with np.errstate(all="ignore"):
            theirs = np.reshape(detector.calib(event), words.shape)
        there = k.mask & ~np.isnan(out)  # what has no gain in its range is NaN here, 0 there
        np.testing.assert_array_equal(theirs[k.mask & ~there], 0)
        assert (k.mask & ~there).sum() == bad
        if theirs.dtype == np.float32:
            np.testing.assert_array_equal(out[there], theirs[there], err_msg=str(number))
        else:
            np.testing.assert_allclose(out[there], theirs[there], rtol=1e-6, atol=1e-3)
        assert there.any() == ("no good pixel is left" not in note)
        theirs_good = detector._mask(force_update=True)
        if "pixel_status" in stored:
            assert not (k.mask & (np.reshape(theirs_good, k.mask.shape) == 0)).any()
            assert (theirs_good == 0).any()


def test_the_mask_of_the_store_is_taken_where_it_is_asked_for(written, monkeypatch):
    path, words, name, complete = written("jungfrau")
    asked = CalibrationConfig(pixel_mask=True)
    with pytest.raises(ValueError, match="jungfrau: pixel_mask: the store has none for it"):
        ours_of(path, words, name, complete, monkeypatch, asked)
    stored = STORED_MASK(complete)
    with_it = ours_of(path, words, name, stored, monkeypatch, asked)
    without_it = ours_of(path, words, name, stored, monkeypatch)
    np.testing.assert_array_equal(with_it.mask, without_it.mask & (stored["pixel_mask"] != 0))
    assert (with_it.mask != without_it.mask).any()
    assert with_it.ids["masking"] == '{"pixel_mask": true}'


@pytest.mark.parametrize(("kind", "change", "said"), REFUSED)
def test_what_cannot_be_calibrated_is_refused_in_a_sentence(
    written, kind, change, said, monkeypatch
):
    path, words, name, complete = written(kind)
    with pytest.raises((LookupError, ValueError), match=said) as e:
        ours_of(path, words, name, change(complete), monkeypatch)
    assert str(e.value).startswith(f"{name}")
