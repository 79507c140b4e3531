"""Reducers of area detectors equal float64 brute force; fused equals separate."""

import numpy as np
import pytest

from ffb.reducers import histogram, projection, rebin, roi, threshold
from tests.unit.passes import detector, member, reduce

SHAPES = [(1, 1, 1), (1, 1, 37), (2, 9, 23), (1, 16, 64), (3, 5, 130)]
MASKS = ["good", "some", "none"]
RNG = np.random.default_rng(7)


def frames(shape, mask_kind):
    """A mask, and frames: noise, noise with NaN and -0.0, negative, saturated, all NaN, zeros."""
    mask = {
        "good": np.ones(shape, np.bool_),
        "some": RNG.random(shape) > 0.3,
        "none": np.zeros(shape, np.bool_),
    }[mask_kind]
    noise = RNG.normal(20, 30, shape)
    holes = np.where(RNG.random(shape) < 0.2, np.nan, noise)
    holes[..., :1] = -0.0
    images = [noise, holes, -np.abs(noise) - 1, np.full(shape, 1e6), np.full(shape, np.nan)]
    return mask, [i.astype(np.float32) for i in [*images, np.zeros(shape)]]


def cut(image, mask, window):
    segment, rows, cols = window
    box = (segment, slice(*rows), slice(*cols))
    return np.where(mask[box], image[box].astype(np.float64), np.nan)


def windows(shape):
    s, r, c = shape
    yield s - 1, (0, r), (0, c)
    yield 0, (r - 1, r), (0, c)
    yield s // 2, (0, (r + 1) // 2), (c // 3, c)
    yield 0, (0, r), (c - 1, c)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", MASKS)
def test_roi_equals_brute_force(shape, kind):
    mask, images = frames(shape, kind)
    area = detector(shape, mask)
    for w in windows(shape):
        params = roi.Params(w[1], w[2], w[0], saturation=40.0, area=True)
        got = reduce([member("spot", roi.roi, params, area)], area, images)
        for k, image in enumerate(images):
            box = cut(image, mask, w)
            good = box[~np.isnan(box)]
            total, rows, cols = good.sum(), *np.indices(box.shape)
            expected = {
                "sum": total,
                "mean": total / good.size if good.size else np.nan,
                "max": good.max() if good.size else np.nan,
                "com_row": np.nansum(box * rows) / total if total else np.nan,
                "com_col": np.nansum(box * cols) / total if total else np.nan,
                "npix": good.size,
                "nsat": (good >= 40.0).sum(),
                "area": box,
            }
            for f, value in expected.items():
                np.testing.assert_allclose(
                    got[f"spot/{f}"][k], value, rtol=1e-9, atol=1e-9, err_msg=f"{f} {w} {k}"
                )
    assert got["spot/area"].dtype == np.float32


