"""`ffb import-config`: production configurations of smalldata_tools as files of ours."""

import contextlib
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffb import cli
from ffb.config import load
from ffb.migrate.import_config import toml
from ffb.migrate.prod_config import LONGEST, translate
from tests.unit.prod_configs import CHAINS, EXP, HOSTILE, LITERAL, STEPWISE, lost, one


def test_a_region_by_runs(imported, tmp_path):
    status, data, text, err = imported(STEPWISE, *EXP)
    assert data["layer"] == "mfx"
    assert data["source"] == {"kind": "psana", "exp": "mfxx49820", "shmem": "psana0"}
    assert data["inputs"]["epix100"] == {"detector": "epix100", "field": "raw"}
    first, second = data["reducers"]["epix100/ROI_0"], data["reducers"]["epix100/ROI_1"]
    region = {"rows": [10, 90], "cols": [20, 60], "segment": 0, "area": True}
    assert first == {"use": "roi", "inputs": "epix100", "params": region}
    where = {"rows": [5, 15], "cols": [5, 25]}
    assert second["params"] == [{"runs": r, **where} for r in ("42-49", "51-")]
    along = data["reducers"]["epix100/ROI_1_pj_ax_0"]
    assert along["params"][1] == {"runs": "51-", "axis": 0, **where}
    assert status == 1
    gap = "epix100/ROI_1: runs 1-41, 50 have none; ffb refuses runs without parameters"
    assert gap in lost(err)
    assert "prod_config_mfx.py:17: left out: epix100/ROI_1: " in err
    assert "#     17  epix100/ROI_1: runs 1-41, 50 have none" in text
    path = tmp_path / "x.toml"
    path.write_text(text)
    assert load(path).reducers["epix100/ROI_1"].params_for(45) == where


def test_droplets_by_runs(imported):
    data = imported(CHAINS, *EXP)[1]
    rows = data["reducers"]["epix_1/droplet"]["params"]
    assert [r["runs"] for r in rows if r.get("threshold_low")] == ["3-4", "9", "12-14"]
    assert [r["runs"] for r in rows if r.get("min_sum")] == ["20-24"]
    assert rows[-1]["runs"] == "41-"


