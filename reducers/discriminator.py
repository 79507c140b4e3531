"""Constant-fraction discriminator: when pulses come, whatever their height."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.loops.compile import borrowed, kernel
from ffb.reducers.lanes import LANES, above, below, correlate, lowest
from ffb.reducers.trace import extremes, middle

#: All bits of a comparison.
ALL = (1 << LANES) - 1


class Discriminator(NamedTuple):
    """Settings of :func:`find`, checked.

    A region is where the trace is above ``threshold``, in units of the trace's standard deviation
    if ``relative``; ``sign`` is that of pulses, 0 for the larger excursion of the trace's two;
    ``smooth`` (taps,) float64 are the weights of the Gaussian, ``offset`` [samples] and
    ``multiplier`` those of D. ``shift`` [samples] is from the crossing to the hit; ``each`` takes
    every rise for a hit; ``whole`` says that samples are integers.
    """

    threshold: float
    relative: bool
    sign: float
    smooth: NDArray[np.float64]
    offset: int
    multiplier: float
    shift: int
    each: bool
    whole: bool


class Found(NamedTuple):
    """What :func:`find` found: hits, also those beyond the room for them; level and noise."""

    n: int
    level: float
    noise: float


def discriminator(
    size: int,
    whole: bool,
    threshold: float,
    relative: bool,
    sign: int,
    taps: int,
    offset: int,
    multiplier: float,
    each: bool,
) -> tuple[Discriminator | None, list[str]]:
    """Check the settings against ``size`` samples: a discriminator, or what does not fit."""
    problems = []
    if not 0 <= threshold < np.inf:
        problems.append(f"threshold: {threshold} must be a number, 0 or above")
    if taps < 1 or taps % 2 == 0 or taps > size:
        problems.append(
            f"taps: {taps} must be odd, so that smoothing does not shift, and 1..{size}"
        )
    if not 0 < offset < size:
        problems.append(f"offset: {offset} must be 1..{size - 1} samples")
    if not -np.inf < multiplier < 0:
        problems.append(f"multiplier: {multiplier} must be below 0, or nothing crosses it")
    if problems:
        return None, problems
    at = np.arange(taps) - taps // 2
    weights = np.exp(-0.5 * (at / max((taps - 1) / 6, 1e-9)) ** 2)
    weights /= weights.sum()
    made = Discriminator(
        threshold,
        relative,
        float(sign),
        weights,
        offset,
        multiplier,
        round(offset * (1 + multiplier)),
        each,
        whole,
    )
    return made, []


@kernel
def _comb(trace: NDArray[np.float64], c: Discriminator, comb: NDArray[np.float64]) -> None:
    """Fill ``comb`` with x[i] + multiplier x[i + offset] of a trace; smoothed, it is D.

    The order is of no matter for D, and of the response's taps + offset products taps remain.
    """
    later = trace[c.offset :]
    for k in range(comb.size):
        comb[k] = trace[k] + c.multiplier * later[k]


@kernel
def _respond(trace: NDArray[np.float64], c: Discriminator, one: int, two: int) -> Any:
    """D at samples ``one`` and ``two``: two sums at once take hardly longer than one."""
    smooth, x, y = borrowed(c.smooth), trace[one:], trace[two:]
    later_x, later_y = x[c.offset :], y[c.offset :]
    d, e = 0.0, 0.0
    for t in range(smooth.size):
        d += smooth[t] * (x[t] + c.multiplier * later_x[t])
        e += smooth[t] * (y[t] + c.multiplier * later_y[t])
    return d, e


@kernel
def _crossing(
    comb: NDArray[np.float64],
    smooth: NDArray[np.float64],
    size: int,
    before: float,
    after: float,
    room: NDArray[np.float64],
) -> Any:
    """Last of ``size`` samples before D rises through 0, and how far behind; -1 if D falls.

    It is ``before``, below 0, at sample 0, and ``after``, which is not, at the last.
    """
    at, risen = size - 2, False
    for i in range(1, size - 1, LANES):
        correlate(comb, smooth, i, room)
        inside = min(size - 1 - i, LANES)
        every = (1 << inside) - 1
        low = below(room, 0, 0.0) & every
        if risen and low:
            return -1, 0.0
        if risen:
            continue
        if low == every:
            before = room[inside - 1]
            continue
        place, risen = lowest(low ^ every), True
        at, after, before = i + place - 1, room[place], room[place - 1] if place else before
        if low >> place:
            return -1, 0.0
    return at, before / (before - after)


@kernel
def _largest(above: NDArray[np.float64], into: NDArray[np.float64]) -> None:
    """Put the largest of what is ``above`` 0 ``into`` (1,).

    Such floats are in the order of their bits, of which the largest takes a tenth of the time.
    """
    keys = above.view(np.int64)
    largest = keys[0]
    for k in range(keys.size):
        largest = max(largest, keys[k])
    into.view(np.int64)[0] = largest


@kernel
def _rises(
    comb: NDArray[np.float64],
    c: Discriminator,
    first: int,
    size: int,
    trace: NDArray[np.float64],
    start: int,
    end: int,
    number: int,
    samples: NDArray[np.int64],
    times: NDArray[np.float64],
    heights: NDArray[np.float64],
    room: NDArray[np.float64],
) -> Any:
    """Fill in a hit for every rise of D in a region, which is cut where D falls; their number.

    The region is samples ``start`` to ``end`` of the trace; moved, ``size`` of them from ``first``.
    """
    before, rising, begin = 0.0, -1, start
    for k in range(size + 1):
        if k < size and k % LANES == 0:
            correlate(comb, c.smooth, k, room)
        now = room[k % LANES] if k < size else -1.0
        if k > 0 and before < 0.0 <= now:
            rising = number
            if number < samples.size:
                samples[number] = first + k - 1 + c.shift
                times[number] = samples[number] + before / (before - now)
            number += 1
        elif k == size or (k > 0 and now < 0.0 <= before):
            cut = first + k + c.shift if k < size else end
            if 0 <= rising < samples.size:
                _largest(trace[begin:cut], heights[rising : rising + 1])
            rising, begin = -1, cut
        before = now
    return number


@kernel
def _fill(waveform: NDArray[Any], level: float, sign: float, trace: NDArray[np.float64]) -> Any:
    """Put the waveform above its ``level`` into ``trace``; the standard deviation of it."""
    n, total, squares = waveform.size, 0.0, 0.0
    for k in range(n):
        x = sign * (np.float64(waveform[k]) - level)
        trace[k] = x
        total += x
        squares += x * x
    # The median is within a standard deviation of the mean, so that little is lost here.
    return np.sqrt(max(squares - total * total / n, 0.0) / n)


@partial(kernel, inlined=True)
def _scan(
    given: NDArray[np.float64],
    n: int,
    limit: float,
    c: Discriminator,
    samples: NDArray[np.int64],
    times: NDArray[np.float64],
    into: NDArray[np.float64],
) -> Any:
    """Go through the regions of the ``n`` samples in ``given``: how many are hits."""
    work, heights, smooth = borrowed(given), borrowed(into), borrowed(c.smooth)
    before_first, behind = smooth.size // 2, _behind(n, c)
    trace, comb, room = work[before_first:], work[behind:], work[work.size - LANES :]
    number, start, inside, alone, before = 0, 0, False, 0, 0
    found = above(trace, 0, limit)
    for at in range(0, n + 1, LANES):
        after = above(trace, at + LANES, limit)
        # Nothing rises within a sample: one alone is no region, and in noise most are alone.
        bits = found & (found >> 1 | after << (LANES - 1) | found << 1 | alone)
        turns = (bits ^ (bits << 1 | before)) & ALL
        alone, before, found = found >> (LANES - 1), bits >> (LANES - 1), after
        while turns:
            end = at + lowest(turns)
            turns &= turns - 1
            inside = not inside
            if inside:
                start = end
                continue
            first, last = max(start - c.shift, 0), min(end - c.shift, n)
            size = last - first
            if size < 2:
                continue
            if c.each:
                _comb(work[first:], c, comb[: size + smooth.size - 1])
                number = _rises(
                    comb, c, first, size, trace, start, end, number, samples, times, heights, room
                )
                continue
            # What rises once and never falls is below 0 at first and not at last: not much noise.
            low, high = _respond(work, c, first, last - 1)
            if low >= 0.0 or high < 0.0:
                continue
            _comb(work[first:], c, comb[: size + smooth.size - 1])
            crossed, rest = _crossing(comb, smooth, size, low, high, room)
            if crossed < 0:
                continue
            if number < samples.size:
                samples[number] = first + crossed + c.shift
                times[number] = samples[number] + rest
                _largest(trace[start:end], heights[number : number + 1])
            number += 1
    return number


@kernel
def _behind(n: int, c: Discriminator) -> Any:
    """Where room begins behind ``n`` samples and the zeros on either side of them."""
    return n + c.smooth.size + c.offset + 2 * LANES


@kernel
def workspace(n: int, c: Discriminator) -> Any:
    """How many float64 :func:`find` works on for ``n`` samples."""
    return _behind(n, c) + n + c.smooth.size + 2 * LANES


@partial(kernel, inlined=True)
def find(
    waveform: NDArray[Any],
    c: Discriminator,
    work: NDArray[np.float64],
    samples: NDArray[np.int64],
    times: NDArray[np.float64],
    heights: NDArray[np.float64],
) -> Any:
    """Find hits and fill in the first of them, as many as there is room for: :class:`Found`.

    With the median of the trace as level, s the smoothed trace above it and D = s[i] + multiplier
    s[i + offset], a region of samples above the threshold, moved by -shift, is a hit if D rises
    through 0 within it exactly once and falls never, or, with ``each``, one for every rise.
    ``samples`` is the last sample with D < 0, ``times`` [samples] the crossing between it and the
    next on a straight line, both moved back by shift = round(offset (1 + multiplier)); ``heights``
    the largest sample of the region, or of its piece. ``work`` is room, of :func:`workspace`.
    """
    n = waveform.size
    lo, hi = extremes(waveform)
    level = middle(waveform, lo, hi, c.whole)
    if level != level:
        return Found(0, level, level)
    sign = c.sign
    if sign == 0.0:
        sign = -1.0 if level - np.float64(lo) > np.float64(hi) - level else 1.0
    # Zeros on either side: the trace goes on at its level, and so far no end needs a special case.
    lead = c.smooth.size // 2
    for k in range(lead):
        work[k] = 0.0
    tail = work[lead + n : _behind(n, c)]
    for k in range(tail.size):
        tail[k] = 0.0
    noise = _fill(waveform, level, sign, work[lead : lead + n])
    limit = c.threshold * noise if c.relative else c.threshold
    return Found(_scan(work, n, limit, c, samples, times, heights), level, noise)
