"""``ffb reducers --cost``: what every reducer of a configuration costs on this machine.

Times are CPU time of one thread, a median over rounds; in a round everything is timed once, so that
what a neighbour does to the machine happens to all. A tile reducer's is its share of the fused
pass: the pass with all of them, less the pass without it, by the switches that every compiled pass
has; that is what leaving it out of the file would save. Alone is what it costs beside calibration,
which is more where it shares cached pixels with others, and less where it shares the cache itself.
What the source took to read or make the shots is told beside, and is in no sum.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from threading import Timer
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.batch import Batch
from ffb.config import PsanaConfig, SyntheticConfig, load
from ffb.loops.fuse import LEAVE, RUN
from ffb.loops.stages import AreaStage, ShotStage, Switches
from ffb.plan import Plan
from ffb.service.check import PATIENCE_S, source_at
from ffb.service.terminal import console, table
from ffb.shot import BeginStep, Idle
from ffb.source import Run
from ffb.sources.choose import source_of

#: Frames of each area detector that are held, for the cache not to know them all; and their bytes.
FRAMES, FRAMES_BYTES = 8, 128 << 20

#: Seconds for all rounds together, how many there may be, and for one timing in a round.
ROUNDS_S, LEAST, MOST, TIMING_S = 4.0, 3, 25, 0.02

Segments = tuple[NDArray[Any], ...]


class Line(NamedTuple):
    """Something that costs time: ``sample`` gives microseconds a shot, once a round.

    Those of a ``sum`` are part of a shot's cost; others are parts of them, or ``alone``: what the
    one of the same name costs without the others.
    """

    name: str
    what: str
    sample: Callable[[], float]
    sum: bool = False
    alone: bool = False


class Held:
    """A shot whose small frames stand in the block already, and whose segments are held."""

    timestamp = 1

    def __init__(self, segments: dict[str, Segments]) -> None:
        self._segments = segments

    def fill(self, block: Any, row: int) -> None:
        """Leave the block as it is."""

    def segments(self, name: str) -> Segments | None:
        """Segments of an area, ``None`` where the source gave no frame of it."""
        return self._segments.get(name)


class Shots(NamedTuple):
    """Shots of a run: ``n`` in the block of the plan, and frames of areas by name.

    ``source_us`` is what the source took for each of them, microseconds of thread CPU time.
    """

    n: int
    areas: dict[str, list[Segments]]
    source_us: float


def main(file: str, overrides: Sequence[str], run_files: Sequence[str]) -> int:
    """Print what the reducers of ``file`` cost, on shots of ``run_files`` or of its source.

    Returns the exit status. Raises :class:`ffb.config.ConfigError` where the file is wrong, and
    ``LookupError`` if no shot came.
    """
    config = load(file, overrides)
    config = config.model_copy(update={"source": source_at(config, None, run_files)})
    if isinstance(config.source, PsanaConfig) and config.source.shmem:
        raise LookupError("shared memory is left alone; name xtc2 files with --run-file")
    if isinstance(config.source, SyntheticConfig):
        source_config = config.source.model_copy(update={"rate": 0.0})
        config = config.model_copy(update={"source": source_config})
    source = source_of(config)
    patience = Timer(PATIENCE_S, source.stop)
    patience.start()
    try:
        for run in source.runs():
            patience.cancel()
            with console().status("compiling what was not compiled here before ..."):
                plan = Plan.make(config, run)
            patience = Timer(PATIENCE_S, source.stop)
            patience.start()
            shots = taken(plan, run)
            if shots.n:
                timed = lines(plan, shots)
                show(shots, timed, measured(timed))
                return 0
    finally:
        patience.cancel()
        source.close()
    raise LookupError(f"no shot came within {PATIENCE_S:.0f} s")


def taken(plan: Plan, run: Run) -> Shots:
    """Take a batch of shots, and keep copies of a few frames of every area detector."""
    areas: dict[str, list[Segments]] = {a.name: [] for a in plan.areas}
    n = kept = 0
    source = 0.0
    items = iter(run)
    while True:
        began = time.thread_time()
        item = next(items, None)
        source += time.thread_time() - began
        if item is None:
            break
        if isinstance(item, BeginStep):
            plan.step(item)
        elif not isinstance(item, Idle):
            for name, frames in areas.items():
                found = item.segments(name)
                if found is not None and len(frames) < FRAMES and kept < FRAMES_BYTES:
                    frames.append(tuple(np.array(s) for s in found))
                    kept += sum(s.nbytes for s in frames[-1])
            full, n = plan.take(item, 0), n + 1
            if full:
                break
    plan.close()
    kinds = {name: frames for name, frames in areas.items() if frames}
    return Shots(n, kinds, source / max(n, 1) * 1e6)


def lines(plan: Plan, shots: Shots) -> list[Line]:
    """What there is to be timed."""
    out: list[Line] = []
    for stage in plan.areas:
        if frames := shots.areas.get(stage.name):
            out += _area(stage, frames, Batch(plan.schema, plan.capacity))
    for again in plan.passes.second.values():
        if frames := shots.areas.get(again.stage.name):
            out.append(_second(again.stage, frames, Batch(plan.schema, plan.capacity)))
    for loop in _loops(plan):
        out += _whole_shots(loop, shots.n, Batch(plan.schema, plan.capacity))
    out += _adding(plan, shots.n) if plan.passes.adding else []
    return [*out, *_framework(plan, shots)]


def _area(stage: AreaStage, frames: Sequence[Segments], batch: Batch) -> list[Line]:
    """The fused pass over one area detector: whole, without any reducer, and without each."""
    at = range(0, len(frames), stage.together)
    groups = [frames[k : k + stage.together] for k in at]
    calls = [(tuple(s for raw in g for s in raw), np.arange(len(g))) for g in groups]

    def of(active: Switches, sums: bool = True) -> Callable[[], float]:
        def run() -> None:
            for raw, rows in calls:
                if sums:
                    stage.again()
                stage.call(raw, rows, batch.buffer, active)

        return _timer(run, len(frames))

    whole = of(_switches(stage.names, RUN))
    without = [(n, of(_switches(stage.names, RUN, n))) for n in stage.names]
    without += [("sums", of(_switches(stage.names, RUN), sums=False))] if stage.summed else []
    bare = of(_switches(stage.names, LEAVE), sums=False)
    alone = [(n, of(_switches(stage.names, LEAVE, n), sums=False)) for n in stage.names]
    return [
        Line(stage.name, "the fused pass", whole, True),
        Line("  calibration", "the pass without reducers", bare),
        *(
            Line(f"  {n}", "the pass, less the pass without it", _less(whole, w))
            for n, w in without
        ),
        *(Line(f"  {n}", "", _less(one, bare), alone=True) for n, one in alone),
    ]


def _second(stage: AreaStage, frames: Sequence[Segments], batch: Batch) -> Line:
    """The second pass over frames, as if all shots were those that its sums take."""

    def run() -> None:
        for raw in frames:
            stage.again()
            stage.call(raw, 0, batch.buffer, _switches((), RUN))

    how = "a second pass for late sums; not counted: only shots that they take need it"
    return Line(f"{stage.name} again", how, _timer(run, len(frames)))


def _loops(plan: Plan) -> list[ShotStage]:
    """The loops over shots: those that run shot by shot for conditions of sums, and the rest."""
    return [s for s in (*plan.passes.ahead, plan.shots) if s.names]


def _whole_shots(stage: ShotStage, n: int, batch: Batch) -> list[Line]:
    """The loop over the shots of a batch: all reducers, and each less the empty loop."""

    def of(active: Switches) -> Callable[[], float]:
        return _timer(lambda: stage.part(0, n, batch.buffer, active), n)

    empty = of(_switches(stage.names, LEAVE))
    alone = [(name, of(_switches(stage.names, LEAVE, name))) for name in stage.names]
    return [
        Line(
            "whole shots",
            f"all in one loop, {n} shots a call",
            of(_switches(stage.names, RUN)),
            True,
        ),
        *(Line(f"  {name}", "the loop with it alone", _less(one, empty)) for name, one in alone),
    ]


def _adding(plan: Plan, n: int) -> list[Line]:
    """Sums over small inputs and features, as if every shot had all features."""
    batch = Batch(plan.schema, plan.capacity)
    batch.buffer[:] = 1  # what says whether something is there, too
    names = ", ".join(a.name for a in plan.passes.adding)
    return [Line("sums", f"of {names}", _timer(lambda: plan.passes.add(n, batch), n), True)]


def _framework(plan: Plan, shots: Shots) -> list[Line]:
    """Taking shots and closing batches with nothing reduced, and the expressions' part of it."""
    held = [Held({n: f[k % len(f)] for n, f in shots.areas.items()}) for k in range(FRAMES)]
    stages = [*plan.areas, *(again.stage for again in plan.passes.second.values())]
    calls, loops = [stage.call for stage in stages], _loops(plan)
    adding = plan.passes.adding

    def run() -> None:
        for stage in stages:
            stage.call = _nothing
        for loop in loops:
            loop.switches[:] = LEAVE
        plan.passes.adding = []
        for row in range(shots.n):
            plan.take(held[row % FRAMES], 0)
        plan.close()
        plan.passes.adding = adding
        for loop in loops:
            loop.switches[:] = RUN
        for stage, call in zip(stages, calls, strict=True):
            stage.call = call

    out = [Line("framework", "taking shots, closing batches", _timer(run, shots.n), True)]
    if plan.combined.columns:
        batch = Batch(plan.schema, plan.capacity)
        batch.buffer[:] = 0
        each = _timer(lambda: plan.combined.run(shots.n, batch), shots.n)
        out.append(Line("  expressions", "derived numbers and filters", each))
    return out


