"""Light states from event codes, and what else every row begins with."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from ffb.compile import build
from ffb.conditions import CodesConfig, LightConfig
from ffb.derive import no_column
from ffb.expression import YES, Code, Kind, translate
from ffb.schema import EPOCH, LASER, LATE, PRODUCER, PULSE_ID, TIMESTAMP, XRAY, Schema
from ffb.shot import FrameBlock

#: The lights, in the order in which their states are told.
LIGHTS = ("xray", "laser")

#: The last three are for the aggregator to fill in.
_STAMPED = (TIMESTAMP, PULSE_ID, XRAY, LASER, PRODUCER, EPOCH, LATE)

_COPY = """\
def stamped(lo, hi, given, buffer, table):
    timestamp, pulse_id, codes, timing = given
    out_timestamp = buffer[table[0, 0] : table[0, 1]].view(np.uint64)
    out_pulse_id = buffer[table[1, 0] : table[1, 1]].view(np.uint64)
    xray = buffer[table[2, 0] : table[2, 1]].view(np.int8)
    laser = buffer[table[3, 0] : table[3, 1]].view(np.int8)
    producer = buffer[table[4, 0] : table[4, 1]].view(np.uint16)
    epoch = buffer[table[5, 0] : table[5, 1]].view(np.uint16)
    late = buffer[table[6, 0] : table[6, 1]]
    for j in range(lo, hi):
        out_timestamp[j] = timestamp[j]
        out_pulse_id[j] = pulse_id[j]
        producer[j] = epoch[j] = late[j] = 0
        words, timed = codes[j], timing[j]
"""


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


def _text(light: LightConfig) -> str:
    code = Code()
    states = [(name, _states(getattr(light, name), code)) for name in LIGHTS]
    lines = [*code.lines, *(f"{name}[j] = {state}" for name, state in states)]
    return _COPY + "".join(f"        {line}\n" for line in lines)


class Stamp:
    """Fills the first columns of rows: timestamp, pulse id, and the states of x-ray and laser.

    Those that only the aggregator knows become zero.
    Off wins over on; a shot without timing is of unknown light, -1. Compiled when made.
    """

    def __init__(self, light: LightConfig, schema: Schema, block: FrameBlock) -> None:
        offsets = dict(zip(schema.by_name, schema.offsets(block.capacity), strict=False))
        self._given = block.timestamp, block.pulse_id, block.codes, block.timed
        self._table = _table([offsets[c.name] for c in _STAMPED], block.capacity)
        own = Schema(_STAMPED)
        self._own_table = _table(list(own.offsets(block.capacity)), block.capacity)
        self._own: NDArray[np.uint8] = np.zeros(own.offsets(block.capacity)[-1], np.uint8)
        self._states = [self._own[a:b].view(np.int8) for a, b in self._own_table[2:4]]
        example = (0, 0, self._given, self._own, self._table)
        self._call = build(_text(light), {}, tuple(numba.typeof(a) for a in example))

    def rows(self, n: int, buffer: NDArray[np.uint8]) -> None:
        """Fill ``n`` rows in the ``buffer`` of a batch."""
        self._call(0, n, self._given, buffer, self._table)

    def light(self, row: int) -> tuple[int, int]:
        """State of x-ray and laser of one shot of the block, as its row will have it."""
        self._call(row, row + 1, self._given, self._own, self._own_table)
        xray, laser = self._states
        return int(xray[row]), int(laser[row])


def _table(begins: list[int], rows: int) -> NDArray[np.int64]:
    """From where to where the columns lie, (columns, 2)."""
    sizes = [rows * c.row_bytes for c in _STAMPED]
    return np.array([(a, a + size) for a, size in zip(begins, sizes, strict=False)], np.int64)
