"""The plan of a run: bound reducers, one schema, and the way of a shot into a batch."""

from __future__ import annotations

import platform
import shlex
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffb.batch import Batch
from ffb.config import Config, ConfigError
from ffb.configuration.conditions import DerivedConfig
from ffb.configuration.defaults import Defaults
from ffb.integrating import partners
from ffb.loops.bind import Binder, Bound
from ffb.loops.calibrated import Detector
from ffb.loops.combine import Combined
from ffb.loops.fuse import Member
from ffb.loops.guard import Guard
from ffb.loops.passes import Passes
from ffb.loops.recorded import damage_columns, with_count
from ffb.loops.rows import Rows
from ffb.loops.stages import AreaStage, ShotStage
from ffb.loops.wiring import motor_column
from ffb.messaging.arrays import packed
from ffb.schema import CORE, KEPT, LIGHT_KNOWN, PULSE_KNOWN, Column, Schema
from ffb.shot import BeginStep, FrameBlock, Shot
from ffb.sink import Provenance
from ffb.source import Run
from ffb.sums.held import Sums
from ffb.sums.piece import SumPiece

#: Compressed are columns of arrays with at least so many bytes a row, when a whole batch of them,
#: which is what has to be unpacked to read a single row, is no larger than this.
COMPRESSED_ROW, COMPRESSED_CHUNK = 256, 64 << 20


