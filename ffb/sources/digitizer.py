"""What a run offers of high-speed digitizers (hsd), whose data only a decoder understands.

psana's ``raw.waveforms``, ``raw.padded``, ``raw.peaks`` and ``raw.fex_status`` are dictionaries by
segment and channel; here each entry is a field of its own: ``waveforms.0`` is segment 0's trace.
As in psana a segment has one channel, its first. The oldest digitizers, version 1.2.3, are called
``hsd`` where later ones are ``raw``; of a version that psana has no class for nothing is decoded.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.sources import hsd
from ffb.sources.wanted import Digitized, Role, Segment, Wanted
from ffb.sources.xtc2 import DTYPES, FieldType, Names

DETTYPE, HEADER = "hsd", "eventHeader"

#: Nanoseconds between two samples: the digitizer's clock follows the accelerator's.
DT_NS = 14 / 13 / 6.4

#: Samples that the digitizer takes at a time: a padded trace is a multiple of them.
WORD = 40

_CHANNEL = re.compile(r"chan(\d\d)")


class _Kind(NamedTuple):
    """What is made of a channel: its product, what counts it, dtype, whether it is an array."""

    product: int
    counts: int
    dtype: str
    rank: int
    word: str


#: By name, ``{}`` is the segment.
KINDS: Mapping[str, _Kind] = {
    "waveforms.{}": _Kind(hsd.WAVEFORM, hsd.LONG, "<u2", 1, "whole trace"),
    "padded.{}": _Kind(hsd.PADDED, -1, "<f4", 1, "peaks in their places, baseline between them"),
    "peaks.{}.start": _Kind(hsd.START, hsd.PEAKS, "<i4", 1, "first sample of each peak"),
    "peaks.{}.length": _Kind(hsd.LENGTH, hsd.PEAKS, "<i4", 1, "number of samples of each peak"),
    "peaks.{}.samples": _Kind(hsd.SAMPLES, hsd.TOTAL, "<u2", 1, "samples of all peaks, end to end"),
    "fex_status.{}": _Kind(hsd.STATUS, -1, "<u1", 0, "1 where samples were out of range"),
    "baselines.{}": _Kind(hsd.BASELINES, -1, "<u2", 1, "baseline of each of the four lanes"),
}

Config = Mapping[str, Any]


class _Layout(NamedTuple):
    """What tells two versions apart: whose configuration says what lies between peaks, and where.

    ``gate`` names its gate, in ns or in ``words`` of 40 samples, ``level`` the number between
    peaks, or two in whose middle it lies; the first ``lanes`` samples of a shot's first peak are
    baselines.
    """

    gate: str
    level: tuple[str, ...]
    words: bool = False
    lanes: int = 0

    def length(self, config: Config) -> int | None:
        """Samples of a padded trace, ``None`` where the configuration does not tell."""
        gate = _first(config.get(self.gate))
        if gate is None:
            return None
        return WORD * (gate if self.words else int(gate * 0.160 * 13 / 14))

    def pad(self, config: Config) -> int | None:
        """What lies between peaks, ``None`` where the configuration does not tell."""
        levels = [_first(config.get(name)) for name in self.level]
        known = [v for v in levels if v is not None]
        return sum(known) // len(known) if len(known) == len(levels) else None


#: What psana has a class for, by alg and version, each exactly.
LAYOUTS: Mapping[tuple[str, tuple[int, int, int]], _Layout] = {
    ("hsd", (1, 2, 3)): _Layout("fex.gate", ("fex.ymin", "fex.ymax"), words=True),
    ("raw", (2, 0, 0)): _Layout("user.fex.gate_ns", ("user.fex.ymin", "user.fex.ymax")),
    ("raw", (3, 0, 0)): _Layout("user.fex.gate_ns", ("user.fex.corr.baseline",), lanes=hsd.GROUP),
}


def _first(value: Any) -> int | None:
    """A whole number, or the first of several: the oldest configuration has one per channel."""
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.size:
        value = value[0]
    return int(value) if isinstance(value, int | np.integer) else None


class Digitizer(NamedTuple):
    """One field that a digitizer offers; ``segments`` are all of the detector's."""

    kind: _Kind
    layout: _Layout
    number: int
    segment: Segment
    channel: str
    segments: tuple[Segment, ...]
    config: Config

    def __str__(self) -> str:
        kind, most = self.kind, " list," if self.kind.counts >= 0 else ""
        most = "" if kind.product == hsd.WAVEFORM else most
        rank = ", rank 1," if kind.rank else ","
        return f"{np.dtype(kind.dtype).name}{rank}{most} {kind.word}"

    def wanted(self, shape: tuple[int, ...] | None, room: int) -> Wanted:
        """Resolve the field as an input. Raises ``LookupError`` with a sentence."""
        kind = self.kind
        is_list = kind.counts >= 0 and (room > 0 or kind.product != hsd.WAVEFORM)
        if is_list and not room:
            raise LookupError(
                "the number of peaks differs from shot to shot; give it room = N entries"
            )
        if room and not is_list:
            raise LookupError("it is not a list and needs no room")
        dims: tuple[int, ...] = (room,) if is_list else shape or (-1,)
        pad = 0
        if kind.product == hsd.PADDED:
            dims, pad = self._padding()
        elif kind.product == hsd.BASELINES:
            dims = (hsd.GROUP,)
        elif kind.product == hsd.STATUS:
            dims = ()
        stated = shape is not None and shape != dims
        if stated or len(dims) != kind.rank:
            raise LookupError(f"it has the shape {list(dims)}, not {list(shape or ())}")
        code = DTYPES.index(kind.dtype)
        number = int(self.channel.removeprefix("chan"))
        dt = f", {DT_NS:.9f} ns a sample" if kind.product in (hsd.WAVEFORM, hsd.PADDED) else ""
        doc = f"{kind.word} of segment {self.number}, channel {number}{dt}"
        configured = None not in (self.layout.length(self.config), self.layout.pad(self.config))
        made = Digitized(
            kind.product, self.segment, HEADER, self.channel, pad, self.layout.lanes, kind.counts,
            configured, doc,
        )  # fmt: skip
        role = Role.LIST if is_list else Role.PLAIN
        name = FieldType(self.channel, code, kind.rank)
        return Wanted(self.segments, name, "value", dims, role, made)

    def _padding(self) -> tuple[tuple[int], int]:
        """Shape of what is padded, and the value between peaks, as psana has them."""
        layout = self.layout
        length, pad = layout.length(self.config), layout.pad(self.config)
        if length is None or pad is None:
            raise LookupError(
                f"the run's configuration of it lacks {layout.gate}, which says how long the gate"
                f" is, or {' and '.join(layout.level)}, which say what lies between peaks"
            )
        if length <= 0:
            raise LookupError(f"its gate, {layout.gate}, is empty")
        return (length,), pad


