"""Read the xtc2 files of a run, one per stream, and build shots by timestamp.

The DAQ writes what belongs to one shot into several files. A shot is the datagrams of equal
timestamp; a stream that has none for it misses its detectors. Files may still be growing: a
datagram is there once all the bytes its header promises are.

A long run goes on in further files, stream by stream: an Enable names the next one, in which the
shots behind it are.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ffb.sources.xtc2 import HEADER, Configure, Xtc2Error, service, timestamp
from ffb.sources.xtc2_specs import Service

#: Bytes asked for in one read; where large shots are somebody else's, a page.
CHUNK, PAGE = 1 << 22, 1 << 12

#: Bytes of a shot above which it pays to read only its header where it is somebody else's.
LARGE = 1 << 17

#: No datagram is larger: the DAQ's shared memory has 28 bits for a size.
LARGEST = 1 << 28

#: How the DAQ marks a file that it still writes.
IN_PROGRESS = ".inprogress"

#: What an Enable calls the file in which a stream goes on.
NEXT_FILE = "chunkinfo"

_CHUNK = re.compile(r"-c(\d+)\.xtc2")

Dgram = NDArray[np.uint8]


class Stream:
    """One file, read forward. A datagram that it gave out is valid until ``advance`` and ``peek``.

    A file may be renamed while it is read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        #: Tells by its timestamp whether a shot is wanted: of others only the header is given,
        #: and read where they are large.
        self.mine: Callable[[int], bool] | None = None
        m = _CHUNK.search(path.name)
        #: Number of the file within the stream.
        self.chunk = int(m[1]) if m else 0
        #: The file in which the stream goes on, while that is not there.
        self.awaited: Path | None = None
        self._span = 0
        self._page_wise = False
        self._fd = os.open(path, os.O_RDONLY)
        self._buffer: Dgram = np.empty(2 * CHUNK, np.uint8)
        self._low = self._high = self._offset = 0
        self._head: Dgram | None = None
        #: When bytes last arrived, on the monotonic clock.
        self.grew = time.monotonic()
        #: The last transition said that shots may follow.
        self.enabled = False
        #: This run's EndRun was read.
        self.ended = False
        #: Why nothing more is expected of this stream, ``""`` while something is.
        self.lost = ""

    @property
    def closed(self) -> bool:
        """Whether whoever wrote the file has renamed it, which is the last thing they do."""
        return self.path.name.endswith(IN_PROGRESS) and not self.path.exists()

    @property
    def progress(self) -> tuple[int, int]:
        """Bytes of the file that were read or passed over, and bytes that it has."""
        size = os.fstat(self._fd).st_size if self._fd >= 0 else self._offset
        return min(self._offset, size), size

    @property
    def left(self) -> int:
        """Bytes read that do not make a datagram yet."""
        return self._high - self._low

    def peek(self) -> Dgram | None:
        """Give the next datagram, ``None`` if it is not all there.

        Raises :class:`Xtc2Error` for a header that cannot be one.
        """
        if self.awaited is not None and not self._open_next():
            return None
        if self._head is None and self._have(HEADER):
            at = self._low
            size = 12 + int.from_bytes(self._buffer[at + 20 : at + 24].tobytes(), "little")
            if not HEADER <= size <= LARGEST:
                if not self._buffer[at : at + HEADER].any():
                    return None  # space that was allocated and not written yet
                where = self._offset - self.left
                raise Xtc2Error(f"{self.path.name}: a datagram of {size} bytes", where)
            head = self._buffer[at : at + HEADER]
            if self.mine and kind_of(head) == Service.L1_ACCEPT:
                self._page_wise = size > LARGE
                if not self.mine(timestamp(head.data)):
                    self._head, self._span = head, size
                    return head
            if self._have(size):
                self._head, self._span = self._buffer[self._low : self._low + size], size
                self._note(self._head)
        return self._head

    def advance(self) -> None:
        """Go past the datagram last given out."""
        if self._head is not None:
            self._offset += max(0, self._span - self.left)
            self._low += min(self._span, self.left)
            self._head = None

    def go_on_in(self, name: str, chunk: int) -> None:
        """Read on in file ``name`` of the same folder, which may still have to appear."""
        self.awaited, self.chunk = self.path.with_name(Path(name).name), chunk
        self.grew = time.monotonic()

    def _open_next(self) -> bool:
        assert self.awaited is not None
        for path in (self.awaited, self.awaited.with_name(self.awaited.name + IN_PROGRESS)):
            try:
                fd = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                continue
            self.close()
            self._fd, self.path, self.awaited = fd, path, None
            self._low = self._high = self._offset = 0
            return True
        return False

    def _note(self, dgram: Dgram) -> None:
        kind = kind_of(dgram)
        if kind == Service.ENABLE:
            self.enabled = True
        elif kind in (Service.DISABLE, Service.END_RUN):
            self.enabled = False

    def _have(self, need: int) -> bool:
        """Whether ``need`` bytes are in the buffer, reading more if that helps."""
        if self.left >= need:
            return True
        if self._low + need > len(self._buffer) or self._low == self._high:
            self._make_room(need)
        while self.left < need:
            most = need - self.left + PAGE if self._page_wise else len(self._buffer)
            free = self._buffer[self._high : self._high + most]
            n = os.preadv(self._fd, [free.data], self._offset)
            if n == 0:
                return False
            self._high, self._offset, self.grew = self._high + n, self._offset + n, time.monotonic()
        return True

    def _make_room(self, need: int) -> None:
        """Move what is left to the front; nobody looks at it any more, see ``advance``."""
        left = self._buffer[self._low : self._high]
        if need + CHUNK > len(self._buffer):
            self._buffer = np.empty(2 * need + CHUNK, np.uint8)
        self._buffer[: len(left)] = left
        self._low, self._high = 0, len(left)

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Merge:
    """Builds shots and transitions from the streams of a run.

    With ``live``, a file's end is waited at. A stream is given up, with a note, when it has not
    grown for ``grace`` seconds without an EndRun and either its writer has renamed it, or shots
    were being taken (the DAQ then writes at least once a second), or ``superseded`` says that a
    later run has begun. A DAQ that pauses between shots is waited for without limit.
    """

    def __init__(
        self,
        streams: Sequence[Stream],
        live: bool,
        grace: float,
        superseded: Callable[[], bool],
    ) -> None:
        self.streams, self.live, self.grace = list(streams), live, grace
        self.superseded = superseded
        self.notes: list[str] = []
        self._configures: dict[int, Configure] = {}
        self._wanted = set(range(len(streams)))
        self._given: list[int] = []
        self._turns: dict[int, tuple[str, int]] = {}

    def only(self, wanted: set[int]) -> None:
        """Read no other streams than ``wanted`` from here on: the others hold nothing we need."""
        self._wanted = wanted or self._wanted

    @property
    def over(self) -> bool:
        """Whether every stream has ended its run or is lost."""
        return all(self.streams[k].ended or self.streams[k].lost for k in self._wanted)

    def take(self) -> list[Dgram | None] | None:
        """Give the datagrams of the next timestamp, by stream; ``None`` if they are not there.

        They are valid until the next call.
        """
        self._advance()
        heads: dict[int, Dgram] = {}
        waiting = False
        for k in sorted(self._wanted):
            stream = self.streams[k]
            if stream.ended or stream.lost:
                continue
            head = self._peek(stream)
            if head is not None:
                heads[k] = head
            elif not stream.lost:
                waiting = True
        if waiting or not heads:
            return None
        first = min(timestamp(h.data) for h in heads.values())
        self._given = [k for k, h in heads.items() if timestamp(h.data) == first]
        for k in self._given:
            kind = kind_of(heads[k])
            self.streams[k].ended = kind == Service.END_RUN
            if kind == Service.ENABLE:
                self._find_turn(k, heads[k])
        return [heads[k] if k in self._given else None for k in range(len(self.streams))]

    @property
    def progress(self) -> float:
        """How much of the files at hand was read, from 0 to 1."""
        read, size = map(sum, zip(*(self.streams[k].progress for k in self._wanted), strict=True))
        return read / size if size else 0.0

    @property
    def why(self) -> str:
        """Why the run is over."""
        if any(self.streams[k].ended for k in self._wanted):
            return "end of run"
        return "no EndRun: " + "; ".join(self.notes)

    def put_back(self) -> None:
        """Give the datagrams of the last ``take`` again."""
        self._given = []

    def configure(self, dgrams: Sequence[Dgram | None]) -> None:
        """Take up the Configure of some streams; it holds until the next one."""
        for k, dgram in enumerate(dgrams):
            if dgram is not None:
                try:
                    self._configures[k] = Configure(dgram.data)
                except Xtc2Error as e:
                    self._lose(self.streams[k], f"has a damaged Configure: {e}")

    @property
    def configures(self) -> list[Configure]:
        """The Configure of each stream that has one."""
        return [self._configures[k] for k in sorted(self._configures)]

    def keep_configured(self, dgrams: Sequence[Dgram | None]) -> list[Dgram | None]:
        """Forget streams without a Configure; gives what of ``dgrams`` belongs to the others."""
        kept = sorted(self._configures)
        for k in set(range(len(self.streams))) - set(kept):
            self.streams[k].close()
        self.streams = [self.streams[k] for k in kept]
        self._given = [i for i, k in enumerate(kept) if k in self._given]
        self._wanted = set(range(len(kept)))
        self._configures = dict(enumerate(self.configures))
        return [dgrams[k] for k in kept]

    def close(self) -> None:
        """Close all files."""
        for stream in self.streams:
            stream.close()

    def again(self) -> bool:
        """Whether more follows in the same files; if so, ``take`` goes on with it.

        Notes are about what follows from here on.
        """
        self._advance()
        self.notes = []
        for stream in self.streams:
            try:
                if not stream.lost and stream.peek() is not None:
                    stream.ended = False
            except Xtc2Error as e:
                self._lose(stream, f"is damaged: {e}")
        return not self.over

    def _advance(self) -> None:
        """Go past what was given, into the next file of a stream where that told so."""
        for k in self._given:
            self.streams[k].advance()
            if turn := self._turns.pop(k, None):
                self.streams[k].go_on_in(*turn)
        self._given = []

    def _find_turn(self, k: int, enable: Dgram) -> None:
        """See whether stream ``k`` goes on in another file behind its ``enable``."""
        configure = self._configures.get(k)
        if configure is None or NEXT_FILE not in {n.detector for n in configure.names.values()}:
            return
        try:
            decoded = configure.decode(enable.data)
        except Xtc2Error as e:
            self.notes.append(f"{self.streams[k].path.name} has a malformed Enable: {e}")
            return
        for (detector, _, _), values in decoded.items():
            name, chunk = values.get("filename"), values.get("chunkid")
            if detector != NEXT_FILE or not isinstance(name, str) or not isinstance(chunk, int):
                continue
            if chunk > self.streams[k].chunk:
                self._turns[k] = name, chunk

    def _peek(self, stream: Stream) -> Dgram | None:
        try:
            head = stream.peek()
        except Xtc2Error as e:
            self._lose(stream, f"is damaged: {e}")
            return None
        if head is None and self._is_over(stream):
            quiet = f"did not grow for {self.grace:g} s" if self.live else "ends"
            torn = f", {stream.left} bytes into a datagram" if stream.left else ""
            if stream.awaited is not None:
                quiet = f"goes on in {stream.awaited.name}, which is not there, and so ends"
            self._lose(stream, f"{quiet} without EndRun{torn}")
        return head

    def _is_over(self, stream: Stream) -> bool:
        if not self.live:
            return True
        if time.monotonic() - stream.grew < self.grace:
            return False
        return stream.enabled or stream.closed or self.superseded()

    def _lose(self, stream: Stream, why: str) -> None:
        stream.lost = why
        self.notes.append(f"{stream.path.name} {why}")


def kind_of(dgram: Dgram) -> int:
    """Service of a datagram; a shot that ends a batch (11) is a shot."""
    kind = service(dgram.data)
    return Service.L1_ACCEPT if kind == 11 else kind
