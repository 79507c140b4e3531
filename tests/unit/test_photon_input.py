"""Photon maps as frames: reducers and sums take them, beside the calibrated frame itself."""

import json

import numpy as np
import pytest

from ffb import config
from ffb.plan import Plan
from ffb.shot import Input
from ffb.testing.listed import ListedRun, ListedShot
from tests.unit.photon_frames import ENERGY, charges
from tests.unit.test_photon_map import by_droplets
from tests.unit.test_photons import Params

SHAPE = (2, 12, 40)
INPUTS = {n: Input("area", "<f4", SHAPE) for n in ("frame", "counts")}
DROPLETS = {"photon": ENERGY, "threshold": 4.0, "threshold_low": 1.0}


def table(**photons):
    return {
        "source": {"kind": "synthetic"},
        "inputs": {n: {"detector": "det", "field": "raw"} for n in INPUTS},
        "calibration": {"det": {"constants": "none", "edges": 1}},
        "photons": photons,
        "batch": {"shots": 8},
        "sums": {"counts": {"what": ["calib", "calib_nhits"]}},
        "reducers": {
            "map": {"use": "roi", "inputs": "counts", "params": {"segment": 1, "area": True}},
            "plain": {"use": "roi", "inputs": "frame", "params": {"segment": 1}},
        },
    }


def made(**photons):
    with np.errstate(all="ignore"):
        return Plan.make(config.parse(table(**photons)), ListedRun(INPUTS))


def images(n=5):
    rng = np.random.default_rng(67)
    out = [charges(SHAPE, 0.06, rng) for _ in range(n)]
    out[1][1, 5, 8], out[2][1, 4, 4] = np.nan, 1e9
    return out


def test_reducers_and_sums_take_photons_in_place_of_the_frame():
    plan, frames, p = made(counts=DROPLETS), images(), Params(ENERGY, 4.0, 1.0)
    for k, image in enumerate(frames):
        plan.take(ListedShot(100 + k, {"frame": image, "counts": image.copy()}), k)
    batch = plan.close()
    good = np.zeros(SHAPE, np.bool_)
    good[:, 1:-1, 1:-1] = True
    total = np.zeros(SHAPE)
    for k, image in enumerate(frames):
        values = np.where(good, image, 0).astype(np.float64)
        lost = np.isnan(values) | (values > 1e6 * ENERGY)
        found = [by_droplets(segment, p) for segment in values]
        expected = np.where(lost, np.nan, np.stack(found))
        total += np.nan_to_num(expected)
        area = np.where(good, expected, np.nan)[1]
        np.testing.assert_array_equal(batch.columns["map/area"][k], area)
        assert batch.columns["map/sum"][k] == np.nansum(area)
        assert batch.columns["map/npix"][k] == np.isfinite(area).sum()
        plain = np.nansum(np.where(good & ~np.isnan(image), image, 0)[1].astype(float))
        np.testing.assert_allclose(batch.columns["plain/sum"][k], plain, rtol=1e-9)
    pieces = {p.what: p.values.reshape(SHAPE) for p in plan.close_sums()}
    np.testing.assert_array_equal(pieces["calib"], total)
    assert {p.what for p in plan.close_sums()} == set()
    units = {c.name: c.unit for c in plan.schema.columns}
    assert (units["map/sum"], units["plain/sum"]) == ("photons", "ADU")


def test_two_inputs_of_one_detector_have_its_arrays_once_and_the_map_is_recorded():
    about = made(counts=DROPLETS).provenance()
    names = [a["name"] for a in about.arrays]
    assert names.count("det/mask") == 1 == len(set(names)) / len(names)
    assert json.loads(about.constants["det"]["photons.counts"])["threshold"] == 4.0


@pytest.mark.parametrize(
    ("photons", "said"),
    [
        ({"count": DROPLETS}, "photons.count: no input 'count'; did you mean 'counts'?"),
        ({"counts": {}}, "photons.counts.photon"),
        ({"counts": {"photon": 0.0}}, "photons.counts.photon"),
        (
            {"counts": {"photon": 9.0, "by": "pixels", "threshold": 3.0}},
            'photons.counts: by = "pixels" knows no threshold; leave out',
        ),
        ({"counts": {"photon": 9.0, "edges": [5.0, 4.0]}}, "photons.counts.edges: [5.0, 4.0] must"),
        ({"counts": {"photon": 9.0, "edges": []}}, "photons.counts.edges: none given"),
        (
            {"counts": {"photon": 9.0, "threshold": 3.0, "threshold_low": 4.0}},
            "photons.counts.threshold_low: 4.0",
        ),
        ({"counts": {**DROPLETS, "in_noise": True}}, "photons.counts.in_noise: the constants of"),
        ({"counts": {"photon": 9.0, "pixel_max": 2.0}}, "photons.counts.pixel_max: 2.0"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(photons, said):
    with pytest.raises(config.ConfigError) as e:
        made(**photons)
    assert any(p.startswith(said) for p in e.value.problems), e.value.problems


def test_only_area_detectors_have_photons():
    wrong = table(counts=DROPLETS)
    run = ListedRun({"frame": INPUTS["frame"], "counts": Input("value", "<f4", (7,))})
    with pytest.raises(config.ConfigError) as e:
        Plan.make(config.parse(wrong), run)
    assert any(
        "photons.counts: frames of counts have the shape (7,)" in p for p in e.value.problems
    )
