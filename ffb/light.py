"""Light states from event codes, and what else every row begins with."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from ffb.compile import borrowed, build
from ffb.conditions import CodesConfig, LightConfig
from ffb.derive import no_column
from ffb.expression import YES, Code, Kind, translate
from ffb.places import Places
from ffb.schema import EPOCH, LASER, LATE, PRODUCER, PULSE_ID, TIMESTAMP, XRAY, Schema
from ffb.shot import FrameBlock

#: The lights, in the order in which their states are told.
LIGHTS = ("xray", "laser")

#: The last three are for the aggregator to fill in.
_STAMPED = (TIMESTAMP, PULSE_ID, XRAY, LASER, PRODUCER, EPOCH, LATE)


def _states(config: CodesConfig, code: Code) -> str:
    """Code for the state of one light: 1, 0, or -1 where it is unknown."""
    tests = "-1 if not timed else "
    for state, given in ((0, config.off), (1, config.on)):
        text = given if isinstance(given, str) else f"any_code({', '.join(map(str, given))})"
        if given:
            truth = translate(text, no_column, Kind.TRUTH, code)[0]
            tests += f"{state} if {truth.text} == {YES} else "
    otherwise = -1 if bool(config.on) == bool(config.off) else 0 if config.on else 1
    return f"{tests}{otherwise}"


def _text(light: LightConfig, places: Places) -> str:
    """Text of the loop that fills the stamped columns, which it puts into ``places``."""
    timestamp, pulse_id, *states, producer, epoch, late = (places.column(c).row for c in _STAMPED)
    code = Code()
    tests = [_states(getattr(light, name), code) for name in LIGHTS]
    row = [
        f"{timestamp} = timestamp[j]",
        f"{pulse_id} = pulse_id[j]",
        f"{producer} = {epoch} = {late} = 0",
        "words, timed = codes[j], timing[j]",
        *code.lines,
        *(f"{state} = {test}" for state, test in zip(states, tests, strict=True)),
    ]
    body = ["timestamp, pulse_id, codes, timing = given", *places.lines, "for j in range(lo, hi):"]
    body += [f"    {line}" for line in row]
    head = "def stamped(lo, hi, given, buffer, table):"
    return "\n".join([head, *(f"    {line}" for line in body), ""])


class Stamp:
    """Fills the first columns of rows: timestamp, pulse id, and the states of x-ray and laser.

    Off wins over on; a shot without timing is of unknown light, -1. What only the aggregator knows
    becomes zero. Compiled when made.
    """

    def __init__(self, light: LightConfig, schema: Schema, block: FrameBlock) -> None:
        self._given = block.timestamp, block.pulse_id, block.codes, block.timed
        own, capacity = Schema(_STAMPED), block.capacity
        begins = dict(zip(own.by_name, own.offsets(capacity), strict=False))
        self._own: NDArray[np.uint8] = np.zeros(own.offsets(capacity)[-1], np.uint8)
        lights = (begins[c.name] for c in (XRAY, LASER))
        self._lights = [self._own[a : a + capacity].view(np.int8) for a in lights]
        both = Places(schema, capacity), Places(own, capacity)
        source, _ = (_text(light, p) for p in both)  # twice the same
        self._table, self._own_table = (p.table for p in both)
        example = (0, 0, self._given, self._own, self._table)
        types = tuple(numba.typeof(a) for a in example)
        self._call = build(source, {"borrowed": borrowed}, types)

    def rows(self, n: int, buffer: NDArray[np.uint8]) -> None:
        """Fill ``n`` rows in the ``buffer`` of a batch."""
        self._call(0, n, self._given, buffer, self._table)

    def light(self, row: int) -> tuple[int, int]:
        """State of x-ray and laser of one shot of the block, as its row will have it."""
        self._call(row, row + 1, self._given, self._own, self._own_table)
        xray, laser = self._lights
        return int(xray[row]), int(laser[row])