class Plan:
    """What happens to the shots of one run.

    ``fill`` in each shot and ``reduce`` it unless it is given up, ``step`` at each step, ``close``
    a batch when it is full or old enough.
    ``errors`` counts failures by reducer and reason; ``notes`` are sentences for log and file.
    """

    @classmethod
    def make(cls, config: Config, run: Run) -> Plan:
        """Bind, check, compile. Raises :class:`ffb.config.ConfigError` with all problems."""
        defaults = Defaults.of(config, run)
        return cls(defaults, run, Binder(defaults, run).bind())

    def __init__(self, defaults: Defaults, run: Run, bound: Bound) -> None:
        config = defaults.config
        self.config, self.capacity = config, config.batch.shots
        self.errors: Counter[str] = Counter()
        self._notes, self._run, self._bound = list(bound.notes), run, bound
        #: What the run lacks of the default detectors, which is no error.
        self.warnings = list(bound.warnings)
        reduced = [c for m in bound.members for c in m.all_columns]
        taken = {c.name for c in reduced} | config.derived.keys() | config.filters.keys()
        stored = [n for n, i in config.inputs.items() if i.record and n in bound.inputs]
        default = defaults.sources
        taken |= {*stored} - default.keys()
        free = [n for n in stored if n not in default or self._free(defaults, n, taken)]
        self.recorded = [
            r for n in free for r in with_count(n, bound.inputs, config.inputs[n].unpack)
        ]
        self.block = FrameBlock(bound.inputs, self.capacity)
        own = self._own_columns(defaults.listed, run.motors)
        columns = self._compressed((*CORE, *own, *reduced))
        unrecorded = config.inputs.keys() - {r.name for r in self.recorded}
        wanted = {n: d for n, d in defaults.computed.items() if self._free(defaults, n, taken)}
        computed = self._computed(wanted, columns)
        expressions = computed | config.derived, config.filters, columns, unrecorded
        wheres = {n: s.where for n, s in config.sums.items() if s.where}
        self.combined = Combined(*expressions, wheres)
        columns = (*columns, *self.combined.columns)
        if problems := [
            *self.combined.problems,
            *_clashes([c.name for c in columns]),
            *map(str, partners.check(config.integrating, columns)),
        ]:
            raise ConfigError(problems)
        self.warnings += map(str, partners.lacking(config.integrating, columns))
        self.schema = Schema(columns)
        self._batch: Batch | None = None
        self._kept: NDArray[np.float32] = np.ones(0, np.float32)
        self._n = 0
        by_detector: dict[str, list[str]] = {d: [] for d in defaults.listed}
        for name in (n for n in config.inputs if n in bound.inputs):
            by_detector.get(config.inputs[name].detector, []).append(name)
        where = (self.schema, self.block, self._guard)
        said = config.light, self.schema, self.block, self.recorded, by_detector
        self._rows = Rows(*said, run.motors)
        self.combined.compile(self.schema, self.block)
        together = min(config.batch.together, self.capacity)
        self.passes = Passes(bound, together, self._rows, self.combined, where)
        if self.passes.second and together > 1:
            names = ", ".join(self.passes.second)
            text = f"frames of {names} are needed again for sums with conditions on what is in them"
            self._notes.append(f"{text}: shots are taken one by one, not {together} together")

    @property
    def areas(self) -> list[AreaStage]:
        """The pass over each area detector."""
        return self.passes.areas

    @property
    def shots(self) -> ShotStage:
        """The loop over the shots of a batch."""
        return self.passes.shots

    @property
    def sums(self) -> Sums:
        """What is added up over shots."""
        return self.passes.sums

    @property
    def notes(self) -> list[str]:
        """Sentences for the log and the file, the run's included."""
        return [*self.warnings, *self._notes, *self._run.notes]

    @property
    def tallies(self) -> dict[str, int]:
        """What went wrong so far, by where and why: errors, and corrections that were not made."""
        detectors = self._bound.detectors.values()
        made = (
            (d.area.detector, why, n - self.passes.twice(d.input)[why])
            for d in detectors
            for why, n in d.calibration.skipped.items()
        )
        return {**self.errors, **{f"{name}: {why}": n for name, why, n in made}}

    def _guard(self, names: Sequence[str]) -> Guard:
        return Guard(names, self.errors, self._notes)

    def _compressed(self, columns: Iterable[Column]) -> tuple[Column, ...]:
        """``columns``, with the codec of the configuration where an array gains by it."""
        codec, rows = self.config.writer.compression, self.capacity
        out = []
        for c in columns:
            large = codec != "none" and c.shape and c.row_bytes >= COMPRESSED_ROW
            if large and rows * c.row_bytes > COMPRESSED_CHUNK:
                self._notes.append(
                    f"{c.name} is not compressed: {rows} rows are"
                    f" {rows * c.row_bytes / 1e6:.0f} MB; a smaller batch.shots would help"
                )
            elif large:
                c = c._replace(codec=codec, chunk=rows)
            out.append(c)
        return tuple(out)

    def _own_columns(self, detectors: Sequence[str], motors: Sequence[str]) -> list[Column]:
        """Columns of ffb's own, of recorded inputs, and of what became of ``detectors``."""
        out = [PULSE_KNOWN, *LIGHT_KNOWN, *map(motor_column, motors)]
        out += [c for r in self.recorded for c in r.columns]
        return out + damage_columns(detectors)

    def _free(self, defaults: Defaults, name: str, taken: Collection[str]) -> bool:
        """Whether a default column can be there; where it cannot, the experiment's is."""
        why = defaults.given_way(name, taken)
        self.warnings += [why] if why else []
        return why is None

    def _computed(
        self, wanted: Mapping[str, DerivedConfig], columns: Sequence[Column]
    ) -> dict[str, DerivedConfig]:
        """Those of the numbers wanted of default detectors that ``columns`` allow for."""
        kept = {}
        for name, derived in wanted.items():
            if problems := Combined({name: derived}, {}, columns).problems:
                why = problems[0].partition(".expr: ")[2]
                self.warnings.append(f"{name} is not computed: {why}")
            else:
                kept[name] = derived
        return kept

    def take(self, shot: Shot, read: int) -> bool:
        """Fill in a shot and reduce it; true when the batch is full."""
        self.fill(shot)
        return self.reduce(shot, read)

    def fill(self, shot: Shot) -> None:
        """Copy what is cheap of a shot: it is now the next one, until another is filled in.

        Raises ``ValueError`` where the shot cannot be read.
        """
        shot.fill(self.block, self._n)

    @property
    def light(self) -> tuple[int, int]:
        """State of x-ray and laser of the shot filled in last, -1 if unknown."""
        return self._rows.light(self._n)

    @property
    def step_number(self) -> int:
        """The present step, -1 before the first."""
        return self._rows.step

    def reduce(self, shot: Shot, read: int, kept: float = 1.0) -> bool:
        """Take the shot filled in last, which reached us at ``read`` [ns since 1970].

        ``kept`` is the fraction of shots kept at this time. True when the batch is full. Raises
        ``ValueError`` where the shot cannot be read; it is not taken then.
        """
        if self._batch is None:
            self._batch = Batch(self.schema, self.capacity)
            self._kept = self._rows.column(self._batch, KEPT.name)
        row = self._n
        self._batch.read[row] = read
        self._kept[row] = kept
        if self.areas:
            light = self.light if self.sums.by_light else (-1, -1)
            self.passes.take(shot, row, self._batch, light)
        self.sums.shots += 1
        self._n = row + 1
        return self._n == self.capacity

    def step(self, step: BeginStep) -> None:
        """Begin a step: shots taken from now on belong to it."""
        self._rows.begin_step(step, self._n, self._batch)

    def close_sums(self) -> list[SumPiece]:
        """Take away what was added to sums since the last time; after :meth:`close` alone.

        So every shot in a delta has its row in a message before.
        """
        return self.sums.close(self.step_number)

    def close(self) -> Batch | None:
        """Reduce what was taken and hand it over; ``None`` if nothing was."""
        batch, n = self._batch, self._n
        if batch is None or n == 0:
            return None
        self.passes.flush(batch)
        self._rows.fill(n, batch)
        self._rows.close()
        self.passes.shots.run(n, batch)
        self.combined.run(n, batch)
        batch.close(n)
        self._batch, self._n = None, 0
        return batch

    @property
    def constants(self) -> dict[str, dict[str, str]]:
        """Names of the constants of each area detector, and what its photon maps are made by."""
        out: dict[str, dict[str, str]] = {}
        for d in self._bound.detectors.values():
            out.setdefault(d.area.detector, {}).update(d.ids)
        return out

    def compare(self, run: int, constants: Mapping[str, Mapping[str, str]]) -> list[str]:
        """Say which constants are not those that ``run`` before had; noted, and returned."""
        changed = []
        for detector, now in self.constants.items():
            before = constants.get(detector, now)
            changed += [
                f"{detector}: {name} changed since run {run}: {before.get(name, 'none')}, now"
                f" {now.get(name, 'none')}"
                for name in sorted(before.keys() | now.keys())
                if before.get(name) != now.get(name)
            ]
        self._notes += changed
        return changed

    def provenance(self) -> Provenance:
        """Where the numbers of this run come from."""
        arrays = self._arrays  # before its notes
        return replace(
            origin(self.config),
            inputs=self._sources(),
            reducers={m.name: self._origin(m) for m in self._bound.members}
            | self.combined.origins(),
            constants=self.constants,
            notes=tuple(self.notes),
            arrays=arrays,
        )

    def _sources(self) -> dict[str, str]:
        """Field of every input, also of those that count the entries of another."""
        out: dict[str, str] = {}
        for name, said in self.config.inputs.items():
            if (found := self._bound.inputs.get(name)) is not None:
                names = [name, found.length] if found.length else [name]
                out |= dict.fromkeys(names, str(said.source))
        return out

    @cached_property
    def _arrays(self) -> tuple[dict[str, Any], ...]:
        """Masks, positions and constants of area detectors, as far as they are small."""
        known: dict[str, Detector] = {}  # two inputs may be of one detector
        for d in self._bound.detectors.values():
            known.setdefault(d.area.detector, d)
        detectors = known.values()
        made, left = packed(a for d in detectors for a in d.arrays)
        left = [*left, *(name for d in detectors for name in d.large)]
        if left:
            said = ", ".join(left)
            self._notes.append(f"too large for UserDataCfg: {said}; ffb/constants has their ids")
        return tuple(made)

    def _origin(self, m: Member) -> dict[str, Any]:
        r, params = m.reducer, self._bound.parameters[m.name]
        out = {
            "use": self.config.reducers[m.name].use,
            "version": r.version,
            "hash": r.hash,
            "params": {} if params is None else _plain(params._asdict()),
            "inputs": dict(zip(r.inputs, m.inputs, strict=True)),
            "coords": self._bound.coords[m.name],
        }
        return out if r.module.startswith("ffb.reducers.") else {**out, "source": r.source}


