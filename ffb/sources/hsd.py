"""The compiled decoder of high-speed digitizers (hsd): traces, peaks, and what is padded of them.

A channel of a digitizer is one array of bytes, one stream after the other. As psana 4.3.4 has it::

    stream    = header of 4 x u32, then samples of u16
    header[0] = samples (29 bits), 1 << 29: samples were out of range
    header[1] = number of the stream << 24: 0 is the whole trace, 1 what the digitizer extracted

Bits 20 and 21 of ``eventHeader[0]`` say which of the two have been written. Samples come in groups
of four, the lanes of the digitizer. In stream 1 a group whose first word has bit 15 says how many
samples were left out, in all of its lanes together; groups between are a peak. From version 3 the
first group of the first peak is the baselines of the lanes, not samples.

Everything is checked before a byte is read, which psana's own decoder does not do.
"""

from __future__ import annotations

import numpy as np

from ffb.sources.octets import (
    ABSENT,
    MISFIT,
    Bytes,
    Int,
    Ints,
    Words,
    blank,
    copy,
    jit,
    put,
    u16,
    u32,
)

# Columns of a table of what is wanted: slots of the bytes of eventHeader and channel, the PRODUCT,
# its INPUT and the RESULT's slot, whether it is a LIST, the PAD between peaks, and how many samples
# of the first peak are BASELINES.
HEAD, CHANNEL, PRODUCT, INPUT, RESULT, LIST, PAD, LANES = range(8)
WIDTH = LANES + 1

#: What a channel offers; the last three are counts of samples and peaks.
WAVEFORM, PADDED, START, LENGTH, SAMPLES, STATUS, BASELINES, LONG, PEAKS, TOTAL = range(10)

#: Samples are written by so many lanes in turn.
GROUP = 4
SKIP, VALUE = 0x8000, 0x7FFF
STREAM_HEADER, MAX_SAMPLES, OUT_OF_RANGE = 16, 0x1FFF_FFFF, 29

#: Result for bytes that are not what they say, and the DAQ's word for data that were cut short.
BROKEN, TRUNCATED = -3, 1 << 0

#: Where baselines lie, so that they are positive.
BASELINE_OFFSET = 1 << 14

# Scratch: start and number of samples of both streams, whether some were out of range; then the
# place within stream 1, what was skipped and what peaks took so far, and of a peak its first
# sample in the stream, its position and its length.
RAW, RAW_N, FEX, FEX_N, RANGE, PLACE, SKIPPED, TAKEN, FIRST, POSITION, SIZE = range(11)


@jit
def _streams(b: Bytes, at: Int, end: Int, written: Int, s: Ints) -> Int:
    """Find both streams in [at, end); whether all is as the headers say."""
    s[RAW] = s[FEX] = -1
    s[RAW_N] = s[FEX_N] = s[RANGE] = 0
    while written:
        if end - at < STREAM_HEADER:
            return False
        word, number = u32(b, at), np.int64(b[at + 7])
        n = word & MAX_SAMPLES
        at += STREAM_HEADER
        if 2 * n > end - at:
            return False
        if number == 0:
            s[RAW], s[RAW_N] = at, n
        elif number == 1:
            s[FEX], s[FEX_N], s[RANGE] = at, n, word >> OUT_OF_RANGE & 1
        if number < 2:
            written &= ~(1 << number)
        at += 2 * n
    return s[FEX_N] % GROUP == 0


@jit
def _next(b: Bytes, s: Ints) -> Int:
    """Find the next peak; whether there is one."""
    at, n, i = s[FEX], s[FEX_N], s[PLACE]
    while i < n and u16(b, at + 2 * i) & SKIP:
        for k in range(i, i + GROUP):
            s[SKIPPED] += u16(b, at + 2 * k) & VALUE
        i += GROUP
    s[FIRST], s[POSITION] = i, s[SKIPPED] + s[TAKEN]
    while i < n and not u16(b, at + 2 * i) & SKIP:
        i += GROUP
    s[SIZE] = i - s[FIRST]
    s[TAKEN] += s[SIZE]
    s[PLACE] = i
    return s[SIZE] > 0


