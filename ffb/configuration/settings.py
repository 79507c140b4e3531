"""The tables that the file of an experiment may hold: keys with types, defaults and meaning.

Every model forbids unknown keys; the text under each field is its description in the JSON Schema
and in messages. :class:`ffb.config.Config` puts them together.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    Strict,
    Tag,
    WithJsonSchema,
    model_validator,
)

from ffb import shot
from ffb.configuration.runs import RunTable
from ffb.messaging.endpoints import IPC_LENGTH

T = TypeVar("T")
#: A TOML list; its items keep their strict types.
List = Annotated[tuple[T, ...], Strict(False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Codec = Literal["none", "bitshuffle-lz4", "bitshuffle-zstd"]


def _endpoint(value: str) -> str:
    kind, found, rest = value.partition("://")
    if value and not (found and rest and kind in {"ipc", "tcp", "inproc"}):
        raise ValueError(f'expected "ipc://path" or "tcp://host:port", got {value!r}')
    if kind == "ipc" and len(rest) > IPC_LENGTH:
        raise ValueError(f"socket paths end at {IPC_LENGTH} characters, this has {len(rest)}")
    return value


def _template(*known: str) -> AfterValidator:
    """Refuse texts that :meth:`ffb.config.Config.file` could not fill in."""

    def check(value: str) -> str:
        if "$" in value:
            raise ValueError(
                f"environment variables are not filled in: write {value!r} out, or give it on the"
                " command line, where the shell does it: --set writer.scratch=$SCRATCH"
            )
        try:
            value.format(**{k: 1 if k == "run" else k for k in known})
        except (ValueError, LookupError, AttributeError) as e:
            names = ", ".join(f"{{{k}}}" for k in known)
            raise ValueError(f"cannot fill in {value!r}; known: {names}") from e
        return value

    return AfterValidator(check)


def _per_run(value: str) -> str:
    if "{run" not in value or "/" in value:
        raise ValueError(f"expected a file name with {{run}} in it, got {value!r}")
    return value


Endpoint = Annotated[str, AfterValidator(_endpoint)]


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

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if bool(self.shmem) == bool(self.dir):
            both = ", not both" if self.dir else ""
            places = 'shmem = "tag" for live data, or dir = "folder" for files'
            raise ValueError(f"give {places}{both}")
        if self.live and not self.dir:
            raise ValueError("live = true is for growing files; name their dir")
        return self


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
    """The run to read from `dir`; without it, all that are there."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if bool(self.paths) == bool(self.dir and self.exp):
            raise ValueError("needs paths = [...], or both dir and exp")
        return self


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
    """Shots of each run, over all its steps."""
    rate: Annotated[float, Field(ge=0)] = 120.0
    """Shots per second; 0 is as fast as possible."""
    seed: int = 0
    """Equal seeds make equal runs."""
    shape: Annotated[tuple[Count, Count, Count], Strict(False)] = (2, 64, 128)
    """Segments, rows and columns of the area detector."""
    missing: dict[str, Fraction] = Field(default_factory=dict)
    """By detector, the fraction of shots that lack it; "timing" is one of them."""
    backwards: Fraction = 0.0
    """Fraction of shots whose timestamp lies before that of the shot before."""
    repeated: Fraction = 0.0
    """Fraction of shots with the timestamp of the shot before."""
    cut: bool = False
    """Whether each run breaks off half way, without an end."""
    slow: Annotated[int, Field(ge=0)] = 0
    """Shots for each frame of a slow camera, "andor", that sees the light of all of them."""


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
    room: Count | None = None
    """Room for the entries of an array whose length changes, or for the bytes of a string."""
    unit: str = "1"
    """Unit of the values."""
    doc: str = ""
    """What it is, in a few words."""
    record: bool = False
    """Whether to store the input itself as a column under its name."""
    unpack: bool = False
    """Whether to store the bits of its words, lowest first, each as a number 0 or 1."""

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if self.shape and self.room:
            raise ValueError("shape is for frames of one shape, room for lists: state one of them")
        return self

    @property
    def source(self) -> shot.Field:
        """The field in the detector's own words; without a dot it belongs to ``raw``."""
        alg, dot, name = self.field.partition(".")
        return (
            shot.Field(self.detector, alg, name) if dot else shot.Field(self.detector, "raw", alg)
        )


def tag(value: object) -> str:
    """Tell a table from a text, where either will do."""
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
        Discriminator(tag),
    ] = Field(default_factory=dict)
    """Argument of the reducer -> name of an input, or of a column that is filled before it runs:
    "lightStatus/xray", "step", "scan/lxt", a feature such as "spot/sum". The name alone will do for
    a reducer with one input."""
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


