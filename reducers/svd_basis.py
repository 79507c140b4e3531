"""Shapes of a detector's pulses, found in its own waveforms: the basis of ``waveform_svd``.

A basis is made once, of a few hundred recorded waveforms with one pulse each, all at one time::

    import ffb
    from ffb.reducers import svd_basis

    traces = ffb.open("mfxx49820_Run0042.h5")["diode"]
    svd_basis.save("diode.npz", svd_basis.make(traces, gate=(800, 2000), baseline=(0, 700)))

One that ``make_svd_basis`` of smalldata_tools made becomes one of ours::

    with h5py.File("wave_basis_diode.h5") as f:
        basis = svd_basis.Basis(f["components"][:], f["singular_values"][:], f["roi"][0])
    svd_basis.save("diode.npz", basis)
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ffb.reducers.numpy_file import read


class Basis(NamedTuple):
    """Orthonormal shapes, the strongest first.

    ``components`` (number, samples) float64, ``values`` (number,) their singular values, ``start``
    the sample of the waveform at which they begin.
    """

    components: NDArray[np.float64]
    values: NDArray[np.float64]
    start: int


def make(
    traces: ArrayLike, gate: tuple[int, int], baseline: tuple[int, int], number: int = 25
) -> Basis:
    """Singular value decomposition of waveforms (shots, samples) in ``gate``.

    The mean of ``baseline`` is subtracted from each; waveforms with NaN are left out. A component
    has the sign with which the waveforms' sum is positive. At most ``number`` components are kept.
    Raises ``ValueError`` if gates are off the waveforms, none is left, or all of them are flat.
    """
    x = np.asarray(traces, np.float64)
    if x.ndim != 2:
        raise ValueError(f"traces: {x.shape}; waveforms are (shots, samples)")
    for name, (start, stop) in (("gate", gate), ("baseline", baseline)):
        if not 0 <= start < stop <= x.shape[1]:
            raise ValueError(f"{name}: [{start}, {stop}] is no part of waveforms {x.shape}")
    if number < 1:
        raise ValueError(f"number: {number} components make no basis; at least 1")
    x = x[np.isfinite(x).all(axis=1)]
    if not len(x):
        raise ValueError("no waveform is free of NaN")
    pulses = (x - x[:, slice(*baseline)].mean(axis=1, keepdims=True))[:, slice(*gate)]
    _, values, components = np.linalg.svd(pulses, full_matrices=False)
    if not values[0] > 0.0:
        raise ValueError("no waveform differs from its baseline; a basis is made of pulses")
    components = components[:number]
    signs = np.where(components @ pulses.sum(axis=0) < 0, -1.0, 1.0)
    return Basis(components * signs[:, None], values[:number], gate[0])


def save(path: str | os.PathLike[str], basis: Basis) -> None:
    """Write a basis as ``.npz``."""
    np.savez(path, components=basis.components, values=basis.values, start=basis.start)


def load(path: Path) -> Basis:
    """Read a basis; ``ValueError`` for a file that holds none: :func:`save` writes them."""
    components, values, start = read(path, *Basis._fields)
    if components.ndim != 2 or not components.size or not np.isfinite(components).all():
        raise ValueError(f"{path}: components must be finite, (number, samples)")
    if start.ndim or start.dtype.kind not in "iu":
        raise ValueError(f"{path}: start is {start}; it is the sample at which the shapes begin")
    return Basis(components.astype(np.float64), values.astype(np.float64), int(start))
