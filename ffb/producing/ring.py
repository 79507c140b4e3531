"""A producer's messages in shared memory until they are committed: they outlive its kill -9.

The file holds words of eight bytes: a header, the timestamps of the shots read last, an index of
messages, then the messages themselves. Every step ends with one aligned store of one word, so that
a process killed between two instructions leaves either the old state or the new one:

- A shot taken: its timestamp, then the count of shots noted.
- A message: its frames, its line of the index with a checksum, then the line's ``commit``.
- An acknowledgement: the number acknowledged, then zero in the ``commit`` of what is not needed.

The newest message is always kept, for the books and the run that its header tells of. Before there
is any of a run, while its first shots are looked at, a promise may stand for it: a begin_run that
is not sent, but found by our successor.
"""

from __future__ import annotations

import logging
import mmap
import os
from collections.abc import Sequence
from typing import NamedTuple

from ffb.messaging.checksum import crc32
from ffb.messaging.untrusted import Frame

log = logging.getLogger(__name__)

#: Timestamps kept of shots that no message has told of yet; of more, the first and the newest.
STAMPS = 1 << 16

#: Lines of the index: more messages than a window may hold.
LINES = 1 << 12

#: Memory beside the window, for what goes on while batches wait: steps, ends, a message that
#: overlaps the bound.
SPARE = 16 << 20

#: Memory is taken in pieces of so many bytes.
_GROW = 4 << 20

_MAGIC = int.from_bytes(b"ffbring1", "little")
_MASK = (1 << 64) - 1
HEAD = ("magic", "size", "epoch", "pid", "noted", "acked")
_NOTED, _ACKED = HEAD.index("noted"), HEAD.index("acked")
_STAMPS_AT = 512
_INDEX_AT = _STAMPS_AT + STAMPS
_LINE = 16
DATA_AT = 8 * (_INDEX_AT + LINES * _LINE)
_PROMISE = "promise"
_KINDS = ("begin_run", "shots", "step", "end_run", _PROMISE, "sum")


class Kept(NamedTuple):
    """A message found in a ring; ``noted`` and ``place`` as of this message."""

    seq: int
    kind: str
    frames: list[Frame]
    noted: int
    place: int


class Left(NamedTuple):
    """What a process left behind: everything it had under way when it ended.

    ``messages`` are in order, those up to ``acked`` for reference only. ``unsent`` are timestamps
    of shots read after the newest message; when there were more than the ring keeps, the one
    before the last stands for itself and ``more`` shots between it and the last.
    """

    epoch: int
    acked: int
    messages: list[Kept]
    unsent: list[int]
    more: int
    last: int
    damaged: int