@pytest.mark.parametrize(
    ("text", "name", "use", "params"),
    [
        (
            one(
                "get_droplet2photon",
                droplet={"threshold": 30, "useRms": False},
                d2p={"aduspphot": 162},
                nData=300,
            ),
            "droplet2phot",
            "photons",
            {"photon": 162.0, "threshold": 30.0, "capacity": 300},
        ),
        (
            one(
                "get_droplet2photon",
                droplet={"threshold": 30, "useRms": False},
                d2p={"aduspphot": 162, "photpts": [-81, 81, 250, 420]},
            ),
            "droplet2phot",
            "photons",
            {"photon": 162.0, "threshold": 30.0, "edges": [81.0, 250.0, 420.0]},
        ),
        (
            one("getDropletParams", thresholdLow=2),
            "droplet",
            "droplets",
            {"threshold": 5.0, "threshold_low": 2.0, "in_noise": True},
        ),
        (
            "def getROIs(run):\n    return {'det': [{'ROI': [[0, 4], [2, 9]], 'thresADU': 3}]}",
            "ROI_0_above",
            "threshold",
            {"thresholds": [3.0, float("inf")], "segment": 0, "rows": [0, 4], "cols": [2, 9]},
        ),
        (one("getPhotonParams"), "photon", "photon_counting", {"photon": 154.0, "fraction": 0.9}),
        (
            one("getPhotonParams", ADU_per_photon=160, thresADU=3, thr_fraction=0.8),
            "photon",
            "photon_counting",
            {"photon": 160.0, "fraction": 0.8, "threshold": 3.0},
        ),
        (
            one("getAutocorrParams", save_range=(20, 30)),
            "autocorr",
            "autocorrelation",
            {"lag": [20, 30]},
        ),
        (
            one("get_wf_integrate", sig_roi=[100, 200], bkg_roi=[0, 80], negative_signal=True),
            "wfintegrate",
            "waveform_integral",
            {"gate": [100, 200], "dt": 1.0, "baseline": [0, 80], "sign": -1, "level": "median"},
        ),
        (
            "import numpy as np\ndef getWfIntegrateParams(run):\n"
            "    return {'det': {'sig_roi': np.s_[5:9], 'bkg_roi': slice(4)}}",
            "wfintegrate",
            "waveform_integral",
            {"gate": [5, 9], "dt": 1.0, "baseline": [0, 4], "sign": 1, "level": "median"},
        ),
        (
            one("get_wf_hitfinder", threshold=4, use_rms=True, bkg_roi=[0, 90], threshold_max=99),
            "hitfinder",
            "waveform_hits",
            {"dt": 1.0, "threshold": 4.0, "relative": True, "maximum": 99.0, "baseline": [0, 90]},
        ),
        (
            one("getAzIntPyFAIParams", poni_file="a.poni", npts=300, int_units="q_A^-1", thres=2),
            "pyfai",
            "azimuthal",
            {
                "poni": "a.poni",
                "bins": 300,
                "unit": "q_A^-1",
                "polarization": 1.0,
                "thresholds": [2.0, float("inf")],
            },
        ),
        (
            one(
                "get_azav_pyfai",
                poni_file="a.poni",
                return2d=True,
                npts_az=90,
                azav_kwargs={"azimuth_range": (0, 90)},
            ),
            "pyfai",
            "cake",
            {
                "poni": "a.poni",
                "bins": 256,
                "unit": "2th_deg",
                "polarization": 1.0,
                "phi_bins": 90,
                "phi_limits": [0.0, 90.0],
            },
        ),
        (
            one("getProjection_ax1", ROI=[[0, 4], [2, 9]]),
            "pj_ax_1",
            "projection",
            {"axis": 1, "rows": [0, 4], "cols": [2, 9]},
        ),
        (
            one("getProjection_ax0", thresADU=3, singlePhoton=True),
            "pj_ax_0",
            "projection",
            {"axis": 0, "thresholds": [3.0, float("inf")]},
        ),
        (
            "def getROIs(run):\n    return {'det': [{'thresADU': [2, 9], 'proj_ax': {'axis': 1}}]}",
            "ROI_0_pj_ax_1",
            "projection",
            {"axis": 1, "thresholds": [2.0, 9.0]},
        ),
        (
            one(
                "get_polynomial_correction",
                polynomial_coefficients=[2e-6, -0.01, 1],
                method="roll",
                projection={"axis": 0, "thresADU": 70},
            ),
            "curve_corr_pj_ax_0",
            "curved_projection",
            {"axis": 0, "curvature": [1.0, -0.01, 2e-6], "thresholds": [70.0, float("inf")]},
        ),
        (
            "def getROIs(run):\n    return {'det': {'ROIs': [[[0, 3], [1, 5]], [[2, 3], [1, 5]]]}}",
            "ROI_1",
            "roi",
            {"rows": [2, 3], "cols": [1, 5]},
        ),
        (
            "def getROIs(run):\n    return {'det': [{'ROIs': [[[0, 3], [1, 5]]]}]}",
            "ROI_0",
            "roi",
            {"rows": [0, 3], "cols": [1, 5]},
        ),
        (
            one("getAutocorrParams", save_range=[70, 50], save_lineout=True, thresADU=[72.0, 1e6]),
            "autocorr",
            "autocorrelation",
            {"lag": [70, 50], "thresholds": [72.0, 1e6]},
        ),
        (
            one("getAutocorrParams", mask="m.npy", roi=[[0, 9], [3, 8]], save_range=9, name="a"),
            "a",
            "autocorrelation",
            {"lag": 9, "mask": "m.npy"},
        ),
        (
            one("getAutocorrParams", mask=["m.npy", "n.npy"]),
            "autocorr_1",
            "autocorrelation",
            {"lag": [50, 50], "mask": "n.npy"},
        ),
        (
            one("get_autocorr", roi=[[10, 90], [20, 60]], save_range=(9, 5)),
            "autocorr_image",
            "roi",
            {"rows": [10, 90], "cols": [20, 60], "area": True},
        ),
    ],
)
def test_every_function_becomes_a_reducer(imported, text, name, use, params):
    status, data, _, err = imported(text, *EXP)
    found = data["reducers"][f"det/{name}"]
    assert (status, lost(err)) == (0, [])
    assert (found["use"], found["params"]) == (use, params)


