"""Jets are first principal axes, and are found where they were made up."""

import re

import numpy as np
import pytest

from ffb.reducers import jet as jets
from tests.unit.passes import detector, member, reduce

RNG = np.random.default_rng(23)


def streak(at, degrees, shape=(1, 60, 80), level=100.0):
    rows, cols = np.indices(shape[1:])
    distance = (cols - at - np.tan(np.radians(degrees)) * (rows - 29.5)) * np.cos(
        np.radians(degrees)
    )
    return (level * np.exp(-0.5 * (distance / 1.5) ** 2))[None].astype(np.float32)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(("at", "degrees"), [(40.0, 0.0), (33.3, 12.0), (50.0, -20.0)])
def test_a_jet_is_found_where_it_is(at, degrees, axis):
    image = streak(at, degrees)
    params = jets.Params(threshold=5.0, cols=(5, 78))
    if axis:
        image, params = image.transpose(0, 2, 1), jets.Params(5.0, rows=(5, 78), axis=1)
    area = detector(image.shape)
    got = reduce([member("j", jets.jet, params, area)], area, [np.ascontiguousarray(image)])
    np.testing.assert_allclose(got["j/position"], at, atol=0.05)
    np.testing.assert_allclose(got["j/angle"], degrees, atol=0.3)
    np.testing.assert_allclose(got["j/width"], 1.35, atol=0.1)


def test_a_jet_is_the_first_principal_axis():
    mask = RNG.random((1, 60, 80)) > 0.1
    area = detector((1, 60, 80), mask)
    images = [streak(30, 8) + RNG.normal(0, 5, mask.shape).astype(np.float32) for _ in range(3)]
    images[1][RNG.random(mask.shape) < 0.05] = np.nan
    params = jets.Params(threshold=20.0, rows=(4, 55), cols=(6, 70), at=10.0)
    got = reduce([member("j", jets.jet, params, area)], area, images)
    for k, image in enumerate(images):
        rows, cols = np.indices(mask.shape[1:])
        inside = mask[0] & (rows >= 4) & (rows < 55) & (cols >= 6) & (cols < 70)
        with np.errstate(invalid="ignore"):
            inside &= image[0] >= 20.0
        w = image[0][inside].astype(float) - 20.0
        points = np.stack([rows[inside], cols[inside]]).astype(float)
        values, vectors = np.linalg.eigh(np.cov(points, aweights=w, ddof=0))
        slope = vectors[1, 1] / vectors[0, 1]
        centre = np.average(points, axis=1, weights=w)
        np.testing.assert_allclose(got["j/angle"][k], np.degrees(np.arctan(slope)), rtol=1e-7)
        np.testing.assert_allclose(
            got["j/position"][k], centre[1] + slope * (10.0 - centre[0]), rtol=1e-7
        )
        np.testing.assert_allclose(got["j/width"][k], np.sqrt(values[0]), rtol=1e-6)
        np.testing.assert_allclose(got["j/sum"][k], w.sum(), rtol=1e-9)
        assert got["j/npix"][k] == inside.sum()


def test_without_a_jet_there_is_no_axis():
    area = detector((1, 60, 80))
    images = [np.zeros((1, 60, 80), np.float32), np.full((1, 60, 80), np.nan, np.float32)]
    got = reduce([member("j", jets.jet, jets.Params(5.0), area)], area, images)
    assert np.isnan(got["j/position"]).all()
    assert got["j/reason"].tolist() == [1, 1]
    assert got["j/npix"].tolist() == [0, 0]
    for start, params in {
        "threshold: nan": jets.Params(np.nan),
        "min_npix: 1": jets.Params(1.0, min_npix=1),
        "cols: [5, 100] is off": jets.Params(1.0, cols=(5, 100)),
        "at: inf": jets.Params(1.0, at=np.inf),
        "axis: there is no 2": jets.Params(1.0, axis=2),
        "lean: 90": jets.Params(1.0, lean=90.0),
    }.items():
        with pytest.raises(ValueError, match=f"^{re.escape(start)}"):
            jets.jet.prepare(params, area)


def test_what_has_no_axis_gets_none():
    """Not that of the rectangle, nor one that flips between +90 and -90 degrees with the noise."""
    area, rows, cols = detector((1, 60, 80)), *np.indices((60, 80))
    flat = 50 + RNG.normal(0, 1, (3, 60, 80))
    drop = 100 * np.exp(-0.5 * (((rows - 30) / 9) ** 2 + ((cols - 25) / 8) ** 2))
    level = streak(25.0, 0.0, (1, 80, 60))[0].T
    images = [x[None].astype(np.float32) for x in (*flat, drop, level, level[::-1] + 5.0)]
    whole = jets.Params(8.0)
    shapes = {
        "wide": (whole, [2, 2, 2, 2, 4, 4]),
        "tall": (whole._replace(cols=(20, 45)), [3, 3, 3, 2, 4, 4]),
        "square": (whole._replace(cols=(20, 80)), [2, 2, 2, 2, 4, 4]),
        "level": (whole._replace(axis=1, rows=(10, 40)), [3, 3, 3, 2, 0, 0]),
    }
    members = [member(name, jets.jet, p, area) for name, (p, _) in shapes.items()]
    got = reduce(members, area, images)
    for name, (_, reasons) in shapes.items():
        assert got[f"{name}/reason"].tolist() == reasons
        for feature in ("position", "angle", "width"):
            lost = np.isnan(got[f"{name}/{feature}"])
            np.testing.assert_array_equal(lost, np.array(reasons) > 0)
    np.testing.assert_allclose(got["level/angle"][4:], 0.0, atol=0.5)
