"""No reducer changes its numbers unnoticed, none ships without a reference and a speed guard."""

import ast
import json
import re
from pathlib import Path

import numpy as np
import pytest

from ffb.configuration import resolve
from tests.benchmarks.bench_reducers import CASES
from tests.golden.make_reducers import FOLDER, golden, summary

NAMES = resolve.installed()
ROOT = Path(__file__).parents[2]

#: The test that holds a reducer against something that does not share its code.
REFERENCES = {
    "autocorrelation": "test_autocorrelation.test_by_fourier",
    "azimuthal": "test_azimuthal.test_the_profile_is_that_of_pyfai",
    "cake": "test_cake.test_the_cake_is_that_of_pyfai",
    "curved_projection": "test_spectrometer.test_a_curved_projection_is_that_of_its_pixels",
    "delay": "test_time_tool.test_a_delay_is_the_stage_and_the_arrival_in_ps",
    "delay_line": "test_delay_line.test_hits_equal_exhaustive_pairing",
    "delay_line_hex": "test_delay_line_hex.test_hits_equal_exhaustive_pairing",
    "droplets": "test_droplets.test_charge_clouds_of_every_density",
    "histogram": "test_area_reducers.test_histogram_equals_numpy",
    "jet": "test_jet.test_a_jet_is_the_first_principal_axis",
    "peaks": "test_peaks.test_the_peaks_are_those_of_psana",
    "photon_counting": "test_photon_counting.test_charge_clouds_of_every_density",
    "photons": "test_photons.test_charge_clouds_of_every_density",
    "projection": "test_area_reducers.test_projection_equals_brute_force",
    "rebin": "test_area_reducers.test_rebinning_keeps_every_count",
    "region": "test_region.test_a_region_equals_brute_force",
    "ring_fit": "test_ring_fit.test_a_ring_equals_the_algebraic_fit",
    "roi": "test_area_reducers.test_roi_equals_brute_force",
    "sparse": "test_sparse.test_listed_are_the_pixels_between_the_levels",
    "speckle": "test_speckle.test_labelled_regions_are_those_of_brute_force",
    "spectrum": "test_spectrometer.test_moments_and_fit_are_those_of_numpy_and_scipy",
    "threshold": "test_area_reducers.test_threshold_takes_what_lies_between_its_levels",
    "time_tool": "test_time_tool.test_the_fit_of_the_daq_is_calibrated_and_judged",
    "time_tool_edge": "test_time_tool.test_an_edge_is_that_of_numpy",
    "waveform_cfd": "test_waveform_cfd.test_hits_equal_those_of_a_slow_discriminator",
    "waveform_hits": "test_waveform_hits.test_hits_equal_those_of_whole_arrays",
    "waveform_integral": "test_waveform_integral.test_waveform_integral_equals_brute_force",
    "waveform_notch": (
        "test_waveform_notch.test_whole_waveforms_lose_bins_of_their_fourier_transform"
    ),
    "waveform_svd": "test_waveform_svd.test_projections_equal_numpy_lstsq",
    "waveform_template": "test_waveform_template.test_fits_reach_the_squares_that_scipy_reaches",
}


def test_every_reducer_has_golden_values_and_no_other_has():
    assert sorted(p.stem for p in FOLDER.glob("*.json")) == sorted(NAMES), (
        "python -m tests.golden.make_reducers NAME keeps the values of a new reducer"
    )


def test_every_reducer_has_a_speed_guard():
    assert sorted(CASES) == sorted(NAMES), "tests/benchmarks/bench_reducers.py lacks a case"


def test_every_reducer_has_a_reference_that_runs_compiled_and_not():
    assert sorted(REFERENCES) == sorted(NAMES), "name the test of a new reducer in REFERENCES"
    numeric = re.search(r"^NUMERIC :=(.*?[^\\])\n", (ROOT / "Makefile").read_text(), re.M | re.S)
    for name, where in REFERENCES.items():
        module, _, test = where.partition(".")
        path = f"tests/unit/{module}.py"
        tree = ast.parse((ROOT / path).read_text("utf-8"))
        assert test in {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}, where
        named = {a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names}
        assert name in named, f"{path} does not import {name}"
        assert path in numeric[1].split(), f"{path} is not in NUMERIC of the Makefile"


@pytest.mark.parametrize("name", NAMES)
def test_a_reducer_gives_what_it_gave(name):
    kept = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    now = golden(name)
    told = (
        f"numbers of {name} changed: if they should, raise its version, tell it under 'Numbers"
        f" changed' and run python -m tests.golden.make_reducers {name}"
    )
    assert now["version"] == kept["version"], told
    assert now["features"].keys() == kept["features"].keys(), told
    for feature, shots in kept["features"].items():
        given = np.array(now["features"][feature], np.float64)
        np.testing.assert_allclose(
            given, np.array(shots, np.float64), rtol=1e-6, atol=1e-9, err_msg=f"{feature}: {told}"
        )


def test_swapped_values_show():
    assert summary(np.array([1.0, 2.0])) != summary(np.array([2.0, 1.0]))
    assert summary(np.array([1.0, np.nan])) != summary(np.array([1.0, 0.0]))
    assert summary(np.int64(2)) != summary(np.int64(3))
