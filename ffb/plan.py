"""The plan of a run: bound reducers, one schema, and the way of a shot into a batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffb.batch import Batch
from ffb.config import Config, ConfigError
from ffb.configuration.defaults import Defaults
from ffb.integrating import partners
from ffb.loops.bind import Binder, Bound
from ffb.loops.combine import Combined
from ffb.loops.guard import Guard
from ffb.loops.passes import Passes
from ffb.loops.recorded import Recorded, damage_columns, with_count
from ffb.loops.rows import Rows
from ffb.loops.stages import AreaStage, ShotStage
from ffb.loops.wiring import motor_column
from ffb.origin import detector_arrays, input_fields, origin, reducer_origins
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
        self._run, self._bound, self._notes = run, bound, list(bound.notes)
        #: Default detectors that the run lacks, which is not an error.
        self.warnings = list(bound.warnings)
        asked = _asked(defaults, bound)
        self.recorded = self._recorded(defaults, asked)
        columns = self._compressed(self._uncombined(defaults))
        self.combined = self._combine(defaults, asked, columns)
        self.schema = self._checked((*columns, *self.combined.columns))
        self.block = FrameBlock(bound.inputs, self.capacity)
        self._batch: Batch | None = None
        self._kept: NDArray[np.float32] = np.ones(0, np.float32)
        self._n = 0
        self._rows = Rows(
            config.light,
            self.schema,
            self.block,
            self.recorded,
            _inputs_by_detector(defaults, bound),
            run.motors,
        )
        self.combined.compile(self.schema, self.block)
        self.passes = self._compile_passes(min(config.batch.together, self.capacity))

    def _compile_passes(self, together: int) -> Passes:
        made = Passes(
            self._bound, self.schema, self.block, self._guard, self._rows, self.combined, together
        )
        if made.second and together > 1:
            names = ", ".join(made.second)
            self._notes.append(
                f"frames of {names} are needed again for sums with conditions on what is in them:"
                f" shots are taken one by one, not {together} together"
            )
        return made

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

    def _uncombined(self, defaults: Defaults) -> list[Column]:
        """All columns but those that expressions make of them."""
        out = [*CORE, PULSE_KNOWN, *LIGHT_KNOWN, *map(motor_column, self._run.motors)]
        out += [c for r in self.recorded for c in r.columns]
        out += damage_columns(defaults.listed)
        return out + [c for m in self._bound.members for c in m.all_columns]

    def _recorded(self, defaults: Defaults, asked: Collection[str]) -> list[Recorded]:
        """Inputs that become columns, each with the count of its entries where it has one."""
        given, found = self.config.inputs, self._bound.inputs
        stored = [n for n, i in given.items() if i.record and n in found]
        free = [n for n in stored if n not in defaults.sources or self._free(defaults, n, asked)]
        return [r for n in free for r in with_count(n, found, given[n].unpack)]

    def _free(self, defaults: Defaults, name: str, asked: Collection[str]) -> bool:
        """Whether a default column can be there; where it cannot, the experiment's is."""
        why = defaults.given_way(name, asked)
        self.warnings += [why] if why else []
        return why is None

    def _combine(
        self, defaults: Defaults, asked: Collection[str], columns: Sequence[Column]
    ) -> Combined:
        """Expressions over ``columns``: derived numbers, filters and conditions of sums."""
        config = self.config
        computed = {}
        for name, derived in defaults.computed.items():
            if not self._free(defaults, name, asked):
                continue
            if problems := Combined({name: derived}, {}, columns).problems:
                why = problems[0].partition(".expr: ")[2]
                self.warnings.append(f"{name} is not computed: {why}")
            else:
                computed[name] = derived
        return Combined(
            computed | config.derived,
            config.filters,
            columns,
            unrecorded=config.inputs.keys() - {r.name for r in self.recorded},
            wheres={n: s.where for n, s in config.sums.items() if s.where},
        )

    def _checked(self, columns: tuple[Column, ...]) -> Schema:
        """The schema of the run, or :class:`ffb.config.ConfigError` with all that is wrong."""
        integrating = self.config.integrating
        if problems := [
            *self.combined.problems,
            *_clashes([c.name for c in columns]),
            *map(str, partners.check(integrating, columns)),
        ]:
            raise ConfigError(problems)
        self.warnings += map(str, partners.lacking(integrating, columns))
        return Schema(columns)

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
        self.passes.add(n, batch)
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
            inputs=input_fields(self.config, self._bound),
            reducers=reducer_origins(self.config, self._bound) | self.combined.origins(),
            constants=self.constants,
            notes=tuple(self.notes),
            arrays=arrays,
        )

    @cached_property
    def _arrays(self) -> tuple[dict[str, Any], ...]:
        made, left = detector_arrays(self._bound)
        if left:
            self._notes.append(
                f"too large for UserDataCfg: {', '.join(left)}; ffb/constants has their ids"
            )
        return made


def _asked(defaults: Defaults, bound: Bound) -> set[str]:
    """Columns that the experiment asks for, to which those of default detectors give way."""
    config = defaults.config
    recorded = {n for n, i in config.inputs.items() if i.record and n in bound.inputs}
    features = {c.name for m in bound.members for c in m.all_columns}
    derived = config.derived.keys() | config.filters.keys()
    return features | derived | (recorded - defaults.sources.keys())


def _inputs_by_detector(defaults: Defaults, bound: Bound) -> dict[str, list[str]]:
    """Inputs of each detector whose damage is recorded."""
    out: dict[str, list[str]] = {d: [] for d in defaults.listed}
    for name, said in defaults.config.inputs.items():
        if name in bound.inputs and said.detector in out:
            out[said.detector].append(name)
    return out


def _clashes(names: Sequence[str]) -> list[str]:
    """Columns that cannot stand beside each other in a file: equal, or one inside of another."""
    twice = [n for n, times in Counter(names).items() if times > 1]
    known = set(names)
    inside = {p: n for n in reversed(names) if (p := _parent(n, known))}  # one tells of all
    return [
        *(f"{n}: there are two columns of this name; rename one of them" for n in twice),
        *(f"{n}: cannot be a column, because {p} is one; rename either" for p, n in inside.items()),
    ]


def _parent(name: str, known: set[str]) -> str:
    parts = name.split("/")
    return next((p for k in range(1, len(parts)) if (p := "/".join(parts[:k])) in known), "")
