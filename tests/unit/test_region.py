"""Regions of any outline equal float64 brute force."""

import re

import numpy as np
import pytest

from ffb.reducers import region as regions
from ffb.reducers.shapes import inside_polygon
from tests.unit.passes import detector, member, reduce

RNG = np.random.default_rng(29)
SHAPE = (2, 13, 37)
ROWS, COLS = np.indices(SHAPE[1:])
CHOSEN = {
    "whole": (regions.Params(), lambda s: np.ones(SHAPE, bool)),
    "ring": (
        regions.Params(0, ring=(6.0, 18.5, 3.0, 8.0)),
        lambda s: _on(0, (r := np.hypot(ROWS - 6, COLS - 18.5)) >= 3) & _on(0, r < 8),
    ),
    "ellipse": (
        regions.Params(1, ellipse=(5.0, 20.0, 4.0, 9.5)),
        lambda s: _on(1, ((ROWS - 5) / 4) ** 2 + ((COLS - 20) / 9.5) ** 2 <= 1),
    ),
    "both": (
        regions.Params(1, ellipse=(5.0, 20.0, 4.0, 9.5), polygon=(-1, -1, -1, 20, 12, 20, 12, -1)),
        lambda s: _on(1, ((ROWS - 5) / 4) ** 2 + ((COLS - 20) / 9.5) ** 2 <= 1) & _on(1, COLS < 20),
    ),
}


def _on(segment, inside):
    out = np.zeros(SHAPE, bool)
    out[segment] = inside
    return out


def frames():
    noise = RNG.normal(20, 30, SHAPE)
    holes = np.where(RNG.random(SHAPE) < 0.2, np.nan, noise)
    odd = [np.zeros(SHAPE), np.full(SHAPE, np.nan), np.full(SHAPE, 54321.7), -np.abs(noise)]
    return [f.astype(np.float32) for f in (noise, holes, *odd)]


@pytest.mark.parametrize("name", CHOSEN)
@pytest.mark.parametrize("kind", ["good", "some"])
def test_a_region_equals_brute_force(name, kind):
    params, inside = CHOSEN[name]
    params = params._replace(threshold=15.0, saturation=60.0)
    mask = np.ones(SHAPE, bool) if kind == "good" else RNG.random(SHAPE) > 0.3
    images, area = frames(), detector(SHAPE, mask)
    got = reduce([member("g", regions.region, params, area)], area, images)
    for k, image in enumerate(images):
        v = image[inside(SHAPE) & mask].astype(float)
        v = v[~np.isnan(v)]
        empty = v.size == 0
        wanted = {
            "sum": v.sum(),
            "mean": np.nan if empty else v.mean(),
            "std": np.nan if empty else v.std(),
            "contrast": np.nan if empty or v.mean() <= 0 else v.var() / v.mean() ** 2,
            "max": np.nan if empty else v.max(),
            "npix": v.size,
            "above_sum": v[v >= 15].sum(),
            "nabove": (v >= 15).sum(),
            "nsat": (v >= 60).sum(),
        }
        for f, value in wanted.items():
            np.testing.assert_allclose(
                got[f"g/{f}"][k], value, rtol=1e-9, atol=1e-6, err_msg=f"{f} {k}"
            )


def test_a_mask_file_is_a_region(tmp_path):
    inside = RNG.random(SHAPE) > 0.5
    np.save(tmp_path / "m.npy", inside)
    area, images = detector(SHAPE), frames()[:1]
    params = regions.Params(mask=tmp_path / "m.npy", segment=1)
    got = reduce([member("g", regions.region, params, area)], area, images)
    np.testing.assert_allclose(got["g/sum"][0], images[0][1][inside[1]].sum(dtype=float))
    assert got["g/npix"][0] == inside[1].sum()


def winding(corners, row, col):
    """Times an outline goes around a point, by summed angles."""
    away = corners - (row, col)
    angles = np.arctan2(away[:, 0], away[:, 1])
    turn = np.diff(np.append(angles, angles[0]))
    return round(float(((turn + np.pi) % (2 * np.pi) - np.pi).sum() / (2 * np.pi)))


@pytest.mark.parametrize("n", [3, 4, 7])
def test_a_polygon_holds_what_its_outline_goes_around(n):
    corners = RNG.uniform((-2, -2), (15, 39), (n, 2))
    odd = [[winding(corners, r, c) % 2 == 1 for c in range(37)] for r in range(13)]
    np.testing.assert_array_equal(inside_polygon(corners, SHAPE[1:]), odd)


def test_every_mistake_is_told(tmp_path):
    np.save(tmp_path / "m.npy", np.ones((3, 3)))
    wrong = [
        (regions.Params(polygon=(1.0, 2.0, 3.0)), ["polygon: 3 numbers", "segment: say which"]),
        (regions.Params(5, ring=(1.0, 2.0, 9.0, 3.0)), ["ring: radii", "segment: there is no 5"]),
        (regions.Params(0, ellipse=(1.0, 2.0, 0.0, 3.0)), ["ellipse: half axes"]),
        (regions.Params(0, ellipse=(1.0, 2.0)), ["ellipse: 2 numbers"]),
        (regions.Params(0, ring=(np.nan, 2.0, 1.0, 2.0)), ["ring: [nan"]),
        (regions.Params(mask=tmp_path / "m.npy"), ["mask: "]),
        (regions.Params(mask=tmp_path / "none.npy"), ["mask: "]),
        (regions.Params(0, ring=(500.0, 2.0, 1.0, 2.0)), ["region: no good pixel"]),
        (regions.Params(threshold=np.nan), ["threshold: nan"]),
    ]
    for params, starts in wrong:
        with pytest.raises(ValueError, match=re.escape(starts[0])) as e:
            regions.region.prepare(params, detector(SHAPE))
        lines = str(e.value).splitlines()
        assert all(a.startswith(b) for a, b in zip(lines, starts, strict=True)), lines
