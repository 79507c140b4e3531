"""Frames of photons whose charge spreads over pixels, as thin sensors see them."""

import math

import numpy as np
from hypothesis import strategies as st

#: Calibrated value of one photon.
ENERGY = 10.0

#: Values on the thresholds of tests and beside them, and those that are not valid.
PALETTE = (1.0, np.nextafter(1, 0), 4.0, np.nextafter(4, 0), 5.0, 9.0, 10.0, 14.9, 15.0, 25.0,
           35.0, 400.0, np.nextafter(400, 401), 3e7, np.inf, np.nan, -2.0)  # fmt: skip


@st.composite
def any_frame(draw, shape):
    """A frame with 0.1 to 60 % of its pixels lit, by few values or by many, and noise elsewhere."""
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    lit = rng.random(shape) < draw(st.floats(0.001, 0.6))
    few = draw(st.lists(st.sampled_from(PALETTE), min_size=1, max_size=6))
    values = rng.choice(few, shape) if draw(st.booleans()) else rng.gamma(1.5, 6.0, shape)
    return np.where(lit, values, rng.normal(0, 0.3, shape)).astype(np.float32)


def charges(shape, density, rng, noise=0.3, width=0.35):
    """A frame with ``density`` photons a pixel, Gaussian clouds of ``width`` pixels, and noise."""
    segments, rows, cols = shape
    image = rng.normal(0, noise, shape)
    edge = np.arange(-1, 3) - 0.5
    for s in range(segments):
        for r, c in rng.random((rng.poisson(density * rows * cols), 2)) * (rows, cols) - 0.5:
            at = round(r), round(c)
            shares = []
            for where, here in ((r, at[0]), (c, at[1])):
                below = [0.5 * math.erfc((where - here - e) / width / math.sqrt(2)) for e in edge]
                shares.append(np.diff(below))
            for dr, share in zip((-1, 0, 1), shares[0], strict=True):
                for dc, other in zip((-1, 0, 1), shares[1], strict=True):
                    if 0 <= at[0] + dr < rows and 0 <= at[1] + dc < cols:
                        image[s, at[0] + dr, at[1] + dc] += ENERGY * share * other
    return image.astype(np.float32)
