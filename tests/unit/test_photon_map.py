"""Photon maps hold the photons of the slow references, pixel by pixel, and NaN where none knows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples

from ffb.configuration.photon_settings import PhotonConfig
from ffb.loops.uncalibrated import Uncalibrated
from ffb.reducers.greedy import BRIGHTEST
from ffb.reducers.photon_counting import Params as Counting
from ffb.reducers.photon_map import photon_map
from ffb.reducers.photons import Params as Photons
from tests.unit.passes import detector
from tests.unit.photon_frames import ENERGY, any_frame, charges
from tests.unit.test_photon_counting import counted
from tests.unit.test_photons import closest, droplets_of, greedy, number_of

SHAPE = (2, 20, 70)
RNG = np.random.default_rng(61)


def mapped(images, mask, **settings):
    """Maps of ``images``, and how many pixels of each are good and not valid."""
    area = detector(images[0].shape, mask)
    given = PhotonConfig(photon=ENERGY, **settings)
    made = photon_map(Uncalibrated(mask, "<f4"), given, area)
    segments, rows, columns = area.shape
    maps, lost = [], []
    for image in images:
        out = np.full(area.shape, 99.0, np.float32)
        flat, tall = out.reshape(segments, -1), made.height or 1
        bads = np.zeros(tall, np.int64)
        total = 0
        for s in range(segments):
            raw = np.ascontiguousarray(image[s], np.float32).ravel()
            for r in range(0, rows, tall):
                at, to = r * columns, (r + tall) * columns
                place = s * rows * columns + at, made.constants, flat[s, at:to]
                if made.height:
                    made.tile(raw[at:to], *place, bads)
                    told = bads
                else:
                    told = np.array([made.tile(raw[at:to], *place)])
                bad = np.isnan(out[s, r : r + tall]) & mask[s, r : r + tall]
                np.testing.assert_array_equal(told, bad.sum(axis=1))
                total += told.sum()
        maps.append(out)
        lost.append(total)
    return maps, lost


def frames():
    """Clouds, clouds with holes, with cosmics, ties, and frames of one value."""
    image = charges(SHAPE, 0.08, RNG)
    holes = np.where(RNG.random(SHAPE) < 0.05, np.nan, image).astype(np.float32)
    bright = np.where(RNG.random(SHAPE) < 0.01, 500.0, image).astype(np.float32)
    ties = RNG.choice(np.array([0, 5, 10, 15, 4.5, 35], np.float32), SHAPE)
    flat = [np.full(SHAPE, v, np.float32) for v in (0.0, -3.0, 8.0, 1e9, np.nan, np.inf)]
    return [image, holes, bright, ties, *flat]


IMAGES, MASK = frames(), RNG.random(SHAPE) > 0.05


def bounded(image, pixel_max):
    """A frame without masked pixels, and where its photons cannot be known."""
    values = np.where(MASK, image, 0).astype(np.float64)
    return values, np.isnan(values) | (values > min(pixel_max, BRIGHTEST * ENERGY))


@pytest.mark.parametrize("edges", [None, [4.0, 17.0]])
def test_pixels_count_for_themselves(edges):
    levels = edges or [0.5 * ENERGY]
    maps, _ = mapped(IMAGES, MASK, by="pixels", pixel_max=200.0, edges=edges)
    for got, image in zip(maps, IMAGES, strict=True):
        values, lost = bounded(image, 200.0)
        below = sum((values >= e).astype(float) for e in levels)
        more = np.floor((values - levels[-1]) / ENERGY)
        expected = np.where(values >= levels[-1], below + more, below)
        np.testing.assert_array_equal(got, np.where(lost, np.nan, expected))


def test_pairs_are_those_of_photon_counting():
    maps, _ = mapped(IMAGES, MASK, by="pairs", pixel_max=200.0, threshold=0.5)
    p = Counting(ENERGY, threshold=0.5, pixel_max=200.0)
    for got, image in zip(maps, IMAGES, strict=True):
        values, lost = bounded(image, 200.0)
        expected = np.stack([counted(segment, p) for segment in values])
        np.testing.assert_array_equal(got, np.where(lost, np.nan, expected))


def by_droplets(values, p):
    """Photons by pixel of a segment, NaN where droplets are giant."""
    out = np.zeros(values.shape)
    for droplet in droplets_of(values, p):
        total = sum(droplet.values())
        if len(droplet) > p.max_npix:
            for q in droplet:
                out[q] = np.nan
        elif total >= p.min_sum:
            n = number_of(total, p)
            com = np.array([(q[0] * v, q[1] * v) for q, v in droplet.items()]).sum(0) / total
            for photon in [(*com, None)] if n == 1 else greedy(droplet, n, p.photon):
                out[closest(droplet, *photon)] += 1
    return out


@pytest.mark.parametrize("edges", [None, (4.0, 17.0)])
def test_droplets_are_those_of_photons(edges):
    settings = {"threshold": 4.0, "threshold_low": 1.0, "min_sum": 3.0, "max_npix": 60}
    settings["pixel_max"] = 200.0
    maps, lost = mapped(IMAGES, MASK, edges=edges, **settings)
    p = Photons(ENERGY, edges=edges, **settings)
    for got, image in zip(maps, IMAGES, strict=True):
        values, unknown = bounded(image, 200.0)
        expected = np.stack([by_droplets(segment, p) for segment in values])
        np.testing.assert_array_equal(got, np.where(unknown, np.nan, expected))
    assert lost[0] == 0 < min(lost[1], lost[2])
    assert np.nanmax(maps[0]) > 1


@examples(max_examples=40, deadline=None)
@given(any_frame(SHAPE))
def test_any_frame_has_the_photons_of_the_reference(frame):
    settings = {"threshold": 4.0, "threshold_low": 1.0, "max_npix": 25, "pixel_max": 400.0}
    ((got,), _) = mapped([frame], MASK, **settings)
    p = Photons(ENERGY, **settings)
    values, unknown = bounded(frame, 400.0)
    expected = np.stack([by_droplets(segment, p) for segment in values])
    np.testing.assert_array_equal(got, np.where(unknown, np.nan, expected))
