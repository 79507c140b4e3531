"""Read the configuration of an experiment, and say everything that is wrong with it at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, PrivateAttr, ValidationError

from ffb import shot
from ffb.configuration import derive, layers, problems, resolve
from ffb.configuration.calibration_settings import Calibration, CalibrationConfig, CommonModeConfig
from ffb.configuration.conditions import CodesConfig, DerivedConfig, FilterConfig, LightConfig
from ffb.configuration.detector_settings import Detectors, SlowValues, kinds, misnamed
from ffb.configuration.integrating_settings import IntegratingConfig
from ffb.configuration.photon_settings import PhotonConfig, unknown
from ffb.configuration.problems import ConfigError, Problem, nearest
from ffb.configuration.runs import RunTable
from ffb.configuration.settings import (
    AggregationConfig,
    BatchConfig,
    DashboardConfig,
    FilesConfig,
    InputConfig,
    PsanaConfig,
    ReducerConfig,
    ReplayConfig,
    RunConfig,
    SourceConfig,
    SyntheticConfig,
    Table,
    TransportConfig,
    WriterConfig,
)
from ffb.configuration.sites import scratch_of
from ffb.configuration.sum_settings import SumConfig
from ffb.loops import wiring
from ffb.messaging.codec import CODECS
from ffb.messaging.endpoints import Endpoints
from ffb.messaging.untrusted import MAX_CHUNK
from ffb.reduce import Reducer, TileReducer
from ffb.schema import column_name
from ffb.sums.piece import NAME

__all__ = [
    "CalibrationConfig",
    "CodesConfig",
    "CommonModeConfig",
    "Config",
    "ConfigError",
    "Endpoints",
    "FilesConfig",
    "InputConfig",
    "LightConfig",
    "PsanaConfig",
    "ReducerConfig",
    "ReplayConfig",
    "SumConfig",
    "SyntheticConfig",
    "load",
    "parameters",
    "parse",
]

_Any = Reducer[Any, Any] | TileReducer


class Config(Table):
    """The configuration of one experiment."""

    layer: str = ""
    """Name of a hutch ("mfx") or path of a TOML file on which this one is laid."""
    hutch: str = ""
    """The hutch; without it, the first three letters of the experiment."""
    source: SourceConfig
    """Where shots come from."""
    inputs: dict[str, InputConfig] = Field(default_factory=dict)
    """Detector fields by short name."""
    reducers: dict[str, ReducerConfig] = Field(default_factory=dict)
    """Reducers by the name that begins their columns."""
    calibration: dict[str, Calibration] = Field(default_factory=dict)
    """By detector: files with constants, or "none" for raw ADU; others from psana's store."""
    photons: dict[str, PhotonConfig] = Field(default_factory=dict)
    """By input: what makes whole photons of its calibrated pixels before its reducers see them."""
    derived: dict[str, DerivedConfig] = Field(default_factory=dict)
    """Numbers computed from columns, by the name of their own column."""
    filters: dict[str, FilterConfig] = Field(default_factory=dict)
    """Conditions on columns and event codes, by the name of their column."""
    integrating: dict[str, IntegratingConfig] = Field(default_factory=dict)
    """Detectors with one frame for many shots, by name."""
    light: LightConfig = LightConfig()
    """What tells the lights: event codes, or inputs."""
    detectors: Detectors = Field(default_factory=dict)
    """Detectors recorded whole, by the group of the file that holds them."""
    epics: SlowValues = Field(default_factory=dict)
    """Slow-control values recorded with every shot, by the name of their column."""
    damage: bool = False
    """Whether to record of every detector whether it was there, and undamaged."""
    sums: dict[str, SumConfig] = Field(default_factory=dict)
    """Frames added up over shots, by the name that begins their datasets in `Sums/`."""
    batch: BatchConfig = BatchConfig()
    """When a producer sends what it has."""
    aggregate: AggregationConfig = AggregationConfig()
    """How the aggregator orders and commits."""
    transport: TransportConfig = TransportConfig()
    """Where the processes meet."""
    writer: WriterConfig = WriterConfig()
    """Where the small data goes."""
    dashboard: DashboardConfig = DashboardConfig()
    """Where the page is served."""
    run: RunConfig = RunConfig()
    """What `ffb run` starts."""

    _path: Path | None = PrivateAttr(None)
    _text: str = PrivateAttr("")
    _overrides: tuple[str, ...] = PrivateAttr(())

    @property
    def path(self) -> Path | None:
        """The file this was read from; ``None`` if it was made in memory."""
        return self._path

    @property
    def text(self) -> str:
        """All layers and overrides as one TOML text, which loads to an equal configuration."""
        return self._text

    @property
    def overrides(self) -> tuple[str, ...]:
        """The ``--set`` arguments that went in."""
        return self._overrides

    @property
    def exp(self) -> str:
        """The experiment; ``""`` where only the stream tells it."""
        return getattr(self.source, "exp", "")

    @property
    def fields(self) -> dict[str, shot.Field]:
        """The field of every input, by name."""
        return {name: i.source for name, i in self.inputs.items()}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of frames that the file itself states, by input."""
        return {name: i.shape for name, i in self.inputs.items() if i.shape is not None}

    @property
    def rooms(self) -> dict[str, int]:
        """Room for the entries of lists, or for the bytes of texts, by input."""
        return {name: i.room for name, i in self.inputs.items() if i.room is not None}

    def locate(self, path: str) -> Path:
        """``path`` with ``~`` expanded and, if relative, seen from the configuration file."""
        folder = self._path.parent if self._path else Path()
        return folder / Path(path).expanduser()

    def file(self, exp: str, run: int) -> Path:
        """Path of the small data of ``run``."""
        names = {"exp": exp, "hutch": self.hutch or exp[:3]}
        scratch = scratch_of(self.writer.scratch).format(**names)
        folder = self.writer.directory.format(scratch=scratch, **names)
        return self.locate(folder) / self.writer.name.format(run=run, **names)

    def key(self, *, secret: bool) -> Path | None:
        """File with the aggregator's CURVE key, ``None`` where none is configured."""
        given = self.transport.secret_key if secret else self.transport.public_key
        return self.locate(given) if given else None

    def endpoints(self) -> Endpoints:
        """Where the processes meet; makes the private folder of the sockets if one is needed.

        The folder is this user's alone and named after experiment and file, so that two services
        never meet by accident. Raises ``PermissionError`` when somebody else prepared it.
        """
        given = Endpoints(self.transport.aggregator, self.transport.views)
        return given.complete(self.exp or "ffb", str(self._path and self._path.resolve()))


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read the file at ``path``, the layers it stands on, and ``a.b=value`` overrides.

    Raises :class:`ConfigError` that lists every problem found.
    """
    stack: list[layers.Layer] = []
    wrong: list[str] = []
    try:
        stack += layers.read(Path(path))
    except layers.LayerError as e:
        wrong.append(str(e))
    for text in overrides:
        try:
            stack.append(layers.override(text))
        except layers.LayerError as e:
            wrong.append(str(e))
    if wrong:
        raise ConfigError(wrong)
    return _parse(stack, Path(path), tuple(overrides))


def parse(data: Mapping[str, Any]) -> Config:
    """Check ``data``, plain and without layers, as :func:`load` does a file's."""
    return _parse([layers.Layer("", dict(data))], None, ())


