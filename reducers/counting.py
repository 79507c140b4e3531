"""Exact medians of groups of float32 values by counting, without moving them.

A bracket around each median is narrowed by counts of what lies below a guess in it, for several
groups by turns: a count takes a few vector instructions, those of one group wait for no other's,
and all brackets are narrowed together. What lies next to a guess in the middle is the median. It is
found among integers in the order of the values (*keys*), because a search for the least or greatest
float would have to give up NaN to be quick.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.reducers.gain_ranges import F32, exact

#: Groups that take turns, and turns after which each is finished by itself.
GROUPS, TURNS = 16, 7

#: Keys of no number: greater than all, and less.
LAST, LEAST = np.int32(0x7FFFFFFF), np.int32(-0x80000000)

INF, HALF, LARGEST = np.float32(np.inf), np.float32(0.5), np.finfo(np.float32).max

#: Farther from half of the values than this, a count is not that of a guess in the middle.
MIDDLE = np.float32(0.75)

#: Where a search keeps, of each of its groups: how many values count; the low and the high end of
#: the bracket, and how many are below each; the guess, and how many are below it; how far apart
#: values are near the median.
NUMBER, LOW, HIGH, UNDER, BELOW, GUESS, COUNT, SPREAD = (np.uint64(GROUPS * i) for i in range(8))


class Search(NamedTuple):
    """Room for a search: for what it knows of its groups, for two keys, and for one to be turned.

    What it knows is one array, in which the compiler sees that its parts do not overlap: as arrays
    of their own they took ten times as long.
    """

    known: F32
    keys: NDArray[np.int32]
    word: NDArray[np.int32]


def search() -> Search:
    """Make room for a search."""
    known = np.zeros((8, GROUPS), np.float32)
    known[-1] = 1 / 16  # any distance will do to begin with
    return Search(known.ravel(), np.zeros(2, np.int32), np.zeros(1, np.int32))


@exact
def medians(values: Any, least: Any, threshold: Any, room: Search, out: Any) -> None:
    """Write the medians of up to GROUPS groups of ``values`` (groups * size,) to ``out`` (groups,).

    Values below ``threshold`` count. A group of which fewer than ``least`` (groups,) do, or none,
    has NaN. Between two in the middle it is half their sum, rounded as ``np.median`` does.
    """
    s, groups = room.known, least.size
    size = values.size // groups
    for i in range(GROUPS):
        g, number, count = np.uint64(i), np.float32(0), np.float32(0)
        if i < groups:
            group = values[i * size : (i + 1) * size]
            number = np.float32(_count(group, threshold))
            wanted = number >= np.float32(max(least[i], 1))
            count = np.float32(-2) if wanted else number * HALF  # of those there is nothing to do
            s[GUESS + g] = _start(group, s[GUESS + g])
        s[NUMBER + g], s[COUNT + g] = number, count
        s[LOW + g], s[UNDER + g], s[HIGH + g], s[BELOW + g] = -INF, np.float32(0), threshold, number
    far, reach = True, np.float32(1)
    for _ in range(TURNS):
        for i in range(groups):
            g = np.uint64(i)
            if abs(s[NUMBER + g] * HALF - s[COUNT + g]) > MIDDLE:
                group = values[i * size : (i + 1) * size]
                s[COUNT + g] = np.float32(_count(group, s[GUESS + g]))
        far = _narrow(s, threshold, reach)
        reach *= np.float32(2)
        if not far:
            break
    for i in range(groups):
        g, group = np.uint64(i), values[i * size : (i + 1) * size]
        number, count = s[NUMBER + g], s[COUNT + g]
        if number < np.float32(max(least[i], 1)):
            out[i] = np.float32(np.nan)
        elif abs(number * HALF - count) > MIDDLE:
            out[i] = s[GUESS + g] = _finish(group, g, room)
        else:
            above, below = _next_to(group, s[GUESS + g], room)
            one = below if count > number * HALF else above
            both = count == number * HALF
            pair = _value(above, room.word) + _value(below, room.word)
            out[i] = pair / np.float32(2) if both else _value(one, room.word)


@exact
def means(values: Any, least: Any, threshold: Any, out: Any) -> None:
    """As :func:`medians`, but the mean, added up in float64."""
    size = values.size // least.size
    for g in range(least.size):
        total, number = np.float64(0), 0
        for value in values[g * size : (g + 1) * size]:
            if value < threshold:
                total += np.float64(value)
                number += 1
        enough = number >= max(least[g], 1)
        out[g] = np.float32(total / np.float64(number)) if enough else np.float32(np.nan)


@exact
def _start(values: Any, otherwise: Any) -> Any:
    """The middle one of three of the values, ``otherwise`` if one of them is NaN."""
    n = values.size
    a, b, c = values[n // 4], values[n // 2], values[n - 1 - n // 4]
    low, high = (a, b) if a < b else (b, a)
    middle = low if c < low else (high if c > high else c)
    return middle if abs(a + b + c) < INF else otherwise


@exact
def _narrow(s: Any, threshold: Any, reach: Any) -> Any:
    """Make the guesses ends of their brackets and make new ones; whether some are still far off.

    All is read before anything is chosen, so that choosing takes no branches.
    """
    any_far, top = np.int32(0), min(threshold, LARGEST)
    for i in range(GROUPS):
        g = np.uint64(i)
        low, under, high, below = s[LOW + g], s[UNDER + g], s[HIGH + g], s[BELOW + g]
        guess, count, spread, half = s[GUESS + g], s[COUNT + g], s[SPREAD + g], s[NUMBER + g] * HALF
        off = half - count
        up, far = off > np.float32(0), abs(off) > MIDDLE
        low = guess if up else low
        under = count if up else under
        high = high if up else guess
        below = below if up else count
        step = (high - low) / (below - under)
        inside = low + step * (half - under)
        both = (low > -INF) & (high < threshold)
        new = inside if both else guess + off * spread * reach
        new = new if new < top else top
        new = new if new > -LARGEST else -LARGEST
        s[LOW + g] = low
        s[UNDER + g] = under
        s[HIGH + g] = high
        s[BELOW + g] = below
        s[SPREAD + g] = step if both & (step < INF) else spread
        s[GUESS + g] = new if far else guess
        any_far = np.int32(any_far | np.int32(far))
    return any_far != 0


@exact
def _finish(values: Any, g: Any, room: Search) -> Any:
    """The median of group ``g``, whose bracket gets narrower until its ends tell it."""
    s = room.known
    number, k = np.int64(s[NUMBER + g]), np.float32((np.int64(s[NUMBER + g]) - 1) // 2)
    low, high, under, below = s[LOW + g], s[HIGH + g], s[UNDER + g], s[BELOW + g]
    odd, turn = number % 2 == 1, 0
    first, _ = _next_to(values, low, room)
    above, last = _next_to(values, high, room)
    while not (first == last or (odd and under == k) or below == k + np.float32(1)):
        a, b = _value(first, room.word), _value(last, room.word)
        part = (k + HALF - under) / (below - under) if turn % 2 == 0 else HALF
        t = np.int64(_key(a + (b - a) * part, room.word))
        turn += 1
        if under == k:
            t = np.int64(first) + 1
        elif turn % 4 == 0:  # however values are spread, half of the keys are gone
            t = (np.int64(first) + np.int64(last) + 1) >> 1
        t = min(max(t, np.int64(first) + 1), np.int64(last))
        guess = _value(np.int32(t), room.word)
        count = np.float32(_count(values, guess))
        if count <= k:
            under = count
            first, _ = _next_to(values, guess, room)
        else:
            below = count
            above, last = _next_to(values, guess, room)
    alone = first == last or (odd and under == k)
    one = _value(first if alone else last, room.word)
    if odd or below > k + np.float32(1):
        return one
    return (one + _value(above, room.word)) / np.float32(2)


@exact
def _count(values: Any, limit: Any) -> Any:
    """How many are less than ``limit``."""
    number = np.int32(0)
    for i in range(values.size):
        number = np.int32(number + np.int32(values[i] < limit))
    return number


@exact
def _next_to(values: Any, limit: Any, room: Search) -> Any:
    """Keys of the least value from ``limit`` on and of the greatest below; NaN is neither."""
    bits, above, below = values.view(np.int32), LAST, LEAST
    for i in range(values.size):
        key = np.int32(bits[i] ^ ((bits[i] >> 31) & LAST))
        key = np.int32(key + (key == -1))  # -0.0 is not less than 0
        above = min(above, key if values[i] >= limit else LAST)
        below = max(below, key if values[i] < limit else LEAST)
    return above, below


@exact
def _key(value: Any, room: Any) -> Any:
    room.view(np.float32)[0] = value
    return np.int32(room[0] ^ ((room[0] >> 31) & LAST))


@exact
def _value(key: Any, room: Any) -> Any:
    room[0] = np.int32(key ^ ((key >> 31) & LAST))
    return room.view(np.float32)[0]
