"""Regions of any outline equal float64 brute force."""

import re

import numpy as np
import pytest
from matplotlib.patches import Ellipse

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
    "turned": (
        regions.Params(1, ellipse=(5.0, 20.0, 3.0, 9.5, 30.0)),
        lambda s: _on(1, _ellipse((5.0, 20.0), 6.0, 19.0, 30.0)),
    ),
    "rectangle": (
        regions.Params(1, ellipse=(5.0, 20.0, 4.0, 9.5), rows=(3, 11), cols=(18, 37)),
        lambda s: _on(
            1,
            (((ROWS - 5) / 4) ** 2 + ((COLS - 20) / 9.5) ** 2 <= 1)
            & ((ROWS >= 3) & (ROWS < 11) & (COLS >= 18)),
        ),
    ),
    "both": (
        regions.Params(1, ellipse=(5.0, 20.0, 4.0, 9.5), polygon=(-1, -1, -1, 20, 12, 20, 12, -1)),
        lambda s: _on(1, ((ROWS - 5) / 4) ** 2 + ((COLS - 20) / 9.5) ** 2 <= 1) & _on(1, COLS < 20),
    ),
}


def _ellipse(centre, height, width, angle):
    """Pixels in an ellipse of matplotlib's, which turns from x, the columns, towards y."""
    shape = Ellipse(centre[::-1], width, height, angle=angle)
    points = np.stack([COLS.ravel(), ROWS.ravel()], axis=1)
    moved = shape.get_patch_transform().inverted().transform(points)
    return (np.hypot(*moved.T) <= 1).reshape(COLS.shape)


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
    com = params.segment is not None
    params = params._replace(threshold=15.0, saturation=60.0, com=com)
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
        if com:
            heavy = np.where(inside(SHAPE) & mask & (image >= 15), image, 0)[params.segment]
            with np.errstate(invalid="ignore"):
                wanted["com_row"] = (heavy * ROWS).sum(dtype=float) / heavy.sum(dtype=float)
                wanted["com_col"] = (heavy * COLS).sum(dtype=float) / heavy.sum(dtype=float)
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


def test_the_centre_of_mass_of_all_segments_is_in_the_geometry():
    x, y = 75.0 * (ROWS - [[[40.0]], [[-5.0]]]), 75.0 * (COLS - [[[18.2]], [[9.0]]])
    mask, images = RNG.random(SHAPE) > 0.2, frames()
    area = detector(SHAPE, mask)._replace(xyz=np.stack([x, y, 0 * x]))
    params = regions.Params(threshold=-np.inf, com=True, geometry=True)
    got = reduce([member("g", regions.region, params, area)], area, images[:3])
    assert "g/com_row" not in got
    for k, image in enumerate(images[:2]):
        v = np.where(mask & ~np.isnan(image), image, 0).astype(float)
        np.testing.assert_allclose(got["g/com_x"][k], (v * x).sum() / v.sum(), rtol=1e-9)
        np.testing.assert_allclose(got["g/com_y"][k], (v * y).sum() / v.sum(), rtol=1e-9)
    assert np.isnan(got["g/com_x"][2])
    assert np.isnan(got["g/com_y"][2])


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
    np.save(tmp_path / "nan.npy", np.where(np.indices(SHAPE)[1] < 3, np.nan, 1.0))
    wrong = [
        (regions.Params(polygon=(1.0, 2.0, 3.0)), ["polygon: 3 numbers", "segment: say which"]),
        (regions.Params(5, ring=(1.0, 2.0, 9.0, 3.0)), ["ring: radii", "segment: there is no 5"]),
        (regions.Params(0, ellipse=(1.0, 2.0, 0.0, 3.0)), ["ellipse: half axes"]),
        (regions.Params(0, ellipse=(1.0, 2.0)), ["ellipse: 2 numbers"]),
        (regions.Params(0, ring=(np.nan, 2.0, 1.0, 2.0)), ["ring: [nan"]),
        (regions.Params(mask=tmp_path / "m.npy"), ["mask: "]),
        (regions.Params(mask=tmp_path / "none.npy"), ["mask: "]),
        (regions.Params(mask=(p := tmp_path / "nan.npy")), [f"mask: {p} holds NaN"]),
        (regions.Params(0, ring=(500.0, 2.0, 1.0, 2.0)), ["region: no good pixel"]),
        (regions.Params(0, ellipse=(1.0, 2.0, 3.0, 0.0, 9.0)), ["ellipse: half axes"]),
        (regions.Params(threshold=np.nan), ["threshold: nan"]),
        (regions.Params(com=True), ["com: say which of the 2"]),
        (regions.Params(com=True, geometry=True), ["geometry: det has none"]),
        (regions.Params(rows=(0, 3)), ["segment: rows and cols"]),
        (regions.Params(0, rows=(0, 99), threshold=np.nan), ["rows: [0, 99]", "threshold: nan"]),
        (regions.Params(0, rows=(0, 2), ring=(9.0, 9.0, 0.0, 2.0)), ["region: no good"]),
    ]
    for params, starts in wrong:
        with pytest.raises(ValueError, match=re.escape(starts[0])) as e:
            regions.region.prepare(params, detector(SHAPE))
        lines = str(e.value).splitlines()
        assert all(a.startswith(b) for a, b in zip(lines, starts, strict=True)), lines