def _parse(stack: Sequence[layers.Layer], path: Path | None, overrides: tuple[str, ...]) -> Config:
    merged: dict[str, Any] = reduce(layers.merge, (layer.data for layer in stack), {})
    merged.pop("layer", None)
    folder = path.parent if path else Path()
    wrong = [*_check_calibration(merged), *_check_reducers(merged, folder)]
    wrong += [*_check_compression(merged), *derive.check(merged), *derive.check_light(merged)]
    wrong += [
        Problem(("detectors", group, "kind"), f"no kind {kind!r}; {nearest(kind, [*kinds()])}")
        for group, kind in misnamed(merged)
    ]
    strays = ((("photons", n), f"no input {n!r}; {nearest(n, k)}") for n, k in unknown(merged))
    wrong += [*_check_sums(merged), *(Problem(*stray) for stray in strays)]
    config = None
    try:
        config = Config.model_validate(merged)
    except ValidationError as e:
        wrong = problems.of_settings(Config, e) + wrong
    if config is None or wrong:
        raise ConfigError([_with_origin(p, stack, str(path or "")) for p in wrong])
    config._path, config._overrides = path, overrides
    heading = "".join(f"# {layer.name}\n" for layer in stack if layer.name)
    config._text = heading + layers.dump(merged)
    return config


