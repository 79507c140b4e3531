"""Keep what every reducer gives for its example: python -m tests.golden.make_reducers NAME ...

A feature with axes is kept as its number of NaN and two sums over the others, the second weighted
with the place, so that values that swap places show.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ffb.configuration import resolve
from ffb.testing.check_reducer import features_in_python

FOLDER = Path(__file__).with_name("reducers")


def summary(value: Any) -> Any:
    """A feature of one shot as JSON knows it."""
    flat = np.asarray(value, np.float64).ravel()
    if np.ndim(value) == 0:
        return repr(float(flat[0]))
    with np.errstate(invalid="ignore"):
        weighted = flat * np.arange(1, flat.size + 1)
        sums = (float(np.nansum(flat)), float(np.nansum(weighted)))
    return [int(np.isnan(flat).sum()), *map(repr, sums)]


def golden(name: str) -> dict[str, Any]:
    """Version of a reducer, and its features for the shots of its example."""
    module = import_module(f"ffb.reducers.{name}")
    found = getattr(module, name)
    shots = features_in_python(found, *module.example())
    features = {f: [summary(shot[f]) for shot in shots] for f in shots[0]}
    return {"version": found.version, "features": features}


def main(names: list[str]) -> None:
    """Write the files of the reducers named, of all without a name."""
    for name in names or resolve.installed():
        text = json.dumps(golden(name), indent=1)
        (FOLDER / f"{name}.json").write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
