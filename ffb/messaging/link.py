"""A producer's end of the lossless way.

A producer numbers its messages and keeps each until the aggregator has committed it; after every
reconnection both say where they stand and the rest is sent again, in order.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from ffb.batch import Batch
from ffb.messaging.sockets import MAGIC, NAME, PREFIX, End, Type, ms
from ffb.messaging.untrusted import Frame
from ffb.messaging.window import Sent, Window
from ffb.producing.ring import SPARE, Kept, Ring
from ffb.producing.ringfile import RingError, RingFile
from ffb.schema import Schema
from ffb.sink import Provenance
from ffb.wire import Body, Header, encode

log = logging.getLogger(__name__)

_HANDSHAKE = zmq.EVENT_HANDSHAKE_SUCCEEDED


class RefusedError(ConnectionError):
    """The aggregator does not want us, and says why."""


class Link(End):
    """A producer's end of the lossless way. One thread uses it, and pumps it often.

    ``key`` is the file with the aggregator's public CURVE key, needed for addresses of other
    hosts. Batches given to :meth:`send` belong to the link: they are kept, not copied, until
    committed. ``promised`` says that a run is being prepared whose begin_run is not sent yet.
    ``resent`` counts messages sent again after a reconnection, ``connected`` says
    whether the aggregator is there, ``held`` whether its disk keeps it from committing.

    With a ``file`` every message lies in a ring in shared memory before it is sent. Where that
    comes to an end, ``alarm`` says why, and messages go on without. ``after`` is the epoch of the
    process we succeed, whose connection may seem to stand still.
    """

    def __init__(
        self,
        address: str,
        producer: str,
        window_bytes: int = 128 << 20,
        epoch: int | None = None,
        key: Path | None = None,
        file: RingFile | None = None,
        after: int = 0,
    ) -> None:
        if not NAME.fullmatch(producer):
            raise ValueError(f"producer {producer!r}: 1 to 64 letters, digits or _ . : -")
        super().__init__(zmq.DEALER)
        self.address, self.producer = address, producer
        self.epoch = max(time.time_ns(), after + 1) if epoch is None else epoch
        self._after = after
        self.resent, self.connected, self.held = 0, False, False
        self._window = Window(window_bytes)
        self.alarm, self.promised = "", False
        self._file = file
        self._ring: Ring | None = None
        self._expected, self._fits = 0, True
        self._helloed, self._told = 0.0, 0
        self._socket.setsockopt(zmq.ROUTING_ID, f"{producer}/{self.epoch}".encode())
        self._socket.setsockopt(zmq.IMMEDIATE, 1)
        self._socket.set_hwm(0)  # the window bounds what waits here
        self._monitor = self._socket.get_monitor_socket(_HANDSHAKE | zmq.EVENT_DISCONNECTED)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)
        self._connect(address, key)

    @property
    def room(self) -> bool:
        """Whether a batch may be begun: fewer bytes and messages in flight than allowed."""
        return self._window.room and (self._ring is None or self._ring_room(self._ring))

    @property
    def unacked(self) -> int:
        """Messages sent and not yet known to be committed."""
        return len(self._window)

    @property
    def silence(self) -> str:
        """Why messages may be waiting for their acknowledgement, and where to look."""
        if self.held:
            return "the aggregator cannot write them: its log and the alarms say why"
        there = "the aggregator is there and has not committed them: see its log"
        return there if self.connected else "is the aggregator up?"

    @property
    def acked(self) -> int:
        """Number up to which all messages are known to be committed."""
        return self._window.acked

    @property
    def in_flight_bytes(self) -> int:
        """Bytes sent and not yet known to be committed."""
        return self._window.bytes

    @property
    def high_water(self) -> int:
        """The most bytes ever in flight."""
        return self._window.high_water

    @property
    def fill(self) -> float:
        """How full the window is: 1 when there is no room."""
        return self._window.fill

    @property
    def burst(self) -> bool:
        """Whether even a step or a new run has to wait."""
        return self._window.burst

    @property
    def gauges(self) -> dict[str, int]:
        """Bytes that wait, the most there ever were, and their bounds, for the status."""
        out = {
            "in_flight_bytes": self.in_flight_bytes,
            "high_water_bytes": self.high_water,
            "window_bytes": self._window.most,
            "resent": self.resent,
        }
        if (ring := self._ring) is not None:
            out["ring_bytes"] = ring.bytes
            out["ring_high_water_bytes"] = ring.high_water
            out["ring_size_bytes"] = ring.size
        return out

    def note(self, timestamp: int) -> None:
        """Note that a shot was taken, so that it is in the books should we be killed."""
        if self._ring is not None:
            self._ring.note(timestamp)

    def expect(self, size: int) -> None:
        """Say how many bytes the batches of the run may have; there is room for one, or none."""
        self._expected = size
        if self._file is not None and (most := self._window.most + SPARE) < 3 * size + SPARE // 2:
            self.unprotected(
                f"batches of {size / 1e6:.0f} MB do not fit into a ring of {most / 1e6:.0f} MB: set"
                " transport.window_mb higher or batch.shots lower"
            )

    def takes(self, size: int) -> bool:
        """Whether a message of ``size`` bytes can be sent, so that there is room for batches, too.

        One larger than the window goes when nothing else is under way.
        """
        fits = self._ring is None or self._ring.fits(size)
        alone = not self._window or self.in_flight_bytes + size < self._window.most
        return self.room and fits and alone

    def send(self, header: Header, schema: Schema | None, body: Body, place: int = 0) -> int:
        """Number a message, keep it and send it; returns its number.

        begin_run, step and end_run are always admitted, and the batch that was begun while there
        was room. ``place`` says, with a begin_run, how many shots of the run an earlier process
        has taken. Raises :class:`BufferError` when batches come in spite of a full window.
        """
        if isinstance(body, Batch) and self._window.burst:
            raise BufferError(
                f"{self.in_flight_bytes} bytes are in flight, twice the window: ask for `room`"
                " before a batch, and wait or count the shots as lost"
            )
        header = header._replace(producer=self.producer, epoch=self.epoch, seq=self._window.seq + 1)
        self.promised = self.promised and header.kind != "begin_run"
        sent = self._window.keep(header.kind, encode(header, schema, body))
        read = header.counts["read"]
        self._store(sent.size, lambda r: r.put(sent.seq, header.kind, sent.frames, read, place))
        if self.connected:
            self._data(sent)
        return sent.seq

    def promise(self, header: Header, schema: Schema, body: Provenance) -> None:
        """Say how the next message is to begin its run should we be killed before we can send it.

        Shots noted from here on are of that run; what stands there is sent by our successor alone.
        """
        seq = self._window.seq + 1
        header = header._replace(producer=self.producer, epoch=self.epoch, seq=seq)
        frames = encode(header, schema, body)
        self.promised = True
        self._store(sum(map(len, frames)), lambda ring: ring.promise(seq, frames))

    def withdraw(self) -> None:
        """Take the promise back: the run will not be begun, and its shots are in no books."""
        self.promised = False
        if self._ring is not None:
            self._ring.withdraw()

    def restore(self, messages: Iterable[Kept], acked: int) -> None:
        """Take over what an earlier process of our name and epoch had under way."""
        for m in messages:
            self._window.restore(m.seq, m.kind, m.frames)
        self._window.ack(acked)

    def status(self, numbers: Mapping[str, Any]) -> None:
        """Say how we are: not numbered, not kept, not sent while nobody listens."""
        if self.connected:
            header = Header("status", producer=self.producer, epoch=self.epoch)
            self._transmit(Type.STATUS, 0, encode(header, None, numbers))

    def pump(self, timeout_s: float = 0.0) -> None:
        """Take acknowledgements, notice lost and new connections, send again what that asks for.

        Waits for at most ``timeout_s`` for something to happen. Raises :class:`RefusedError`.
        """
        ready = dict(self._poller.poll(ms(timeout_s)))
        if self._monitor in ready:
            while self._monitor.poll(0):
                self.connected = False
                if recv_monitor_message(self._monitor)["event"] == _HANDSHAKE:
                    self._hello()
        if not self.connected and time.monotonic() - self._helloed > 0.5:
            self._hello()
        if self._socket in ready:  # to ask in vain costs more than all the rest
            with contextlib.suppress(zmq.Again):
                while True:
                    self._take(self._socket.recv_multipart(zmq.NOBLOCK))

    def drain(self, timeout_s: float) -> bool:
        """Wait until everything is committed; False when that took longer than ``timeout_s``."""
        end = time.monotonic() + timeout_s
        while self.unacked and (left := end - time.monotonic()) > 0:
            self.pump(min(left, 0.1))
        return not self.unacked

    def close(self) -> None:
        """Close the socket; what is not committed is gone, unless it lies in a ring."""
        if self.connected:
            self._transmit(Type.BYE, self._window.acked, ())
        if self._ring is not None:
            self._ring.close()
        self._socket.disable_monitor()
        self._monitor.close(0)
        super().close()

    def _store(self, size: int, put: Callable[[Ring], bool]) -> None:
        """Put a message of ``size`` bytes into the ring, which is made with the first one."""
        if (file := self._file) is None:
            return
        first, self._fits = self._ring is None, False
        try:
            ring = self._ring = self._ring or file.make(self._window.most + SPARE, self.epoch)
        except RingError as e:
            self.unprotected(str(e))
            return
        kept = put(ring)
        if first:
            file.install()
        if not kept:
            self.unprotected(f"a message of {size} bytes found no room in the ring")

    def _ring_room(self, ring: Ring) -> bool:
        """Whether a batch fits into the ring; looked up again after each change."""
        self._fits = self._fits or ring.fits(self._expected)
        if not (self._fits or self._window):
            self.unprotected(f"no room in an empty ring for {self._expected} bytes")
            return True
        return self._fits

    def unprotected(self, why: str) -> None:
        """Go on without a ring, and leave none that would tell half of the truth."""
        self.alarm = f"what {self.producer} has under way would be lost with it: {why}"
        log.error("%s", self.alarm)
        if self._ring is not None:
            self._ring.close()
        if self._file is not None:
            self._file.close(remove=True)
        self._file, self._ring = None, None

    def _release(self, seq: int) -> None:
        gone = self._window.ack(seq)
        if self._ring is not None and gone:
            self._ring.acked(seq)
            for number in gone:
                self._ring.free(number)

    def _hello(self) -> None:
        self._helloed = time.monotonic()
        who = [self.producer.encode(), self._after.to_bytes(8, "little")]
        self._transmit(Type.HELLO, self._window.acked, who)

    def _data(self, sent: Sent) -> None:
        self._told = max(self._told, sent.seq)
        self._transmit(Type.DATA, sent.seq, sent.frames)

    def _transmit(self, kind: bytes, seq: int, frames: Sequence[Frame]) -> None:
        prefix = PREFIX.pack(MAGIC, kind, self.epoch, seq)
        try:
            self._socket.send_multipart([prefix, *frames], zmq.NOBLOCK, copy=False)
        except zmq.Again:  # nobody there (IMMEDIATE): it stays in our keeping
            self.connected = False

    def _take(self, frames: list[bytes]) -> None:
        if len(frames[0]) != PREFIX.size:
            return
        magic, kind, epoch, seq = PREFIX.unpack(frames[0])
        if magic != MAGIC or epoch != self.epoch:
            return
        if kind == Type.REFUSE:
            raise RefusedError(frames[1].decode())
        self._release(seq)
        if kind == Type.ACK:
            self.held = frames[1:] == [b"\1"]
        elif kind == Type.WELCOME:
            self._window.most = min(self._window.most, int.from_bytes(frames[1], "little"))
            if not self.connected:  # a busy aggregator may answer several Hellos at once
                self._again()

    def _again(self) -> None:
        self.connected = True
        for begun in self._window.reminders():
            self._transmit(Type.REMIND, begun.seq, begun.frames)
        for sent in self._window:
            if not self.connected:
                return
            self.resent += sent.seq <= self._told
            self._data(sent)
