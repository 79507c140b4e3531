"""Exposures: which shots each frame of an integrating detector saw.

A slow camera has a frame in one of many shots. Its exposure is what came after the frame before it,
up to its own shot; an offset and a length can be given where the shutter is not simply open. This
is a function of the rows alone, in the order of their timestamps, so it is the same while the run
grows, in its merged file, and after whatever was killed meanwhile.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

#: Bits of ``why`` an exposure is partial, and what each means.
WHY: dict[str, tuple[int, str]] = {
    "first": (1, "began before the first shot of the run"),
    "open": (2, "was not over when the last shot came"),
    "cut": (4, "longer than max_s, and cut there"),
    "step": (8, "a step of the scan began in it"),
    "missing": (16, "shots in it are lost or were not seen, by pulse ids"),
    "frame_lost": (32, "so long that a frame before its own must be missing"),
}

#: A distance between pulse ids is the beam's own from this share of all distances on.
FREQUENT = 0.3

#: Distances from here on are told apart to 5 % only.
EXACT = 64

#: The longest credible gap between pulse ids, almost five minutes at 929 kHz.
LONGEST = 1 << 28

#: A frame is missing before one that is later than its detector's period by this factor.
LATE = 1.5


class Timing(NamedTuple):
    """How frames and shots belong together, times in ns.

    Shots count up to ``delay`` before the timestamp of the frame (after it, where negative), from
    the frame before on, or over ``length`` if that is not 0. Exposures longer than ``longest`` are
    cut, those with several steps in them too, unless they may go ``across`` steps.
    """

    delay: int = 0
    length: int = 0
    longest: int = 60_000_000_000
    across: bool = False


class Exposures(NamedTuple):
    """Exposures in order, all (k,): shots ``begin`` to ``end`` of the run, disjoint, ascending.

    ``frame`` is the shot that carries the frame, -1 where there is none: before a cut, before a
    step, after the last frame. ``why`` has bits of :data:`WHY`, 0 for a whole exposure.
    ``missing`` counts shots that are not there, -1 where pulse ids do not tell.
    """

    begin: Ints
    end: Ints
    frame: Ints
    why: NDArray[np.uint8]
    missing: Ints


class Marks(NamedTuple):
    """What is known of shots in the order of their timestamps, each once: all (n,).

    ``time`` in ns, ``frames`` are those that carry a frame, ``pulse`` is 0 where unknown.
    """

    time: Ints
    frames: NDArray[np.bool_]
    step: NDArray[np.int32]
    pulse: Ints


def exposures(shots: Marks, timing: Timing) -> Exposures:
    """Exposures of all frames, and of what came after the last one."""
    time, framed = shots.time, np.flatnonzero(shots.frames)
    if not len(time):
        none = np.zeros(0, np.int64)
        return Exposures(none, none, none, none.astype(np.uint8), none)
    closing = time[framed] - timing.delay
    end = np.searchsorted(time, closing, "right").astype(np.int64)
    begin = np.concatenate([[0], end])[:-1].astype(np.int64)
    known = np.zeros(len(framed), np.bool_)
    if timing.length:
        opening = np.searchsorted(time, closing - timing.length, "right")
        begin = np.maximum(begin, np.minimum(opening, end))
        known = closing - timing.length >= time[0]
    why = np.zeros(len(framed), np.uint8)
    why[closing > time[-1]] |= WHY["open"][0]
    why[:1] |= np.where(known[:1], 0, WHY["first"][0]).astype(np.uint8)
    if not timing.length:
        why[_behind_lost_frames(closing)] |= WHY["frame_lost"][0]
    rest = int(end[-1]) if len(end) else 0
    if rest < len(time):
        begin, end = np.append(begin, rest), np.append(end, len(time))
        framed = np.append(framed, -1)
        late = WHY["open"][0] | (0 if len(why) else WHY["first"][0])
        why = np.append(why, np.uint8(late))
    whole = Exposures(begin, end, framed, why, np.zeros(len(begin), np.int64))
    return _count_missing(_cut(whole, shots, timing), shots)


def _behind_lost_frames(closing: Ints) -> NDArray[np.bool_]:
    """Which frames come later after the one before than this detector's usually do."""
    if len(closing) < 3:
        return np.zeros(len(closing), np.bool_)
    between = np.diff(closing)
    return np.concatenate([[False], between > LATE * np.median(between)])


