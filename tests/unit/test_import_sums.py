"""`ffb import-config`: sums over shots, and integrating detectors."""

from tests.unit.prod_configs import EXP, lost


def test_integrating_detectors(imported):
    text = "def get_intg(run):\n    return ('andor_vls', ['andor_dir'])"
    status, data, _, _ = imported(text, *EXP)
    assert (status, data["integrating"]) == (0, {"andor_vls": {}, "andor_dir": {}})
    status, _, _, err = imported("def get_intg(run):\n    return find(run)", *EXP)
    assert status == 1
    assert "get_intg: find(...) would have to be run" in err


SUMS = """
detectors = ["cam", "epix"]
def getROIs(run):
    return {"cam": [{"ROI": [0, 4]}], "epix": [{"ROI": [0, 4]}]}
def get_sum_algos(run):
    return {"all": ["calib_img"], "epix": ["calib_thresADU5_max", "calib_dropped_square", "x"]}
"""


def test_sums(imported):
    status, data, _, err = imported(SUMS, *EXP)
    assert data["sums"] == {
        "cam": {"what": ["calib"]},
        "epix": {
            "what": ["calib", "calib_thresADU5_max", "calib_square"],
            "light": ["xray"],
        },
    }
    assert [text for text in lost(err) if "'x'" in text] == lost(err)
    assert "sums of dropped shots are those of x-rays off" in err
    alone = "def getDetSums(run):\n    return {'cam': 'calib'} if run < 9 else {}"
    status, data, _, err = imported(alone, *EXP)
    assert (status, data["inputs"]["cam"]["field"]) == (1, "raw")
    assert "getDetSums: runs from 9 on have others" in err


WAVES = """
def getROIs(run):
    return {"cam": [{"ROI": [0, 4]}]}
def get_wf_integrate(run):
    return {"acq": {"sig_roi": [0, 9]}}
def get_sum_algos(run):
    return {"all": ["raw", "calib"], "acq": ["raw_square"], "new": ["raw_max"]}
"""


def test_sums_of_waveforms_are_of_what_they_are(imported):
    status, data, _, err = imported(WAVES, *EXP)
    assert (status, {n: t["what"] for n, t in data["sums"].items()}) == (
        0,
        {"cam": ["raw", "calib"], "acq": ["calib", "calib_square"], "new": ["raw_max"]},
    )
    assert "get_sum_algos of acq: a waveform is added up as it comes: calib" in err
    assert "get_sum_algos of new: raw is of area detectors; of a waveform write calib" in err
    assert "get_sum_algos of cam" not in err
