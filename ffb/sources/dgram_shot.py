"""Shots over datagrams: read in place, or decoded by psana where the two disagree."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.shot import Field, FrameBlock, Input
from ffb.sources.gather import Dgrams, Gather
from ffb.sources.slow import Slow
from ffb.sources.wanted import Wanted
from ffb.sources.xtc2 import Xtc2Error

#: Moments of one run from behind its BeginRun, ``None`` when nothing comes; the value it returns
#: says why it ended.
Stream = Generator["Moment | None", None, str]


class Moment(NamedTuple):
    """What a stream delivers at one time: a shot's or a transition's datagrams, one per stream.

    They are valid until the next moment is asked for.
    """

    service: int
    timestamp: int
    dgrams: Dgrams


class InPlace:
    """A shot read where it lies; one object serves all shots of a run, one after the other.

    ``torn`` is called with the error of each malformed datagram: the shot has then no frames.
    """

    def __init__(
        self,
        gather: Gather,
        slow: Slow,
        inputs: Mapping[str, Input],
        torn: Callable[[Xtc2Error], None],
    ) -> None:
        self._gather, self._slow, self._torn = gather, slow, torn
        self._own = FrameBlock(inputs, 1)
        self._filled = True
        self._dgrams: Dgrams = ()
        self.timestamp = 0

    def show(self, moment: Moment) -> None:
        """Be the shot of ``moment`` from now on."""
        self.timestamp, self._dgrams, self._filled = moment.timestamp, moment.dgrams, False

    def fill(self, block: FrameBlock, row: int) -> None:
        """See :meth:`ffb.shot.Shot.fill`."""
        self._filled = True
        try:
            self._gather(self._dgrams, block, row)
        except Xtc2Error as e:
            self._torn(e)
        block.timestamp[row] = self.timestamp
        self._slow.fill(block, row)

    def segments(self, name: str) -> Sequence[NDArray[Any]] | None:
        """See :meth:`ffb.shot.Shot.segments`."""
        if not self._filled:
            self.fill(self._own, 0)
        return self._gather.segments(self._dgrams, name)


#: What psana reads of a shot: values by field, and words of damage by (detector, alg).
Read = tuple[Mapping[Field, Any], Mapping[tuple[str, str], int]]


class Decoded:
    """A shot as psana decodes it: slow, and right where reading in place is not."""

    def __init__(
        self,
        decode: Callable[[Dgrams], Read],
        slow: Slow,
        inputs: Mapping[str, tuple[Field, Wanted]],
        clock: tuple[Field, Field | None] | None,
    ) -> None:
        self._decode, self._slow, self._clock = decode, slow, clock
        self._inputs = dict(inputs)
        self._values: Mapping[Field, Any] = {}
        self._damage: Mapping[tuple[str, str], int] = {}
        self.timestamp = 0

    def show(self, moment: Moment) -> None:
        """Be the shot of ``moment`` from now on."""
        self.timestamp = moment.timestamp
        self._values, self._damage = self._decode(moment.dgrams)

    def frame(self, name: str) -> NDArray[Any] | None:
        """One input in its declared shape, ``None`` if absent or of another shape."""
        field, wanted = self._inputs[name]
        value = self._values.get(field)
        if value is None:  # psana has an enumeration's number one level down
            value = self._values.get(field._replace(name=f"{field.name}.value"))
        return None if value is None else wanted.fit(value)

    def clock(self) -> tuple[int, NDArray[np.uint16] | None]:
        """Pulse id and words of the event codes, 0 and ``None`` where they are not told."""
        if self._clock is None:
            return 0, None
        pulse, codes = (None if f is None else self._values.get(f) for f in self._clock)
        return int(pulse or 0) & (1 << 63) - 1, None if codes is None else np.asarray(codes)

    def fill(self, block: FrameBlock, row: int) -> None:
        """See :meth:`ffb.shot.Shot.fill`."""
        pulse, codes = self.clock()
        block.timestamp[row], block.timed[row] = self.timestamp, codes is not None
        block.pulse_id[row], block.codes[row] = pulse, 0
        if codes is not None:
            words = codes[: block.codes.shape[1]]
            block.codes[row, : len(words)] = words
        for i, name in enumerate(block.names):
            value = self.frame(name) if name in self._inputs else None
            block.present[row, i] = value is not None
            of = self._inputs[name][0][:2] if name in self._inputs else ("", "")
            block.damage[row, i] = self._damage.get(of, 0)
            if value is not None and name in block.frames:
                block.frames[name][row] = value
        self._slow.fill(block, row)

    def segments(self, name: str) -> Sequence[NDArray[Any]] | None:
        """See :meth:`ffb.shot.Shot.segments`."""
        value = self.frame(name)
        return None if value is None else [np.ascontiguousarray(s).reshape(-1) for s in value]
