"""Hits of a waveform by a constant-fraction discriminator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, NamedTuple

import numpy as np

from ffb import Feature, Vector, Waveform, reducer
from ffb.loops.compile import borrowed
from ffb.reducers.discriminator import Discriminator, discriminator, find, workspace
from ffb.reducers.trace import common_problems, gate_problem
from ffb.shot import Input


class Params(NamedTuple):
    """Where to look for hits, and when one is.

    ``dt`` [ns] is the distance of samples. Candidates are the regions where the waveform is above
    its median by more than ``threshold`` times its standard deviation, or by ``threshold`` in its
    own unit unless ``relative``. ``sign`` is -1 for pulses that go down, 0 for those of the larger
    excursion. ``taps`` is the length of the Gaussian that smooths, 3 sigma to either side, odd; 1
    does not smooth. The discriminator is D = s[i] + ``multiplier`` s[i + ``offset``]. Up to
    ``capacity`` hits are kept. ``gate`` is all that is looked at, also for median and standard
    deviation, the whole waveform if left out. ``each`` takes every rise of D in a region for a hit
    of its own, where pulses overlap; without it, a region with several has none.
    """

    dt: float
    threshold: float = 4.0
    relative: bool = True
    sign: int = 0
    taps: int = 35
    offset: int = 25
    multiplier: float = -0.75
    capacity: int = 32
    gate: tuple[int, int] | None = None
    each: bool = False


class Constants(NamedTuple):
    """The same, checked."""

    discriminator: Discriminator
    start: int
    stop: int
    dt: float
    capacity: int


class Hits(NamedTuple):
    """Hits in the order of time; places beyond the last are 0 samples and NaN."""

    n: Annotated[int, Feature("1", "hits found, also those beyond the capacity")]
    sample: Annotated[Vector, Feature("1", "sample before each hit", ("hit",), "<i8", length="n")]
    time: Annotated[
        Vector, Feature("ns", "time of each hit from the first sample", ("hit",), "<f8", length="n")
    ]
    amplitude: Annotated[
        Vector,
        Feature("@", "largest sample of each hit, above the baseline", ("hit",), "<f8", length="n"),
    ]
    overflow: Annotated[bool, Feature("1", "whether there were more hits than the capacity")]
    baseline: Annotated[float, Feature("@", "median of the waveform; NaN if a sample is")]
    noise: Annotated[float, Feature("@", "standard deviation of the waveform, pulses included")]


@reducer(version=1)
def waveform_cfd(waveform: Waveform, constants: Constants) -> Hits:
    """Hits of a waveform by a constant-fraction discriminator.

    A region above the threshold is a hit if D, which is negative on the leading edge of a pulse and
    positive behind it, rises through 0 in it exactly once and never falls; regions are moved by
    -shift before and hits by shift = round(offset (1 + multiplier)) after. ``sample`` is what
    smalldata_tools calls hitIndices; it smooths with an even number of taps, which moves all hits
    by half a sample, and takes regions in which D never changes its sign as hits at their ends:
    with a low threshold most of its hits are these, one or two samples of noise. ``time`` is on the
    straight line between the samples about the crossing. psana's ``PyCFD`` (without smoothing:
    ``taps`` = 1, ``multiplier`` = -fraction) gives the crossings themselves, which are shift before
    these times, to a tenth of a sample; it takes every crossing at a sample above the threshold,
    several of one region too, as ``each`` does. A region is then cut where D falls, and
    ``amplitude`` is the largest sample of each piece.
    A waveform with NaN or infinite samples has no hits, and NaN as baseline and noise.
    """
    c = constants
    part = borrowed(waveform[c.start : c.stop])
    # Of one piece: to ask for room takes its time. So does counting who refers to it.
    room = np.empty(3 * c.capacity + workspace(part.size, c.discriminator))
    lent = borrowed(room)
    samples, times = lent[: c.capacity].view(np.int64), lent[c.capacity : 2 * c.capacity]
    heights, work = lent[2 * c.capacity : 3 * c.capacity], lent[3 * c.capacity :]
    for k in range(c.capacity):
        samples[k], times[k], heights[k] = 0, np.nan, np.nan
    found = find(part, c.discriminator, work, samples, times, heights)
    for k in range(min(found.n, c.capacity)):
        samples[k] += c.start
        times[k] = (c.start + times[k]) * c.dt
    return Hits(
        found.n,
        room[: c.capacity].view(np.int64),
        room[c.capacity : 2 * c.capacity],
        room[2 * c.capacity : 3 * c.capacity],
        found.n > c.capacity,
        found.level,
        found.noise,
    )


@waveform_cfd.prepare
def check(params: Params, inputs: Mapping[str, Input]) -> Constants:
    """Check the parameters against the waveform; ``ValueError`` lists what does not fit."""
    p, given = params, inputs["waveform"]
    (size,) = given.shape
    problems = gate_problem("gate", p.gate, size)
    start, stop = p.gate if p.gate and not problems else (0, size)
    made, wrong = discriminator(
        stop - start,
        np.dtype(given.dtype).kind in "iu",
        p.threshold,
        p.relative,
        p.sign,
        p.taps,
        p.offset,
        p.multiplier,
        p.each,
    )
    problems += wrong + common_problems(p.dt, p.sign, (1, 0, -1))
    if p.capacity < 1:
        problems.append(f"capacity: {p.capacity} is too small; at least 1")
    if made is None or problems:
        raise ValueError("\n".join(problems))
    return Constants(made, start, stop, p.dt, p.capacity)


def example() -> tuple[Params, dict[str, Input]]:
    """Parameters, and an input to try them on."""
    params = Params(0.5, threshold=0.5, taps=3, offset=2, multiplier=-0.8, capacity=8)
    return params, {"waveform": Input("value", "<u2", (128,), "V")}
