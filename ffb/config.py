"""Read the configuration of an experiment, and say everything that is wrong with it at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from pydantic import Field, PrivateAttr, ValidationError

from ffb import shot
from ffb.configuration import across, layers, problems
from ffb.configuration.by_run import ByRun
from ffb.configuration.calibration_settings import Calibration, CalibrationConfig, CommonModeConfig
from ffb.configuration.conditions import CodesConfig, DerivedConfig, FilterConfig, LightConfig
from ffb.configuration.detector_settings import Detectors, SlowValues
from ffb.configuration.integrating_settings import IntegratingConfig
from ffb.configuration.photon_settings import PhotonConfig
from ffb.configuration.problems import ConfigError, Problem
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
from ffb.messaging.endpoints import Endpoints

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
    """By detector: files with constants, or "none" for raw ADU; others from psana's store. One
    table, or tables by `runs`."""
    photons: dict[str, ByRun[PhotonConfig]] = Field(default_factory=dict)
    """By input: what makes whole photons of its calibrated pixels before its reducers see them; one
    table, or tables by `runs`."""
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
    wrong = [*across.check(merged, path.parent if path else Path())]
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
