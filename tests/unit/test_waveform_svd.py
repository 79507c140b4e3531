"""Projections on a basis are numpy's least squares; a basis is of the covariance's eigenvectors."""

import numpy as np
import pytest
from scipy import ndimage

from ffb.reducers import svd_basis
from ffb.reducers.waveform_svd import Params, waveform_svd
from ffb.shot import Input

SIZE, GATE, BASELINE = 200, (60, 160), (0, 50)
T = np.arange(SIZE)


def pulses(number, up=1, seed=12):
    """Waveforms with a pulse of varied height and width each, on a level, with noise."""
    rng = np.random.default_rng(seed)
    height, width = rng.uniform(200, 900, (number, 1)), rng.uniform(4, 9, (number, 1))
    shape = height * np.exp(-(((T - 90) / width) ** 2))
    return 300 + up * shape + rng.normal(0, 2, (number, SIZE))


@pytest.fixture(scope="module")
def basis(tmp_path_factory):
    path = tmp_path_factory.mktemp("basis") / "diode.npz"
    svd_basis.save(path, svd_basis.make(pulses(60), GATE, BASELINE, 6))
    return path


def constants(basis, dtype="<f8", **settings):
    p = Params(basis, 0.5, **settings, reconstructed=True)
    return waveform_svd.constants(p, {"waveform": Input("value", dtype, (SIZE,))})


@pytest.mark.parametrize("up", [1, -1])
def test_a_basis_is_of_the_eigenvectors_of_the_covariance(up):
    traces = pulses(60, up)
    made = svd_basis.make(np.concatenate([traces, np.full((1, SIZE), np.nan)]), GATE, BASELINE, 4)
    x = (traces - traces[:, :50].mean(1)[:, None])[:, 60:160]
    values, vectors = np.linalg.eigh(x.T @ x)
    np.testing.assert_allclose(made.values, np.sqrt(values[::-1][:4]), rtol=1e-9)
    overlap = made.components @ vectors[:, ::-1][:, :4]
    np.testing.assert_allclose(np.abs(overlap), np.eye(4), atol=1e-7)
    assert made.components.shape == (4, 100)
    assert (made.components @ x.sum(0) >= 0).all()
    assert made.start == 60


@pytest.mark.parametrize("dtype", ["<f8", "<u2"])
@pytest.mark.parametrize("delays", [(0.0,), (0.0, 14.0), (-3.3, 8.25, 21.0)])
@pytest.mark.parametrize("baseline", [None, BASELINE])
def test_projections_equal_numpy_lstsq(basis, dtype, delays, baseline):
    c = constants(basis, dtype, components=3, delays=delays, baseline=baseline)
    shapes = svd_basis.load(basis).components[:3]
    model = np.concatenate(
        [ndimage.shift(shapes, (0, d / 0.5), order=1, mode="constant") for d in delays]
    )
    for trace in pulses(4, seed=13).astype(dtype):
        y = trace[60:160].astype(np.float64)
        level = trace[:50].mean(dtype=np.float64) if baseline else 0.0
        y -= level
        expected = np.linalg.lstsq(model.T, y, rcond=None)[0].reshape(-1, 3)
        got = waveform_svd(trace, c)
        np.testing.assert_allclose(got.coefficients, expected, rtol=1e-8, atol=1e-7)
        np.testing.assert_allclose(got.intensity, (expected @ shapes).max(1), rtol=1e-8)
        np.testing.assert_allclose(got.norm, np.linalg.norm(expected, axis=1), rtol=1e-8)
        rest = y - expected.ravel() @ model
        np.testing.assert_allclose(got.score, 1 - (rest**2).sum() / (y.var() * 100), rtol=1e-8)
        np.testing.assert_allclose(got.baseline, level, rtol=1e-12)
        np.testing.assert_allclose(got.reconstructed, y - rest, rtol=1e-8, atol=1e-6)


def test_two_pulses_are_told_apart(basis):
    c = constants(basis, components=3, delays=(0.0, 20.0), baseline=BASELINE)
    one = 500 * np.exp(-(((T - 90) / 6) ** 2))
    got = waveform_svd(100 + one + 0.3 * np.roll(one, 40), c)
    np.testing.assert_allclose(got.intensity, [500, 150], rtol=0.005)
    assert got.score > 0.999


@pytest.mark.parametrize("nothing", [np.nan, np.inf])
def test_nan_counts_only_where_it_is_looked_at_and_flat_has_no_score(basis, nothing):
    c = constants(basis, baseline=BASELINE)
    trace = np.full(SIZE, 5.0)
    got = waveform_svd(trace, c)
    assert np.isnan(got.score)
    assert not got.intensity.any()
    assert np.isnan(waveform_svd(np.full(SIZE, 0.1), constants(basis)).score)
    for at, bad in ((55, False), (10, True), (100, True)):
        trace = pulses(1, seed=14)[0]
        trace[at] = nothing
        got = waveform_svd(trace, c)
        assert np.isnan([*got.coefficients.ravel(), *got.norm, got.score]).all() == bad
        assert np.isnan(got.baseline) == (at == 10)


def test_what_is_reconstructed_is_at_the_times_of_its_samples(basis):
    p = Params(basis, 0.5, reconstructed=True)
    c = waveform_svd.constants(p, {"waveform": Input("value", "<f8", (SIZE,))})
    axis = waveform_svd.coordinates(p, c)["sample"]
    assert (axis.unit, axis.values.tolist()) == ("ns", (T[60:160] * 0.5).tolist())
    assert waveform_svd.coordinates(p._replace(reconstructed=False), c) == {}


def test_bad_parameters_are_told_all_at_once(basis, tmp_path):
    with pytest.raises(ValueError, match="components: 7") as e:
        constants(basis, components=7, delays=(0.0, 60.0), baseline=(5, 5))
    assert [line.split(":")[0] for line in str(e.value).splitlines()] == [
        "baseline", "components", "delays",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="cannot be told apart"):
        constants(basis, delays=(3.0, 3.0))
    with pytest.raises(
        ValueError, match=r"60\.\.160 are not part of the waveform, which has 0\.\.9"
    ):
        waveform_svd.constants(Params(basis, 0.5), {"waveform": Input("value", "<f8", (90,))})
    np.savez(tmp_path / "a.npz", start=3)
    np.save(tmp_path / "b.npy", T)
    for name, text in (
        ("a.npz", "holds start; no components, values"),
        ("b.npy", "holds one array without a name; no components"),
        ("c.npz", "basis: .*c.npz cannot be read: No such file"),
    ):
        with pytest.raises(ValueError, match=text):
            constants(tmp_path / name)
    with pytest.raises(ValueError, match=r"gate: \[60, 300\]"):
        svd_basis.make(pulses(3), (60, 300), BASELINE)
    for traces, number, text in (
        (np.full((3, SIZE), np.nan), 2, "free of NaN"),
        (np.full((3, SIZE), 7.0), 2, "differs from its baseline"),
        (np.zeros(SIZE), 2, r"traces: \(\d+,\)"),
        (pulses(3), 0, "number: 0"),
    ):
        with pytest.raises(ValueError, match=text):
            svd_basis.make(traces, GATE, BASELINE, number)
