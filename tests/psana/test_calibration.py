"""Calibrated frames are psana's own, bit by bit, for the same constants."""

import numpy as np
import pytest

from ffb.reducers.calibration import calibration_of
from ffb.reducers.masks import Masking, good_pixels
from ffb.source import Constants
from ffb.sources.standins import import_psana
from ffb.testing.fabricate import RunSpec, write_run

pytestmark = pytest.mark.psana

#: What psana prints of a constant; both keys are needed.
DOCUMENT = {"experiment": "fabricated", "run": 1}
STORED = {
    "pedestals": "pedestals",
    "gain": "pixel_gain",
    "offset": "pixel_offset",
    "status": "pixel_status",
    "status_extra": "status_extra",
    "pixel_mask": "pixel_mask",
}


@pytest.fixture(scope="module")
def run_path(tmp_path_factory):
    spec = RunSpec(steps=1, shots_per_step=3, segments=2, epix=2)
    return write_run(tmp_path_factory.mktemp("calibration") / "run.xtc2", spec)


@pytest.fixture(scope="module")
def run(run_path):
    source = import_psana("psana").DataSource(
        files=str(run_path), skip_calib_load="all", log_level="ERROR"
    )
    return next(source.runs())


def made_up(ranges, shape, centres, slopes, offset):
    """Constants with zero gains, bad pixels and, if asked, offsets."""
    rng = np.random.default_rng(ranges)
    planes = (ranges, *shape)
    gain = np.array(slopes).reshape(-1, 1, 1, 1) * rng.normal(1, 0.01, planes)
    gain[rng.random(planes) < 1e-3] = 0
    constants = {
        "pedestals": np.array(centres).reshape(-1, 1, 1, 1) + rng.normal(0, 60, planes),
        "gain": gain,
    }
    if offset:
        constants["offset"] = rng.normal(0, 5, planes)
    constants = {name: a.astype(np.float32) for name, a in constants.items()}
    constants["status"] = (rng.random(planes) < 1e-3).astype(np.uint64)
    return constants


def injected(run, detector, constants):
    """psana's detector, with these constants as if they came from its store."""
    run._calib_const[detector] = {STORED[k]: (a, DOCUMENT) for k, a in constants.items()}
    run.dsparms.calibconst = run._calib_const
    return run.Detector(detector).raw


def ours(calibration, raw):
    out = np.empty(raw.shape, np.float32)
    calibration.calibrate([np.ascontiguousarray(s).ravel() for s in raw], out)
    return out


def assert_same_bits(a, b):
    np.testing.assert_array_equal(a, b)
    used = a != 0
    np.testing.assert_array_equal(a[used].view(np.uint32), b[used].view(np.uint32))


def test_frames_are_those_of_psana(run):
    jf_shape, ep_shape = (2, 512, 1024), (2, 352, 384)
    jf_made = made_up(3, jf_shape, (2800, 14500, 14000), (40, -1.35, -0.1), offset=True)
    slopes = (16.4, 5.466, 0.164, 16.4, 5.466, 0.164, 0.164)
    ep_made = made_up(7, ep_shape, (3000,) * 7, slopes, offset=False)
    jf, ep = injected(run, "jungfrau", jf_made), injected(run, "epixquad", ep_made)
    config = ep._cbits_config_detector()
    k_jf = calibration_of(Constants("jungfrau", "jungfrau", jf_shape, **jf_made), psana=True)
    k_ep = calibration_of(
        Constants("epixquad", "epix10ka", ep_shape, **ep_made, config=config), psana=True
    )
    rng = np.random.default_rng(1)
    codes, shots = set(), 0
    for event in run.events():
        raw = jf.raw(event)
        assert_same_bits(ours(k_jf, raw), jf.calib(event))
        any_word = rng.integers(0, 2**16, jf_shape, np.uint16)  # all four gain codes
        uj = import_psana("psana.detector.UtilsJungfrau")
        assert_same_bits(
            ours(k_jf, any_word), uj.calib_jungfrau_versions(jf, event, nda_raw=any_word)
        )
        codes |= set(np.unique(any_word >> 14))
        raw = ep.raw(event)
        assert set(np.unique(raw >> 14)) == {0, 1}
        assert_same_bits(ours(k_ep, raw), ep.calib(event))
        shots += 1
    assert shots == 3
    assert codes == {0, 1, 2, 3}
    np.testing.assert_array_equal(k_jf.mask, jf._mask() != 0)
    np.testing.assert_array_equal(k_ep.mask, ep._mask() != 0)
    assert len(np.unique(config & 28)) >= 3


