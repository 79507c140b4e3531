"""Reducers of waveforms on what is no pulse, half a pulse, or upside down."""

import numpy as np
import pytest

from ffb.reducers import (
    waveform_cfd,
    waveform_hits,
    waveform_integral,
    waveform_notch,
    waveform_template,
)
from ffb.reducers.svd_basis import make, save
from ffb.reducers.waveform_svd import Params as SvdParams
from ffb.reducers.waveform_svd import waveform_svd
from ffb.shot import Input

SIZE, FULL = 200, 4095
INTEGRAL = waveform_integral.Params((60, 160), 0.5, (0, 40), level="median")
HITS = waveform_hits.Params(0.5, 4.0, relative=True, baseline=(0, 40))
CFD = waveform_cfd.Params(0.5, 2.0, sign=1, taps=5, offset=6)
TEMPLATE = waveform_template.Params(0.5, width=12.0, saturation=FULL)
NOTCH = waveform_notch.Params(0.5, 4, baseline=(0, 40), gate=(60, 160))
REDUCERS = {
    "integral": (waveform_integral.waveform_integral, INTEGRAL),
    "hits": (waveform_hits.waveform_hits, HITS),
    "cfd": (waveform_cfd.waveform_cfd, CFD),
    "template": (waveform_template.waveform_template, TEMPLATE),
    "notch": (waveform_notch.waveform_notch, NOTCH),
}
SIGNED = [name for name in REDUCERS if name != "notch"]


def reduce(name, trace, **changes):
    r, p = REDUCERS[name]
    given = Input("value", trace.dtype.str, trace.shape, "V")
    return r(trace, r.constants(p._replace(**changes), {"waveform": given}))


def pulse(height, centre=110.3, width=12.0 / 0.5):
    return 200 + height * np.exp2(-((2 * (np.arange(SIZE) - centre) / width) ** 2))


@pytest.mark.parametrize("level", [0, 700, 65535])
@pytest.mark.parametrize("dtype", ["<u2", "<f4"])
def test_a_level_is_no_pulse(level, dtype):
    trace = np.full(SIZE, level, dtype)
    assert reduce("integral", trace) == (0.0, level, 0.0, 30.0)
    hits, cfd = reduce("hits", trace), reduce("cfd", trace)
    assert (hits.n, hits.rejected, hits.baseline) == (0, 0, level)
    assert (cfd.n, cfd.baseline, cfd.noise) == (0, level, 0.0)
    assert reduce("notch", trace)[:3] == (0.0, level, 0.0)
    fit = reduce("template", trace)
    if level < FULL:
        np.testing.assert_allclose([fit.amplitude[0], fit.baseline], [0, level], atol=1e-9)
    else:
        assert (fit.nsat, fit.converged) == (SIZE, False)
        assert np.isnan([*fit.amplitude, *fit.time, fit.baseline, fit.chi2]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_no_number_is_made_of_no_numbers(bad):
    trace = np.full(SIZE, bad)
    with np.errstate(invalid="ignore"):  # inf - inf, where this runs uncompiled
        made = {name: reduce(name, trace) for name in REDUCERS}
    hits, cfd, fit = made["hits"], made["cfd"], made["template"]
    assert np.isnan(made["integral"]).all()
    assert (hits.n, cfd.n) == (0, 0)
    assert np.isnan([*hits.time, *cfd.time, cfd.baseline, cfd.noise]).all()
    assert np.isnan([*fit.amplitude, *fit.time, fit.baseline, fit.chi2]).all()
    assert np.isnan(made["notch"].area)


def test_one_sample_is_a_waveform():
    trace = np.array([7.0])
    assert reduce("integral", trace, gate=(0, 1), baseline=None) == (3.5, 0.0, 7.0, 0.0)
    assert reduce("hits", trace, relative=False, baseline=None).n == 0  # it did not rise there
    for name in ("cfd", "template", "notch"):
        with pytest.raises(ValueError, match=r"\d"):
            reduce(name, trace)


@pytest.mark.parametrize("name", SIGNED)
def test_a_pulse_that_goes_down_is_one_upside_down(name):
    up, down = np.rint(pulse(1000)), np.rint(400 - pulse(1000))
    more = {"saturation": -FULL} if name == "template" else {}
    r, turned = reduce(name, up, sign=1), reduce(name, down, sign=-1, **more)
    for field in set(r._fields) - {"baseline"}:
        mine, theirs = getattr(turned, field), getattr(r, field)
        np.testing.assert_allclose(mine, theirs, rtol=1e-6, err_msg=field)
    np.testing.assert_allclose(400 - turned.baseline, r.baseline, atol=1e-6)


def test_a_clipped_pulse_is_one_pulse():
    trace = pulse(9000).clip(0, FULL).astype(np.uint16)
    hits, cfd, fit = (reduce(name, trace) for name in ("hits", "cfd", "template"))
    assert (hits.n, cfd.n) == (1, 1)
    assert hits.peak[0] == cfd.amplitude[0] + cfd.baseline - hits.baseline == FULL - 200
    assert reduce("integral", trace).peak == FULL - 200
    assert fit.nsat == (trace == FULL).sum() > 20
    np.testing.assert_allclose([fit.amplitude[0], fit.time[0] / 0.5], [9000, 110.3], rtol=2e-3)
    assert reduce("hits", trace, maximum=3000.0)[:2] == (0, 1)


def test_a_pulse_half_outside_of_the_waveform_is_within_it():
    begins, ends = pulse(1000, -2.0), pulse(1000, SIZE + 1.0)
    assert reduce("hits", begins, baseline=(100, 140)).n == 0  # it did not rise there
    got = reduce("hits", ends)
    assert got.n == 1
    np.testing.assert_allclose(got.time[0] + got.width[0], (SIZE - 1) * 0.5)
    for trace in (begins, ends):
        assert reduce("cfd", trace).n <= 1
        assert np.isfinite(reduce("template", trace).amplitude).all()


def test_shapes_of_a_level_are_none(tmp_path):
    rng = np.random.default_rng(5)
    traces = np.stack([pulse(*x) for x in rng.uniform((100, 110, 20), (900, 110, 30), (9, 3))])
    save(tmp_path / "basis.npz", make(traces, (60, 160), (0, 40), 2))
    p = SvdParams(tmp_path / "basis.npz", 0.5, baseline=(0, 40))
    c = waveform_svd.constants(p, {"waveform": Input("value", "<f8", (SIZE,), "V")})
    got = waveform_svd(np.full(SIZE, 700.0), c)
    assert not got.coefficients.any()
    assert np.isnan(got.score)
    bad = np.full(SIZE, 700.0)
    bad[100] = np.nan
    assert np.isnan([*waveform_svd(bad, c).coefficients.ravel()]).all()
