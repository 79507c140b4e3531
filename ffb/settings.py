"""What the file of an experiment may say: tables and keys with types, defaults and meaning.

Every model forbids unknown keys; the text under each field is its description in the JSON Schema
and in messages. :func:`ffb.config.load` reads files into a :class:`Config`.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    PrivateAttr,
    Strict,
    Tag,
    WithJsonSchema,
)

from ffb import shot
from ffb.endpoints import Endpoints
from ffb.runs import RunTable

T = TypeVar("T")
#: A TOML list; its items keep their strict types.
List = Annotated[tuple[T, ...], Strict(False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Code = Annotated[int, Field(ge=0, lt=16 * shot.CODE_WORDS)]
Endpoint = Annotated[str, Field(pattern=r"^$|^(ipc|tcp|inproc)://.+$")]


class Table(BaseModel):
    """A table of the file: unknown keys are errors, values keep their type."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True
    )


class PsanaConfig(Table):
    """The DAQ's own stream through psana: shared memory, or files of an experiment."""

    kind: Literal["psana"]
    exp: Annotated[str, Field(min_length=4)]
    """Experiment, such as "mfxx49820"."""
    shmem: str = ""
    """Tag of the DAQ's shared memory on this node, such as "psana0"."""
    dir: str = ""
    """Folder with the experiment's xtc2 files, instead of shared memory."""
    live: bool = False
    """Whether the files in `dir` are still growing."""
    run: int | None = None
    """The run to read from `dir`; without it, every run that appears there."""


class FilesConfig(Table):
    """xtc2 files that are complete."""

    kind: Literal["files"]
    paths: List[str] = ()
    """The files, each a stream of runs of its own."""
    exp: str = ""
    """Experiment, where the files are found by `dir`, `exp` and `run`."""
    dir: str = ""
    """Folder with the experiment's xtc2 files."""
    run: int | None = None
    """The run to read from `dir`."""


class SyntheticConfig(Table):
    """Shots made here, of known truth; can misbehave on request."""

    kind: Literal["synthetic"]
    exp: Annotated[str, Field(min_length=4)] = "tstx00001"
    """Experiment to pretend."""
    run: Count = 1
    """Number of the first run."""
    runs: Count = 1
    """How many runs follow each other."""
    steps: Count = 1
    """Steps of each run's scan."""
    shots: Count = 1000
    """Shots of each run."""
    rate: Annotated[float, Field(ge=0)] = 120.0
    """Shots per second; 0 is as fast as possible."""
    seed: int = 0
    """Equal seeds make equal runs."""
    missing: Fraction = 0.0
    """Fraction of shots that lack a detector."""
    backwards: Fraction = 0.0
    """Fraction of shots whose timestamp lies before that of the shot before."""
    cut: bool = False
    """Whether the stream breaks off without an end of run."""


class ReplayConfig(Table):
    """A capture of messages, read back."""

    kind: Literal["replay"]
    path: str
    """The capture."""


SourceConfig = Annotated[
    PsanaConfig | FilesConfig | SyntheticConfig | ReplayConfig, Field(discriminator="kind")
]


class InputConfig(Table):
    """A detector field under a short name."""

    detector: Annotated[str, Field(min_length=1)]
    """Detector as the DAQ names it."""
    field: Annotated[str, Field(min_length=1)]
    """Field of the detector: "raw", or "ttfex.fltpos" where it is not psana's `raw` interface."""
    shape: List[Count] | None = None
    """Shape of a frame, where the detector's configuration does not tell it."""
    unit: str = "1"
    """Unit of the values."""
    doc: str = ""
    """What it is, in a few words."""
    record: bool = False
    """Whether to store the input itself as a column under its name."""

    @property
    def source(self) -> shot.Field:
        """The field in the detector's own words; without a dot it belongs to ``raw``."""
        alg, dot, name = self.field.partition(".")
        return (
            shot.Field(self.detector, alg, name) if dot else shot.Field(self.detector, "raw", alg)
        )


def _tag(value: object) -> str:
    return "<table>" if isinstance(value, dict) else "<text>"


def _params(value: object) -> object:
    if not isinstance(value, dict | list | str):
        raise ValueError(
            f'expected a table, tables with `runs`, or "./file.py:function"; got {value!r}'
        )
    return value


Params = Annotated[
    Any,
    PlainValidator(_params),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "object"},
                {"type": "array", "items": {"type": "object", "required": ["runs"]}},
                {"type": "string", "pattern": ":"},
            ]
        }
    ),
]


class ReducerConfig(Table):
    """A reducer at work: which one, on which inputs, with which parameters."""

    use: Annotated[str, Field(min_length=1)]
    """An installed reducer ("roi"), "package.module:name", or "./file.py:name"."""
    inputs: Annotated[
        Annotated[str, Tag("<text>")] | Annotated[dict[str, str], Tag("<table>")],
        Discriminator(_tag),
    ] = Field(default_factory=dict)
    """Argument of the reducer -> name of an input; the name alone for a reducer with one input."""
    params: Params = Field(default_factory=dict)
    """One table, tables each with `runs`, or "./file.py:function" of the run."""

    @property
    def function(self) -> str:
        """``"./file.py:function"`` that gives the parameters of a run; ``""`` for tables."""
        return self.params if isinstance(self.params, str) else ""

    @cached_property
    def table(self) -> RunTable:
        """Parameters by run range; empty where a function gives them."""
        return RunTable(()) if self.function else RunTable.parse(self.params)[0]

    def params_for(self, run: int) -> dict[str, Any]:
        """Give the parameters of ``run`` as plain data.

        Raises ``LookupError`` naming the known ranges where none covers the run, and
        ``TypeError`` where a function gives them (see :attr:`function`).
        """
        if self.function:
            raise TypeError(f"{self.function} gives these parameters: call it with the run")
        return dict(self.table.for_run(run))


