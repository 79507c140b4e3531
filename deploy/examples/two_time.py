"""Two-time correlation of a run's speckles: ``python two_time.py FILE.h5 REDUCER``.

REDUCER is the name of a ``rebin``, or of a ``roi`` with ``area = true``, in the run's configuration
(see xpcs.toml). Writes REDUCER.npz: ``correlation`` (shots, shots) and ``timestamp`` (shots,), of
the shots with x-rays. Memory is that of a few such matrices: 10 000 shots make 0.8 GB each.
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

import ffb
from ffb.reader import RunFile


def two_time(frames: NDArray[np.floating]) -> NDArray[np.float64]:
    """C(t1, t2) = <I(t1) I(t2)> / (<I(t1)> <I(t2)>) of ``frames`` (shots, ...), NaN where invalid.

    Means are over the pixels that are valid in both shots, so masks and lost pixels make no
    correlation (Sutton et al., Opt. Express 11, 2268, 2003). The diagonal has the shot noise in it;
    NaN where two shots share no pixels.
    """
    flat = frames.reshape(len(frames), -1).astype(np.float64)
    valid = ~np.isnan(flat)
    values, weights = np.where(valid, flat, 0.0), valid.astype(np.float64)
    ours = values @ weights.T  # sums over t1's pixels that are valid in t2 as well
    with np.errstate(invalid="ignore", divide="ignore"):
        return (values @ values.T) * (weights @ weights.T) / (ours * ours.T)


def frames_of(run: RunFile, reducer: str) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
    """Timestamps (shots,) and frames (shots, rows, columns) of the shots with x-rays."""
    lit = (run["lightStatus/xray"][:] != 0) & run[f"{reducer}/present"][:]
    if f"{reducer}/area" in run:
        frames = run[f"{reducer}/area"][:][lit].astype(np.float64)
    else:
        sums, npix = run[f"{reducer}/sum"][:][lit], run[f"{reducer}/npix"][:][lit]
        frames = np.full(sums.shape, np.nan)
        np.divide(sums, npix, out=frames, where=npix > 0)
    return run["timestamp"][:][lit], frames


if __name__ == "__main__":
    path, name = sys.argv[1:]
    with ffb.open(path) as opened:
        stamps, images = frames_of(opened, name)
    np.savez(f"{name}.npz", correlation=two_time(images), timestamp=stamps)
