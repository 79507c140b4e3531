"""Edges of raw time-tool traces against psana's own EdgeFinder, which works in whole pixels."""

import json

import numpy as np
import pytest
from scipy.signal import peak_widths

from ffb.reducers.time_tool_edge import Params, time_tool_edge
from ffb.shot import Input
from ffb.sources.standins import import_psana
from ffb.testing.check_reducer import features_in_python

pytestmark = pytest.mark.psana

SIZE, TAPS = 300, 20
LIGHT = Input("value", "<i1", ())
TRACE = {"trace": Input("value", "<f8", (SIZE,), "ADU"), "xray": LIGHT, "laser": LIGHT}


@pytest.fixture
def finder():
    """psana's, with a step of so many taps a side; it convolves, so the step is reversed."""
    import_psana("psana")
    from psana.pyalgos.generic.edgefinder import EdgeFinder

    taps = [1] * TAPS + [-1] * TAPS
    hexed = "".join(f"{t & 255:02x}" for t in taps)
    constants = {"fir_coefficients": (json.dumps({"a": hexed}), {}), "delayed_denom": (None, {})}
    return EdgeFinder(constants)


def test_edges_are_those_of_psana(finder):
    rng = np.random.default_rng(12)
    lamp = 100.0 + np.zeros(SIZE)
    places = rng.integers(60, 240, 12)
    shots = [lamp + 50.0 * (np.arange(SIZE) > at) for at in places]
    frames = [{"trace": t, "xray": np.int8(k > 0), "laser": np.int8(1)}
              for k, t in enumerate([lamp, *shots])]  # fmt: skip
    params = Params((0.0, 1.0), width=TAPS, rising=True, reference="difference")
    got = features_in_python(time_tool_edge, params, TRACE, frames)[1:]
    for ours, trace, at in zip(got, shots, places, strict=True):
        theirs = finder(trace, lamp)
        # of the convolution in full, element n has seen samples n - 39 to n
        np.testing.assert_allclose(ours["position"], theirs.edge - (TAPS - 0.5), atol=1e-3)
        np.testing.assert_allclose(ours["position"], at + 0.5, atol=1e-3)
        np.testing.assert_allclose(ours["fwhm"], theirs.fwhm, atol=1e-3)
        np.testing.assert_allclose(ours["reference"], theirs.ref_amplitude)
        np.testing.assert_allclose(ours["amplitude"], 50.0, rtol=1e-12)


def test_widths_of_noisy_edges_are_scipys():
    rng = np.random.default_rng(13)
    traces = [50.0 * (np.arange(SIZE) > at) + rng.normal(0, 2, SIZE) for at in (90, 140, 200)]
    frames = [{"trace": t, "xray": np.int8(1), "laser": np.int8(1)} for t in traces]
    params = Params((0.0, 1.0), width=TAPS, rising=True, reference="none")
    for got, trace in zip(features_in_python(time_tool_edge, params, TRACE, frames), traces,
                          strict=True):  # fmt: skip
        y = np.correlate(trace, np.repeat([-1, 1], TAPS) / TAPS, "valid")
        k = int(y.argmax())
        height = (np.array([y[k]]), np.array([0]), np.array([y.size - 1]))
        (width,), *_ = peak_widths(y, [k], rel_height=0.5, prominence_data=height)
        np.testing.assert_allclose(got["fwhm"], width, atol=1e-9)