@pytest.mark.parametrize("edges", [1, 4])
def test_edges_mask_what_psana_masks(run, edges):
    um = import_psana("psana.detector.UtilsMask")
    made = made_up(3, (2, 512, 1024), (2800, 14500, 14000), (40, -1.35, -0.1), offset=False)
    made["status"][:] = 0
    c = Constants("jungfrau", "jungfrau", (2, 512, 1024), **made)
    theirs = um.mask_edges(np.ones((2, 512, 1024), np.uint8), edge_rows=edges, edge_cols=edges)
    ours = calibration_of(c, masking=Masking(edges=(edges, edges)), psana=True).mask
    np.testing.assert_array_equal(ours, theirs != 0)


COMBINED = [
    {},
    {"status_bits": 2},
    {"neighbors": 3, "neighborhood": "rhombus"},
    {"neighbors": 2, "neighborhood": "circle"},
    {"neighbors": 2, "neighborhood": "square", "edges": (2, 5)},
    {"edges": (3, 0), "center": (1, 2), "status_bits": 1},
    {"status_bits": 2, "status_extra_bits": 1, "neighbors": 1},
    {"status_extra_bits": 0, "pixel_mask": True},
]


@pytest.mark.parametrize("asked", COMBINED, ids=str)
def test_masks_are_those_of_psana(run, asked):
    rng = np.random.default_rng(4)
    for name, dettype, shape, ranges in (
        ("jungfrau", "jungfrau", (2, 512, 1024), 3),
        ("epixquad", "epix10ka", (2, 352, 384), 7),
    ):
        status = rng.choice([0, 1, 2, 3], (ranges, *shape), p=[0.997, 1e-3, 1e-3, 1e-3])
        user = rng.random(shape) > 1e-3
        made = {"pedestals": np.zeros((ranges, *shape), np.float32)}  # psana's edges want some
        extra = np.roll(status, 100) << 1
        words = {"status": status.astype(np.uint64), "status_extra": extra.astype(np.uint64)}
        words["pixel_mask"] = (rng.random(shape) > 1e-3).astype(np.uint8)
        det = injected(run, name, made | words)
        det._maskalgos_ = None  # which was made for other constants
        masking = Masking(**asked)
        options = {"rad": masking.neighbors, "ptrn": masking.neighborhood[0]}
        options |= {"edge_rows": masking.edges[0], "edge_cols": masking.edges[1]}
        options |= {"center_rows": masking.center[0], "center_cols": masking.center[1]}
        options |= {"neighbors": masking.neighbors > 0, "edges": any(masking.edges)}
        options |= {"calib": masking.pixel_mask}
        if masking.status_bits:
            options["status_bits"] = masking.status_bits
        if masking.status_extra_bits is not None:
            options["stextra_bits"] = masking.status_extra_bits
        center = masking.center
        if dettype == "jungfrau" and any(center):  # not to be had of psana
            with pytest.raises(TypeError, match=r"np\.dtype"):
                det._mask_comb(center=True, umask=user.astype(np.uint8), **options)
            masking, center = masking._replace(center=(0, 0)), (0, 0)
        theirs = det._mask_comb(center=any(center), umask=user.astype(np.uint8), **options)
        ours = good_pixels(Constants(name, dettype, shape, **words), masking, user)
        np.testing.assert_array_equal(ours, theirs != 0)
        assert 0 < ours.mean() < 0.999
