"""Light states from event codes and inputs, and what else every row begins with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numba
import numpy as np
from numpy.typing import NDArray

from ffb.configuration.conditions import CodesConfig, LightConfig
from ffb.configuration.expression import (
    UNKNOWN,
    YES,
    Code,
    Find,
    Kind,
    Term,
    elements_in,
    names_in,
    translate,
    written,
)
from ffb.configuration.syntax import At
from ffb.loops.compile import borrowed, build
from ffb.loops.places import Places
from ffb.schema import EPOCH, LASER, LATE, PRODUCER, PULSE_ID, TIMESTAMP, XRAY, Schema
from ffb.shot import FrameBlock, Input

#: The lights, in the order in which their states are told.
LIGHTS = ("xray", "laser")

#: The last three are for the aggregator to fill in.
_STAMPED = (TIMESTAMP, PULSE_ID, XRAY, LASER, PRODUCER, EPOCH, LATE)

_MISSING = Term(Kind.NUMBER, "np.nan")


def _states(config: CodesConfig, find: Find, code: Code) -> str:
    """Code for the state of one light: 1, 0, or -1 where it is unknown."""
    tests = ""
    for state, given in ((0, config.off), (1, config.on)):
        text = given if isinstance(given, str) else f"any_code({', '.join(map(str, given))})"
        if given:
            truth = translate(text, find, Kind.TRUTH, code)[0].text
            tests += f"{state} if {truth} == {YES} else -1 if {truth} == {UNKNOWN} else "
    otherwise = -1 if bool(config.on) == bool(config.off) else 0 if config.on else 1
    return f"{tests}{otherwise}"


def _finder(block: FrameBlock, places: Places) -> Find:
    """How an expression reads an input of the shot; one that the run does not have is missing."""

    def find(name: str, at: At, many: bool) -> Term | str:
        given = block.inputs.get(name)
        if many or given is None or given.kind != "value" or len(at) != len(given.shape):
            return _MISSING
        index = tuple(k for k in at if isinstance(k, int))
        if any(k >= size for k, size in zip(index, given.shape, strict=True)):
            return _MISSING
        place = places.frame(name, block)
        element = place.row
        if index:
            element = f"{place.view}[{place.begin} + {np.ravel_multi_index(index, given.shape)}]"
        here = f"present[j, {block.index[name]}]"
        return Term(Kind.NUMBER, f"(np.float64({element}) if {here} else np.nan)")

    return find


def named_by(light: LightConfig) -> set[str]:
    """Inputs that the expressions of ``light`` name."""
    given = (t for n in LIGHTS for c in [getattr(light, n)] for t in (c.on, c.off))
    return {name for t in given if isinstance(t, str) for name in names_in(t)}


def unreadable(light: LightConfig, inputs: Mapping[str, Input]) -> Iterator[str]:
    """Sentences on what the expressions of ``light`` name and cannot have, in a run's inputs."""
    for name in LIGHTS:
        config = getattr(light, name)
        for text in (t for t in (config.off, config.on) if isinstance(t, str) and t):
            for path, at in elements_in(text):
                given = inputs.get(path)
                if given is None:
                    why = "is not in this run"
                elif given.kind != "value":
                    why = "is an area detector"
                elif len(at) != len(given.shape):
                    why = f"has the shape {given.shape}; name one element of it"
                elif any(
                    not isinstance(k, int) or k >= size
                    for k, size in zip(at, given.shape, strict=True)
                ):
                    why = f"has the shape {given.shape}; {list(at)} is not in it"
                else:
                    continue
                yield f"light.{name}: {written(path)} {why}, so that the light is unknown"


def _text(light: LightConfig, places: Places, block: FrameBlock) -> str:
    """Text of the loop that fills the stamped columns, which it puts into ``places``."""
    timestamp, pulse_id, *states, producer, epoch, late = (places.column(c).row for c in _STAMPED)
    code, find = Code(), _finder(block, places)
    tests = [_states(getattr(light, name), find, code) for name in LIGHTS]
    row = [
        f"{timestamp} = timestamp[j]",
        f"{pulse_id} = pulse_id[j]",
        f"{producer} = {epoch} = {late} = 0",
        "words, timed = codes[j], timing[j]",
        *code.lines,
        *(f"{state} = {test}" for state, test in zip(states, tests, strict=True)),
    ]
    body = ["timestamp, pulse_id, codes, timing, present = given", *places.lines]
    body += ["for j in range(lo, hi):", *(f"    {line}" for line in row)]
    head = "def stamped(lo, hi, given, frames, buffer, table):"
    return "\n".join([head, *(f"    {line}" for line in body), ""])


class Stamp:
    """Fills the first columns of rows: timestamp, pulse id, and the states of x-ray and laser.

    Off wins over on; where what tells a light is missing, it is unknown, -1. What only the
    aggregator knows becomes zero. Compiled when made.
    """

    def __init__(self, light: LightConfig, schema: Schema, block: FrameBlock) -> None:
        self._given = block.timestamp, block.pulse_id, block.codes, block.timed, block.present
        self._frames = block.buffer
        own, capacity = Schema(_STAMPED), block.capacity
        begins = dict(zip(own.by_name, own.offsets(capacity), strict=False))
        self._own: NDArray[np.uint8] = np.zeros(own.offsets(capacity)[-1], np.uint8)
        lights = (begins[c.name] for c in (XRAY, LASER))
        self._lights = [self._own[a : a + capacity].view(np.int8) for a in lights]
        both = Places(schema, capacity), Places(own, capacity)
        source, _ = (_text(light, p, block) for p in both)  # twice the same
        self._table, self._own_table = (p.table for p in both)
        example = (0, 0, self._given, self._frames, self._own, self._table)
        types = tuple(numba.typeof(a) for a in example)
        self._call = build(source, {"borrowed": borrowed}, types)

    def rows(self, first: int, n: int, buffer: NDArray[np.uint8]) -> None:
        """Fill rows ``first`` to ``n`` in the ``buffer`` of a batch."""
        self._call(first, n, self._given, self._frames, buffer, self._table)

    def light(self, row: int) -> tuple[int, int]:
        """State of x-ray and laser of one shot of the block, as its row will have it."""
        self._call(row, row + 1, self._given, self._frames, self._own, self._own_table)
        xray, laser = self._lights
        return int(xray[row]), int(laser[row])
