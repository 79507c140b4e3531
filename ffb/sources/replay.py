"""A capture as a source: what producers once sent becomes shots again, a column an input.

A capture holds the messages of all producers as they came, so a run may go on in one producer
while another has begun the next. Runs are therefore sorted out by what each message says of
itself, and steps by the ``step`` of each row. Event codes are not recorded: the lights are there
as the columns ``lightStatus/...``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ffb.batch import Batch
from ffb.schema import PULSE_ID, STEP, TIMESTAMP, Schema
from ffb.shot import BeginStep, Field, Input, Item
from ffb.source import Constants, RunInfo
from ffb.sources.plain import Binding, PlainShot, Stop, share
from ffb.wire import Decoder, EndRun, Header, Message
from ffb.writers.capture import read_capture

log = logging.getLogger(__name__)

#: What a configuration writes as the detector of a column.
CAPTURE = "capture"

#: Columns that hold a motor's value begin so.
SCAN = "scan/"


class ReplayRun:
    """One run of a capture; its fields are ``Field("", "", column)``."""

    def __init__(
        self, source: ReplaySource, info: RunInfo, schema: Schema, mine: Callable[[int], bool]
    ) -> None:
        self.info, self.ended = info, ""
        self._source, self._mine = source, mine
        self._columns = schema.columns
        self._binding = Binding(
            {
                Field("", "", c.name): Input("value", c.dtype, c.shape, c.unit, c.doc)
                for c in schema.columns
            }
        )
        self.motors = tuple(
            c.name.removeprefix(SCAN) for c in schema.columns if c.name.startswith(SCAN)
        )
        self.notes = ["replayed: event codes are not recorded, lights are columns"]

    @property
    def fields(self) -> Mapping[Field, str]:
        """Every column, with its type, unit and meaning."""
        return {
            Field("", "", c.name): f"{c.dtype}{list(c.shape)} [{c.unit}] {c.doc}".strip()
            for c in self._columns
        }

    def bind(
        self,
        fields: Mapping[str, Field],
        shapes: Mapping[str, tuple[int, ...]],
        rooms: Mapping[str, int] | None = None,
        spare: Collection[str] = (),
    ) -> tuple[dict[str, Input], list[str]]:
        """See :meth:`ffb.source.Run.bind`; a configuration calls the detector ``"capture"``."""
        named = {name: _column(f) for name, f in fields.items()}
        return self._binding.bind(named, shapes, rooms)

    def constants(self, detector: str, geometry: str = "", store: bool = True) -> Constants:
        """Raise ``LookupError``: features need no calibration."""
        raise LookupError(f"{detector}: a capture holds features, it has no constants to give")

    def __iter__(self) -> Iterator[Item]:
        """Give out the rows in the order in which the messages came."""
        steps: dict[int, BeginStep] = {}
        told: int | None = None
        reasons: list[str] = []
        for message in self._source.messages(self.info):
            body = message.body
            if isinstance(body, BeginStep) and body.step not in steps:
                steps[body.step] = body
                told = body.step
                yield body
            elif isinstance(body, EndRun):
                reasons.append(body.ended)
            elif isinstance(body, Batch):
                for step, shot in self._shots(body):
                    if self._source.stopped:
                        break
                    if step not in (told, -1):
                        told = step
                        yield steps.setdefault(step, BeginStep(step))
                    yield shot
            if self._source.stopped:
                self.ended = "stopped"
                return
        worst = sorted(reasons, key=lambda r: r == "end of run")
        self.ended = (worst or ["no end of run: the capture ends before it"])[0]

    def _shots(self, batch: Batch) -> Iterator[tuple[int, PlainShot]]:
        """Rows of this producer's share, each with its step."""
        columns = batch.columns
        wanted = {
            name: (columns[f.name], _flag(batch, f.name))
            for name, f in self._binding.fields.items()
            if f.name in columns
        }
        for i in range(batch.n):
            stamp = int(columns[TIMESTAMP.name][i])
            if self._mine(stamp):
                frames = {
                    name: column[i] if flag is None or flag[i] else None
                    for name, (column, flag) in wanted.items()
                }
                pulse_id = int(columns[PULSE_ID.name][i])
                yield int(columns[STEP.name][i]), PlainShot(stamp, frames, pulse_id)


def _column(field: Field) -> Field:
    """Undo what a configuration makes of a column's name, which may hold dots."""
    if field.detector != CAPTURE:
        return field
    return Field("", "", field.name if field.alg == "raw" else f"{field.alg}.{field.name}")


def _flag(batch: Batch, name: str) -> NDArray[Any] | None:
    """Find the column that says whether ``name`` was present, ``None`` if there is none."""
    for flag in batch.schema.by_name[name].flags:
        if flag in batch.columns and flag != name:
            return batch.columns[flag]
    return None


class ReplaySource:
    """The runs of a capture at ``path``, in the order in which they began.

    Raises ``FileNotFoundError`` where there is none, and ``ValueError`` for a file that is no
    capture.
    """

    #: The rows are on disk: they can wait.
    live = False

    def __init__(self, path: str | PathLike[str], producer: int = 0, producers: int = 1) -> None:
        self.path = Path(path)
        self._mine = share(producer, producers)
        self._stop = Stop()
        next(read_capture(self.path), None)

    @property
    def stopped(self) -> bool:
        """Whether ``stop`` was called."""
        return self._stop.is_set()

    def runs(self) -> Iterator[ReplayRun]:
        """Yield one run after the other."""
        seen: set[tuple[str, int]] = set()
        for message in self.messages():
            header = message.header
            if self.stopped:
                return
            if header.kind == "begin_run" and (header.exp, header.run) not in seen:
                seen.add((header.exp, header.run))
                assert message.schema is not None  # the decoder sees to it
                info = RunInfo(header.exp, header.run, header.began)
                yield ReplayRun(self, info, message.schema, self._mine)

    def messages(self, info: RunInfo | None = None) -> Iterator[Message]:
        """Decode the messages of one run, or of all; those that were sent again come once.

        Damage ends them, with a line in the log.
        """
        decode, newest = Decoder(), dict[tuple[str, int], int]()
        try:
            for frames in read_capture(self.path):
                message = decode(frames)
                header = message.header
                if _is_again(header, newest):
                    continue
                if info is None or (header.exp, header.run) == (info.exp, info.run):
                    if isinstance(message.body, Batch):
                        message.body.unpack()
                    yield message
        except ValueError as e:
            log.warning("replay ends early: %s", e)

    def stop(self) -> None:
        """End the run at the next shot and come to no other."""
        self._stop.set()

    def close(self) -> None:
        """Stop; every reader closes the file by itself."""
        self._stop.set()


def _is_again(header: Header, newest: dict[tuple[str, int], int]) -> bool:
    """Whether a message was sent before, by the numbers its producer gave out."""
    who = header.producer, header.epoch
    if header.seq and header.seq <= newest.get(who, 0):
        return True
    newest[who] = max(header.seq, newest.get(who, 0))
    return False