@jit
def _pad(b: Bytes, at: Int, s: Ints, to: Bytes) -> None:
    """Write a peak's samples as ``float32`` where they belong; one that does not fit is left out.

    psana leaves it out, too.
    """
    out = to.view(np.float32)
    if s[POSITION] + s[SIZE] <= out.size:
        for k in range(s[SIZE]):
            out[s[POSITION] + k] = u16(b, at + 2 * k)


@jit
def _peaks(b: Bytes, s: Ints, product: Int, lanes: Int, pad: Int, to: Bytes) -> Int:
    """Write what is wanted of all peaks to the bytes of a row; ABSENT, or 0."""
    s[PLACE] = s[SKIPPED] = s[TAKEN] = 0
    number, total, strip = 0, 0, lanes
    if product == PADDED:
        to.view(np.float32)[:] = pad
    while _next(b, s):
        at = s[FEX] + 2 * s[FIRST]
        if product == BASELINES and number == 0:
            for k in range(GROUP):
                put(to, 2 * k, u16(b, at + 2 * k) + BASELINE_OFFSET, 2)
        s[POSITION] += strip
        s[SIZE] -= strip
        at += 2 * strip
        strip = 0
        if product == PADDED:
            _pad(b, at, s, to)
        elif product == SAMPLES:
            room = max(to.size - 2 * total, 0)
            copy(b, at, min(2 * s[SIZE], room), to, 2 * total)
        elif product == START and 4 * number < to.size:
            put(to, 4 * number, s[POSITION], 4)
        elif product == LENGTH and 4 * number < to.size:
            put(to, 4 * number, s[SIZE], 4)
        number += 1
        total += s[SIZE]
    if product == SAMPLES:
        blank(to, min(2 * total, to.size), to.size, 0)
    elif product in (START, LENGTH):
        blank(to, min(4 * number, to.size), to.size, 0)
    elif product == PEAKS:
        put(to, 0, number, 8)
    elif product == TOTAL:
        put(to, 0, total, 8)
    elif number == 0:  # psana has nothing padded without a peak, and no baselines
        return ABSENT
    return 0


@jit
def _one(b: Bytes, t: Ints, k: Int, offsets: Ints, to: Bytes, s: Ints) -> Int:
    """Decode one thing that is wanted into the bytes of its row; 0, ABSENT, MISFIT or BROKEN."""
    head, channel, product = t[k, HEAD], t[k, CHANNEL], t[k, PRODUCT]
    at, n = offsets[channel], offsets[channel + 1]
    if n == 0:
        return ABSENT
    if offsets[head + 1] < 4:
        return BROKEN
    written = u32(b, offsets[head]) >> 20 & 3
    if not _streams(b, at, at + n, written, s):
        return BROKEN
    if product == STATUS:
        to[0] = s[RANGE]
        return 0
    if product in (WAVEFORM, LONG):
        n = 2 * s[RAW_N]
        if n == 0:
            return ABSENT
        if product == LONG:
            put(to, 0, s[RAW_N], 8)
        elif n == to.size or t[k, LIST]:
            copy(b, s[RAW], min(n, to.size), to, 0)
            blank(to, min(n, to.size), to.size, 0)
        else:
            return MISFIT
        return 0
    if s[FEX] < 0:
        return ABSENT
    return _peaks(b, s, product, t[k, LANES], t[k, PAD], to)


@jit
def digitize(
    dgram: Bytes, table: Ints, row: Int, base: Ints, stride: Ints, buffer: Bytes, damage: Words,
    offsets: Ints, scratch: Ints,
) -> None:  # fmt: skip
    """Decode everything that ``table`` wants of a datagram into a row of a block.

    What is broken is marked as the DAQ marks what it had to cut short.
    """
    for k in range(table.shape[0]):
        if offsets[table[k, HEAD]] >= 0 and offsets[table[k, CHANNEL]] >= 0:
            i = table[k, INPUT]
            start = base[i] + row * stride[i]
            to = buffer[start : start + stride[i]]
            found = _one(dgram, table, k, offsets, to, scratch)
            if found == BROKEN:
                damage[row, i] |= np.uint16(TRUNCATED)
                found = MISFIT
            offsets[table[k, RESULT]] = found
