"""`ffb import-config`: azimuthal averages of production configurations, of all years."""

import math

import numpy as np
import pytest

from ffb.reducers.geometry import Geometry, on_detector
from tests.unit.prod_configs import EXP, LITERAL, lost, one
from tests.unit.scattered import azav_angles


def test_azimuthal_averages_and_cakes(imported):
    status, data, _, err = imported(LITERAL, *EXP)
    azav, cake = (data["reducers"][f"jungfrau4M/{n}"] for n in ("azav", "cake"))
    assert [p["runs"] for p in azav["params"]] == ["1-19", "20-30"]
    assert [p["distance"] for p in azav["params"]] == [80.0, 80.5]
    params = azav["params"][0]
    assert (params["energy"], params["polarization"], params["bins"]) == (9.5, 1.0, 100)
    assert params["limits"] == pytest.approx([0.5, 1.5])
    assert {p["average"] for p in azav["params"]} == {"corrected"}
    assert cake["params"][0]["width"] == 5e-3
    assert cake["params"][0]["phi_bins"] == 8
    assert cake["params"][0]["phi_limits"] == [-22.5, 337.5]
    assert cake["params"][0]["polarization"] == -1.0
    assert status == 1
    assert "phi is in degrees" in err


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ({"qbin": 0.01}, {"width": 0.01}),
        ({"qbin": [0.1, 0.2, 0.5]}, {"edges": [0.1, 0.2, 0.5]}),
        ({"rbin": 0.5}, {"width": 0.5, "unit": "mm"}),
        ({"phiBins": [0.0, math.pi / 2, math.pi]}, {"phi_edges": [0.0, 90.0, 180.0]}),
    ],
    ids=str,
)
def test_bins_of_azimuthal_averages(imported, given, made):
    status, data, _, err = imported(one("get_azav", center=[1, 2], **given), *EXP)
    (reducer,) = data["reducers"].values()
    assert (status, lost(err)) == (0, [])
    assert {k: reducer["params"].get(k) for k in made} == made


@pytest.mark.parametrize(("tx", "ty"), [(3.0, 0.0), (0.0, -7.0), (-6.0, 4.0)])
def test_tilts_of_azimuthal_averages(imported, tx, ty):
    center = [1500.0, -700.0]
    text = one("get_azav", center=center, dis_to_sam=80.0, tx=tx, ty=ty)
    params = imported(text, *EXP)[1]["reducers"]["det/azav"]["params"]
    xy = np.random.default_rng(2).uniform(-40e3, 40e3, (2, 1, 9, 11))
    xyz = np.concatenate([xy, np.full((1, 1, 9, 11), -1e5)])
    two_theta, _, factor = azav_angles(xyz, center, 80.0, tx, ty)
    where = Geometry.of(params["distance"], 9.5, params["center"], params["tilts"])
    pixels = where.pixels(on_detector(xyz))
    np.testing.assert_allclose(pixels.two_theta, two_theta, rtol=1e-9)
    np.testing.assert_allclose(pixels.solid_angle, factor, rtol=1e-12)


def flat(*lines):
    """Parameters of scattering as they were written until 2019, without detectors."""
    body = "".join(f"    {line}\n" for line in lines)
    return f"def getAzIntParams(run):\n{body}    return ret\n"


def test_scattering_without_detectors_is_that_with_them(imported):
    """By runs, and each detector's own before what is given for all."""
    _, data, _, err = imported(
        flat(
            "if run <= 23:",
            "    ret = {'eBeam': 6.5}",
            "else:",
            "    ret = {'eBeam': 9.5}",
            "ret['big_one_center'] = [414.5, -78256.75]",
            "ret['big_one_dis_to_sam'] = 600.",
            "ret['small_center'] = [1, 2]",
            "ret['small_eBeam'] = 7",
            "ret['small_tx'] = 2",
            "ret['small_Pplane'] = 0",
            "ret['Pplane'] = 1",
        ),
        *EXP,
    )
    assert lost(err) == []
    assert "where azimuthalBinning was called" in err
    nested = (
        "def getAzIntParams(run):\n    return {"
        "'big_one': {'center': [414.5, -78256.75], 'dis_to_sam': 600., 'Pplane': 1,"
        " 'eBeam': 6.5 if run <= 23 else 9.5},"
        "'small': {'center': [1, 2], 'eBeam': 7, 'tx': 2, 'Pplane': 0}}"
    )
    assert [*data["reducers"]] == ["big_one/azav", "small/azav"]
    assert data["reducers"] == imported(nested, *EXP)[1]["reducers"]


def test_scattering_of_a_detector_without_a_name(imported):
    text = flat("ret = {'eBeam': 18.0, 'center': [875.5, 927.5], 'dis_to_sam': 80., 'rbins': 3}")
    status, data, _, err = imported(text, *EXP)
    assert (status, "reducers" in data) == (1, False)
    assert "of which detector" in lost(err)[0]
    _, data, _, err = imported(f"detectors = ['rayonix']\n{text}", *EXP)
    assert data["reducers"]["rayonix/azav"]["params"]["center"] == [875.5, 927.5]
    assert lost(err) == [
        "getAzIntParams of rayonix: rbins: the function knows no such parameter;"
        " did you mean 'rbin'?"
    ]


def test_a_file_of_python_2_is_read_up_to_where_it_prints(imported):
    text = flat("ret = {'eBeam': 18.0, 'ccd_dis_to_sam': 80.}")
    later = "# then\ntry:\n    ds = 1\nexcept:\n    print 'no data for', ds\nttCalib = [1]\n"
    status, data, _, err = imported(text + later, *EXP)
    assert data["reducers"]["ccd/azav"]["params"]["distance"] == 80.0
    assert (status, lost(err)) == (1, ["Python 2: nothing is read from here on"])
    assert "prod_config_mfx.py:5: left out" in err