class CalibrationConfig(Table):
    """Constants of one detector from files, instead of psana's store."""

    pedestals: str = ""
    """File with pedestals in ADU."""
    gain: str = ""
    """File with gains in ADU per `unit`."""
    offset: str = ""
    """File with offsets in ADU, added to the pedestals."""
    status: str = ""
    """File with the pixel status, nonzero is bad."""
    geometry: str = ""
    """File with psana's geometry."""
    mask: str = ""
    """File with a mask, 0 is bad, ANDed with all others."""
    edges: Annotated[int, Field(ge=0)] = 0
    """Rows and columns to mask along the edges of every segment."""
    unit: str = "keV"
    """Unit of the calibrated values."""


class CodesConfig(Table):
    """Event codes that tell one light's state.

    A shot with an `off` code is off. Otherwise one with an `on` code is on. With neither it is
    on where only `off` codes are given, off where only `on` codes are, unknown where both are.
    """

    on: List[Code] = ()
    """Codes of shots with light."""
    off: List[Code] = ()
    """Codes of shots without."""


class LightConfig(Table):
    """Which event codes mean light."""

    xray: CodesConfig = CodesConfig()
    """The FEL beam."""
    laser: CodesConfig = CodesConfig()
    """The optical laser."""


class BatchConfig(Table):
    """When a producer sends what it has."""

    shots: Count = 100
    """Shots of a full batch."""
    age_ms: Annotated[float, Field(gt=0)] = 50.0
    """Milliseconds after which a batch goes although it is not full."""


class AggregationConfig(Table):
    """How the aggregator orders and commits."""

    horizon_ms: Annotated[float, Field(ge=0)] = 2000.0
    """Milliseconds to wait for slower producers, so that rows come in timestamp order."""
    commit_ms: Annotated[float, Field(gt=0)] = 100.0
    """Milliseconds between commits."""
    end_timeout_s: Annotated[float, Field(gt=0)] = 30.0
    """Seconds to wait at the end of a run for producers that have not said it ended."""


class TransportConfig(Table):
    """Where the processes meet."""

    aggregator: Endpoint = ""
    """ZMQ endpoint of the aggregator; without it a socket in a private folder of this machine."""
    views: Endpoint = ""
    """ZMQ endpoint on which snapshots are published; likewise."""
    window_mb: Annotated[float, Field(gt=0)] = 128.0
    """Megabytes of uncommitted batches a producer keeps before it waits or sheds."""


class WriterConfig(Table):
    """Where the small data goes."""

    scratch: str = "."
    """The experiment's scratch folder, `{scratch}` below; may use `{exp}` and `{hutch}`."""
    directory: str = "{scratch}/hdf5/smalldata"
    """Folder of the files; may use `{scratch}`, `{exp}` and `{hutch}`."""
    name: str = "{exp}_Run{run:04d}.h5"
    """Name of a run's file; may use `{exp}`, `{hutch}` and `{run}`."""
    compression: Literal["none"] = "none"
    """Compression of the columns."""


class DashboardConfig(Table):
    """Where the page is served."""

    port: Annotated[int, Field(ge=0, lt=65536)] = 5006
    """Port of the page; 0 takes a free one."""
    address: str = "127.0.0.1"
    """Address to listen on."""


class RunConfig(Table):
    """What `ffb run` starts."""

    producers: Count = 2
    """Producers on this machine."""
    dashboard: bool = True
    """Whether to serve the page."""


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
    calibration: dict[
        str,
        Annotated[
            Annotated[Literal["none"], Tag("<text>")]
            | Annotated[CalibrationConfig, Tag("<table>")],
            Discriminator(_tag),
        ],
    ] = Field(default_factory=dict)
    """By detector: files with constants, or "none" for raw ADU; others from psana's store."""
    light: LightConfig = LightConfig()
    """Event codes of the lights."""
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

    def locate(self, path: str) -> Path:
        """``path`` with ``~`` expanded and, if relative, seen from the configuration file."""
        folder = self._path.parent if self._path else Path()
        return folder / Path(path).expanduser()

    def file(self, exp: str, run: int) -> Path:
        """Path of the small data of ``run``."""
        names = {"exp": exp, "hutch": self.hutch or exp[:3], "run": run}
        scratch = self.writer.scratch.format(**names)
        folder = self.writer.directory.format(scratch=scratch, **names)
        return self.locate(folder) / self.writer.name.format(**names)

    def endpoints(self) -> Endpoints:
        """Where the processes meet; makes the private folder of the sockets if one is needed.

        The folder is this user's alone and named after experiment and file, so that two services
        never meet by accident. Raises ``PermissionError`` when somebody else prepared it.
        """
        given = Endpoints(self.transport.aggregator, self.transport.views)
        return given.complete(self.exp or "ffb", str(self._path and self._path.resolve()))
