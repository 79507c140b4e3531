"""Look ahead in a stream for shapes that no configuration tells; what was taken is given out later.

How far is bounded: a field is learnt, or refused, in finite time after the first shot. For the
first shot itself there is no bound, since a DAQ may pause between BeginRun and Enable; a source
that is stopped ends its stream, and with it the waiting.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence

from ffb.shot import Field
from ffb.sources import digitizer
from ffb.sources.dgram_shot import Moment, Stream
from ffb.sources.fields import LIST_SENTENCE, PICTURES, RAGGED_SENTENCE
from ffb.sources.gather import Dgrams
from ffb.sources.wanted import Digitized, Wanted
from ffb.sources.xtc2 import Configure, Xtc2Error
from ffb.sources.xtc2_specs import SHOTS

#: How far to look: shots, seconds from the first, bytes kept.
SHOTS_AHEAD, SECONDS_AHEAD, BYTES_AHEAD = 64, 1.0, 1 << 28

#: Seconds from the first shot for what comes with SlowUpdates, one a second.
SLOW_SECONDS = 2.5

#: Shots over which the shape of an array must stay the same, unless it is a picture's.
CONFIRM = 8


class Ahead:
    """A stream that can be looked at ahead. ``ended`` is why it ended, once it did."""

    def __init__(self, stream: Stream, configures: Sequence[Configure]) -> None:
        self._stream, self._configures = stream, configures
        self._taken: deque[Moment] = deque()
        self.ended = ""

    def __iter__(self) -> Iterator[Moment | None]:
        """Give first what was taken, then the rest."""
        while self._taken:
            yield self._taken.popleft()
        if not self.ended:
            self.ended = yield from self._stream

    def learn(
        self,
        unknown: Mapping[str, tuple[Field, Wanted]],
        slow: Collection[str],
        spare: Collection[str] = (),
    ) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
        """Learn shapes; gives them, and for each other name why it has none.

        ``slow`` are detectors whose values come with SlowUpdates. An empty array tells nothing.
        A ``spare`` one is waited for no longer than to confirm it, and learnt if it was in half of
        the shots until then: producers that see different shots of a run are to have the same
        columns, whether a detector drops some shots or has data in few.
        """
        seen: dict[str, dict[tuple[int, ...], None]] = {name: {} for name in unknown}
        spared = {n: 0 for n in unknown if n in spare and unknown[n][0].detector not in slow}
        patient = any(f.detector in slow for f, _ in unknown.values())
        flat = {n for n, (f, w) in unknown.items() if f.name in PICTURES and w.type.rank > 1}
        confirm = CONFIRM if seen.keys() - flat else 1
        shots = 0
        for shots in self._look(SLOW_SECONDS if patient else SECONDS_AHEAD, patient):
            for name, (_, w) in unknown.items():
                shape = self._shape(self._taken[-1].dgrams, w)
                if shape is not None and 0 not in shape:
                    seen[name][shape] = None
                    if name in spared and shots <= CONFIRM:
                        spared[name] += 1
            if all(s for n, s in seen.items() if n not in spared) and shots >= confirm:
                break
        shapes = {name: next(iter(s)) for name, s in seen.items() if len(s) == 1}
        why = {name: _why(*unknown[name], s, shots) for name, s in seen.items() if len(s) != 1}
        for name, times in spared.items():
            if name in shapes and 2 * times < (first := min(shots, CONFIRM)):
                del shapes[name]
                why[name] = (
                    f"{unknown[name][0]} was in {times} of the first {first} shots, too few to"
                    f" learn its shape; state {_shape(unknown[name][1].type.rank)}"
                )
        return shapes, why

    def _look(self, seconds: float, patient: bool) -> Iterator[int]:
        """Take moment after moment within the bounds; gives the number of shots so far."""
        shots, kept, since = 0, 0, 0.0
        while kept < BYTES_AHEAD and (patient or shots < SHOTS_AHEAD):
            if shots and time.monotonic() - since > seconds:
                return
            try:
                moment = next(self._stream)
            except StopIteration as e:
                self.ended = e.value
                return
            if moment is None:
                continue
            copies = [None if d is None else d.copy() for d in moment.dgrams]
            self._taken.append(moment._replace(dgrams=copies))
            kept += sum(d.size for d in copies if d is not None)
            if moment.service in SHOTS:
                since = since or time.monotonic()
                shots += 1
            yield shots

    def _shape(self, dgrams: Dgrams, w: Wanted) -> tuple[int, ...] | None:
        """Shape of the first segment of a field in a moment, ``None`` where it is not."""
        stream, names = w.digitized.segment if w.digitized else w.segments[0]
        dgram = dgrams[stream]
        if dgram is None:
            return None
        try:
            if w.digitized:
                return self._samples(dgram.data, w.digitized)
            found = self._configures[stream].shapes(dgram.data, names.block)
        except Xtc2Error:
            return None  # counted when the shot is delivered
        return None if found is None else found[w.type.name]

    def _samples(self, dgram: memoryview, made: Digitized) -> tuple[int] | None:
        """Length of a digitizer's trace."""
        stream, names = made.segment
        found = self._configures[stream].read(dgram, names.block)
        n = found and digitizer.samples(found[made.header], found[made.channel])
        return (n,) if n else None


def _why(field: Field, w: Wanted, seen: Collection[tuple[int, ...]], shots: int) -> str:
    """Say why a shape was not learnt."""
    if seen:
        first, second, *_ = (list(s) for s in seen)
        return (
            f"{field} has the shape {first} in one shot and {second} in another: {RAGGED_SENTENCE};"
            f" {LIST_SENTENCE}, with shape = [...], shots of that shape have it and others lack it"
        )
    came = f"{field} was in none of the first {shots} shots" if shots else f"{field}: no shot came"
    return f"{came}, so its shape is unknown; declare {_shape(w.type.rank)}"


def _shape(rank: int) -> str:
    """Write what a configuration says of the shape of an array of so many axes."""
    return f"shape = [{', '.join(['...'] * rank)}]"
