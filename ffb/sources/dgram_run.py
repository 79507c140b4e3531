"""A run as datagrams, wherever they come from: bound to inputs, checked against psana, iterated.

**Two speeds, one truth.** The first shots of every run are read in place and decoded by psana;
where a single field differs, psana decodes every shot of the run, and the notes say so.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

from ffb.shot import BeginStep, Field, Idle, Input, Item, length_of
from ffb.source import Constants, RunInfo
from ffb.sources import walk
from ffb.sources.agree import TwoSpeeds
from ffb.sources.dgram_shot import Decoded, InPlace, Moment, Read, Stream
from ffb.sources.fields import CODES, PULSE, Catalogue, wanted
from ffb.sources.gather import Dgrams, Gather
from ffb.sources.learn import Ahead
from ffb.sources.slow import Slow
from ffb.sources.wanted import Role, Wanted
from ffb.sources.xtc2 import Buffer, Configure, Xtc2Error, timestamp
from ffb.sources.xtc2_specs import SHOTS, Service

log = logging.getLogger(__name__)

#: Steps that are remembered for shots which come after the next step has begun.
STEPS_KEPT = 64

_IDLE = Idle()


class Meaning(Protocol):
    """What psana knows about a run, see :class:`ffb.sources.psana.Meaning`."""

    def decode(
        self, *dgrams: Buffer | None, only: Collection[Field] | None = None
    ) -> Mapping[Field, Any]:
        """Every field of a shot, or ``only`` some, segments stacked."""
        ...

    def constants(self, detector: str, geometry: str = "", store: bool = True) -> Constants:
        """See :meth:`ffb.source.Run.constants`."""
        ...


class Meanings(Protocol):
    """Makes the meaning of a run from its Configures, experiment and run number."""

    def __call__(self, configures: Sequence[Buffer], exp: str, run: int, /) -> Meaning:
        """Raise ``ImportError`` without psana, ``ValueError`` for what it cannot read."""
        ...


def prepare(meanings: Meanings | None) -> None:
    """Compile and import, for a source to do before its shots have to wait for it.

    What fails is told by the runs, which fail in the same way.
    """
    walk.compiled()
    first = getattr(meanings, "prepare", None)
    if first is not None:
        with contextlib.suppress(ImportError):
            first()


class DgramRun:
    """Implements :class:`ffb.source.Run` over a stream of datagrams.

    ``begin`` are the BeginRun datagrams, one per Configure. Without ``meanings`` nothing is
    compared with psana, and there are no constants. ``hurried`` says that shots cannot wait, and
    ``mine`` tells by its timestamp whether a shot is to be delivered.
    """

    def __init__(
        self,
        configures: Sequence[Buffer],
        begin: Sequence[Buffer | None],
        stream: Stream,
        meanings: Meanings | None = None,
        hurried: bool = False,
        mine: Callable[[int], bool] | None = None,
    ) -> None:
        self._catalogue = Catalogue([Configure(c) for c in configures])
        self._meanings, self._hurried, self._mine = meanings, hurried, mine
        self._ahead = Ahead(stream, self._catalogue.configures)
        self._notes: list[str] = []
        self.info = self._info(begin)
        if self._catalogue.clock is None:
            self._notes.append("no timing system: pulse ids are 0, event codes are unknown")
        elif not self._catalogue.coded:
            self._notes.append("the timing system tells no event codes")
        if unkept := self._catalogue.unkept:
            self._notes.append(
                f"of each step {', '.join(sorted(unkept))} are not kept: they are not numbers"
            )
        self._known: Meaning | None = None
        self._why_unknown = "" if meanings else "this source was made without psana"
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
        """Numbers of the streams that steps, shots and the bound inputs need."""
        if self._catalogue.clock is None:
            return set(range(len(self._catalogue.configures)))
        used = {s.stream for _, w in self._bound.values() for s in w.segments}
        return used | self._catalogue.step_streams | {self._catalogue.clock.stream}

    @property
    def ended(self) -> str:
        """See :attr:`ffb.source.Run.ended`."""
        return self._ahead.ended

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """What went wrong so far, by detector.

        ``missing``: shots that lacked it or one of its segments; ``misfit``: shots in which a
        field had another shape than declared; ``damaged``: segments of shots that the DAQ marked
        as damaged, but wrote, which psana shows like any other. Of several inputs of a detector
        the worst counts.
        """
        out: dict[str, dict[str, int]] = {}
        for name, counted in self._gather.counts().items():
            worst = out.setdefault(self._bound[name][0].detector, {})
            for what, n in counted._asdict().items():
                worst[what] = max(n, worst.get(what, 0))
        return out

    @property
    def notes(self) -> list[str]:
        """See :attr:`ffb.source.Run.notes`."""
        out = list(self._notes)
        for name, counted in self._gather.counts().items():
            fits = f"of shape {list(self._inputs[name].shape)}"
            if self._bound[name][1].digitized:
                fits += ", or what the digitizer wrote cut short"
            if n := counted.misfit:
                out.append(f"input {name}: in {n} shots not {fits}, counted as absent")
        for detector, worst in self.counts.items():
            if n := worst["damaged"]:
                out.append(f"{detector}: {n} times marked as damaged by the DAQ, used nevertheless")
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
        self,
        fields: Mapping[str, Field],
        shapes: Mapping[str, tuple[int, ...]],
        rooms: Mapping[str, int] | None = None,
        spare: Collection[str] = (),
    ) -> tuple[dict[str, Input], list[str]]:
        """See :meth:`ffb.source.Run.bind`; it waits for shots where it must learn a shape.

        How long is told in :mod:`ffb.sources.learn`.
        """
        problems = []
        for name, field in fields.items():
            try:
                room = (rooms or {}).get(name, 0)
                found, w = self._catalogue.resolve(field, shapes.get(name), room)
                self._bound[name] = found, w
                if w.role != Role.PLAIN:
                    self._bound[length_of(name)] = found, w.counting
            except LookupError as e:
                problems.append(f"input {name}: {e}")
        unknown = {name: fw for name, fw in self._bound.items() if -1 in fw[1].dims}
        learn = self._ahead.learn
        shapes, why = learn(unknown, self._catalogue.slow, spare) if unknown else ({}, {})
        for name, shape in shapes.items():
            field, w = unknown[name]
            learnt = w._replace(dims=shape)
            if w.digitized is None:
                learnt = wanted(field, w.segments, w.type, shape)
            self._bound[name] = field, learnt
            log.info("input=%s shape=%s learnt", name, list(learnt.input.shape))
        for name, sentence in why.items():
            del self._bound[name]
            problems.append(f"input {name}: {sentence}")
        self._make_shots()
        if self._inputs:
            self._meaning()  # now, and not while the first shots wait
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
        told: BeginStep | None = None
        last = -1
        for moment in self._ahead:
            if moment is None:
                yield _IDLE
            elif moment.service in SHOTS:
                if self._mine is not None and not self._mine(moment.timestamp):
                    continue
                if moment.timestamp == last:
                    self._twice += 1
                    continue
                last = moment.timestamp
                if self._speeds.due:
                    self._compare(moment)
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
                values = self._transition(moment, self._catalogue.slow)
                self._slow.update(values, moment.timestamp)

    def _info(self, begin: Sequence[Buffer | None]) -> RunInfo:
        """What BeginRun says."""
        stamps = [timestamp(b) for b in begin if b is not None]
        try:
            values = self._catalogue.transition(begin, ("runinfo",))
        except Xtc2Error as e:
            self._notes.append(f"BeginRun was malformed: {e}")
            values = {}
        about = {f.name: v for f, v in values.items()}
        exp, run = about.get("expt"), about.get("runnum")
        if not (isinstance(exp, str) and isinstance(run, int)):
            self._notes.append("BeginRun does not name both experiment and run")
        return RunInfo(
            exp if isinstance(exp, str) else "",
            run if isinstance(run, int) else 0,
            min(stamps, default=0),
        )

    def _make_shots(self) -> None:
        """Prepare to read the inputs bound by now; the walk is compiled here, if anywhere."""
        self._inputs = {name: w.input for name, (_, w) in self._bound.items()}
        for name, (_, w) in self._bound.items():
            if w.role in (Role.LIST, Role.TEXT):
                self._inputs[name] = self._inputs[name]._replace(length=length_of(name))
        fields = {name: f for name, (f, _) in self._bound.items()}
        slow = {name: f for name, f in fields.items() if f.detector in self._catalogue.slow}
        fast = {name: w for name, (_, w) in self._bound.items() if name not in slow}
        self._slow = Slow({name: self._bound[name] for name in slow})
        streams, clock = len(self._catalogue.configures), self._catalogue.clock
        self._gather = Gather(fast, streams, clock)
        self._shot: InPlace | Decoded = InPlace(
            self._gather, self._slow, self._inputs, self._note_torn
        )
        # compared with psana apart from the shots delivered, which are counted
        probe = Gather(fast, streams, clock)
        own = InPlace(probe, self._slow, self._inputs, self._note_torn)
        told = None
        if clock is not None:
            told = Field(clock.names.detector, clock.names.alg, PULSE)
        codes = told._replace(name=CODES) if told and self._catalogue.coded else None
        known = (n for n, w in fast.items() if w.digitized is None or w.digitized.known)
        asked = {name: fields[name] for name in known}
        self._asked = {*asked.values(), *(f for f in (told, codes) if f is not None)}
        self._decoded = Decoded(
            self._decode,
            self._slow,
            {name: self._bound[name] for name in asked},
            told and (told, codes),
        )
        self._speeds = TwoSpeeds(own, self._decoded, asked, self._inputs, self._hurried)

    def _begin_step(self, moment: Moment) -> BeginStep:
        """Note a new step; its index is what the DAQ says, else counted from where we came in."""
        values = {f.name: v for f, v in self._transition(moment, self._catalogue.scans).items()}
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

    def _transition(self, moment: Moment, detectors: Collection[str]) -> dict[Field, Any]:
        try:
            dgrams = [None if d is None else d.data for d in moment.dgrams]
            return self._catalogue.transition(dgrams, detectors)
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
                    configure.verify(d.data)
        except Xtc2Error as e:
            return e
        return None

    def _decode(self, dgrams: Dgrams) -> Read:
        """Let psana decode a shot."""
        if (flaw := self._flaw(dgrams)) is not None:
            self._note_torn(flaw)
            return {}, {}
        meaning = self._meaning()
        views = [None if d is None else d.data for d in dgrams]
        values = meaning.decode(*views, only=self._asked) if meaning is not None else {}
        return values, self._catalogue.damage(views)

    def _compare(self, moment: Moment) -> None:
        """Read a shot both ways; where they differ, leave the run to psana and say so."""
        if self._meaning() is None:
            self._speeds.stop()
        elif self._flaw(moment.dgrams) is None and (why := self._speeds.differ(moment)):
            self._speeds.stop()
            self._shot = self._decoded
            self._notes.append(
                f"{why} in shot {moment.timestamp}: psana decodes every shot of this run, slowly"
            )
