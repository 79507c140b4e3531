"""The offset that pixels read out together have in common, taken from them before their gain.

As psana's ``UtilsCommonMode.common_mode_apply``, bit by bit: the median over rows, columns or the
whole of a bank of pixels, found among those that are good and in their first gain range, and taken
from the same. Every median reads a few hundred values that are in the cache; the frame crosses the
memory as often as without. Beyond psana's, pixels that hold photons can be kept from counting, and
only some pixels may count: those of reference columns, as in psana's ``archon``, or of a mask, such
as the ones without a sensor. Where no correction can be made, it is counted.
"""

from __future__ import annotations

from functools import cache
from math import ceil
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.configuration.calibration_settings import CommonModeConfig
from ffb.loops.compile import borrowed
from ffb.reducers.counting import GROUPS, Search, means, medians, search
from ffb.reducers.gain_ranges import ADU, F32, Planes, Single, exact

#: Rows and columns of a bank by type of detector, those of psana.
BANKS = {"jungfrau": (256, 64), "epix10ka": (176, 48), "epix100": (352, 96)}

ROWS, COLUMNS, WHOLE = 0, 1, 2
STAGES = {"rows": ROWS, "columns": COLUMNS, "banks": WHOLE}

#: Least number of pixels that count in a group that never has enough: it is never corrected.
NEVER = np.iinfo(np.int32).max


class Plan(NamedTuple):
    """What to take from what: ``stages`` one after the other, over ``columns`` and banks of them.

    ``least`` has for every group of pixels how many must count, those of the i-th stage from
    ``begins[i]`` on; ``width`` is that of a bank; ``threshold`` and ``largest`` are in ADU,
    infinite if there are none. Of ``counted`` (pixels,) those count that are not 0, all if it is
    empty.
    """

    stages: NDArray[np.int64]
    begins: NDArray[np.int64]
    least: NDArray[np.int32]
    columns: int
    width: int
    threshold: np.float32
    largest: np.float32
    by_mean: bool
    counted: NDArray[np.uint8]


class Room(NamedTuple):
    """Room to work in.

    For pixels that belong together, put together; for what is to be taken from them and the search
    for it; for a row calibrated without common mode. ``skipped`` counts groups that were not
    corrected, because too few of their pixels counted and because it would have been too much.
    """

    packed: F32
    corrections: F32
    search: Search
    line: F32
    skipped: NDArray[np.int64]


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


