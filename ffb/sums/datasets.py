"""The datasets that a run's sums are shown as, by reader and merged file alike.

``Sums/<sum>_<what>`` is over all shots and has the shape of a frame, as smalldata_tools names it.
``_<light>`` (``_laser_on``) follows for one state of the lights, then ``_steps`` where the first
axis goes through the steps. ``Sums/<sum>_counts...`` says for each of them how many values went
into every pixel. Where something changed within a run that makes numbers not comparable, the sum
began anew: the newest has the plain name, older ones are ``<sum>_before0``, ``_before1`` and so on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.schema import LASER, STEP, XRAY
from ffb.sums.log import Folder, Key
from ffb.sums.piece import Fates, together
from ffb.sums.words import COUNTS, LABELS, What, what_of

#: Columns that tell to which sums a row belongs.
TELLING = {"xray": XRAY.name, "laser": LASER.name, "step": STEP.name}

#: Axes of a frame, or of an array of fewer axes, by their number.
_AXES = {1: ("sample",), 2: ("row", "col"), 3: ("segment", "row", "col")}


class Dataset(NamedTuple):
    """A sum as it is shown: ``parts`` are the keys merged for each step, or for all of it.

    ``steps`` are along the first axis; there is none where it is ``None``. ``fates`` tell what
    became of the shots of each of ``parts``, of which those ``where`` something holds were to be
    added. ``counts`` names the dataset with the values in each pixel, ``""`` where there is one for
    every shot, and ``squares`` that with the sum of squares, if there is one.
    """

    name: str
    what: What
    unit: str
    light: str
    steps: tuple[int, ...] | None
    shape: tuple[int, ...]
    form: str
    counts: str
    squares: str
    where: str
    fates: tuple[Fates, ...]
    parts: tuple[tuple[Key, ...], ...]

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the axes."""
        frame = _AXES[len(self.shape)]
        return frame if self.steps is None else ("step", *frame)

    @property
    def attributes(self) -> dict[str, Any]:
        """What the dataset says of itself in a file; ``rows`` are added by who knows them."""
        one = self.steps is None
        shots = {f: [getattr(each, f) for each in self.fates] for f in Fates._fields}
        return {
            "unit": self.unit,
            "doc": self.what.doc,
            "dims": list(self.dims),
            "what": self.what.name,
            "light": self.light,
            "form": self.form,
            "counts": self.counts,
            "squares": self.squares,
            "where": self.where,
            **{f: np.int64(n[0]) if one else np.array(n, np.int64) for f, n in shots.items()},
            **({} if one else {"steps": np.array(self.steps, np.int64)}),
        }


def datasets(folder: Folder) -> dict[str, Dataset]:
    """All datasets of a run in the making, by name."""
    forms: dict[str, list[str]] = {}
    for key in folder.files:
        known = forms.setdefault(key.sum, [])
        known += [] if key.form in known else [key.form]
    out: dict[str, Dataset] = {}
    for sum_, known in sorted(forms.items()):
        for k, form in enumerate(known):
            base = sum_ if form == known[-1] else f"{sum_}_before{k}"
            keys = [key for key in folder.files if (key.sum, key.form) == (sum_, form)]
            out |= {d.name: d for d in _of_form(folder, base, keys)}
    return out


def _of_form(folder: Folder, base: str, keys: Sequence[Key]) -> Iterator[Dataset]:
    newest = folder.files[keys[-1]].records[-1]
    steps = tuple(sorted({k.step for k in keys}))
    whats = [what_of(w) for w in sorted({k.what for k in keys}, key=lambda w: (w != COUNTS, w))]
    squares = {(w.of, w.least): w.name for w in whats if w.kind == "square"}
    for light in ("", *sorted({k.light for k in keys} - {""})):
        for along in (None, steps) if steps != (-1,) else (None,):

            def parts(name: str, light: str = light, along: Any = along) -> list[tuple[Key, ...]]:
                mine = [k for k in keys if k.what == name and light in {"", k.light}]
                spans = [{*steps}] if along is None else [{s} for s in along]
                return [tuple(k for k in mine if k.step in span) for span in spans]

            tail = (f"_{light}" if light else "") + ("" if along is None else "_steps")
            told = [together(folder.fates(k) for k in cells) for cells in parts(COUNTS)]
            for what in whats:
                square = squares.get((what.of, what.least)) if what.kind == "sum" else None
                yield Dataset(
                    name=f"{base}_{what.name}{tail}",
                    what=what,
                    unit=what.unit(newest.unit),
                    light=light,
                    steps=along,
                    shape=newest.shape,
                    form=keys[0].form,
                    counts=f"{base}_{COUNTS}{tail}" if what.of == "calib" else "",
                    squares=f"{base}_{square}{tail}" if square else "",
                    where=newest.where,
                    fates=tuple(told),
                    parts=tuple(parts(what.name)),
                )


def frames(folder: Folder, dataset: Dataset) -> Iterator[NDArray[Any]]:
    """The frame of each step, or the one there is; the largest of no values is missing."""
    counts = dataset.what._replace(of=COUNTS, kind="sum", name=COUNTS)
    for keys, fates in zip(dataset.parts, dataset.fates, strict=True):
        out = dataset.what.begin(dataset.shape)
        for key in keys:
            dataset.what.merge(out, folder.fold(key))
        if dataset.what.kind == "max" and dataset.what.of == "calib":
            seen = counts.begin(dataset.shape)
            for key in (k._replace(what=COUNTS) for k in keys):
                counts.merge(seen, folder.fold(key))
            out[seen == 0] = np.nan
        elif dataset.what.kind == "max" and not fates.shots:
            out[...] = 0
        yield out


def rows_of(dataset: Dataset, columns: Mapping[str, NDArray[Any]]) -> tuple[int, ...]:
    """Rows of a run, whose :data:`TELLING` ``columns`` are given, that belong to each part."""
    here = np.ones(len(columns[STEP.name]), np.bool_)
    for light, state in LABELS[dataset.light].items():
        here &= columns[TELLING[light]] == state
    if dataset.steps is None:
        return (int(here.sum()),)
    found = dict(zip(*np.unique(columns[STEP.name][here], return_counts=True), strict=True))
    return tuple(int(found.get(s, 0)) for s in dataset.steps)
