"""Constant-fraction discriminator: when pulses come, whatever their height."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.loops.compile import kernel
from ffb.reducers.trace import extremes, median
from ffb.shot import Input

#: Samples looked at together: most have no hit, and a loop without branches vectorises.
BLOCK = 64


class Discriminator(NamedTuple):
    """Settings of :func:`find`, checked.

    A region is where the trace is above ``threshold``, in units of the trace's standard deviation
    if ``relative``; ``sign`` is that of pulses, 0 for the larger excursion of the trace's two;
    ``response`` (taps + offset,) float64 turns a trace into D, smoothing included: its first
    weight is for ``lead`` samples before. ``shift`` [samples] is from the crossing to the hit;
    ``whole`` says that samples are integers.
    """

    threshold: float
    relative: bool
    sign: float
    response: NDArray[np.float64]
    lead: int
    shift: int
    whole: bool


class Found(NamedTuple):
    """What :func:`find` found: hits, also those beyond the room for them; level and noise."""

    n: int
    level: float
    noise: float


def discriminator(
    given: Input,
    threshold: float,
    relative: bool,
    sign: int,
    taps: int,
    offset: int,
    multiplier: float,
) -> tuple[Discriminator | None, list[str]]:
    """Check the settings against the waveform: a discriminator, or what does not fit."""
    (size,) = given.shape
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
    response = np.zeros(taps + offset)
    response[:taps] = weights
    response[offset:] += multiplier * weights
    made = Discriminator(
        threshold,
        relative,
        float(sign),
        response,
        taps // 2,
        round(offset * (1 + multiplier)),
        np.dtype(given.dtype).kind in "iu",
    )
    return made, []


@kernel
def _respond(waveform: NDArray[Any], level: float, c: Discriminator, at: int) -> Any:
    """D at sample ``at``; the trace goes on at ``level`` beyond its ends."""
    first = at - c.lead
    skip = max(-first, 0)
    stop = min(c.response.size, waveform.size - first)
    if stop <= skip:
        return 0.0
    w, x = c.response[skip:stop], waveform[first + skip : first + stop]
    total = 0.0
    for i in range(x.size):
        total += w[i] * (np.float64(x[i]) - level)
    return total


@kernel
def _crossing(
    waveform: NDArray[Any], level: float, sign: float, c: Discriminator, first: int, last: int
) -> Any:
    """Last sample before the discriminator rises through 0, -1 if not once, and how far behind."""
    at, rest, rises, before = -1, 0.0, 0, 0.0
    for i in range(first, last):
        now = sign * _respond(waveform, level, c, i)
        if i > first and before < 0.0 and now >= 0.0:
            rises += 1
            at, rest = i - 1, before / (before - now)
        if i > first and before >= 0.0 and now < 0.0:
            return -1, rest
        before = now
    return at if rises == 1 else -1, rest


@kernel
def _regions(waveform: NDArray[Any], level: float, sign: float, limit: float, edges: Any) -> Any:
    """List where regions above ``limit`` begin and end, by turns; returns how many are listed.

    Without a branch for each sample: every place is written, few stay.
    """
    number, before = 0, False
    for at in range(0, waveform.size, BLOCK):
        block, above = waveform[at : at + BLOCK], np.int32(0)
        for k in range(block.size):
            above = np.int32(above + np.int32(sign * (np.float64(block[k]) - level) > limit))
        if above == (block.size if before else 0):
            continue
        for k in range(block.size):
            now = bool(sign * (np.float64(block[k]) - level) > limit)
            edges[number] = at + k
            number += now != before
            before = now
    if before:
        edges[number] = waveform.size
        number += 1
    return number


@kernel
def _height(region: NDArray[Any], level: float, sign: float) -> Any:
    """Largest sample above the level."""
    height = sign * (np.float64(region[0]) - level)
    for x in region:
        height = max(height, sign * (np.float64(x) - level))
    return height


@kernel
def find(
    waveform: NDArray[Any],
    c: Discriminator,
    samples: NDArray[np.int64],
    times: NDArray[np.float64],
    heights: NDArray[np.float64],
) -> Any:
    """Find hits and fill in the first of them, as many as there is room for: :class:`Found`.

    With the median of the trace as level, s the smoothed trace above it and D = s[i] + multiplier
    s[i + offset], a region of samples above the threshold, moved by -shift, is a hit if D rises
    through 0 within it exactly once and falls never. ``samples`` is the last sample with D < 0,
    ``times`` [samples] the crossing between it and the next on a straight line, both moved back by
    shift = round(offset (1 + multiplier)); ``heights`` the largest sample of the region.
    """
    n, number = waveform.size, 0
    level = median(waveform, c.whole)
    if level != level:
        return Found(0, level, level)
    total, squares = 0.0, 0.0
    for k in range(n):
        total += np.float64(waveform[k])
    for k in range(n):
        x = np.float64(waveform[k]) - total / n
        squares += x * x
    noise = np.sqrt(squares / n)
    sign = c.sign
    if sign == 0.0:
        lo, hi = extremes(waveform)
        sign = -1.0 if level - np.float64(lo) > np.float64(hi) - level else 1.0
    limit = c.threshold * noise if c.relative else c.threshold
    edges = np.empty(n + 1, np.int32)
    for e in range(0, _regions(waveform, level, sign, limit, edges), 2):
        start, end = edges[e], edges[e + 1]
        first, last = max(start - c.shift, 0), min(end - c.shift, n)
        if last - first < 2:
            continue  # nothing rises within a sample
        at, rest = _crossing(waveform, level, sign, c, first, last)
        if at >= 0:
            if number < samples.size:
                samples[number] = at + c.shift
                times[number] = at + c.shift + rest
                heights[number] = _height(waveform[start:end], level, sign)
            number += 1
    return Found(number, level, noise)
