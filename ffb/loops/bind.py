"""Bind the configured reducers to a run: names to functions, inputs, parameters, shapes.

Everything that can be wrong is found here, before the first shot, and told at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ffb.config import ConfigError, parameters
from ffb.configuration import resolve
from ffb.configuration.defaults import Defaults
from ffb.configuration.light import named_by, unreadable
from ffb.loops import dry
from ffb.loops.calibrated import Detector, calibrated, in_photons, no_pixels
from ffb.loops.columns import Coords, columns_of, coords_of
from ffb.loops.fuse import Member
from ffb.loops.recorded import Recorded
from ffb.loops.wiring import FILLED, as_input, in_order, motor_column, no_column, owner_of
from ffb.reduce import Reducer, TileReducer, located
from ffb.shot import Input, length_of
from ffb.source import Run
from ffb.sums.binding import bind_sums
from ffb.sums.held import Summing

IMAGE_RANK, AREA_RANK = 2, 3
_RANKS = {0: "a number", 1: "a waveform", IMAGE_RANK: "an image", AREA_RANK: "an area detector"}


class Bound(NamedTuple):
    """What :class:`Binder` made of a configuration and a run.

    ``parameters`` and ``coords`` are those of each reducer, ``members`` in the order of the
    configuration; ``sums`` are those over each input or column that is added up.
    """

    inputs: dict[str, Input]
    detectors: dict[str, Detector]
    members: tuple[Member, ...]
    parameters: dict[str, Any]
    coords: dict[str, Coords]
    sums: dict[str, list[Summing]]
    notes: list[str]
    warnings: list[str]

    def of(self, detector: Detector | None) -> tuple[Member, ...]:
        """Tile reducers of ``detector``, or all whole-shot reducers."""
        if detector is None:
            return tuple(m for m in self.members if isinstance(m.reducer, Reducer))
        tile = [m for m in self.members if isinstance(m.reducer, TileReducer)]
        return tuple(m for m in tile if m.inputs == (detector.input,))


class Binder:
    """Binds; ``problems`` collects one line for each thing that is wrong, ``notes`` the rest."""

    def __init__(self, defaults: Defaults, run: Run) -> None:
        self.config, self.run = defaults.config, run
        self.defaults, self.warnings = defaults, list(defaults.warnings)
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.inputs: dict[str, Input] = {}
        self.detectors: dict[str, Detector] = {}
        self.used: dict[str, Any] = {}
        self.coords: dict[str, Coords] = {}
        filled = (*FILLED, *map(motor_column, run.motors))
        self.columns = {c.name: c for c in filled}
        self._lists = {length_of(name): name for name in self.config.rooms}

    def bind(self) -> Bound:
        """Bind everything. Raises :class:`ffb.config.ConfigError` that lists all problems."""
        path = self.config.path
        folder = path.parent if path else Path()
        found: dict[str, Reducer[Any, Any] | TileReducer] = {}
        arguments: dict[str, dict[str, str]] = {}
        wanted = {n: None for n, i in self.config.inputs.items() if i.record}
        for name, c in self.config.reducers.items():
            try:
                found[name] = resolve.reducer(c.use, folder)
            except LookupError as e:
                self.problems.append(f"reducers.{name}.use: {e}")
                continue
            arguments[name] = self._arguments(name, found[name])
            wanted |= {self._lists.get(a, a): None for a in arguments[name].values()}
        wanted |= {s.input or n: None for n, s in self.config.sums.items()}
        order, circle = in_order(arguments, self.config.inputs)
        self.problems += [f"reducers: {circle}"] if circle else []
        wanted |= {n: None for n in named_by(self.config.light) if n in self.config.inputs}
        self._bind_inputs(list(wanted))
        for n in [n for n, i in self.config.inputs.items() if i.record and n in self.inputs]:
            self._check_record(n)
        self.warnings += unreadable(self.config.light, self.inputs)
        self.problems += no_pixels(self.config, self.inputs)
        members = [self._member(name, found[name], arguments[name], folder) for name in order]
        sums = bind_sums(self.config, self._given, self._detector, self.problems, self.notes)
        if self.problems:
            raise ConfigError(self.problems)
        return Bound(
            inputs=self.inputs,
            detectors=self.detectors,
            members=tuple(m for m in members if m is not None),
            parameters=self.used,
            coords=self.coords,
            sums=sums,
            notes=self.notes,
            warnings=self.warnings,
        )

    def _arguments(self, name: str, r: Reducer[Any, Any] | TileReducer) -> dict[str, str]:
        """Input of every argument of a reducer."""
        given = self.config.reducers[name].inputs
        table = dict.fromkeys(r.inputs, given) if isinstance(given, str) else dict(given)
        for argument in r.inputs:
            if not self._known(table.get(argument, "")):
                what = f"this run has no {table.get(argument, '')!r}"
                self.problems.append(f"reducers.{name}.inputs.{argument}: {what}")
                table.pop(argument, None)
        return {a: table[a] for a in r.inputs if a in table}

    def _known(self, name: str) -> bool:
        known = name in self.config.inputs or name in self.columns or name in self._lists
        return known or owner_of(name, self.config.reducers) != ""

    def _bind_inputs(self, wanted: list[str]) -> None:
        fields = {n: f for n, f in self.config.fields.items() if n in wanted}
        shapes = {n: s for n, s in self.config.shapes.items() if n in wanted}
        rooms = {n: r for n, r in self.config.rooms.items() if n in wanted}
        found, missing = self.run.bind(fields, shapes, rooms, self.defaults.sources)
        known = self.config.inputs  # others count the entries of these
        self.inputs = {n: self._described(n, i) if n in known else i for n, i in found.items()}
        for sentence in missing:
            warning = self.defaults.refused(sentence)
            if warning is None:
                named = sentence.startswith("inputs.")
                self.problems.append(sentence if named else f"inputs: {sentence}")
            elif warning:
                self.warnings.append(warning)

    def _check_record(self, name: str) -> None:
        """Find out whether an input can be recorded; a default detector is left out if not."""
        said, found = self.config.inputs[name], self.inputs[name]
        wrong = Recorded(name, found, said.unpack).problem
        if not wrong:
            return
        if warning := self.defaults.refused(f"input {name}: {wrong}"):
            del self.inputs[name]
            self.warnings.append(warning)
        else:
            self.problems.append(f"inputs.{name}.record: {wrong}")

    def _described(self, name: str, found: Input) -> Input:
        """An input with its unit and doc; those in the configuration come before the run's own."""
        said = self.config.inputs[name]
        unit = found.unit if said.unit == "1" else said.unit
        return found._replace(unit=unit, doc=said.doc or found.doc or f"{said.source}, as it came")

    def _given(self, where: str, name: str) -> Input | None:
        """What an argument, or a sum, receives; ``None``, and a problem, if it is not available."""
        if name in self.inputs:
            return self.inputs[name]
        if name in self.columns:
            c = self.columns[name]
            return as_input(c, self.coords.get(c.reducer, {}))
        if name not in self.config.inputs and (owner := owner_of(name, self.used)):
            self.problems.append(f"{where}: {no_column(name, owner, self.columns)}")
        return None

    def _member(
        self,
        name: str,
        r: Reducer[Any, Any] | TileReducer,
        arguments: Mapping[str, str],
        folder: Path,
    ) -> Member | None:
        """Prepare one reducer; ``None`` when that brought up a problem."""
        known = len(self.problems)
        given = {a: self._given(f"reducers.{name}.inputs.{a}", n) for a, n in arguments.items()}
        inputs = {a: i for a, i in given.items() if i is not None}
        for a, i in inputs.items():
            kind, wanted = _kind_of(i), _RANKS[r.inputs[a]]
            if kind != wanted:
                wanted = r.meant.get(a) or wanted
                changeable = arguments[a] in self.inputs
                self.problems.append(
                    f"reducers.{name}.inputs.{a}: {arguments[a]} is {kind};"
                    f" {r.name} takes {wanted}{_instead(i, r.inputs[a]) if changeable else ''}"
                )
            elif i.length not in {"", *arguments.values()} and np.dtype(i.dtype).kind in "iu":
                self.warnings.append(
                    f"reducers.{name}.inputs.{a}: {arguments[a]} is a list of whole numbers; the"
                    f" places a shot leaves free are 0, which {r.name} takes for samples"
                    f" ({i.length} counts the entries)"
                )
        params = self._parameters(name, r, folder)
        if len(self.problems) > known or len(inputs) < len(r.inputs):
            return None
        names = tuple(arguments.values())
        try:
            if isinstance(r, TileReducer):
                member = self._tile_member(name, r, params, names)
            else:
                member = self._shot_member(name, r, params, inputs, names)
            self.columns |= {c.name: c for c in (member.all_columns if member else ())}
            return member
        except ValueError as e:
            self.problems += [f"reducers.{name}.params.{line}" for line in str(e).splitlines()]
        except TypeError as e:
            self.problems.append(f"reducers.{name}: {e}")
        return None

    def _parameters(self, name: str, r: Reducer[Any, Any] | TileReducer, folder: Path) -> Any:
        c, run, where = self.config.reducers[name], self.run.info.run, f"reducers.{name}.params"
        try:
            if not c.function:
                return located(parameters(r.params, c.params_for(run)), self.config.locate)
            made = resolve.function(c.function, folder)(run)
            if r.params is None or not isinstance(made, r.params):
                self.problems.append(
                    f"{where}: {c.function} gave {made!r}; {r.name} takes"
                    f" {getattr(r.params, '__name__', 'no parameters')}"
                )
            return located(made, self.config.locate)
        except ConfigError as e:
            self.problems += [f"{where}.{line}" for line in e.problems]
        except LookupError as e:
            self.problems.append(f"{where}: {e}")
        return None

    def _tile_member(
        self, name: str, r: TileReducer, params: Any, inputs: tuple[str, ...]
    ) -> Member | None:
        detector = self._detector(inputs[0])
        if detector is None:
            return None
        constants = r.prepare(params, detector.area)
        features = dry.empty(r, constants)
        columns = columns_of(name, r, params, features, detector.area.unit)
        member = Member(name, r, columns, constants, inputs)
        self.coords[name] = coords_of(member, params, detector.area.unit)
        if wrong := dry.rows(r, constants, detector.area):
            self.problems.append(f"reducers.{name}: {wrong}")
        self.used[name] = params
        return member

    def _shot_member(
        self,
        name: str,
        r: Reducer[Any, Any],
        params: Any,
        inputs: Mapping[str, Input],
        names: tuple[str, ...],
    ) -> Member | None:
        constants = r.constants(params, inputs)
        features, wrong = dry.frames(Member(name, r, (), constants, names), [*inputs.values()])
        if wrong:
            self.problems.append(f"reducers.{name}: {wrong}")
            return None
        units = {i.unit for i in inputs.values()}
        unit = units.pop() if len(units) == 1 else ""
        member = Member(name, r, columns_of(name, r, params, features, unit), constants, names)
        self.coords[name] = coords_of(member, params, unit)
        self.used[name] = params
        return member

    def _detector(self, name: str) -> Detector | None:
        """Calibration and geometry of an area input; asked once for all its reducers."""
        if name in self.detectors:
            return self.detectors[name]
        given, source = self.inputs[name], self.config.inputs[name].source.detector
        try:
            found, notes = calibrated(self.config, self.run, name, given)
            self.notes += [n for n in notes if n not in self.notes]  # two inputs may be of one
            self.detectors[name] = in_photons(self.config, found, self.run.info.run)
        except ConfigError as e:
            self.problems += [line for line in e.problems if line not in self.problems]
        except (LookupError, ValueError, OSError) as e:
            said = [line.removeprefix(f"{source}: ") for line in str(e).splitlines()]
            lines = [f"calibration.{source}: {line}" for line in said]
            self.problems += [line for line in lines if line not in self.problems]
        return self.detectors.get(name)


def _kind_of(given: Input) -> str:
    """What an input or a column is, in the words of ``_RANKS`` where it is one of them."""
    if given.kind == "area":
        return _RANKS[AREA_RANK]
    if np.dtype(given.dtype).kind == "S":
        return "a text"
    rank = len(given.shape)
    return _RANKS[rank] if rank < AREA_RANK else f"an array of shape {given.shape}"


def _instead(given: Input, rank: int) -> str:
    """How a waveform becomes an area, of one row, and an area an image."""
    if given.kind == "area":
        return "; the area of a roi with area = true is one" if rank == IMAGE_RANK else ""
    line = rank == AREA_RANK and len(given.shape) == 1 and not given.length
    return f"; with shape = [1, 1, {given.shape[0]}] it is one, of one row" if line else ""
