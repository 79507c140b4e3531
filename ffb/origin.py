"""Where the numbers of a run come from: software, inputs, reducers, arrays of detectors."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from ffb.config import Config
from ffb.loops.bind import Bound
from ffb.loops.calibrated import Detector
from ffb.loops.fuse import Member
from ffb.messaging.arrays import packed
from ffb.sink import Provenance


def origin(config: Config) -> Provenance:
    """What is known of the numbers of a run before it has a plan."""
    return Provenance(
        config.text, versions=_versions(), host=platform.node(), command=shlex.join(sys.argv)
    )


def input_fields(config: Config, bound: Bound) -> dict[str, str]:
    """Field of every input, also of those that count the entries of another."""
    out: dict[str, str] = {}
    for name, said in config.inputs.items():
        if (found := bound.inputs.get(name)) is not None:
            names = [name, found.length] if found.length else [name]
            out |= dict.fromkeys(names, str(said.source))
    return out


def reducer_origins(config: Config, bound: Bound) -> dict[str, dict[str, Any]]:
    """Version, hash, parameters, inputs and axes of every reducer, and the text of local ones."""
    return {m.name: _reducer(m, config, bound) for m in bound.members}


def detector_arrays(bound: Bound) -> tuple[tuple[dict[str, Any], ...], list[str]]:
    """Masks, positions and constants of area detectors; names of those that are too large."""
    known: dict[str, Detector] = {}  # two inputs may be of one detector
    for d in bound.detectors.values():
        known.setdefault(d.area.detector, d)
    made, left = packed(a for d in known.values() for a in d.arrays)
    return tuple(made), [*left, *(name for d in known.values() for name in d.large)]


def _reducer(m: Member, config: Config, bound: Bound) -> dict[str, Any]:
    r, params = m.reducer, bound.parameters[m.name]
    out = {
        "use": config.reducers[m.name].use,
        "version": r.version,
        "hash": r.hash,
        "params": {} if params is None else _plain(params._asdict()),
        "inputs": dict(zip(r.inputs, m.inputs, strict=True)),
        "coords": bound.coords[m.name],
    }
    return out if r.module.startswith("ffb.reducers.") else {**out, "source": r.source}


def _plain(value: Any) -> Any:
    """Parameters as JSON knows them; it has no infinity and no paths."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    infinite = isinstance(value, float) and not np.isfinite(value)
    return str(value) if infinite or isinstance(value, Path) else value


def _versions() -> dict[str, str]:
    out = {"python": platform.python_version()}
    for name in ("ffb", "numpy", "numba", "psana", "h5py"):
        try:
            out[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return out
