"""The offset that pixels read out together have in common, taken from them before their gain.

As psana's ``UtilsCommonMode.common_mode_apply``, bit by bit: the median over rows, columns or the
whole of a bank of pixels, found among those that are good and in their first gain range, and taken
from the same. Every median reads a few hundred values that are in the cache; the frame crosses the
memory as often as without. Beyond psana's, pixels that hold photons can be kept from counting, and
the median can come from reference columns, as in psana's ``archon``, which takes that of the pixels
without a sensor from a whole row of a bank.
"""

from __future__ import annotations

from functools import cache
from math import ceil
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.configuration.calibration_settings import CommonModeConfig
from ffb.loops.compile import borrowed
from ffb.reducers.counting import FEW, fill_keys, median
from ffb.reducers.gain_ranges import ADU, F32, Planes, Single, exact

#: Rows and columns of a bank by type of detector, those of psana.
BANKS = {"jungfrau": (256, 64), "epix10ka": (176, 48), "epix100": (352, 96)}

ROWS, COLUMNS, WHOLE = 0, 1, 2
STAGES = {"rows": ROWS, "columns": COLUMNS, "banks": WHOLE}

#: Columns that are turned at once, so that their values lie together.
STRIP = 16


class Plan(NamedTuple):
    """What to take from what: ``stages`` one after the other, with the ``least`` pixels of each.

    ``columns`` of the detector, ``width`` of a bank; ``first`` and ``last`` column of a bank that
    counts; ``threshold`` and ``largest`` in ADU, infinite if there are none.
    """

    stages: NDArray[np.int64]
    least: NDArray[np.int64]
    columns: int
    width: int
    first: int
    last: int
    threshold: np.float32
    largest: np.float32


class Room(NamedTuple):
    """Room to work in.

    For keys and what is left of a bracket; for turned columns and what is to be taken from them;
    for a row calibrated without common mode.
    """

    keys: NDArray[np.int32]
    few: NDArray[np.int32]
    turned: F32
    corrections: F32
    line: F32


class Corrected(NamedTuple):
    """Constants of a calibration with a common mode.

    ``planes`` are those of the calibration without; ``pedestal`` (pixels,) is NaN for pixels that
    never take part, ``factor`` (pixels,) goes with it. A pixel with one of the bits in
    ``switched`` takes no part in a shot; ``mixed`` says whether there are good pixels that never
    do.
    """

    planes: Any
    pedestal: F32
    factor: F32
    switched: int
    mixed: bool
    plan: Plan
    room: Room


def plan_of(
    setting: CommonModeConfig, dettype: str, shape: tuple[int, int, int]
) -> tuple[Plan, int]:
    """Lay out the work for a detector of ``shape``, and the rows that must be seen at once.

    Raises ``ValueError`` with a line for each thing that does not fit.
    """
    rows, columns = shape[1:]
    height, width = setting.bank or BANKS.get(dettype, (rows, columns))
    first, last = setting.reference or (0, width)
    problems = []
    if rows % height or columns % width:
        problems.append(
            f"common_mode.bank: {height} x {width} pixels do not divide segments of"
            f" {rows} x {columns}"
        )
    if last > width:
        problems.append(f"common_mode.reference: ends at {last}, a bank at its column {width}")
    sizes = {"rows": last - first, "columns": height, "banks": height * (last - first)}
    least = []
    for over in setting.over:
        least.append(max(setting.pixels, ceil(setting.fraction * sizes[over])))
        if least[-1] > sizes[over]:
            problems.append(
                f"common_mode.pixels: {least[-1]} are never there; {sizes[over]} count in one of"
                f" the {over}"
            )
    if problems:
        raise ValueError("\n".join(problems))
    limits = (np.float32(np.inf if x is None else x) for x in (setting.threshold, setting.largest))
    stages = np.array([STAGES[o] for o in setting.over], np.int64)
    plan = Plan(stages, np.array(least, np.int64), columns, width, first, last, *limits)
    return plan, 1 if setting.over == ("rows",) else height


def corrected(
    planes: Planes,
    tile: Any,
    mask: NDArray[np.bool_],
    plan: Plan,
    height: int,
    pedestal: NDArray[Any],
    fit: NDArray[np.bool_],
) -> tuple[Corrected, Any]:
    """Constants and kernel of a calibration with a common mode, of those of one without.

    ``pedestal`` and ``fit``, whether a pixel could take part, are (segments, rows, columns), of the
    first gain range. Good pixels take part if they are fit, those of reference columns even if
    they are masked.
    """
    part = fit & mask
    if (plan.first, plan.last) != (0, plan.width):
        in_bank = np.arange(plan.columns) % plan.width
        part |= fit & (in_bank >= plan.first) & (in_bank < plan.last)
    room = Room(
        np.zeros(height * plan.width, np.int32),
        np.zeros(2 * FEW + 1, np.int32),
        np.zeros(STRIP * height, np.float32),
        np.zeros(STRIP, np.float32),
        np.zeros(plan.columns, np.float32),
    )
    constants = Corrected(
        planes,
        np.where(part, pedestal, np.nan).astype(np.float32).ravel(),
        planes.factor,
        0 if isinstance(planes, Single) else np.iinfo(np.uint16).max - ADU,
        bool((mask & ~part).any()),
        plan,
        room,
    )
    return constants, _over(tile)


