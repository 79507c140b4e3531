"""Circles through bright pixels equal the algebraic and the geometric fit of numpy and scipy."""

import re

import numpy as np
import pytest
from scipy import linalg
from scipy.optimize import least_squares

from ffb import Area
from ffb.reducers.circle import circle_through
from ffb.reducers.ring_fit import Params, ring_fit
from ffb.testing.check_reducer import features_in_python
from tests.unit.passes import detector, member, reduce

RNG = np.random.default_rng(17)
SHAPE = (2, 31, 37)
ROWS, COLS = np.indices(SHAPE[1:])
NAMES = ("row", "col", "radius", "rms")


def ring(row=14.3, col=17.8, radius=10.6, width=1.2, level=80.0):
    """A segment with a ring on noise."""
    away = np.hypot(ROWS - row, COLS - col) - radius
    return level * np.exp(-0.5 * (away / width) ** 2) + RNG.normal(0, 2, SHAPE[1:])


def moments(x, y, w):
    z = x * x + y * y
    terms = (np.ones_like(x), x, y, x * x, x * y, y * y, x * z, y * z, z * z)
    return np.array([(w * t).sum() for t in terms])


def algebraic(x, y, w):
    """Hyper as a generalised eigenproblem of numpy, about the mean and in units of the spread."""
    mx, my = np.average(x, weights=w), np.average(y, weights=w)
    unit = np.sqrt(np.average((x - mx) ** 2 + (y - my) ** 2, weights=w))
    u, v = (x - mx) / unit, (y - my) / unit
    design = np.stack([u * u + v * v, u, v, np.ones_like(u)], axis=1)
    m = design.T @ (design * (w / w.sum())[:, None])
    constraint = np.array([[8.0, 0, 0, 2], [0, 1, 0, 0], [0, 0, 1, 0], [2, 0, 0, 0]])
    e, vectors = linalg.eig(m, constraint)
    least = np.argmin(np.where(e.real > -1e-13, e.real, np.inf))
    a, b, c, d = vectors[:, least].real
    radius = np.sqrt(b * b + c * c - 4 * a * d) / abs(2 * a)
    left = design @ vectors[:, least].real / a
    rms = np.sqrt(np.average(left**2, weights=w)) / (2 * radius)
    return np.array([mx - unit * b / (2 * a), my - unit * c / (2 * a), unit * radius, unit * rms])


def geometric(x, y, w, start):
    """Least squares of the distances from the circle."""
    root = np.sqrt(w)
    fit = least_squares(
        lambda p: root * (np.hypot(x - p[0], y - p[1]) - p[2]), start, xtol=1e-14, x_scale="jac"
    )
    return *fit.x, np.sqrt((fit.fun**2).sum() / w.sum())


def arc(degrees, sigma, n=400, center=(3.0, -7.0), radius=50.0):
    angles = np.radians(RNG.uniform(-degrees / 2, degrees / 2, n) + 35)
    r = radius + RNG.normal(0, sigma, n)
    return center[0] + r * np.cos(angles), center[1] + r * np.sin(angles)


@pytest.mark.parametrize("uniform", [False, True])
@pytest.mark.parametrize("kind", ["good", "some"])
def test_a_ring_equals_the_algebraic_fit(kind, uniform):
    mask = np.ones(SHAPE, bool) if kind == "good" else RNG.random(SHAPE) > 0.3
    images = np.zeros((5, *SHAPE), np.float32)
    images[:, 0] = 500.0  # another segment's
    images[0, 1] = ring()
    images[1, 1] = np.where(RNG.random(SHAPE[1:]) < 0.2, np.nan, ring(row=13.1))
    images[2, 1] = np.where(COLS > 12, ring(radius=11.9), 0)
    images[3, 1] = np.minimum(ring(level=1e6), 5e4)  # saturated
    images[4, 1] = np.nan
    p = Params(30.7, segment=1, rows=(2, 30), cols=(3, 37), uniform=uniform)
    p = p._replace(ring=(14.0, 17.0, 4.0, 16.5))
    r = np.hypot(ROWS - 14, COLS - 17)
    inside = (r >= 4) & (r < 16.5) & (ROWS >= 2) & (ROWS < 30) & (COLS >= 3) & mask[1]
    area = detector(SHAPE, mask)
    got = reduce([member("c", ring_fit, p, area)], area, images)
    for k, image in enumerate(images.astype(np.float64)[:, 1]):
        chosen = inside & (image >= 30.7)
        assert got["c/npix"][k] == chosen.sum()
        mine = [got[f"c/{f}"][k] for f in NAMES]
        if k == 4:
            assert np.isnan(mine).all()
            continue
        w = np.ones(chosen.sum()) if uniform else image[chosen] - 30.7
        wanted = algebraic(ROWS[chosen] * 1.0, COLS[chosen] * 1.0, w)
        np.testing.assert_allclose(mine, wanted, rtol=1e-8, err_msg=f"{k}")


def test_segments_join_in_the_geometry():
    x = 75.0 * (ROWS - np.array([40.0, -5.0])[:, None, None])
    y = 75.0 * (COLS - 18.2) + np.array([0.0, 400.0])[:, None, None]
    mask = RNG.random(SHAPE) > 0.1
    area = Area("det", SHAPE, mask, np.stack([x, y, 0 * x]), "keV")
    away = np.hypot(x - 120.0, y - 210.0) - 1500.0
    image = (90 * np.exp(-0.5 * (away / 90) ** 2)).astype(np.float32)
    p = Params(20.0, geometry=True, ring=(120.0, 210.0, 1300.0, 1700.0))
    one = p._replace(segment=0)
    members = [member("all", ring_fit, p, area), member("one", ring_fit, one, area)]
    got = reduce(members, area, [image])
    for name, segments in (("all", slice(None)), ("one", slice(0, 1))):
        chosen = mask & (image >= 20.0) & (np.abs(away) < 200)
        chosen = chosen[segments]
        w = image[segments][chosen] - 20.0
        wanted = algebraic(x[segments][chosen], y[segments][chosen], w)
        mine = [got[f"{name}/{f}"][0] for f in ("x", "y", "radius_um", "rms_um")]
        np.testing.assert_allclose(mine, wanted, rtol=1e-8, atol=1e-5)
        np.testing.assert_allclose(mine[:3], [120, 210, 1500], atol=37)  # half a pixel
    assert "all/row" not in got