def _nothing(*_: Any) -> None:
    """In place of a pass."""


def _switches(names: Sequence[str], state: int, but: str = "") -> Switches:
    """All reducers in one state, ``but`` one in the other."""
    other = LEAVE if state == RUN else RUN
    return np.array([other if n == but else state for n in names], np.uint8)


def _less(a: Callable[[], float], b: Callable[[], float]) -> Callable[[], float]:
    return lambda: a() - b()


def _timer(call: Callable[[], None], shots: int) -> Callable[[], float]:
    """Time ``call``, which does ``shots``, as often as fits: microseconds a shot."""
    repeat = 0

    def sample() -> float:
        nonlocal repeat
        if not repeat:
            call()  # page faults and caches
            began = time.thread_time()
            call()
            repeat = max(1, int(TIMING_S / max(time.thread_time() - began, 1e-6)))
        began = time.thread_time()
        for _ in range(repeat):
            call()
        return (time.thread_time() - began) / repeat / shots * 1e6

    return sample


def measured(of: Sequence[Line]) -> list[list[float]]:
    """Microseconds a shot of every line, in every round."""
    out: list[list[float]] = [[] for _ in of]
    for line in of:
        line.sample()
    began = time.monotonic()
    for k in range(MOST):
        if k >= LEAST and time.monotonic() - began > ROUNDS_S:
            break
        for line, us in zip(of, out, strict=True):
            us.append(line.sample())
    return out