def _cut(whole: Exposures, shots: Marks, timing: Timing) -> Exposures:
    """Cut exposures where a step begins and where they are too long; the last piece has the frame.

    Pieces on both sides of a cut have its bit; the bits of the whole stay with those pieces that
    they hold for.
    """
    begin, end = whole.begin, whole.end
    length = end - begin
    owner = np.repeat(np.arange(len(begin)), length)
    if not len(owner):  # every frame came before the first shot that it could have seen
        return whole
    place = np.arange(len(owner)) + np.repeat(begin - (np.cumsum(length) - length), length)
    since = shots.time[place] - np.repeat(shots.time[np.minimum(begin, place[-1])], length)
    same = owner[1:] == owner[:-1]
    stepped = same & (np.diff(shots.step[place]) != 0)
    too_long = same & (np.diff(since // timing.longest) != 0)
    cuts = too_long | (False if timing.across else stepped)
    starts = np.concatenate([[0], np.flatnonzero(cuts | ~same) + 1])
    ends = np.append(starts[1:], len(owner))
    own = owner[starts]
    last = np.append(own[1:] != own[:-1], True)
    initial = np.append(True, own[1:] != own[:-1])
    why = np.zeros(len(starts), np.uint8)
    found: dict[str, NDArray[np.bool_]] = {"step": stepped, "cut": too_long}
    for reason, where in found.items():
        at = np.flatnonzero(where) + 1  # the first shot behind
        after = np.searchsorted(starts, at, "right") - 1
        before = np.searchsorted(starts, at, "left") - 1
        why[after] |= WHY[reason][0]
        why[before] |= WHY[reason][0]
    opening = WHY["first"][0]
    why |= np.where(initial, whole.why[own] & opening, 0).astype(np.uint8)
    why |= np.where(last, whole.why[own] & ~np.uint8(opening), 0).astype(np.uint8)
    pieces = Exposures(
        place[starts],
        place[ends - 1] + 1,
        np.where(last, whole.frame[own], -1),
        why,
        np.zeros(len(starts), np.int64),
    )
    empty = np.flatnonzero(length == 0)
    order = np.argsort(np.concatenate([own, empty]), kind="stable")

    def joined(key: str) -> NDArray[Any]:
        both = [getattr(pieces, key), getattr(whole, key)[empty]]
        return np.asarray(np.concatenate(both)[order])

    return Exposures(*map(joined, Exposures._fields))


def _count_missing(found: Exposures, shots: Marks) -> Exposures:
    """Count in each exposure the shots that are not there, by gaps between pulse ids.

    A gap counts where it ends. The beam's period is the distance that most shots of the run have.
    """
    known = np.flatnonzero(shots.pulse > 0)
    apart, between = np.diff(shots.pulse[known]), np.diff(known) - 1
    usable = (np.diff(shots.step[known]) == 0) & (apart > 0) & (apart <= LONGEST)
    own = _own(apart, usable & (between == 0))
    if not own.any():
        return found._replace(missing=np.full(len(found.begin), -1, np.int64))
    period, gap = apart[own & (between == 0)].mean(), usable & ~own
    lost = np.zeros(len(shots.pulse) + 1, np.int64)
    lost[known[1:]] = np.where(gap, np.maximum(np.rint(apart / period) - 1 - between, 0), 0)
    if len(known) and len(found.begin):
        # Where shots in between are in no exposure, neither is what is missing among them.
        dead = np.append(found.begin[1:] > found.end[:-1], False)
        dead = np.concatenate([[False], dead[:-1]])
        lost[np.minimum(found.begin[dead], len(shots.pulse))] = 0
    before = np.concatenate([[0], np.cumsum(lost)])
    missing = before[found.end] - before[found.begin]
    why = found.why | np.where(missing > 0, WHY["missing"][0], 0).astype(np.uint8)
    return found._replace(missing=missing, why=why)


def _own(apart: Ints, neighbours: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which distances are the beam's own: kinds, 5 % wide, frequent among those of neighbours."""
    positive = np.maximum(apart, 1)
    coarse = EXACT + np.log(np.maximum(positive, EXACT) / EXACT) / np.log(1.05)
    kind = np.where(positive < EXACT, positive, coarse).astype(np.int64)
    kinds, times = np.unique(kind[neighbours], return_counts=True)
    return np.isin(kind, kinds[times >= FREQUENT * max(1, int(times.sum()))]) & neighbours.any()
