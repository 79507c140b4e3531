"""Play xtc2 files to a shared-memory server: pace, loops and timestamps."""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ffb.shot import time_of, timestamp_of
from ffb.sources.xtc2_specs import Service

if TYPE_CHECKING:
    from ffb.testing.shmem_server import Bytes, ShmemServer

_PARENT, _SHAPES_DATA, _DATA, _NAMES = 0, 1, 3, 4
_HOUR = 3_600_000_000_000

#: Before these, clients are left to finish: psana forgets shots older than the last Disable.
_ENDS = (Service.DISABLE, Service.END_RUN, Service.CONFIGURE)


def load(path: str | Path) -> list[memoryview]:
    """Map a file into memory and return its dgrams; one cut short at the end is left out."""
    flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
    with open(path, "rb") as f:
        whole = memoryview(mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ, flags=flags))
    dgrams, at = [], 0
    while at + 24 <= len(whole):
        end = at + 12 + struct.unpack_from("<I", whole, at + 20)[0]
        if end > len(whole):
            break
        dgrams.append(whole[at:end])
        at = end
    return dgrams


def service(dgram: Bytes) -> int:
    """Return what the dgram is, a :class:`Service`."""
    return dgram[11] & 15


def stamp(dgram: Bytes) -> int:
    """Return the dgram's timestamp."""
    return int(struct.unpack_from("<Q", dgram)[0])


def _walk(dgram: Bytes, at: int = 12) -> Iterator[tuple[int, int, int, int]]:
    """Yield (names id, kind, start, end) of everything in the container at ``at``."""
    end = at + struct.unpack_from("<I", dgram, at + 8)[0]
    at += 12
    while at < end:
        source, _, kind, extent = struct.unpack_from("<IHHI", dgram, at)
        yield source & 0xF_FFFF, kind & 0xFFF, at, at + extent
        if kind & 0xFFF == _PARENT:
            yield from _walk(dgram, at)
        at += extent


def renumber(begin_run: Bytes, configure: Bytes, add: int) -> bytearray:
    """Copy a BeginRun with ``add`` added to its run number, which Configure says where to find."""
    out = bytearray(begin_run)
    names = {
        i
        for i, kind, at, _ in _walk(configure)
        if kind == _NAMES and bytes(configure[at + 272 : at + 280]) == b"runinfo\0"
    }
    for i, kind, at, _ in _walk(begin_run):
        if kind == _SHAPES_DATA and i in names:
            for _, inner, _, end in _walk(begin_run, at):
                if inner == _DATA:  # the run number is the last field
                    run = struct.unpack_from("<I", out, end - 4)[0]
                    struct.pack_into("<I", out, end - 4, run + add)
    return out


class Player:
    """Play tapes to ``server``.

    ``rate`` Hz is the pace within a step, 0 is as fast as clients take it. With ``now`` the pace
    is the run's own instead: timestamps are shifted by a constant, such that the first shot of a
    run is now, and nothing leaves before its own. A shot's age is then its latency. Without, each
    further loop is an hour later. Each loop's run numbers are one higher. ``settle`` s are left
    to the clients before what ends a step or a run.
    """

    def __init__(
        self,
        server: ShmemServer,
        *,
        rate: float = 0.0,
        loops: int = 1,
        now: bool = False,
        settle: float = 0.0,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.server, self.rate, self.loops, self.now = server, rate, loops, now
        self.settle, self._clock = settle, clock
        self._due = time.monotonic()
        self._shift = 0
        self._anchored = False

    def play(self, tapes: Sequence[Sequence[memoryview]]) -> None:
        """Play every tape, ``loops`` times over, and wait until all was given back."""
        configure = memoryview(b"")
        for loop in range(self.loops):
            for tape in tapes:
                for dgram in tape:
                    kind = service(dgram)
                    if kind == Service.L1_ACCEPT:
                        self._shot(dgram)
                    else:
                        if kind == Service.CONFIGURE:
                            configure = dgram
                        self._transition(kind, dgram, configure, loop)
        self.server.drain()

    def _shot(self, dgram: memoryview) -> None:
        if self.now and not self._anchored:
            # let clients get ready, then begin: what they did before was no latency of a shot
            self.server.drain(60.0, transitions=True)
            self._shift, self._anchored = self._clock() - time_of(stamp(dgram)), True
        if self.now:
            self._wait_for_stamp(dgram)
        elif self.rate:
            self._due += 1.0 / self.rate
            self._wait(lambda: self._due - time.monotonic())
        self.server.send(dgram, self._stamp(dgram))

    def _transition(self, kind: int, dgram: memoryview, configure: memoryview, loop: int) -> None:
        if kind in _ENDS:
            self.server.drain()
            end = time.monotonic() + self.settle
            self._wait(lambda: end - time.monotonic())
        if kind in (Service.CONFIGURE, Service.BEGIN_RUN):
            self._anchored = False
            self._shift = loop * _HOUR
        self._wait_for_stamp(dgram)
        if self.now and not self._anchored:
            self._shift = self._clock() - time_of(stamp(dgram))
        run = renumber(dgram, configure, loop) if loop and kind == Service.BEGIN_RUN else dgram
        self.server.send(run, self._stamp(dgram))
        if kind != Service.SLOW_UPDATE:
            self._due = time.monotonic()

    def _wait_for_stamp(self, dgram: memoryview) -> None:
        if self.now and self._anchored:
            at = time_of(stamp(dgram)) + self._shift
            self._wait(lambda: (at - self._clock()) / 1e9)

    def _stamp(self, dgram: memoryview) -> int | None:
        return timestamp_of(time_of(stamp(dgram)) + self._shift) if self._shift else None

    def _wait(self, left: Callable[[], float]) -> None:
        """Serve clients until the time left is up."""
        while (seconds := left()) > 0:
            self.server.poll(seconds)