def bank_of(setting: CommonModeConfig, dettype: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of a bank; raises ``ValueError`` if segments cannot be divided by it."""
    height, width = setting.bank or BANKS.get(dettype, shape[1:])
    if shape[1] % height or shape[2] % width:
        raise ValueError(
            f"common_mode.bank: {height} x {width} pixels do not divide segments of"
            f" {shape[1]} x {shape[2]}"
        )
    return height, width


def reference_of(
    setting: CommonModeConfig, bank: tuple[int, int], shape: tuple[int, ...]
) -> NDArray[np.bool_] | None:
    """Pixels in the reference columns of banks, ``None`` if there are none of those."""
    if not setting.reference:
        return None
    first, last = setting.reference
    if last > bank[1]:
        raise ValueError(f"common_mode.reference: ends at {last}, a bank at its column {bank[1]}")
    at = np.arange(shape[2]) % bank[1]
    return np.broadcast_to((at >= first) & (at < last), shape)


def _by_group(over: str, bank: tuple[int, int], pixels: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many ``pixels`` (segments, rows, columns) there are in each group."""
    height, width = bank
    boxes = pixels.reshape(-1, height, pixels.shape[-1] // width, width)
    axes: dict[str, tuple[int, ...]] = {"rows": (3,), "columns": (1,), "banks": (1, 3)}
    return np.asarray(boxes.sum(axis=axes[over]).ravel(), np.int64)


def corrected(
    planes: Planes,
    tile: Any,
    mask: NDArray[np.bool_],
    setting: CommonModeConfig,
    bank: tuple[int, int],
    reference: NDArray[np.bool_] | None,
    pedestal: NDArray[Any],
    fit: NDArray[np.bool_],
) -> tuple[Corrected, Any, int, list[str]]:
    """Constants and kernel of a calibration with a common mode, of those of one without.

    ``pedestal`` and ``fit``, whether a pixel could take part, are (segments, rows, columns), of the
    first gain range. Good pixels take part if they are fit, those of the ``reference`` even if
    they are masked; if there is one, others do not count. Gives also how many rows the kernel
    must see at once, and notes on what is never corrected.

    Raises ``ValueError`` with a line for each setting that does not fit.
    """
    there = np.ones(mask.shape, np.bool_) if reference is None else reference
    part = fit & (mask if reference is None else mask | reference)
    least, begins, problems, notes = [], [0], [], []
    for over in setting.over:
        asked = _by_group(over, bank, there)
        needed = np.maximum(setting.pixels, np.ceil(setting.fraction * asked)).astype(np.int64)
        if (needed > asked).all():
            problems.append(
                f"common_mode.pixels: {ceil(needed.min())} are never there; {asked.max()} count in"
                f" one of the {over}"
            )
        never = _by_group(over, bank, part & there) < needed
        if never.any():
            notes.append(
                f"common mode: {never.sum()} of {never.size} {over} have too few pixels that"
                " count, and are left as they are"
            )
        least.append(np.where(never, NEVER, needed).astype(np.int32))
        begins.append(begins[-1] + never.size)
    if problems:
        raise ValueError("\n".join(problems))
    threshold, largest = (np.inf if x is None else x for x in (setting.threshold, setting.largest))
    columns, height = mask.shape[2], 1 if setting.over == ("rows",) else bank[0]
    plan = Plan(
        np.array([STAGES[o] for o in setting.over], np.int64),
        np.array(begins[:-1], np.int64),
        np.concatenate(least),
        columns,
        bank[1],
        np.float32(threshold),
        np.float32(largest),
        setting.by == "mean",
        np.zeros(0, np.uint8) if reference is None else reference.astype(np.uint8).ravel(),
    )
    room = Room(
        np.zeros(max(GROUPS * bank[0], bank[0] * bank[1], GROUPS * bank[1]), np.float32),
        np.zeros(GROUPS, np.float32),
        search(),
        np.zeros(columns, np.float32),
        np.zeros(2, np.int64),
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
    return constants, _over(tile), height, notes


@cache
def _over(tile: Any) -> Any:
    """Calibrate many rows with ``tile`` and the common mode between pedestal and gain."""

    @exact
    def rows(raw: Any, first: int, c: Corrected, out: Any, bad: Any) -> None:
        raw, out, columns = borrowed(raw), borrowed(out), c.plan.columns
        pedestals, factors = borrowed(c.pedestal), borrowed(c.factor)
        for r in range(bad.size):
            at = r * columns
            pedestal = pedestals[first + at : first + at + columns]
            bad[r] = _above(raw[at : at + columns], pedestal, c.switched, out[at : at + columns])
        for i in range(c.plan.stages.size):
            _correct(out, first, c.plan, i, c.room)
        for r in range(bad.size):
            at = r * columns
            factor = factors[first + at : first + at + columns]
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
def _correct(values: Any, first: int, plan: Plan, i: int, room: Room) -> None:
    """Take from ``values`` (height * columns,) what every row, column or bank has in common.

    ``first`` is the first pixel's index in the detector. There is one loop over all kinds of
    groups, so that the median is compiled into it once.
    """
    values, packed, stage = borrowed(values), borrowed(room.packed), plan.stages[i]
    every, taken = borrowed(plan.least), borrowed(room.corrections)
    columns, width = plan.columns, plan.width
    rows, banks = values.size // columns, columns // width
    tall = rows if stage == WHOLE else 1
    across, together = (columns if stage == COLUMNS else banks), (1 if stage == WHOLE else GROUPS)
    block = first // columns if stage == ROWS else first // values.size
    for top in range(0, rows if stage == ROWS else 1):
        for left in range(0, across, together):
            n = min(together, across - left)
            begin = plan.begins[i] + (block + top) * across + left
            least, corrections = every[begin : begin + n], taken[:n]
            at = left if stage == COLUMNS else top * columns + left * width
            if stage == COLUMNS:
                _turn(values, first, columns, left, n, plan.counted, packed)
                groups = packed[: n * rows]
            elif stage == WHOLE or plan.counted.size:
                _pack(values, first, columns, at, n * width, tall, plan.counted, packed)
                groups = packed[: n * width * tall]
            else:
                groups = values[at : at + n * width]
            if plan.by_mean:
                means(groups, least, plan.threshold, corrections)
            else:
                medians(groups, least, plan.threshold, room.search, corrections)
            _judge(corrections, least, plan.largest, room.skipped)
            if stage == COLUMNS:
                for r in range(rows):
                    row = values[r * columns + left : r * columns + left + n]
                    for g in range(n):
                        row[g] -= corrections[g]
            else:
                for r in range(tall):
                    for g in range(n):
                        start, correction = r * columns + at + g * width, corrections[g]
                        bank = values[start : start + width]
                        for j in range(bank.size):
                            bank[j] -= correction


@exact
def _judge(corrections: Any, least: Any, largest: Any, skipped: Any) -> None:
    """Make corrections 0 that are not to be made, and count those that might have been."""
    for g in range(corrections.size):
        size = abs(corrections[g])
        if not size < largest:  # NaN where too few pixels counted
            skipped[0] += np.int64((size != size) & (least[g] != NEVER))
            skipped[1] += np.int64(size == size)
            corrections[g] = np.float32(0)


@exact
def _turn(
    values: Any, first: int, columns: int, left: int, n: int, counted: Any, turned: Any
) -> None:
    """Lay ``n`` columns from ``left`` on one behind the other, NaN for pixels that do not count."""
    rows = values.size // columns
    for r in range(rows):
        row = values[r * columns + left : r * columns + left + n]
        for i in range(row.size):
            turned[i * rows + r] = row[i]
        if counted.size:
            at = first + r * columns + left
            counts = counted[at : at + n]
            for i in range(counts.size):
                if counts[i] == 0:
                    turned[i * rows + r] = np.float32(np.nan)


@exact
def _pack(
    values: Any, first: int, columns: int, at: int, wide: int, tall: int, counted: Any, packed: Any
) -> None:
    """Lay parts of rows one behind the other, NaN for pixels that do not count."""
    for r in range(tall):
        begin = r * columns + at
        row, out = values[begin : begin + wide], packed[r * wide : (r + 1) * wide]
        for i in range(row.size):
            out[i] = row[i]
        if counted.size:
            counts = counted[first + begin : first + begin + wide]
            for i in range(counts.size):
                out[i] = out[i] if counts[i] != 0 else np.float32(np.nan)
