"""The exact median of many float32 values by counting, without moving them.

Values are compared as integers in the same order (*keys*), because counting and searching
integers vectorises where the same with floats would have to give up NaN. A bracket around the
median is narrowed by counts of what lies below its next guess; when few are left in it, those
are looked at one by one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ffb.reducers.gain_ranges import exact

#: A key that belongs to no value: those that do not take part sort behind all that do.
LAST = np.int32(0x7FFFFFFF)

#: Keys left in the bracket when it is narrow enough, and keys looked through together for them.
FEW, BLOCK = 4, 64

#: First step from a guess, in units of the values; it doubles.
STEP = np.float32(0.5)


@exact
def fill_keys(values: Any, threshold: Any, keys: Any) -> Any:
    """Write the keys of ``values`` (n,) float32 below ``threshold``; returns how many there are.

    Others, NaN among them, become :data:`LAST`.
    """
    bits, number = values.view(np.int32), np.int32(0)
    for i in range(values.size):
        takes_part = values[i] < threshold
        key = np.int32(bits[i] ^ ((bits[i] >> 31) & LAST))
        keys[i] = key if takes_part else LAST
        number = np.int32(number + np.int32(takes_part))
    return number


@exact
def median(keys: Any, number: int, guess: Any, few: Any) -> Any:
    """Median of the ``number`` keys that take part, at least one; float32.

    Between the two in the middle it is half their sum, rounded as ``np.median`` does. A good
    ``guess`` makes it quick. ``few`` (2 * FEW + 1,) int32 is room to work in.
    """
    k = (number - 1) // 2
    a, b = np.int64(-0x80000000), np.int64(LAST)  # the bracket: a <= key < b
    below_a, below_b = 0, number
    at_a = at_b = np.float32(0)
    x, step, turn = guess, STEP, 0
    t = np.int64(_key(x, few))
    while below_b - below_a > FEW and b - a > 1:
        below = _count_below(keys, np.int32(t))
        if below <= k:
            a, below_a, at_a = t, below, x
        else:
            b, below_b, at_b = t, below, x
        turn += 1
        if turn % 8 == 7:  # a count that does not move: many equal values
            least = np.int64(_least(keys, np.int32(a)))
            below = _count_below(keys, np.int32(least + 1))
            if below > k:
                a, b, below_b = least, least + 1, below
                break
            a, below_a, at_a = least + 1, below, _value(np.int32(least + 1), few)
        if a == -0x80000000:
            x, step = at_b - step, step * np.float32(2)
        elif b == LAST:
            x, step = at_a + step, step * np.float32(2)
        else:
            part = (np.float32(k - below_a) + np.float32(0.5)) / np.float32(below_b - below_a)
            x = at_a + (at_b - at_a) * part
        t = np.int64(_key(x, few))
        if t <= a or t >= b or turn % 4 == 0:
            t = (a + b) >> 1
            x = _value(np.int32(t), few)
    if b - a > 1:
        _gather(keys, np.int32(a), np.int32(b), few)
        low = _ranked(few, k - below_a)
    else:
        low = np.int32(a)
    if number % 2 == 1:
        return _value(low, few)
    high = low
    if k + 1 >= below_b:
        high = _least(keys, np.int32(b))
    elif b - a > 1:
        high = _ranked(few, k + 1 - below_a)
    return (_value(low, few) + _value(high, few)) / np.float32(2)


@exact
def _key(value: Any, room: Any) -> Any:
    room.view(np.float32)[-1] = value
    return np.int32(room[-1] ^ ((room[-1] >> 31) & LAST))


@exact
def _value(key: Any, room: Any) -> Any:
    room[-1] = np.int32(key ^ ((key >> 31) & LAST))
    return room.view(np.float32)[-1]


@exact
def _count_below(keys: Any, t: Any) -> Any:
    number = np.int32(0)
    for i in range(keys.size):
        number = np.int32(number + np.int32(keys[i] < t))
    return number


@exact
def _least(keys: Any, t: Any) -> Any:
    """Least key of at least ``t``."""
    least = LAST
    for i in range(keys.size):
        least = min(least, keys[i] if keys[i] >= t else LAST)
    return least


@exact
def _gather(keys: Any, a: Any, b: Any, few: Any) -> None:
    """Collect the at most FEW keys in a bracket, and as many :data:`LAST` as are missing."""
    n: Any = 0
    for at in range(0, keys.size, BLOCK):
        block = keys[at : min(at + BLOCK, keys.size)]
        inside = np.int32(0)
        for i in range(block.size):
            inside = np.int32(inside + np.int32((block[i] >= a) & (block[i] < b)))
        if inside:
            for i in range(block.size):
                few[n] = block[i]
                n += np.int64((block[i] >= a) & (block[i] < b))
    for i in range(n, FEW):
        few[i] = LAST


@exact
def _ranked(few: Any, k: int) -> Any:
    """The k-th smallest of FEW, from 0."""
    out = LAST
    for i in range(FEW):
        below, not_above = np.int64(0), np.int64(0)
        for j in range(FEW):
            below += np.int64(few[j] < few[i])
            not_above += np.int64(few[j] <= few[i])
        out = few[i] if (below <= k) & (k < not_above) else out
    return out
