"""Deltas of sums on their way to the aggregator: a parcel at a time, between batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ffb.sums.held import PIECE_BYTES
from ffb.sums.piece import Parcel, SumPiece
from ffb.wire import Header

if TYPE_CHECKING:
    from ffb.messaging.link import Link

#: Bytes of a piece beside its values, at most.
_BESIDE = 1 << 10

#: So many bytes may wait however many deltas they are of.
SPARE = 16 << 20


def parcels(pieces: Iterable[SumPiece]) -> Iterator[Parcel]:
    """Put pieces together, in order, as long as they have no more bytes than one may have."""
    some: list[SumPiece] = []
    for piece in pieces:
        if some and sum(p.values.nbytes + _BESIDE for p in (*some, piece)) > PIECE_BYTES:
            yield Parcel(tuple(some))
            some = []
        some.append(piece)
    if some:
        yield Parcel(tuple(some))


class Outbox:
    """Parcels that wait for room in the window of ``link``; ``bytes`` are theirs.

    A delta that follows while one still waits holds as much again, so that from some bytes on there
    is no :attr:`room` for shots then: they wait, or are shed, as they are while the window is full.
    """

    def __init__(self, link: Link) -> None:
        self._link, self._waiting = link, deque[tuple[Header, Parcel]]()
        self.bytes = 0
        self._newest = 0  # bytes of the newest delta

    def __bool__(self) -> bool:
        return bool(self._waiting)

    @property
    def room(self) -> bool:
        """Whether another delta may follow, so that shots may be taken."""
        return self.bytes <= max(self._newest, SPARE)

    def put(self, head: Header, pieces: Iterable[SumPiece]) -> None:
        """Take a delta; ``head`` says which run it is of."""
        if new := [(head._replace(kind="sum", losses=()), p) for p in parcels(pieces)]:
            self._waiting.extend(new)
            self._newest = sum(_size(p) for _, p in new)
            self.bytes += self._newest

    def send(self, counts: Mapping[str, Any]) -> bool:
        """Send the next parcel if there is room for it, and more if shots wait for that.

        ``counts`` are the books as of the message before, which may be a later batch than the last
        of the delta: books never go back. Returns whether anything went.
        """
        sent = self._send(counts)
        while sent and not self.room and self._send(counts):
            pass
        return sent

    def _send(self, counts: Mapping[str, Any]) -> bool:
        if not self._waiting or not self._link.takes(_size(self._waiting[0][1])):
            return False
        head, parcel = self._waiting.popleft()
        self.bytes -= _size(parcel)
        self._link.send(head._replace(counts=counts), None, parcel)
        return True


def _size(parcel: Parcel) -> int:
    return sum(p.values.nbytes + _BESIDE for p in parcel.pieces)