@pytest.mark.parametrize("degrees", [360, 180, 90])
def test_arcs_with_noise_are_the_geometric_fit(degrees):
    """They differ by less than 0.3 of the spread of either, most by what the geometric is biased.

    Its radius is too large by sigma^2 / 2 radius on a full circle, as the paper has it.
    """
    sigma, mine, theirs = 1.0, [], []
    for _ in range(30):
        x, y = arc(degrees, sigma)
        w = RNG.uniform(0.5, 2, x.size)
        mine.append(circle_through(moments(x, y, w)))
        theirs.append(geometric(x, y, w, (3.0, -7.0, 50.0)))
    mine, theirs = np.array(mine), np.array(theirs)
    spread = theirs.std(axis=0)
    off = np.sqrt(((mine - theirs) ** 2).mean(axis=0)) / spread
    assert (off[:3] < 0.3).all(), off
    if degrees == 360:
        np.testing.assert_allclose((theirs - mine)[:, 2].mean(), sigma**2 / 100, rtol=0.3)
    np.testing.assert_allclose(mine[:, 3], theirs[:, 3], rtol=0.01)


def test_short_arcs_do_not_shrink():
    """Kasa's circle, the plain least squares of the same equation, is the smaller by far."""
    radii, kasa = [], []
    for _ in range(60):
        x, y = arc(50, 1.5)
        radii.append(circle_through(moments(x, y, np.ones_like(x)))[2])
        design = np.stack([x, y, np.ones_like(x)], axis=1)
        b, c, d = np.linalg.lstsq(design, x * x + y * y, rcond=None)[0]
        kasa.append(np.sqrt(d + b * b / 4 + c * c / 4))
    error = np.std(radii) / np.sqrt(len(radii))
    assert abs(np.mean(radii) - 50) < 3 * error + 0.5
    assert np.mean(kasa) < 45


@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_small_rings_far_away_keep_their_digits(shift):
    angles = np.radians(np.arange(0, 250, 7.0))
    x = (shift + 3.7 * np.cos(angles)).reshape(1, 4, 9)
    y = (3.7 * np.sin(angles) - 2 * shift).reshape(1, 4, 9)
    area = Area("det", x.shape, np.ones(x.shape, bool), np.stack([x, y, 0 * x]), "keV")
    image = RNG.uniform(2, 9, x.shape)
    (got,) = features_in_python(ring_fit, Params(1.0, geometry=True), area, [{"image": image}])
    found = [got["x"] - shift, got["y"] + 2 * shift, got["radius_um"], got["rms_um"]]
    np.testing.assert_allclose(found, [0, 0, 3.7, 0], atol=3e-7 if shift == 0 else 1e-6)


def test_there_is_no_circle_on_a_line_or_of_few():
    line, few, flat, point = (np.zeros((1, 9, 29), np.float32) for _ in range(4))
    for k in range(9):
        line[0, k, 3 * k + 1] = 9 + k
    few[0, [1, 3, 5, 3], [5, 7, 5, 3]] = 9
    flat[0, 4] = 7
    point[:] = 4.0  # at the threshold: of no weight
    point[0, 2, 3] = 8.0
    area = detector((1, 9, 29))
    m = member("c", ring_fit, Params(4.0, min_npix=5), area)
    got = reduce([m], area, [line, few, flat, point])
    assert got["c/npix"].tolist() == [9, 4, 29, 261]
    for f in NAMES:
        assert np.isnan(got[f"c/{f}"]).all()
    m = member("c", ring_fit, Params(4.0, min_npix=4), area)
    got = reduce([m], area, [few])
    np.testing.assert_allclose([got[f"c/{f}"][0] for f in NAMES], [3, 5, 2, 0], atol=1e-7)


def test_every_mistake_is_told():
    wrong = [
        (Params(np.nan, segment=0, min_npix=2), ["threshold: nan", "min_npix: 2 pixels"]),
        (Params(1.0), ["segment: say which of the 2, or set geometry"]),
        (Params(1.0, geometry=True, rows=(1, 5)), ["geometry: det has none", "segment: say"]),
        (Params(1.0, segment=2, cols=(1, 99)), ["cols: [1, 99]", "segment: there is no 2"]),
        (Params(1.0, segment=0, ring=(1.0, 2.0)), ["ring: 2 numbers; give row"]),
        (Params(1.0, segment=0, ring=(1.0, 2.0, 3.0, np.inf)), ["ring: [1.0"]),
        (Params(1.0, segment=0, ring=(1.0, 2.0, 3.0, 3.0)), ["ring: radii"]),
        (Params(1.0, segment=0, ring=(900.0, 2.0, 3.0, 4.0)), ["ring: no good pixel"]),
    ]
    for params, starts in wrong:
        with pytest.raises(ValueError, match=re.escape(starts[0])) as e:
            ring_fit.prepare(params, detector(SHAPE))
        lines = str(e.value).splitlines()
        assert all(a.startswith(b) for a, b in zip(lines, starts, strict=True)), lines