def test_an_image_is_correlated_that_a_region_keeps(imported):
    """Of a detector, as it is, no autocorrelation is taken."""
    _, data, _, _ = imported(one("getAutocorrParams", mask="m.npy", name="a"), *EXP)
    image, of = data["reducers"]["det/a_image"], data["reducers"]["det/a"]
    assert image == {"use": "roi", "inputs": "det", "params": {"area": True}}
    assert of["inputs"] == "det/a_image_area"
    status, data, _, err = imported(
        "import numpy as np\ndef getAutocorrParams(run):\n"
        "    return {'det': {'mask': np.load('m.npy'), 'save_range': None}}",
        *EXP,
    )
    assert (status, [key in err for key in ("mask: ", "save_range: ")]) == (1, [True, True])
    assert data["reducers"]["det/autocorr"]["params"] == {"lag": 50}


def test_no_slow_camera_is_none(imported):
    """However a configuration says that there is none, as those of hutches that have none do."""
    for nothing in ("None, []", '"", []', '("", [None])'):
        status, data, _, err = imported(f"def get_intg(run):\n    return {nothing}", *EXP)
        assert (status, lost(err), data.get("integrating")) == (0, [], None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            one("get_azav", center=[1, 2], theshold=3),
            "theshold: the function knows no such parameter",
        ),
        (one("get_azav", center=[1, 2], thresRM=3), "did you mean 'thresRms'"),
        (one("get_azav", center="here"), "values that do not fit"),
        (one("get_azav", eBeam="9"), "eBeam: a number was expected, not '9'"),
        (one("getSvdParams", n_components=2), "make a basis with svd_basis.save"),
        (one("get_polynomial_correction", axis=0), "give numbers, as `curvature`"),
        (
            one("get_polynomial_correction", polynomial_coefficients=[1.0]),
            "the straightened image itself is not kept",
        ),
        (
            one("get_polynomial_correction", polynomial_coefficients=[1], projection={"axis": 1}),
            "straightened along the other axis",
        ),
        ("def get_intg(run):\n    return 5, None", "get_intg: not names of detectors: (5, None)"),
        (
            "def get_droplet(run):\n    return {'d': {'mask': np.load('m.npy')}}",
            "np.load(...) would have to be run; give a .npy file",
        ),
        (
            "def getROIs(run):\n    return {'d': [{'ROI': [[0, 3], [0, 9], [0, 9]]}]}",
            "several segments",
        ),
        ("def getROIs(run):\n    return {'d': [{'ROI': [[0, 9], [0, 'x']]}]}", "no region"),
        (
            "def getROIs(run):\n    return {'d': [{'ROI': [[9, 3], [0, 9]]}, 5]}",
            "not a dict of parameters: 5",
        ),
        (
            "def getROIs(run):\n    return {'hsd': {'hsd_1': [0, 9]}}",
            "pieces of waveforms are not kept",
        ),
        ("def getROIs(run):\n    return [1]", "does not give a dict by detector"),
        ("def getROIs(run):\n    return load(run)", "would have to be run"),
        ("def getROIS(run):\n    return {}", "getROIS is not known; did you mean 'getROIs'"),
        (
            "def getPhotonParams(run):\n    if run > 5:\n        return {'d': {}}",
            "runs 1-5 have none",
        ),
        ("epicsPV = ['A:B']", "the archiver is not asked"),
        ("aioParams = [[1], ['x'], [1], [0]]", "`computed` of the detector"),
        ("epicsArchFilePV = [3]", "not the name of a variable: 3"),
    ],
)
def test_what_is_left_out_is_told(imported, text, said):
    status, _, toml, err = imported(text, *EXP)
    assert status == 1
    assert said in err
    assert "# Left out, by lines of prod_config_mfx.py:" in toml