def full_range(dtype, shape):
    """Frames that use all that a dtype has, up to what float32 holds exactly."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return [RNG.normal(0, 1e4, shape).astype(kind), np.full(shape, -2.5, kind)]
    most = min(np.iinfo(kind).max, 2**24)
    least = max(np.iinfo(kind).min, -(2**24))
    ends = RNG.choice(np.array([least, 0, most]), shape)
    return [RNG.integers(least, most, shape, endpoint=True).astype(kind), ends.astype(kind)]


@pytest.mark.parametrize("dtype", ["|u1", "<i2", "<i4", "<f4"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 101), (3, 7, 13), (1, 31, 1)], ids=str)
def test_cameras_of_every_dtype_and_odd_shape_equal_brute_force(dtype, shape):
    mask = RNG.random(shape) > 0.2
    images = full_range(dtype, shape)
    area = detector(shape, mask)
    level = float(np.median(images[0]))
    members = [
        member("spot", roi.roi, roi.Params(segment=shape[0] - 1, saturation=level), area),
        member("p", projection.projection, projection.Params(0, segment=0), area),
        member("h", histogram.histogram, histogram.Params((-100.0, 300.0), 7), area),
    ]
    got = reduce(members, area, images, dtype)
    for k, image in enumerate(images):
        exact = image.astype(np.float32).astype(np.float64)
        good = exact[-1][mask[-1]]
        for f, value in (
            ("sum", good.sum()),
            ("max", good.max() if good.size else np.nan),
            ("npix", good.size),
            ("nsat", (good >= np.float32(level)).sum()),
        ):
            if np.dtype(dtype).kind != "f" or f != "sum":
                np.testing.assert_array_equal(got[f"spot/{f}"][k], value, err_msg=f)
            else:
                np.testing.assert_allclose(got[f"spot/{f}"][k], value, rtol=1e-12, atol=1e-9)
        first = np.where(mask[0], exact[0], 0)
        np.testing.assert_allclose(got["p/sum"][k], first.sum(0), rtol=1e-12, atol=1e-9)
        counts, _ = np.histogram(exact[mask], 7, (-100.0, 300.0))
        np.testing.assert_array_equal(got["h/counts"][k], counts)


def test_sums_of_whole_numbers_are_exact():
    shape = (1, 64, 1024)
    image = np.full(shape, 2**24 - 1, np.float32)
    image[0, 0, 0] = 1
    area = detector(shape)
    made = [
        member("spot", roi.roi, roi.Params(), area),
        member("p", projection.projection, projection.Params(1), area),
    ]
    got = reduce(made, area, [image])
    assert got["spot/sum"][0] == (2**24 - 1) * (2**16 - 1) + 1
    assert got["p/sum"][0][1] == (2**24 - 1) * 1024


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", MASKS)
def test_projection_equals_brute_force(shape, kind):
    mask, images = frames(shape, kind)
    area = detector(shape, mask)
    for w in windows(shape):
        for axis in (0, 1):
            params = projection.Params(axis, w[0], w[1], w[2])
            got = reduce([member("p", projection.projection, params, area)], area, images)
            for k, image in enumerate(images):
                box = cut(image, mask, w)
                np.testing.assert_allclose(got["p/sum"][k], np.nansum(box, axis), rtol=1e-9)
                np.testing.assert_array_equal(got["p/npix"][k], (~np.isnan(box)).sum(axis))


def test_projection_of_pixels_within_thresholds_equals_brute_force():
    shape = (2, 9, 23)
    mask, images = frames(shape, "some")
    noise = RNG.uniform(0.5, 9, shape).astype(np.float32)
    noise[0, 3, 4:9], noise[0, 4, 4] = 0.0, np.nan
    area = detector(shape, mask)._replace(noise=noise)
    where, cuts = {"segment": 0, "rows": (2, 8), "cols": (3, 20)}, [(12.0, 45.0), (-1.5, np.inf)]
    made = {
        (axis, low, high, unit): projection.Params(
            axis, thresholds=(low, high), in_noise=unit, **where
        )
        for axis in (0, 1)
        for low, high in cuts
        for unit in (False, True)
    }
    members = [member(f"p{k}", projection.projection, p, area) for k, p in enumerate(made.values())]
    got = reduce(members, area, images)
    box = np.s_[0, 2:8, 3:20]
    known = np.where(noise > 0, noise, np.nan).astype(np.float64)[box]
    for k, image in enumerate(images):
        pixels = np.where(mask, image, np.nan).astype(np.float64)[box]
        for p, (axis, low, high, unit) in enumerate(made):
            scale = known if unit else 1.0
            within = (pixels >= low * scale) & (pixels <= high * scale)
            total = np.where(within, pixels, 0).sum(axis)
            np.testing.assert_allclose(got[f"p{p}/sum"][k], total, rtol=1e-9)
            np.testing.assert_array_equal(got[f"p{p}/number"][k], within.sum(axis))
            np.testing.assert_array_equal(got[f"p{p}/npix"][k], (~np.isnan(pixels)).sum(axis))


def test_thresholds_of_a_projection_that_make_no_sense():
    area = detector((1, 4, 5))
    for change, words in [
        ({"thresholds": (5.0, 4.0)}, r"thresholds: \[5, 4\]; give two values"),
        ({"in_noise": True}, "in_noise: is the unit of thresholds"),
        ({"in_noise": True, "thresholds": (3.0, 9.0)}, "hold no noise of its pixels"),
    ]:
        with pytest.raises(ValueError, match=words):
            projection.projection.prepare(projection.Params(0, **change), area)


def test_projection_without_rows_and_columns_takes_the_segment():
    area = detector((2, 9, 23))
    constants = projection.projection.prepare(projection.Params(0, segment=1), area)
    assert constants.window == (9, 18, 0, 23)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize(
    "bins",
    [
        (-10.0, 50.0, 60),
        (0.0, 49.0, 128),
        (0.0, 75.0, 144),
        (0.0, 0.7, 7),
        (-3.3, 41.9, 1),
        (40.0, 40.002, 3),
    ],
    ids=str,
)
def test_histogram_equals_numpy(shape, kind, bins):
    mask, images = frames(shape, kind)
    lo, hi, nbins = bins
    edges = np.linspace(lo, hi, nbins + 1)
    on_edges = np.resize(np.concatenate([edges, np.nextafter(edges, -1e9)]), shape)
    images += [np.rint(images[0]), on_edges.astype(np.float32)]
    area = detector(shape, mask)
    for place in (None, (shape[0] - 1, (0, shape[1]), (shape[2] // 2, shape[2]))):
        given = place or (None, None, None)
        params = histogram.Params((lo, hi), nbins, *given)
        got = reduce([member("h", histogram.histogram, params, area)], area, images)
        for k, image in enumerate(images):
            box = cut(image, mask, place) if place else np.where(mask, image.astype(float), np.nan)
            good = box[~np.isnan(box)]
            counts, _ = np.histogram(good, nbins, (lo, hi))
            np.testing.assert_array_equal(got["h/counts"][k], counts, err_msg=f"{place} {k}")
            assert got["h/underflow"][k] == (good < lo).sum()
            assert got["h/overflow"][k] == (good > hi).sum()


def test_histogram_counts_nan_in_no_bin_whichever_copy_counted_it():
    image = np.full((1, 2, 11), np.nan, np.float32)
    image[0, 1, :3] = 0.5
    made = member("h", histogram.histogram, histogram.Params((0.0, 1.0), 2), detector((1, 2, 11)))
    got = reduce([made], detector((1, 2, 11)), [image])
    assert (got["h/counts"][0].tolist(), got["h/underflow"][0]) == ([0, 3], 0)


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize(("low", "high"), [(20.0, np.inf), (-5.0, 30.0), (0.0, 0.0), (900.0, 1e3)])
def test_threshold_takes_what_lies_between_its_levels(kind, low, high):
    shape = (2, 9, 23)
    mask, images = frames(shape, kind)
    images.append(np.resize(np.float32([low, high, np.nextafter(np.float32(low), -1e9)]), shape))
    area = detector(shape, mask)
    for place in (None, (1, (2, 9), (3, 23))):
        params = threshold.Params((low, high), *(place or ()))
        got = reduce([member("t", threshold.threshold, params, area)], area, images)
        for k, image in enumerate(images):
            box = cut(image, mask, place) if place else np.where(mask, image.astype(float), np.nan)
            taken = box[(box >= low) & (box <= high) & np.isfinite(box)]
            assert got["t/npix"][k] == taken.size
            near = 2**-16 * np.abs(taken).sum()
            np.testing.assert_allclose(got["t/sum"][k], taken.sum(), rtol=0, atol=near)


@pytest.mark.parametrize("columns", [256, 1000, 1025])
def test_threshold_sums_in_float32_what_float32_holds(columns):
    shape = (1, 3, columns)
    mask = RNG.random(shape) > 0.1
    far = 1e6 + RNG.normal(0, 3, shape)
    far[RNG.random(shape) < 0.1] = np.nan
    words = RNG.choice(np.array([1, 65535]), shape, p=[0.1, 0.9])
    images = [i.astype(np.float32) for i in (words, far, RNG.normal(0, 1e4, shape))]
    area = detector(shape, mask)
    params = threshold.Params((-1e9, np.inf))
    got = reduce([member("t", threshold.threshold, params, area)], area, images)
    assert got["t/sum"][0] == words[mask].sum()
    for k, image in enumerate(images):
        good = image[mask & ~np.isnan(image)].astype(np.float64)
        assert got["t/npix"][k] == good.size
        assert abs(got["t/sum"][k] - good.sum()) <= 2**-20 * np.abs(good).sum()


@pytest.mark.parametrize("bins", [3000, 70000])
def test_histogram_of_many_bins_has_fewer_copies_and_misses_nothing(bins):
    area = detector((1, 3, 41))
    image = np.random.default_rng(4).uniform(-1, 31, area.shape).astype(np.float32)
    image[0, 1] = np.rint(image[0, 1])
    made = member("h", histogram.histogram, histogram.Params((0.0, 30.0), bins), area)
    assert histogram.histogram.allocate(made.constants).counts.shape[0] < histogram.COPIES
    got = reduce([made], area, [image])
    expected, _ = np.histogram(image.astype(float), bins, (0.0, 30.0))
    np.testing.assert_array_equal(got["h/counts"][0], expected)


def test_bins_that_numbers_cannot_tell_apart_are_refused():
    with pytest.raises(ValueError, match=r"bins: 100 from 1e\+16 to 1.00000000000001e\+16 are too"):
        histogram.histogram.prepare(histogram.Params((1e16, 1e16 + 100), 100), detector((1, 2, 2)))


def test_histogram_counts_no_pixels_that_are_not_finite():
    area = detector((1, 1, 6))
    image = np.array([[[np.inf, -np.inf, 0.5, np.nan, 3e38, -3e38]]], np.float32)
    made = member("h", histogram.histogram, histogram.Params((0.0, 1.0), 2), area)
    got = reduce([made], area, [image])
    assert got["h/counts"][0].tolist() == [0, 1]
    assert (got["h/underflow"][0], got["h/overflow"][0]) == (1, 1)


@pytest.mark.parametrize(
    ("reducer_", "params", "problems"),
    [
        (
            roi.roi,
            roi.Params((10, 900), (5, 5), segment=4),
            ["rows: [10, 900] is off the detector; det has rows 0..9", "cols: [5, 5] is empty",
             "segment: there is no 4; det has 2 segments, 0..1"],
        ),
        (
            projection.projection,
            projection.Params(2, rows=(-1, 4)),
            ["axis: there is no 2", "rows: [-1, 4]"],
        ),
        (
            histogram.histogram,
            histogram.Params((1.0, 1.0), 0, rows=(0, 2)),
            ["bins: 0 is too few", "limits: [1.0, 1.0] must be two", "segment: rows and cols"],
        ),
        (
            histogram.histogram,
            histogram.Params((0.0, np.inf), 3, 0, (0, 99)),
            ["limits: [0.0, inf]", "rows: [0, 99]"],
        ),
        (
            threshold.threshold,
            threshold.Params((2.0, 1.0), cols=(0, 2)),
            ["thresholds: [2, 1]; give two values", "segment: rows and cols"],
        ),
        (
            roi.roi,
            roi.Params(rows=(3, 30), saturation=np.nan),
            ["saturation: nan must be a number", "rows: [3, 30]"],
        ),
        (histogram.histogram, histogram.Params((0.0, 1.0), 10**8), ["bins: 100000000 is too"]),
    ],
)  # fmt: skip
def test_parameters_off_the_detector_are_told_all_at_once(reducer_, params, problems):
    with pytest.raises(ValueError, match=":") as e:
        reducer_.prepare(params, detector((2, 9, 23)))
    lines = str(e.value).splitlines()
    assert len(lines) == len(problems)
    for line, problem in zip(lines, problems, strict=True):
        assert line.startswith(problem)


def test_fused_equals_separate_bit_for_bit():
    mask, images = frames((2, 9, 23), "some")
    area = detector((2, 9, 23), mask)
    members = [
        member("spot", roi.roi, roi.Params((2, 7), (3, 18), 1, area=True), area),
        member("dark", roi.roi, roi.Params((0, 2), (0, 23)), area),
        member("p", projection.projection, projection.Params(1), area),
        member("h", histogram.histogram, histogram.Params((0.0, 50.0), 20), area),
    ]
    together = reduce(members, area, images)
    for m in members:
        for name, column in reduce([m], area, images).items():
            np.testing.assert_array_equal(together[name], column, err_msg=name)
    assert "dark/area" not in together


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", MASKS)
def test_rebinning_keeps_every_count(shape, kind):
    mask, images = frames(shape, kind)
    area = detector(shape, mask)
    for (segment, rows, cols), block in zip(
        windows(shape), [(1, 1), (2, 3), (50, 4), (3, 200)], strict=True
    ):
        params = rebin.Params(block, segment, rows, cols)
        one = member("b", rebin.rebin, params, area)
        got = reduce([one], area, images)
        for k, image in enumerate(images):
            box = cut(image, mask, (segment, rows, cols))
            edges = [range(0, n, b) for n, b in zip(box.shape, block, strict=True)]
            for i, r in enumerate(edges[0]):
                for j, c in enumerate(edges[1]):
                    part = box[r : r + block[0], c : c + block[1]]
                    np.testing.assert_allclose(got["b/sum"][k, i, j], np.nansum(part), rtol=1e-9)
                    assert got["b/npix"][k, i, j] == (~np.isnan(part)).sum()
            assert got["b/sum"].shape[1:] == (len(edges[0]), len(edges[1]))
        axes = rebin.rebin.coordinates(params, one.constants)
        for dim, (begin, end), size in zip(("row", "col"), (rows, cols), block, strict=True):
            middles = [np.mean(range(a, min(a + size, end))) for a in range(begin, end, size)]
            np.testing.assert_allclose(axes[dim].values, middles)


def test_a_block_of_nothing_is_told():
    with pytest.raises(ValueError, match="block: ") as e:
        rebin.rebin.prepare(rebin.Params((0, 2), cols=(4, 90)), detector((1, 5, 9)))
    assert "cols: [4, 90] is off" in str(e.value)
