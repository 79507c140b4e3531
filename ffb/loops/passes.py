"""The passes over a shot's frames, and what has to be known of the shot before and between them.

Most shots go once through one pass for each area detector. Where sums have conditions, rows are
filled in and expressions evaluated shot by shot, before the pass as far as frames are not needed,
and after it; frames that a late sum takes (:mod:`ffb.loops.ahead`) go through a second pass. What
stands in memory until the batch is closed is added to sums then (:mod:`ffb.loops.adding`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from numpy.typing import NDArray

from ffb.batch import Batch
from ffb.configuration.derive import made_of
from ffb.loops.adding import Adding
from ffb.loops.ahead import Ahead, divided
from ffb.loops.bind import Bound
from ffb.loops.combine import Combined
from ffb.loops.rows import Rows
from ffb.loops.stages import AreaStage, Guards, ShotStage
from ffb.reduce import Calibration
from ffb.schema import LASER, XRAY, Schema
from ffb.shot import FrameBlock, Shot
from ffb.sums.held import State, Summed, Sums

Frame = Sequence[NDArray[Any]] | None


class SecondPass:
    """Passes frames of a detector once more, for sums alone, where any of them takes the shot.

    ``counted`` are corrections that failed in this pass as in the first, to be counted once.
    """

    def __init__(self, stage: AreaStage, calibration: Calibration) -> None:
        self.stage, self._calibration = stage, calibration
        self.counted: Counter[str] = Counter()

    def take(self, found: Frame, row: int, batch: Batch, state: State) -> None:
        """Add the frame of a shot to the sums that take it, and count the shot."""
        before = self._calibration.skipped
        self.stage.take(found, row, batch, state)
        self.counted.update(self._calibration.skipped)
        self.counted.subtract(before)


class Passes:
    """Takes the frames of shots: ``areas`` are the first passes, ``second`` those for late sums.

    ``shots`` runs what is left of the whole-shot reducers over a batch, ``ahead`` those that
    conditions need, before and after the frames of each shot; ``adding`` are sums over what is
    small.
    """

    def __init__(
        self,
        bound: Bound,
        schema: Schema,
        block: FrameBlock,
        guards: Guards,
        rows: Rows,
        combined: Combined,
        together: int,
    ) -> None:
        self._rows, self._combined, self._block = rows, combined, block
        self._number = {name: k for k, name in enumerate(combined.wheres)}
        order = _ahead(bound, combined)
        first, late = (dict(_summed(bound, order, k)) for k in (False, True))
        self.adding = [
            Adding(name, sums, schema, block, rows)
            for name, sums in bound.sums.items()
            if name not in bound.detectors
        ]
        frames = [*first.values(), *late.values()]
        self.sums = Sums([*frames, *(a.summed for a in self.adding)])
        self._told = any(s.names for s in frames)
        # Frames of a second pass are those that the source lends us, until the next shot.
        together = 1 if late else together
        self.areas = [
            AreaStage(
                d.input,
                bound.of(d),
                d.calibration,
                d.area,
                schema,
                block,
                guards,
                first.get(d.input),
                together,
            )
            for d in bound.detectors.values()
        ]
        self.second: dict[str, SecondPass] = {}
        for name, summed in late.items():
            d = bound.detectors[name]
            stage = AreaStage(name, (), d.calibration, d.area, schema, block, guards, summed)
            self.second[name] = SecondPass(stage, d.calibration)
        stages = (order.before, order.after, order.rest)
        *ahead, self.shots = (ShotStage(m, schema, block, guards) for m in stages)
        self.ahead = tuple(ahead)

    def take(self, shot: Shot, row: int, batch: Batch, light: State) -> None:
        """Take the frames of a shot into ``row``. Raises ``ValueError`` where one cannot be read.

        All frames come first: a shot that cannot be read must not have been added to any sum.
        """
        frames: dict[str, Frame] = {area.name: shot.segments(area.name) for area in self.areas}
        if self._told:
            self._evaluate(self.ahead[0], row, batch)
        for area in self.areas:
            area.take(frames[area.name], row, batch, self._state(light, area.summed, row))
        if not self.second:
            return
        self._evaluate(self.ahead[1], row, batch)
        for name, again in self.second.items():
            there = self._block.present[row, self._block.index[name]]
            state = self._state(light, again.stage.summed, row)
            again.take(frames[name] if there else None, row, batch, state)

    def _evaluate(self, stage: ShotStage, row: int, batch: Batch) -> None:
        """Fill in a row, run reducers, and evaluate expressions, as far as it is known by now."""
        self._rows.fill(row + 1, batch, row)
        stage.run(row + 1, batch, row)
        self._combined.run(row + 1, batch, row)

    def _state(self, light: State, summed: Summed | None, row: int) -> State:
        """What decides where a shot goes in those sums."""
        told = summed.names if summed else ()
        return (*light, *(int(self._combined.truths[self._number[n], row]) for n in told))

    def add(self, n: int, batch: Batch) -> None:
        """Add small inputs and features of ``n`` shots, of which all else is known, to sums."""
        for adding in self.adding:
            lights = (self._rows.column(batch, c.name)[:n] for c in (XRAY, LASER))
            told = (self._combined.truths[self._number[k], :n] for k in adding.summed.names)
            states = (values.tolist() for values in (*lights, *told))
            adding.run(zip(*states, strict=True), batch)

    def flush(self, batch: Batch) -> None:
        """Take what is held of frames that are taken together."""
        for area in self.areas:
            area.flush(batch)

    def twice(self, name: str) -> Counter[str]:
        """How many corrections of an input's frames were counted twice, by what they are."""
        return self.second[name].counted if name in self.second else Counter()


def _ahead(bound: Bound, combined: Combined) -> Ahead:
    """What has to be known of a shot before its frames can be added to sums."""
    frames = [s for name in bound.detectors for s in bound.sums.get(name, ())]
    asked = {s.name: s.where for s in frames if s.where}
    wanted = {name: made_of(text, combined.expressions)[1] for name, text in asked.items()}
    detectors = {d.area.detector for d in bound.detectors.values()}
    fates = {f"damage/{d}{tail}" for d in detectors for tail in ("", "_state")}
    return divided(bound.members, wanted, fates)


def _summed(bound: Bound, ahead: Ahead, late: bool) -> Iterator[tuple[str, Summed]]:
    """Sums over frames of each input that are late, or those that are not."""
    for name, d in bound.detectors.items():
        if mine := [s for s in bound.sums.get(name, ()) if (s.name in ahead.late) == late]:
            yield name, Summed(mine, d.area.mask)