class BatchConfig(Table):
    """When a producer sends what it has."""

    shots: Count = 128
    """Shots of a full batch."""
    together: Annotated[int, Field(ge=1, le=16)] = 1
    """Shots of an area detector that are reduced together, row by row, so that constants and sums
    over shots cross memory once for all of them; fewer when a batch is closed. The numbers are the
    same. Frames are copied for it, which costs as much as light reducers gain: 1 is best without
    sums; with sums of values and of squares 4 are 1.3 times as fast on 4 Mpx."""
    age_ms: Annotated[float, Field(gt=0)] = 50.0
    """Milliseconds after which a batch goes although it is not full."""
    sums_s: Annotated[float, Field(gt=0)] = 30.0
    """Seconds between two deltas of sums; shots of one that a killed producer had not sent are
    missing in the sums, which say so."""


class AggregationConfig(Table):
    """How the aggregator orders and commits."""

    horizon_ms: Annotated[float, Field(ge=0)] = 2000.0
    """Milliseconds to wait for slower producers, so that rows come in timestamp order."""
    horizon_shots: Count = 1 << 20
    """Rows that may wait so; the oldest go on when there are more."""
    commit_ms: Annotated[float, Field(gt=0)] = 50.0
    """Milliseconds between commits."""
    end_timeout_s: Annotated[float, Field(gt=0)] = 30.0
    """Seconds to wait at the end of a run for producers that have not said it ended."""
    capture: str = ""
    """Folder in which to record every message, for `ffb replay`; without it nothing is recorded."""


class TransportConfig(Table):
    """Where the processes meet."""

    aggregator: Endpoint = ""
    """ZMQ endpoint of the aggregator; without it a socket in a private folder of this machine."""
    views: Endpoint = ""
    """ZMQ endpoint on which snapshots are published; likewise."""
    public_key: str = ""
    """File with the aggregator's public CURVE key (from `zmq.auth.create_certificates`), needed by
    producers and pages on other hosts."""
    secret_key: str = ""
    """File with the aggregator's secret CURVE key, needed to be reached from other hosts."""
    window_mb: Annotated[float, Field(gt=0)] = 128.0
    """Megabytes of uncommitted batches a producer keeps before it waits or sheds."""
    ring: bool = True
    """Whether producers keep them in /dev/shm as well, so that a killed one loses none of them."""


class WriterConfig(Table):
    """Where the small data goes."""

    scratch: Annotated[str, _template("exp", "hutch")] = "."
    """The experiment's scratch folder, `{scratch}` below; may use `{exp}` and `{hutch}`. Or the
    name of a site: "psffb" is /cds/data/drpsrcf/{hutch}/{exp}/scratch, "s3df" and "s3df-ffb" are
    /sdf/data/lcls/ds/{hutch}/{exp}, "laptop" is ~/ffb/{hutch}/{exp}."""
    directory: Annotated[str, _template("scratch", "exp", "hutch")] = "{scratch}/hdf5/smalldata"
    """Folder of the files; may use `{scratch}`, `{exp}` and `{hutch}`."""
    name: Annotated[str, _template("exp", "hutch", "run"), AfterValidator(_per_run)] = (
        "{exp}_Run{run:04d}.h5"
    )
    """Name of a run's file; may use `{exp}`, `{hutch}` and `{run}`."""
    compression: Codec = "none"
    """Compression of array columns, done by the producers."""
    segment_rows: Annotated[int, Field(ge=1024, multiple_of=1024)] = 1 << 20
    """Rows after which a new file segment begins."""
    segment_s: Annotated[float, Field(gt=0)] = 600.0
    """Seconds after which a new file segment begins."""
    sync_s: Annotated[float, Field(ge=0)] = 1.0
    """Seconds of rows that a power failure may cost; 0 syncs every commit before it counts."""
    merge: bool = True
    """Whether to make one plain file of a run that has ended."""
    reserve_gb: Annotated[float, Field(ge=0)] = 1.0
    """Gigabytes that stay free: below it no run is begun and no rows are written, until there is
    room again or the service is stopped, which may use them to end what is open."""
    warn_gb: Annotated[float, Field(ge=0)] = 10.0
    """Gigabytes free below which the page and the terminal show an alarm."""


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
    logs: str = ""
    """Folder in which each start makes one for the logs of its processes; without it they go to a
    temporary one."""
