"""What ffb itself writes of every shot: identity, lights, step, inputs as they came, damage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffb.batch import Batch
from ffb.configuration.conditions import LightConfig
from ffb.configuration.light import Stamp
from ffb.loops.recorded import Recorded, Recorder
from ffb.loops.wiring import motor_column
from ffb.schema import LASER, LIGHT_KNOWN, PULSE_KNOWN, STEP, XRAY, Schema
from ffb.shot import BeginStep, FrameBlock


class Rows:
    """Fills in the rows of a batch.

    ``step`` is the number of the present one, -1 before the first. ``detectors`` gives the inputs
    of each detector whose damage is recorded.
    """

    def __init__(
        self,
        light: LightConfig,
        schema: Schema,
        block: FrameBlock,
        recorded: Sequence[Recorded],
        detectors: Mapping[str, Sequence[str]],
        motors: Sequence[str],
    ) -> None:
        self._stamp = Stamp(light, schema, block)
        self._recorder = Recorder(schema, block, recorded, detectors)
        self._block, self._motors = block, {motor_column(m).name: m for m in motors}
        self._values = dict.fromkeys(motors, np.nan)
        self._places = {
            c.name: ((block.capacity, *c.shape), np.dtype(c.dtype), at)
            for c, at in zip(schema.columns, schema.offsets(block.capacity), strict=False)
        }
        self.step, self._stepped = -1, 0

    def light(self, row: int) -> tuple[int, int]:
        """State of x-ray and laser of the shot in a row of the block, -1 if unknown."""
        return self._stamp.light(row)

    def begin_step(self, step: BeginStep, n: int, batch: Batch | None) -> None:
        """Take the step to which rows from ``n`` on belong."""
        if batch is not None:
            self._fill_steps(n, batch)
        self.step = step.step
        self._values = {m: step.values.get(m, np.nan) for m in self._motors.values()}

    def _fill_steps(self, n: int, batch: Batch) -> None:
        """Write the step of all rows since the last one began, or the last were filled in."""
        rows, self._stepped = slice(self._stepped, n), n
        self.column(batch, STEP.name)[rows] = self.step
        for name, motor in self._motors.items():
            self.column(batch, name)[rows] = self._values[motor]

    def column(self, batch: Batch, name: str) -> NDArray[Any]:
        """One column of a batch being filled, without making views of all."""
        shape, dtype, begin = self._places[name]
        return np.ndarray(shape, dtype, batch.buffer, begin)

    def fill(self, n: int, batch: Batch, first: int = 0) -> None:
        """Fill in rows from ``first`` up to ``n``; those of area detectors' damage after them."""
        self._fill_steps(n, batch)
        rows, buffer = slice(first, n), batch.buffer
        self._stamp.rows(first, n, buffer)
        known = self.column(batch, PULSE_KNOWN.name)[rows]
        np.not_equal(self._block.pulse_id[rows], 0, out=known)
        for known_light, light in zip(LIGHT_KNOWN, (XRAY, LASER), strict=True):
            state = self.column(batch, light.name)[rows]
            np.greater_equal(state, 0, out=self.column(batch, known_light.name)[rows])
        self._recorder.rows(first, n, buffer)

    def close(self) -> None:
        """Begin with another batch."""
        self._stepped = 0
