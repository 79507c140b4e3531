"""Frames of photons whose charge spreads over pixels, as thin sensors see them."""

import math

import numpy as np

#: Calibrated value of one photon.
ENERGY = 10.0


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