def test_several_of_one_function_have_names_of_their_own(imported):
    text = "def getAzIntParams(run):\n    return {'d': [{'name': 'a'}, {}, {'tx': 1}]}"
    status, data, _, err = imported(text, *EXP)
    assert [*data["reducers"]] == ["d/a", "d/azav"]
    assert status == 1
    assert "getAzIntParams of d[2]: d/azav is there already; give it a `name` of its own" in err


def test_slow_values_and_time_tool(imported):
    text = (
        "epicsArchFilePV = ['lxt', ('MFX:X.RBV', 'x')]\nepicsOncePV = ['A:B']\nttCalib = [1, 2e-3]"
    )
    status, data, _, err = imported(text, *EXP)
    assert status == 0
    assert data["epics"] == {
        "lxt": {},
        "x": {"pv": "MFX:X.RBV"},
        "A_B": {"pv": "A:B", "group": "epicsOnce"},
    }
    assert "polyval(tt.fltpos, [1.0, 0.002])" in data["derived"]["tt/ttCorr"]["expr"]
    assert "check: epicsOncePV" in err


def test_without_an_experiment_it_says_so(imported):
    status, data, _, err = imported("detectors = []")
    assert (status, data["source"]["exp"]) == (1, "mfx00000")
    assert "set source.exp, or give --exp" in err
    status, data, _, _ = imported("detectors = []", "--exp", "abcx00000")
    assert (status, "layer" in data) == (0, False)


def test_a_new_file_replaces_none(imported, tmp_path, capsys):
    out = tmp_path / "new.toml"
    (tmp_path / "prod_config_mfx.py").write_text(STEPWISE)
    words = ["import-config", str(tmp_path / "prod_config_mfx.py"), *EXP, "--out", str(out)]
    assert cli.main(words) == 1
    assert capsys.readouterr().out == ""
    assert load(out).exp == "mfxx49820"
    assert cli.main(words) == 2
    assert "is there already, and is not replaced" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content", [b"def f(:", b"\xff\xfe", b"x = 1\n" * (LONGEST // 5), b"-" * 100_000 + b"1", b"\0"]
)
def test_bad_input_is_refused(tmp_path, capsys, content):
    path = tmp_path / "prod_config_mfx.py"
    path.write_bytes(content)
    assert cli.main(["import-config", str(path)]) == 2
    assert str(path) in capsys.readouterr().err
    assert cli.main(["import-config", str(tmp_path / "gone.py")]) == 2
    assert "no such file" in capsys.readouterr().err


def test_nothing_is_ever_run(tmp_path, imported):
    path = tmp_path / "touched"
    status, data, _, err = imported(HOSTILE.format(path=str(path)), *EXP)
    assert not path.exists()
    assert status == 1
    assert [*data["reducers"]] == ["cam/ROI_0", "cam/droplet"], "what is written out is read"
    assert "would have to be run" in err


LINES = [line for text in (STEPWISE, LITERAL, CHAINS) for line in text.splitlines() if line]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(LINES), max_size=25), st.integers(0, 3))
def test_any_text_is_read_or_refused(lines, indent):
    text = "def getROIs(run):\n" + "\n".join(" " * indent + line for line in lines)
    with contextlib.suppress(ValueError):  # most are no Python
        tomllib.loads(toml(translate(text, "prod_config_x.py", "mfxx1"), "x.py"))


def test_names_are_quoted(tmp_path):
    found = translate(
        "def getROIs(run):\n    return {'a b\"\\n]': [{'ROI': [0, 4]}]}", "x.py", "mfxx1"
    )
    assert 'a b"\n]/ROI_0' in tomllib.loads(toml(found, "x.py"))["reducers"]


@pytest.mark.parametrize(
    ("name", "layer", "exp"),
    [
        ("prod_config_crix.py", "rix", "rix00000"),
        ("prod_config_xcs_lj.py", "xcs", "xcs00000"),
        ("prod_config_compress.py", None, "exp00000"),
    ],
)
def test_the_hutch_is_found_in_the_name(imported, name, layer, exp):
    _, data, _, _ = imported("detectors = []\n", name=name)
    assert (data.get("layer"), data["source"]["exp"]) == (layer, exp)


def test_a_remark_on_no_line_has_none(imported):
    err = imported("detectors = []\n")[3]
    assert err.startswith("prod_config_mfx.py: left out: which experiment")
