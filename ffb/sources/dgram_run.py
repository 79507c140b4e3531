"""A run as datagrams, wherever they come from: bound to inputs, checked against psana, iterated.

**Two speeds, one truth.** The first shots of every run are read in place and decoded by psana;
where a single field differs, psana decodes every shot of the run, and the notes say so.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ffb.shot import BeginStep, Field, FrameBlock, Idle, Input, Item
from ffb.source import Constants, RunInfo
from ffb.sources.dgram_shot import Decoded, InPlace, Moment, Slow
from ffb.sources.fields import EPICS, SCAN, Catalogue, wanted
from ffb.sources.gather import Dgrams, Gather, Wanted
from ffb.sources.xtc2 import Buffer, Configure, Xtc2Error, timestamp
from ffb.sources.xtc2_specs import Service

#: Services of a shot; the first is one that also ends a batch of the DAQ.
SHOTS = (11, 12)

#: Shots of a run that psana decodes too.
CHECKED = 8

#: How far to look ahead for the shape of a field: shots, seconds from the first, bytes kept.
PEEK_SHOTS, PEEK_SECONDS, PEEK_BYTES = 64, 1.0, 1 << 28

#: Steps that are remembered for shots which come after the next step has begun.
STEPS_KEPT = 64

_IDLE = Idle()

#: Moments of one run from behind its BeginRun, ``None`` when nothing comes; the value it returns
#: says why it ended.
Stream = Generator[Moment | None, None, str]


class Meaning(Protocol):
    """What psana knows about a run, see :class:`ffb.sources.psana.Meaning`."""

    def decode(self, *dgrams: Buffer | None) -> Mapping[Field, Any]:
        """Every field of a shot, segments stacked."""
        ...

    def constants(self, detector: str, geometry: str = "", store: bool = True) -> Constants:
        """See :meth:`ffb.source.Run.constants`."""
        ...


#: Makes the meaning of a run from its Configures, experiment and run number.
Meanings = Callable[[Sequence[Buffer], str, int], Meaning]


class DgramRun:
    """Implements :class:`ffb.source.Run` over a stream of datagrams.

    ``begin`` are the BeginRun datagrams, one per Configure. Without ``meanings`` nothing is
    compared with psana, and there are no constants.
    """

    def __init__(
        self,
        configures: Sequence[Buffer],
        begin: Sequence[Buffer | None],
        stream: Stream,
        meanings: Meanings | None = None,
    ) -> None:
        self._catalogue = Catalogue([Configure(c) for c in configures])
        self._stream, self._meanings = stream, meanings
        about = self._catalogue.transition(begin, "runinfo")
        stamps = [timestamp(b) for b in begin if b is not None]
        self.info = RunInfo(
            str(about.get("expt", "")), int(about.get("runnum", 0)), min(stamps, default=0)
        )
        self.ended = ""
        self._notes: list[str] = [] if about else ["BeginRun names neither experiment nor run"]
        if self._catalogue.clock is None:
            self._notes.append("no timing system: pulse ids are 0, event codes are unknown")
        self._known: Meaning | None = None
        self._why_unknown = "" if meanings else "this source was made without psana"
        self._ahead: deque[Moment] = deque()
        self._steps: deque[BeginStep] = deque(maxlen=STEPS_KEPT)
        self._torn = self._late = self._twice = 0
        self._bound: dict[str, tuple[Field, Wanted]] = {}
        self._make_shots()

    @property
    def fields(self) -> Mapping[Field, str]:
        """See :attr:`ffb.source.Run.fields`."""
        return self._catalogue.fields

    @property
    def motors(self) -> tuple[str, ...]:
        """See :attr:`ffb.source.Run.motors`."""
        return self._catalogue.motors

    @property
    def streams(self) -> set[int]:
        """Numbers of the streams that the bound inputs and the timing system need."""
        used = {s.stream for _, w in self._bound.values() for s in w.segments}
        return used | ({self._catalogue.clock.stream} if self._catalogue.clock else set())

    @property
    def notes(self) -> list[str]:
        """See :attr:`ffb.source.Run.notes`."""
        out = list(self._notes)
        for name, n in self._gather.misfits().items():
            shape = list(self._inputs[name].shape)
            out.append(f"input {name}: in {n} shots not of shape {shape}, counted as absent")
        if n := self._gather.corrupted():
            out.append(f"{n} times the DAQ marked data of a shot as corrupted: none of it was read")
        if self._torn:
            out.append(f"{self._torn} shots were malformed, all their inputs count as absent")
        if self._twice:
            out.append(f"{self._twice} shots came twice in a row, they count once")
        if self._late:
            out.append(f"{self._late} shots came after the step that followed theirs had begun")
        return out

    def bind(
        self, fields: Mapping[str, Field], shapes: Mapping[str, tuple[int, ...]]
    ) -> tuple[dict[str, Input], list[str]]:
        """See :meth:`ffb.source.Run.bind`; it waits for shots where it must learn a shape."""
        problems = []
        for name, field in fields.items():
            try:
                self._bound[name] = self._catalogue.resolve(field, shapes.get(name))
            except LookupError as e:
                problems.append(f"input {name}: {e}")
        unknown = {name: fw for name, fw in self._bound.items() if -1 in fw[1].dims}
        seen = self._learn(unknown) if unknown else 0
        for name, (field, w) in list(self._bound.items()):
            if -1 in w.dims:
                del self._bound[name]
                problems.append(
                    f"input {name}: {field} was in none of the first {seen} shots, so its shape"
                    f" is unknown; declare shape = [...], {w.type.rank} numbers"
                )
        self._make_shots()
        return dict(self._inputs), problems

    def constants(self, detector: str, geometry: str = "", store: bool = True) -> Constants:
        """See :meth:`ffb.source.Run.constants`."""
        meaning = self._meaning()
        if meaning is None:
            raise LookupError(f"{detector}: no constants, {self._why_unknown}")
        return meaning.constants(detector, geometry, store)

    def __iter__(self) -> Iterator[Item]:
        """See :meth:`ffb.source.Run.__iter__`.

        A shot that comes after the next step has begun is preceded by its own step once more,
        and the shot after it by the newer one.
        """
        unchecked = CHECKED if self._inputs and self._meanings else 0
        told: BeginStep | None = None
        last = -1
        for moment in self._moments():
            if moment is None:
                yield _IDLE
            elif moment.service in SHOTS:
                if moment.timestamp == last:
                    self._twice += 1
                    continue
                last = moment.timestamp
                if unchecked:
                    unchecked = unchecked - 1 if self._agree(moment) else 0
                self._shot.show(moment)
                step = self._steps[-1] if self._steps else None
                if step is not None and moment.timestamp < step.timestamp:
                    step = self._step_at(moment.timestamp)
                if step is not told and step is not None:
                    told = step
                    yield step
                yield self._shot
            elif moment.service == Service.BEGIN_STEP:
                told = self._begin_step(moment)
                yield told
            elif moment.service == Service.SLOW_UPDATE:
                self._slow.update(self._transition(moment, EPICS))

    def _moments(self) -> Iterator[Moment | None]:
        """First what was looked at ahead, then the stream."""
        while self._ahead:
            yield self._ahead.popleft()
        self.ended = self.ended or (yield from self._stream)

    def _make_shots(self) -> None:
        """Prepare to read the inputs bound by now; the walk is compiled here, if anywhere."""
        self._inputs = {name: w.input for name, (_, w) in self._bound.items()}
        slow = {name: f.name for name, (f, _) in self._bound.items() if f.detector == EPICS}
        fast = {name: w for name, (_, w) in self._bound.items() if name not in slow}
        self._slow = Slow(slow, self._inputs)
        streams, clock = len(self._catalogue.configures), self._catalogue.clock
        self._gather = Gather(fast, streams, clock)
        self._shot: InPlace | Decoded = InPlace(
            self._gather, self._slow, self._inputs, self._note_torn
        )
        # compared with psana apart from the shots delivered, which are counted
        probe = Gather(fast, streams, clock)
        self._probe = InPlace(probe, self._slow, self._inputs, self._note_torn)
        which = (clock.names.detector, clock.names.alg) if clock else ("", "")
        self._decoded = Decoded(
            self._decode,
            self._slow,
            {name: (self._bound[name][0], self._inputs[name]) for name in fast},
            (Field(*which, "pulseId"), Field(*which, "sequenceValues")) if clock else None,
        )

    def _learn(self, unknown: dict[str, tuple[Field, Wanted]]) -> int:
        """Read ahead until the shapes of ``unknown`` are known; gives the number of shots seen.

        Waits for the first shot as long as the run lasts.
        """
        shots, kept, since = 0, 0, 0.0
        while unknown and shots < PEEK_SHOTS and kept < PEEK_BYTES:
            if shots and time.monotonic() - since > PEEK_SECONDS:
                break
            try:
                moment = next(self._stream)
            except StopIteration as e:
                self.ended = e.value
                break
            if moment is None:
                continue
            copies = [None if d is None else d.copy() for d in moment.dgrams]
            self._ahead.append(moment._replace(dgrams=copies))
            kept += sum(d.size for d in copies if d is not None)
            if moment.service in SHOTS:
                since = since or time.monotonic()
                shots += 1
            self._shapes(copies, unknown)
        return shots

    def _shapes(self, dgrams: Dgrams, unknown: dict[str, tuple[Field, Wanted]]) -> None:
        """Take the shapes of ``unknown`` fields from a shot or SlowUpdate, if they are in it."""
        for name, (field, w) in list(unknown.items()):
            stream, names = w.segments[0]
            dgram = dgrams[stream]
            if dgram is None:
                continue
            try:
                found = self._catalogue.configures[stream].decode(dgram.data)
            except Xtc2Error:
                continue  # counted when the shot is delivered
            key = (names.detector, names.alg, names.segment)
            if (value := found.get(key, {}).get(field.name)) is not None:
                learnt = wanted(field, w.segments, w.type, np.shape(value))
                self._bound[name] = (field, learnt)
                del unknown[name]
                self._notes.append(f"input {name}: shape {list(learnt.input.shape)} learnt")

    def _begin_step(self, moment: Moment) -> BeginStep:
        """Note a new step; its index is what the DAQ says, else counted from where we came in."""
        values = self._transition(moment, SCAN)
        text = str(values.get("step_docstring", ""))
        try:
            index = json.loads(text)["step"]
        except (ValueError, KeyError, TypeError):
            index = None
        if not isinstance(index, int):
            index = self._steps[-1].step + 1 if self._steps else 0
        numbers = {m: float(v) for m in self.motors if isinstance(v := values.get(m), (int, float))}
        step = BeginStep(index, numbers, text, moment.timestamp)
        self._steps.append(step)
        return step

    def _step_at(self, stamp: int) -> BeginStep | None:
        """Find the step that a late shot belongs to."""
        self._late += 1
        return next((s for s in reversed(self._steps) if s.timestamp <= stamp), None)

    def _transition(self, moment: Moment, detector: str) -> dict[str, Any]:
        try:
            dgrams = [None if d is None else d.data for d in moment.dgrams]
            return self._catalogue.transition(dgrams, detector)
        except Xtc2Error as e:
            self._notes.append(f"a transition at {moment.timestamp} was malformed: {e}")
            return {}

    def _note_torn(self, error: Xtc2Error) -> None:
        if not self._torn:
            self._notes.append(f"shot {self._shot.timestamp}: {error}")
        self._torn += 1

    def _meaning(self) -> Meaning | None:
        """What psana knows, made when first needed; a note says why there is none."""
        if self._known is None and self._meanings is not None and not self._why_unknown:
            data = [c.data for c in self._catalogue.configures]
            try:
                self._known = self._meanings(data, self.info.exp, self.info.run)
            except (ImportError, ValueError) as e:
                self._why_unknown = f"psana cannot be asked: {e}"
                self._notes.append(self._why_unknown)
        return self._known

    def _flaw(self, dgrams: Dgrams) -> Xtc2Error | None:
        """What is malformed in a shot, anywhere; psana's C++ would end the process over it."""
        try:
            for configure, d in zip(self._catalogue.configures, dgrams, strict=True):
                if d is not None:
                    configure.decode(d.data)
        except Xtc2Error as e:
            return e
        return None

    def _decode(self, dgrams: Dgrams) -> Mapping[Field, Any]:
        """Let psana decode a shot."""
        if (flaw := self._flaw(dgrams)) is not None:
            self._note_torn(flaw)
            return {}
        meaning = self._meaning()
        views = (None if d is None else d.data for d in dgrams)
        return meaning.decode(*views) if meaning is not None else {}

    def _agree(self, moment: Moment) -> bool:
        """Read a shot both ways; where they differ, leave the run to psana and say so."""
        if self._meaning() is None:
            return False
        if self._flaw(moment.dgrams) is not None:
            return True  # nothing to compare
        block = FrameBlock(self._inputs, 1)
        self._probe.show(moment)
        self._probe.fill(block, 0)
        self._decoded.show(moment)
        if (why := self._difference(block)) is None:
            return True
        self._shot = self._decoded
        self._notes.append(
            f"{why} in shot {moment.timestamp}: psana decodes every shot of this run, slowly"
        )
        return False

    def _difference(self, block: FrameBlock) -> str | None:
        """Say where the two readings of the present shot differ, ``None`` if nowhere."""
        clock = self._decoded.clock()
        same = bool(block.timed[0]) == (clock is not None)
        if clock is not None:
            words = clock[1][: block.codes.shape[1]]
            same &= clock[0] == block.pulse_id[0]
            same &= bool((words == block.codes[0, : len(words)]).all())
        if not same:
            return "the timing system was read in place otherwise than by psana"
        for name, (field, w) in self._bound.items():
            if field.detector == EPICS:
                continue
            theirs = self._decoded.frame(name)
            ours = block.frames[name][0] if w.kind == "value" else None
            if w.kind == "area" and (parts := self._probe.segments(name)) is not None:
                ours = np.stack(parts).reshape(self._inputs[name].shape)
            if not block.present[0, block.index[name]]:
                ours = None
            if (ours is None) != (theirs is None) or (
                ours is not None and theirs is not None and ours.tobytes() != theirs.tobytes()
            ):
                return f"input {name} ({field}) was read in place otherwise than by psana"
        return None