def offered(
    alg: str, parts: Mapping[int, Segment], configs: Mapping[int, Config]
) -> Iterator[tuple[str, Digitizer]]:
    """Yield names of the fields that a detector's segments offer, if they are a digitizer's."""
    segments = tuple(part for _, part in sorted(parts.items()))
    for number, part in parts.items():
        names = part.names
        here = {f.name: (f.code, f.rank) for f in names.fields}
        channels = [n for n in here if _CHANNEL.fullmatch(n) and here[n] == (0, 1)]
        layout = LAYOUTS.get((alg, names.version)) if names.dettype == DETTYPE else None
        if layout is None or not channels or here.get(HEADER) != (2, 1):
            continue
        for name, kind in KINDS.items():
            if kind.product in (hsd.BASELINES, hsd.STATUS) and not layout.lanes:
                continue
            config = configs.get(number, {})
            d = Digitizer(kind, layout, number, part, channels[0], segments, config)
            yield name.format(number), d


def undecoded(names: Names) -> str:
    """Say why nothing is offered of a digitizer that writes ``names``."""
    if (names.alg, names.version) in LAYOUTS:
        return f"{names.detector} is a digitizer that writes no {HEADER}, or no channel chanNN"
    mine, *known = (
        f"{alg} {'.'.join(map(str, version))}"
        for alg, version in [(names.alg, names.version), *LAYOUTS]
    )
    return (
        f"{names.detector} is a digitizer of {mine}, which neither psana nor ffb decodes; they know"
        f" {', '.join(known)}"
    )


def samples(header: NDArray[np.uint32], channel: NDArray[np.uint8]) -> int | None:
    """Samples of the whole trace in a channel, ``None`` where its bytes are not what they say.

    The same as the compiled decoder, for what is looked at once.
    """
    data, at, raw, fex = channel.tobytes(), 0, 0, 0
    written = int(header[0]) >> 20 & 3 if len(header) and data else 0
    while written:
        if len(data) - at < hsd.STREAM_HEADER:
            return None
        word, number = struct.unpack_from("<I3xB", data, at)
        n = word & hsd.MAX_SAMPLES
        at += hsd.STREAM_HEADER + 2 * n
        if at > len(data):
            return None
        raw, fex = (n if number == 0 else raw), (n if number == 1 else fex)
        if number < 2:
            written &= ~(1 << number)
    return None if fex % hsd.GROUP else raw


def sound(blocks: Sequence[tuple[NDArray[np.uint32], NDArray[np.uint8]]]) -> bool:
    """Whether psana's decoder, which checks nothing, may be given these headers and channels."""
    return all(len(h) > 0 and samples(h, c) is not None for h, c in blocks)
