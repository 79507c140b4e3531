"""Bind the configured reducers to a run: names to functions, inputs, parameters, shapes.

Everything that can be wrong is found here, before the first shot, and told at once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.config import ConfigError, parameters
from ffb.configuration import resolve
from ffb.configuration.defaults import Defaults
from ffb.configuration.light import named_by, unreadable
from ffb.loops.calibrated import Detector, calibrated, in_photons, no_pixels
from ffb.loops.compile import in_short, uncompiled
from ffb.loops.fuse import Member, compile_one, plain
from ffb.loops.recorded import Recorded
from ffb.loops.wiring import FILLED, as_input, in_order, motor_column, no_column, owner_of
from ffb.reduce import Area, Reducer, Tile, TileReducer, Window, located, window_of
from ffb.schema import Column, column_name
from ffb.shot import Input, length_of
from ffb.source import Run
from ffb.sums.binding import bind_sums
from ffb.sums.held import Summing

AREA_RANK = 3
_RANKS = {0: "a value", 1: "a waveform", 2: "an image", AREA_RANK: "an area detector"}

#: Seconds for a frame of the dry run of a tile reducer.
DRY_S = 0.1

#: Axes of a reducer as plain data, ``{dim: {"values": [...], "unit": ...}}``.
Coords = dict[str, dict[str, Any]]


class Bound(NamedTuple):
    """What :class:`Binder` made of a configuration and a run.

    ``parameters`` and ``coords`` are those of each reducer, ``members`` in the order of the
    configuration; ``sums`` are those over the frames of each input.
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
        sums = bind_sums(self.config, self.inputs, self._detector, self.problems, self.notes)
        if self.problems:
            raise ConfigError(self.problems)
        kept = tuple(m for m in members if m is not None)
        kinds, notes = (self.inputs, self.detectors), (self.notes, self.warnings)
        return Bound(*kinds, kept, self.used, self.coords, sums, *notes)

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
        """Find out whether an input can be recorded; a default detector goes without."""
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
        """An input with what the configuration says of it, which knows better than the run."""
        said = self.config.inputs[name]
        unit = found.unit if said.unit == "1" else said.unit
        return found._replace(unit=unit, doc=said.doc or found.doc or f"{said.source}, as it came")

    def _given(self, where: str, name: str) -> Input | None:
        """What an argument receives; ``None`` where that is not to be had."""
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
            rank = 3 if i.kind == "area" else len(i.shape) if len(i.shape) < 3 else -1
            tile = r.inputs[a] == AREA_RANK
            kind = "a text" if i.dtype[1] == "S" else _RANKS.get(rank, i.shape)
            if rank != r.inputs[a] or kind == "a text":
                self.problems.append(
                    f"reducers.{name}.inputs.{a}: {arguments[a]} is {kind};"
                    f" {r.name} takes {_RANKS[r.inputs[a]]}"
                    f"{_as_line(i) if tile and arguments[a] in self.inputs else ''}"
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
        state = r.allocate(constants)
        with np.errstate(all="ignore"):
            # in plain Python: what they call would be compiled, in every process anew
            uncompiled(r.functions["start"])(constants, state)
            features = uncompiled(r.functions["finish"])(constants, state)
        columns = columns_of(name, r, params, features, detector.area.unit)
        member = Member(name, r, columns, constants, inputs)
        self.coords[name] = coords_of(member, params, detector.area.unit)
        with np.errstate(all="ignore"):
            self._dry_pass(member, detector.area)
        self.used[name] = params
        return member

    def _dry_pass(self, member: Member, area: Area) -> None:
        """Run a tile reducer in plain Python, which checks bounds, on made-up frames.

        Its rows come in order, as many as there is time for, spread evenly.
        """
        assert isinstance(member.reducer, TileReducer)
        functions = {f: uncompiled(fn) for f, fn in member.reducer.functions.items()}
        state, rng = member.reducer.allocate(member.constants), np.random.default_rng(20)
        rows, columns = area.shape[0] * area.shape[1], area.shape[2]
        valid = area.mask.reshape(rows, columns).astype(np.uint8)
        first, last = (window_of(member.constants) or Window(0, rows, 0, columns))[:2]
        try:
            for noise, holes in ((0, False), (50, False), (50, True)):
                functions["start"](member.constants, state)
                began = time.perf_counter()
                for number in range(first, last):
                    part = (number + 1 - first) / (last - first)
                    if number < last - 1 and time.perf_counter() - began > DRY_S * part:
                        continue
                    values = rng.normal(2 * noise, noise, columns).astype(np.float32)
                    if holes:
                        values[::7] = np.nan
                    values[valid[number] == 0] = 0
                    bad = int(np.isnan(values).sum())
                    tile = Tile(values, valid[number], bad, number, number * columns)
                    functions["accumulate"](tile, member.constants, state)
                functions["finish"](member.constants, state)
        except Exception as e:  # whatever it is, it is better told now than at every shot
            self.problems.append(f"reducers.{member.name}: {in_short(e)}")

    def _shot_member(
        self,
        name: str,
        r: Reducer[Any, Any],
        params: Any,
        inputs: Mapping[str, Input],
        names: tuple[str, ...],
    ) -> Member | None:
        constants = r.constants(params, inputs)
        features = self._dry_run(Member(name, r, (), constants, names), list(inputs.values()))
        if features is None:
            return None
        units = {i.unit for i in inputs.values()}
        unit = units.pop() if len(units) == 1 else ""
        member = Member(name, r, columns_of(name, r, params, features, unit), constants, names)
        self.coords[name] = coords_of(member, params, unit)
        self.used[name] = params
        return member

    def _dry_run(self, member: Member, inputs: list[Input]) -> Any:
        """Run a whole-shot reducer with bounds checks on made-up frames: features or ``None``."""
        features, last = None, None
        assert isinstance(member.reducer, Reducer)
        memory = plain(member.reducer.remembered(member.constants))
        for frames in _made_up(inputs):
            try:
                one = compile_one(member, frames)
                features = one(frames, plain(member.constants), memory)
            except IndexError as e:
                self.problems.append(
                    f"reducers.{member.name}: reads outside of its input or constants"
                    f" ({e}); check its gates and the shapes of its inputs"
                )
                return None
            except Exception as e:  # frames are made up: a reducer may well refuse them
                last = e
        if features is None:
            self.problems.append(f"reducers.{member.name}: {in_short(last)}")
        return features

    def _detector(self, name: str) -> Detector | None:
        """Calibration and geometry of an area input; asked once for all its reducers."""
        if name in self.detectors:
            return self.detectors[name]
        given, source = self.inputs[name], self.config.inputs[name].source.detector
        try:
            found, notes = calibrated(self.config, self.run, name, given)
            self.notes += notes
            self.detectors[name] = in_photons(self.config, found)
        except ConfigError as e:
            self.problems += [line for line in e.problems if line not in self.problems]
        except (LookupError, ValueError, OSError) as e:
            problem = f"calibration.{source}: {e}"
            if problem not in self.problems:
                self.problems.append(problem)
        return self.detectors.get(name)


def _as_line(given: Input) -> str:
    """How a waveform becomes an area, of one row."""
    line = given.kind == "value" and len(given.shape) == 1 and not given.length
    return f"; with shape = [1, 1, {given.shape[0]}] it is one, of one row" if line else ""


def _made_up(inputs: list[Input]) -> Iterator[tuple[Any, ...]]:
    """Frames to try a reducer on: of zeros, then of random numbers (the same in every process)."""
    rng = np.random.default_rng(20)
    for noise in (0.0, 1.0):
        out = []
        for i in inputs:
            dtype = np.dtype(i.dtype)
            if dtype.kind in "iu":
                most = np.iinfo(dtype).max if noise else 0
                frame: NDArray[Any] = rng.integers(0, most, i.shape, dtype, endpoint=True)
            else:
                frame = np.asarray(rng.normal(100, 50, i.shape) * noise).astype(dtype)
            out.append(np.asarray(frame) if i.shape else np.asarray(frame)[()])
        yield tuple(out)


def columns_of(
    name: str, r: Reducer[Any, Any] | TileReducer, params: Any, features: Any, unit: str
) -> tuple[Column, ...]:
    """Columns of a reducer's features, shapes as in ``features``; ``unit`` is the input's.

    Raises ``TypeError`` when a feature has not the axes it declares.
    """
    out = []
    for f, (dtype, meta) in r.selected(params).items():
        shape = np.shape(getattr(features, f))
        if len(shape) != len(meta.dims):
            raise TypeError(f"{f} declares axes {meta.dims}, has shape {shape}")
        u = _unit(meta.unit, unit)
        length = column_name(name, meta.length) if meta.length else ""
        path = column_name(name, f)
        out.append(Column(path, dtype, shape, meta.dims, u, meta.doc, name, length=length))
    return tuple(out)


def _unit(declared: str, given: str) -> str:
    """Unit as declared, with the input's for ``@``."""
    return declared.replace("@", given or "1").removeprefix("1 ") or "1"


def coords_of(member: Member, params: Any, unit: str) -> Coords:
    """Coordinates of a reducer's axes as plain data; ``unit`` is the input's.

    Raises ``TypeError`` for an axis that no feature declares, or of another length than theirs.
    """
    r, out = member.reducer, {}
    declared = {d for _, meta in r.outputs.values() for d in meta.dims}
    for dim, axis in r.coordinates(params, member.constants).items():
        if dim not in declared:
            known = ", ".join(sorted(declared)) or "none"
            raise TypeError(f"gives coordinates of {dim!r}; axes of its features: {known}")
        values = np.asarray(axis.values, np.float64)
        for d, size in (a for c in member.columns for a in zip(c.dims, c.shape, strict=True)):
            if d == dim and values.shape != (size,):
                raise TypeError(f"gives {values.shape} coordinates of {dim!r}, {size} long")
        out[dim] = {"values": values.tolist(), "unit": _unit(axis.unit, unit)}
    return out