def _with_origin(problem: Problem, stack: Sequence[layers.Layer], file: str) -> str:
    where = layers.origin(stack, problem.path)
    return f"{problem}" if where == file else f"{problem} (in {where})"


def parameters(declared: Any, values: Mapping[str, Any]) -> Any:
    """Make a reducer's declared parameters, a NamedTuple type or ``None``, of plain values.

    Lists become tuples and integers floats where those are declared; nothing else is converted.
    Raises :class:`ConfigError` that lists every key that is unknown, missing or of a wrong type.
    """
    if wrong := problems.of_parameters(declared, values):
        raise ConfigError([str(p) for p in wrong])
    return None if declared is None else problems.make_parameters(declared, values)


def _check_calibration(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Find detectors that look mistyped; others may be there for the files laid on this one."""
    inputs, calibration = data.get("inputs"), data.get("calibration")
    tables = inputs.values() if isinstance(inputs, Mapping) else ()
    named = [t.get("detector") for t in tables if isinstance(t, Mapping)]
    known = [d for d in named if isinstance(d, str)]
    for name in calibration if isinstance(calibration, Mapping) else ():
        if name not in known and "did you mean" in (near := nearest(name, known)):
            yield Problem(("calibration", name), f"no input is from this detector; {near}")


def _check_compression(data: Mapping[str, Any]) -> Iterator[Problem]:
    """A compressed batch is a chunk of the file, whose chunks of all columns begin together."""
    batch, writer = data.get("batch", {}), data.get("writer", {})
    codec = writer.get("compression", "none") if isinstance(writer, Mapping) else "none"
    shots = batch.get("shots", BatchConfig().shots) if isinstance(batch, Mapping) else 0
    if codec in CODECS and type(shots) is int and (shots > MAX_CHUNK or shots & (shots - 1)):
        yield Problem(
            ("batch", "shots"),
            f'with writer.compression = "{codec}" a power of two up to {MAX_CHUNK} is needed,'
            f" got {shots}",
        )


def _check_sums(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Sums have inputs, and names of which no two make equal names in the file."""
    inputs, sums = data.get("inputs"), data.get("sums")
    known = list(inputs) if isinstance(inputs, Mapping) else []
    names = list(sums) if isinstance(sums, Mapping) else []
    for name in names:
        table = sums[name] if isinstance(sums, Mapping) else {}
        given = table.get("input", "") if isinstance(table, Mapping) else ""
        if not NAME.fullmatch(name):
            yield Problem(("sums", name), "a name has up to 64 letters, digits and _")
        if isinstance(given, str) and (given or name) not in known:
            at = ("sums", name, "input") if given else ("sums", name)
            yield Problem(at, f"no input {given or name!r}; {nearest(given or name, known)}")
        for other in names:
            if name.startswith(f"{other}_"):
                text = f"begins like the datasets of the sum {other!r}: choose another name"
                yield Problem(("sums", name), text)


def _check_reducers(data: Mapping[str, Any], folder: Path) -> Iterator[Problem]:
    """Check what models cannot: that names lead somewhere, and that parameters fit.

    Works on plain data, because the models may have refused another part of it; wrong types are
    theirs to report.
    """
    inputs, reducers = data.get("inputs"), data.get("reducers")
    tables = {
        n: t
        for n, t in (reducers.items() if isinstance(reducers, Mapping) else ())
        if isinstance(t, Mapping)
    }
    found = {n: _resolved(t, folder) for n, t in tables.items()}
    columns = [c.name for c in wiring.FILLED]
    for name, r in found.items():
        columns += [column_name(name, f) for f in (() if isinstance(r, str) else r.outputs)]
    given = inputs if isinstance(inputs, Mapping) else {}
    lists = [shot.length_of(n) for n, t in given.items() if isinstance(t, Mapping) and "room" in t]
    for name in (n for n in lists if n in given):
        yield Problem(("inputs", name), "counts the entries of another input; rename one of them")
    names = _Names([*given, *lists], columns, data)
    for name, table in tables.items():
        for at, text in _check_reducer(table, names, found[name], folder):
            yield Problem(("reducers", name, *at), text)


def _resolved(table: Mapping[str, Any], folder: Path) -> _Any | str:
    """The reducer that a table uses, or what is wrong; nothing of a name that is no text."""
    if not isinstance(table.get("use"), str):
        return ""
    try:
        return resolve.reducer(table["use"], folder)
    except LookupError as e:
        return str(e)


class _Names(NamedTuple):
    """What arguments of reducers may name; which motors there are, only the run knows."""

    inputs: list[str]
    columns: list[str]
    data: Mapping[str, Any]

    def problem(self, name: str) -> str:
        """What is wrong with a name, if anything."""
        if name in self.inputs or name in self.columns or name.startswith("scan/"):
            return ""
        if text := wiring.elsewhere(name, self.data):
            return text
        return f"no input {name!r}; {nearest(name, self.columns if '/' in name else self.inputs)}"


def _check_reducer(
    table: Mapping[str, Any], names: _Names, resolved: _Any | str, folder: Path
) -> Iterator[Problem]:
    found = None if isinstance(resolved, str) else resolved
    if isinstance(resolved, str) and resolved:
        yield Problem(("use",), resolved)
    given = table.get("inputs", {})
    if isinstance(given, str):
        yield from _check_input(given, names, found)
    elif isinstance(given, Mapping):
        yield from _check_inputs(given, names, found)
    params = table.get("params", {})
    if isinstance(params, str):
        yield from _check_function(params, folder)
    elif isinstance(params, Mapping | list):
        yield from _check_params(params, found)


def _check_input(given: str, names: _Names, found: _Any | None) -> Iterator[Problem]:
    if wrong := names.problem(given):
        yield Problem(("inputs",), wrong)
    if found is not None and len(found.inputs) != 1:
        table = ", ".join(f'{a} = "..."' for a in found.inputs)
        yield Problem(("inputs",), f"{found.name} takes several; write {{ {table} }}")


def _check_inputs(given: Mapping[str, Any], names: _Names, found: _Any | None) -> Iterator[Problem]:
    for argument, name in given.items():
        if found is not None and argument not in found.inputs:
            near = nearest(argument, list(found.inputs))
            yield Problem(("inputs", argument), f"no argument of {found.name}; {near}")
        if isinstance(name, str) and (wrong := names.problem(name)):
            yield Problem(("inputs", argument), wrong)
    if found is not None:
        for argument in found.inputs:
            if argument not in given:
                yield Problem(("inputs", argument), f"missing: which input {found.name} gets")


def _check_function(given: str, folder: Path) -> Iterator[Problem]:
    try:
        if not callable(resolve.function(given, folder)):
            yield Problem(("params",), f"{given} is no function of the run")
    except LookupError as e:
        yield Problem(("params",), str(e))


def _check_params(given: Any, found: _Any | None) -> Iterator[Problem]:
    table, wrong = RunTable.parse(given)
    for at, text in wrong:
        yield Problem(("params", *at), text)
    if found is not None:
        for row in table.rows:
            for p in problems.of_parameters(found.params, row.values):
                yield Problem(("params", *row.at, *p.path), p.text)
