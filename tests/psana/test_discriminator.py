"""Hits of `waveform_cfd` are those of psana's discriminator for delay-line anodes.

psana has two. ``PyCFD`` gives the times of all hits; its package, ``psana.hexanode``, cannot be
imported without a sorter that is not free, so its file is. The compiled one,
``psana.constFracDiscrim.cfd``, gives one number, which is no time: it takes the coefficients of
Newton's polynomial for those of powers, and what it finds does not move with the pulse.
"""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

from ffb.reducers.waveform_cfd import Params, waveform_cfd
from ffb.shot import Input
from ffb.sources.standins import import_psana

SIZE, DT, DELAY, FRACTION, THRESHOLD = 1500, 0.5, 20, 0.6, 60.0
RNG = np.random.default_rng(61)


def traces(number):
    """Pulses of many heights with a tail, apart from one another, on noise of 2 below them."""
    t = np.arange(SIZE)
    for _ in range(number):
        starts = np.arange(60, SIZE - 200, 150) + RNG.uniform(0, 40, 9)[: (SIZE - 260) // 150 + 1]
        out = RNG.normal(0, 0.5, SIZE)
        for start, height in zip(starts, RNG.uniform(400, 2000, len(starts)), strict=True):
            u = np.maximum(t - start, 0)
            out += height * np.exp(2 - u / 6.0) * (u / 12.0) ** 2
        yield out


@pytest.fixture(scope="module")
def discriminate():
    path = Path(import_psana("psana").__file__).parent / "hexanode" / "PyCFD.py"
    spec = spec_from_file_location("PyCFD", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.PyCFD


def theirs(discriminate, trace, sign, threshold=THRESHOLD):
    cfd = discriminate(
        {
            "sample_interval": DT,
            "delay": DELAY * DT,
            "fraction": FRACTION,
            "threshold": threshold,
            "walk": 0.0,
            "polarity": "Positive" if sign > 0 else "Negative",
            "timerange_low": -1.0,
            "timerange_high": SIZE * DT,
            "offset": 0.0,
        }
    )
    return cfd.CFD(trace, np.arange(SIZE) * DT)


def agree(hits, expected):
    """psana gives the crossing, ours is moved to the pulse.

    psana's line between samples is cubic, which goes elsewhere where a pulse has just begun, and it
    looks for 0 on it until it is within a tenth of a sample.
    """
    times = hits.time[: hits.n] - round(DELAY * (1 - FRACTION)) * DT
    np.testing.assert_allclose(times, expected, atol=0.5 * DT)
    assert np.median(np.abs(times - expected)) < 0.1 * DT


@pytest.mark.parametrize("sign", [1, -1])
def test_times_are_those_of_psana(sign, discriminate):
    p = Params(DT, THRESHOLD, False, sign, taps=1, offset=DELAY, multiplier=-FRACTION)
    c = waveform_cfd.constants(p, {"waveform": Input("value", "<f8", (SIZE,))})
    found = 0
    for trace in traces(8):
        trace = sign * (trace - np.median(trace))  # psana takes no median
        expected, hits = theirs(discriminate, trace, sign), waveform_cfd(trace, c)
        assert hits.n == len(expected)
        agree(hits, expected)
        found += hits.n
    assert found >= 60


def test_pulses_that_overlap_are_those_of_psana(discriminate):
    low = THRESHOLD / 2  # psana's is that of the crossing, on a pulse that begins below the level
    p = Params(DT, low, False, 1, taps=1, offset=DELAY, multiplier=-FRACTION, each=True)
    c = waveform_cfd.constants(p, {"waveform": Input("value", "<f8", (SIZE,))})
    number = 0
    for trace in traces(8):
        trace = trace + 0.8 * np.roll(trace, RNG.integers(25, 45))
        trace -= np.median(trace)
        expected, hits = theirs(discriminate, trace, 1, low), waveform_cfd(trace, c)
        agree(hits, expected)
        number += hits.n
    assert number > 100


def test_psanas_compiled_discriminator_gives_no_time():
    cfd = import_psana("psana.constFracDiscrim").cfd
    t = np.arange(400)
    numbers = [
        cfd(1.0, 0.0, 1.0, 0.0, 100 * np.exp(-(((t - at) / 10) ** 2)), 12, 0.0, 10.0, 0.5)
        for at in (100.0, 200.0, 300.0)
    ]
    assert np.ptp(numbers) < 1e-6