def show(shots: Shots, of: Sequence[Line], us: Sequence[Sequence[float]]) -> None:
    """Print every line, and the shots a core can do in a second."""
    out = console()
    alone = {n.name: f"{median(u):,.2f}" for n, u in zip(of, us, strict=True) if n.alone}
    rows = [
        (
            line.name,
            f"{median(u):,.2f}",
            alone.get(line.name, "-"),
            f"{min(u):,.2f} to {max(u):,.2f}",
            line.what,
        )
        for line, u in zip(of, us, strict=True)
        if not line.alone
    ]
    totals = [
        sum(u) for u in zip(*(u for line, u in zip(of, us, strict=True) if line.sum), strict=True)
    ]
    spread = f"{min(totals):,.2f} to {max(totals):,.2f}"
    rows.append(("a shot", f"{median(totals):,.2f}", "-", spread, "the sum, without the source"))
    out.print(table(("what", "us a shot", "alone", "least to most", "how"), rows))
    low, high = 1e6 / max(totals), 1e6 / min(totals)
    frames = "".join(f", {len(f)} frames of {name}" for name, f in shots.areas.items())
    out.print(
        f"\n{1e6 / median(totals):,.0f} shots/s per core ({low:,.0f} to {high:,.0f}); medians of"
        f" {len(totals)} rounds of thread CPU time, {shots.n} shots{frames}; the source took"
        f" {shots.source_us:,.1f} us a shot to read or make them, once, which comes on top"
    )