class Ring:
    """The writing end, for one process. All sizes are bytes.

    ``bytes`` are those of the messages kept, ``high_water`` is the most there ever were, ``size``
    is their bound. Memory is taken as it is needed, and before it is written: to write where there
    is none would be the end of the process. Raises ``OSError`` where there is none to begin with.
    """

    def __init__(self, fd: int, size: int, epoch: int) -> None:
        self._fd, self.size = fd, size
        os.ftruncate(fd, DATA_AT + size)
        os.posix_fallocate(fd, 0, DATA_AT)
        self._memory = mmap.mmap(fd, DATA_AT + size)
        self._all = memoryview(self._memory)
        self._words = self._all[:DATA_AT].cast("Q")
        self._data = self._all[DATA_AT:]
        self.bytes = self.high_water = 0
        self._noted = self._told = 0
        self._origin = self._place = 0  # shots noted before the run, shots of it taken by others
        self._used: dict[int, tuple[int, int]] = {}  # where each message begins and ends
        self._lines: dict[int, int] = {}  # and its line of the index
        self._blank = [_INDEX_AT + k * _LINE for k in range(LINES)]
        self._newest = self._owned = 0
        self._spent = 0  # the newest message, when nothing but its header is needed
        for name, value in (("size", self.size), ("epoch", epoch), ("pid", os.getpid())):
            self._words[HEAD.index(name)] = value
        self._words[0] = _MAGIC

    def note(self, timestamp: int) -> None:
        """Note that a shot was taken."""
        since = self._noted - self._told
        at = self._told + min(since, STAMPS - 1)
        self._words[_STAMPS_AT + at % STAMPS] = timestamp & _MASK
        self._noted += 1
        self._words[_NOTED] = self._noted

    def fits(self, size: int) -> bool:
        """Whether a message of ``size`` can be put now."""
        return bool(self._blank) and self._find(size) >= 0

    def put(
        self, seq: int, kind: str, frames: Sequence[Frame], read: int = 0, place: int = 0
    ) -> bool:
        """Keep message ``seq``; false where there is no room for it, or no memory.

        It tells of ``read`` shots of the run, which may be fewer than were noted. ``place`` is for
        a begin_run, and says how many shots of the run others have taken before.
        """
        if kind == "begin_run":
            self._begin(place)
        if not self._put(seq, seq, kind, frames, self._origin + read):
            return False
        before, self._newest = self._newest, seq
        if before and before == self._spent:
            self._release(before)
        if kind == "begin_run":
            self._forget()
        return True

    def promise(self, seq: int, frames: Sequence[Frame]) -> bool:
        """Keep what is to be message ``seq`` should we be killed before we put it.

        It is a begin_run: shots noted from here on are of its run. False as with :meth:`put`.
        """
        self._begin(0)
        return self._put(0, seq, _PROMISE, frames, self._origin)

    def withdraw(self) -> None:
        """Take the promise back, with the shots noted since."""
        if self._promised:
            self._words[_NOTED] = self._noted = self._told
            self._forget()

    @property
    def _promised(self) -> bool:
        return 0 in self._used

    def _forget(self) -> None:
        if self._promised:
            self._release(0)

    def _begin(self, place: int) -> None:
        if not self._promised:
            self._origin = self._noted
        self._place = place

    def _put(self, key: int, seq: int, kind: str, frames: Sequence[Frame], told: int) -> bool:
        sizes = [len(f) for f in frames]
        begin = self._find(sum(sizes)) if self._blank else -1
        if begin < 0 or not self._own(begin + sum(sizes)):
            return False
        at = begin
        for frame, size in zip(frames, sizes, strict=True):
            self._data[at : at + size] = frame
            at += size
        line = self._blank.pop()
        place = told - self._origin + self._place
        fields = [seq, _KINDS.index(kind), begin, *sizes, told, place]
        for k, value in enumerate(fields, start=1):
            self._words[line + k] = value
        self._words[line + 9] = _checksum(self._words[line + 1 : line + 9], self._data[begin:at])
        self._words[line] = seq
        self._told, self._lines[key], self._used[key] = told, line, (begin, at)
        self.bytes += at - begin
        self.high_water = max(self.high_water, self.bytes)
        return True

    def acked(self, seq: int) -> None:
        """Note that everything up to ``seq`` is committed."""
        self._words[_ACKED] = max(seq, self._words[_ACKED])

    def free(self, seq: int) -> None:
        """Let go of message ``seq``."""
        if seq == self._newest:
            self._spent = seq
        elif seq in self._used:
            self._release(seq)

    def close(self) -> None:
        """Give the memory back; the file stays until it is closed."""
        for view in (self._words, self._data, self._all):
            view.release()
        self._memory.close()

    def _release(self, seq: int) -> None:
        begin, end = self._used.pop(seq)
        self.bytes -= end - begin
        line = self._lines.pop(seq)
        self._words[line] = 0
        self._blank.append(line)

    def _find(self, size: int) -> int:
        """The first place where ``size`` bytes in a row are free; -1 if there is none."""
        at = 0
        for begin, end in [*sorted(self._used.values()), (self.size, self.size)]:
            if begin - at >= size:
                return at
            at = end
        return -1

    def _own(self, end: int) -> bool:
        """Reserve memory up to ``end``; false if there is no more."""
        if end > self._owned:
            more = min(-(-end // _GROW) * _GROW, self.size)
            try:
                os.posix_fallocate(self._fd, DATA_AT, more)
            except OSError as e:
                log.error("no more memory for a ring of %d bytes: %s", more, e.strerror)
                return False
            self._owned = more
        return True


def _checksum(words: memoryview, data: memoryview) -> int:
    return crc32(data, crc32(words))


def read(memory: mmap.mmap, size: int) -> Left | None:
    """Give what lies in the ring in ``memory`` with ``size`` bytes for messages.

    ``None`` if there is nothing, or nothing legible.
    """
    with memoryview(memory) as every, every[:DATA_AT].cast("Q") as words, every[DATA_AT:] as data:
        head = dict(zip(HEAD, words[: len(HEAD)].tolist(), strict=True))
        if head["magic"] != _MAGIC or head["size"] != size:
            return None
        found = [k for k in (_kept(words, data, i) for i in range(LINES)) if k is not None]
        whole = [k for k in found if isinstance(k, Kept)]
        kept, damaged = _in_a_row(_fulfilled(whole), head["acked"]), len(found) - len(whole)
        if not kept or kept[-1].seq < head["acked"]:
            return None
        noted, told = head["noted"], kept[-1].noted
        known = min(noted - told, STAMPS)
        unsent = [words[_STAMPS_AT + (told + i) % STAMPS] for i in range(known)]
        more = noted - told - known
        last = words[_STAMPS_AT + (told - 1) % STAMPS] if told and known < STAMPS else 0
        return Left(head["epoch"], head["acked"], kept, unsent, more, last, damaged)


def _kept(words: memoryview, data: memoryview, line: int) -> Kept | bool | None:
    """Message of a line of the index; ``None`` if there is none, ``False`` if it is damaged."""
    at = _INDEX_AT + line * _LINE
    commit, seq, kind, begin, *sizes, noted, place, checksum = words[at : at + 10].tolist()
    if not commit:
        return None
    end = begin + sum(sizes)
    if commit != seq or kind >= len(_KINDS) or end > len(data):
        return False
    if _checksum(words[at + 1 : at + 9], data[begin:end]) != checksum:
        return False
    frames: list[Frame] = []
    for n in sizes:
        frames.append(bytes(data[begin : begin + n]))
        begin += n
    return Kept(seq, _KINDS[kind], frames, noted, place)


def _fulfilled(found: list[Kept]) -> list[Kept]:
    """Messages in order; a promise is the begin_run that it stands for, unless that is there."""
    promised = {k.seq: k._replace(kind="begin_run") for k in found if k.kind == _PROMISE}
    sent = {k.seq: k for k in found if k.kind != _PROMISE}
    return sorted((promised | sent).values())


def _in_a_row(found: list[Kept], acked: int) -> list[Kept]:
    """Messages up to the first one that is missing: what follows would never be accepted."""
    out = [k for k in found if k.seq <= acked]
    for k in found:
        if k.seq == max(acked, out[-1].seq if out else 0) + 1:
            out.append(k)
    return out