@cache
def _over(tile: Any) -> Any:
    """Calibrate many rows with ``tile`` and the common mode between pedestal and gain."""

    @exact
    def rows(raw: Any, first: int, c: Corrected, out: Any, bad: Any) -> None:
        columns = c.plan.columns
        for r in range(bad.size):
            at = r * columns
            pedestal = c.pedestal[first + at : first + at + columns]
            bad[r] = _above(raw[at : at + columns], pedestal, c.switched, out[at : at + columns])
        for i in range(c.plan.stages.size):
            _correct(out, c.plan, c.plan.stages[i], c.plan.least[i], c.room)
        for r in range(bad.size):
            at = r * columns
            factor = c.factor[first + at : first + at + columns]
            line = out[at : at + columns]
            if bad[r] != 0 or c.mixed:
                bad[r] = tile(raw[at : at + columns], first + at, c.planes, c.room.line)
                for i in range(columns):
                    value = line[i] * factor[i]
                    line[i] = value if line[i] == line[i] else c.room.line[i]
            else:
                for i in range(columns):
                    value = line[i] * factor[i]
                    line[i] = value if line[i] == line[i] else np.float32(0)

    return rows


@exact
def _above(raw: Any, pedestal: Any, switched: int, out: Any) -> Any:
    """ADU above the pedestal, NaN for pixels that take no part; nonzero if any has switched."""
    for i in range(raw.size):
        out[i] = np.float32(raw[i]) - pedestal[i]
    words = np.uint16(0)
    if switched:
        for i in range(raw.size):
            words = np.uint16(words | raw[i])  # numba would count in 64 bits
    bits = np.int64(words) & switched
    if bits:
        for i in range(raw.size):
            out[i] = np.float32(np.nan) if np.int64(raw[i]) & switched else out[i]
    return bits


@exact
def _correct(values: Any, plan: Plan, stage: int, least: int, room: Room) -> None:
    """Take from ``values`` (height * columns,) the median of every row, column or bank of theirs.

    There is one loop over all kinds of groups, so that the median is compiled into it once.
    """
    values, every, few = borrowed(values), borrowed(room.keys), borrowed(room.few)
    columns, corrections = borrowed(room.turned), borrowed(room.corrections)
    rows, banks, guess = values.size // plan.columns, plan.columns // plan.width, np.float32(0)
    tall = 1 if stage == ROWS else rows
    groups = plan.columns if stage == COLUMNS else banks * (rows // tall)
    for g in range(groups):
        top, left, turned = g // banks * tall, g % banks * plan.width, g % STRIP
        number: Any = 0
        if stage == COLUMNS:
            if turned == 0:
                _turn(values, plan.columns, g, columns)
            column = columns[turned * rows : (turned + 1) * rows]
            number = fill_keys(column, plan.threshold, every[:rows])
            size = rows
        else:
            size = plan.last - plan.first
            for r in range(tall):
                at = (top + r) * plan.columns + left
                keys = every[r * size : (r + 1) * size]
                number += fill_keys(values[at + plan.first : at + plan.last], plan.threshold, keys)
            size *= tall
        correction = np.float32(0)
        if number >= least:
            guess = median(every[:size], number, guess, few)
            correction = guess if abs(guess) < plan.largest else correction
        if stage == COLUMNS:
            corrections[turned] = correction
            if turned == STRIP - 1 or g == groups - 1:
                for r in range(rows):
                    at = r * plan.columns + g
                    row = values[at - turned : at + 1]
                    for i in range(row.size):
                        row[i] -= corrections[i]
        else:
            for r in range(tall):
                at = (top + r) * plan.columns + left
                bank = values[at : at + plan.width]
                for i in range(bank.size):
                    bank[i] -= correction


@exact
def _turn(values: Any, columns: int, left: int, turned: Any) -> None:
    """Lay up to STRIP columns from ``left`` on one behind the other."""
    rows = values.size // columns
    for r in range(rows):
        row = values[r * columns + left : r * columns + min(left + STRIP, columns)]
        for i in range(row.size):
            turned[i * rows + r] = row[i]
