"""How the contract tests read a source, and what they know about the truth."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ffb.shot import BeginStep, Field, FrameBlock, Idle, Input
from ffb.source import Run, RunInfo, Source

#: A source that gives nothing new for so long, in seconds, hangs.
PATIENCE = 240.0


class Row(NamedTuple):
    """A shot as it was read: ``values`` by input, ``None`` if absent."""

    timestamp: int
    pulse_id: int
    codes: set[int] | None
    step: int
    values: dict[str, Any]


@dataclass
class Taken:
    """All that came out of a run."""

    info: RunInfo
    inputs: dict[str, Input]
    problems: list[str]
    rows: list[Row] = field(default_factory=list)
    steps: list[BeginStep] = field(default_factory=list)
    idles: int = 0
    ended: str = ""
    notes: list[str] = field(default_factory=list)


@dataclass
class Case:
    """A source to be tested and the truth about its runs, one of each for every run.

    ``wrong`` is a field that nearly exists, ``near`` what a message about it should name.
    ``absent`` are inputs that some shots lack, ``areas`` those from area detectors.
    ``wait`` is called whenever the source idles, ``close`` when the test is through.
    """

    make: Callable[[], Source]
    fields: Mapping[str, Field]
    infos: list[tuple[str, int]]
    shots: list[int]
    steps: list[list[dict[str, float]]]
    row: Callable[[int, int], Row]
    wrong: Field
    near: str
    quiet: bool
    ended: str = "end of run"
    areas: tuple[str, ...] = ("area",)
    absent: tuple[str, ...] = ("area", "edge")
    wait: Callable[[], object] = lambda: None
    close: Callable[[], object] = lambda: None


def codes_in(words: Any) -> set[int]:
    """Event codes of the words of ``sequenceValues``."""
    return {16 * w + b for w in range(len(words)) for b in range(16) if int(words[w]) >> b & 1}


def take(
    run: Run,
    fields: Mapping[str, Field],
    wait: Callable[[], object] = lambda: None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    rooms: Mapping[str, int] | None = None,
) -> Taken:
    """Read a run to its end; ``wait`` is called whenever it idles."""
    inputs, problems = run.bind(fields, shapes or {}, rooms)
    out = Taken(run.info, inputs, problems)
    block, since, step = FrameBlock(inputs, 3), time.monotonic(), -1
    for item in run:
        if isinstance(item, Idle):
            out.idles += 1
            assert time.monotonic() - since < PATIENCE, f"nothing after {len(out.rows)} shots"
            wait()
            continue
        since = time.monotonic()
        if isinstance(item, BeginStep):
            step = item.step
            if item not in out.steps:
                out.steps.append(item)
            continue
        k = len(out.rows) % 3
        item.fill(block, k)
        out.rows.append(row_of(item, block, k, step))
    out.ended, out.notes = run.ended, list(run.notes)
    return out


def row_of(shot: Any, block: FrameBlock, k: int, step: int) -> Row:
    """Copy row ``k`` of ``block``, and the areas of ``shot``."""
    values: dict[str, Any] = {}
    for i, name in enumerate(block.names):
        there = bool(block.present[k, i])
        if block.inputs[name].kind == "area":
            parts = shot.segments(name)
            assert (parts is not None) == there, f"{name}: present says otherwise than segments"
            for part in parts or ():
                assert part.ndim == 1
                assert part.flags.c_contiguous
            values[name] = (
                None if parts is None else np.stack(parts).reshape(block.inputs[name].shape)
            )
        else:
            values[name] = block.frames[name][k].copy() if there else None
    codes = codes_in(block.codes[k]) if block.timed[k] else None
    assert shot.timestamp == block.timestamp[k]
    return Row(int(block.timestamp[k]), int(block.pulse_id[k]), codes, step, values)


def read(case: Case) -> list[Taken]:
    """Read all runs of a case."""
    source = case.make()
    try:
        runs: Iterator[Run] = iter(source.runs())
        out = [take(next(runs), case.fields, case.wait) for _ in case.infos]
        source.stop()
        assert next(runs, None) is None, "a run came after the source was stopped"
    finally:
        source.close()
        source.close()
    return out


def same(got: Any, want: Any) -> bool:
    """Whether two values are the same, absent ones included."""
    if got is None or want is None:
        return got is want
    return bool(np.array_equal(got, want))