def _clashes(names: Sequence[str]) -> list[str]:
    """Columns that cannot stand beside each other in a file: equal, or one inside of another."""
    twice = [n for n, times in Counter(names).items() if times > 1]
    known = set(names)
    inside = [(n, p) for n in names if (p := _parent(n, known))]
    return [
        *(f"{n}: there are two columns of this name; rename one of them" for n in twice),
        *(f"{n}: cannot be a column, because {p} is one; rename either" for n, p in inside),
    ]


def _parent(name: str, known: set[str]) -> str:
    parts = name.split("/")
    return next((p for k in range(1, len(parts)) if (p := "/".join(parts[:k])) in known), "")


def _plain(value: Any) -> Any:
    """Parameters as JSON knows them; it has no infinity and no paths."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    infinite = isinstance(value, float) and not np.isfinite(value)
    return str(value) if infinite or isinstance(value, Path) else value


def origin(config: Config) -> Provenance:
    """What is known of the numbers of a run before it has a plan."""
    return Provenance(
        config.text, versions=_versions(), host=platform.node(), command=shlex.join(sys.argv)
    )


def _versions() -> dict[str, str]:
    out = {"python": platform.python_version()}
    for name in ("ffb", "numpy", "numba", "psana", "h5py"):
        try:
            out[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return out
