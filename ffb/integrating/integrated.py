"""What an integrating detector saw: a row for each exposure, computed from the rows of a run.

    andor = run.integrated("andor")
    whole = ~andor.partial
    andor["full_sum"][whole] / andor["gasdet_sum_f11"][whole]
    andor["laser_on/tt_rms_fltpos"]           # of shots with the laser on
    andor.pulse_ids()                         # which shots each exposure has

Names are those of the group ``intg/andor`` in a merged file, and so are the numbers: the merge
writes what is computed here, and this computes it from the same rows at any time.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from functools import partial as later
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.configuration.integrating_settings import IntegratingConfig
from ffb.configuration.problems import nearest
from ffb.integrating.exposures import WHY, Exposures, Marks, exposures
from ffb.integrating.partners import STATISTICS, Choice, choose, own_name, statistic_name
from ffb.live.moments import Moments, moments
from ffb.reading import align
from ffb.reading.ordered import Ordered, Read
from ffb.schema import LASER, PULSE_ID, STEP, VALID, XRAY, Column

#: Columns that hold the state of a light, 1 on, 0 off, -1 unknown.
LIGHTS = (XRAY.name, LASER.name)

#: What each exposure is: datasets and what they mean.
BOOKS = {
    "timestamp": "psana's stamp of the frame, without one that of the last shot",
    "count": "shots of the exposure",
    "timestamp_min": "stamp of its first shot, 0 if it has none",
    "timestamp_max": "stamp of its last shot, 0 if it has none",
    "step": "step of its last shot",
    "framed": "whether it has a frame",
    "partial": "whether it is not whole, for the reasons in why",
    "why": "bits that say why an exposure is partial, 0 for a whole one",
    "missing": "shots of it lost or not seen, estimated from pulse ids",
    f"missing{VALID}": "whether pulse ids tell how many are missing",
}

#: The shots of all exposures end to end, as lists stand in a plain file.
SHOTS = "var_shots"
LISTS = {
    f"{SHOTS}/timestamp": "psana's stamps of the shots",
    f"{SHOTS}/pulse_id": "pulse ids of the shots, 0 where unknown",
    f"{SHOTS}/pulse_id{VALID}": "whether the pulse id is known",
    f"{SHOTS}_len": "shots of an exposure",
    f"{SHOTS}_offsets": "exposure i has the shots offsets[i] to offsets[i + 1]",
}


def configured(text: str) -> dict[str, IntegratingConfig]:
    """Integrating detectors of a configuration, the text that a file holds of it.

    Raises pydantic's ``ValidationError``, a ``ValueError``, where another ffb wrote it otherwise.
    """
    if "integrating" not in text:
        return {}
    tables = tomllib.loads(text).get("integrating", {})
    return {name: IntegratingConfig.model_validate(t) for name, t in tables.items()}


class Dataset(NamedTuple):
    """Values of a detector with what they mean; ``dims`` names their axes.

    ``attrs`` are more attributes in the file.
    """

    values: NDArray[Any]
    unit: str
    doc: str
    dims: tuple[str, ...] = ("exposure",)
    attrs: Mapping[str, Any] = {}


class Integrated(Mapping[str, NDArray[Any]]):
    """Exposures of the integrating detector ``name``; a mapping of its datasets by their names.

    ``n`` exposures ascend, as :class:`ffb.integrating.exposures.Exposures` has them; ``lights`` has
    the shots with laser, without, and without x-rays, ``""`` is all of them. Nothing is read of a
    dataset before it is asked for.
    """

    def __init__(
        self, name: str, settings: IntegratingConfig, columns: Mapping[str, Column], read: Read,
        rows: int,
    ) -> None:  # fmt: skip
        self.name, self.settings, self._known = name, settings, dict(columns)
        self.choice: Choice = choose(name, settings, columns.values())
        self._shots = Ordered(read, rows)
        self._held: tuple[str, NDArray[np.bool_]] = ("", np.zeros(0, np.bool_))
        self._moments: tuple[str, str, Moments | None] = ("", "", None)
        self._pulse, self._step = self._shots(PULSE_ID).astype(np.uint64), self._shots(STEP)
        pulses = self._pulse.view(np.int64)
        marks = Marks(align.times(self._shots.stamps), self._frames(), self._step, pulses)
        self.exposures: Exposures = exposures(marks, settings.timing)
        self.lights: dict[str, NDArray[np.bool_]] = {"": np.ones(len(self._shots), np.bool_)}
        if settings.light:
            laser, dark = self._shots(LASER), self._shots(XRAY) == 0
            self.lights["laser_on"] = (laser == 1) & ~dark
            self.lights["laser_off"] = (laser == 0) & ~dark
            self.lights["dark"] = dark
        self._datasets = dict(self._all())

    def _frames(self) -> NDArray[np.bool_]:
        """Which shots carry a frame: where any of the detector's own columns holds."""
        here = np.zeros(len(self._shots), np.bool_)
        flags, flagging = self.choice.flags, {*self.choice.flags.values()}
        told = {flags.get(c.name, c.name) for c in self.choice.own}
        for name in sorted(told & flagging):
            here |= self._shots(self._known[name])
        for c in self.choice.own:
            if c.name not in flags and c.dtype[1] == "f":
                for rows, found in self._shots.blocks(c):
                    here[rows] |= np.isfinite(found).any(axis=tuple(range(1, found.ndim)))
        return here

    @property
    def n(self) -> int:
        """Number of exposures."""
        return len(self.exposures.begin)

    @property
    def framed(self) -> NDArray[np.bool_]:
        """Which exposures have a frame."""
        return np.asarray(self.exposures.frame >= 0)

    @property
    def partial(self) -> NDArray[np.bool_]:
        """Which exposures are not whole."""
        return np.asarray(self.exposures.why != 0)

    @property
    def timestamp(self) -> NDArray[np.uint64]:
        """Stamp of the frame of each exposure; without a frame, that of its last shot."""
        last = np.where(self.framed, self.exposures.frame, self.exposures.end - 1)
        return self._shots.stamps[last]

    def reasons(self) -> dict[str, int]:
        """How many are partial for each reason of :data:`ffb.integrating.exposures.WHY`."""
        found = {k: int(np.count_nonzero(self.exposures.why & bit)) for k, (bit, _) in WHY.items()}
        return {k: n for k, n in found.items() if n}

    def count(self, light: str = "") -> NDArray[np.int64]:
        """Shots of each exposure, in a state of the lights or of all."""
        before = np.concatenate([[0], np.cumsum(self.lights[light])])
        return np.asarray(before[self.exposures.end] - before[self.exposures.begin])

    def moments(self, column: str, light: str = "") -> Moments:
        """Statistics of a column of the run over each exposure, in a state of the lights."""
        if self._moments[:2] != (column, light) or self._moments[2] is None:
            self._moments = (column, light, self._reduce(self._known[column], self.lights[light]))
        found = self._moments[2]
        assert found is not None
        return found

    def _reduce(self, c: Column, mask: NDArray[np.bool_]) -> Moments:
        holds = self._holds(c) & mask

        def values(begin: int, end: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
            found = self._shots(c, begin, end).astype(np.float64)
            counts = np.isfinite(found)
            tall = (slice(None), *(None,) * len(c.shape))
            counts &= holds[begin:end][tall]
            return found, counts

        return moments(values, self.exposures.begin, self.exposures.end, c.shape)

    def _holds(self, column: Column) -> NDArray[np.bool_]:
        """In which shots a column has a value, as far as other columns say."""
        light = column.name in LIGHTS
        name = column.name if light else self.choice.flags.get(column.name, "")
        if not name:
            return np.ones(len(self._shots), np.bool_)
        if self._held[0] != name:  # what follows in the schema is often of the same reducer
            told = self._shots(self._known[name])
            self._held = (name, told >= 0 if light else told.astype(np.bool_))
        return self._held[1]

    def pulse_ids(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Pulse ids of the shots of all exposures end to end, 0 where unknown, and how many each.

        ``np.split(ids, np.cumsum(lengths)[:-1])`` gives them exposure by exposure.
        """
        return self._pulse[self._places], self.count()

    @cached_property
    def _places(self) -> NDArray[np.int64]:
        length = self.exposures.end - self.exposures.begin
        before = np.cumsum(length) - length
        start = np.repeat(self.exposures.begin - before, length)
        return np.asarray(np.arange(len(start)) + start)

    def _all(self) -> Iterator[tuple[str, Callable[[], Dataset]]]:
        """Datasets by name, each to be computed when it is wanted; of a partner, one by one."""
        yield from ((k, later(self._book, k)) for k in BOOKS)
        flags = self.choice.flags
        for c in (c for c in self.choice.own if c.name not in flags.values()):
            name = own_name(self.name, c.name)
            yield name, later(self._values, c)
            if c.dtype[1] != "f" and c.name in flags:
                yield f"{name}{VALID}", later(self._valid_values, c)
        yield from ((k, later(self._list, k)) for k in LISTS)
        for light in self.lights:
            prefix, of = (f"{light}/", f", {light}") if light else ("", "")
            if light:
                yield f"{prefix}count", later(self._count, light)
            for c, s in product(self.choice.partners, STATISTICS):
                yield prefix + statistic_name(c.name, s), later(self._statistic, c, s, light, of)

    def __iter__(self) -> Iterator[str]:
        return iter(self._datasets)

    def __len__(self) -> int:
        return len(self._datasets)

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.dataset(name).values

    def dataset(self, name: str) -> Dataset:
        """Values of a dataset with what they mean; ``KeyError`` with the nearest name."""
        if name not in self._datasets:
            raise KeyError(f"intg/{self.name} has no {name!r}; {nearest(name, [*self])}")
        return self._datasets[name]()

    def _book(self, name: str) -> Dataset:
        """What each exposure is."""
        if name == "why":
            about: dict[str, Any] = {"flag_masks": np.array([b for b, _ in WHY.values()], np.uint8)}
            about |= {"flag_meanings": " ".join(WHY)} | {k: said for k, (_, said) in WHY.items()}
            return Dataset(self.exposures.why, "1", BOOKS[name], attrs=about)
        e, missing = self.exposures, self.exposures.missing
        stamps, last = self._shots.stamps.view(np.int64), e.end - 1
        empty = e.end == e.begin
        made: dict[str, Callable[[], NDArray[Any]]] = {
            "timestamp": lambda: self.timestamp.view(np.int64),
            "count": self.count,
            "timestamp_min": lambda: np.where(empty, 0, stamps[np.minimum(e.begin, last)]),
            "timestamp_max": lambda: np.where(empty, 0, stamps[last]),
            "step": lambda: self._step[last],
            "framed": lambda: self.framed,
            "partial": lambda: self.partial,
            "missing": lambda: np.maximum(missing, 0),
            f"missing{VALID}": lambda: missing >= 0,
        }
        return Dataset(made[name](), "1", BOOKS[name])

    def _here(self, c: Column) -> NDArray[np.bool_]:
        """Which exposures have a frame in which a column of the detector holds."""
        here = self.framed
        if flag := self.choice.flags.get(c.name, ""):
            here[here] = self._shots.take(self._known[flag], self.exposures.frame[here])
        return here

    def _values(self, c: Column) -> Dataset:
        out, here = np.full((self.n, *c.shape), c.missing, c.dtype), self._here(c)
        out[here] = self._shots.take(c, self.exposures.frame[here])
        return Dataset(out, c.unit, c.doc or c.name, ("exposure", *c.dims))

    def _valid_values(self, c: Column) -> Dataset:
        return Dataset(self._here(c), "1", f"whether the frame has {c.name}")

    def _list(self, name: str) -> Dataset:
        """Which shots are in each exposure."""
        lengths = self.count()
        if name == f"{SHOTS}_len":
            return Dataset(lengths, "1", LISTS[name])
        if name == f"{SHOTS}_offsets":
            ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
            return Dataset(ends, "1", LISTS[name], ("bound",))
        values: NDArray[Any] = self._pulse
        if name == f"{SHOTS}/timestamp":
            values = self._shots.stamps.view(np.int64)
        elif name.endswith(VALID):
            values = self._pulse > 0
        about = {"length": f"{SHOTS}_len", "offsets": f"{SHOTS}_offsets"}
        return Dataset(values[self._places], "1", LISTS[name], ("entry",), about)

    def _count(self, light: str) -> Dataset:
        return Dataset(self.count(light), "1", f"shots of the exposure with {light}")

    def _statistic(self, c: Column, statistic: str, light: str, of: str) -> Dataset:
        unit = {"n": "1", "var": c.unit if c.unit == "1" else f"({c.unit})^2"}.get(
            statistic, c.unit
        )
        values = getattr(self.moments(c.name, light), statistic)
        doc = f"{STATISTICS[statistic]} {c.name}{of}"
        return Dataset(values, unit, doc, ("exposure", *c.dims))
